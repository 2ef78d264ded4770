"""Correction stages: what an off-policy token counts, in front of the loss of any algorithm.

    share_t  <-  share_t * keep_rollout * keep_token * weight_t        reject, mask, weight; then the surrogate

The shares are made before, from the lengths of all rollouts of the update: what a stage leaves out does not make the
rest count more. An algorithm knows nothing of the stages. Admission by lag comes before all of them
(`stages.NAME.max_lag`). All ratios are the learner's policy pi over the policy mu that sampled, `ratio_t = pi_t /
mu_t`.

reject: whole rollouts are left out. A product of ratios spreads with the rollout's length. A mean of log-ratios hides a
single catastrophic token, for which there is "outlier", and cancels drifts up and down, which "k2" and "k3" add up.

    opsm           drop if A < 0 and mean_t(log mu_t - log pi_t) > high      DeepSeek-V3.2, as slime implements it
    mis            drop if prod_t ratio_t > high                             sequence-masked importance sampling (verl)
    geometric      keep if exp(mean_t log ratio_t) is within [low, high]     verl
    k2             drop if mean_t (log ratio_t)^2 / 2 > high                 verl, rejection by divergence
    k3             drop if mean_t (ratio_t - log ratio_t - 1) > high         verl; unbiased for the divergence
    outlier        drop if any ratio_t is outside of [low, high]             SkyRL's outlier mask

mask: single tokens are left out. A token is harmful if the update would carry its probability further away from mu.

    icepop         keep if ratio_t is within [low, high]                     with the weight "token" it is IcePop
    dppo_tv        drop if harmful and |pi_t - mu_t| > high                  arXiv:2602.04879
    dppo_kl        drop if harmful and KL(Bernoulli mu_t || Bernoulli pi_t) > high        the same paper
    kpop           drop if KL(Bernoulli mu_t || Bernoulli pi_t) > high, whatever the advantage        AReaL's KPop
    lag            drop if the token's policy is more than `high` versions behind
    m2po           drop the largest (log ratio_t)^2 until the mean of the rest is below high          arXiv:2510.01161
    m2po_released  drop if harmful and outside of [exp(-c), exp(c)]          its released code

The two M2PO forms need one number of the whole batch (`m2po_limit`, `m2po_cap`), which is measured between `old` and
`behaviour` at the beginning of the step. The released code measures it in each micro-batch, so that its result depends
on how a batch is packed. Its c is never narrower than the ratios .7 and 1.5, and there is no limit when the harmful
tokens are within the budget.

weight: truncated importance weights, and the step size that follows from them.

    token          min(ratio_t, high)                token TIS; of the policy at this update: AIPO, arXiv:2505.24034
    rollout        min(prod_t ratio_t, high)         sequence TIS, on every token of the rollout
    VCPO           lr * sqrt(min(1, (ESS / B) / base)),   ESS = (sum w)^2 / sum w^2, w = prod_t ratio_t    2602.17616

Shapes: R response tokens of one micro-batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from torch import Tensor

from rlsp_async.algos import maths, stats
from rlsp_async.algos.stats import Stats
from rlsp_async.config.ranges import INFINITY, Range
from rlsp_async.config.schema import Section

LAG_BINS = (0, 1, 2, 4, 8, 16)
"""Lower ends of the lag histogram's bins, in versions."""
NARROWEST = (0.7, 1.5)
"""Ratios that "m2po_released" always keeps."""
_TINY = 1e-6


@dataclass(frozen=True)
class TokenView:
    """The columns [R] that the stages look at: one micro-batch, without gradient; 0 where `mask` is False."""

    new: Tensor
    """Log-prob under the policy that is compared with the one that sampled."""
    behaviour: Tensor
    """Log-prob under the policy that sampled."""
    log_ratio: Tensor
    """new - behaviour, clamped to +-20."""
    adv: Tensor
    mask: Tensor
    rollout: Tensor
    """int64; tokens of one rollout share a number."""
    lag: Tensor | None = None
    """int64, versions from the token's policy to the learner's; None: no policy sampled the tokens."""

    @property
    def harmful(self) -> Tensor:
        """Whether the update would move a token further in the direction in which it has moved since sampling, [R]."""
        return self.mask & (self.adv * self.log_ratio > 0)

    @property
    def rollout_log_ratio(self) -> Tensor:
        """[R] log-ratio of each token's whole rollout, not clamped."""
        return maths.rollout_sums(self.new - self.behaviour, self.rollout, self.mask)


