"""Baselines: what is subtracted from a rollout's reward, and the order of rollouts within a group.

`centred_advantages` subtracts the group's mean. `minimum_variance_baseline` is the baseline under which a weighted
policy gradient has the least variance (VCPO, arXiv:2602.17616):

    b = sum_i w_i^2 g_i^2 R_i / sum_i w_i^2 g_i^2            over the rollouts of a group; w_i importance weight,
                                                              g_i norm of the gradient of the rollout's log-prob

The paper takes g_i from one backward pass for each rollout. Here g_i is the norm of the gradient by the logits, which a
forward pass gives: tokens are different coordinates there, so the squares add up, and with the loss's own factors in
front

    w_i^2 g_i^2  ~  sum_t (share_t w_t)^2 (1 - 2 p_t + sum_v p_v^2)

This is exact for the last layer's logits and leaves out what the layers below make of them (the proxy of verl's optimal
token baseline). A rollout of confident tokens hardly moves the policy, and hardly counts.

Shapes: B rollouts, N response tokens of a batch end to end, G groups.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlsp_async.algos import maths
from rlsp_async.algos.base import Advantages, AlgorithmConfig, Rollouts
from rlsp_async.algos.corrections import token_view, weigh


def centred_advantages(batch: Rollouts, divide_by_std: bool, drop_flat_groups: bool) -> Advantages:
    """One advantage for each rollout, A_i = R_i - mean_g R, the same at all its tokens (`maths.group_advantages`).

    Example: rewards (1, 0), (1, 1) -> (.5, -.5), (0, 0); the second group is left out with `drop_flat_groups`.

    Args:
        batch: the rollouts.
        divide_by_std: whether to divide by the group's standard deviation.
        drop_flat_groups: whether groups of equal rewards are left out.

    Returns:
        advantages, and the stat `signal_fraction`: the share of rollouts whose group has different rewards.
    """
    adv_B = maths.group_advantages(batch.reward_B, batch.group_B, divide_by_std)
    signal_B = maths.has_signal(batch.reward_B, batch.group_B)
    keep_B = signal_B if drop_flat_groups else signal_B | True
    return Advantages(
        adv_B.repeat_interleave(batch.length_B), keep_B, stats={"signal_fraction": float(signal_B.float().mean())}
    )


def occurrence_index(number_B: Tensor, among_B: Tensor) -> Tensor:
    """How many earlier members with the same number each member has.

    Example: numbers (5, 5, 7, 5), all of them members -> (0, 1, 0, 2).

    Args:
        number_B: int64, a number for each rollout.
        among_B: bool, the members.

    Returns:
        int64 [B]; 0 for those that are no members.

    Raises:
        ValueError: the shapes differ.
    """
    maths.check_shapes(number_B=number_B, among_B=among_B)
    at_M = among_B.nonzero()[:, 0]
    sorted_M, order_M = number_B[at_M].sort(stable=True)
    index_B = torch.zeros_like(number_B)
    index_B[at_M[order_M]] = torch.arange(len(at_M)) - torch.searchsorted(sorted_M, sorted_M)
    return index_B


def minimum_variance_baseline(cfg: AlgorithmConfig, batch: Rollouts) -> Tensor:
    """VCPO's baseline of each rollout's group, b = sum_i w_i^2 g_i^2 R_i / sum_i w_i^2 g_i^2 (arXiv:2602.17616).

    Example: rewards (1, 0), one token each, energies (.3, .1), no weights -> .75; weights (1, 2) -> .4286.

    Args:
        cfg: for the aggregation, which makes the shares, and for the correction's weight.
        batch: rollouts with the columns `old_N` and `energy_N`.

    Returns:
        float64 [B]; the group's mean for a group whose gradient is 0, where any baseline does.
    """
    energy_B = squared_norms(cfg, batch)
    num_groups = int(batch.group_B.max()) + 1
    total_G, paid_G = (
        torch.zeros(num_groups, dtype=energy_B.dtype).index_add(0, batch.group_B, x)
        for x in (energy_B, energy_B * batch.reward_B)
    )
    _, mean_G, _ = maths.group_moments(batch.reward_B, batch.group_B)
    best_G = torch.where(total_G > 0, paid_G / total_G.clamp(min=torch.finfo(energy_B.dtype).tiny), mean_G)
    return best_G[batch.group_B]


def squared_norms(cfg: AlgorithmConfig, batch: Rollouts) -> Tensor:
    """Squared norm by the logits of each rollout's weighted gradient, sum_t (share_t w_t)^2 energy_t.

    Args:
        cfg: for the aggregation and the correction's weight.
        batch: rollouts with the columns `old_N` and `energy_N`.

    Returns:
        float64 [B]: squares of products of ratios span more than float32 holds.
    """
    assert batch.energy_N is not None
    rollout_N = torch.arange(len(batch.length_B)).repeat_interleave(batch.length_B)
    factor_N = maths.shares(batch.length_B, cfg.aggregation, cfg.horizon_tokens) * _weights(cfg, batch, rollout_N)
    each_N = maths.guard(factor_N.double() ** 2 * batch.energy_N.double().clamp(min=0.0), batch.mask_N)
    return torch.zeros(len(batch.length_B), dtype=each_N.dtype).index_add(0, rollout_N, each_N)


def _weights(cfg: AlgorithmConfig, batch: Rollouts, rollout_N: Tensor) -> Tensor:
    """[N] the correction's weight of each token at the beginning of the step; 1 where there is none."""
    assert batch.old_N is not None
    if cfg.corrections.weight == "none":
        return torch.ones_like(batch.old_N)
    zeros_N = torch.zeros_like(batch.old_N)
    return weigh(cfg.corrections, token_view(batch.old_N, batch.behaviour_N, zeros_N, batch.mask_N, rollout_N))
