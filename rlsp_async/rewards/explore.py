"""Exploration rewards R_ex: they pay effort and ignore whether the answer is right (RLSP, arXiv:2502.06773, 2.2).

Those of length and of search steps grow, are concave and bounded above, so the incentive fades; `judge` and `novelty`
(`novelty.py`) lie in [0, 1]. B rollouts; lengths in tokens, at least 1.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]

NEUTRAL = 0.5
"""A judge's score when nobody in the group has one."""


def len_inv(length_B: Reals, scale: float) -> Reals:
    """-C / |o|, the paper's (App. B.4, C = 1000)."""
    return -scale / length_B


def len_inv_sqrt(length_B: Reals, scale: float) -> Reals:
    """-C / sqrt(|o|)."""
    reward_B: Reals = -scale / np.sqrt(length_B)
    return reward_B


def len_exp(length_B: Reals, scale: float) -> Reals:
    """-C exp(-sqrt(|o|)), in [-C, 0)."""
    reward_B: Reals = -scale * np.exp(-np.sqrt(length_B))
    return reward_B


def steps(num_steps_B: Reals, scale: float) -> Reals:
    """1 - (1 - 1/scale)^steps, in [0, 1). Example: scale 20/3 makes it 1 - .85^steps."""
    return 1.0 - np.power(1.0 - 1.0 / scale, num_steps_B)


def judge_score(parts: dict[str, float]) -> float:
    """A verdict's part "judge" in [0, 1]; NaN when it is not there, is no number, or stands in for a judge that failed
    ("judge_failed" above 0)."""
    score = parts.get("judge", math.nan)
    return min(1.0, max(0.0, score)) if math.isfinite(score) and parts.get("judge_failed", 0.0) <= 0 else math.nan


def judge(score_B: Reals, group_B: Longs) -> Reals:
    """A judge's scores. Where it gave none (NaN) the mean of the group's others stands, or NEUTRAL when nobody has one:
    beside the others of its group that rollout then counts for nothing."""
    known_B = ~np.isnan(score_B)
    reward_B = np.where(known_B, score_B, NEUTRAL)
    for group in np.unique(group_B[~known_B]):
        members_B = group_B == group
        if known_B[members_B].any():
            reward_B[members_B & ~known_B] = score_B[members_B & known_B].mean()
    return reward_B
