"""Maths that algorithms share: pure functions from tensors to tensors.

    columns            guard, log_ratio, ratio, stat: of one micro-batch, where masked tokens must not matter
    surrogates         clipped_surrogate, dual_clipped, truncated_weight, k2, k3
    rewards            group_advantages, group_moments, has_signal, whiten, explained_variance
    returns            gae, vtrace over rollouts of different lengths
    rollouts           rollout_sums, rollout_means, rollout_ratio, last_tokens, shares

Shapes: B rollouts, G groups, N response tokens of a batch end to end, R response tokens of one micro-batch, L the
longest response. Functions of columns take [N] as well as [R]. Log-ratios are clamped to +-20 before `exp`, in float32.
Every function raises ValueError, naming the argument, when ranks or lengths of its arguments do not fit
(`check_shapes`).

This file is long because the docstring of each of its small functions states shapes, units and errors.
"""

from __future__ import annotations

import functools
from typing import NoReturn

import torch
from torch import Tensor

MAX_LOG_RATIO = 20.0


def check_shapes(**tensors: Tensor | None) -> None:
    """Asserts ranks and equal lengths of tensors that are named by their shapes.

    The letters after the last underscore of a name are the tensor's dimensions, and one letter has one length in the
    whole call. Example: `check_shapes(reward_B=reward_B, values_NK=values_NK, mask_N=mask_N)`.

    Args:
        tensors: tensors by name; None is skipped.

    Raises:
        ValueError: a tensor has another rank than its name says, or a length differs from that of an earlier tensor
            with the same letter; the sentence names the argument and both shapes.
    """
    lengths: dict[str, int] = {}
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        letters, shape = _letters(name), tensor.shape
        if len(shape) != len(letters):
            raise ValueError(f"{name} has shape {list(shape)}, and its name asks for [{', '.join(letters)}]")
        if len(letters) == 1:  # most calls; without `zip` a call takes half the time
            if lengths.setdefault(letters, shape[0]) != shape[0]:
                _refuse(name, letters, tensors)
            continue
        for letter, length in zip(letters, shape, strict=True):
            if lengths.setdefault(letter, length) != length:
                _refuse(name, letter, tensors)


@functools.cache
def _letters(name: str) -> str:
    """The dimensions that a name ends with. Example: values_NK -> NK."""
    return name.rpartition("_")[2]


def _refuse(name: str, letter: str, tensors: dict[str, Tensor | None]) -> NoReturn:
    """Raises ValueError for a tensor whose length of `letter` is not that of the first tensor with this letter."""
    first = next(n for n, t in tensors.items() if t is not None and letter in _letters(n))
    shapes = {n: list(t.shape) for n, t in tensors.items() if t is not None}
    raise ValueError(f"{name} has shape {shapes[name]}, and {first} has {shapes[first]}: {letter} differs")


# --- columns of tokens ---------------------------------------------------------------------------------------------


def guard(x: Tensor, mask: Tensor) -> Tensor:
    """Replaces masked-out values by 0, before any arithmetic: NaN * 0 is NaN, in gradients too.

    Args:
        x: values, [R] or with further dimensions that the mask broadcasts to.
        mask: bool; False where a value must not matter.

    Returns:
        x where the mask is True, 0 elsewhere; the gradient of a masked-out value is 0.

    Raises:
        ValueError: x and mask have different first lengths.
    """
    if x.shape[:1] != mask.shape[:1]:
        raise ValueError(f"x has shape {list(x.shape)}, and mask has {list(mask.shape)}: the first length differs")
    return _zeroed(x, mask)


def _zeroed(x: Tensor, mask: Tensor) -> Tensor:
    """`guard` without its check, for functions that have checked their arguments."""
    return torch.where(mask, x, torch.zeros_like(x))


