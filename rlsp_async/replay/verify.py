"""The verifier's post: which group is verified next, and what becomes of the verdicts. Pure.

Only correct, wrong and unparsable are verdicts on an answer. A group with a timeout, an error or a part that is not
finite is leased again and in the end dropped as `verifier_error`: a failure of a machine never becomes a reward.

When a training group has its verdicts,

    the prompt selection and the temperature schedule of its stage learn from them      -> Learnt, in the same commit
    a group whose rollouts all earn the same is dropped (`drop_no_signal`)              -> no_signal

Dropping is DAPO's dynamic sampling (arXiv:2503.14476): a group whose rewards are all equal has no advantage. Its slot
is free at once, so the batch still fills; `oversample` keeps more groups under way. The run fails when too many groups
in a row have no signal, because it is learning nothing.
"""

from __future__ import annotations

import msgspec

from rlsp_async.config import RewardConfig
from rlsp_async.contents import PART_CHARACTERS, PART_MOST
from rlsp_async.messages import RolloutGroup, Verdict, VerdictSet, VerifyItem, VerifyJob
from rlsp_async.observations import num_sampled
from rlsp_async.replay.ledger import is_stale
from rlsp_async.replay.records import GroupRecord, Learnt
from rlsp_async.replay.state import HubState
from rlsp_async.replay.turn import Accepted, Blamed, Late, Outcome, Turn
from rlsp_async.replay.workers import Worker

NO_SIGNAL_BATCHES = 10
NO_SIGNAL_AT_LEAST = 100
"""Groups that may have no signal even when batches are small."""
NO_SIGNAL = "no_signal"
"""Name of the counter: groups dropped for it since the last batch was chosen."""


def has_work(state: HubState) -> bool:
    """False when there is certainly nothing for any verifier."""
    return bool(state.queues.verify.queue)


def next_job(turn: Turn, worker: Worker) -> VerifyJob | None:
    """The group that has waited longest; those that became too old while they waited are dropped."""
    state = turn.state
    while True:
        group_id = state.queues.take(state.queues.verify, worker)
        if group_id is None:
            return None
        record, stage = state.ledger.records[group_id], state.stage
        if stage is None or record.purpose == "evaluate" or not is_stale(record, state.step + 1, stage.max_lag):
            return _job(state.ledger.bodies[group_id])
        turn.drop(group_id, "stale")


def _job(group: RolloutGroup) -> VerifyJob:
    """The texts of one group, in rollout order."""
    items = [
        VerifyItem(
            prompt=group.prompt.text,
            response=rollout.text,
            answer=group.prompt.answer,
            claim=rollout.claim,
            ended=rollout.ended,
        )
        for rollout in group.rollouts
    ]
    return VerifyJob(group_id=group.group_id, task=group.prompt.task, items=items)


def accept(turn: Turn, verdicts: VerdictSet) -> Outcome:
    """Verdicts came. The first set of verdicts on the answers of a group is taken."""
    state, group_id = turn.state, verdicts.group_id
    if not state.queues.verify.is_open(group_id, state.ledger):
        return Late()
    turn.revoke("verify", group_id, "another worker was first")
    group = state.ledger.bodies[group_id]
    wrong = _no_verdict(verdicts.verdicts, len(group.rollouts))
    if wrong:
        return Blamed("faults", wrong)
    judged = _with_known_parts(turn, verdicts.verdicts)
    stage = state.cfg.stages[state.ledger.records[group_id].stage]
    signal = has_signal(group, judged, stage.reward)
    put = state.ledger.verified(group_id, judged, turn.now, signal)
    turn.record(put)
    state.retries.forget(group_id)
    state.retries.count(True)
    if put.record.purpose == "train":
        if not put.record.parent:  # a child does not say how often its parent's problem is solved
            _learn(turn, put.record, group, judged)
        if stage.drop_no_signal and not signal:
            _drop_no_signal(turn, put.record)
    turn.moved(f"group {group_id} was verified")
    return Accepted()


