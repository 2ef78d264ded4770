"""Names what a run that does not move is waiting for: first it warns, then it fails the run. Pure.

Warned of: a run in which nothing has moved for half of `replay.stall_s`, and a learner that has trained one step SLOW
times as long as its usual step. The warning is `Status.message` and an Event; it goes when the line moves again.
"""

from __future__ import annotations

from statistics import median

from rlsp_async.messages import Role
from rlsp_async.replay.records import Event
from rlsp_async.replay.sampling_work import may_sample
from rlsp_async.replay.setbacks import fail_run
from rlsp_async.replay.state import Effects, HubState

_POSTS: tuple[tuple[Role, str, str], ...] = (("verifier", "verify", "to_verify"), ("sampler", "sample", "to_sample"))


SLOW = 10.0
SLOW_S = 30.0
"""A step that takes less is not worth a word."""


def watch(state: HubState, out: Effects, now: float) -> None:
    """Warns when nothing moved for half of `replay.stall_s`, fails the run after the whole."""
    if state.ending or state.disk.is_paused:  # a full disk is the culprit, and has its own bound
        return
    still_s, stall_s = now - state.progress_s, state.cfg.replay.stall_s
    if still_s > stall_s:
        fail_run(
            state,
            out,
            f"nothing moved for {still_s:.0f} s (replay.stall_s = {stall_s:g}), "
            f"since {state.progress_what}: {waiting_for(state, now)}",
            now,
        )
    elif still_s > stall_s / 2:
        _warn(
            state,
            out,
            ("nothing moved", state.progress_s),
            f"nothing moved for {still_s:.0f} s, since "
            f"{state.progress_what}: {waiting_for(state, now)}; the run is stopped after {stall_s:g} s",
            now,
        )
    else:
        slow = _slow_step(state, now)
        if slow:
            _warn(state, out, (f"step {state.step + 1}", state.stepped_s), slow, now)
        elif state.stalled is not None:
            state.stalled, state.message = None, ""


def _warn(state: HubState, out: Effects, of: tuple[str, float], message: str, now: float) -> None:
    """Once for each stall."""
    if state.stalled == of:
        return
    state.stalled, state.message = of, message
    out.records.append(Event(kind="stalled", at_s=now, key=state.step, detail=message))


def _slow_step(state: HubState, now: float) -> str:
    """The learner has held a step far longer than usual."""
    lease = state.crew.holders.get(("train", state.step + 1))
    if lease is None or not state.step_seconds:
        return ""
    usual_s, held_s = median(state.step_seconds), now - max(lease.since_s, state.stepped_s)
    if held_s <= max(SLOW_S, SLOW * usual_s):
        return ""
    return f"{lease.worker} has held step {lease.key} for {held_s:.0f} s; its steps usually take {usual_s:.1f} s"


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
    if state.stage is not None and state.stage.source != "rollouts":
        return state.stage.source
    return f"a sampler that serves version {state.version}; {_known(state, 'sampler')}"


def _learner(state: HubState, now: float) -> str:
    learner = state.crew.learner()
    if learner is None:
        return "the learner: none is connected"
    if learner.leases:
        lease = min(learner.leases.values(), key=lambda held: held.since_s)
        return f"{learner.name}, which has held step {lease.key} for {now - lease.since_s:.0f} s"
    said = f"; {state.last_error}" if "has not trained" in state.last_error else ""
    return f"{learner.name}, which has credit {learner.credit} and state {learner.state!r}{said}"


def _known(state: HubState, role: Role) -> str:
    workers = state.crew.of(role)
    if not workers:
        return f"no {role} is connected"
    if role == "sampler":
        idle = [w for w in workers if not may_sample(state, w)]
        if idle:
            return ", ".join(f"{w.name} serves version {w.version} ({w.state})" for w in idle[:4])
    return ", ".join(f"{w.name} holds {len(w.leases)} of {w.credit}" for w in workers[:4])
