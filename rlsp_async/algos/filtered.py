"""Filtered fine-tuning: cross-entropy on what worked, the improvement step of expert iteration.

    D = the rollouts of the batch with R_i >= threshold, each text of a prompt once, at most `per_prompt` of a prompt
    L = - sum over D of share_t logp_t

There is no ratio, no baseline and no negative, so nothing can be pushed down without bound, whichever policy sampled.
Rounds are stages: Havrilla et al. (arXiv:2403.04642) sample with the newest policy, add to what earlier rounds found
(`carry`) and train the first policy again on all of it (`start = "base"`); ReST-EM (arXiv:2312.06585) does so with the
newest round alone. Two rollouts are duplicates when prompt and response have the same tokens, whichever groups of the
batch they are in; the first one stays.

With `balance_target` n* a batch chooses its own threshold, as B-STaR (arXiv:2412.17256) does for a round: among
its rewards R the one with the largest mean over its prompts of

    bs_i = min(n'_i / n*, 1) n'_i / n_i        n_i different responses to prompt i with R or more, n'_i of them correct

That is for rewards that are more than the verdict (an exploration reward, a judge): where wrong rollouts can be paid
more than right ones, the score weighs how many right ones are kept against how pure they are.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from rlsp_async.algos import baselines, maths
from rlsp_async.algos.base import Advantages, AlgorithmConfig, Rollouts, Stats, Tokens
from rlsp_async.config.ranges import Range
from rlsp_async.errors import ConfigError

NEEDS: frozenset[str] = frozenset()
ON_POLICY = None
PRESETS: dict[str, dict[str, Any]] = {}
MOST_THRESHOLDS = 101
"""Largest number of a batch's rewards that are tried as its threshold; of more distinct ones, evenly spaced in rank."""


class FilteredConfig(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of filtered fine-tuning."""

    threshold: Annotated[float, Range(ge=-(10**6), le=10**6)] = 0.5
    """Smallest reward of a rollout that is trained on."""
    balance_target: Annotated[int, Range(ge=0, le=65_536)] = 0
    """Number of right responses of a prompt that is enough, n* of B-STaR (arXiv:2412.17256: 8 of 64): each batch
    chooses the threshold with the best balance score among its rewards that are not below `threshold`; 0: off."""
    drop_duplicates: bool = True
    """Keep each response of a prompt once in a batch."""
    per_prompt: Annotated[int, Range(ge=0, le=65_536)] = 0
    """Largest number of rollouts of a prompt that are kept in a batch, the first ones; 0: all."""
    temperature: Annotated[float, Range(ge=0, le=100)] = 0.0
    """Temperature of the policy that learns the rollouts: 1 is cross-entropy as published, whatever temperature drew
    them (B-STaR, arXiv:2412.17256); 0: of each rollout the one that drew it."""

    def scored_at(self) -> float:
        """The option `temperature`."""
        return self.temperature

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature and self.corrections.active:
            raise ValueError(
                "temperature must be 0 beside corrections: their ratios are those of the policy that sampled"
            )


Config = FilteredConfig


def needs(cfg: FilteredConfig) -> frozenset[str]:
    """Nothing beside the log-probs."""
    return NEEDS


def advantages(cfg: FilteredConfig, batch: Rollouts) -> Advantages:
    """1 for every token; the rollouts of D are kept.

    Raises:
        ConfigError: `balance_target` is set and the batch does not say which rollouts are right.
    """
    assert batch.prompt_B is not None
    assert batch.text_B is not None
    threshold, chosen = _balanced_threshold(cfg, batch) if cfg.balance_target else (cfg.threshold, {})
    right_B = batch.reward_B >= threshold
    first_B = right_B & (baselines.occurrence_index(batch.text_B, right_B) == 0)
    keep_B = first_B if cfg.drop_duplicates else right_B
    if cfg.per_prompt:
        keep_B = keep_B & (baselines.occurrence_index(batch.prompt_B, keep_B) < cfg.per_prompt)
    num = max(1, int(right_B.sum()))
    stats = {
        **chosen,
        "right_fraction": float(right_B.float().mean()),
        "duplicate_fraction": float((right_B & ~first_B).sum()) / num,
        "solved_prompts": float(len(set(batch.prompt_B[right_B].tolist()))),
    }
    return Advantages(torch.ones_like(batch.behaviour_N), keep_B, stats=stats)


def _balanced_threshold(cfg: FilteredConfig, batch: Rollouts) -> tuple[float, dict[str, float]]:
    """The threshold with the best balance score, the lowest of equally good ones, and its stats."""
    if batch.terms is None:
        raise ConfigError(
            "algorithm 'filtered' needs to know which rollouts are right for balance_target, and "
            "demonstrations and rewards that are not Eq. 1 do not say it; set balance_target = 0"
        )
    rewards = sorted({reward for reward in batch.reward_B.tolist() if reward >= cfg.threshold})
    apart = max(1.0, (len(rewards) - 1) / (MOST_THRESHOLDS - 1))
    tried = [rewards[round(n * apart)] for n in range(min(len(rewards), MOST_THRESHOLDS))]
    scores = [balance_score(cfg, batch, threshold) for threshold in tried]
    balance, threshold = max(zip(scores, tried, strict=True), key=lambda pair: pair[0], default=(0.0, cfg.threshold))
    return threshold, {"threshold": threshold, "balance": balance}


def balance_score(cfg: FilteredConfig, batch: Rollouts, threshold: float) -> float:
    """Mean balance score of the batch's prompts at a threshold, bs_i = min(n'_i / n*, 1) n'_i / n_i (arXiv:2412.17256).

    Args:
        cfg: for n*, `balance_target`.
        batch: rollouts with the columns `prompt_B` and `text_B`, and with terms.
        threshold: smallest reward of a rollout that counts.

    Returns:
        0 to 1; among equal texts the verdict of the first one counts.
    """
    assert batch.terms is not None
    assert batch.prompt_B is not None
    assert batch.text_B is not None
    kept_B = batch.reward_B >= threshold
    first_B = kept_B & (baselines.occurrence_index(batch.text_B, kept_B) == 0)
    num_P = torch.bincount(batch.prompt_B[first_B])
    right_P = torch.bincount(batch.prompt_B[first_B & (batch.terms.outcome_B > 0)], minlength=len(num_P))
    score_P = (right_P / cfg.balance_target).clamp(max=1.0) * right_P / num_P.clamp(min=1)
    return float(score_P.sum()) / len(set(batch.prompt_B.tolist()))


def token_loss(cfg: FilteredConfig, tokens: Tokens) -> tuple[Tensor, Stats]:
    """Cross-entropy; stat `nll`."""
    logp = maths.guard(tokens.logp, tokens.mask)
    return -(tokens.share * logp).sum(), {"nll": maths.stat(-tokens.logp, tokens.mask)}
