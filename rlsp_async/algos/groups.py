"""Advantages from the rewards of a group, for the algorithms that share them."""

from __future__ import annotations

from rlsp_async.algos import ops
from rlsp_async.algos.base import Advantages, Rollouts


def centred(batch: Rollouts, divide_by_std: bool, drop_flat_groups: bool) -> Advantages:
    """One advantage a rollout, R - mean of its group, the same for all its tokens.

    Example: rewards (1, 0), (1, 1) -> (.5, -.5), (0, 0); the second group is left out with `drop_flat_groups`.
    """
    adv_B = ops.group_advantages(batch.reward_B, batch.group_B, divide_by_std)
    signal_B = ops.has_signal(batch.reward_B, batch.group_B)
    keep_B = signal_B if drop_flat_groups else signal_B | True
    return Advantages(adv_B.repeat_interleave(batch.length_B), keep_B,
                      stats={"signal_fraction": float(signal_B.float().mean())})
