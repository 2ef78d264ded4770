"""Evaluation: all held-out prompts at one fixed version while nothing trains, and the figures of it. Pure.

An evaluation is a phase of the run: before a stage, after it, or (`evaluation.every`) at a step of it. Training groups
that were issued before are still sampled and verified meanwhile; they keep their slots. Its own groups are sampled and
verified by the same posts as training groups. With N prompts, n rollouts for each of them, c of these correct:

    pass@1 = mean over prompts of c / n
    pass@k = mean over prompts of 1 - C(n-c, k) / C(n, k)      unbiased (Chen et al., arXiv:2107.03374, section 2.1)

The rollouts of a prompt are not independent, so the prompt is the unit (cluster): the interval is
mean +- 1.96 * sd / sqrt(N) with the standard deviation over the N prompt means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from rlsp_async.messages import RolloutGroup, Verdict
from rlsp_async.observations import num_sampled
from rlsp_async.replay.metrics import MetricRow, evaluation_rows
from rlsp_async.replay.records import Evaluated, GroupRecord
from rlsp_async.replay.state import HubState
from rlsp_async.replay.turn import Turn

Z95 = 1.959963984540054


# --- the phase of a run ----------------------------------------------------------------------------------------------


def num_prompts(state: HubState) -> int:
    """Number of held-out prompts of one evaluation."""
    size = state.task.size("test")
    return state.cfg.evaluation.prompts if size is None else min(size, state.cfg.evaluation.prompts)


def num_left(state: HubState) -> int:
    """Number of held-out prompts of the current evaluation that are not issued yet; 0 outside of an evaluation."""
    phase = state.phase
    if phase is None or phase.kind != "evaluate":
        return 0
    return num_prompts(state) - state.counters[phase.key]


def next_record(turn: Turn) -> GroupRecord | None:
    """The group of the next held-out prompt; None when all are issued."""
    phase = turn.state.phase
    if phase is None or num_left(turn.state) <= 0:
        return None
    index = turn.state.counters[phase.key]
    turn.count(phase.key)
    return GroupRecord(
        group_id=turn.state.next_group_id(),
        stage=phase.stage,
        purpose="evaluate",
        evaluation=phase.key,
        split="test",
        index=index,
        issued_s=turn.now,
    )


def accept(turn: Turn) -> bool:
    """Counts the current evaluation once every prompt was issued and is verified or dropped. Returns whether it did."""
    state, phase = turn.state, turn.state.phase
    if phase is None or phase.kind != "evaluate" or num_left(state) > 0:
        return False
    records = [record for record in state.ledger.records.values() if record.evaluation == phase.key]
    if any(record.state != "ready" for record in records):
        return False
    records.sort(key=lambda record: record.index)
    scores = [score_prompt(state.ledger.bodies[r.group_id], state.ledger.verdicts[r.group_id]) for r in records]
    row = {
        "kind": "evaluation",
        "key": phase.key,
        "when": phase.key.split(" ")[0],
        "stage": phase.stage,
        "step": state.step,
        "stage_step": max(0, state.plan.stage_step(phase.stage, state.step)),
        "version": state.version,
        "seconds": turn.now,
        "took_s": turn.now - state.phase_since_s,
        "num_dropped": num_prompts(state) - len(records),
        "oldest_version": min((record.oldest for record in records), default=-1),
        **summarize(scores),
    }
    turn.write(MetricRow("evaluations", row), *evaluation_rows(state, phase.key, records, turn.now))
    turn.record(*(state.ledger.evaluated(record.group_id) for record in records))
    turn.record(Evaluated(key=phase.key, result=row))
    state.finish_evaluation(phase.key, row)
    state.pace.show({name: value["mean"] for name, value in row.items() if isinstance(value, dict)})
    return True


# --- figures ---------------------------------------------------------------------------------------------------------


class PromptScore(msgspec.Struct, frozen=True, kw_only=True):
    """All rollouts of one prompt. Example: PromptScore(correct=[1, 0], lengths=[13, 26], truncated=[0, 0])."""

    correct: list[float]
    """[n] 0 or 1."""
    lengths: list[int]
    """[n] response tokens."""
    truncated: list[float]
    """[n] 1 when the rollout ended at max_new_tokens."""
    steps: list[float] = []
    """Search steps of the rollouts whose verdict counts them."""


class MeanOverPrompts(msgspec.Struct, frozen=True, kw_only=True):
    """A mean over prompts and its 95 % interval; low == high == mean for a single prompt."""

    mean: float
    low: float
    high: float


def score_prompt(group: RolloutGroup, verdicts: list[Verdict]) -> PromptScore:
    """What the summary needs of one verified group."""
    return PromptScore(
        correct=[float(verdict.status == "correct") for verdict in verdicts],
        lengths=[num_sampled(rollout) for rollout in group.rollouts],
        truncated=[float(rollout.finish == "length") for rollout in group.rollouts],
        steps=[verdict.parts["search_steps"] for verdict in verdicts if "search_steps" in verdict.parts],
    )


def pass_at_k(num: int, correct: int, k: int) -> float:
    """1 - C(n-c, k) / C(n, k): the probability that k of n rollouts, drawn without replacement, hold a correct one."""
    if not 1 <= k <= num or not 0 <= correct <= num:
        raise ValueError(f"pass@{k} of {correct} correct among {num} rollouts is not defined")
    return 1.0 - math.comb(num - correct, k) / math.comb(num, k)


def mean_over_prompts(means: Sequence[float]) -> MeanOverPrompts:
    """Mean and interval over prompts. Raises ValueError when there is no prompt."""
    if not means:
        raise ValueError("there is no prompt to average over")
    num, mean = len(means), math.fsum(means) / len(means)
    if num == 1:
        return MeanOverPrompts(mean=mean, low=mean, high=mean)
    variance = math.fsum((value - mean) ** 2 for value in means) / (num - 1)
    half = Z95 * math.sqrt(variance / num)
    return MeanOverPrompts(mean=mean, low=mean - half, high=mean + half)


def clip_share(share: MeanOverPrompts) -> MeanOverPrompts:
    """The interval of a share, cut to 0..1, which the normal approximation does not respect by itself."""
    return MeanOverPrompts(mean=share.mean, low=max(0.0, share.low), high=min(1.0, share.high))


def reported_ks(num_rollouts: int) -> list[int]:
    """1, 2, 4, ... up to the number of rollouts, and that number: 8 -> [1, 2, 4, 8], 6 -> [1, 2, 4, 6]."""
    powers = [2**i for i in range(num_rollouts.bit_length()) if 2**i <= num_rollouts]
    return sorted({*powers, num_rollouts})


def summarize(scores: Sequence[PromptScore]) -> dict[str, Any]:
    """One row: pass_at_1, pass_at_K, ..., each {mean, low, high}; response_tokens, truncated, search_steps likewise."""
    if not scores:
        return {"num_prompts": 0, "num_rollouts": 0}
    least = min(len(score.correct) for score in scores)
    row: dict[str, Any] = {"num_prompts": len(scores), "num_rollouts": sum(len(s.correct) for s in scores)}
    columns = {
        f"pass_at_{k}": [pass_at_k(len(s.correct), round(sum(s.correct)), k) for s in scores]
        for k in reported_ks(least)
    }
    columns["response_tokens"] = [sum(s.lengths) / len(s.lengths) for s in scores]
    columns["truncated"] = [sum(s.truncated) / len(s.truncated) for s in scores]
    stepped = [s for s in scores if s.steps]
    if stepped:
        columns["search_steps"] = [sum(s.steps) / len(s.steps) for s in stepped]
    for name, values in columns.items():
        is_share = name == "truncated" or name.startswith("pass_at_")
        interval = mean_over_prompts(values)
        row[name] = msgspec.to_builtins(clip_share(interval) if is_share else interval)
    return row
