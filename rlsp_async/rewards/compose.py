"""RLSP's reward from its parts (arXiv:2502.06773, eq. 1), composed at the learner when a batch is trained.

    R = alpha * correct + (1 - alpha) * R_ex        clipped to [-clip, clip]

Parts are stored, sums are not: alpha moves during a stage, and an old rollout is paid with the alpha of the step that
trains it.

Shapes: B rollouts.
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
    """R_ex of each rollout, by the name in `reward.explore`.

    Args:
        form: "none", "steps" or a form of length.
        length_B: response tokens, at least 1.
        steps_B: search steps.
        scale: C of the form.

    Returns:
        [B]; zeros for "none".

    Raises:
        ValueError: another form, or the shapes differ.
    """
    _check_lengths(length_B=length_B, steps_B=steps_B)
    if form == "none":
        return np.zeros_like(length_B)
    if form == "steps":
        return explore.steps(steps_B, scale)
    if form not in _LENGTH_FORMS:
        raise ValueError(f"no exploration reward {form!r}")
    return _LENGTH_FORMS[form](length_B, scale)


def compose(correct_B: Reals, explore_B: Reals | None, alpha: float, clip: float) -> Composed:
    """Eq. 1, R = alpha * correct + (1 - alpha) * R_ex, clipped (arXiv:2502.06773).

    Example: correct (1, 0), R_ex (-10, -10), alpha .8, clip 2 -> (-1.2, -2).

    Args:
        correct_B: the verifier's part, 0 or 1.
        explore_B: R_ex; None for the paper's ablation without exploration reward, where alpha is 1.
        alpha: weight of correctness, 0 to 1.
        clip: largest size of a reward.

    Returns:
        the rewards and both weighted terms, which are not clipped.

    Raises:
        ValueError: the shapes differ.
    """
    if explore_B is None:
        alpha, explore_B = 1.0, np.zeros_like(correct_B)
    _check_lengths(correct_B=correct_B, explore_B=explore_B)
    outcome_B, extra_B = alpha * correct_B, (1.0 - alpha) * explore_B
    return Composed(np.clip(outcome_B + extra_B, -clip, clip), outcome_B, extra_B)


def released(
    correct_B: Reals, boxed_B: Reals, chars_B: Reals, scale: float, clip: float, judge_B: Reals | None = None
) -> Composed:
    """What RLSP's released reward server computes (openrlhf/cli/orm_server_efficient.py), which is not Eq. 1.

        R = (correct, or -0.5 without an answer) - C / (chars / 4)        length 0 is an exception there: R = 0
        R = 0.8 R + 0.2 judge                                             with a judge

    Args:
        correct_B: the verifier's part, 0 or 1.
        boxed_B: 1 where there is an answer, else 0.
        chars_B: characters before the answer.
        scale: C; 0: length is not paid.
        clip: largest size of a reward.
        judge_B: the judge's scores; None without a judge.

    Returns:
        the rewards and both terms; the term of length is not multiplied by 1 - alpha.

    Raises:
        ValueError: the shapes differ.
    """
    _check_lengths(correct_B=correct_B, boxed_B=boxed_B, chars_B=chars_B)
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
    """Alpha of a step, linear from `start` at step 1 of the stage to `end` at its last step.

    Args:
        start: alpha of the first step.
        end: alpha of the last step; -1: the same as `start`.
        stage_step: the step, from 1.
        num_steps: steps of the stage.

    Returns:
        alpha.
    """
    if end == -1.0:
        return start
    done = (stage_step - 1) / max(1, num_steps - 1)
    return start + (end - start) * min(1.0, done)


def normalize(reward_B: Reals, clip: float, eps: float = 1e-8) -> Reals:
    """Rewards with mean 0 and standard deviation 1 over the batch, then clipped.

    Args:
        reward_B: rewards.
        clip: largest size of a reward.
        eps: added to the standard deviation.

    Returns:
        [B].
    """
    scaled: Reals = np.clip((reward_B - reward_B.mean()) / (reward_B.std() + eps), -clip, clip)
    return scaled


def inverted_fraction(reward_B: Reals, correct_B: Reals) -> float:
    """Share of a batch's pairs (right, wrong) in which the wrong rollout is paid more.

    Args:
        reward_B: rewards.
        correct_B: the verifier's part, 0 or 1.

    Returns:
        0 to 1; 0 without a pair.

    Raises:
        ValueError: the shapes differ.
    """
    _check_lengths(reward_B=reward_B, correct_B=correct_B)
    right, wrong = reward_B[correct_B > 0.5], np.sort(reward_B[correct_B <= 0.5])
    if not len(right) or not len(wrong):
        return 0.0
    above = len(wrong) - np.searchsorted(wrong, right, side="right")
    return float(above.sum()) / (len(right) * len(wrong))


def _check_lengths(**columns: Reals) -> None:
    """Asserts that columns [B] have one length. Raises ValueError with the argument and both shapes."""
    (first, column), *others = columns.items()
    for name, other in others:
        if other.shape != column.shape:
            raise ValueError(f"{name} has shape {list(other.shape)}, and {first} has {list(column.shape)}")
