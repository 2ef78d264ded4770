"""Single tokens that are left out: the second correction stage. View in, bool [R] out.

    icepop         keep if ratio is within [low, high]                       with the weight "token" it is IcePop
    dppo_tv        drop if A > 0 and pi - mu > high, or A < 0 and mu - pi > high               arXiv:2602.04879
    dppo_kl        drop if harmful and KL(Bernoulli mu || Bernoulli pi) > high
    kpop           drop if KL(Bernoulli mu || Bernoulli pi) > high, whatever the advantage          AReaL
    lag            drop a token whose policy is more than `high` versions behind
    m2po           drop the largest (log ratio)^2 until the mean of the rest is below high     arXiv:2510.01161, paper
    m2po_released  drop if harmful and outside of [exp(-c), exp(c)]                            its released code

pi and mu are probabilities of the sampled token, now and when it was sampled; harmful: the update would carry the token
further away from mu. The two M2PO forms need one number of the whole batch (`m2po_limit`, `m2po_cap`), measured between
`old` and `behaviour` at the beginning of the step; the released code measures it in each micro-batch, which would make
the result depend on how a batch is packed. Its c is never narrower than the ratios .7 and 1.5, and there is no limit at
all when the harmful tokens are within the budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from rlsp_async.algos.view import View

DEFAULTS = {
    "icepop": (0.5, 5.0),
    "dppo_tv": (0.0, 0.2),
    "dppo_kl": (0.0, 0.05),
    "kpop": (0.0, 2.0),
    "lag": (0.0, 8.0),
    "m2po": (0.0, 0.04),
    "m2po_released": (0.0, 0.04),
}
"""(low, high) where the settings leave them at 0. No default of dppo_kl is published that we know of; that of lag is
prime-rl's for whole groups."""
HAS_LOW = frozenset({"icepop"})
NARROWEST = (0.7, 1.5)
_TINY = 1e-6


def icepop(view: View, low: float, high: float) -> Tensor:
    """Ratios within bounds."""
    return (view.log_ratio >= math.log(low)) & (view.log_ratio <= math.log(high))


def dppo_tv(view: View, low: float, high: float) -> Tensor:
    """The probability itself must not have moved far in the harmful direction."""
    moved = view.new.exp() - view.behaviour.exp()
    return ~(view.harmful & (moved.abs() > high))


def dppo_kl(view: View, low: float, high: float) -> Tensor:
    """The same, measured as the divergence of "this token or another"."""
    return ~(view.harmful & (_divergence(view) > high))


def kpop(view: View, low: float, high: float) -> Tensor:
    """That divergence, in either direction."""
    return _divergence(view) <= high


def _divergence(view: View) -> Tensor:
    pi, mu = (x.exp().clamp(_TINY, 1 - _TINY) for x in (view.new, view.behaviour))
    return mu * (mu / pi).log() + (1 - mu) * ((1 - mu) / (1 - pi)).log()


def lag(view: View, low: float, high: float) -> Tensor:
    """Admission by lag, token by token: of a rollout that met new weights half-way the fresh half stays."""
    return torch.ones_like(view.mask) if view.lag is None else view.lag <= high


def m2po(view: View, low: float, limit: float) -> Tensor:
    """Squared log-ratios up to the batch's limit."""
    return view.log_ratio**2 <= limit


def m2po_released(view: View, low: float, cap: float) -> Tensor:
    """What a PPO clip at the batch's bounds would leave a gradient."""
    lowest, highest = min(math.log(NARROWEST[0]), -cap), max(math.log(NARROWEST[1]), cap)
    outside = (view.log_ratio < lowest) | (view.log_ratio > highest)
    return ~(view.harmful & outside)


KINDS: dict[str, Callable[[View, float, float], Tensor]] = {
    "icepop": icepop,
    "dppo_tv": dppo_tv,
    "dppo_kl": dppo_kl,
    "kpop": kpop,
    "lag": lag,
    "m2po": m2po,
    "m2po_released": m2po_released,
}


def m2po_limit(view: View, budget: float) -> float:
    """Largest squared log-ratio that stays when the largest leave until the mean is below the budget; one stays.

    Example: log-ratios (.01, .05, .1, .3, .6), budget .04 -> .09, one token leaves.
    """
    ascending = (view.log_ratio[view.mask] ** 2).double().sort().values
    if not len(ascending):
        return math.inf
    means = ascending.cumsum(0) / torch.arange(1, len(ascending) + 1)
    num = max(1, int((means < budget).sum()))
    return float(ascending[num - 1].float())


def m2po_cap(view: View, budget: float) -> float:
    """c such that harmful log-ratios, cut at +-c, have a mean square within the budget; rounded down to one of them.

    Infinite when they are within it uncut. Example: harmful (.01, .05, .1, .3, .6), budget .04 -> .3.
    """
    size = view.log_ratio[view.harmful].abs().double().sort().values
    if not len(size) or float((size**2).mean()) <= budget:
        return math.inf
    num = len(size)
    below = torch.cat([torch.zeros(1, dtype=size.dtype), (size**2).cumsum(0)])[:-1]
    capped = (below + (num - torch.arange(num)) * size**2) / num
    fits = size[capped <= budget]
    return float(fits[-1]) if len(fits) else math.sqrt(budget)


MEASURED: dict[str, Callable[[View, float], float]] = {"m2po": m2po_limit, "m2po_released": m2po_cap}
"""Masks whose limit is measured on the whole batch, and how."""
