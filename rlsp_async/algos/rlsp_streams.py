"""RLSP with a value head for each term of its reward: correctness and exploration have advantages of their own. Ours.

    c = 1[correct], e = R_explore                               the terms of Eq. 1 (arXiv:2502.06773), without weights
    A_c = GAE(c, V_c; gamma, lam)       A_e = GAE(e, V_e; gamma_explore, lam_explore)       A_kl = GAE(-price, 0)
    A   = alpha A_c + (1 - alpha) A_e + A_kl                    whitened over the batch if `whiten`
    L   = PPO's surrogate of A (ppo.py) + value_coef 0.5 ((V_c - G_c)^2 + (V_e - G_e)^2), each clipped as there

These are two critics, one for each stream of advantages. The paper adds the two terms to one scalar reward, with one
critic and one advantage. Here the targets of no head contain alpha, so a schedule of alpha makes no value stale;
exploration may be credited over another horizon; and the effect of one stream on the other is measured. The price on KL
is paid beside the two, without a value.

`combine = "sum"`: with equal gamma and lam A is PPO's own, for the values alpha V_c + (1 - alpha) V_e (GAE is linear).

`combine = "gdpo"`: c and e are first normalised in their group, (r - mean) / std, as in GDPO (arXiv:2601.05242).
Warning: alpha no longer limits what exploration alone can gain. In a group that is all wrong the differences of
R_explore, however small, become advantages of variance (1 - alpha)^2.

`bound` above 0: in a group with right and wrong answers exploration takes back at most that share of a token's A_c,

    right answer: max((1 - alpha) A_e, -bound alpha |A_c|)        wrong answer: min((1 - alpha) A_e, bound alpha |A_c|)

and V_c stays within the group's rewards. With gamma = lam = 1, A_c is then >= 0 where the answer is right and <= 0
where it is wrong, so no token of a wrong answer has a greater advantage than one of a right answer of its group,
whatever R_explore and alpha are. Whitening keeps the order; the price on KL stands outside of it. A bound on the
standard deviation of A_e would not suffice: one short answer can lie many deviations out. Paying exploration only in
such groups would not suffice either: nothing limits it inside of them, and it would pay nothing where no answer is
right, which is the case that RLSP pays exploration for. In groups that are all right or all wrong there is no pair to
protect, and exploration is paid in full.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

import torch
from msgspec.structs import replace
from torch import Tensor

from rlsp_async.algos import maths, ppo
from rlsp_async.algos.base import Advantages, Rollouts, Stats, Terms, Tokens
from rlsp_async.config.ranges import Range
from rlsp_async.errors import ConfigError

NEEDS = ppo.NEEDS
_HEADS = ("outcome", "explore")
PRESETS: dict[str, dict[str, Any]] = {
    "rlsp_cpu": ppo.PRESETS["rlsp_cpu"],
    "rlsp_cpu_bounded": {**ppo.PRESETS["rlsp_cpu"], "bound": 0.5},
    "rlsp_cpu_gdpo": {**ppo.PRESETS["rlsp_cpu"], "combine": "gdpo"},
}


class RlspStreamsConfig(ppo.PpoConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All options of `ppo`, and these; the gamma and lam of `ppo` are those of correctness."""

    combine: Literal["sum", "gdpo"] = "sum"
    """The terms as they are, or each normalised in its group first."""
    gamma_explore: Annotated[float, Range(ge=0, le=1, also=(-1,))] = -1.0
    """Discount of the exploration stream; -1: gamma."""
    lam_explore: Annotated[float, Range(ge=0, le=1, also=(-1,))] = -1.0
    """Decay of the exploration stream; -1: lam."""
    bound: Annotated[float, Range(ge=0, lt=1)] = 0.0
    """Share of a token's correctness advantage that exploration may take back, below 1; 0: no bound."""

    def num_values(self) -> int:
        """Two: correctness and exploration."""
        return 2

    def first_values(self, reward_B: Tensor, terms: Terms | None) -> tuple[float, ...]:
        """The mean of each term; 0 where the terms are not known or are normalised in their groups."""
        if terms is None or self.combine == "gdpo":
            return 0.0, 0.0
        return float(terms.outcome_B.mean()), float(terms.explore_B.mean())

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reward_form != "eq1" or self.normalize_reward:
            raise ValueError("the streams are the two terms of Eq. 1; leave reward_form and normalize_reward alone")


Config = RlspStreamsConfig


def needs(cfg: RlspStreamsConfig) -> frozenset[str]:
    """As `ppo`."""
    return ppo.needs(cfg)


def advantages(cfg: RlspStreamsConfig, batch: Rollouts) -> Advantages:
    """The sum of the two streams and of the price on KL; every rollout counts.

    Raises:
        ConfigError: the batch has no terms, as demonstrations have none.
    """
    if batch.terms is None:
        raise ConfigError(
            "algorithm 'rlsp_streams' trains on rewards of two terms, and demonstrations have none; give "
            'the stage source = "rollouts" or another algorithm'
        )
    assert batch.values_N is not None
    values = batch.values_N.unbind(1)
    rewards = _rewards(cfg, batch, batch.terms)
    first = _within_group(batch, batch.terms, rewards[0], values[0]) if cfg.bound else values[0]
    outcome_N, outcome_returns_N = _stream(cfg, batch, rewards[0], first)
    explore_N, explore_returns_N = _stream(_exploration_config(cfg), batch, rewards[1], values[1])
    outcome_N, explore_N = batch.terms.alpha * outcome_N, (1.0 - batch.terms.alpha) * explore_N
    free_N = explore_N
    if cfg.bound:
        explore_N = _bounded(cfg.bound, batch, batch.terms, outcome_N, explore_N)
    price_N = ppo.kl_price(cfg, batch)
    adv_N = outcome_N + explore_N + ppo.targets(cfg, batch, -price_N, torch.zeros_like(price_N))[0]
    returns_N = torch.stack([outcome_returns_N, explore_returns_N], dim=1)
    stats = {
        "kl_penalty": float(price_N.sum()) / len(batch.length_B),
        **_figures(batch.mask_N, adv_N, outcome_N, explore_N, free_N),
        **_explained(batch.mask_N, returns_N, batch.values_N),
    }
    keep_B = torch.ones_like(batch.length_B, dtype=torch.bool)
    return Advantages(maths.whiten(adv_N, batch.mask_N) if cfg.whiten else adv_N, keep_B, returns_N, stats)


