"""Learn from what worked: only rollouts above their group's mean.   L = - sum_t share_t max(A, 0) logp_t"""

from rlsp_async.algos import ops
from rlsp_async.algos.base import Advantages, AlgorithmConfig

NEEDS = frozenset()  # further columns: "old", "reference", "values", "mean"
PRESETS = {}


class Config(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nothing of its own."""


def needs(cfg):
    return NEEDS


def advantages(cfg, batch):
    adv_B = ops.group_advantages(batch.reward_B, batch.group_B, divide_by_std=False).clamp(min=0)
    return Advantages(adv_B.repeat_interleave(batch.length_B), keep_B=adv_B > 0)


def token_loss(cfg, tokens):
    logp, adv = ops.guard(tokens.logp, tokens.mask), ops.guard(tokens.adv, tokens.mask)
    return -(tokens.share * adv * logp).sum(), {"nll": ops.stat(-tokens.logp, tokens.mask)}
