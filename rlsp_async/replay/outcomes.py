"""What follows from the verdicts of a training group besides that it is ready. Pure.

    the prompt selection of its stage learns from them,
    and so does the schedule of its temperature                -> Learnt, in the same commit
    all rollouts earn the same (`drop_no_signal`)              -> dropped as no_signal, its tokens accounted

Dropping is DAPO's dynamic sampling (arXiv:2503.14476): a group whose rewards are all equal has no advantage. Its slot
is free at once, so the batch still fills; `oversample` keeps more on the way. There is a bound: when NO_SIGNAL_BATCHES
batches' worth of groups in a row had no signal, the run stops, for it is learning nothing.
"""

from __future__ import annotations

from rlsp_async.columns import num_values
from rlsp_async.config import RewardConfig
from rlsp_async.messages import RolloutGroup, Verdict
from rlsp_async.replay.records import Cursor, GroupRecord, Learnt
from rlsp_async.replay.setbacks import drop, fail_run
from rlsp_async.replay.state import Effects, HubState

NO_SIGNAL_BATCHES = 10
NO_SIGNAL_AT_LEAST = 100
"""Groups: small batches are not unlucky so soon."""
NO_SIGNAL = "no_signal"
"""Name of the cursor: groups dropped for it since the last batch."""


def judged(state: HubState, out: Effects, head: GroupRecord, now: float) -> None:
    """A group has its true verdicts and is ready."""
    if head.purpose != "train":
        return
    if not head.parent:  # how often its parent's problem is solved does not follow from a child
        _learn(state, out, head)
    if state.cfg.stages[head.stage].drop_no_signal and not head.has_signal:
        drop(state, out, head.group_id, "no_signal", now)
        _bounded(state, out, head.stage, now)


def _learn(state: HubState, out: Effects, head: GroupRecord) -> None:
    row = state.selectors[head.stage].observe(head.index, head.num_correct, head.num_rollouts)
    if row:
        out.records.append(Learnt(stage=head.stage, place=head.index, row=row))
    group, verdicts = state.ledger.bodies[head.group_id], state.ledger.verdicts[head.group_id]
    row = state.schedules[head.stage].observe(group, verdicts)
    if row:
        out.records.append(Learnt(stage=head.stage, what="temperature", place=0, row=row))


def has_signal(group: RolloutGroup, verdicts: list[Verdict], reward: RewardConfig) -> bool:
    """Whether two rollouts can have earned differently.

    The reward is composed at the learner; here its ingredients are compared: correctness, and, when there is an
    exploration reward or a penalty, every part, the length, the text and how it ended.
    """
    if reward.explore == "none" and not reward.penalties:
        return len({verdict.parts.get("correct", 0.0) for verdict in verdicts}) > 1
    earned = {
        (rollout.text, num_values(rollout.token_ids), rollout.finish, *sorted(verdict.parts.items()))
        for rollout, verdict in zip(group.rollouts, verdicts, strict=True)
    }
    return len(earned) > 1


def found_signal(state: HubState, out: Effects) -> None:
    """A batch was chosen: the count begins anew."""
    if state.cursors.get(NO_SIGNAL, 0):
        _set(state, out, 0)


def _bounded(state: HubState, out: Effects, name: str, now: float) -> None:
    num = state.cursors.get(NO_SIGNAL, 0) + 1
    _set(state, out, num)
    if num > most_without_signal(state.cfg.stages[name].groups_per_step):
        fail_run(
            state,
            out,
            f"stage {name}: {num} groups since the last batch had no signal (all their rollouts "
            "earned the same): its prompts are all too easy or all too hard; change the task or take "
            f"drop_no_signal out of stages.{name}",
            now,
        )


def most_without_signal(groups_per_step: int) -> int:
    """Groups without signal that are borne between two batches."""
    return max(NO_SIGNAL_AT_LEAST, NO_SIGNAL_BATCHES * groups_per_step)


def _set(state: HubState, out: Effects, num: int) -> None:
    state.cursors[NO_SIGNAL] = num
    out.records.append(Cursor(name=NO_SIGNAL, value=num))
