"""Supervised fine-tuning: cross-entropy on demonstrations, without reward and without the log-probs of another policy.

L = - sum_t share_t log pi(o_t)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlsp_async.algos import maths
from rlsp_async.algos.base import Advantages, AlgorithmConfig, Rollouts, Stats, Tokens

NEEDS: frozenset[str] = frozenset()
ON_POLICY = None
PRESETS: dict[str, dict[str, Any]] = {}


class SftConfig(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """No settings beside those of every algorithm; corrections are refused."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.corrections.active:
            raise ValueError("sft takes no corrections: no policy sampled a demonstration")


Config = SftConfig


def needs(cfg: SftConfig) -> frozenset[str]:
    """Nothing beside the log-probs."""
    return NEEDS


def advantages(cfg: SftConfig, batch: Rollouts) -> Advantages:
    """1 for every token; every demonstration counts."""
    return Advantages(torch.ones_like(batch.behaviour_N), torch.ones_like(batch.length_B, dtype=torch.bool))


def token_loss(cfg: SftConfig, tokens: Tokens) -> tuple[Tensor, Stats]:
    """Cross-entropy; stat `nll`."""
    logp = maths.guard(tokens.logp, tokens.mask)
    return -(tokens.share * logp).sum(), {"nll": maths.stat(-tokens.logp, tokens.mask)}
