"""GRPO with truncated importance weights: group-centred rewards, PPO clip, corrected for the policy that sampled.

    A_i   = R_i - mean(R_1..R_G)          divided by std(R_1..R_G) + eps if `divide_by_std`
    rho_t = exp(logp_t - old_t)           trust region [1 - clip_low, 1 + clip_high]
    w_t   = min(exp(old_t - behaviour_t), weight_cap)                     without gradient
    L     = sum_t share_t ( -w_t min(rho_t A_t, clip(rho_t) A_t) + kl_coef k3(logp_t, reference_t) )
    -min(rho_t A_t, ..) is at most -dual_clip A_t where A_t < 0, if dual_clip is set
    R_i   = R_i - 1 + (limit_tokens - length_i) / buffer_tokens          in the buffer below limit_tokens, if one is set

Groups whose rewards are all the same carry no signal and are left out of the update and its counts; the length penalty
gives them none. arXiv:2402.03300 (groups, k3), 2503.14476 (asymmetric clip, token mean, length penalty), 2503.20783 (no
std, constant horizon), 2505.24298 (w_t), 1912.09729 (dual clip).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from rlsp_async.algos import groups, ops
from rlsp_async.algos.base import Advantages, AlgorithmConfig, Carried, Rollouts, Stats, Tokens

NEEDS = frozenset({"old", "reference"})
PRESETS: dict[str, dict[str, Any]] = {
    # As published, each with the correction for asynchrony switched off: none of the three papers has one.
    "deepseekmath": {
        "clip_high": 0.2,
        "weight_cap": 0.0,
        "kl_coef": 0.04,
        "aggregation": "seq_mean",
        "drop_flat_groups": False,
    },
    "dr_grpo": {
        "divide_by_std": False,
        "clip_high": 0.2,
        "weight_cap": 0.0,
        "aggregation": "horizon",
        "horizon_tokens": 4096,
        "drop_flat_groups": False,
    },
    # Public corrections in front of the surrogate: IcePop's mask and weight; M2PO's mask as AReaL has it.
    "icepop": {"weight_cap": 0.0, "corrections": {"mask": "icepop", "weight": "token", "weight_high": 5.0}},
    "m2po_areal": {"weight_cap": 5.0, "corrections": {"mask": "m2po"}},
    # ARPO (arXiv:2505.16282), with success replay. Released: its code makes `old` anew after a success was put in, so
    # that one counts as if it had just been sampled. Corrected: the ratio to the policy that did sample it.
    "arpo_released": {"clip_high": 0.3, "dual_clip": 3.0, "weight_cap": 0.0},
    "arpo_corrected": {"clip_high": 0.3, "dual_clip": 3.0, "weight_cap": 2.0},
    "dapo": {"weight_cap": 0.0, "limit_tokens": 20480, "buffer_tokens": 4096},
}


class Config(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of GRPO."""

    clip_low: float = 0.2
    clip_high: float = 0.28
    dual_clip: float = 0.0
    """Dual clip: largest ratio that counts where an advantage is negative, above 1; 0: none."""
    divide_by_std: bool = True
    """Divide a group's advantages by its standard deviation."""
    weight_cap: float = 2.0
    """Largest importance weight of old policy over behaviour policy; 0: no weight."""
    kl_coef: float = 0.0
    """Price of KL (k3, in the loss) to the policy with which the stage began; 0: that policy is not kept."""
    drop_flat_groups: bool = True
    """Leave out groups whose rewards are all the same."""
    limit_tokens: int = 0
    """Response tokens from which a rollout is charged a whole reward; 0: length costs nothing."""
    buffer_tokens: int = 0
    """The charge rises from 0 to 1 over so many tokens below limit_tokens."""

    def carries(self) -> Carried:
        return "behaviour" if self.weight_cap else "step"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dual_clip and self.dual_clip <= 1.0:
            raise ValueError("dual_clip is a ratio above 1; 0 leaves it out")
        if self.limit_tokens and not 0 < self.buffer_tokens <= self.limit_tokens:
            raise ValueError("buffer_tokens must be above 0 and at most limit_tokens when limit_tokens is set")


def needs(cfg: Config) -> frozenset[str]:
    return NEEDS if cfg.kl_coef else NEEDS - {"reference"}


def advantages(cfg: Config, batch: Rollouts) -> Advantages:
    """One advantage a rollout, the same for all its tokens."""
    found = groups.centred(batch, cfg.divide_by_std, cfg.drop_flat_groups)
    if not cfg.limit_tokens:
        return found
    charge_B = length_charge(batch.length_B, cfg.limit_tokens, cfg.buffer_tokens)
    charged = groups.centred(replace(batch, reward_B=batch.reward_B - charge_B), cfg.divide_by_std, False)
    stats = {**found.stats, "length_charge": float(charge_B.mean())}
    return Advantages(charged.adv_N, found.keep_B, stats=stats)


def length_charge(length_B: Tensor, limit_tokens: int, buffer_tokens: int) -> Tensor:
    """DAPO's soft punishment of overlong answers, as a positive price. Limit 100, buffer 20: 80 -> 0, 90 -> .5."""
    return ((length_B - (limit_tokens - buffer_tokens)) / buffer_tokens).clamp(0.0, 1.0)


def token_loss(cfg: Config, tokens: Tokens) -> tuple[Tensor, Stats]:
    assert tokens.old is not None
    mask, adv = tokens.mask, ops.guard(tokens.adv, tokens.mask)
    rho = ops.ratio(tokens.logp, tokens.old, mask)
    loss = ops.clipped_surrogate(rho, adv, cfg.clip_low, cfg.clip_high)
    if cfg.dual_clip:
        loss = ops.dual_clipped(loss, adv, cfg.dual_clip)
    stats = ops.clip_stats(rho.detach(), adv, mask, cfg.clip_low, cfg.clip_high)
    if cfg.weight_cap:
        weight = ops.truncated_weight(tokens.old, tokens.behaviour, cfg.weight_cap, mask)
        loss = weight * loss
        stats["weight"] = ops.stat(weight, mask)
    if cfg.kl_coef:
        assert tokens.reference is not None
        k3 = ops.k3(ops.guard(tokens.logp, mask), ops.guard(tokens.reference, mask))
        loss = loss + cfg.kl_coef * k3
        stats["kl_loss"] = ops.stat(k3, mask)
    return (tokens.share * ops.guard(loss, mask)).sum(), stats
