"""Names what a run that does not move is waiting for. Pure."""

from __future__ import annotations

from rlsp_async.messages import Role
from rlsp_async.replay.sampling_work import may_sample
from rlsp_async.replay.setbacks import fail_run
from rlsp_async.replay.state import Effects, HubState

_POSTS: tuple[tuple[Role, str, str], ...] = (("verifier", "verify", "to_verify"), ("sampler", "sample", "to_sample"))


def watch(state: HubState, out: Effects, now: float) -> None:
    """Fails the run when nothing moved for `replay.stall_s`."""
    still_s = now - state.progress_s
    if not state.ending and still_s > state.cfg.replay.stall_s:
        fail_run(state, out, f"nothing moved for {still_s:.0f} s (replay.stall_s = {state.cfg.replay.stall_s:g}), "
                 f"since {state.progress_what}: {waiting_for(state, now)}", now)


def waiting_for(state: HubState, now: float) -> str:
    """One sentence: which stage waits for which worker, since when, for what."""
    phase = state.phase
    if phase is None:
        return "every stage is complete"
    where = f"stage {phase.stage}" if phase.kind == "train" else f"evaluation {phase.key!r}"
    return f"{where} waits for {_what(state, now)}"


def _what(state: HubState, now: float) -> str:
    held = sorted(state.crew.leases.values(), key=lambda lease: lease.since_s)
    training = [lease for lease in held if lease.kind == "train"]
    if training or state.to_train:
        return _learner(state, now)
    for role, kind, queue in _POSTS:
        lease = next((lease for lease in held if lease.kind == kind), None)
        if lease is not None:
            return f"{lease.worker}, which has held group {lease.key} for {now - lease.since_s:.0f} s"
        num = len(getattr(state, queue))
        if num:
            return f"a {role} to take {num} groups; {_known(state, role)}"
    if state.stage is not None and len(state.ledger.ready) >= state.stage.groups_per_step:
        return _learner(state, now)
    if state.stage is not None and state.stage.source == "demonstrations":
        return "demonstrations"
    return f"a sampler that serves version {state.version}; {_known(state, 'sampler')}"


def _learner(state: HubState, now: float) -> str:
    learner = state.crew.learner()
    if learner is None:
        return "the learner: none is connected"
    if learner.leases:
        lease = min(learner.leases.values(), key=lambda held: held.since_s)
        return f"{learner.name}, which has held step {lease.key} for {now - lease.since_s:.0f} s"
    return f"{learner.name}, which has credit {learner.credit} and state {learner.state!r}"


def _known(state: HubState, role: Role) -> str:
    workers = state.crew.of(role)
    if not workers:
        return f"no {role} is connected"
    if role == "sampler":
        idle = [w for w in workers if not may_sample(state, w)]
        if idle:
            return ", ".join(f"{w.name} serves version {w.version} ({w.state})" for w in idle[:4])
    return ", ".join(f"{w.name} holds {len(w.leases)} of {w.credit}" for w in workers[:4])
