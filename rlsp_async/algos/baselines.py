"""The baseline under which a weighted policy gradient has the least variance: VCPO's, arXiv:2602.17616.

    b = sum_i w_i^2 g_i^2 R_i / sum_i w_i^2 g_i^2            over the rollouts of a group; w_i importance weight,
                                                              g_i norm of the gradient of the rollout's log-prob

The paper takes g_i from a backward pass a rollout. Here it is the norm by the logits, which a forward pass gives:
tokens are different coordinates there, so the squares add up, and with the loss's own factors in front

    w_i^2 g_i^2  ~  sum_t (share_t w_t)^2 (1 - 2 p_t + sum_v p_v^2)

which is exact for the last layer's logits and leaves out what the layers below make of them (the proxy of verl's
optimal token baseline). A rollout of confident tokens hardly moves the policy and hardly counts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlsp_async.algos import ops, weights
from rlsp_async.algos.base import AlgorithmConfig, Rollouts
from rlsp_async.algos.view import look


def minimum_variance(cfg: AlgorithmConfig, batch: Rollouts) -> Tensor:
    """[B] each rollout's baseline, that of its group.

    Example: rewards (1, 0), one token each, energies (.3, .1), no weights -> .75; weights (1, 2) -> .4286.
    """
    energy_B = squared_norms(cfg, batch)
    num_groups = int(batch.group_B.max()) + 1
    total_G, paid_G = (
        torch.zeros(num_groups, dtype=energy_B.dtype).index_add(0, batch.group_B, x)
        for x in (energy_B, energy_B * batch.reward_B)
    )
    _, mean_G, _ = ops.group_moments(batch.reward_B, batch.group_B)
    # A group whose every token is certain has no gradient, and any baseline does.
    best_G = torch.where(total_G > 0, paid_G / total_G.clamp(min=torch.finfo(energy_B.dtype).tiny), mean_G)
    return best_G[batch.group_B]


def squared_norms(cfg: AlgorithmConfig, batch: Rollouts) -> Tensor:
    """[B] sum_t (share_t w_t)^2 energy_t, in double precision: squares of products of ratios span far."""
    assert batch.energy_N is not None
    rollout_N = torch.arange(len(batch.length_B)).repeat_interleave(batch.length_B)
    factor_N = ops.shares(batch.length_B, cfg.aggregation, cfg.horizon_tokens) * _weights(cfg, batch, rollout_N)
    each_N = ops.guard(factor_N.double() ** 2 * batch.energy_N.double().clamp(min=0.0), batch.mask_N)
    return torch.zeros(len(batch.length_B), dtype=each_N.dtype).index_add(0, rollout_N, each_N)


def _weights(cfg: AlgorithmConfig, batch: Rollouts, rollout_N: Tensor) -> Tensor:
    """[N] the correction's weight of each token at the beginning of the step; 1 where there is none."""
    assert batch.old_N is not None
    stages = cfg.corrections
    if stages.weight == "none":
        return torch.ones_like(batch.old_N)
    view = look(batch.old_N, batch.behaviour_N, torch.zeros_like(batch.old_N), batch.mask_N, rollout_N)
    return weights.KINDS[stages.weight](view, stages.weight_high or weights.DEFAULTS[stages.weight])
