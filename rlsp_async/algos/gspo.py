"""GSPO, group sequence policy optimisation (arXiv:2507.18071, eq. 5 and 7): ratio and clip belong to the rollout.

    A_i = (R_i - mean(R_1..R_G)) / (std(R_1..R_G) + eps)
    s_i = exp(mean_t(logp_t - base_t))                             base: behaviour or old, see `against`
    L   = - sum_t share_t min(s_i A_i, clip(s_i, 1 - clip_low, 1 + clip_high) A_i)

The gradient of s_i is written token by token, as s_i (without gradient) times pi / pi (the denominator without
gradient), so that it is s_i A_i share_t at every token. The paper's old policy is the one that sampled, which is
`behaviour` here. Against `old` the ratio is 1 in a step of a single update and corrects nothing; a correction's weight
can stand in front.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from torch import Tensor

from rlsp_async.algos import baselines, maths
from rlsp_async.algos.base import Advantages, AlgorithmConfig, Carried, Rollouts, Stats, Tokens
from rlsp_async.config.ranges import Range

NEEDS = frozenset({"old"})
PRESETS: dict[str, dict[str, Any]] = {"paper": {}}


class GspoConfig(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of GSPO."""

    aggregation: Literal["token_mean", "seq_mean", "seq_sum", "horizon"] = "seq_mean"
    """Mean over all tokens of an update, or over rollouts of their token means, sums, or sums / horizon_tokens."""
    clip_low: Annotated[float, Range(ge=0, le=1)] = 3e-4
    """Trust region below a ratio of 1."""
    clip_high: Annotated[float, Range(ge=0, le=10**6)] = 4e-4
    """Trust region above a ratio of 1."""
    against: Literal["behaviour", "old"] = "behaviour"
    """The other policy of the ratio: the one that sampled, or the learner's at the beginning of the step."""
    divide_by_std: bool = True
    """Divide a group's advantages by its standard deviation."""
    drop_flat_groups: bool = True
    """Leave out groups whose rewards are all the same."""

    def carries(self) -> Carried:
        """The policy that `against` names."""
        return "behaviour" if self.against == "behaviour" else "step"


Config = GspoConfig


def needs(cfg: GspoConfig) -> frozenset[str]:
    """`old`, if the ratio is to the policy at the beginning of the step."""
    return NEEDS if cfg.against == "old" else frozenset()


def advantages(cfg: GspoConfig, batch: Rollouts) -> Advantages:
    """Centred rewards; one advantage for each rollout."""
    return baselines.centred_advantages(batch, cfg.divide_by_std, cfg.drop_flat_groups)


def token_loss(cfg: GspoConfig, tokens: Tokens) -> tuple[Tensor, Stats]:
    """The rollout's clipped surrogate; stats `clip_positive`, `clip_negative` and `rollout_ratio`."""
    assert tokens.rollout is not None
    mask, adv = tokens.mask, maths.guard(tokens.adv, tokens.mask)
    log_ratio = maths.log_ratio(tokens.logp.detach(), tokens.logp_under(cfg.against), mask)
    fixed = maths.rollout_means(log_ratio, tokens.rollout, mask).exp()
    ratio = fixed * maths.ratio(tokens.logp, tokens.logp.detach(), mask)
    loss = maths.guard(maths.clipped_surrogate(ratio, adv, cfg.clip_low, cfg.clip_high), mask)
    stats = maths.clip_stats(fixed, adv, mask, cfg.clip_low, cfg.clip_high)
    return (tokens.share * loss).sum(), {**stats, "rollout_ratio": maths.stat(fixed, mask)}
