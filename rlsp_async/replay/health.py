"""Whether the run moves, and what observers see of it. Pure.

The watchdog names what a run that does not move is waiting for: it first warns, then fails the run. It warns of a run
in which nothing has moved for half of `replay.stall_s`, and of a learner that has held one step SLOW times as long as
its steps usually take. The warning is `Status.message` and an Event; it is taken back when the run moves again.
"""

from __future__ import annotations

from itertools import islice
from statistics import median

import msgspec

from rlsp_async.messages import Role, Status, WorkerStatus
from rlsp_async.replay import evaluation
from rlsp_async.replay.sample import may_issue, may_sample
from rlsp_async.replay.state import HubState
from rlsp_async.replay.turn import Turn
from rlsp_async.replay.workers import Worker

SLOW = 10.0
SLOW_S = 30.0
"""A step that takes less than this is never called slow."""
WORKERS_NAMED = 4
WORKERS_SHOWN = 1024
"""Most workers in a Status."""
MESSAGE_CHARACTERS = 2000
"""Longest message in a Status."""


# --- watchdog --------------------------------------------------------------------------------------------------------


def watch(turn: Turn) -> None:
    """Warns when nothing moved for half of `replay.stall_s`; fails the run after the whole of it."""
    state, pace = turn.state, turn.state.pace
    if state.ending.has_begun or state.disk.is_paused:  # a run that is paused by its disk has a bound of its own
        return
    still_s, stall_s = turn.now - pace.progress_s, state.cfg.replay.stall_s
    if still_s > stall_s:
        turn.fail_run(
            f"nothing moved for {still_s:.0f} s (replay.stall_s = {stall_s:g}), "
            f"since {pace.progress_what}: {waiting_for(state, turn.now)}"
        )
    elif still_s > stall_s / 2:
        message = (
            f"nothing moved for {still_s:.0f} s, since "
            f"{pace.progress_what}: {waiting_for(state, turn.now)}; the run is stopped after {stall_s:g} s"
        )
        _warn(turn, ("nothing moved", pace.progress_s), message)
    else:
        slow = _slow_step(state, turn.now)
        if slow:
            _warn(turn, (f"step {state.step + 1}", pace.stepped_s), slow)
        elif pace.stalled is not None:
            pace.warned(None)
            state.ending.say("")


def _warn(turn: Turn, of: tuple[str, float], message: str) -> None:
    """Warns once for each stall."""
    if turn.state.pace.stalled != of:
        turn.state.pace.warned(of)
        turn.state.ending.say(message)
        turn.event("stalled", key=turn.state.step, detail=message)


def _slow_step(state: HubState, now: float) -> str:
    """A sentence when the learner has held a step far longer than usual; else empty."""
    lease, pace = state.table.holders.get(("train", state.step + 1)), state.pace
    if lease is None or not pace.step_seconds:
        return ""
    usual_s, held_s = median(pace.step_seconds), now - max(lease.since_s, pace.stepped_s)
    if held_s <= max(SLOW_S, SLOW * usual_s):
        return ""
    return f"{lease.worker} has held step {lease.key} for {held_s:.0f} s; its steps usually take {usual_s:.1f} s"


def waiting_for(state: HubState, now: float) -> str:
    """One sentence: which stage waits for which worker, since when, for what."""
    phase = state.phase
    if phase is None:
        return "every stage is complete"
    where = f"stage {phase.stage}" if phase.kind == "train" else f"evaluation {phase.key!r}"
    return f"{where} waits for {_culprit(state, now)}"


def _culprit(state: HubState, now: float) -> str:
    if state.table.leased_steps() or state.training.to_train:
        return _learner(state, now)
    held = sorted(state.table.leases.values(), key=lambda lease: lease.since_s)
    for post in (state.queues.verify, state.queues.sample):
        lease = next((lease for lease in held if lease.kind == post.kind), None)
        if lease is not None:
            return f"{lease.worker}, which has held group {lease.key} for {now - lease.since_s:.0f} s"
        if post.queue:
            return f"a {post.role} to take {len(post.queue)} groups; {_workers_of(state, post.role)}"
    if state.stage is not None and len(state.ledger.ready) >= state.stage.groups_per_step:
        return _learner(state, now)
    if state.stage is not None and state.stage.source != "rollouts":
        return state.stage.source
    return f"a sampler that serves version {state.version}; {_workers_of(state, 'sampler')}"


