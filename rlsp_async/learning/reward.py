"""Rewards of a batch from the parts of its verdicts, and the metrics that show whether their composition is sound.

Shapes: B rollouts.
"""

from __future__ import annotations

import numpy as np
import torch

from rlsp_async import config
from rlsp_async.algos.base import AlgorithmConfig, Terms
from rlsp_async.learning.rows import BatchRows
from rlsp_async.rewards import compose, explore, penalties
from rlsp_async.rewards.dominance import resolved_scale
from rlsp_async.rewards.explore import Reals
from rlsp_async.rewards.novelty import novelty


def compute_reward(
    rows: BatchRows,
    section: config.RewardConfig,
    algorithm: AlgorithmConfig,
    stage_step: int,
    num_steps: int,
    longest_tokens: int,
) -> tuple[Reals, Terms | None, dict[str, float]]:
    """Composes the rewards of a batch (arXiv:2502.06773, eq. 1, or the released server's form).

    Rollouts that success replay put in are rewarded, and left out of the metrics' means and deviations.

    Args:
        rows: the batch.
        section: the stage's settings of the reward.
        algorithm: for the form of the reward and its normalisation.
        stage_step: the step within the stage, from 1, for the schedule of alpha.
        num_steps: steps of the stage.
        longest_tokens: max_new_tokens, for `scale = "auto"`.

    Returns:
        rewards [B]; their two terms, None for demonstrations and the released form; metrics. Demonstrations have zeros
        and no metric.
    """
    length_B = rows.sequences.length_B.astype(np.float64)
    if not rows.parts:
        return np.zeros_like(length_B), None, {}
    correct_B = rows.parts.get("correct", np.zeros_like(length_B))
    alpha = compose.scheduled_alpha(section.alpha, section.alpha_end, stage_step, num_steps)
    scale = resolved_scale(section, longest_tokens, algorithm.reward_form == "released")
    explore_metrics: dict[str, float] = {}
    terms: Terms | None = None
    if algorithm.reward_form == "released":
        composed = _released(rows, section, correct_B, scale)
    else:
        explore_B, explore_metrics = _explore(rows, section.explore, length_B, scale)
        composed = compose.compose(correct_B, explore_B, alpha, section.clip)
    faults = penalties.find_faults(section.penalties, rows.sequences.targets, rows.texts, rows.cut_B)
    fault_B = penalties.has_fault(faults, len(length_B))
    composed = _penalised(composed, fault_B)
    if algorithm.reward_form == "eq1":
        outcome_B = np.where(fault_B, penalties.PENALTY, correct_B)
        terms = _terms(outcome_B, composed, 1.0 if section.explore == "none" else alpha, section.clip)
    reward_B = compose.normalize(composed.reward_B, section.clip) if algorithm.normalize_reward else composed.reward_B
    own_B = rows.own_B if rows.own_B.any() else np.ones_like(rows.own_B)
    metrics = {f"part_{name}": float(part_B[own_B].mean()) for name, part_B in rows.parts.items()}
    metrics |= {f"penalty_{name}": float(has_B[own_B].mean()) for name, has_B in faults.items()}
    metrics |= _judge_metrics(rows)
    metrics |= {
        "reward": float(composed.reward_B[own_B].mean()),
        "reward_std": float(composed.reward_B[own_B].std()),
        "alpha": alpha,
        "std_outcome": float(composed.outcome_B[own_B].std()),
        "std_explore": float(composed.explore_B[own_B].std()),
        "inverted_fraction": compose.inverted_fraction(composed.reward_B, correct_B),
    }
    return reward_B, terms, metrics | explore_metrics


def _penalised(composed: compose.Composed, fault_B: penalties.Bools) -> compose.Composed:
    """The outcome of a rollout with a fault is the penalty, and its exploration is worth nothing."""
    return compose.Composed(
        np.where(fault_B, penalties.PENALTY, composed.reward_B),
        np.where(fault_B, penalties.PENALTY, composed.outcome_B),
        np.where(fault_B, 0.0, composed.explore_B),
    )


def _terms(outcome_B: Reals, composed: compose.Composed, alpha: float, clip: float) -> Terms:
    """The two terms without their weights.

    The clip holds for what exploration is paid: on the sum it could hide from the algorithm whether an answer was
    right.
    """
    explore_B = np.clip(composed.explore_B, -clip, clip) / (1.0 - alpha) if alpha < 1.0 else np.zeros_like(outcome_B)
    return Terms(torch.from_numpy(outcome_B).float(), torch.from_numpy(explore_B).float(), alpha)


def _explore(rows: BatchRows, form: str, length_B: Reals, scale: float) -> tuple[Reals | None, dict[str, float]]:
    """R_ex [B], None for "none", and the metrics of this form."""
    group_B = rows.sequences.group_B
    if form == "none":
        return None, {}
    if form == "judge":
        return explore.judge(rows.judge_B, group_B), {"judge_missing": float(np.isnan(rows.judge_B).sum())}
    if form == "novelty":
        explore_B = novelty(rows.sequences.targets, group_B)
        return explore_B, {"novelty": float(explore_B.mean())}
    steps_B = rows.parts.get("search_steps", np.zeros_like(length_B))
    return compose.exploration(form, length_B, steps_B, scale), {}


def _judge_metrics(rows: BatchRows) -> dict[str, float]:
    """Mean of the judge's scores, and the number of missing ones; nothing without a judge."""
    if "judge" not in rows.parts:
        return {}
    known_B = rows.judge_B[~np.isnan(rows.judge_B)]
    return {
        "part_judge": float(known_B.mean()) if len(known_B) else explore.NEUTRAL,
        "judge_missing": float(len(rows.judge_B) - len(known_B)),
    }


def _released(rows: BatchRows, section: config.RewardConfig, correct_B: Reals, scale: float) -> compose.Composed:
    """The released server's form of a batch's reward."""
    scale = 0.0 if section.explore == "none" else scale
    judge_B = np.nan_to_num(rows.judge_B, nan=explore.NEUTRAL) if "judge" in rows.parts else None
    return compose.released(correct_B, rows.boxed_B, rows.chars_B, scale, section.clip, judge_B)
