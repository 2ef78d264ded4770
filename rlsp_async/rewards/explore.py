"""Exploration rewards R_ex: they pay effort and ignore whether the answer is right (arXiv:2502.06773, section 2.2).

The rewards of length and of search steps grow, are concave and bounded above, so that the incentive fades. `judge` and
`novelty` (`novelty.py`) lie in [0, 1].

Shapes: B rollouts. Lengths are in tokens, at least 1.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]

NEUTRAL = 0.5
"""The score of rollouts in a group to which a judge gave no score at all."""


def len_inv(length_B: Reals, scale: float) -> Reals:
    """Exploration reward -C / |o| (arXiv:2502.06773, appendix B.4, with C = 1000).

    Args:
        length_B: response tokens, at least 1.
        scale: C.

    Returns:
        [B], in [-C, 0).
    """
    return -scale / length_B


def len_inv_sqrt(length_B: Reals, scale: float) -> Reals:
    """Exploration reward -C / sqrt(|o|), of a replication of RLSP.

    Args:
        length_B: response tokens, at least 1.
        scale: C.

    Returns:
        [B], in [-C, 0).
    """
    reward_B: Reals = -scale / np.sqrt(length_B)
    return reward_B


def len_exp(length_B: Reals, scale: float) -> Reals:
    """Exploration reward -C exp(-sqrt(|o|)), of a replication of RLSP.

    Args:
        length_B: response tokens, at least 1.
        scale: C.

    Returns:
        [B], in (-C, 0).
    """
    reward_B: Reals = -scale * np.exp(-np.sqrt(length_B))
    return reward_B


def steps(num_steps_B: Reals, scale: float) -> Reals:
    """Exploration reward 1 - (1 - 1/C)^steps. Ours.

    Example: C = 20/3 makes it 1 - .85^steps.

    Args:
        num_steps_B: search steps, 0 or above.
        scale: C, at least 1.

    Returns:
        [B], in [0, 1).
    """
    return 1.0 - np.power(1.0 - 1.0 / scale, num_steps_B)


def judge_score(parts: dict[str, float]) -> float:
    """The judge's score of a verdict.

    Args:
        parts: reward parts of the verdict by name.

    Returns:
        the part "judge", clipped to [0, 1]; NaN when it is missing or not finite, or when it stands in for a judge that
        failed ("judge_failed" above 0).
    """
    score = parts.get("judge", math.nan)
    return min(1.0, max(0.0, score)) if math.isfinite(score) and parts.get("judge_failed", 0.0) <= 0 else math.nan


def judge(score_B: Reals, group_B: Longs) -> Reals:
    """Exploration reward of a judge's scores, with missing ones filled in.

    Args:
        score_B: scores in [0, 1]; NaN where the judge gave none.
        group_B: the group of each rollout.

    Returns:
        [B]; a missing score is the mean of the group's other scores, so that the rollout stands neither above nor below
        them, or NEUTRAL when the group has no score.

    Raises:
        ValueError: the shapes differ.
    """
    if score_B.shape != group_B.shape:
        raise ValueError(f"group_B has shape {list(group_B.shape)}, and score_B has {list(score_B.shape)}")
    known_B = ~np.isnan(score_B)
    reward_B = np.where(known_B, score_B, NEUTRAL)
    for group in np.unique(group_B[~known_B]):
        members_B = group_B == group
        if known_B[members_B].any():
            reward_B[members_B & ~known_B] = score_B[members_B & known_B].mean()
    return reward_B
