"""Truncated importance weights, and the step size that follows from them: the third correction stage.

token     min(ratio_t, high)                     token TIS; with the present policy AIPO, arXiv:2505.24034
rollout   min(prod_t ratio_t, high)              sequence TIS, on every token of the rollout
VCPO      lr * sqrt(min(1, (ESS / B) / base)),   ESS = (sum w)^2 / sum w^2, w = prod_t ratio_t     arXiv:2602.17616
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from rlsp_async.algos.view import View

DEFAULTS = {"token": 2.0, "rollout": 5.0}
"""Largest weight where the settings leave it at 0."""
_MAX_LOG_RATIO = 20.0


def token(view: View, high: float) -> Tensor:
    """Ratios (.3, .6, 1, 3, 7), high 2 -> (.3, .6, 1, 2, 2)."""
    return view.log_ratio.exp().clamp(max=high)


def rollout(view: View, high: float) -> Tensor:
    """The ratio of the whole rollout. Ratios 2 and 3 of one rollout, high 5 -> (5, 5)."""
    return rollout_ratio(view).clamp(max=high)


def rollout_ratio(view: View) -> Tensor:
    """prod_t ratio_t within exp(+-20), at every token."""
    return view.rollout_log_ratio.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO).exp()


KINDS: dict[str, Callable[[View, float], Tensor]] = {"token": token, "rollout": rollout}


def step_factor(ess_fraction: float, base: float) -> float:
    """VCPO's factor of the learning rate. Example: ESS/B .25, base 1 -> .5; base 0: 1."""
    return math.sqrt(min(1.0, ess_fraction / base)) if base else 1.0