def log_ratio(logp: Tensor, other: Tensor, mask: Tensor) -> Tensor:
    """Log-ratio of two policies at each token, logp - other.

    Args:
        logp: log-probs of the sampled tokens under the policy in the numerator, [R].
        other: log-probs under the policy in the denominator, [R].
        mask: bool [R].

    Returns:
        [R] clamped to +-20; 0 where the mask is False.

    Raises:
        ValueError: the shapes differ.
    """
    check_shapes(logp_R=logp, other_R=other, mask_R=mask)
    difference = _zeroed(logp, mask) - _zeroed(other, mask)
    return difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def ratio(logp: Tensor, other: Tensor, mask: Tensor) -> Tensor:
    """Probability ratio of two policies at each token, exp(logp - other).

    Args:
        logp: log-probs under the policy in the numerator, [R].
        other: log-probs under the policy in the denominator, [R].
        mask: bool [R].

    Returns:
        [R] within exp(+-20); 1, without gradient, where the mask is False.

    Raises:
        ValueError: the shapes differ.
    """
    return log_ratio(logp, other, mask).exp()


def interpolated(behaviour: Tensor, new: Tensor, towards_new: Tensor, mask: Tensor) -> Tensor:
    """Log-probs of a policy between two others, behaviour + towards_new (new - behaviour) (A-3PO, arXiv:2512.06547).

    Args:
        behaviour: log-probs under the policy at share 0, [R].
        new: log-probs under the policy at share 1, [R].
        towards_new: the share of each token, [R].
        mask: bool [R].

    Returns:
        log-probs [R]; 0 where the mask is False and the share is finite.

    Raises:
        ValueError: the shapes differ.
    """
    check_shapes(behaviour_R=behaviour, new_R=new, towards_new_R=towards_new, mask_R=mask)
    behaviour, new = _zeroed(behaviour, mask), _zeroed(new, mask)
    return behaviour + towards_new * (new - behaviour)


def stat(values: Tensor, mask: Tensor) -> Tensor:
    """Sum and count of a value over the masked-in tokens, as every stat of an update is kept (`stats.py`).

    Args:
        values: a number for each token, [R]; may carry gradient.
        mask: bool [R].

    Returns:
        float32 [2], (sum, count), without gradient.

    Raises:
        ValueError: the shapes differ.
    """
    check_shapes(values_R=values, mask_R=mask)
    return torch.stack([_zeroed(values.detach().float(), mask).sum(), mask.sum().float()])


# --- surrogates ----------------------------------------------------------------------------------------------------


def clipped_surrogate(rho: Tensor, adv: Tensor, low: float, high: float) -> Tensor:
    """PPO's clipped surrogate as a loss (arXiv:1707.06347, eq. 7).

        -min(rho A, clip(rho, 1 - low, 1 + high) A)

    Args:
        rho: probability ratio to the policy of the trust region, [R].
        adv: advantage, [R].
        low: width of the trust region below 1.
        high: width above 1.

    Returns:
        the loss of each token, [R].

    Raises:
        ValueError: the shapes differ.
    """
    check_shapes(rho_R=rho, adv_R=adv)
    return -torch.minimum(rho * adv, rho.clamp(1 - low, 1 + high) * adv)


def dual_clipped(loss: Tensor, adv: Tensor, most: float) -> Tensor:
    """Dual clip (arXiv:1912.09729, eq. 5): where A < 0, a loss is at most -most A.

    Example: ratio 5, advantage -1, most 3 -> 3.

    Args:
        loss: a surrogate's loss of each token, [R].
        adv: advantage, [R].
        most: the largest ratio that counts, above 1.

    Returns:
        the bounded loss of each token, [R].

    Raises:
        ValueError: the shapes differ.
    """
    check_shapes(loss_R=loss, adv_R=adv)
    return torch.where(adv < 0, torch.minimum(loss, -most * adv), loss)


def truncated_weight(new: Tensor, behaviour: Tensor, cap: float, mask: Tensor) -> Tensor:
    """Truncated importance weight min(exp(new - behaviour), cap) (arXiv:2505.24298).

    Example: ratios (.3, 3), cap 2 -> (.3, 2).

    Args:
        new: log-probs under the policy that is corrected to, [R].
        behaviour: log-probs under the policy that sampled, [R].
        cap: the largest weight.
        mask: bool [R].

    Returns:
        [R] without gradient; min(1, cap) where the mask is False.

    Raises:
        ValueError: the shapes differ.
    """
    return ratio(new.detach(), behaviour, mask).clamp(max=cap)


