"""What algorithms share that look at a group: centred rewards, and the order within it."""

from __future__ import annotations

import torch
from torch import Tensor

from rlsp_async.algos import ops
from rlsp_async.algos.base import Advantages, Rollouts


def centred(batch: Rollouts, divide_by_std: bool, drop_flat_groups: bool) -> Advantages:
    """One advantage a rollout, R - mean of its group, the same for all its tokens.

    Example: rewards (1, 0), (1, 1) -> (.5, -.5), (0, 0); the second group is left out with `drop_flat_groups`.
    """
    adv_B = ops.group_advantages(batch.reward_B, batch.group_B, divide_by_std)
    signal_B = ops.has_signal(batch.reward_B, batch.group_B)
    keep_B = signal_B if drop_flat_groups else signal_B | True
    return Advantages(
        adv_B.repeat_interleave(batch.length_B), keep_B, stats={"signal_fraction": float(signal_B.float().mean())}
    )


def place(number_B: Tensor, among_B: Tensor) -> Tensor:
    """How many of `among_B` with the same number stand before each of them. Example: (5, 5, 7, 5), all ->
    (0, 1, 0, 2); 0 for the others."""
    at_M = among_B.nonzero()[:, 0]
    sorted_M, order_M = number_B[at_M].sort(stable=True)
    place_B = torch.zeros_like(number_B)
    place_B[at_M[order_M]] = torch.arange(len(at_M)) - torch.searchsorted(sorted_M, sorted_M)
    return place_B
