"""REINFORCE++ (arXiv:2501.03262): PPO's loss without a critic, whitened over the whole batch instead of a group.

    r_t   = R [t is last] - kl_coef (old_t - reference_t)                KL inside the reward, k1, at every token
    A_t   = sum_{s >= t} gamma^(s - t) r_s                               whitened over all tokens of the batch
    rho_t = exp(logp_t - old_t)                                          trust region [1 - clip, 1 + clip]
    w_t   = min(exp(old_t - behaviour_t), weight_cap)                    without gradient, for asynchrony
    L     = - sum_t share_t w_t min(rho_t A_t, clip(rho_t) A_t)

With `baseline = "group"` the group's mean is subtracted from R first (REINFORCE++-baseline); the whitening stays.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from rlsp_async.algos import maths
from rlsp_async.algos.base import Advantages, AlgorithmConfig, Carried, Rollouts, Stats, Tokens
from rlsp_async.config.ranges import INFINITY, Range

NEEDS = frozenset({"old", "reference"})
PRESETS: dict[str, dict[str, Any]] = {
    # As published, without the correction for asynchrony.
    "paper": {"weight_cap": 0.0},
    "paper_baseline": {"weight_cap": 0.0, "baseline": "group"},
}


class ReinforcePpConfig(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of REINFORCE++."""

    clip: Annotated[float, Range(gt=0, le=10**6)] = 0.2
    """Trust region of the ratio on either side of 1."""
    gamma: Annotated[float, Range(ge=0, le=1)] = 1.0
    """Discount of a token."""
    kl_coef: Annotated[float, Range(ge=0, le=10**3)] = 0.01
    """Price of KL to the policy with which the stage began; 0: that policy is not kept."""
    baseline: Literal["none", "group"] = "none"
    """Whether the mean reward of the group is subtracted first."""
    weight_cap: Annotated[float, Range(ge=0, le=10**6, also=(INFINITY,))] = 2.0
    """Largest importance weight of old policy over behaviour policy; 0: no weight."""

    def carries(self) -> Carried:
        """The policy that sampled, if there is a `weight_cap`; else the one at the beginning of the step."""
        return "behaviour" if self.weight_cap else "step"


Config = ReinforcePpConfig


def needs(cfg: ReinforcePpConfig) -> frozenset[str]:
    """`old`; `reference` too, if KL has a price."""
    return NEEDS if cfg.kl_coef else NEEDS - {"reference"}


def advantages(cfg: ReinforcePpConfig, batch: Rollouts) -> Advantages:
    """Whitened returns of every token; every rollout counts; stat `kl_penalty`."""
    reward_B = batch.reward_B
    if cfg.baseline == "group":
        reward_B = maths.group_advantages(reward_B, batch.group_B, divide_by_std=False)
    reward_N, penalty = torch.zeros(int(batch.length_B.sum())), 0.0
    if cfg.kl_coef:
        assert batch.old_N is not None
        assert batch.reference_N is not None
        reward_N = -cfg.kl_coef * maths.log_ratio(batch.old_N, batch.reference_N, batch.mask_N)
        penalty = -float(reward_N.sum()) / len(batch.length_B)
    reward_N = reward_N.index_add(0, maths.last_tokens(batch.length_B), reward_B)
    returns_N = maths.gae(reward_N, torch.zeros_like(reward_N), batch.length_B, cfg.gamma, 1.0)
    keep_B = torch.ones_like(batch.length_B, dtype=torch.bool)
    return Advantages(maths.whiten(returns_N, batch.mask_N), keep_B, stats={"kl_penalty": penalty})


def token_loss(cfg: ReinforcePpConfig, tokens: Tokens) -> tuple[Tensor, Stats]:
    """Clipped surrogate with weight; stats `clip_positive`, `clip_negative` and `weight`."""
    assert tokens.old is not None
    mask, adv = tokens.mask, maths.guard(tokens.adv, tokens.mask)
    rho = maths.ratio(tokens.logp, tokens.old, mask)
    loss = maths.clipped_surrogate(rho, adv, cfg.clip, cfg.clip)
    stats = maths.clip_stats(rho.detach(), adv, mask, cfg.clip, cfg.clip)
    if cfg.weight_cap:
        weight = maths.truncated_weight(tokens.old, tokens.behaviour, cfg.weight_cap, mask)
        loss = weight * loss
        stats["weight"] = maths.stat(weight, mask)
    return (tokens.share * maths.guard(loss, mask)).sum(), stats
