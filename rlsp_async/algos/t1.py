"""T1 (arXiv:2501.11651): RLOO on many rollouts of a prompt, held to an average of the policy, with an entropy bonus.

    z_i = r'_i - kl_coef KL_i        KL_i = sum_t (old_t - reference_t)        r': rewards/penalties.py
    A_i = z_i - mean of z over the other rollouts of its group
    L   = - sum_t share_t (A_i logp_t + entropy_coef H_t)

So the KL is normalised in its group as the reward is, leave-one-out. `reference` is the average of the policy over the
steps (`reference_ema`), H_t the entropy of the distribution that token t was drawn from. The coefficients of both are
not published: preset "paper" asks for them. There is no correction for stale tokens; `corrections` adds one.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from rlsp_async.algos import maths, rloo
from rlsp_async.algos.base import Advantages, AlgorithmConfig, Rollouts, Stats, Tokens
from rlsp_async.config.ranges import Range

NEEDS: frozenset[str] = frozenset({"reference", "entropy"})
_UNPUBLISHED = ("entropy_coef", "reference_ema")
ASKED = {"paper": _UNPUBLISHED}
"""Options that a run must give beside a preset."""
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"kl_coef": 2e-4, **dict.fromkeys(_UNPUBLISHED, -1.0)},
    # Our values, for models of the CPU tasks.
    "cpu": {"kl_coef": 2e-4, "entropy_coef": 3e-3, "reference_ema": 0.1},
}


class T1Config(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of T1. With both coefficients at 0 it is `rloo`."""

    aggregation: Literal["token_mean", "seq_mean", "seq_sum", "horizon"] = "seq_sum"
    """Mean over all tokens of an update, or over rollouts of their token means, sums, or sums / horizon_tokens."""
    kl_coef: Annotated[float, Range(ge=0, le=10**3)] = 2e-4
    """Price of KL to the reference, beta of the paper."""
    entropy_coef: Annotated[float, Range(ge=0, le=10**3, also=(-1,))] = 0.0
    """Weight of the entropy bonus, eta of the paper, which gives no value: -1 stands for that, and must be replaced."""
    reference_ema: Annotated[float, Range(ge=0, le=1, also=(-1,))] = 0.0
    """Share of the policy that the reference takes over after each step; 0: it stays as the stage began."""
    drop_flat_groups: bool = False
    """Leave out groups whose rewards are all the same."""

    def __post_init__(self) -> None:
        missing = [name for name in _UNPUBLISHED if getattr(self, name) < 0]
        if missing:
            raise ValueError(f"T1's paper gives no value of {' and '.join(missing)}: choose one of 0 or above")
        super().__post_init__()


Config = T1Config


def needs(cfg: T1Config) -> frozenset[str]:
    """`reference`, if KL has a price; `entropy`, if it has a bonus."""
    return frozenset({"reference"} if cfg.kl_coef else ()) | frozenset({"entropy"} if cfg.entropy_coef else ())


def advantages(cfg: T1Config, batch: Rollouts) -> Advantages:
    """RLOO of rewards less KL; one advantage for each rollout. The rewards alone say whether a group has a signal."""
    plain = rloo.RlooConfig(aggregation=cfg.aggregation, drop_flat_groups=cfg.drop_flat_groups)
    unpriced = rloo.advantages(plain, batch)
    if not cfg.kl_coef:
        return unpriced
    assert batch.old_N is not None
    assert batch.reference_N is not None
    number_N = torch.arange(len(batch.length_B)).repeat_interleave(batch.length_B)
    spent_N = maths.guard(batch.old_N, batch.mask_N) - maths.guard(batch.reference_N, batch.mask_N)
    kl_B = torch.zeros(len(batch.length_B)).index_add(0, number_N, spent_N)
    priced = rloo.advantages(
        plain,
        Rollouts(
            reward_B=batch.reward_B - cfg.kl_coef * kl_B,
            group_B=batch.group_B,
            length_B=batch.length_B,
            behaviour_N=batch.behaviour_N,
            mask_N=batch.mask_N,
        ),
    )
    return Advantages(priced.adv_N, unpriced.keep_B, stats={**unpriced.stats, "kl_penalty": float(kl_B.mean())})


def token_loss(cfg: T1Config, tokens: Tokens) -> tuple[Tensor, Stats]:
    """Likelihood times advantage, and the entropy bonus; no stats."""
    adv, logp = maths.guard(tokens.adv, tokens.mask), maths.guard(tokens.logp, tokens.mask)
    loss = -(tokens.share * adv * logp).sum()
    if cfg.entropy_coef:
        assert tokens.entropy is not None
        loss = loss - cfg.entropy_coef * (tokens.share * maths.guard(tokens.entropy, tokens.mask)).sum()
    return loss, {}