def token_view(
    new: Tensor, behaviour: Tensor, adv: Tensor, mask: Tensor, rollout: Tensor, lag: Tensor | None = None
) -> TokenView:
    """Makes a view of columns that may hold anything where the mask is False, and may carry gradient.

    Args:
        new: log-probs [R] under the policy that is compared with the one that sampled.
        behaviour: log-probs [R] under the policy that sampled.
        adv: advantages [R].
        mask: bool [R].
        rollout: int64 [R], the rollout of each token.
        lag: int64 [R], in versions; None: no policy sampled the tokens.

    Returns:
        the view.

    Raises:
        ValueError: the shapes differ.
    """
    maths.check_shapes(new_R=new, behaviour_R=behaviour, adv_R=adv, mask_R=mask, rollout_R=rollout, lag_R=lag)
    new, behaviour = (maths.guard(x.detach().float(), mask) for x in (new, behaviour))
    log_ratio = maths.log_ratio(new, behaviour, mask)
    return TokenView(new, behaviour, log_ratio, maths.guard(adv.detach(), mask), mask, rollout, lag)


class Rule(NamedTuple):
    """One kind of a stage: its function and the bounds that count where the settings leave them at 0."""

    keep: Callable[[TokenView, float, float], Tensor]
    """(view, low, high) -> bool [R], False for what is left out."""
    low: float
    high: float
    has_low: bool = False
    """Whether the lower bound means something."""


# --- reject --------------------------------------------------------------------------------------------------------


def _reject_opsm(view: TokenView, low: float, high: float) -> Tensor:
    """Off-policy sequence masking: negative rollouts that became improbable are dropped, positive ones never."""
    drift = -maths.rollout_means(view.new - view.behaviour, view.rollout, view.mask)
    return ~((view.adv < 0) & (drift > high))


def _reject_mis(view: TokenView, low: float, high: float) -> Tensor:
    return view.rollout_log_ratio <= math.log(high)


def _reject_geometric(view: TokenView, low: float, high: float) -> Tensor:
    mean = maths.rollout_means(view.new - view.behaviour, view.rollout, view.mask)
    return (mean >= math.log(low)) & (mean <= math.log(high))


def _reject_k2(view: TokenView, low: float, high: float) -> Tensor:
    return maths.rollout_means(0.5 * view.log_ratio**2, view.rollout, view.mask) <= high


def _reject_k3(view: TokenView, low: float, high: float) -> Tensor:
    return maths.rollout_means(maths.k3(view.behaviour, view.new), view.rollout, view.mask) <= high


def _reject_outlier(view: TokenView, low: float, high: float) -> Tensor:
    outside = (view.log_ratio < math.log(low)) | (view.log_ratio > math.log(high))
    return maths.rollout_sums(outside.to(view.new.dtype), view.rollout, view.mask) == 0


REJECTIONS = {
    "opsm": Rule(_reject_opsm, 0.0, 1e-4),
    "mis": Rule(_reject_mis, 0.0, 5.0),
    "geometric": Rule(_reject_geometric, 0.999, 1.001, has_low=True),
    # The upper ends of what verl's pages advise.
    "k2": Rule(_reject_k2, 0.0, 2.5),
    "k3": Rule(_reject_k3, 0.0, 0.01),
    "outlier": Rule(_reject_outlier, 1e-4, 100.0, has_low=True),
}


# --- mask ----------------------------------------------------------------------------------------------------------


def _mask_icepop(view: TokenView, low: float, high: float) -> Tensor:
    return (view.log_ratio >= math.log(low)) & (view.log_ratio <= math.log(high))


def _mask_dppo_tv(view: TokenView, low: float, high: float) -> Tensor:
    moved = view.new.exp() - view.behaviour.exp()
    return ~(view.harmful & (moved.abs() > high))


