"""ROVER, random policy valuation (arXiv:2509.24981): the log-ratio as action value of the uniform policy.

    A_i     = R_i - mean(R_1..R_G)                                     divided by std if `divide_by_std`
    Q_t     = rho (logp_t - old_t)
    Q'_t    = rho (mean_{t+1} - old_mean_{t+1})                        0 after the rollout's last token; no gradient
    L       = sum_t share_t (Q_t - (A_i + beta Q'_t))^2

mean_t is the mean of the log-probs over the whole vocabulary at the state before token t: the expected next value when
the next token is drawn uniformly. The squared log-ratio is a soft trust region: there is no clip, critic or reference.
On policy the gradient is 2 rho times REINFORCE's. `old` is the learner's policy at the beginning of the step; for
rollouts of another policy a correction's weight can stand in front.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from rlsp_async.algos import baselines, maths
from rlsp_async.algos.base import Advantages, AlgorithmConfig, Rollouts, Stats, Tokens
from rlsp_async.config.ranges import Range

NEEDS = frozenset({"old", "mean"})
ON_POLICY = 2.0
"""Gradient on policy relative to REINFORCE's: d/dx (x - t)^2 = 2 (x - t). The contract test divides by it."""
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    # The published scripts divide by the standard deviation, unlike the paper's text.
    "released": {"divide_by_std": True},
}


class RoverConfig(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of ROVER."""

    rho: Annotated[float, Range(gt=0, le=10**6)] = 1.0
    """Temperature of the values; the larger, the closer the policy stays to the old one."""
    beta: Annotated[float, Range(ge=0, le=10**6)] = 1.0
    """Weight of the next state's value; 0: reward and trust region alone."""
    divide_by_std: bool = False
    """Divide a group's advantages by its standard deviation."""
    drop_flat_groups: bool = False
    """Leave out groups whose rewards are all the same."""


Config = RoverConfig


def needs(cfg: RoverConfig) -> frozenset[str]:
    """`old` and the mean of the log-probs over the vocabulary."""
    return NEEDS


def advantages(cfg: RoverConfig, batch: Rollouts) -> Advantages:
    """Centred rewards; one advantage for each rollout."""
    return baselines.centred_advantages(batch, cfg.divide_by_std, cfg.drop_flat_groups)


def token_loss(cfg: RoverConfig, tokens: Tokens) -> tuple[Tensor, Stats]:
    """The squared error of the value; stats `value` and `next_value`."""
    assert tokens.old is not None
    mask, adv = tokens.mask, maths.guard(tokens.adv, tokens.mask)
    value = cfg.rho * maths.log_ratio(tokens.logp, tokens.old, mask)
    after = cfg.rho * next_value(tokens)
    loss = maths.guard((value - (adv + cfg.beta * after)) ** 2, mask)
    return (tokens.share * loss).sum(), {"value": maths.stat(value, mask), "next_value": maths.stat(after, mask)}


def next_value(tokens: Tokens) -> Tensor:
    """The expected value of the next state, Q'_t / rho = mean_{t+1} - old_mean_{t+1} (arXiv:2509.24981).

    Args:
        tokens: R tokens with `rollout`, `mean` and `old_mean`.

    Returns:
        [R] without gradient; 0 at the last token of a rollout.
    """
    assert tokens.rollout is not None
    assert tokens.mean is not None
    assert tokens.old_mean is not None
    change = (maths.guard(tokens.mean, tokens.mask) - maths.guard(tokens.old_mean, tokens.mask)).detach()
    same = tokens.rollout[1:] == tokens.rollout[:-1]
    return torch.cat([maths.guard(change[1:], same), torch.zeros_like(change[:1])])
