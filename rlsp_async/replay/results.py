"""What becomes of a lease's answer: Done and Failed. Pure.

A result is bound to its lease: a verifier cannot judge a group that it was not given, nor anybody answer in another
role. Every Done is acknowledged once what it holds is in (or was in before), except the report of a step that overtook
the one before it: its learner says it again.
"""

from __future__ import annotations

from rlsp_async.messages import Ack, Done, Failed, Revoke, RolloutGroup, VerdictSet
from rlsp_async.replay.lines import lease_span
from rlsp_async.replay.records import Event
from rlsp_async.replay.sampling_work import accept_group
from rlsp_async.replay.setbacks import charge, fail_run, lose_lease, requeue_step
from rlsp_async.replay.state import Effects, HubState
from rlsp_async.replay.train_work import accept_report
from rlsp_async.replay.verify_work import accept_verdicts
from rlsp_async.replay.workers import Lease, Worker


def done(state: HubState, out: Effects, worker: Worker, message: Done, now: float) -> None:
    """The result of a lease came: for the first time, again, or late."""
    crew = state.crew
    if message.lease in crew.acked:
        state.num_duplicates += bool(message.groups or message.verdicts or message.steps)
        out.sends.append((worker.peer, Ack(lease=message.lease)))
        return
    if worker.role == "learner":
        for report in message.steps:
            if not accept_report(state, out, report, now):
                return
    lease = release_of(state, worker, message.lease)
    for group in message.groups:
        _group(state, out, worker, lease, group, now)
    for verdicts in message.verdicts:
        _verdicts(state, out, worker, lease, verdicts, now)
    if lease is not None:
        out.lines.append(lease_span(lease, now))
        _unanswered(state, out, lease, now)
    crew.acknowledge(message.lease)
    out.sends.append((worker.peer, Ack(lease=message.lease)))


def release_of(state: HubState, worker: Worker, number: int) -> Lease | None:
    """Ends a lease of this worker; None when it has no such lease (any more)."""
    return state.crew.release(number) if number in worker.leases else None


def _group(state: HubState, out: Effects, worker: Worker, lease: Lease | None, group: RolloutGroup, now: float) -> None:
    """Rollouts of a lease that was taken back may still be the first."""
    if worker.role != "sampler" or (lease is not None and lease.key != group.group_id):
        return
    if not accept_group(state, out, group, now):
        _late(state, out, worker, group.group_id, now)


def _verdicts(
    state: HubState, out: Effects, worker: Worker, lease: Lease | None, verdicts: VerdictSet, now: float
) -> None:
    """Only for the group that was leased: verdicts do not say themselves what they are about."""
    if worker.role != "verifier" or (lease is not None and lease.key != verdicts.group_id):
        return
    if lease is None or not accept_verdicts(state, out, verdicts, now):
        _late(state, out, worker, verdicts.group_id, now)


def _late(state: HubState, out: Effects, worker: Worker, group_id: int, now: float) -> None:
    state.num_duplicates += 1
    out.records.append(
        Event(
            kind="dropped_late",
            at_s=now,
            worker=worker.name,
            key=group_id,
            detail="its lease was taken back, and the group has gone on without it",
        )
    )


def _unanswered(state: HubState, out: Effects, lease: Lease, now: float) -> None:
    """A Done that did not hold what its lease was for: the work is not done."""
    if lease.kind == "train":
        if lease.key > state.step and state.ending != "failed":
            requeue_step(state, lease.key)
        return
    queue = state.to_sample if lease.kind == "sample" else state.to_verify
    head = state.ledger.heads.get(lease.key)
    waits = head is not None and head.state == ("issued" if lease.kind == "sample" else "sampled")
    if waits and lease.key not in queue and (lease.kind, lease.key) not in state.crew.holders:
        charge(state, out, lease.key, lease.kind, "faults", f"{lease.worker} answered without the result", now)


def failed(state: HubState, out: Effects, worker: Worker, message: Failed, now: float) -> None:
    """A lease ended without a result."""
    lease = release_of(state, worker, message.lease)
    if lease is None:
        return
    if message.kind == "returned":
        worker.state = "draining"  # no work until its next Ping: it has just said that it takes none
    if lease.kind == "train":
        _failed_step(state, out, worker, lease, message, now)
    elif message.kind != "data":
        lose_lease(state, out, lease, message.error, now, "returned" if message.kind == "returned" else "failed")
    else:
        charge(state, out, lease.key, lease.kind, "faults", f"{lease.worker}: {message.error}", now)


def _failed_step(state: HubState, out: Effects, worker: Worker, lease: Lease, message: Failed, now: float) -> None:
    state.last_error = f"{worker.name} has not trained step {lease.key}: {message.error}"
    state.train_failures += message.kind != "returned"
    if message.kind == "data" or state.train_failures > state.cfg.replay.retries:
        fail_run(state, out, f"{worker.name} cannot train step {lease.key}: {message.error}", now)
        return
    for other in [held for held in worker.leases.values() if held.key > lease.key]:
        state.crew.release(other.lease)  # what was sent after it must not be trained before it
        out.sends.append((worker.peer, Revoke(lease=other.lease, reason=f"step {lease.key} comes first")))
        requeue_step(state, other.key)
    requeue_step(state, lease.key)