def _mask_dppo_kl(view: TokenView, low: float, high: float) -> Tensor:
    return ~(view.harmful & (_divergence(view) > high))


def _mask_kpop(view: TokenView, low: float, high: float) -> Tensor:
    return _divergence(view) <= high


def _divergence(view: TokenView) -> Tensor:
    """[R] KL(Bernoulli mu || Bernoulli pi): of the choice between the sampled token and any other."""
    pi, mu = (x.exp().clamp(_TINY, 1 - _TINY) for x in (view.new, view.behaviour))
    return mu * (mu / pi).log() + (1 - mu) * ((1 - mu) / (1 - pi)).log()


def _mask_lag(view: TokenView, low: float, high: float) -> Tensor:
    """Admission by lag, token by token: of a rollout that met new weights half-way the fresh part stays."""
    return torch.ones_like(view.mask) if view.lag is None else view.lag <= high


def _mask_m2po(view: TokenView, low: float, limit: float) -> Tensor:
    return view.log_ratio**2 <= limit


def _mask_m2po_released(view: TokenView, low: float, cap: float) -> Tensor:
    """Keeps the tokens to which a PPO clip at the batch's bounds would leave a gradient."""
    lowest, highest = min(math.log(NARROWEST[0]), -cap), max(math.log(NARROWEST[1]), cap)
    outside = (view.log_ratio < lowest) | (view.log_ratio > highest)
    return ~(view.harmful & outside)


MASKS = {
    "icepop": Rule(_mask_icepop, 0.5, 5.0, has_low=True),
    "dppo_tv": Rule(_mask_dppo_tv, 0.0, 0.2),
    # No published default is known to us.
    "dppo_kl": Rule(_mask_dppo_kl, 0.0, 0.05),
    "kpop": Rule(_mask_kpop, 0.0, 2.0),
    # prime-rl's default for whole groups.
    "lag": Rule(_mask_lag, 0.0, 8.0),
    "m2po": Rule(_mask_m2po, 0.0, 0.04),
    "m2po_released": Rule(_mask_m2po_released, 0.0, 0.04),
}


def m2po_limit(view: TokenView, budget: float) -> float:
    """Largest squared log-ratio that stays when the largest are dropped until the mean is below a budget (2510.01161).

    Example: log-ratios (.01, .05, .1, .3, .6), budget .04 -> .09, so that one token is dropped.

    Args:
        view: the kept tokens of a whole batch.
        budget: the mean square of log-ratios that is allowed.

    Returns:
        the limit; at least one token stays. Infinity when the view has no token.
    """
    ascending = (view.log_ratio[view.mask] ** 2).double().sort().values
    if not len(ascending):
        return math.inf
    means = ascending.cumsum(0) / torch.arange(1, len(ascending) + 1)
    num = max(1, int((means < budget).sum()))
    return float(ascending[num - 1].float())


def m2po_cap(view: TokenView, budget: float) -> float:
    """The c for which harmful log-ratios, cut at +-c, have a mean square within a budget (M2PO's released code).

    Example: harmful log-ratios (.01, .05, .1, .3, .6), budget .04 -> .3.

    Args:
        view: the kept tokens of a whole batch.
        budget: the mean square of log-ratios that is allowed.

    Returns:
        c, rounded down to one of the sizes of the log-ratios; the root of the budget when none fits. Infinity when
        the harmful log-ratios are within the budget as they are.
    """
    size = view.log_ratio[view.harmful].abs().double().sort().values
    if not len(size) or float((size**2).mean()) <= budget:
        return math.inf
    num = len(size)
    below = torch.cat([torch.zeros(1, dtype=size.dtype), (size**2).cumsum(0)])[:-1]
    capped = (below + (num - torch.arange(num)) * size**2) / num
    fits = size[capped <= budget]
    return float(fits[-1]) if len(fits) else math.sqrt(budget)


MEASURED: dict[str, Callable[[TokenView, float], float]] = {"m2po": m2po_limit, "m2po_released": m2po_cap}
"""Masks whose limit is measured on the whole batch, and how."""


