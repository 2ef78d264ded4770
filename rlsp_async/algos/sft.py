"""Supervised fine-tuning: the zeroth algorithm.

    L = - sum_t share_t log pi(o_t)

Needs no reward, no behaviour log-prob and no advantage.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlsp_async.algos import ops
from rlsp_async.algos.base import Advantages, AlgorithmConfig, Rollouts, Stats, Tokens

NEEDS: frozenset[str] = frozenset()
ON_POLICY = None
PRESETS: dict[str, dict[str, Any]] = {}


class Config(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nothing of its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.corrections.active:
            raise ValueError("nobody sampled a demonstration: sft takes no corrections")


def needs(cfg: Config) -> frozenset[str]:
    return NEEDS


def advantages(cfg: Config, batch: Rollouts) -> Advantages:
    """1 for every token; every sequence counts."""
    return Advantages(torch.ones_like(batch.behaviour_N), torch.ones_like(batch.length_B, dtype=torch.bool))


def token_loss(cfg: Config, tokens: Tokens) -> tuple[Tensor, Stats]:
    logp = ops.guard(tokens.logp, tokens.mask)
    return -(tokens.share * logp).sum(), {"nll": ops.stat(-tokens.logp, tokens.mask)}
