"""DPO, direct preference optimisation (arXiv:2305.18290, eq. 7), on pairs that a group's own rewards make.

    pair    best and worst rollout of a group, then second best and second worst, ..., while their rewards differ
    D_i     = sum_t (logp_t - reference_t)                     of the whole rollout
    L       = - mean over pairs of log sigmoid(beta (D_best - D_worst))

`against = "behaviour"` takes the policy that sampled for the reference: nothing extra is kept or computed, and each
pair is compared with the version that made it (as SPIN compares with its previous iterate). The rollouts of a pair lie
in one micro-batch. Rollouts without a partner are left out. Pairs of a demonstration and a rollout would need batches
of both, which the learner refuses.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from rlsp_async.algos import maths
from rlsp_async.algos.base import Advantages, AlgorithmConfig, Rollouts, Stats, Tokens
from rlsp_async.config.ranges import Range

NEEDS = frozenset({"reference"})
ON_POLICY = None
PRESETS: dict[str, dict[str, Any]] = {"paper": {}}


class DpoConfig(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of DPO."""

    aggregation: Literal["seq_sum"] = "seq_sum"
    """Mean over the pairs, the only aggregation of DPO."""
    beta: Annotated[float, Range(gt=0, le=10**6)] = 0.1
    """Price of the distance from the reference; the smaller, the further a preference carries."""
    against: Literal["stage", "behaviour"] = "stage"
    """The reference: the policy with which the stage began, or the one that sampled."""
    pairs_per_group: Annotated[int, Range(ge=1, le=10**6)] = 1
    """Largest number of pairs of a group."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.corrections.active:
            raise ValueError("a correction stage would take one side of a pair: dpo takes no corrections")


Config = DpoConfig


def needs(cfg: DpoConfig) -> frozenset[str]:
    """`reference`, unless the policy that sampled is the reference."""
    return NEEDS if cfg.against == "stage" else frozenset()


def advantages(cfg: DpoConfig, batch: Rollouts) -> Advantages:
    """1 for the better rollout of a pair, -1 for the worse; rollouts without a partner are left out."""
    members: dict[int, list[int]] = {}
    for rollout, group in enumerate(batch.group_B.tolist()):
        members.setdefault(group, []).append(rollout)
    pairs = [pair for group in members.values() for pair in _pairs(batch.reward_B, group, cfg.pairs_per_group)]
    pair_B = torch.full_like(batch.group_B, -1)
    adv_B = torch.zeros_like(batch.reward_B)
    for number, (best, worst) in enumerate(pairs):
        pair_B[best] = pair_B[worst] = number
        adv_B[best], adv_B[worst] = 1.0, -1.0
    return Advantages(
        adv_B.repeat_interleave(batch.length_B), pair_B >= 0, stats={"pairs": float(len(pairs))}, pair_B=pair_B
    )


def _pairs(reward_B: Tensor, members: list[int], most: int) -> list[tuple[int, int]]:
    """Pairs (best, worst), from outside in. Example: rewards (0, 1, .5, 1), most 2 -> (1, 0), (3, 2)."""
    ranked = sorted(members, key=lambda i: -float(reward_B[i]))
    pairs = [(ranked[k], ranked[-1 - k]) for k in range(min(most, len(ranked) // 2))]
    return [(best, worst) for best, worst in pairs if reward_B[best] > reward_B[worst]]


def token_loss(cfg: DpoConfig, tokens: Tokens) -> tuple[Tensor, Stats]:
    """Logistic loss of each pair; stats `margin` and `preferred` (share of pairs with a margin above 0)."""
    reference = tokens.reference if cfg.against == "stage" else tokens.behaviour
    assert reference is not None
    assert tokens.pair is not None
    mask, adv = tokens.mask, maths.guard(tokens.adv, tokens.mask)
    moved = adv * (maths.guard(tokens.logp, mask) - maths.guard(reference, mask))
    zeros = torch.zeros(int(tokens.pair.max()) + 1, dtype=moved.dtype, device=moved.device)
    margin = zeros.index_add(0, tokens.pair, moved)
    # All tokens of a rollout have the share 1 / rollouts. A pair has twice that share; a pair of another micro-batch
    # has none.
    share = 2.0 * zeros.scatter_reduce(0, tokens.pair, tokens.share, "amax")
    loss = -(share * F.logsigmoid(cfg.beta * margin)).sum()
    here = share > 0
    return loss, {"margin": maths.stat(margin, here), "preferred": maths.stat((margin > 0).float(), here)}
