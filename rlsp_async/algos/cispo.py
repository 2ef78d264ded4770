"""CISPO, arXiv:2506.13585 (MiniMax-M1): the ratio is clipped and held fixed, so that no token loses its gradient.

    A_i   = (R_i - mean(R_1..R_G)) / (std(R_1..R_G) + eps)
    rho_t = exp(logp_t - base_t)                                   base: behaviour or old, see `against`
    w_t   = min(max(rho_t, 1 - clip_low), 1 + clip_high)           without gradient
    L     = - sum_t share_t w_t A_i logp_t

The lower side is off (clip_low 1) as in the paper. The paper does not give its upper bound; 1 + clip_high = 5 lies in
the range that later work found flat, and is a value to tune. The paper's old policy is the one that sampled.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from rlsp_async.algos import groups, ops
from rlsp_async.algos.base import Advantages, AlgorithmConfig, Carried, Rollouts, Stats, Tokens

NEEDS = frozenset({"old"})
PRESETS: dict[str, dict[str, Any]] = {"paper": {}}


class Config(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of CISPO."""

    clip_low: float = 1.0
    """Weights are at least 1 - clip_low; 1: no lower bound."""
    clip_high: float = 4.0
    """Weights are at most 1 + clip_high."""
    against: Literal["behaviour", "old"] = "behaviour"
    """The ratio's other policy: the one that sampled, or the learner's at the beginning of the step."""
    divide_by_std: bool = True
    """Divide a group's advantages by its standard deviation."""
    drop_flat_groups: bool = True
    """Leave out groups whose rewards are all the same."""

    def carries(self) -> Carried:
        return "behaviour" if self.against == "behaviour" else "step"


def needs(cfg: Config) -> frozenset[str]:
    return NEEDS if cfg.against == "old" else frozenset()


def advantages(cfg: Config, batch: Rollouts) -> Advantages:
    """One advantage a rollout, the same for all its tokens."""
    return groups.centred(batch, cfg.divide_by_std, cfg.drop_flat_groups)


def token_loss(cfg: Config, tokens: Tokens) -> tuple[Tensor, Stats]:
    mask, adv = tokens.mask, ops.guard(tokens.adv, tokens.mask)
    base = tokens.behaviour if cfg.against == "behaviour" else tokens.old
    assert base is not None
    rho = ops.ratio(tokens.logp.detach(), base, mask)
    weight = rho.clamp(1 - cfg.clip_low, 1 + cfg.clip_high)
    loss = -(tokens.share * weight * adv * ops.guard(tokens.logp, mask)).sum()
    return loss, {"weight": ops.stat(weight, mask), "weight_capped": ops.stat((weight < rho).float(), mask)}
