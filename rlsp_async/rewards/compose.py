"""RLSP's reward from its parts, arXiv:2502.06773 Eq. 1, composed at the learner when a batch is trained.

    R = alpha * correct + (1 - alpha) * R_ex        clipped to [-clip, clip]

Parts are stored, sums are not: alpha moves during a stage, and an old rollout is paid with the present one.
B rollouts. Pure numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rlsp_async.rewards import explore
from rlsp_async.rewards.explore import Reals

_LENGTH_FORMS: dict[str, Callable[[Reals, float], Reals]] = {
    "len_inv": explore.len_inv,
    "len_inv_sqrt": explore.len_inv_sqrt,
    "len_exp": explore.len_exp,
}


@dataclass(frozen=True)
class Composed:
    """Rewards and what they were made of."""

    reward_B: Reals
    outcome_B: Reals
    """alpha * correct."""
    explore_B: Reals
    """(1 - alpha) * R_ex."""


def exploration(form: str, length_B: Reals, steps_B: Reals, scale: float) -> Reals:
    """R_ex of each rollout; zeros for "none". Raises ValueError for an unknown form."""
    if form == "none":
        return np.zeros_like(length_B)
    if form == "steps":
        return explore.steps(steps_B, scale)
    if form not in _LENGTH_FORMS:
        raise ValueError(f"no exploration reward {form!r}")
    return _LENGTH_FORMS[form](length_B, scale)


def compose(correct_B: Reals, explore_B: Reals | None, alpha: float, clip: float) -> Composed:
    """Eq. 1. `explore_B` None is the paper's ablation without exploration reward: alpha = 1.

    Example: correct (1, 0), R_ex (-10, -10), alpha .8 -> (-1.2, -2).
    """
    if explore_B is None:
        alpha, explore_B = 1.0, np.zeros_like(correct_B)
    outcome_B, extra_B = alpha * correct_B, (1.0 - alpha) * explore_B
    return Composed(np.clip(outcome_B + extra_B, -clip, clip), outcome_B, extra_B)


def released(
    correct_B: Reals, boxed_B: Reals, chars_B: Reals, scale: float, clip: float, judge_B: Reals | None = None
) -> Composed:
    """What RLSP's released reward server computes (openrlhf/cli/orm_server_efficient.py), which is not Eq. 1.

    `boxed_B` 1 where there is an answer, `chars_B` characters before it. Without an answer the base is -0.5; the
    length is chars / 4 and its term is not multiplied by 1 - alpha; length 0 is an exception there, hence reward 0.
    With a judge: 0.8 * base + 0.2 * judge.
    """
    base_B = np.where(boxed_B > 0, correct_B, -0.5)
    length_B = chars_B / 4.0
    extra_B = np.zeros_like(base_B)
    if scale:
        extra_B = np.divide(-scale, length_B, out=np.zeros_like(base_B), where=length_B > 0)
    if judge_B is not None:
        base_B, extra_B = 0.8 * base_B, 0.8 * extra_B + 0.2 * judge_B
    broken_B = (length_B == 0) & (scale != 0)
    base_B, extra_B = np.where(broken_B, 0.0, base_B), np.where(broken_B, 0.0, extra_B)
    return Composed(np.clip(base_B + extra_B, -clip, clip), base_B, extra_B)


def scheduled_alpha(start: float, end: float, stage_step: int, num_steps: int) -> float:
    """Linear from `start` at step 1 to `end` at the last step; `end` -1 means constant."""
    if end == -1.0:
        return start
    done = (stage_step - 1) / max(1, num_steps - 1)
    return start + (end - start) * min(1.0, done)


def normalize(reward_B: Reals, clip: float, eps: float = 1e-8) -> Reals:
    """Mean 0, standard deviation 1 over the batch, then clipped."""
    scaled: Reals = np.clip((reward_B - reward_B.mean()) / (reward_B.std() + eps), -clip, clip)
    return scaled


def inverted_fraction(reward_B: Reals, correct_B: Reals) -> float:
    """Share of (correct, wrong) pairs of a batch in which the wrong one is paid more; 0 without pairs."""
    right, wrong = reward_B[correct_B > 0.5], np.sort(reward_B[correct_B <= 0.5])
    if not len(right) or not len(wrong):
        return 0.0
    above = len(wrong) - np.searchsorted(wrong, right, side="right")
    return float(above.sum()) / (len(right) * len(wrong))
