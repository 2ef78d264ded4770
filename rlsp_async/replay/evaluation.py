"""What an evaluation says: figures with 95 % intervals. Pure.

N prompts, n rollouts each, c of them correct:

    pass@1 = mean over prompts of c / n
    pass@k = mean over prompts of 1 - C(n-c, k) / C(n, k)      unbiased (Chen et al., arXiv:2107.03374, section 2.1)

The rollouts of a prompt are not independent, so the prompt is the unit (cluster): the interval is
mean +- 1.96 * sd / sqrt(N) with the standard deviation over the N prompt means.

Evaluation as a phase of the run: all held-out prompts at one fixed version, while nothing trains. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from rlsp_async.columns import num_values
from rlsp_async.messages import RolloutGroup, Verdict
from rlsp_async.replay.lines import evaluation_lines
from rlsp_async.replay.records import Evaluated, GroupRecord
from rlsp_async.replay.sampling_work import num_evaluation_prompts
from rlsp_async.replay.state import Effects, HubState, MetricRow

Z95 = 1.959963984540054


class PromptScore(msgspec.Struct, frozen=True, kw_only=True):
    """All rollouts of one prompt. Example: PromptScore(correct=[1, 0], lengths=[13, 26], truncated=[0, 0])."""

    correct: list[float]
    """[n] 0 or 1."""
    lengths: list[int]
    """[n] response tokens."""
    truncated: list[float]
    """[n] 1 when the rollout ended at max_new_tokens."""
    steps: list[float] = []
    """Search steps, of the rollouts whose verdict counts them."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A mean over prompts and its 95 % interval; low == high == mean for a single prompt."""

    mean: float
    low: float
    high: float


def pass_at_k(num: int, correct: int, k: int) -> float:
    """1 - C(n-c, k) / C(n, k): the chance that k of n rollouts, drawn without replacement, hold a correct one."""
    if not 1 <= k <= num or not 0 <= correct <= num:
        raise ValueError(f"pass@{k} of {correct} correct among {num} rollouts is not defined")
    return 1.0 - math.comb(num - correct, k) / math.comb(num, k)


def estimate(means: Sequence[float]) -> Estimate:
    """Mean and interval over prompts. Raises ValueError for none."""
    if not means:
        raise ValueError("there is no prompt to average over")
    num, mean = len(means), math.fsum(means) / len(means)
    if num == 1:
        return Estimate(mean=mean, low=mean, high=mean)
    variance = math.fsum((value - mean) ** 2 for value in means) / (num - 1)
    half = Z95 * math.sqrt(variance / num)
    return Estimate(mean=mean, low=mean - half, high=mean + half)


def within(share: Estimate) -> Estimate:
    """The interval of a share, cut to 0..1, where the normal approximation does not stop by itself."""
    return Estimate(mean=share.mean, low=max(0.0, share.low), high=min(1.0, share.high))


def ks(num_rollouts: int) -> list[int]:
    """1, 2, 4 .. up to the number of rollouts, itself included: ks(8) == [1, 2, 4, 8], ks(6) == [1, 2, 4, 6]."""
    powers = [2**i for i in range(num_rollouts.bit_length()) if 2**i <= num_rollouts]
    return sorted({*powers, num_rollouts})


def summarize(scores: Sequence[PromptScore]) -> dict[str, Any]:
    """One row: pass_at_1, pass_at_K .., each {mean, low, high}; response_tokens, truncated, search_steps likewise."""
    if not scores:
        return {"num_prompts": 0, "num_rollouts": 0}
    least = min(len(score.correct) for score in scores)
    row: dict[str, Any] = {"num_prompts": len(scores), "num_rollouts": sum(len(s.correct) for s in scores)}
    columns = {f"pass_at_{k}": [pass_at_k(len(s.correct), round(sum(s.correct)), k) for s in scores] for k in ks(least)}
    columns["response_tokens"] = [sum(s.lengths) / len(s.lengths) for s in scores]
    columns["truncated"] = [sum(s.truncated) / len(s.truncated) for s in scores]
    stepped = [s for s in scores if s.steps]
    if stepped:
        columns["search_steps"] = [sum(s.steps) / len(s.steps) for s in stepped]
    for name, values in columns.items():
        is_share = name == "truncated" or name.startswith("pass_at_")
        row[name] = msgspec.to_builtins(within(estimate(values)) if is_share else estimate(values))
    return row


def finish_evaluation(state: HubState, out: Effects, now: float) -> bool:
    """Counts the evaluation when every prompt was issued and is judged or dropped. Returns whether it did."""
    phase = state.phase
    if phase is None or phase.kind != "evaluate":
        return False
    num_issued, num_wanted = state.cursors.get(phase.key, 0), num_evaluation_prompts(state)
    if num_issued < num_wanted:
        return False
    heads = [head for head in state.ledger.heads.values() if head.evaluation == phase.key]
    if any(head.state != "ready" for head in heads):
        return False
    heads.sort(key=lambda head: head.index)
    scores = [score(state.ledger.bodies[h.group_id], state.ledger.verdicts[h.group_id]) for h in heads]
    row = {
        "kind": "evaluation",
        "key": phase.key,
        "when": phase.key.split(" ")[0],
        "stage": phase.stage,
        "step": state.step,
        "version": state.version,
        "seconds": now,
        "took_s": now - state.phase_since_s,
        "num_dropped": num_wanted - len(heads),
        "oldest_version": _oldest(heads),
        **summarize(scores),
    }
    out.lines.append(MetricRow("evaluations", row))
    out.lines.extend(evaluation_lines(state, phase.key, heads, now))
    out.records.extend(state.ledger.evaluated(head.group_id) for head in heads)
    out.records.append(Evaluated(key=phase.key, result=row))
    state.evaluations[phase.key] = row
    state.metrics.update({name: value["mean"] for name, value in row.items() if isinstance(value, dict)})
    return True


def score(group: RolloutGroup, verdicts: list[Verdict]) -> PromptScore:
    """What the summary needs of one judged group."""
    return PromptScore(
        correct=[float(verdict.status == "correct") for verdict in verdicts],
        lengths=[num_values(rollout.token_ids) for rollout in group.rollouts],
        truncated=[float(rollout.finish == "length") for rollout in group.rollouts],
        steps=[verdict.parts["search_steps"] for verdict in verdicts if "search_steps" in verdict.parts],
    )


def _oldest(heads: list[GroupRecord]) -> int:
    return min((head.oldest for head in heads), default=-1)
