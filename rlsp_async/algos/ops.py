"""Maths that algorithms share. Pure: tensors in, tensors out.

Shapes: B rollouts, N response tokens end to end, L the longest response, R tokens of a micro-batch.
Log-ratios are clamped to +-20 before exp, in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MAX_LOG_RATIO = 20.0


def ratio(logp: Tensor, other: Tensor, mask: Tensor) -> Tensor:
    """exp(logp - other) where the mask is set, 1 elsewhere; what is masked reaches neither it nor its gradient."""
    return log_ratio(logp, other, mask).exp()


def log_ratio(logp: Tensor, other: Tensor, mask: Tensor) -> Tensor:
    """logp - other where the mask is set, 0 elsewhere, within +-20."""
    difference = guard(logp, mask) - guard(other, mask)
    return difference.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)


def guard(x: Tensor, mask: Tensor) -> Tensor:
    """x where the mask is set, 0 elsewhere; applied before any arithmetic, because NaN * 0 is NaN in gradients too."""
    return torch.where(mask, x, torch.zeros_like(x))


def clipped_surrogate(rho: Tensor, adv: Tensor, low: float, high: float) -> Tensor:
    """PPO, arXiv:1707.06347 Eq. 7, as a loss: -min(rho A, clip(rho, 1 - low, 1 + high) A)."""
    return -torch.minimum(rho * adv, rho.clamp(1 - low, 1 + high) * adv)


def dual_clipped(loss: Tensor, adv: Tensor, most: float) -> Tensor:
    """Dual clip, arXiv:1912.09729 Eq. 5: where A < 0 a loss is at most -most A. Ratio 5, A -1, most 3 -> 3."""
    return torch.where(adv < 0, torch.minimum(loss, -most * adv), loss)


def truncated_weight(new: Tensor, behaviour: Tensor, cap: float, mask: Tensor) -> Tensor:
    """min(exp(new - behaviour), cap), without gradient. Ratios (.3, 3), cap 2 -> (.3, 2)."""
    return ratio(new.detach(), behaviour, mask).clamp(max=cap)


def k1(logp: Tensor, reference: Tensor) -> Tensor:
    """Estimates KL(policy || reference) from the policy's tokens: unbiased, may be negative."""
    return logp - reference


def k2(logp: Tensor, reference: Tensor) -> Tensor:
    """0.5 (log ratio)^2: biased, small variance, never negative."""
    return 0.5 * (logp - reference) ** 2


def k3(logp: Tensor, reference: Tensor) -> Tensor:
    """e^d - d - 1 with d = reference - logp: unbiased and never negative."""
    d = (reference - logp).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    return d.exp() - d - 1


def effective_count(weight: Tensor) -> Tensor:
    """Effective sample size (sum w)^2 / sum w^2. Example: (1, 1, .1, .1) -> 2.396."""
    return weight.sum() ** 2 / (weight**2).sum()


def group_advantages(reward_B: Tensor, group_B: Tensor, divide_by_std: bool, eps: float = 1e-6) -> Tensor:
    """R - mean of its group, divided by the group's standard deviation (with Bessel's correction) if asked.

    arXiv:2402.03300, arXiv:2503.20783. Example: (1, 0, 0, 1) -> (.866, -.866, -.866, .866), or (.5, -.5, -.5, .5).
    """
    count_G, mean_G, spread_G = group_moments(reward_B, group_B)
    adv_B = reward_B - mean_G[group_B]
    if divide_by_std:
        std_G = (spread_G / (count_G - 1).clamp(min=1)).sqrt()
        adv_B = adv_B / (std_G + eps)[group_B]
    return adv_B