def _learner(state: HubState, now: float) -> str:
    learner = state.table.learner()
    if learner is None:
        return "the learner: none is connected"
    if learner.leases:
        lease = min(learner.leases.values(), key=lambda held: held.since_s)
        return f"{learner.name}, which has held step {lease.key} for {now - lease.since_s:.0f} s"
    error = state.ending.last_error
    said = f"; {error}" if "has not trained" in error else ""
    return f"{learner.name}, which has credit {learner.credit} and state {learner.state!r}{said}"


def _workers_of(state: HubState, role: Role) -> str:
    workers = state.table.with_role(role)
    if not workers:
        return f"no {role} is connected"
    if role == "sampler":
        idle = [w for w in workers if not may_sample(state, w)]
        if idle:
            return ", ".join(f"{w.name} serves version {w.version} ({w.state})" for w in idle[:WORKERS_NAMED])
    return ", ".join(f"{w.name} holds {len(w.leases)} of {w.credit}" for w in workers[:WORKERS_NAMED])


# --- status ----------------------------------------------------------------------------------------------------------


def status(state: HubState, now: float) -> Status:
    """The run at this moment, for observers."""
    stage = state.phase.stage if state.phase else next(reversed(state.cfg.stages))
    first, last = state.plan.first_step[stage], state.plan.last_step[stage]
    return Status(
        run=state.cfg.name,
        stage=stage,
        phase=_phase(state),
        stage_step=max(0, min(state.step, last) - first + 1),
        stage_steps=last - first + 1,
        step=state.step,
        version=state.version,
        seconds=now,
        counts=_counts(state),
        tokens=state.ledger.tokens(),
        metrics=dict(state.pace.figures),
        workers=_worker_statuses(state, now),
        seconds_left=seconds_left(state, now),
        message=state.ending.message[:MESSAGE_CHARACTERS],
        evaluated=num_evaluated(state),
        to_evaluate=evaluation.num_prompts(state) if state.phase and state.phase.kind == "evaluate" else 0,
    )


def num_evaluated(state: HubState) -> int:
    """Number of prompts of the current evaluation that are verified or were dropped; 0 outside of an evaluation."""
    phase = state.phase
    if phase is None or phase.kind != "evaluate":
        return 0
    mine = [record for record in state.ledger.records.values() if record.evaluation == phase.key]
    return state.counters[phase.key] - sum(record.state != "ready" for record in mine)


def seconds_left(state: HubState, now: float) -> float:
    """Time until the current phase is complete, from the pace of its last steps or of its prompts so far.

    -1 when nothing is known yet.
    """
    phase = state.phase
    if phase is None:
        return 0.0
    if phase.kind == "train":
        durations = state.pace.step_seconds
        if not durations:
            return -1.0
        return sum(durations) / len(durations) * (state.plan.last_step[phase.stage] - state.step)
    num_ready = num_evaluated(state)
    if num_ready < 1:
        return -1.0
    return (now - state.phase_since_s) / num_ready * (evaluation.num_prompts(state) - num_ready)


def _worker_statuses(state: HubState, now: float) -> list[WorkerStatus]:
    """All workers except observers. A sampler that has nothing to do because every slot is taken waits for credit."""
    is_full = state.stage is not None and not state.queues.sample.queue and not may_issue(state)

    def shown(worker: Worker) -> WorkerStatus:
        plain = worker.status(now)
        if is_full and worker.role == "sampler" and worker.state == "waiting_work" and may_sample(state, worker):
            return msgspec.structs.replace(plain, state="waiting_credit")
        return plain

    working = (worker for worker in state.table.workers.values() if worker.role != "observer")
    return [shown(worker) for worker in islice(working, WORKERS_SHOWN)]


def _phase(state: HubState) -> str:
    if state.ending.has_begun:
        return state.ending.kind
    return "evaluating" if state.phase and state.phase.kind == "evaluate" else "running"


def _counts(state: HubState) -> dict[str, int]:
    """The slot law's numbers, live groups by state, drops by reason, queue depths, leases by kind."""
    ledger = state.ledger
    leased = [lease.kind for lease in state.table.leases.values()]
    return {
        **ledger.counts(),
        "sampled": ledger.by_state["sampled"],
        "ready": ledger.by_state["ready"],
        "training": ledger.by_state["training"],
        "sampling": leased.count("sample"),
        "verifying": leased.count("verify"),
        "capacity": state.stage.capacity if state.stage else 0,
        "evaluating": sum(record.purpose == "evaluate" for record in ledger.records.values()),
        "queue_sample": len(state.queues.sample.queue),
        "queue_verify": len(state.queues.verify.queue),
        "queue_train": len(state.training.to_train),
        "duplicates": state.num_duplicates,
        **{f"dropped.{reason}": num for reason, num in sorted(ledger.dropped.items())},
    }
