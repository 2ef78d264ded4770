"""PPO as RLSP uses it (arXiv:2502.06773, section 2.3), corrected for the policy that sampled.

    r_t   = R [t is last] - kl_coef * (old_t - reference_t)              KL inside the reward, k1, at every token
    A     = GAE(r, V; gamma, lam)                                        whitened over the batch if `whiten`
    rho_t = exp(logp_t - old_t)                                          clip 0.2
    w_t   = min(exp(old_t - behaviour_t), weight_cap)                    1 when the batch is on-policy
    L     = sum_t share_t ( w_t max(-rho_t A_t, -clip(rho_t) A_t)
                            + value_coef * 0.5 max((V - G)^2, (clip(V, V_old +- value_clip) - G)^2) )

G is A + V ("gae", as OpenRLHF computes it), the reward-to-go ("monte_carlo", as the paper writes it), or V-trace's
target ("vtrace", arXiv:1802.01561), whose advantages carry min(exp(old - behaviour), weight_cap) themselves; w_t is 1
then.

Decoupled PPO (arXiv:2110.00641, 2505.24298): the trust region lies around a proximal policy, `old`, and w_t leads from
there to the policy that sampled. `proximal` says which policy that is: the learner at the beginning of the step
("recomputed"); or behaviour + lag / (lag + 1) (logp - behaviour) without gradient ("interpolated", A-3PO,
arXiv:2512.06547); or the policy that sampled itself ("behaviour": PPO as first published, arXiv:1707.06347, with w_t =
1). `weight_cap = 0` leaves w_t out.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from rlsp_async.algos import maths
from rlsp_async.algos.base import Advantages, AlgorithmConfig, Carried, Rollouts, Stats, Tokens
from rlsp_async.config.ranges import INFINITY, Range

NEEDS = frozenset({"old", "reference", "values"})

_RLSP: dict[str, Any] = {"kl_coef": 0.05, "critic": "separate", "critic_lr": 2e-6, "aggregation": "seq_mean"}
PRESETS: dict[str, dict[str, Any]] = {
    # Appendix B: lambda .95, rewards normalised and clipped, values regressed on the reward-to-go.
    "rlsp_paper": {**_RLSP, "lam": 0.95, "returns": "monte_carlo", "normalize_reward": True},
    # What the scripts pass: lambda is not passed and defaults to 1, reward normalisation has no effect on a remote
    # reward, the actor is frozen for 4 steps, targets are A + V, rewards come from the released server.
    "rlsp_released": {**_RLSP, "lam": 1.0, "returns": "gae", "critic_warmup_steps": 4, "reward_form": "released"},
    # As PPO was first published: one ratio, to the policy that sampled, and the clip around that policy.
    "clip_behaviour": {"kl_coef": 0.0, "proximal": "behaviour", "weight_cap": 0.0},
    # Decoupled: the paper has no cap on the weight; AReaL's code leaves out the tokens above its cap. Neither has a KL.
    "decoupled_paper": {"kl_coef": 0.0, "weight_cap": float("inf")},
    "decoupled_areal": {
        "kl_coef": 0.0,
        "weight_cap": 0.0,
        "corrections": {"mask": "icepop", "mask_low": 1e-9, "mask_high": 5.0, "weight": "token", "weight_high": 5.0},
    },
    # IMPALA's critic with both of its caps at 1.
    "vtrace": {"returns": "vtrace", "weight_cap": 1.0, "lam": 1.0, "kl_coef": 0.0},
    # For a model of 0.2 M parameters and groups of 8 rollouts: the value head sends no gradient into the trunk, learns
    # ten times faster than the policy, and has one step of warm-up.
    "rlsp_cpu": {"lam": 1.0, "kl_coef": 0.002, "critic": "head_detached", "critic_lr": 3e-3, "critic_warmup_steps": 1},
}


class PpoConfig(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of PPO."""

    critic: Literal["head", "head_detached", "separate"] = "head"
    """Value function: a head on the policy's trunk, a head without gradient into the trunk, or a model of its own."""
    gamma: Annotated[float, Range(ge=0, le=1)] = 1.0
    """Discount of a token."""
    lam: Annotated[float, Range(ge=0, le=1)] = 0.95
    """Decay of GAE."""
    clip: Annotated[float, Range(gt=0, le=10**6)] = 0.2
    """Trust region of the ratio on either side of 1."""
    value_clip: Annotated[float, Range(ge=0, le=10**6)] = 0.2
    """Trust region of the value; 0: off."""
    value_coef: Annotated[float, Range(ge=0, le=10**6)] = 1.0
    """Weight of the value loss beside the policy's; its factor 0.5 comes on top."""
    kl_coef: Annotated[float, Range(ge=0, le=10**3)] = 0.05
    """Price of KL to the policy with which the stage began; 0: that policy is not kept."""
    whiten: bool = True
    """Bring the advantages of a batch to mean 0, standard deviation 1."""
    returns: Literal["gae", "monte_carlo", "vtrace"] = "gae"
    """Targets of the value."""
    proximal: Literal["recomputed", "interpolated", "behaviour"] = "recomputed"
    """The policy around which the trust region lies."""
    weight_cap: Annotated[float, Range(ge=0, le=10**6, also=(INFINITY,))] = 5.0
    """Largest importance weight of old policy over behaviour policy; 0: no weight."""

    def carries(self) -> Carried:
        """The policy that sampled, with a `weight_cap` or around it; else the one at the beginning of the step."""
        return "behaviour" if self.weight_cap or self.proximal == "behaviour" else "step"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.proximal == "behaviour" and self.weight_cap:
            raise ValueError(
                'proximal "behaviour" has the ratio to the policy that sampled in the surrogate: set '
                "weight_cap to 0, or it would count twice"
            )
        if self.returns == "vtrace" and not self.weight_cap:
            raise ValueError('returns "vtrace" needs weight_cap above 0, the cap of its ratios (1 in the paper)')