def k2(logp: Tensor, reference: Tensor) -> Tensor:
    """KL estimator 0.5 (logp - reference)^2 of each token: biased, with a small variance, never negative.

    Args:
        logp: log-probs under the policy that sampled, [R].
        reference: log-probs under the other policy, [R].

    Returns:
        [R].

    Raises:
        ValueError: the shapes differ.
    """
    check_shapes(logp_R=logp, reference_R=reference)
    return 0.5 * (logp - reference) ** 2


def k3(logp: Tensor, reference: Tensor) -> Tensor:
    """KL estimator e^d - d - 1 with d = reference - logp: unbiased and never negative (arXiv:2402.03300, eq. 4).

    Args:
        logp: log-probs under the policy that sampled, [R].
        reference: log-probs under the other policy, [R].

    Returns:
        [R], with d clamped to +-20.

    Raises:
        ValueError: the shapes differ.
    """
    check_shapes(logp_R=logp, reference_R=reference)
    d = (reference - logp).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return d.exp() - d - 1


def clip_stats(rho: Tensor, adv: Tensor, mask: Tensor, low: float, high: float) -> dict[str, Tensor]:
    """Share of tokens at which a clip removes the gradient, by sign of the advantage.

    Args:
        rho: probability ratio, [R], without gradient.
        adv: advantage, [R].
        mask: bool [R].
        low: width of the trust region below 1.
        high: width above 1.

    Returns:
        stats `clip_positive` (of the tokens with A > 0) and `clip_negative` (of those with A < 0).

    Raises:
        ValueError: the shapes differ.
    """
    check_shapes(rho_R=rho, adv_R=adv, mask_R=mask)
    up, down = mask & (adv > 0), mask & (adv < 0)
    return {"clip_positive": stat((rho > 1 + high).float(), up), "clip_negative": stat((rho < 1 - low).float(), down)}


# --- rewards of a batch --------------------------------------------------------------------------------------------


def group_advantages(reward_B: Tensor, group_B: Tensor, divide_by_std: bool, eps: float = 1e-6) -> Tensor:
    """Advantage of each rollout relative to the rollouts of its group (GRPO, arXiv:2402.03300, section 4.1.2).

        A_i = (R_i - mean_g R) / (std_g R + eps)        std with Bessel's correction

    Example: rewards (1, 0, 0, 1) -> (.866, -.866, -.866, .866), or (.5, -.5, -.5, .5) without the division.

    Args:
        reward_B: reward of each rollout.
        group_B: int64, the group of each rollout, 0 or above.
        divide_by_std: whether to divide; Dr. GRPO (arXiv:2503.20783) does not.
        eps: added to the standard deviation.

    Returns:
        [B]; 0 for a rollout alone in its group and for groups of equal rewards.

    Raises:
        ValueError: the shapes differ.
    """
    count_G, mean_G, spread_G = group_moments(reward_B, group_B)
    adv_B = reward_B - mean_G[group_B]
    if divide_by_std:
        std_G = (spread_G / (count_G - 1).clamp(min=1)).sqrt()
        adv_B = adv_B / (std_G + eps)[group_B]
    return adv_B


