"""Whole rollouts that are left out: the first correction stage. View in, bool [R] out, the same for a rollout's tokens.

    opsm        drop if A < 0 and mean_t(behaviour_t - new_t) > high             DeepSeek-V3.2, as slime has it
    mis         drop if prod_t ratio_t > high                                    sequence-masked importance sampling
    geometric   keep if exp(mean_t log ratio_t) is within [low, high]

A product of ratios spreads with the rollout's length; a mean hides a single catastrophic token.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from rlsp_async.algos import ops
from rlsp_async.algos.view import View

DEFAULTS = {"opsm": (0.0, 1e-4), "mis": (0.0, 5.0), "geometric": (0.999, 1.001)}
"""(low, high) where the settings leave them at 0."""
HAS_LOW = frozenset({"geometric"})


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


KINDS: dict[str, Callable[[View, float, float], Tensor]] = {"opsm": opsm, "mis": mis, "geometric": geometric}
