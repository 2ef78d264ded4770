"""GRPO with truncated importance weights: group-centred rewards and PPO's clip, corrected for the policy that sampled.

    A_i   = R_i - mean(R_1..R_G)          divided by std(R_1..R_G) + eps if `divide_by_std`
    rho_t = exp(logp_t - old_t)           trust region [1 - clip_low, 1 + clip_high]
    w_t   = min(exp(old_t - behaviour_t), weight_cap)                     without gradient
    L     = sum_t share_t ( -w_t min(rho_t A_t, clip(rho_t) A_t) + kl_coef k3(logp_t, reference_t) )

With `dual_clip`, -min(rho_t A_t, ..) is at most -dual_clip A_t where A_t < 0. With `limit_tokens`, a rollout in the
buffer below that limit has the reward R_i - 1 + (limit_tokens - length_i) / buffer_tokens.

Groups whose rewards are all the same carry no signal and are left out of the update and of its counts; the price on
length gives them none. Sources: arXiv:2402.03300 (groups, k3), 2503.14476 (asymmetric clip, token mean, price on
length), 2503.20783 (no standard deviation, constant horizon), 2505.24298 (w_t), 1912.09729 (dual clip).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from torch import Tensor

from rlsp_async.algos import baselines, maths
from rlsp_async.algos.base import Advantages, AlgorithmConfig, Carried, Rollouts, Stats, Tokens
from rlsp_async.config.ranges import INFINITY, Range

NEEDS = frozenset({"old", "reference"})
PRESETS: dict[str, dict[str, Any]] = {
    # As published, with the correction for asynchrony switched off: the papers have none.
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
    # ARPO (arXiv:2505.16282), with success replay. Released: its code computes `old` after a success was put in, so
    # that the success counts as if it had just been sampled. Corrected: with the ratio to the policy that sampled it.
    "arpo_released": {"clip_high": 0.3, "dual_clip": 3.0, "weight_cap": 0.0},
    "arpo_corrected": {"clip_high": 0.3, "dual_clip": 3.0, "weight_cap": 2.0},
    "dapo": {"weight_cap": 0.0, "limit_tokens": 20480, "buffer_tokens": 4096},
}


class GrpoConfig(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of GRPO."""

    clip_low: Annotated[float, Range(ge=0, le=1)] = 0.2
    """Trust region below a ratio of 1."""
    clip_high: Annotated[float, Range(ge=0, le=10**6)] = 0.28
    """Trust region above a ratio of 1."""
    dual_clip: Annotated[float, Range(ge=0, le=10**6)] = 0.0
    """Dual clip: the largest ratio that counts where an advantage is negative, above 1; 0: off."""
    divide_by_std: bool = True
    """Divide a group's advantages by its standard deviation."""
    weight_cap: Annotated[float, Range(ge=0, le=10**6, also=(INFINITY,))] = 2.0
    """Largest importance weight of old policy over behaviour policy; 0: no weight."""
    kl_coef: Annotated[float, Range(ge=0, le=10**3)] = 0.0
    """Price of KL (k3, in the loss) to the policy with which the stage began; 0: that policy is not kept."""
    drop_flat_groups: bool = True
    """Leave out groups whose rewards are all the same."""
    limit_tokens: Annotated[int, Range(ge=0, le=10**9)] = 0
    """Response tokens from which a rollout is charged a whole reward; 0: length costs nothing."""
    buffer_tokens: Annotated[int, Range(ge=0, le=10**9)] = 0
    """Width of the range below limit_tokens over which the charge rises from 0 to 1."""

    def carries(self) -> Carried:
        """The policy that sampled, if there is a `weight_cap`; else the one at the beginning of the step."""
        return "behaviour" if self.weight_cap else "step"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dual_clip and self.dual_clip <= 1.0:
            raise ValueError("dual_clip is a ratio above 1; 0 leaves it out")
        if self.limit_tokens and not 0 < self.buffer_tokens <= self.limit_tokens:
            raise ValueError("buffer_tokens must be above 0 and at most limit_tokens when limit_tokens is set")


Config = GrpoConfig


def needs(cfg: GrpoConfig) -> frozenset[str]:
    """`old`; `reference` too, if KL has a price."""
    return NEEDS if cfg.kl_coef else NEEDS - {"reference"}


def advantages(cfg: GrpoConfig, batch: Rollouts) -> Advantages:
    """Centred rewards after the price on length; one advantage for each rollout."""
    plain = baselines.centred_advantages(batch, cfg.divide_by_std, cfg.drop_flat_groups)
    if not cfg.limit_tokens:
        return plain
    charge_B = length_charge(batch.length_B, cfg.limit_tokens, cfg.buffer_tokens)
    charged = baselines.centred_advantages(replace(batch, reward_B=batch.reward_B - charge_B), cfg.divide_by_std, False)
    stats = {**plain.stats, "length_charge": float(charge_B.mean())}
    return Advantages(charged.adv_N, plain.keep_B, stats=stats)


def length_charge(length_B: Tensor, limit_tokens: int, buffer_tokens: int) -> Tensor:
    """DAPO's soft price on overlong answers (arXiv:2503.14476, eq. 13, with the opposite sign).

        (length - (limit - buffer)) / buffer        clamped to [0, 1]

    Example: limit 100, buffer 20: length 80 -> 0, 90 -> .5.

    Args:
        length_B: response tokens of each rollout.
        limit_tokens: length from which on the price is 1.
        buffer_tokens: width of the range in which the price rises.

    Returns:
        [B], 0 to 1.
    """
    return ((length_B - (limit_tokens - buffer_tokens)) / buffer_tokens).clamp(0.0, 1.0)


def token_loss(cfg: GrpoConfig, tokens: Tokens) -> tuple[Tensor, Stats]:
    """Clipped surrogate with weight, and KL; stats `clip_positive`, `clip_negative`, `weight`, `kl_loss`."""
    assert tokens.old is not None
    mask, adv = tokens.mask, maths.guard(tokens.adv, tokens.mask)
    rho = maths.ratio(tokens.logp, tokens.old, mask)
    loss = maths.clipped_surrogate(rho, adv, cfg.clip_low, cfg.clip_high)
    if cfg.dual_clip:
        loss = maths.dual_clipped(loss, adv, cfg.dual_clip)
    stats = maths.clip_stats(rho.detach(), adv, mask, cfg.clip_low, cfg.clip_high)
    if cfg.weight_cap:
        weight = maths.truncated_weight(tokens.old, tokens.behaviour, cfg.weight_cap, mask)
        loss = weight * loss
        stats["weight"] = maths.stat(weight, mask)
    if cfg.kl_coef:
        assert tokens.reference is not None
        k3 = maths.k3(maths.guard(tokens.logp, mask), maths.guard(tokens.reference, mask))
        loss = loss + cfg.kl_coef * k3
        stats["kl_loss"] = maths.stat(k3, mask)
    return (tokens.share * maths.guard(loss, mask)).sum(), stats
