"""OAPL (arXiv:2602.19362): the log-ratio is regressed on the optimal advantage, off-policy without importance weights.

    V_g = beta log mean_g exp(R / beta)                        of the group's prompt, under the policy that sampled
    A_i = R_i - V_g
    S_i = sum_t (logp_t - behaviour_t)                         of the whole rollout
    L   = 1 / (2 beta) mean_i (beta S_i - A_i)^2

The policy that earns the most at a price of beta on KL to the policy mu that sampled is mu exp(R / beta), normalised:
its log-ratio to mu is A / beta on every rollout. The square has its minimum there, whichever policy sampled and
whichever learns, and nothing is multiplied by a ratio; a rollout whose log-ratio is at its target pushes no more. mu is
the recorded `behaviour`: each rollout has its own, of any age.

The gradient is that of REINFORCE with A_i - beta S_i, and the loss is written so, token by token, with S without
gradient: what a correction leaves out of the sum over tokens stays in S. With the mean in place of V this is the mirror
descent of Kimi k1.5 (arXiv:2501.12599), whose square is the rollout's too. The factor 1 / (2 beta) is ours: with it,
learning rates mean what they mean elsewhere. The formula is taken from a restatement; the paper's own values of beta
were not read.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from rlsp_async.algos import maths
from rlsp_async.algos.base import Advantages, AlgorithmConfig, Carried, Rollouts, Stats, Tokens
from rlsp_async.config.ranges import Range

NEEDS: frozenset[str] = frozenset()
PRESETS: dict[str, dict[str, Any]] = {"kimi": {"value": "mean"}}


class OaplConfig(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of OAPL."""

    aggregation: Literal["token_mean", "seq_mean", "seq_sum", "horizon"] = "seq_sum"
    """Mean over all tokens of an update, or over rollouts of their token means, sums, or sums / horizon_tokens."""
    beta: Annotated[float, Range(gt=0, le=10**6)] = 0.1
    """Price of the log-ratio, in reward. The target of a rollout's log-ratio is A / beta: the smaller beta, the
    further."""
    value: Literal["soft_max", "mean"] = "soft_max"
    """What is subtracted from a reward: V, or the group's mean."""
    drop_flat_groups: bool = False
    """Leave out groups whose rewards are all the same; kept, they hold the policy to the one that sampled."""

    def carries(self) -> Carried:
        """The policy that sampled: the loss holds the log-ratio to it."""
        return "behaviour"


Config = OaplConfig


def needs(cfg: OaplConfig) -> frozenset[str]:
    """Nothing beside the log-probs."""
    return NEEDS


def advantages(cfg: OaplConfig, batch: Rollouts) -> Advantages:
    """One advantage for each rollout. A rollout alone in its group says nothing of V_g, and is left out."""
    count_G, mean_G, _ = maths.group_moments(batch.reward_B, batch.group_B)
    value_G = mean_G if cfg.value == "mean" else soft_values(batch.reward_B, batch.group_B, cfg.beta)
    adv_B = batch.reward_B - value_G[batch.group_B]
    signal_B = maths.has_signal(batch.reward_B, batch.group_B)
    keep_B = (count_G[batch.group_B] > 1) & (signal_B | (not cfg.drop_flat_groups))
    return Advantages(
        adv_B.repeat_interleave(batch.length_B),
        keep_B,
        stats={"signal_fraction": float(signal_B.float().mean()), "value": float(value_G.mean())},
    )


def soft_values(reward_B: Tensor, group_B: Tensor, beta: float) -> Tensor:
    """Soft maximum of each group's rewards, V_g = beta log mean_g exp(R / beta) (arXiv:2602.19362).

    Example: rewards (1, 0) -> .6201 at beta 1, .9307 at beta .1.

    Args:
        reward_B: reward of each rollout.
        group_B: int64, the group of each rollout, 0 or above.
        beta: the price of the log-ratio, above 0.

    Returns:
        [G]; 0 for numbers that no rollout has.

    Raises:
        ValueError: the shapes differ.
    """
    num = int(group_B.max()) + 1
    count_G, _, _ = maths.group_moments(reward_B, group_B)
    top_G = torch.full((num,), -torch.inf).scatter_reduce(0, group_B, reward_B, "amax")
    total_G = torch.zeros(num).index_add(0, group_B, ((reward_B - top_G[group_B]) / beta).exp())
    return torch.where(count_G > 0, top_G + beta * (total_G / count_G).log(), torch.zeros_like(top_G))


def token_loss(cfg: OaplConfig, tokens: Tokens) -> tuple[Tensor, Stats]:
    """The square's gradient, token by token; stats `squared_error` and `rollout_log_ratio`."""
    assert tokens.rollout is not None
    mask, adv, logp = tokens.mask, maths.guard(tokens.adv, tokens.mask), maths.guard(tokens.logp, tokens.mask)
    moved = maths.rollout_sums(logp.detach() - maths.guard(tokens.behaviour, mask), tokens.rollout, mask)
    missing = adv - cfg.beta * moved
    loss = -(tokens.share * maths.guard(missing, mask) * logp).sum()
    return loss, {"squared_error": maths.stat(missing**2, mask), "rollout_log_ratio": maths.stat(moved, mask)}
