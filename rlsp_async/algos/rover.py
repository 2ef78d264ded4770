"""ROVER, random policy valuation, arXiv:2509.24981: the log-ratio as action value of the uniform policy.

    A_i     = R_i - mean(R_1..R_G)                                     divided by std if `divide_by_std`
    Q_t     = rho (logp_t - old_t)
    Q'_t    = rho (mean_{t+1} - old_mean_{t+1})                        0 after the rollout's last token; no gradient
    L       = sum_t share_t (Q_t - (A_i + beta Q'_t))^2

mean_t is the mean of the log-probs over the whole vocabulary at the state before token t: the expected next value when
the next token is drawn uniformly. The squared log-ratio is a soft trust region: no clip, critic or reference. On policy
the gradient is 2 rho times REINFORCE's. `old` is the learner's policy at the beginning of the step; for what was
sampled by another, put a correction's weight in front.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlsp_async.algos import groups, ops
from rlsp_async.algos.base import Advantages, AlgorithmConfig, Rollouts, Stats, Tokens

NEEDS = frozenset({"old", "mean"})
ON_POLICY = 2.0
"""A squared error has it."""
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    # The published scripts switch the division by the standard deviation on, against the paper's text.
    "released": {"divide_by_std": True},
}


class Config(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of ROVER."""

    rho: float = 1.0
    """Temperature of the values; larger holds the policy closer to the old one."""
    beta: float = 1.0
    """Weight of the next state's value; 0: reward and trust region alone."""
    divide_by_std: bool = False
    """Divide a group's advantages by its standard deviation."""
    drop_flat_groups: bool = False
    """Leave out groups whose rewards are all the same."""


def needs(cfg: Config) -> frozenset[str]:
    return NEEDS


def advantages(cfg: Config, batch: Rollouts) -> Advantages:
    """The centred reward of each rollout at every one of its tokens."""
    return groups.centred(batch, cfg.divide_by_std, cfg.drop_flat_groups)


def token_loss(cfg: Config, tokens: Tokens) -> tuple[Tensor, Stats]:
    assert tokens.old is not None
    mask, adv = tokens.mask, ops.guard(tokens.adv, tokens.mask)
    value = cfg.rho * ops.log_ratio(tokens.logp, tokens.old, mask)
    after = cfg.rho * _of_next(tokens)
    loss = ops.guard((value - (adv + cfg.beta * after)) ** 2, mask)
    return (tokens.share * loss).sum(), {"value": ops.stat(value, mask), "next_value": ops.stat(after, mask)}


def _of_next(tokens: Tokens) -> Tensor:
    """mean - old_mean at the token after, within the rollout."""
    assert tokens.rollout is not None
    assert tokens.mean is not None
    assert tokens.old_mean is not None
    change = (ops.guard(tokens.mean, tokens.mask) - ops.guard(tokens.old_mean, tokens.mask)).detach()
    same = tokens.rollout[1:] == tokens.rollout[:-1]
    return torch.cat([ops.guard(change[1:], same), torch.zeros_like(change[:1])])
