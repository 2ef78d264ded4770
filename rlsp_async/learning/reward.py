"""Rewards of a batch from its stored parts, and the figures that say whether their composition is sound."""

from __future__ import annotations

import numpy as np
import torch

from rlsp_async import config
from rlsp_async.algos.base import AlgorithmConfig, Terms
from rlsp_async.learning.rows import Rows
from rlsp_async.rewards import compose, explore, penalties
from rlsp_async.rewards.dominance import resolved_scale
from rlsp_async.rewards.explore import Reals
from rlsp_async.rewards.novelty import novelty


def of(
    rows: Rows,
    section: config.RewardConfig,
    algorithm: AlgorithmConfig,
    stage_step: int,
    num_steps: int,
    longest_tokens: int,
) -> tuple[Reals, Terms | None, dict[str, float]]:
    """Rewards [S], their two terms, and metrics. Demonstrations have none: zeros and no metric. The released form has
    no terms. `longest_tokens`: max_new_tokens.

    What success replay put in is in the rewards, and not in the means and deviations."""
    length_S = rows.sequences.length_S.astype(np.float64)
    if not rows.parts:
        return np.zeros_like(length_S), None, {}
    correct_S = rows.parts.get("correct", np.zeros_like(length_S))
    alpha = compose.scheduled_alpha(section.alpha, section.alpha_end, stage_step, num_steps)
    scale = resolved_scale(section, longest_tokens, algorithm.reward_form == "released")
    figures: dict[str, float] = {}
    terms: Terms | None = None
    if algorithm.reward_form == "released":
        made = _released(rows, section, correct_S, scale)
    else:
        explore_S, figures = _explore(rows, section.explore, length_S, scale)
        made = compose.compose(correct_S, explore_S, alpha, section.clip)
    faults = penalties.find_faults(section.penalties, rows.sequences.responses, rows.texts, rows.cut_S)
    hit_S = penalties.has_fault(faults, len(length_S))
    made = _penalised(made, hit_S)
    if algorithm.reward_form == "eq1":
        outcome_S = np.where(hit_S, penalties.PENALTY, correct_S)
        terms = _terms(outcome_S, made, 1.0 if section.explore == "none" else alpha, section.clip)
    reward_S = compose.normalize(made.reward_B, section.clip) if algorithm.normalize_reward else made.reward_B
    own_S = rows.own_S if rows.own_S.any() else np.ones_like(rows.own_S)
    metrics = {f"part_{name}": float(part_S[own_S].mean()) for name, part_S in rows.parts.items()}
    metrics |= {f"penalty_{name}": float(fault_S[own_S].mean()) for name, fault_S in faults.items()}
    metrics |= _judge_figures(rows)
    metrics |= {
        "reward": float(made.reward_B[own_S].mean()),
        "reward_std": float(made.reward_B[own_S].std()),
        "alpha": alpha,
        "std_outcome": float(made.outcome_B[own_S].std()),
        "std_explore": float(made.explore_B[own_S].std()),
        "inverted_fraction": compose.inverted_fraction(made.reward_B, correct_S),
    }
    return reward_S, terms, metrics | figures


def _penalised(made: compose.Composed, hit_S: penalties.Bools) -> compose.Composed:
    """Whoever has a fault earns the penalty as its outcome, and nothing for exploration."""
    return compose.Composed(
        np.where(hit_S, penalties.PENALTY, made.reward_B),
        np.where(hit_S, penalties.PENALTY, made.outcome_B),
        np.where(hit_S, 0.0, made.explore_B),
    )


def _terms(outcome_S: Reals, made: compose.Composed, alpha: float, clip: float) -> Terms:
    """The two terms without their weights. The clip holds for what exploration is paid: on the sum it could hide from
    the algorithm whether an answer was right."""
    explore_S = np.clip(made.explore_B, -clip, clip) / (1.0 - alpha) if alpha < 1.0 else np.zeros_like(outcome_S)
    return Terms(torch.from_numpy(outcome_S).float(), torch.from_numpy(explore_S).float(), alpha)


def _explore(rows: Rows, form: str, length_S: Reals, scale: float) -> tuple[Reals | None, dict[str, float]]:
    """R_ex [S], None for "none", and its own figures."""
    group_S = rows.sequences.group_S
    if form == "none":
        return None, {}
    if form == "judge":
        return explore.judge(rows.judge_S, group_S), {"judge_missing": float(np.isnan(rows.judge_S).sum())}
    if form == "novelty":
        explore_S = novelty(rows.sequences.responses, group_S)
        return explore_S, {"novelty": float(explore_S.mean())}
    steps_S = rows.parts.get("search_steps", np.zeros_like(length_S))
    return compose.exploration(form, length_S, steps_S, scale), {}


def _judge_figures(rows: Rows) -> dict[str, float]:
    """Mean of the scores that there are, and how many are not. Nothing without a judge."""
    if "judge" not in rows.parts:
        return {}
    known_S = rows.judge_S[~np.isnan(rows.judge_S)]
    return {
        "part_judge": float(known_S.mean()) if len(known_S) else explore.NEUTRAL,
        "judge_missing": float(len(rows.judge_S) - len(known_S)),
    }


def _released(rows: Rows, section: config.RewardConfig, correct_S: Reals, scale: float) -> compose.Composed:
    scale = 0.0 if section.explore == "none" else scale
    judge_S = np.nan_to_num(rows.judge_S, nan=explore.NEUTRAL) if "judge" in rows.parts else None
    return compose.released(correct_S, rows.boxed_S, rows.chars_S, scale, section.clip, judge_S)
