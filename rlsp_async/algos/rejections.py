"""Whole rollouts that are left out: the first correction stage. View in, bool [R] out, the same for a rollout's tokens.

    opsm        drop if A < 0 and mean_t(behaviour_t - new_t) > high             DeepSeek-V3.2, as slime has it
    mis         drop if prod_t ratio_t > high                                    sequence-masked importance sampling
    geometric   keep if exp(mean_t log ratio_t) is within [low, high]
    k2          drop if mean_t (log ratio_t)^2 / 2 > high                        verl, rejection by divergence
    k3          drop if mean_t (ratio_t - log ratio_t - 1) > high                the same, unbiased for the divergence
    outlier     drop if any ratio_t is outside of [low, high]                    SkyRL's outlier mask

A product of ratios spreads with the rollout's length; a mean hides a single catastrophic token, which `outlier` is for;
in a mean of log-ratios drifts up and down cancel out, in k2 and k3 they add up.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from rlsp_async.algos import ops
from rlsp_async.algos.view import View

DEFAULTS = {
    "opsm": (0.0, 1e-4),
    "mis": (0.0, 5.0),
    "geometric": (0.999, 1.001),
    "k2": (0.0, 2.5),
    "k3": (0.0, 0.01),
    "outlier": (1e-4, 100.0),
}
"""(low, high) where the settings leave them at 0; those of k2 and k3 are the upper ends of what verl's pages advise."""
HAS_LOW = frozenset({"geometric", "outlier"})


def opsm(view: View, low: float, high: float) -> Tensor:
    """Off-policy sequence masking: negatives that have become improbable are dropped, positives never."""
    drift = -ops.rollout_means(view.new - view.behaviour, view.rollout, view.mask)
    return ~((view.adv < 0) & (drift > high))


def mis(view: View, low: float, high: float) -> Tensor:
    """Rollouts that have become much more probable are dropped."""
    return view.rollout_log_ratio <= math.log(high)


def geometric(view: View, low: float, high: float) -> Tensor:
    """Rollouts whose mean log-ratio is small are kept."""
    mean = ops.rollout_means(view.new - view.behaviour, view.rollout, view.mask)
    return (mean >= math.log(low)) & (mean <= math.log(high))


def k2(view: View, low: float, high: float) -> Tensor:
    """Rollouts whose mean squared log-ratio is small are kept."""
    return ops.rollout_means(0.5 * view.log_ratio**2, view.rollout, view.mask) <= high


def k3(view: View, low: float, high: float) -> Tensor:
    """Rollouts with a small estimate of the divergence of the policy from the one that sampled are kept."""
    return ops.rollout_means(ops.k3(view.behaviour, view.new), view.rollout, view.mask) <= high


def outlier(view: View, low: float, high: float) -> Tensor:
    """Rollouts without a single ratio out of bounds are kept."""
    outside = (view.log_ratio < math.log(low)) | (view.log_ratio > math.log(high))
    return ops.rollout_sums(outside.to(view.new.dtype), view.rollout, view.mask) == 0


KINDS: dict[str, Callable[[View, float, float], Tensor]] = {
    "opsm": opsm,
    "mis": mis,
    "geometric": geometric,
    "k2": k2,
    "k3": k3,
    "outlier": outlier,
}
