"""The optimizer updates of one step: epochs x minibatches x micro-batches over one batch of rollouts.

    rollouts -> (old, reference, values: one pass without gradient) -> advantages -> keep
    each epoch: groups shuffled, cut into minibatches; each minibatch: packed micro-batches, losses add up, one update

Shapes: S sequences of the batch, N response tokens, R response tokens of a micro-batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlsp_async.algos import maths
from rlsp_async.algos.base import Advantages, Algorithm, AlgorithmConfig, Rollouts, Stats, Terms, Tokens
from rlsp_async.algos.corrections import CorrectionsConfig, correct, measure_limit, step_factor, token_view
from rlsp_async.algos.stats import effective_fraction, merge_stats, summarise
from rlsp_async.errors import ConfigError, DivergedError
from rlsp_async.learning import pack
from rlsp_async.learning.optim import Updater
from rlsp_async.learning.policy import Outputs, Policy


@dataclass(frozen=True)
class Plan:
    """How a step is cut into updates."""

    epochs: int
    minibatches: int
    capacity_tokens: int
    temperature: float
    """Of the whole batch; sequences that were drawn at several bring their own."""
    seed: tuple[int, int]
    """(run's seed, step): the same groups meet in the same order after a restart."""
    critic_only: bool = False
    where: str = ""
    """For errors: stage and step."""


@dataclass(frozen=True)
class Learning:
    """The parts that change together in a step."""

    algorithm: Algorithm
    cfg: AlgorithmConfig
    policy: Policy
    updater: Updater
    reference: Policy | None = None


def run(
    parts: Learning, sequences: pack.Sequences, reward_S: Tensor, plan: Plan, terms: Terms | None = None
) -> dict[str, float]:
    """Trains one batch; returns its metrics. Raises DivergedError when loss or gradient is not finite."""
    parts.policy.center_values(*parts.cfg.first_values(reward_S, terms))
    rollouts = replace(_columns(parts, sequences, reward_S, plan), terms=terms)
    adv = parts.algorithm.advantages(parts.cfg, rollouts)
    metrics = {**adv.stats, **_batch_metrics(rollouts, adv)}
    kept = np.flatnonzero(adv.keep_B.numpy())
    rollouts = _with_old(parts, sequences, rollouts, kept, plan)
    stages = Stages(parts.cfg.corrections, _measured(parts.cfg.corrections, sequences, rollouts, adv, kept))
    totals: Stats = {}
    figures: dict[str, float] = {"loss": 0.0}
    num_updates = num_tokens = 0
    for epoch in range(plan.epochs):
        for members in minibatches(kept, sequences.group_S, plan.minibatches, (*plan.seed, epoch)):
            loss, stats, tokens = _accumulate(parts, sequences, members, rollouts, adv, plan, stages)
            factor = step_factor(summarise(stats).get("rollout_ess", 1.0), stages.cfg.ess_base)
            figures |= parts.updater.step(plan.where, plan.critic_only, factor) | {"loss": figures["loss"] + loss}
            totals = merge_stats(totals, stats)
            num_updates, num_tokens = num_updates + 1, num_tokens + tokens
    figures["loss"] /= max(1, num_updates)
    metrics |= {**figures, **summarise(totals), "updates": float(num_updates), "tokens": float(num_tokens)}
    metrics["kept_fraction"] = len(kept) / len(sequences.responses)
    return metrics


def minibatches(kept: pack.Longs, group_S: pack.Longs, num: int, seed: tuple[int, ...]) -> list[pack.Longs]:
    """The kept sequences in `num` parts by whole groups, shuffled by the seed; fewer parts when groups are few."""
    groups = np.unique(group_S[kept])
    if not len(groups):
        return []
    order = np.random.default_rng(seed).permutation(groups)
    parts = np.array_split(order, min(num, len(order)))
    return [kept[np.isin(group_S[kept], part)] for part in parts]


def _columns(parts: Learning, sequences: pack.Sequences, reward_S: Tensor, plan: Plan) -> Rollouts:
    """What advantages are made of, with the weights as they are before the step. `old` is made here only when the
    critic, the reference or the baseline ask for a pass anyway."""
    needs = parts.algorithm.needs(parts.cfg)
    everyone = np.arange(len(sequences.responses))
    behaviour_N = torch.from_numpy(sequences.behaviour_N.copy())
    rollouts = Rollouts(
        reward_B=reward_S,
        group_B=torch.from_numpy(sequences.group_S),
        length_B=torch.from_numpy(sequences.length_S),
        behaviour_N=behaviour_N,
        mask_N=torch.isfinite(behaviour_N),
        lag_N=_lags(sequences, plan),
        prompt_B=torch.from_numpy(pack.numbers(sequences.prompts)),
        text_B=torch.from_numpy(pack.numbers(sequences.prompts, sequences.responses)),
    )
    if needs & {"values", "reference", "energy"}:
        found = score(parts.policy, sequences, everyone, plan, "values" in needs, "mean" in needs, "energy" in needs)
        rollouts = replace(
            rollouts, old_N=found.logp_N, values_N=found.values_N, old_mean_N=found.mean_N, energy_N=found.energy_N
        )
    if "reference" in needs:
        if parts.reference is None:
            raise ConfigError(f"{plan.where}: the algorithm needs a reference policy and there is none")
        rollouts = replace(rollouts, reference_N=score(parts.reference, sequences, everyone, plan).logp_N)
    return rollouts


def _lags(sequences: pack.Sequences, plan: Plan) -> Tensor | None:
    """Versions from each token's policy to the weights before this step; None for demonstrations."""
    version_N = torch.from_numpy(sequences.versions_N.astype(np.int64))
    return plan.seed[1] - 1 - version_N if bool((version_N >= 0).any()) else None


def _with_old(parts: Learning, sequences: pack.Sequences, rollouts: Rollouts, kept: pack.Longs, plan: Plan) -> Rollouts:
    """Adds `old` for the kept sequences if it is asked for and not there. A single update begins with the very weights
    that would make it, so its own log-probs serve."""
    needs, stages = parts.algorithm.needs(parts.cfg), parts.cfg.corrections
    missing = ("old" in needs or stages.needs_old) and rollouts.old_N is None
    if not missing or not len(kept) or (plan.epochs * plan.minibatches == 1 and not stages.measures):
        return rollouts
    found = score(parts.policy, sequences, kept, plan, False, "mean" in needs)
    return replace(rollouts, old_N=found.logp_N, old_mean_N=found.mean_N)


@dataclass(frozen=True)
class Stages:
    """The correction stages of a step."""

    cfg: CorrectionsConfig
    mask_limit: float


def _measured(
    cfg: CorrectionsConfig, sequences: pack.Sequences, rollouts: Rollouts, adv: Advantages, kept: pack.Longs
) -> float:
    """The mask's limit, measured on the kept sequences where the stage asks for that."""
    if not cfg.measures or rollouts.old_N is None:
        return measure_limit(cfg, None)
    number_N = torch.from_numpy(np.repeat(np.arange(len(sequences.responses)), sequences.length_S))
    mask_N = rollouts.mask_N & torch.isin(number_N, torch.from_numpy(kept))
    return measure_limit(cfg, token_view(rollouts.old_N, rollouts.behaviour_N, adv.adv_N, mask_N, number_N))


class Scores(NamedTuple):
    """Columns [N] of a pass without gradient, values [N, K] with K heads; 0 for sequences that were not asked for."""

    logp_N: Tensor
    values_N: Tensor | None
    mean_N: Tensor | None
    energy_N: Tensor | None


@torch.no_grad()
def score(
    policy: Policy,
    sequences: pack.Sequences,
    members: pack.Longs,
    plan: Plan,
    with_values: bool = False,
    with_mean: bool = False,
    with_energy: bool = False,
) -> Scores:
    """Log-probs of the members' response tokens; if asked for values, mean log-probs over the vocabulary, energies."""
    num, heads = len(sequences.behaviour_N), policy.num_values
    values = torch.zeros(num if heads == 1 else (num, heads)) if with_values else None
    mean_N, energy_N = (torch.zeros(num) if asked else None for asked in (with_mean, with_energy))
    found = Scores(torch.zeros(num), values, mean_N, energy_N)
    for numbers in _micro_batches(sequences, members, plan):
        batch = pack.build(sequences, numbers)
        out = policy.outputs(batch, plan.temperature, with_values, with_mean, with_energy=with_energy)
        for column, made in zip(found, (out.logp_R, out.values_R, out.mean_R, out.energy_R), strict=True):
            if column is not None and made is not None:
                column[batch.flat_R] = made.cpu()
    return found


def _micro_batches(
    sequences: pack.Sequences, members: pack.Longs, plan: Plan, pair_B: Tensor | None = None
) -> list[list[int]]:
    together = None if pair_B is None else pair_B.numpy()[members]
    try:
        bins = pack.plan(sequences.total_S[members], plan.capacity_tokens, together)
    except ValueError as e:
        raise ConfigError(f"{plan.where}: {e}") from None
    return [[int(members[i]) for i in numbers] for numbers in bins]


def _accumulate(
    parts: Learning,
    sequences: pack.Sequences,
    members: pack.Longs,
    rollouts: Rollouts,
    adv: Advantages,
    plan: Plan,
    stages: Stages,
) -> tuple[float, Stats, int]:
    """Gradients of one update; returns its loss, stats and trained tokens (prompt and response)."""
    share_S = _shares(sequences.length_S, members, parts.cfg)
    needs = parts.algorithm.needs(parts.cfg)
    loss_sum, stats, num_tokens = 0.0, Stats(), 0
    for numbers in _micro_batches(sequences, members, plan, adv.pair_B):
        batch = pack.build(sequences, numbers)
        out = parts.policy.outputs(batch, plan.temperature, with_mean="mean" in needs, with_entropy="entropy" in needs)
        share_R = share_S[np.repeat(numbers, sequences.length_S[numbers])]
        tokens = _tokens(batch, out, share_R, rollouts, adv)
        tokens, watched = _correct(tokens, stages)
        loss, more = parts.algorithm.token_loss(parts.cfg, tokens)
        loss.backward()  # type: ignore[no-untyped-call]
        loss_sum += float(loss.detach())
        stats = merge_stats(stats, {**more, **watched, **_policy_stats(tokens, out)})
        num_tokens += batch.num_tokens
    if not math.isfinite(loss_sum):
        raise DivergedError(f"{plan.where}: the loss is {loss_sum}; lower the learning rate")
    return loss_sum, stats, num_tokens


def _shares(length_S: pack.Longs, members: pack.Longs, cfg: AlgorithmConfig) -> Any:
    """[S] the share of one token of each member in the update; 0 for others."""
    length_M = torch.from_numpy(length_S[members])
    first = length_M.cumsum(0) - length_M
    share_S = np.zeros(len(length_S), dtype=np.float32)
    share_S[members] = maths.shares(length_M, cfg.aggregation, cfg.horizon_tokens)[first].numpy()
    return share_S


def _tokens(batch: pack.PackedBatch, out: Outputs, share_R: Any, rollouts: Rollouts, adv: Advantages) -> Tokens:
    device = out.logp_R.device
    at = torch.from_numpy(batch.flat_R)

    def pick(x_N: Tensor | None) -> Tensor | None:
        return None if x_N is None else x_N[at].to(device)

    old, old_mean = pick(rollouts.old_N), pick(rollouts.old_mean_N)
    return Tokens(
        logp=out.logp_R,
        behaviour=rollouts.behaviour_N[at].to(device),
        adv=adv.adv_N[at].to(device),
        mask=rollouts.mask_N[at].to(device),
        share=torch.from_numpy(share_R).to(device),
        old=out.logp_R.detach() if old is None else old,
        returns=pick(adv.returns_N),
        values=out.values_R,
        old_values=pick(rollouts.values_N),
        rollout=torch.from_numpy(batch.sequence_R).to(device),
        mean=out.mean_R,
        old_mean=out.mean_R if old_mean is None else old_mean,
        reference=pick(rollouts.reference_N),
        lag=pick(rollouts.lag_N),
        entropy=out.entropy_R,
        pair=pick(None if adv.pair_B is None else adv.pair_B.repeat_interleave(rollouts.length_B)),
    )


def _correct(tokens: Tokens, stages: Stages) -> tuple[Tokens, Stats]:
    """The tokens with their shares as the correction stages leave them. Nobody sampled a demonstration: as they are."""
    if tokens.lag is None:
        return tokens, {}
    assert tokens.rollout is not None
    assert tokens.old is not None
    new = tokens.old if stages.cfg.policy == "old" else tokens.logp
    view = token_view(new, tokens.behaviour, tokens.adv, tokens.mask, tokens.rollout, tokens.lag)
    factor, stats = correct(stages.cfg, view, stages.mask_limit)
    return replace(tokens, share=tokens.share * factor, value_share=tokens.share), stats


def _policy_stats(tokens: Tokens, out: Outputs) -> Stats:
    """What every algorithm is watched by."""
    mask, logp = tokens.mask, tokens.logp.detach()
    weight = maths.ratio(logp, tokens.behaviour, mask)
    k3 = maths.k3(maths.guard(tokens.behaviour, mask), maths.guard(logp, mask))
    return {
        "entropy": maths.stat(out.entropy_R, mask),
        "kl_behaviour": maths.stat(k3, mask),
        **effective_fraction("ess_fraction", weight, mask),
    }


def _batch_metrics(rollouts: Rollouts, adv: Advantages) -> dict[str, float]:
    used_N = adv.adv_N[rollouts.mask_N]
    metrics = {
        "adv_mean": float(used_N.mean()),
        "adv_std": float(used_N.std(correction=0)),
        "adv_max": float(used_N.abs().max()),
        "response_tokens": float(rollouts.length_B.float().mean()),
        "masked_fraction": 1.0 - float(rollouts.mask_N.float().mean()),
    }
    if rollouts.reference_N is not None and rollouts.old_N is not None:
        # k2: one token that the reference likes and the policy hates would fill k3 alone.
        metrics["kl_reference"] = float(maths.k2(rollouts.old_N, rollouts.reference_N).mean())
    if adv.returns_N is not None and rollouts.values_N is not None and adv.returns_N.ndim == 1:
        metrics["explained_variance"] = maths.explained_variance(adv.returns_N, rollouts.values_N)
    return metrics
