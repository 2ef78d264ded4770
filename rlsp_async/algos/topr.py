"""TOPR, tapered off-policy REINFORCE, arXiv:2503.14286: likelihood for positives, truncated ratio for negatives.

    A_i = 2 R_i - 1 - c                                   R in [0, 1] as verifiers give it; the paper's is -1 or 1
    S_i = sum_t (logp_t - behaviour_t)                    of the whole rollout, within +-20
    w_i = min(max(exp(S_i), a), b)                        without gradient; (a, b) by the sign of A_i
    L   = - sum_t share_t w_i A_i logp_t                  "seq_mean" divides by the rollout's length, as the paper does

The sign of the multiplier A_i chooses the taper, not the reward's: a rollout that is pushed down is always tapered. The
baseline c sets what the batch is made of, not its variance: with a share p of positives the effective share is
p (1 - c) / (1 + c (1 - 2 p)), best at .1 to .2. Token ratios, as two public implementations have them, are another
algorithm: a token above ratio 1 inside a rollout that has become improbable would keep its whole weight.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from rlsp_async.algos import groups, ops
from rlsp_async.algos.base import Advantages, AlgorithmConfig, Carried, Rollouts, Stats, Tokens

NEEDS: frozenset[str] = frozenset()
_INFINITE = float("inf")
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    # The other members of the paper's family, for comparison.
    "positives_only": {"negative": (0.0, 0.0)},
    "truncated": {"positive": (0.0, 1.0)},
    "full_ratio": {"positive": (0.0, _INFINITE), "negative": (0.0, _INFINITE)},
}


class Config(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of TOPR."""

    aggregation: Literal["token_mean", "seq_mean", "seq_sum", "horizon"] = "seq_mean"
    """Mean over all tokens of an update, or over rollouts of their token means, sums, or sums / horizon_tokens."""
    positive: tuple[float, float] = (1.0, 1.0)
    """Least and largest weight of a rollout with a positive advantage."""
    negative: tuple[float, float] = (0.0, 1.0)
    """The same with a negative one."""
    baseline: float = 0.0
    """c, on the scale of -1 to 1."""
    effective_positive: float = 0.0
    """Choose c for each batch so that positives have this effective share; 0: c is `baseline`."""
    positives_per_group: int = 0
    """Keep all negatives of a group and at most so many positives, the first ones; 0: all. The paper's data have 1."""

    def carries(self) -> Carried:
        return "behaviour"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.positives_per_group < 0:
            raise ValueError("positives_per_group must be at least 0 (0: all)")
        if not 0.0 <= self.effective_positive < 1.0:
            raise ValueError("effective_positive is a share: 0 (off) up to, not including, 1")
        for low, high in (self.positive, self.negative):
            if not 0.0 <= low <= high:
                raise ValueError("positive and negative are (least, largest) weights, 0 or more")


def needs(cfg: Config) -> frozenset[str]:
    return NEEDS


def advantages(cfg: Config, batch: Rollouts) -> Advantages:
    """One multiplier a rollout; every rollout counts, flat groups too, but for surplus positives. The shares and c are
    those of what is kept."""
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


def _kept(cfg: Config, positive_B: Tensor, group_B: Tensor) -> Tensor:
    """Section 2.3's rule of composition, "the first correct sample and all incorrect ones", as a number."""
    if not cfg.positives_per_group:
        return torch.ones_like(positive_B)
    return ~positive_B | (groups.place(group_B, positive_B) < cfg.positives_per_group)


def baseline_for(positive: float, wanted: float) -> float:
    """c that gives a share `positive` of positives the effective share `wanted`. Example: .5, .1 -> .8."""
    return (positive - wanted) / (positive + wanted * (1.0 - 2.0 * positive))


def token_loss(cfg: Config, tokens: Tokens) -> tuple[Tensor, Stats]:
    assert tokens.rollout is not None
    mask, adv = tokens.mask, ops.guard(tokens.adv, tokens.mask)
    weight = _tapered(cfg, tokens, adv)
    loss = -(tokens.share * weight * adv * ops.guard(tokens.logp, mask)).sum()
    return loss, {
        "weight_positive": ops.stat(weight, mask & (adv > 0)),
        "weight_negative": ops.stat(weight, mask & (adv < 0)),
    }


def _tapered(cfg: Config, tokens: Tokens, adv: Tensor) -> Tensor:
    """Each token's weight: its rollout's ratio within the limits of its sign."""
    assert tokens.rollout is not None
    ratio = ops.rollout_ratio(tokens.logp.detach(), tokens.behaviour, tokens.rollout, tokens.mask)
    return torch.where(adv > 0, ratio.clamp(*cfg.positive), ratio.clamp(*cfg.negative))
