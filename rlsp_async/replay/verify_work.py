"""Verifier work: which group is judged next, and what becomes of the verdicts. Pure.

Only correct, wrong and unparsable are verdicts on an answer. A group with one timeout, error or non-finite part is
leased again, then dropped as `verifier_error`: an infrastructure failure never becomes a reward.
"""

from __future__ import annotations

import math

from rlsp_async.messages import Verdict, VerdictSet, VerifyItem, VerifyJob
from rlsp_async.replay.ledger import is_stale
from rlsp_async.replay.outcomes import has_signal, judged
from rlsp_async.replay.setbacks import charge, drop, outcome, void
from rlsp_async.replay.state import Effects, HubState
from rlsp_async.replay.workers import Worker


def next_verify_job(state: HubState, out: Effects, worker: Worker, now: float) -> VerifyJob | None:
    """The group that waits longest, less those that became too old while they waited."""
    while True:
        group_id = state.pop_for(state.to_verify, worker, "sampled")
        if group_id is None:
            return None
        head = state.ledger.heads[group_id]
        stage = state.stage
        if stage is None or head.purpose == "evaluate" or not is_stale(head, state.step + 1, stage.max_lag):
            return verify_job(state, group_id)
        drop(state, out, group_id, "stale", now)


def verify_job(state: HubState, group_id: int) -> VerifyJob:
    """Texts of one group, in rollout order."""
    group = state.ledger.bodies[group_id]
    items = [
        VerifyItem(prompt=group.prompt.text, response=rollout.text, answer=group.prompt.answer)
        for rollout in group.rollouts
    ]
    return VerifyJob(group_id=group_id, task=group.prompt.task, items=items)


def accept_verdicts(state: HubState, out: Effects, verdicts: VerdictSet, now: float) -> bool:
    """Verdicts came; the first true set of a group wins. False: these are too late."""
    group_id = verdicts.group_id
    head = state.ledger.heads.get(group_id)
    if head is None or head.state != "sampled":
        return False
    void(state, out, "verify", group_id, "another worker was first")
    wrong = _untrue(verdicts.verdicts, len(state.ledger.bodies[group_id].rollouts))
    if wrong:
        charge(state, out, group_id, "verify", "faults", wrong, now)
        return True
    signal = has_signal(state.ledger.bodies[group_id], verdicts.verdicts, state.cfg.stages[head.stage].reward)
    record = state.ledger.verified(group_id, verdicts.verdicts, now, signal)
    out.records.append(record)
    state.forget(group_id)
    outcome(state, out, True, now)
    judged(state, out, record.head, now)
    state.moved(f"group {group_id} was verified", now)
    return True


def _untrue(verdicts: list[Verdict], num_rollouts: int) -> str:
    """What keeps these verdicts from training; empty when nothing does."""
    if len(verdicts) != num_rollouts:
        return f"{len(verdicts)} verdicts for {num_rollouts} rollouts"
    for index, verdict in enumerate(verdicts):
        if not verdict.is_true:
            return f"{_judge(verdict)} on rollout {index}: {verdict.status}: {verdict.detail}"
        if not all(math.isfinite(part) for part in verdict.parts.values()):
            return f"{_judge(verdict)} on rollout {index}: a part is not finite: {verdict.parts}"
    return ""


def _judge(verdict: Verdict) -> str:
    """Whose verdict it is; a verifier that was killed has left no name."""
    return f"verdict of {verdict.verifier}" if verdict.verifier else "verdict"