def group_moments(reward_B: Tensor, group_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and sum of squared deviations of each group's rewards.

    Args:
        reward_B: reward of each rollout.
        group_B: int64, the group of each rollout, 0 or above.

    Returns:
        three tensors [G], G the largest group number plus one; 0 for numbers that no rollout has.

    Raises:
        ValueError: the shapes differ.
    """
    check_shapes(reward_B=reward_B, group_B=group_B)
    num = int(group_B.max()) + 1
    zeros_G = torch.zeros(num, dtype=reward_B.dtype)
    count_G = zeros_G.index_add(0, group_B, torch.ones_like(reward_B))
    mean_G = zeros_G.index_add(0, group_B, reward_B) / count_G.clamp(min=1)
    spread_G = zeros_G.index_add(0, group_B, (reward_B - mean_G[group_B]) ** 2)
    return count_G, mean_G, spread_G


def has_signal(reward_B: Tensor, group_B: Tensor, eps: float = 1e-8) -> Tensor:
    """Whether the rewards of each rollout's group differ.

    Args:
        reward_B: reward of each rollout.
        group_B: int64, the group of each rollout, 0 or above.
        eps: sum of squared deviations above which rewards differ.

    Returns:
        bool [B].

    Raises:
        ValueError: the shapes differ.
    """
    _, _, spread_G = group_moments(reward_B, group_B)
    return (spread_G > eps)[group_B]


def whiten(adv_N: Tensor, mask_N: Tensor, eps: float = 1e-8) -> Tensor:
    """Advantages with mean 0 and standard deviation 1 over the masked-in tokens.

    Args:
        adv_N: advantage of each token.
        mask_N: bool.
        eps: added to the standard deviation.

    Returns:
        [N]; 0 where the mask is False, unchanged when the mask has fewer than two tokens.

    Raises:
        ValueError: the shapes differ.
    """
    check_shapes(adv_N=adv_N, mask_N=mask_N)
    used = adv_N[mask_N]
    if len(used) < 2:
        return _zeroed(adv_N, mask_N)
    return torch.where(mask_N, (adv_N - used.mean()) / (used.std(correction=0) + eps), torch.zeros_like(adv_N))


def explained_variance(returns_N: Tensor, values_N: Tensor) -> float:
    """Share of the returns' variance that the critic's values explain, 1 - Var(G - V) / Var(G).

    Args:
        returns_N: targets of the critic.
        values_N: values of the critic.

    Returns:
        at most 1; negative for values that are worse than a constant; 0 where the returns do not vary.

    Raises:
        ValueError: the shapes differ.
    """
    check_shapes(returns_N=returns_N, values_N=values_N)
    spread, left = (float(x.var(correction=0)) for x in (returns_N, returns_N - values_N))
    return 1.0 - left / spread if spread > 0 else 0.0


# --- returns -------------------------------------------------------------------------------------------------------


def gae(reward_N: Tensor, values_N: Tensor, length_B: Tensor, gamma: float, lam: float) -> Tensor:
    """Generalised advantage estimates (arXiv:1506.02438, eq. 16); the value after a rollout's last token is 0.

        delta_t = r_t + gamma V_{t+1} - V_t
        A_t     = delta_t + gamma lam A_{t+1}

    Example: r (0, 0, 1), V (.2, .4, .6), gamma 1, lam .95 -> (.751, .58, .4).

    Args:
        reward_N: reward at each token.
        values_N: value of the state before each token.
        length_B: int64, response tokens of each rollout; they sum to N.
        gamma: discount of a token.
        lam: decay of the estimate.

    Returns:
        advantages [N].

    Raises:
        ValueError: the shapes differ, or the lengths do not sum to N.
    """
    check_shapes(reward_N=reward_N, values_N=values_N, length_B=length_B)
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
    reward_N: Tensor, values_N: Tensor, rho_N: Tensor, length_B: Tensor, *, gamma: float, lam: float, cap: float
) -> tuple[Tensor, Tensor]:
    """V-trace (arXiv:1802.01561, eq. 1 and section 4.2): advantages and value targets for the policy that rho leads to.

        rho'_t  = min(rho_t, cap)        c_t = lam min(rho_t, 1)
        delta_t = rho'_t (r_t + gamma V_{t+1} - V_t)
        vs_t    = V_t + delta_t + gamma c_t (vs_{t+1} - V_{t+1})
        A_t     = rho'_t (r_t + gamma vs_{t+1} - V_t)

    Example: r (0, 0, 1), V (.2, .4, .6), rho (.5, 2, 1.2), cap 1 -> A (.4, .6, .4), vs (.6, 1, 1).

    Args:
        reward_N: reward at each token.
        values_N: value of the state before each token.
        rho_N: probability ratio of the policy that is corrected to over the one that sampled.
        length_B: int64, response tokens of each rollout; they sum to N.
        gamma: discount of a token.
        lam: decay of the targets.
        cap: the largest ratio in delta and A.

    Returns:
        advantages [N] and value targets [N].

    Raises:
        ValueError: the shapes differ, or the lengths do not sum to N.
    """
    check_shapes(reward_N=reward_N, values_N=values_N, rho_N=rho_N, length_B=length_B)
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


def to_columns(x_N: Tensor, length_B: Tensor) -> Tensor:
    """Lays rollouts that stand end to end side by side.

    Args:
        x_N: a value for each token.
        length_B: int64, response tokens of each rollout; they sum to N.

    Returns:
        [L, B], 0 after a rollout's end.

    Raises:
        ValueError: the lengths do not sum to N.
    """
    check_shapes(x_N=x_N, length_B=length_B)
    if int(length_B.sum()) != len(x_N):
        raise ValueError(f"x_N has shape {list(x_N.shape)}, and the lengths of length_B sum to {int(length_B.sum())}")
    inside_BL = _inside(length_B)
    dense_BL = torch.zeros(inside_BL.shape, dtype=x_N.dtype)
    dense_BL[inside_BL] = x_N
    return dense_BL.T.contiguous()


def from_columns(x_LB: Tensor, length_B: Tensor) -> Tensor:
    """Puts rollouts that stand side by side end to end again; the inverse of `to_columns`.

    Args:
        x_LB: a value for each token and place after a rollout's end.
        length_B: int64, response tokens of each rollout.

    Returns:
        [N].

    Raises:
        ValueError: the numbers of rollouts differ.
    """
    check_shapes(x_LB=x_LB, length_B=length_B)
    return x_LB.T[_inside(length_B)]


def _inside(length_B: Tensor) -> Tensor:
    """Whether a place belongs to a token of the rollout, bool [B, L]."""
    return torch.arange(int(length_B.max()))[None, :] < length_B[:, None]


# --- whole rollouts ------------------------------------------------------------------------------------------------


def last_tokens(length_B: Tensor) -> Tensor:
    """Index into N of each rollout's last token.

    Args:
        length_B: int64, response tokens of each rollout.

    Returns:
        int64 [B].
    """
    return length_B.cumsum(0) - 1


def shares(length_B: Tensor, aggregation: str, horizon_tokens: int = 0) -> Tensor:
    """Each token's share of an update of B rollouts, so that the losses of all its tokens sum to the update's loss.

        token_mean  1 / N        seq_mean  1 / (B length)        seq_sum  1 / B        horizon  1 / (B horizon_tokens)

    Args:
        length_B: int64, response tokens of each rollout of the update; they sum to N.
        aggregation: one of the four names.
        horizon_tokens: the constant of "horizon", in tokens.

    Returns:
        float32 [N].

    Raises:
        KeyError: another name.
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
    """Sum over the masked-in tokens of each token's rollout.

    Example: x (1, 2, 4) of rollouts (0, 0, 1) -> (3, 3, 4).

    Args:
        x: a value for each token, [R].
        rollout: int64 [R], the rollout of each token, 0 or above.
        mask: bool [R].

    Returns:
        [R], the same for all tokens of a rollout.

    Raises:
        ValueError: the shapes differ.
    """
    check_shapes(x_R=x, rollout_R=rollout, mask_R=mask)
    num = int(rollout.max()) + 1 if len(rollout) else 0
    return torch.zeros(num, dtype=x.dtype, device=x.device).index_add(0, rollout, _zeroed(x, mask))[rollout]


def rollout_means(x: Tensor, rollout: Tensor, mask: Tensor) -> Tensor:
    """Mean over the masked-in tokens of each token's rollout.

    Args:
        x: a value for each token, [R].
        rollout: int64 [R], the rollout of each token, 0 or above.
        mask: bool [R].

    Returns:
        [R], the same for all tokens of a rollout; 0 for a rollout without a masked-in token.

    Raises:
        ValueError: the shapes differ.
    """
    count = rollout_sums(torch.ones_like(x), rollout, mask)
    return rollout_sums(x, rollout, mask) / count.clamp(min=1)


def rollout_ratio(new: Tensor, behaviour: Tensor, rollout: Tensor, mask: Tensor) -> Tensor:
    """Probability ratio of each token's whole rollout under two policies, prod_t exp(new_t - behaviour_t).

    Args:
        new: log-probs under the policy in the numerator, [R].
        behaviour: log-probs under the policy in the denominator, [R].
        rollout: int64 [R], the rollout of each token, 0 or above.
        mask: bool [R].

    Returns:
        [R], exp of a sum that is clamped to +-20; the same for all tokens of a rollout.

    Raises:
        ValueError: the shapes differ.
    """
    total = rollout_sums(guard(new, mask) - guard(behaviour, mask), rollout, mask)
    return total.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
