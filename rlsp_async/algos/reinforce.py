"""REINFORCE with a group-mean baseline, without any correction for stale tokens.

    A_i = R_i - mean(R_1..R_G)
    L   = - sum_t share_t A_t logp_t

On rollouts of the present policy this is the policy gradient. On reused or stale rollouts nothing holds it: negative
advantages push improbable tokens down without bound (arXiv:2503.14286). It is here to be seen collapsing where the
corrected losses do not, and makes no claim of correction.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlsp_async.algos import groups, ops
from rlsp_async.algos.base import Advantages, AlgorithmConfig, Rollouts, Stats, Tokens

NEEDS: frozenset[str] = frozenset()
PRESETS: dict[str, dict[str, Any]] = {}


class Config(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of REINFORCE."""

    divide_by_std: bool = False
    """Divide a group's advantages by its standard deviation."""
    drop_flat_groups: bool = True
    """Leave out groups whose rewards are all the same."""


def needs(cfg: Config) -> frozenset[str]:
    return NEEDS


def advantages(cfg: Config, batch: Rollouts) -> Advantages:
    """One advantage a rollout, the same for all its tokens."""
    return groups.centred(batch, cfg.divide_by_std, cfg.drop_flat_groups)


def token_loss(cfg: Config, tokens: Tokens) -> tuple[Tensor, Stats]:
    adv, logp = ops.guard(tokens.adv, tokens.mask), ops.guard(tokens.logp, tokens.mask)
    return -(tokens.share * adv * logp).sum(), {}
