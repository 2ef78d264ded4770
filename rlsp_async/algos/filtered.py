"""Filtered fine-tuning: cross-entropy on what worked, the improvement step of expert iteration.

    D = the rollouts of the batch with R_i >= threshold, each text of a prompt once, at most `per_prompt` of a prompt
    L = - sum over D of share_t logp_t

No ratio, no baseline and no negative: nothing can be pushed down without bound, whoever sampled. Rounds are stages:
Havrilla et al., arXiv:2403.04642, sample with the newest policy, add to what earlier rounds found (`carry`) and train
the first policy anew on all of it (`start = "base"`); ReST-EM, arXiv:2312.06585, does so with the newest round alone.
Two rollouts are duplicates when prompt and response have the same tokens, whichever groups of the batch they are in;
the first stays.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlsp_async.algos import groups, ops
from rlsp_async.algos.base import Advantages, AlgorithmConfig, Rollouts, Stats, Tokens

NEEDS: frozenset[str] = frozenset()
ON_POLICY = None
PRESETS: dict[str, dict[str, Any]] = {}


class Config(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of filtered fine-tuning."""

    threshold: float = 0.5
    """Least reward of a rollout that is trained on."""
    drop_duplicates: bool = True
    """Keep each response of a prompt once in a batch."""
    per_prompt: int = 0
    """Keep at most so many rollouts of a prompt in a batch, the first ones; 0: all."""

    temperature: float = 0.0
    """Of the policy that learns them: 1 is cross-entropy as published, whatever they were drawn at (B-STaR,
    arXiv:2412.17256); 0: each rollout at the temperature that drew it."""

    def scored_at(self) -> float:
        return self.temperature

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature < 0 or (self.temperature and self.corrections.active):
            raise ValueError("temperature must be at least 0, and 0 beside corrections: their ratios are those of the "
                             "policy that sampled")
        if self.per_prompt < 0:
            raise ValueError("per_prompt must be at least 0 (0: no cap)")


def needs(cfg: Config) -> frozenset[str]:
    return NEEDS


def advantages(cfg: Config, batch: Rollouts) -> Advantages:
    """1 for every token; kept are the rollouts of D."""
    assert batch.prompt_B is not None
    assert batch.text_B is not None
    right_B = batch.reward_B >= cfg.threshold
    first_B = right_B & (groups.place(batch.text_B, right_B) == 0)
    keep_B = first_B if cfg.drop_duplicates else right_B
    if cfg.per_prompt:
        keep_B = keep_B & (groups.place(batch.prompt_B, keep_B) < cfg.per_prompt)
    num = max(1, int(right_B.sum()))
    stats = {"right_fraction": float(right_B.float().mean()),
             "duplicate_fraction": float((right_B & ~first_B).sum()) / num,
             "solved_prompts": float(len(set(batch.prompt_B[right_B].tolist())))}
    return Advantages(torch.ones_like(batch.behaviour_N), keep_B, stats=stats)


def token_loss(cfg: Config, tokens: Tokens) -> tuple[Tensor, Stats]:
    logp = ops.guard(tokens.logp, tokens.mask)
    return -(tokens.share * logp).sum(), {"nll": ops.stat(-tokens.logp, tokens.mask)}