Config = PpoConfig


def needs(cfg: PpoConfig) -> frozenset[str]:
    """`old` and `values`; `reference` too, if KL has a price."""
    return NEEDS if cfg.kl_coef else NEEDS - {"reference"}


def advantages(cfg: PpoConfig, batch: Rollouts) -> Advantages:
    """GAE over the tokens of each rollout, whitened over the batch; every rollout counts."""
    assert batch.values_N is not None
    price_N = kl_price(cfg, batch)
    reward_N = (-price_N).index_add(0, maths.last_tokens(batch.length_B), batch.reward_B)
    adv_N, returns_N = targets(cfg, batch, reward_N, batch.values_N)
    keep_B = torch.ones_like(batch.length_B, dtype=torch.bool)
    return Advantages(
        maths.whiten(adv_N, batch.mask_N) if cfg.whiten else adv_N,
        keep_B,
        returns_N,
        {"kl_penalty": float(price_N.sum()) / len(batch.length_B)},
    )


def kl_price(cfg: PpoConfig, batch: Rollouts) -> Tensor:
    """Price of each token's distance (k1) from the reference policy, kl_coef (old_t - reference_t).

    Args:
        cfg: for `kl_coef`.
        batch: rollouts with the columns `old_N` and `reference_N`, if KL has a price.

    Returns:
        [N], in reward; zeros without a price.
    """
    if not cfg.kl_coef:
        return torch.zeros_like(batch.behaviour_N)
    assert batch.old_N is not None
    assert batch.reference_N is not None
    return cfg.kl_coef * maths.log_ratio(batch.old_N, batch.reference_N, batch.mask_N)


