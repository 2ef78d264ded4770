"""What goes wrong, and how much of it is borne. Pure.

Two budgets a group, `replay.retries` each: *infrastructure* (a worker died or failed; another one is tried) and *data*
(the group itself cannot be worked, or its verdicts were timeouts and errors). Above the budget the group is dropped for
its reason and never becomes reward. Above `replay.failures_per_100` dropped groups the run fails.
"""

from __future__ import annotations

from typing import Literal

from rlsp_async.messages import Drain, Revoke
from rlsp_async.replay.crew import Lease
from rlsp_async.replay.heads import FAILURES, Event, Reason
from rlsp_async.replay.state import Effects, HubState

FIRST_OUTCOMES = 50


def fail_run(state: HubState, out: Effects, message: str, now: float) -> None:
    """The run cannot succeed: everybody is sent home and the message is the reason. The first message stays."""
    if state.ending in ("failed", "finished"):
        return
    state.ending, state.ending_since_s, state.message = "failed", now, message
    for worker in state.crew.workers.values():
        if worker.role != "observer":
            out.sends.append((worker.peer, Drain(reason=message)))


def lose_lease(state: HubState, out: Effects, lease: Lease, why: str, now: float) -> None:
    """A released lease was lost to infrastructure: its work goes to the front of the queue, elsewhere if possible."""
    if lease.kind == "train":
        requeue_step(state, lease.key)
        return
    state.avoid[lease.key] = lease.worker
    charge(state, out, lease.key, lease.kind, "lost", f"{lease.worker}: {why}", now)


def charge(state: HubState, out: Effects, group_id: int, kind: Literal["sample", "verify"],
           budget: Literal["lost", "faults"], why: str, now: float) -> None:
    """Charges one budget of a group, then queues it again or drops it."""
    head = state.ledger.heads.get(group_id)
    if head is None or head.state != ("issued" if kind == "sample" else "sampled"):
        return
    state.last_error = f"group {group_id} ({head.stage}): {why}"
    record = state.ledger.blame(group_id, **{budget: 1})
    if max(record.head.lost, record.head.faults) <= state.cfg.replay.retries:
        out.records.append(record)
        (state.to_sample if kind == "sample" else state.to_verify).appendleft(group_id)
        return
    reason: Reason = "quarantined" if budget == "lost" else "sampler_error" if kind == "sample" else "verifier_error"
    out.records.append(Event(kind="quarantined", at_s=now, key=group_id, detail=f"{reason}: {why}"))
    drop(state, out, group_id, reason, now, why)


def drop(state: HubState, out: Effects, group_id: int, reason: Reason, now: float, why: str = "") -> None:
    """Drops a group; a failure counts against the budget of the run."""
    out.records.append(state.ledger.drop(group_id, reason, why))
    state.avoid.pop(group_id, None)
    if reason in FAILURES:
        outcome(state, out, False, now)


def outcome(state: HubState, out: Effects, good: bool, now: float) -> None:
    """Counts one group that became ready (good) or was dropped because something failed."""
    state.outcomes.append(good)
    num_bad = state.outcomes.count(False) if not good else 0
    limit = state.cfg.replay.failures_per_100
    if len(state.outcomes) >= FIRST_OUTCOMES and 100.0 * num_bad > limit * len(state.outcomes):
        where = state.phase.stage if state.phase else "the end"
        fail_run(state, out, f"stage {where}: {num_bad} of the last {len(state.outcomes)} groups failed, more than "
                 f"replay.failures_per_100 = {limit:g}; the last one: {state.last_error}", now)


def requeue_step(state: HubState, step: int) -> None:
    """A train lease is void: its step is sent again, and what was sent after it too, in order."""
    held = {lease.key for lease in state.crew.leases.values() if lease.kind == "train"}
    steps = {step, *state.to_train} - held
    state.to_train.clear()
    state.to_train.extend(sorted(steps))


def void(state: HubState, out: Effects, kind: Literal["sample", "verify"], group_id: int, reason: str) -> None:
    """Takes a group out of its worker's hands, if it is in any: its result is not wanted any more."""
    held = state.crew.holders.get((kind, group_id))
    if held is None:
        return
    state.crew.release(held.lease)
    worker = state.crew.workers.get(held.worker)
    if worker is not None:
        out.sends.append((worker.peer, Revoke(lease=held.lease, reason=reason)))
