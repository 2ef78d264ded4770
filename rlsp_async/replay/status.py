"""What an observer sees. Pure."""

from __future__ import annotations

import msgspec

from rlsp_async.messages import Status, WorkerStatus
from rlsp_async.replay.sampling_work import may_issue, may_sample, num_evaluation_prompts
from rlsp_async.replay.state import HubState
from rlsp_async.replay.workers import Worker


def status(state: HubState, now: float) -> Status:
    """The run at this moment."""
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
        metrics=dict(state.metrics),
        workers=_workers(state, now),
        seconds_left=seconds_left(state, now),
        message=state.message,
    )


def seconds_left(state: HubState, now: float) -> float:
    """Of the phase at hand, from the pace of its last steps (or of its prompts so far); -1 when unknown."""
    phase = state.phase
    if phase is None:
        return 0.0
    if phase.kind == "train":
        if not state.step_seconds:
            return -1.0
        mean_s = sum(state.step_seconds) / len(state.step_seconds)
        return mean_s * (state.plan.last_step[phase.stage] - state.step)
    judged = sum(1 for h in state.ledger.heads.values() if h.evaluation == phase.key and h.state == "ready")
    if not judged:
        return -1.0
    return (now - state.phase_since_s) / judged * (num_evaluation_prompts(state) - judged)


def _workers(state: HubState, now: float) -> list[WorkerStatus]:
    """All but the observers. A sampler that has nothing to do because every slot is taken waits for credit."""
    is_full = state.stage is not None and not state.to_sample and not may_issue(state)

    def shown(worker: Worker) -> WorkerStatus:
        status = worker.status(now)
        if is_full and worker.role == "sampler" and worker.state == "waiting_work" and may_sample(state, worker):
            return msgspec.structs.replace(status, state="waiting_credit")
        return status

    return [shown(worker) for worker in state.crew.workers.values() if worker.role != "observer"]


def _phase(state: HubState) -> str:
    if state.ending:
        return state.ending
    return "evaluating" if state.phase and state.phase.kind == "evaluate" else "running"


def _counts(state: HubState) -> dict[str, int]:
    """Slot law, live groups by state, drops by reason, queue depths, leases by kind."""
    ledger = state.ledger
    leased = [lease.kind for lease in state.crew.leases.values()]
    return {
        **ledger.counts(),
        "sampled": ledger.by_state["sampled"],
        "ready": ledger.by_state["ready"],
        "training": ledger.by_state["training"],
        "sampling": leased.count("sample"),
        "verifying": leased.count("verify"),
        "capacity": state.stage.capacity if state.stage else 0,
        "evaluating": sum(h.purpose == "evaluate" for h in ledger.heads.values()),
        "queue_sample": len(state.to_sample),
        "queue_verify": len(state.to_verify),
        "queue_train": len(state.to_train),
        "duplicates": state.num_duplicates,
        **{f"dropped.{reason}": num for reason, num in sorted(ledger.dropped.items())},
    }