def targets(cfg: PpoConfig, batch: Rollouts, reward_N: Tensor, values_N: Tensor) -> tuple[Tensor, Tensor]:
    """Advantages and value targets by `cfg.returns`; both are linear in rewards and values together.

    Args:
        cfg: for gamma, lam, the kind of targets and V-trace's cap.
        batch: the rollouts; with `old_N` for V-trace.
        reward_N: reward at each token.
        values_N: value of the state before each token.

    Returns:
        advantages [N] and value targets [N].

    Raises:
        ValueError: the shapes differ.
    """
    values_N = maths.guard(values_N, batch.mask_N)
    if cfg.returns == "vtrace":
        assert batch.old_N is not None
        rho_N = maths.ratio(batch.old_N, batch.behaviour_N, batch.mask_N)
        return maths.vtrace(reward_N, values_N, rho_N, batch.length_B, gamma=cfg.gamma, lam=cfg.lam, cap=cfg.weight_cap)
    adv_N = maths.gae(reward_N, values_N, batch.length_B, cfg.gamma, cfg.lam)
    if cfg.returns == "monte_carlo":
        return adv_N, maths.gae(reward_N, torch.zeros_like(values_N), batch.length_B, cfg.gamma, 1.0)
    return adv_N, adv_N + values_N


def token_loss(cfg: PpoConfig, tokens: Tokens) -> tuple[Tensor, Stats]:
    """The policy's loss and the critic's; stats of both."""
    policy, stats = policy_loss(cfg, tokens)
    value, more = value_loss(cfg, tokens)
    return policy + value, {**stats, **more}


def policy_loss(cfg: PpoConfig, tokens: Tokens) -> tuple[Tensor, Stats]:
    """PPO's clipped surrogate with weight, without the critic's loss.

    Args:
        cfg: the options.
        tokens: R tokens.

    Returns:
        the loss summed with `tokens.share`; stats `clip_positive`, `clip_negative`, `weight` and `policy_loss`.
    """
    mask, adv = tokens.mask, maths.guard(tokens.adv, tokens.mask)
    old = _proximal(cfg, tokens)
    rho = maths.ratio(tokens.logp, old, mask)
    policy = maths.clipped_surrogate(rho, adv, cfg.clip, cfg.clip)
    stats = maths.clip_stats(rho.detach(), adv, mask, cfg.clip, cfg.clip)
    if cfg.weight_cap and cfg.returns != "vtrace":
        weight = maths.truncated_weight(old, tokens.behaviour, cfg.weight_cap, mask)
        policy = weight * policy
        stats["weight"] = maths.stat(weight, mask)
    stats["policy_loss"] = maths.stat(policy, mask)
    return (tokens.share * maths.guard(policy, mask)).sum(), stats


def value_loss(cfg: PpoConfig, tokens: Tokens) -> tuple[Tensor, Stats]:
    """The critic's clipped squared error times `value_coef`; no correction stage leaves out a token of it.

    Args:
        cfg: the options.
        tokens: R tokens; with `values`, `old_values` and `returns` [R].

    Returns:
        the loss summed with `tokens.value_share`; stat `value_loss`.
    """
    value = _squared_error(cfg, tokens)
    share = tokens.share if tokens.value_share is None else tokens.value_share
    loss = cfg.value_coef * (share * maths.guard(value, tokens.mask)).sum()
    return loss, {"value_loss": maths.stat(value, tokens.mask)}


def _proximal(cfg: PpoConfig, tokens: Tokens) -> Tensor:
    """[R] log-probs of the policy around which the trust region lies."""
    if cfg.proximal != "interpolated":
        return tokens.logp_under("old" if cfg.proximal == "recomputed" else "behaviour")
    assert tokens.lag is not None
    return maths.interpolated(tokens.behaviour, tokens.logp.detach(), tokens.lag / (tokens.lag + 1), tokens.mask)


def _squared_error(cfg: PpoConfig, tokens: Tokens) -> Tensor:
    """[R] half the squared error of the value; of the value and the clipped value the larger one."""
    assert tokens.values is not None
    assert tokens.old_values is not None
    assert tokens.returns is not None
    values, old, target = (maths.guard(x, tokens.mask) for x in (tokens.values, tokens.old_values, tokens.returns))
    loss = (values - target) ** 2
    if cfg.value_clip:
        near = old + (values - old).clamp(-cfg.value_clip, cfg.value_clip)
        loss = torch.maximum(loss, (near - target) ** 2)
    return 0.5 * loss