def token_loss(cfg: RlspStreamsConfig, tokens: Tokens) -> tuple[Tensor, Stats]:
    """PPO's surrogate and the loss of both value heads; stats `value_loss_outcome` and `value_loss_explore` too."""
    loss, stats = ppo.policy_loss(cfg, tokens)
    for k, name in enumerate(_HEADS):
        value, more = ppo.value_loss(cfg, _head(tokens, k))
        loss, stats = loss + value, {**stats, f"value_loss_{name}": more["value_loss"]}
    return loss, stats


def _head(tokens: Tokens, k: int) -> Tokens:
    """The tokens with the critic's columns of head k alone."""
    assert tokens.values is not None
    assert tokens.old_values is not None
    assert tokens.returns is not None
    return dataclasses.replace(
        tokens, values=tokens.values[:, k], old_values=tokens.old_values[:, k], returns=tokens.returns[:, k]
    )


def _exploration_config(cfg: RlspStreamsConfig) -> RlspStreamsConfig:
    """The options with gamma and lam of the exploration stream."""
    gamma = cfg.gamma if cfg.gamma_explore < 0 else cfg.gamma_explore
    return replace(cfg, gamma=gamma, lam=cfg.lam if cfg.lam_explore < 0 else cfg.lam_explore)


def _rewards(cfg: RlspStreamsConfig, batch: Rollouts, terms: Terms) -> tuple[Tensor, Tensor]:
    """[B] both terms, normalised in their groups for "gdpo"."""
    both = terms.outcome_B, terms.explore_B
    if cfg.combine == "sum":
        return both
    outcome_B, explore_B = (maths.group_advantages(r_B, batch.group_B, divide_by_std=True) for r_B in both)
    return outcome_B, explore_B


def _stream(cfg: RlspStreamsConfig, batch: Rollouts, reward_B: Tensor, values_N: Tensor) -> tuple[Tensor, Tensor]:
    """Advantages [N] and value targets [N] of one term, which is paid at the last token."""
    reward_N = torch.zeros_like(values_N).index_add(0, maths.last_tokens(batch.length_B), reward_B)
    return ppo.targets(cfg, batch, reward_N, values_N)


def _mixed(batch: Rollouts, terms: Terms) -> Tensor:
    """Whether each token's group has right and wrong answers, bool [N]."""
    return maths.has_signal(terms.outcome_B, batch.group_B).repeat_interleave(batch.length_B)


def _within_group(batch: Rollouts, terms: Terms, reward_B: Tensor, values_N: Tensor) -> Tensor:
    """[N] values clamped to the range of the group's rewards, in groups with right and wrong answers."""
    empty_G = torch.zeros(int(batch.group_B.max()) + 1, dtype=reward_B.dtype)
    low_B, high_B = (
        empty_G.scatter_reduce(0, batch.group_B, reward_B, kind, include_self=False)[batch.group_B]
        for kind in ("amin", "amax")
    )
    near_N = values_N.clamp(low_B.repeat_interleave(batch.length_B), high_B.repeat_interleave(batch.length_B))
    return torch.where(_mixed(batch, terms), near_N, values_N)


def _bounded(bound: float, batch: Rollouts, terms: Terms, outcome_N: Tensor, explore_N: Tensor) -> Tensor:
    """[N] exploration's advantages, cut where they would outvote correctness; both come with their weights."""
    limit_N = bound * outcome_N.abs()
    right_N = (terms.outcome_B > 0.5).repeat_interleave(batch.length_B)
    cut_N = torch.where(right_N, torch.maximum(explore_N, -limit_N), torch.minimum(explore_N, limit_N))
    return torch.where(_mixed(batch, terms), cut_N, explore_N)


def _figures(mask_N: Tensor, adv_N: Tensor, outcome_N: Tensor, explore_N: Tensor, free_N: Tensor) -> dict[str, float]:
    """Spread of the weighted streams, share of tokens whose sum points against correctness, share of tokens cut."""
    adv, outcome, explore, free = (x_N[mask_N] for x_N in (adv_N, outcome_N, explore_N, free_N))
    return {
        "adv_std_outcome": float(outcome.std(correction=0)),
        "adv_std_explore": float(explore.std(correction=0)),
        "opposed_fraction": float((adv * outcome < 0).float().mean()),
        "bounded_fraction": float((explore != free).float().mean()),
    }


def _explained(mask_N: Tensor, returns_N: Tensor, values_N: Tensor) -> dict[str, float]:
    """Explained variance of each head."""
    return {
        f"explained_variance_{name}": maths.explained_variance(returns_N[mask_N, k], values_N[mask_N, k])
        for k, name in enumerate(_HEADS)
    }
