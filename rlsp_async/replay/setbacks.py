"""What goes wrong, and how much of it is borne. Pure.

Two budgets a group, `replay.retries` each: *infrastructure* (a worker died or failed; another one is tried) and *data*
(the group itself cannot be worked, or its verdicts were timeouts and errors). Above the budget the group is dropped for
its reason and never becomes reward; so is a group with whose leases POISON different workers died. Above
`replay.failures_per_100` dropped groups the run fails. A lease that was returned, or a message about it lost, is
charged to nobody; only MISLAID_MOST such losses of one group are.
"""

from __future__ import annotations

from typing import Literal

from rlsp_async.messages import Drain, Revoke
from rlsp_async.replay.crew import Lease
from rlsp_async.replay.heads import FAILURES, Event, Reason
from rlsp_async.replay.state import Effects, HubState

FIRST_OUTCOMES = 50
POISON = 3
MISLAID_MOST = 30


def fail_run(state: HubState, out: Effects, message: str, now: float) -> None:
    """The run cannot succeed: everybody is sent home and the message is the reason. The first message stays."""
    if state.ending in ("failed", "finished"):
        return
    state.ending, state.ending_since_s, state.message = "failed", now, message
    out.records.append(Event(kind="failed", at_s=now, key=state.step, detail=message))
    for worker in state.crew.workers.values():
        if worker.role != "observer":
            out.sends.append((worker.peer, Drain(reason=message)))


def lose_lease(state: HubState, out: Effects, lease: Lease, why: str, now: float, died: int | None = None) -> None:
    """A released lease was lost to infrastructure: its work goes to the front of the queue, elsewhere if possible.

    `died`: incarnation of its worker, when that is dead or silent.
    """
    out.records.append(Event(kind="lease_lost", at_s=now, worker=lease.worker, key=lease.key, detail=why))
    if lease.kind == "train":
        requeue_step(state, lease.key)
        return
    state.avoid[lease.key] = lease.worker
    deaths = state.deaths.setdefault(lease.key, set())
    if died is not None:
        deaths.add((lease.worker, died))
    why = f"{lease.worker}: {why}"
    if len(deaths) >= POISON and lease.key in state.ledger.heads:
        names = ", ".join(sorted({name for name, _ in deaths}))
        why = f"{len(deaths)} workers died with it ({names}); the last: {why}"
        give_up(state, out, lease.key, "quarantined", why, now)
        return
    charge(state, out, lease.key, lease.kind, "lost", why, now)


def mislay(state: HubState, out: Effects, lease: Lease, now: float) -> None:
    """The Work of a released lease, or the answer to it, was lost on the way. Many such losses are a fault."""
    state.num_mislaid += 1
    state.mislaid[lease.key] += lease.kind != "train"
    if state.mislaid[lease.key] > MISLAID_MOST:
        state.mislaid.pop(lease.key)
        lose_lease(state, out, lease, f"{MISLAID_MOST} messages about it were lost", now)
        return
    out.records.append(Event(kind="lease_lost", at_s=now, worker=lease.worker, key=lease.key,
                             detail="a message was lost on the way"))
    give_again(state, lease)


def give_again(state: HubState, lease: Lease) -> None:
    """The work of a released lease goes to the front of its queue; nobody is charged."""
    if lease.kind == "train":
        requeue_step(state, lease.key)
        return
    queue = state.to_sample if lease.kind == "sample" else state.to_verify
    head = state.ledger.heads.get(lease.key)
    if head is not None and head.state == ("issued" if lease.kind == "sample" else "sampled"):
        queue.appendleft(lease.key)


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
    give_up(state, out, group_id, reason, why, now)


def give_up(state: HubState, out: Effects, group_id: int, reason: Reason, why: str, now: float) -> None:
    """Drops a group that failed, with its reason."""
    state.last_error = f"group {group_id}: {why}"
    out.records.append(Event(kind="quarantined", at_s=now, key=group_id, detail=f"{reason}: {why}"))
    drop(state, out, group_id, reason, now, why)


def drop(state: HubState, out: Effects, group_id: int, reason: Reason, now: float, why: str = "") -> None:
    """Drops a group; a failure counts against the budget of the run."""
    out.records.append(state.ledger.drop(group_id, reason, why))
    state.forget(group_id)
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