def group_moments(reward_B: Tensor, group_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and sum of squared deviations of each group's rewards."""
    num = int(group_B.max()) + 1
    zeros_G = torch.zeros(num, dtype=reward_B.dtype)
    count_G = zeros_G.index_add(0, group_B, torch.ones_like(reward_B))
    mean_G = zeros_G.index_add(0, group_B, reward_B) / count_G.clamp(min=1)
    spread_G = zeros_G.index_add(0, group_B, (reward_B - mean_G[group_B]) ** 2)
    return count_G, mean_G, spread_G


def has_signal(reward_B: Tensor, group_B: Tensor, eps: float = 1e-8) -> Tensor:
    """bool [B]: rewards of the rollout's group are not all the same."""
    _, _, spread_G = group_moments(reward_B, group_B)
    return (spread_G > eps)[group_B]


def whiten(adv_N: Tensor, mask_N: Tensor, eps: float = 1e-8) -> Tensor:
    """(A - mean) / (standard deviation + eps) over the tokens of the mask; 0 elsewhere."""
    used = adv_N[mask_N]
    if len(used) < 2:
        return guard(adv_N, mask_N)
    return torch.where(mask_N, (adv_N - used.mean()) / (used.std(correction=0) + eps), torch.zeros_like(adv_N))


def explained_variance(returns_N: Tensor, values_N: Tensor) -> float:
    """1 - Var(G - V) / Var(G); 0 where the returns do not vary."""
    spread, left = (float(x.var(correction=0)) for x in (returns_N, returns_N - values_N))
    return 1.0 - left / spread if spread > 0 else 0.0


def gae(reward_N: Tensor, values_N: Tensor, length_B: Tensor, gamma: float, lam: float) -> Tensor:
    """Generalised advantages, arXiv:1506.02438; the value after the last token is 0.

    delta_t = r_t + gamma V_{t+1} - V_t,   A_t = delta_t + gamma lam A_{t+1}.
    Example: r (0, 0, 1), V (.2, .4, .6), gamma 1, lam .95 -> (.751, .58, .4).
    """
    reward_LB, values_LB = (to_columns(x, length_B) for x in (reward_N, values_N))
    next_LB = torch.cat([values_LB[1:], torch.zeros_like(values_LB[:1])])
    delta_LB = reward_LB + gamma * next_LB - values_LB
    running_B = torch.zeros_like(delta_LB[0])
    adv_LB = torch.empty_like(delta_LB)
    for t in range(len(delta_LB) - 1, -1, -1):
        running_B = delta_LB[t] + gamma * lam * running_B
        adv_LB[t] = running_B
    return from_columns(adv_LB, length_B)


def vtrace(
    reward_N: Tensor, values_N: Tensor, rho_N: Tensor, length_B: Tensor, gamma: float, lam: float, cap: float
) -> tuple[Tensor, Tensor]:
    """V-trace, arXiv:1802.01561: advantages and targets [N] for values of the policy that rho leads to.

    rho' = min(rho, cap), c = lam min(rho, 1), delta_t = rho'_t (r_t + gamma V_{t+1} - V_t),
    vs_t = V_t + delta_t + gamma c_t (vs_{t+1} - V_{t+1}),  A_t = rho'_t (r_t + gamma vs_{t+1} - V_t).
    Example: r (0, 0, 1), V (.2, .4, .6), rho (.5, 2, 1.2), cap 1 -> A (.4, .6, .4), vs (.6, 1, 1).
    """
    reward_LB, values_LB, rho_LB = (to_columns(x, length_B) for x in (reward_N, values_N, rho_N))
    next_LB = torch.cat([values_LB[1:], torch.zeros_like(values_LB[:1])])
    capped_LB = rho_LB.clamp(max=cap)
    delta_LB = capped_LB * (reward_LB + gamma * next_LB - values_LB)
    surplus_B = torch.zeros_like(delta_LB[0])
    target_LB = torch.empty_like(delta_LB)
    for t in range(len(delta_LB) - 1, -1, -1):
        surplus_B = delta_LB[t] + gamma * lam * rho_LB[t].clamp(max=1.0) * surplus_B
        target_LB[t] = values_LB[t] + surplus_B
    after_LB = torch.cat([target_LB[1:], torch.zeros_like(target_LB[:1])])
    adv_LB = capped_LB * (reward_LB + gamma * after_LB - values_LB)
    return from_columns(adv_LB, length_B), from_columns(target_LB, length_B)


def interpolated(behaviour: Tensor, new: Tensor, towards_new: Tensor, mask: Tensor) -> Tensor:
    """Log-probs on the line between two policies: the share 0 is behaviour, 1 is new."""
    behaviour, new = guard(behaviour, mask), guard(new, mask)
    return behaviour + towards_new * (new - behaviour)


def to_columns(x_N: Tensor, length_B: Tensor) -> Tensor:
    """Ragged [N] as [L, B], zeros after the end."""
    inside_BL = _inside(length_B)
    dense_BL = torch.zeros(inside_BL.shape, dtype=x_N.dtype)
    dense_BL[inside_BL] = x_N
    return dense_BL.T.contiguous()


def from_columns(x_LB: Tensor, length_B: Tensor) -> Tensor:
    """[L, B] back to ragged [N]."""
    return x_LB.T[_inside(length_B)]


def _inside(length_B: Tensor) -> Tensor:
    return torch.arange(int(length_B.max()))[None, :] < length_B[:, None]


def last_tokens(length_B: Tensor) -> Tensor:
    """Index into N of each rollout's last token."""
    return length_B.cumsum(0) - 1


def shares(length_B: Tensor, aggregation: str, horizon_tokens: int = 0) -> Tensor:
    """[N] share of each token in its update.

    "token_mean" 1 / tokens; of B rollouts "seq_mean" 1 / (B its length), "seq_sum" 1 / B, "horizon" 1 / (B horizon).
    """
    if aggregation == "token_mean":
        num = int(length_B.sum())
        return torch.full((num,), 1.0 / num)
    per_B = {
        "seq_mean": length_B.float(),
        "seq_sum": torch.ones(len(length_B)),
        "horizon": torch.full((len(length_B),), float(horizon_tokens)),
    }[aggregation]
    return (1.0 / (len(length_B) * per_B)).repeat_interleave(length_B)


def rollout_sums(x: Tensor, rollout: Tensor, mask: Tensor) -> Tensor:
    """[R] the sum of x over the masked-in tokens of the token's rollout. Example: (1, 2, 4) of (0, 0, 1) -> 3, 3, 4."""
    num = int(rollout.max()) + 1 if len(rollout) else 0
    return torch.zeros(num, dtype=x.dtype, device=x.device).index_add(0, rollout, guard(x, mask))[rollout]


def rollout_means(x: Tensor, rollout: Tensor, mask: Tensor) -> Tensor:
    """[R] the mean of x over the masked-in tokens of each token's rollout; 0 for a rollout without any."""
    count = rollout_sums(torch.ones_like(x), rollout, mask)
    return rollout_sums(x, rollout, mask) / count.clamp(min=1)


def rollout_ratio(new: Tensor, behaviour: Tensor, rollout: Tensor, mask: Tensor) -> Tensor:
    """[R] the probability of the token's whole rollout under one policy over the other: exp of a sum within +-20."""
    total = rollout_sums(guard(new, mask) - guard(behaviour, mask), rollout, mask)
    return total.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO).exp()


def stat(values: Tensor, mask: Tensor) -> Tensor:
    """[sum, count] over a mask."""
    return torch.stack([guard(values.detach().float(), mask).sum(), mask.sum().float()])


def clip_stats(rho: Tensor, adv: Tensor, mask: Tensor, low: float, high: float) -> dict[str, Tensor]:
    """Share of tokens at which the clip removes the gradient, by sign of A."""
    up, down = mask & (adv > 0), mask & (adv < 0)
    return {"clip_positive": stat((rho > 1 + high).float(), up), "clip_negative": stat((rho < 1 - low).float(), down)}