# --- weight --------------------------------------------------------------------------------------------------------


def _weigh_token(view: TokenView, high: float) -> Tensor:
    """Example: ratios (.3, .6, 1, 3, 7), high 2 -> (.3, .6, 1, 2, 2)."""
    return view.log_ratio.exp().clamp(max=high)


def _weigh_rollout(view: TokenView, high: float) -> Tensor:
    """Example: ratios 2 and 3 of one rollout, high 5 -> (5, 5)."""
    return _rollout_ratio(view).clamp(max=high)


def _rollout_ratio(view: TokenView) -> Tensor:
    """[R] prod_t ratio_t of each token's rollout, within exp(+-20)."""
    return view.rollout_log_ratio.clamp(-maths.MAX_LOG_RATIO, maths.MAX_LOG_RATIO).exp()


WEIGHTS: dict[str, tuple[Callable[[TokenView, float], Tensor], float]] = {
    "token": (_weigh_token, 2.0),
    "rollout": (_weigh_rollout, 5.0),
}
"""Function (view, high) -> weights [R], and the largest weight where the settings leave it at 0."""


def step_factor(ess_fraction: float, base: float) -> float:
    """VCPO's factor of the learning rate, sqrt(min(1, (ESS / B) / base)) (arXiv:2602.17616).

    Example: ESS/B .25, base 1 -> .5.

    Args:
        ess_fraction: ESS / B of the update's rollouts, 0 to 1.
        base: the fraction from which on the learning rate is whole; 0: off.

    Returns:
        0 to 1; 1 when it is off.
    """
    return math.sqrt(min(1.0, ess_fraction / base)) if base else 1.0


# --- settings, and all stages together -----------------------------------------------------------------------------


class CorrectionsConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`corrections = { ... }` among the options of any algorithm that learns from rollouts."""

    policy: Literal["old", "present"] = "old"
    """Numerator of the ratios: the learner's policy at the beginning of the step, or at this update."""
    reject: Literal["none", "opsm", "mis", "geometric", "k2", "k3", "outlier"] = "none"
    """Whole rollouts that are left out."""
    reject_low: Annotated[float, Range(ge=0, le=10**9)] = 0.0
    """Lower bound of "geometric" and "outlier"; 0: that kind's default."""
    reject_high: Annotated[float, Range(ge=0, le=10**9)] = 0.0
    """Upper bound, or largest drift of "opsm", divergence of "k2" and "k3"; 0: that kind's default."""
    mask: Literal["none", "icepop", "dppo_tv", "dppo_kl", "kpop", "lag", "m2po", "m2po_released"] = "none"
    """Single tokens that are left out."""
    mask_low: Annotated[float, Range(ge=0, le=10**9)] = 0.0
    """Lower bound of "icepop"; 0: that kind's default."""
    mask_high: Annotated[float, Range(ge=0, le=10**9)] = 0.0
    """Upper bound, divergence, budget or versions; 0: that kind's default."""
    weight: Literal["none", "token", "rollout"] = "none"
    """Truncated importance weight."""
    weight_high: Annotated[float, Range(ge=0, le=10**9, also=(INFINITY,))] = 0.0
    """Largest weight; inf: no limit; 0: that kind's default."""
    ess_base: Annotated[float, Range(ge=0, le=10**3)] = 0.0
    """VCPO: learning rate times sqrt(min(1, ESS/B / ess_base)) of the rollouts' ratios; 0: off."""

    def __post_init__(self) -> None:
        for stage, kind, low, rules in (
            ("reject", self.reject, self.reject_low, REJECTIONS),
            ("mask", self.mask, self.mask_low, MASKS),
        ):
            if low and not (kind in rules and rules[kind].has_low):
                known = ", ".join(sorted(name for name, rule in rules.items() if rule.has_low))
                raise ValueError(f"{stage}_low means something only to {known}, and {stage} is {kind!r}")
        for name in ("reject", "mask", "weight"):
            if getattr(self, f"{name}_high") and getattr(self, name) == "none":
                raise ValueError(f'{name}_high is set and {name} is "none"; name a stage or leave it out')

    @property
    def active(self) -> bool:
        """Whether anything is corrected."""
        return bool({self.reject, self.mask, self.weight} - {"none"}) or self.ess_base > 0

    @property
    def needs_old(self) -> bool:
        """Whether the stages need log-probs from the beginning of the step."""
        return (self.active and self.policy == "old") or self.measures

    @property
    def measures(self) -> bool:
        """Whether the mask needs a number of the whole batch before its first update."""
        return self.mask in MEASURED


