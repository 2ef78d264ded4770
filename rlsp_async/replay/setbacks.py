"""What goes wrong, and how much of it is borne. Pure.

Two budgets a group, `replay.retries` each: *infrastructure* (a worker failed; another one is tried) and *data* (the
group itself cannot be worked, or its verdicts were timeouts and errors). A group that was in the hands of three workers
when they died is taken for their death. Above a budget the group is dropped for its reason and never becomes reward.
What was lost on the way or given back is nobody's fault. Above `replay.failures_per_100` dropped groups the run fails.
"""

from __future__ import annotations

from typing import Literal

from rlsp_async.messages import Drain, Revoke
from rlsp_async.replay.records import FAILURES, Event, Reason
from rlsp_async.replay.state import Effects, HubState
from rlsp_async.replay.workers import Lease

FIRST_OUTCOMES = 50
POISON_DEATHS = 3
"""So many workers died with a group in their hands: it is quarantined (dask's rule of the killed worker)."""
RETURNS_BORNE = 30
"""So often a lease of one group may be lost on the way or given back before that counts as a failure."""

Fate = Literal["died", "failed", "returned"]
"""How a lease was lost: its worker died; its worker or engine failed; it was lost on the way or given back."""


def fail_run(state: HubState, out: Effects, message: str, now: float) -> None:
    """The run cannot succeed: everybody is sent home and the message is the reason. The first message stays."""
    if state.ending in ("failed", "finished"):
        return
    state.ending, state.ending_since_s, state.message = "failed", now, message
    out.records.append(Event(kind="failed", at_s=now, key=state.step, detail=message))
    for worker in state.crew.workers.values():
        if worker.role != "observer":
            out.sends.append((worker.peer, Drain(reason=message)))


def lose_lease(
    state: HubState, out: Effects, lease: Lease, why: str, now: float, fate: Fate = "failed", incarnation: int = 0
) -> None:
    """A released lease was lost to infrastructure: its work goes to the front of the queue, elsewhere if possible.

    `incarnation`: of the worker that died, so that one which is silent twice counts as one death.
    """
    out.records.append(
        Event(kind="lease_lost", at_s=now, worker=lease.worker, key=lease.key, detail=f"{lease.kind}, {fate}: {why}")
    )
    if lease.kind == "train":
        requeue_step(state, lease.key)
        return
    if fate == "returned" and state.returns[lease.key] < RETURNS_BORNE:
        state.returns[lease.key] += 1
        _queue_again(state, lease.kind, lease.key)
        return
    state.avoid[lease.key] = lease.worker
    why = f"{lease.worker}: {why}"
    killed = state.killed.setdefault(lease.key, set())
    if fate == "died" and (lease.worker, incarnation) in killed:
        _queue_again(state, lease.kind, lease.key)
    else:
        killed.update({(lease.worker, incarnation)} if fate == "died" else ())
        charge(state, out, lease.key, lease.kind, "deaths" if fate == "died" else "lost", why, now)


def _queue_again(state: HubState, kind: Literal["sample", "verify"], group_id: int) -> None:
    head = state.ledger.heads.get(group_id)
    if head is not None and head.state == ("issued" if kind == "sample" else "sampled"):
        (state.to_sample if kind == "sample" else state.to_verify).appendleft(group_id)


def charge(
    state: HubState,
    out: Effects,
    group_id: int,
    kind: Literal["sample", "verify"],
    budget: Literal["lost", "deaths", "faults"],
    why: str,
    now: float,
) -> None:
    """Charges one budget of a group, then queues it again or drops it."""
    head = state.ledger.heads.get(group_id)
    if head is None or head.state != ("issued" if kind == "sample" else "sampled"):
        return
    state.last_error = f"group {group_id} ({head.stage}): {why}"
    record = state.ledger.blame(group_id, **{budget: 1})
    if max(record.head.lost, record.head.faults) <= state.cfg.replay.retries and record.head.deaths < POISON_DEATHS:
        out.records.append(record)
        _queue_again(state, kind, group_id)
        return
    if budget == "deaths":
        why = f"{record.head.deaths} workers died with it in their hands, last {why}"
    reason: Reason = "quarantined" if budget != "faults" else "sampler_error" if kind == "sample" else "verifier_error"
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
        fail_run(
            state,
            out,
            f"stage {where}: {num_bad} of the last {len(state.outcomes)} groups failed, more than "
            f"replay.failures_per_100 = {limit:g}; the last one: {state.last_error}",
            now,
        )


def requeue_step(state: HubState, step: int) -> None:
    """A train lease is void: its step is sent again, and what was sent after it too, in order.

    Not a step that was reported, and that the learner has left behind (it can answer only its newest ones) or that no
    kept checkpoint needs: it would be refused for ever, and hold up the steps after it.
    """
    held = {lease.key for lease in state.crew.leases.values() if lease.kind == "train"}
    steps = {step, *state.to_train} - held
    state.to_train.clear()
    state.to_train.extend(
        sorted(step for step in steps if step in state.manifests and (step > state.step or step >= state.learner_step))
    )


def void(state: HubState, out: Effects, kind: Literal["sample", "verify"], group_id: int, reason: str) -> None:
    """Takes a group out of its worker's hands, if it is in any: its result is not wanted any more."""
    held = state.crew.holders.get((kind, group_id))
    if held is None:
        return
    state.crew.release(held.lease)
    worker = state.crew.workers.get(held.worker)
    if worker is not None:
        out.sends.append((worker.peer, Revoke(lease=held.lease, reason=reason)))
