"""DPO, direct preference optimisation, arXiv:2305.18290, on pairs that a group's own rewards make.

    pair    best and worst rollout of a group, then second best and second worst, ..., while their rewards differ
    D_i     = sum_t (logp_t - reference_t)                     of the whole rollout
    L       = - mean over pairs of log sigmoid(beta (D_best - D_worst))

`against = "behaviour"` takes the policy that sampled for the reference: nothing extra is kept or computed, and each
pair has the version that made it for an opponent (as SPIN has its previous iterate). A pair lies in one micro-batch.
Rollouts without a partner are left out. Demonstrations against rollouts would need batches of both, which the learner
refuses.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from rlsp_async.algos import ops
from rlsp_async.algos.base import Advantages, AlgorithmConfig, Rollouts, Stats, Tokens

NEEDS = frozenset({"reference"})
ON_POLICY = None
PRESETS: dict[str, dict[str, Any]] = {"paper": {}}


class Config(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of DPO."""

    aggregation: Literal["seq_sum"] = "seq_sum"
    """Mean over the pairs; nothing else is DPO."""
    beta: float = 0.1
    """How far from the reference a preference may carry; smaller: further."""
    against: Literal["stage", "behaviour"] = "stage"
    """The reference: the policy with which the stage began, or the one that sampled."""
    pairs_per_group: int = 1
    """Most pairs a group makes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.corrections.active:
            raise ValueError("a correction stage would take one side of a pair: dpo takes no corrections")
        if self.pairs_per_group < 1 or self.beta <= 0:
            raise ValueError("pairs_per_group must be at least 1 and beta above 0")


def needs(cfg: Config) -> frozenset[str]:
    return NEEDS if cfg.against == "stage" else frozenset()


def advantages(cfg: Config, batch: Rollouts) -> Advantages:
    """1 for the better rollout of a pair, -1 for the worse."""
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
    """(best, worst), from outside in. Example: rewards (0, 1, .5, 1), most 2 -> (1, 0), (3, 2)."""
    ranked = sorted(members, key=lambda i: -float(reward_B[i]))
    found = [(ranked[k], ranked[-1 - k]) for k in range(min(most, len(ranked) // 2))]
    return [(best, worst) for best, worst in found if reward_B[best] > reward_B[worst]]


def token_loss(cfg: Config, tokens: Tokens) -> tuple[Tensor, Stats]:
    reference = tokens.reference if cfg.against == "stage" else tokens.behaviour
    assert reference is not None
    assert tokens.pair is not None
    mask, adv = tokens.mask, ops.guard(tokens.adv, tokens.mask)
    moved = adv * (ops.guard(tokens.logp, mask) - ops.guard(reference, mask))
    zeros = torch.zeros(int(tokens.pair.max()) + 1, dtype=moved.dtype, device=moved.device)
    margin = zeros.index_add(0, tokens.pair, moved)
    # A rollout's tokens all have the share 1 / rollouts; a pair has twice that, one of another micro-batch none.
    share = 2.0 * zeros.scatter_reduce(0, tokens.pair, tokens.share, "amax")
    loss = -(share * F.logsigmoid(cfg.beta * margin)).sum()
    here = share > 0
    return loss, {"margin": ops.stat(margin, here), "preferred": ops.stat((margin > 0).float(), here)}
