"""RLOO, REINFORCE with a leave-one-out baseline (arXiv:2402.14740).

    A_i = R_i - mean of the other rollouts of its group = G / (G - 1) (R_i - mean(R_1..R_G))
    L   = - sum_t share_t A_i logp_t                          "seq_sum": the log-prob of the whole rollout, as the paper

A rollout alone in its group has no baseline and is left out. There is no correction for stale tokens; a correction's
weight can stand in front (`corrections`).
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from rlsp_async.algos import maths
from rlsp_async.algos.base import Advantages, AlgorithmConfig, Rollouts, Stats, Tokens

NEEDS: frozenset[str] = frozenset()
PRESETS: dict[str, dict[str, Any]] = {"paper": {}}


class RlooConfig(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of RLOO."""

    aggregation: Literal["token_mean", "seq_mean", "seq_sum", "horizon"] = "seq_sum"
    """Mean over all tokens of an update, or over rollouts of their token means, sums, or sums / horizon_tokens."""
    drop_flat_groups: bool = False
    """Leave out groups whose rewards are all the same."""


Config = RlooConfig


def needs(cfg: RlooConfig) -> frozenset[str]:
    """Nothing beside the log-probs."""
    return NEEDS


def advantages(cfg: RlooConfig, batch: Rollouts) -> Advantages:
    """The reward less the mean of the others; one advantage for each rollout."""
    count_G, mean_G, _ = maths.group_moments(batch.reward_B, batch.group_B)
    count_B = count_G[batch.group_B]
    adv_B = count_B / (count_B - 1).clamp(min=1) * (batch.reward_B - mean_G[batch.group_B])
    signal_B = maths.has_signal(batch.reward_B, batch.group_B)
    keep_B = (count_B > 1) & (signal_B | (not cfg.drop_flat_groups))
    return Advantages(
        adv_B.repeat_interleave(batch.length_B), keep_B, stats={"signal_fraction": float(signal_B.float().mean())}
    )


def token_loss(cfg: RlooConfig, tokens: Tokens) -> tuple[Tensor, Stats]:
    """Likelihood times advantage; no stats."""
    adv, logp = maths.guard(tokens.adv, tokens.mask), maths.guard(tokens.logp, tokens.mask)
    return -(tokens.share * adv * logp).sum(), {}
