"""REINFORCE with the group's mean as baseline, without any correction for stale tokens.

    A_i = R_i - mean(R_1..R_G)                                or the baseline of least variance (baselines.py)
    L   = - sum_t share_t A_t logp_t  +  anchor / 2 sum_t share_t (logp_t - behaviour_t)^2

On rollouts of the present policy this is the policy gradient. On reused or stale rollouts nothing holds it: negative
advantages push improbable tokens down without bound (arXiv:2503.14286). It serves as the baseline that collapses where
the corrected losses do not. An `anchor` draws every token towards the policy that sampled it, also the tokens that a
correction leaves out. With `corrections` it is the plain surrogate of the losses that are a mask and a weight and
nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from torch import Tensor

from rlsp_async.algos import baselines, maths
from rlsp_async.algos.base import Advantages, AlgorithmConfig, Rollouts, Stats, Tokens
from rlsp_async.config.ranges import Range

NEEDS = frozenset({"energy"})
_PRESENT = {"policy": "present", "weight": "token"}
PRESETS: dict[str, dict[str, Any]] = {
    # arXiv:2505.24034 (LlamaRL): the ratio is capped; the paper tries caps of 2 to 10.
    "aipo": {"corrections": {**_PRESENT, "weight_high": 5.0}},
    # arXiv:2510.01161 as released: a PPO clip whose bounds follow from the batch is this mask on the plain ratio.
    "m2po_released": {
        "divide_by_std": True,
        "corrections": {**_PRESENT, "weight_high": float("inf"), "mask": "m2po_released"},
    },
    # arXiv:2602.04879 as verl implements it.
    "dppo_tv_verl": {"divide_by_std": True, "corrections": {**_PRESENT, "weight_high": 20.0, "mask": "dppo_tv"}},
    # The same paper as prime-rl implements it: no cap, and a squared log-ratio on masked tokens too.
    "dppo_tv_prime": {"anchor": 2e-3, "corrections": {**_PRESENT, "weight_high": float("inf"), "mask": "dppo_tv"}},
    # Kimi k1.5, arXiv:2501.12599, token by token as verl does it. The paper gives no tau; ours is a value to tune.
    "dro": {"anchor": 0.1, "drop_flat_groups": False},
    # arXiv:2602.17616: whole rollouts are weighted, their effective number sets the learning rate, and its baseline.
    "vcpo": {"baseline": "minimum_variance", "corrections": {"weight": "rollout", "ess_base": 1.0}},
}


class ReinforceConfig(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of REINFORCE."""

    baseline: Literal["mean", "minimum_variance"] = "mean"
    """The group's mean, or VCPO's mean weighted by squared gradient norms of the logits (one more pass for each
    step)."""
    divide_by_std: bool = False
    """Divide a group's advantages by its standard deviation."""
    drop_flat_groups: bool = True
    """Leave out groups whose rewards are all the same."""
    anchor: Annotated[float, Range(ge=0, le=10**6)] = 0.0
    """Factor of half the squared log-ratio to the policy that sampled, on every token; 0: off."""

    def is_held(self) -> bool:
        """Whether a correction or the anchor holds the policy to the one that sampled."""
        return super().is_held() or self.anchor > 0


Config = ReinforceConfig


def needs(cfg: ReinforceConfig) -> frozenset[str]:
    """`energy`, for the baseline of least variance."""
    return NEEDS if cfg.baseline == "minimum_variance" else frozenset()


def advantages(cfg: ReinforceConfig, batch: Rollouts) -> Advantages:
    """The reward less the baseline; one advantage for each rollout."""
    plain = baselines.centred_advantages(batch, cfg.divide_by_std, cfg.drop_flat_groups)
    if cfg.baseline == "mean":
        return plain
    # Centred advantages are rewards with another zero, so that their own best baseline is the shift that is missing.
    first_B = maths.last_tokens(batch.length_B) - batch.length_B + 1
    centred_B = plain.adv_N[first_B]
    shift_B = baselines.minimum_variance_baseline(cfg, replace(batch, reward_B=centred_B)).to(centred_B.dtype)
    adv_B = centred_B - shift_B
    stats = {**plain.stats, "baseline_shift": float(shift_B.abs().mean())}
    return replace(plain, adv_N=adv_B.repeat_interleave(batch.length_B), stats=stats)


def token_loss(cfg: ReinforceConfig, tokens: Tokens) -> tuple[Tensor, Stats]:
    """Likelihood times advantage, and the anchor; stat `anchored` (mean squared log-ratio), if there is one."""
    adv, logp = maths.guard(tokens.adv, tokens.mask), maths.guard(tokens.logp, tokens.mask)
    loss = -(tokens.share * adv * logp).sum()
    if not cfg.anchor:
        return loss, {}
    share = tokens.share if tokens.value_share is None else tokens.value_share
    squared = maths.log_ratio(tokens.logp, tokens.behaviour, tokens.mask) ** 2
    return loss + 0.5 * cfg.anchor * (share * squared).sum(), {"anchored": maths.stat(squared, tokens.mask)}
