"""GRPO with truncated importance weights: group-centred rewards, PPO clip, corrected for the policy that sampled.

    A_i   = R_i - mean(R_1..R_G)          divided by std(R_1..R_G) + eps if `divide_by_std`
    rho_t = exp(logp_t - old_t)           trust region [1 - clip_low, 1 + clip_high]
    w_t   = min(exp(old_t - behaviour_t), weight_cap)                     without gradient
    L     = - sum_t share_t w_t min(rho_t A_t, clip(rho_t) A_t)

Groups whose rewards are all the same carry no signal and are left out of the update and its counts.
arXiv:2402.03300 (groups), 2503.14476 (asymmetric clip, token mean), 2503.20783 (no std), 2505.24298 (w_t).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlsp_async.algos import ops
from rlsp_async.algos.base import Advantages, AlgorithmConfig, Rollouts, Stats, Tokens

NEEDS = frozenset({"old"})
PRESETS: dict[str, dict[str, Any]] = {"dr_grpo": {"divide_by_std": False, "clip_high": 0.2}}


class Config(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of GRPO."""

    clip_low: float = 0.2
    clip_high: float = 0.28
    divide_by_std: bool = True
    """Divide a group's advantages by its standard deviation."""
    weight_cap: float = 2.0
    """Largest importance weight of old policy over behaviour policy."""
    drop_flat_groups: bool = True
    """Leave out groups whose rewards are all the same."""


def needs(cfg: Config) -> frozenset[str]:
    return NEEDS


def advantages(cfg: Config, batch: Rollouts) -> Advantages:
    """One advantage a rollout, the same for all its tokens."""
    adv_B = ops.group_advantages(batch.reward_B, batch.group_B, cfg.divide_by_std)
    signal_B = ops.has_signal(batch.reward_B, batch.group_B)
    keep_B = signal_B if cfg.drop_flat_groups else signal_B | True
    return Advantages(adv_B.repeat_interleave(batch.length_B), keep_B,
                      stats={"signal_fraction": float(signal_B.float().mean())})


def token_loss(cfg: Config, tokens: Tokens) -> tuple[Tensor, Stats]:
    assert tokens.old is not None
    mask, adv = tokens.mask, ops.guard(tokens.adv, tokens.mask)
    rho = ops.ratio(tokens.logp, tokens.old, mask)
    weight = ops.truncated_weight(tokens.old, tokens.behaviour, cfg.weight_cap, mask)
    loss = weight * ops.clipped_surrogate(rho, adv, cfg.clip_low, cfg.clip_high)
    stats = ops.clip_stats(rho.detach(), adv, mask, cfg.clip_low, cfg.clip_high)
    return (tokens.share * ops.guard(loss, mask)).sum(), {**stats, "weight": ops.stat(weight, mask)}
