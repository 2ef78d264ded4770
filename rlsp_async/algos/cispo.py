"""CISPO (MiniMax-M1, arXiv:2506.13585, eq. 4): a ratio that is clipped and held fixed; no token loses its gradient.

    A_i   = (R_i - mean(R_1..R_G)) / (std(R_1..R_G) + eps)
    rho_t = exp(logp_t - base_t)                                   base: behaviour or old, see `against`
    w_t   = min(max(rho_t, 1 - clip_low), 1 + clip_high)           without gradient
    L     = - sum_t share_t w_t A_i logp_t

The lower bound is off (clip_low 1), as in the paper. The paper does not give its upper bound; 1 + clip_high = 5 lies in
the range that later work found flat, and is a value to tune. The paper's old policy is the one that sampled.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from torch import Tensor

from rlsp_async.algos import baselines, maths
from rlsp_async.algos.base import Advantages, AlgorithmConfig, Carried, Rollouts, Stats, Tokens
from rlsp_async.config.ranges import Range

NEEDS = frozenset({"old"})
PRESETS: dict[str, dict[str, Any]] = {"paper": {}}


class CispoConfig(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of CISPO."""

    clip_low: Annotated[float, Range(ge=0, le=1)] = 1.0
    """Weights are at least 1 - clip_low; 1: no lower bound."""
    clip_high: Annotated[float, Range(ge=0, le=10**6)] = 4.0
    """Weights are at most 1 + clip_high."""
    against: Literal["behaviour", "old"] = "behaviour"
    """The other policy of the ratio: the one that sampled, or the learner's at the beginning of the step."""
    divide_by_std: bool = True
    """Divide a group's advantages by its standard deviation."""
    drop_flat_groups: bool = True
    """Leave out groups whose rewards are all the same."""

    def carries(self) -> Carried:
        """The policy that `against` names."""
        return "behaviour" if self.against == "behaviour" else "step"


Config = CispoConfig


def needs(cfg: CispoConfig) -> frozenset[str]:
    """`old`, if the ratio is to the policy at the beginning of the step."""
    return NEEDS if cfg.against == "old" else frozenset()


def advantages(cfg: CispoConfig, batch: Rollouts) -> Advantages:
    """Centred rewards; one advantage for each rollout."""
    return baselines.centred_advantages(batch, cfg.divide_by_std, cfg.drop_flat_groups)


def token_loss(cfg: CispoConfig, tokens: Tokens) -> tuple[Tensor, Stats]:
    """Likelihood with the clipped weight; stats `weight` and `weight_capped` (share of tokens that are capped)."""
    mask, adv = tokens.mask, maths.guard(tokens.adv, tokens.mask)
    rho = maths.ratio(tokens.logp.detach(), tokens.logp_under(cfg.against), mask)
    weight = rho.clamp(1 - cfg.clip_low, 1 + cfg.clip_high)
    loss = -(tokens.share * weight * adv * maths.guard(tokens.logp, mask)).sum()
    return loss, {"weight": maths.stat(weight, mask), "weight_capped": maths.stat((weight < rho).float(), mask)}