def _no_verdict(verdicts: list[Verdict], num_rollouts: int) -> str:
    """Why these are not verdicts on all rollouts of a group; empty when they are."""
    if len(verdicts) != num_rollouts:
        return f"{len(verdicts)} verdicts for {num_rollouts} rollouts"
    for index, verdict in enumerate(verdicts):
        whose = f"verdict of {verdict.verifier}" if verdict.verifier else "verdict"  # a killed verifier left no name
        if not verdict.is_true:
            return f"{whose} on rollout {index}: {verdict.status}: {verdict.detail}"
        if not all(-PART_MOST <= part <= PART_MOST for part in verdict.parts.values()):  # false for NaN
            names = ", ".join(
                name[:PART_CHARACTERS] for name, part in verdict.parts.items() if not abs(part) <= PART_MOST
            )
            return f"{whose} on rollout {index}: a part is not finite, or above {PART_MOST:g}: {names}"
    return ""


def _with_known_parts(turn: Turn, verdicts: list[Verdict]) -> list[Verdict]:
    """The verdicts without the parts whose names are too long or too many for one run; those are counted."""
    state = turn.state
    if all(verdict.parts.keys() <= state.part_names for verdict in verdicts):
        return verdicts
    kept, num_dropped = [], 0
    for verdict in verdicts:
        surplus = [name for name in verdict.parts if not state.knows_part(name)]
        num_dropped += len(surplus)
        if surplus:
            parts = {name: part for name, part in verdict.parts.items() if name not in surplus}
            verdict = msgspec.structs.replace(verdict, parts=parts)
        kept.append(verdict)
    if num_dropped:
        state.count_refusal("parts", num_dropped)
    return kept


def _learn(turn: Turn, record: GroupRecord, group: RolloutGroup, verdicts: list[Verdict]) -> None:
    """The prompt selection and the temperature schedule learn from the verdicts of a group."""
    state = turn.state
    row = state.selectors[record.stage].observe(record.index, record.num_correct, record.num_rollouts)
    if row:
        turn.record(Learnt(stage=record.stage, index=record.index, row=row))
    row = state.schedules[record.stage].observe(group, verdicts)
    if row:
        turn.record(Learnt(stage=record.stage, what="temperature", index=0, row=row))


# --- signal ----------------------------------------------------------------------------------------------------------


def has_signal(group: RolloutGroup, verdicts: list[Verdict], reward: RewardConfig) -> bool:
    """Whether two rollouts of a group can have earned different rewards.

    The reward is composed at the learner. Here its ingredients are compared: correctness, and, when there is an
    exploration reward or a penalty, every part of the verdict, the length, the text and how the rollout ended.
    """
    if reward.explore == "none" and not reward.penalties:
        return len({verdict.parts.get("correct", 0.0) for verdict in verdicts}) > 1
    earned = {
        (rollout.text, num_sampled(rollout), rollout.finish, *sorted(verdict.parts.items()))
        for rollout, verdict in zip(group.rollouts, verdicts, strict=True)
    }
    return len(earned) > 1


def _drop_no_signal(turn: Turn, record: GroupRecord) -> None:
    turn.drop(record.group_id, "no_signal")
    turn.count(NO_SIGNAL)
    num = turn.state.counters[NO_SIGNAL]
    if num > most_without_signal(turn.state.cfg.stages[record.stage].groups_per_step):
        turn.fail_run(
            f"stage {record.stage}: {num} groups since the last batch had no signal (all their rollouts "
            "earned the same): its prompts are all too easy or all too hard; change the task or take "
            f"drop_no_signal out of stages.{record.stage}"
        )


def most_without_signal(groups_per_step: int) -> int:
    """Maximum number of consecutive groups whose rollouts all earned the same, before the run fails."""
    return max(NO_SIGNAL_AT_LEAST, NO_SIGNAL_BATCHES * groups_per_step)


def batch_chosen(turn: Turn) -> None:
    """Resets the count of consecutive groups without signal when a batch is chosen."""
    if turn.state.counters[NO_SIGNAL]:
        turn.record(turn.state.counters.set(NO_SIGNAL, 0))
