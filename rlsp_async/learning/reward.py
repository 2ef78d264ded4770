"""Rewards of a batch from its stored parts, and the figures that say whether their composition is sound."""

from __future__ import annotations

import numpy as np

from rlsp_async import config
from rlsp_async.algos.base import AlgorithmConfig
from rlsp_async.learning.rows import Rows
from rlsp_async.rewards import compose
from rlsp_async.rewards.explore import Reals


def of(rows: Rows, section: config.Reward, algorithm: AlgorithmConfig, stage_step: int,
       num_steps: int) -> tuple[Reals, dict[str, float]]:
    """Rewards [S] and metrics. Demonstrations have none: zeros and no metric."""
    length_S = rows.sequences.length_S.astype(np.float64)
    if not rows.parts:
        return np.zeros_like(length_S), {}
    correct_S = rows.parts.get("correct", np.zeros_like(length_S))
    alpha = compose.scheduled_alpha(section.alpha, section.alpha_end, stage_step, num_steps)
    made = _compose(rows, section, algorithm, correct_S, length_S, alpha)
    reward_S = compose.normalize(made.reward_B, section.clip) if algorithm.normalize_reward else made.reward_B
    metrics = {f"part_{name}": float(part_S.mean()) for name, part_S in rows.parts.items()}
    metrics |= {"reward": float(made.reward_B.mean()), "reward_std": float(made.reward_B.std()), "alpha": alpha,
                "std_outcome": float(made.outcome_B.std()), "std_explore": float(made.explore_B.std()),
                "inverted_fraction": compose.inverted_fraction(made.reward_B, correct_S)}
    return reward_S, metrics


def _compose(rows: Rows, section: config.Reward, algorithm: AlgorithmConfig, correct_S: Reals, length_S: Reals,
             alpha: float) -> compose.Composed:
    if algorithm.reward_form == "released":
        scale = 0.0 if section.explore == "none" else section.scale
        return compose.released(correct_S, rows.boxed_S, rows.chars_S, scale, section.clip, rows.parts.get("judge"))
    if section.explore == "none":
        return compose.compose(correct_S, None, alpha, section.clip)
    steps_S = rows.parts.get("search_steps", np.zeros_like(length_S))
    explore_S = compose.exploration(section.explore, length_S, steps_S, section.scale)
    return compose.compose(correct_S, explore_S, alpha, section.clip)