def weigh(cfg: CorrectionsConfig, view: TokenView) -> Tensor:
    """The weight stage alone.

    Args:
        cfg: the settings; `cfg.weight` is not "none".
        view: the tokens.

    Returns:
        weights [R].
    """
    weigh_tokens, high = WEIGHTS[cfg.weight]
    return weigh_tokens(view, cfg.weight_high or high)


def measure_limit(cfg: CorrectionsConfig, batch: TokenView | None) -> float:
    """The mask's limit for a batch.

    Args:
        cfg: the settings.
        batch: the kept tokens of the whole batch; None when there is nothing to measure.

    Returns:
        the measured limit for the M2PO masks; the setting or its default for every other.
    """
    high = cfg.mask_high or (MASKS[cfg.mask].high if cfg.mask != "none" else 0.0)
    return high if batch is None or not cfg.measures else MEASURED[cfg.mask](batch, high)


def correct(cfg: CorrectionsConfig, view: TokenView, mask_limit: float) -> tuple[Tensor, Stats]:
    """Runs the stages in their order: reject, mask, weight.

    Args:
        cfg: the settings.
        view: tokens of one micro-batch.
        mask_limit: upper bound of the mask, from `measure_limit`.

    Returns:
        factor [R] of every token's share, 0 for what is left out; and stats of what came in ("all") and of what each
        active stage left.
    """
    ratio, keep = view.log_ratio.exp(), view.mask
    found = _stage_stats("all", view, ratio, keep) | _rollout_stats(view)
    if cfg.reject != "none":
        rule = REJECTIONS[cfg.reject]
        keep = keep & rule.keep(view, cfg.reject_low or rule.low, cfg.reject_high or rule.high)
        found |= _stage_stats("reject", view, ratio, keep)
    if cfg.mask != "none":
        rule = MASKS[cfg.mask]
        keep = keep & rule.keep(view, cfg.mask_low or rule.low, mask_limit)
        found |= _stage_stats("mask", view, ratio, keep)
    if cfg.weight == "none":
        return keep.to(ratio.dtype), found
    weight = weigh(cfg, view)
    return torch.where(keep, weight, torch.zeros_like(weight)), found | _stage_stats("weight", view, weight, keep)


def _stage_stats(name: str, view: TokenView, weight: Tensor, keep: Tensor) -> Stats:
    """What a stage left of the positives and of the negatives.

    Effective fraction and largest of the weights, k3 to the policy that sampled, share of tokens kept (unless the stage
    could leave nothing out), lag histogram.
    """
    found: Stats = {}
    k3 = maths.k3(view.behaviour, view.new)
    for sign, side in (("positive", view.mask & (view.adv > 0)), ("negative", view.mask & (view.adv < 0))):
        left = side & keep
        found |= stats.effective_fraction(f"{name}_ess_{sign}", weight, left)
        found |= stats.largest_value(f"{name}_largest_{sign}", weight, left)
        found[f"{name}_k3_{sign}"] = maths.stat(k3, left)
        if keep is not view.mask:
            found[f"{name}_kept_{sign}"] = maths.stat(keep.float(), side)
        if view.lag is not None:
            found |= stats.histogram(f"{name}_lag_{{low}}_{sign}", view.lag, LAG_BINS, left)
    return found


def _rollout_stats(view: TokenView) -> Stats:
    """Effective fraction of whole rollouts, VCPO's ESS / B: each rollout counts once, at its first token."""
    opens = torch.ones_like(view.mask)
    opens[1:] = view.rollout[1:] != view.rollout[:-1]
    return stats.effective_fraction("rollout_ess", _rollout_ratio(view), opens)
