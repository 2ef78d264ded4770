"""What an evaluation says: figures with 95 % intervals. Pure.

N prompts, n rollouts each, c of them correct:

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
