"""TOPR, tapered off-policy REINFORCE (arXiv:2503.14286): likelihood for positives, truncated ratio for negatives.

    A_i = 2 R_i - 1 - c                                   R in [0, 1] as verifiers give it; the paper's is -1 or 1
    S_i = sum_t (logp_t - behaviour_t)                    of the whole rollout, clamped to +-20
    w_i = min(max(exp(S_i), a), b)                        without gradient; (a, b) by the sign of A_i
    L   = - sum_t share_t w_i A_i logp_t                  "seq_mean" divides by the rollout's length, as the paper does

The sign of the multiplier A_i chooses the taper, not the reward's: a rollout that is pushed down is always tapered. The
baseline c does not serve variance; it sets the composition of the batch: with a share p of positives the effective
share is p (1 - c) / (1 + c (1 - 2 p)), best at .1 to .2. Token ratios, which two public implementations use, are
another algorithm: a token above ratio 1 inside a rollout that has become improbable would keep its whole weight.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from rlsp_async.algos import baselines, maths
from rlsp_async.algos.base import Advantages, AlgorithmConfig, Carried, Rollouts, Stats, Tokens
from rlsp_async.config.ranges import INFINITY, Range

NEEDS: frozenset[str] = frozenset()
_INFINITE = float("inf")
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    # The other members of the paper's family, for comparison.
    "positives_only": {"negative": (0.0, 0.0)},
    "truncated": {"positive": (0.0, 1.0)},
    "full_ratio": {"positive": (0.0, _INFINITE), "negative": (0.0, _INFINITE)},
}


class ToprConfig(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of TOPR."""

    aggregation: Literal["token_mean", "seq_mean", "seq_sum", "horizon"] = "seq_mean"
    """Mean over all tokens of an update, or over rollouts of their token means, sums, or sums / horizon_tokens."""
    positive: Annotated[tuple[float, float], Range(ge=0, le=10**6, also=(INFINITY,))] = (1.0, 1.0)
    """Smallest and largest weight of a rollout with a positive advantage."""
    negative: Annotated[tuple[float, float], Range(ge=0, le=10**6, also=(INFINITY,))] = (0.0, 1.0)
    """Smallest and largest weight of a rollout with a negative advantage."""
    baseline: Annotated[float, Range(ge=-1, le=1)] = 0.0
    """The baseline c, on the scale of -1 to 1."""
    effective_positive: Annotated[float, Range(ge=0, lt=1)] = 0.0
    """Choose c for each batch so that positives have this effective share; 0: c is `baseline`."""
    positives_per_group: Annotated[int, Range(ge=0, le=65_536)] = 0
    """Largest number of positives of a group that are kept, the first ones, beside all negatives; 0: all. The paper:
    1."""

    def carries(self) -> Carried:
        """The policy that sampled: the taper is a ratio to it."""
        return "behaviour"

    def __post_init__(self) -> None:
        super().__post_init__()
        for low, high in (self.positive, self.negative):
            if low > high:
                raise ValueError("positive and negative are (smallest, largest) weights")


Config = ToprConfig


def needs(cfg: ToprConfig) -> frozenset[str]:
    """Nothing beside the log-probs."""
    return NEEDS


def advantages(cfg: ToprConfig, batch: Rollouts) -> Advantages:
    """One multiplier for each rollout; all are kept, flat groups too, except surplus positives.

    Shares and c are measured on the rollouts that are kept; stats `baseline`, `positive_fraction` and
    `effective_positive_fraction`.
    """
    signed_B = 2.0 * batch.reward_B - 1.0
    keep_B = _kept(cfg, signed_B > 0, batch.group_B)
    positive = float((signed_B[keep_B] > 0).float().mean())
    c = cfg.baseline
    if cfg.effective_positive and 0.0 < positive < 1.0:
        c = baseline_for(positive, cfg.effective_positive)
    adv_B = signed_B - c
    pushed = float(adv_B[keep_B].abs().sum())
    share = float(adv_B[keep_B].clamp(min=0).sum()) / pushed if pushed else 0.0
    stats = {"baseline": c, "positive_fraction": positive, "effective_positive_fraction": share}
    return Advantages(adv_B.repeat_interleave(batch.length_B), keep_B, stats=stats)


def _kept(cfg: ToprConfig, positive_B: Tensor, group_B: Tensor) -> Tensor:
    """The rollouts that stay, bool [B]: "the first correct sample and all incorrect ones" (section 2.3)."""
    if not cfg.positives_per_group:
        return torch.ones_like(positive_B)
    return ~positive_B | (baselines.occurrence_index(group_B, positive_B) < cfg.positives_per_group)


def baseline_for(positive: float, wanted: float) -> float:
    """The c with which a share p of positives has the effective share q, c = (p - q) / (p + q (1 - 2 p)).

    Example: positive .5, wanted .1 -> .8.

    Args:
        positive: share p of positives, above 0 and below 1.
        wanted: effective share q.

    Returns:
        c, on the scale of -1 to 1.
    """
    return (positive - wanted) / (positive + wanted * (1.0 - 2.0 * positive))


def token_loss(cfg: ToprConfig, tokens: Tokens) -> tuple[Tensor, Stats]:
    """Likelihood times multiplier and taper; stats `weight_positive` and `weight_negative`."""
    mask, adv = tokens.mask, maths.guard(tokens.adv, tokens.mask)
    weight = _tapered_weight(cfg, tokens, adv)
    loss = -(tokens.share * weight * adv * maths.guard(tokens.logp, mask)).sum()
    return loss, {
        "weight_positive": maths.stat(weight, mask & (adv > 0)),
        "weight_negative": maths.stat(weight, mask & (adv < 0)),
    }


def _tapered_weight(cfg: ToprConfig, tokens: Tokens, adv: Tensor) -> Tensor:
    """[R] the ratio of each token's rollout, within the limits of its advantage's sign."""
    assert tokens.rollout is not None
    ratio = maths.rollout_ratio(tokens.logp.detach(), tokens.behaviour, tokens.rollout, tokens.mask)
    return torch.where(adv > 0, ratio.clamp(*cfg.positive), ratio.clamp(*cfg.negative))
