"""REINFORCE with a group-mean baseline, without any correction for stale tokens.

    A_i = R_i - mean(R_1..R_G)                                or the baseline of least variance (baselines.py)
    L   = - sum_t share_t A_t logp_t  +  anchor / 2 sum_t share_t (logp_t - behaviour_t)^2

On rollouts of the present policy this is the policy gradient. On reused or stale rollouts nothing holds it: negative
advantages push improbable tokens down without bound (arXiv:2503.14286). It is here to be seen collapsing where the
corrected losses do not, and makes no claim of correction. An `anchor` draws every token towards the policy that sampled
it, those too that a correction leaves out. With `corrections` it is the plain surrogate of the losses
that are a mask and a weight and nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from torch import Tensor

from rlsp_async.algos import baselines, groups, ops
from rlsp_async.algos.base import Advantages, AlgorithmConfig, Rollouts, Stats, Tokens

NEEDS = frozenset({"energy"})
_PRESENT = {"policy": "present", "weight": "token"}
PRESETS: dict[str, dict[str, Any]] = {
    # arXiv:2505.24034 (LlamaRL): the ratio capped, the paper tries 2 to 10.
    "aipo": {"corrections": {**_PRESENT, "weight_high": 5.0}},
    # arXiv:2510.01161 as released: a PPO clip whose bounds follow from the batch is this mask on the plain ratio.
    "m2po_released": {
        "divide_by_std": True,
        "corrections": {**_PRESENT, "weight_high": float("inf"), "mask": "m2po_released"},
    },
    # arXiv:2602.04879 as verl has it.
    "dppo_tv_verl": {"divide_by_std": True, "corrections": {**_PRESENT, "weight_high": 20.0, "mask": "dppo_tv"}},
    # The same as prime-rl has it: no cap, and a squared log-ratio that masked tokens feel too.
    "dppo_tv_prime": {"anchor": 2e-3, "corrections": {**_PRESENT, "weight_high": float("inf"), "mask": "dppo_tv"}},
    # Kimi k1.5, arXiv:2501.12599, token by token as verl has it; the paper gives no tau, ours is a value to tune.
    "dro": {"anchor": 0.1, "drop_flat_groups": False},
    # arXiv:2602.17616: whole rollouts weighted, the step as long as their effective number allows, its baseline.
    "vcpo": {"baseline": "minimum_variance", "corrections": {"weight": "rollout", "ess_base": 1.0}},
}


class Config(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of REINFORCE."""

    baseline: Literal["mean", "minimum_variance"] = "mean"
    """The group's mean, or VCPO's weighted by squared gradient norms of the logits (one more pass a step)."""
    divide_by_std: bool = False
    """Divide a group's advantages by its standard deviation."""
    drop_flat_groups: bool = True
    """Leave out groups whose rewards are all the same."""
    anchor: float = 0.0
    """Times half the squared log-ratio to the policy that sampled, on every token; 0: none."""

    def is_held(self) -> bool:
        return super().is_held() or self.anchor > 0


def needs(cfg: Config) -> frozenset[str]:
    return NEEDS if cfg.baseline == "minimum_variance" else frozenset()


def advantages(cfg: Config, batch: Rollouts) -> Advantages:
    """One advantage a rollout, the same for all its tokens."""
    made = groups.centred(batch, cfg.divide_by_std, cfg.drop_flat_groups)
    if cfg.baseline == "mean":
        return made
    # Centred advantages are rewards with another zero: their own best baseline moves them to where it belongs.
    first_B = ops.last_tokens(batch.length_B) - batch.length_B + 1
    centred_B = made.adv_N[first_B]
    shift_B = baselines.minimum_variance(cfg, replace(batch, reward_B=centred_B)).to(centred_B.dtype)
    adv_B = centred_B - shift_B
    stats = {**made.stats, "baseline_shift": float(shift_B.abs().mean())}
    return replace(made, adv_N=adv_B.repeat_interleave(batch.length_B), stats=stats)


def token_loss(cfg: Config, tokens: Tokens) -> tuple[Tensor, Stats]:
    adv, logp = ops.guard(tokens.adv, tokens.mask), ops.guard(tokens.logp, tokens.mask)
    loss = -(tokens.share * adv * logp).sum()
    if not cfg.anchor:
        return loss, {}
    share = tokens.share if tokens.value_share is None else tokens.value_share
    squared = ops.log_ratio(tokens.logp, tokens.behaviour, tokens.mask) ** 2
    return loss + 0.5 * cfg.anchor * (share * squared).sum(), {"anchored": ops.stat(squared, tokens.mask)}
