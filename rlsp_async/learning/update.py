"""The optimizer updates of one step: epochs x minibatches x micro-batches over one batch of rollouts.

    rollouts -> (old, reference, values: one pass without gradient) -> advantages -> keep
    each epoch: groups shuffled, cut into minibatches; each minibatch: packed micro-batches, losses add up, one update

Shapes: B rollouts of the batch, N response tokens, R response tokens of a micro-batch, K value heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from torch import Tensor

from rlsp_async.algos import maths
from rlsp_async.algos.base import Advantages, Algorithm, AlgorithmConfig, Rollouts, Stats, Terms, Tokens
from rlsp_async.algos.corrections import CorrectionsConfig, correct, measure_limit, step_factor, token_view
from rlsp_async.algos.stats import effective_fraction, merge_stats, summarise
from rlsp_async.columns import Floats
from rlsp_async.cuda import to_device
from rlsp_async.errors import ConfigError, DivergedError
from rlsp_async.learning import pack
from rlsp_async.learning.optim import Updater
from rlsp_async.learning.policy import ForwardOutputs, ForwardRequest, Policy
from rlsp_async.learning.ranks import Ranks


@dataclass(frozen=True)
class UpdateContext:
    """What an update works with: the loss, the model and its optimizers, in one stage."""

    algorithm: Algorithm
    cfg: AlgorithmConfig
    policy: Policy
    updater: Updater
    reference: Policy | None = None


@dataclass(frozen=True)
class UpdateSchedule:
    """How a step is cut into updates."""

    epochs: int
    minibatches: int
    capacity_tokens: int
    """Largest size of a micro-batch, prompts included."""
    temperature: float
    """Temperature of the whole batch; rollouts that were drawn at several temperatures bring their own."""
    seed: tuple[int, int]
    """(seed of the run, step), so that the same groups share a minibatch after a restart."""
    critic_only: bool = False
    where: str = ""
    """Stage and step, for errors."""


@dataclass(frozen=True)
class CorrectionStages:
    """The correction stages of a step."""

    cfg: CorrectionsConfig
    mask_limit: float
    """Upper bound of the mask, measured on the batch where the mask asks for that."""


@dataclass(frozen=True)
class PreparedBatch:
    """A batch with everything that is made once for a step, before its first update."""

    sequences: pack.Sequences
    rollouts: Rollouts
    adv: Advantages
    stages: CorrectionStages


def train_batch(
    context: UpdateContext,
    sequences: pack.Sequences,
    reward_B: Tensor,
    schedule: UpdateSchedule,
    terms: Terms | None = None,
) -> dict[str, float]:
    """Trains one batch.

    Args:
        context: what the updates work with; policy and optimizers change.
        sequences: the rollouts' tokens.
        reward_B: their rewards.
        schedule: how the step is cut into updates.
        terms: what the rewards are made of, if they are kept apart.

    Returns:
        the metrics of the step.

    Raises:
        DivergedError: the loss or a gradient is not finite.
        ConfigError: the algorithm needs a reference that is not there.
        ValueError: the algorithm's advantages do not have the batch's shapes.
    """
    context.policy.center_values(*context.cfg.first_values(reward_B, terms))
    rollouts = replace(collect_columns(context, sequences, reward_B, schedule), terms=terms)
    adv = context.algorithm.advantages(context.cfg, rollouts)
    adv.check(rollouts)
    metrics = {**adv.stats, **_batch_metrics(rollouts, adv)}
    kept = np.flatnonzero(adv.keep_B.numpy())
    rollouts = _add_old(context, sequences, rollouts, kept, schedule)
    limit = _measure_limit(context.cfg.corrections, sequences, rollouts, adv, kept)
    batch = PreparedBatch(sequences, rollouts, adv, CorrectionStages(context.cfg.corrections, limit))
    totals: Stats = {}
    figures: dict[str, float] = {"loss": 0.0}
    num_updates = num_tokens = 0
    for epoch in range(schedule.epochs):
        for members in minibatches(kept, sequences.group_B, schedule.minibatches, (*schedule.seed, epoch)):
            loss, stats, tokens = accumulate_gradients(context, batch, members, schedule)
            factor = step_factor(summarise(stats).get("rollout_ess", 1.0), batch.stages.cfg.ess_base)
            figures |= context.updater.step(schedule.where, schedule.critic_only, factor) | {
                "loss": figures["loss"] + loss
            }
            totals = merge_stats(totals, stats)
            num_updates, num_tokens = num_updates + 1, num_tokens + tokens
    figures["loss"] /= max(1, num_updates)
    metrics |= {**figures, **summarise(totals), "updates": float(num_updates), "tokens": float(num_tokens)}
    metrics["kept_fraction"] = len(kept) / len(sequences.responses)
    return metrics


def minibatches(kept: pack.Longs, group_B: pack.Longs, num: int, seed: tuple[int, ...]) -> list[pack.Longs]:
    """Cuts the kept rollouts into minibatches of whole groups, shuffled by the seed.

    Args:
        kept: numbers of the rollouts to train on.
        group_B: the group of each rollout of the batch.
        num: number of minibatches.
        seed: seed of the shuffling.

    Returns:
        numbers of the rollouts of each minibatch; fewer minibatches than `num` when there are fewer groups.
    """
    groups = np.unique(group_B[kept])
    if not len(groups):
        return []
    order = np.random.default_rng(seed).permutation(groups)
    parts = np.array_split(order, min(num, len(order)))
    return [kept[np.isin(group_B[kept], part)] for part in parts]


def collect_columns(
    context: UpdateContext, sequences: pack.Sequences, reward_B: Tensor, schedule: UpdateSchedule
) -> Rollouts:
    """The columns that advantages are made of, with the weights as they are before the step.

    `old_N` is made here only when the critic, the reference or the baseline needs a pass anyway.

    Args:
        context: what the updates work with.
        sequences: the rollouts' tokens.
        reward_B: their rewards.
        schedule: for the size of micro-batches, temperature and step.

    Returns:
        the columns, on the CPU.

    Raises:
        ConfigError: the algorithm needs a reference and there is none.
    """
    needs = context.algorithm.needs(context.cfg)
    everyone = np.arange(len(sequences.responses))
    behaviour_N = torch.from_numpy(sequences.behaviour_N.copy())
    rollouts = Rollouts(
        reward_B=reward_B,
        group_B=torch.from_numpy(sequences.group_B),
        length_B=torch.from_numpy(sequences.length_B),
        behaviour_N=behaviour_N,
        mask_N=torch.isfinite(behaviour_N),
        lag_N=_lags(sequences, schedule),
        prompt_B=torch.from_numpy(pack.number_equal(sequences.prompts)),
        text_B=torch.from_numpy(pack.number_equal(sequences.prompts, sequences.targets)),
    )
    if needs & {"values", "reference", "energy"}:
        request = ForwardRequest(values="values" in needs, mean="mean" in needs, energy="energy" in needs)
        scores = score(context.policy, sequences, everyone, schedule, request)
        rollouts = replace(
            rollouts,
            old_N=scores.logp_N,
            values_N=scores.values_N,
            old_mean_N=scores.mean_N,
            energy_N=scores.energy_N,
        )
    if "reference" in needs:
        if context.reference is None:
            raise ConfigError(f"{schedule.where}: the algorithm needs a reference policy and there is none")
        rollouts = replace(rollouts, reference_N=score(context.reference, sequences, everyone, schedule).logp_N)
    return rollouts


def _lags(sequences: pack.Sequences, schedule: UpdateSchedule) -> Tensor | None:
    """Versions from each token's policy to the weights before this step; None for demonstrations."""
    version_N = torch.from_numpy(sequences.versions_N.astype(np.int64))
    return schedule.seed[1] - 1 - version_N if bool((version_N >= 0).any()) else None


def _add_old(
    context: UpdateContext, sequences: pack.Sequences, rollouts: Rollouts, kept: pack.Longs, schedule: UpdateSchedule
) -> Rollouts:
    """Adds `old_N` of the kept rollouts if it is needed and not there.

    A single update begins with the very weights that `old_N` would be made with, so that its own log-probs serve.
    """
    needs, stages = context.algorithm.needs(context.cfg), context.cfg.corrections
    missing = ("old" in needs or stages.needs_old) and rollouts.old_N is None
    if not missing or not len(kept) or (schedule.epochs * schedule.minibatches == 1 and not stages.measures):
        return rollouts
    scores = score(context.policy, sequences, kept, schedule, ForwardRequest(values=False, mean="mean" in needs))
    return replace(rollouts, old_N=scores.logp_N, old_mean_N=scores.mean_N)


def _measure_limit(
    cfg: CorrectionsConfig, sequences: pack.Sequences, rollouts: Rollouts, adv: Advantages, kept: pack.Longs
) -> float:
    """The mask's limit, measured on the kept rollouts where the mask asks for that."""
    if not cfg.measures or rollouts.old_N is None:
        return measure_limit(cfg, None)
    number_N = torch.from_numpy(np.repeat(np.arange(len(sequences.responses)), sequences.length_B))
    mask_N = rollouts.mask_N & torch.isin(number_N, torch.from_numpy(kept))
    return measure_limit(cfg, token_view(rollouts.old_N, rollouts.behaviour_N, adv.adv_N, mask_N, number_N))


class Scores(NamedTuple):
    """Columns [N] of a pass without gradient; 0 for rollouts that were not scored, None for what was not requested."""

    logp_N: Tensor
    values_N: Tensor | None
    """[N, K] with K value heads."""
    mean_N: Tensor | None
    energy_N: Tensor | None


@torch.no_grad()
def score(
    policy: Policy,
    sequences: pack.Sequences,
    members: pack.Longs,
    schedule: UpdateSchedule,
    request: ForwardRequest = ForwardRequest(values=False),  # noqa: B008
) -> Scores:
    """Log-probs of the members' response tokens, and what else is requested, without gradient.

    Args:
        policy: the model.
        sequences: the rollouts' tokens.
        members: numbers of the rollouts to score.
        schedule: for the size of micro-batches and the temperature.
        request: what to compute beside the log-probs.

    Returns:
        columns [N], on the CPU.
    """
    num, heads = len(sequences.behaviour_N), policy.num_values
    values = torch.zeros(num if heads == 1 else (num, heads)) if request.values else None
    mean_N, energy_N = (torch.zeros(num) if wanted else None for wanted in (request.mean, request.energy))
    scores = Scores(torch.zeros(num), values, mean_N, energy_N)
    request = request._replace(has_entropy=False)
    for numbers, counts in _micro_batches(policy.ranks, sequences, members, schedule):
        packed = pack.pack_sequences(sequences, numbers)
        out = policy.outputs(packed, schedule.temperature, request)
        for column, part in zip(scores, (out.logp_R, out.values_R, out.mean_R, out.energy_R), strict=True):
            if counts and column is not None and part is not None:
                column[packed.flat_R] = part.cpu()
    policy.release()
    for column in scores:
        if column is not None:
            policy.ranks.sum(column)  # each element is one rank's: the sum is exact
    return scores


def _micro_batches(
    ranks: Ranks, sequences: pack.Sequences, members: pack.Longs, schedule: UpdateSchedule, pair_B: Tensor | None = None
) -> list[tuple[list[int], bool]]:
    """Numbers of the rollouts of each micro-batch of this rank, and whether it counts.

    All ranks plan the same micro-batches and take every N-th. Each computes as many of them as the others, because a
    pass gathers parameters from all: one that has none left computes the last, which is the smallest or nearly so,
    once more, and it does not count.
    """
    together = None if pair_B is None else pair_B.numpy()[members]
    bins = pack.plan_micro_batches(sequences.total_B[members], schedule.capacity_tokens, together)
    planned = [[int(members[i]) for i in numbers] for numbers in bins]
    missing = -len(planned) % ranks.size
    counted = [(numbers, True) for numbers in planned] + [(planned[-1], False)] * missing if planned else []
    return counted[ranks.rank :: ranks.size]


def accumulate_gradients(
    context: UpdateContext, batch: PreparedBatch, members: pack.Longs, schedule: UpdateSchedule
) -> tuple[float, Stats, int]:
    """Adds the gradients of one update to the policy's parameters, micro-batch by micro-batch.

    Args:
        context: what the update works with.
        batch: the whole batch.
        members: numbers of the update's rollouts.
        schedule: for the size of micro-batches and the temperature.

    Returns:
        the update's loss, its stats, and the number of trained tokens, prompts included.

    Raises:
        DivergedError: the loss is not finite.
    """
    sequences, needs = batch.sequences, context.algorithm.needs(context.cfg)
    request = ForwardRequest(mean="mean" in needs, entropy="entropy" in needs)
    share_B = _shares(sequences.length_B, members, context.cfg)
    losses, stats, num_tokens = list[Tensor](), Stats(), 0
    for numbers, counts in _micro_batches(context.policy.ranks, sequences, members, schedule, batch.adv.pair_B):
        packed = pack.pack_sequences(sequences, numbers)
        out = context.policy.outputs(packed, schedule.temperature, request)
        share_R = share_B[np.repeat(numbers, sequences.length_B[numbers])]
        tokens, correction_stats = _tokens(packed, out, share_R, batch)
        loss, more = context.algorithm.token_loss(context.cfg, tokens)
        if not counts:
            (loss * 0.0).backward()  # type: ignore[no-untyped-call]
            continue
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
        stats = merge_stats(stats, {**more, **correction_stats, **_policy_stats(tokens, out)})
        num_tokens += packed.num_tokens
    context.policy.release()
    loss_sum = sum(torch.stack(losses).tolist()) if losses else 0.0  # one wait for the device
    loss_sum, stats, num_tokens = _of_all_ranks(context.policy.ranks, loss_sum, stats, num_tokens)
    if not math.isfinite(loss_sum):
        raise DivergedError(f"{schedule.where}: the loss is {loss_sum}; lower the learning rate")
    return loss_sum, stats, num_tokens


def _of_all_ranks(ranks: Ranks, loss: float, stats: Stats, num_tokens: int) -> tuple[float, Stats, int]:
    """Loss, stats and trained tokens of an update, added up over the ranks in their order."""
    if ranks.size == 1:
        return loss, stats, num_tokens
    mine = {name: [float(value) for value in pair] for name, pair in stats.items()}
    parts = ranks.gather_bytes(msgspec.msgpack.encode([loss, mine, num_tokens]))
    told = [msgspec.msgpack.decode(part) for part in parts]
    total = Stats()
    for _, pairs, _ in told:
        total = merge_stats(total, {name: torch.tensor(pair, dtype=torch.float32) for name, pair in pairs.items()})
    return sum(part[0] for part in told), total, sum(part[2] for part in told)


def _shares(length_B: pack.Longs, members: pack.Longs, cfg: AlgorithmConfig) -> Floats:
    """[B] the share of one token of each member in the update; 0 for the other rollouts."""
    length_M = torch.from_numpy(length_B[members])
    first = length_M.cumsum(0) - length_M
    share_B = np.zeros(len(length_B), dtype=np.float32)
    share_B[members] = maths.shares(length_M, cfg.aggregation, cfg.horizon_tokens)[first].numpy()
    return share_B


def _tokens(
    packed: pack.PackedBatch, out: ForwardOutputs, share_R: Floats, batch: PreparedBatch
) -> tuple[Tokens, Stats]:
    """The columns of one micro-batch, on the policy's device, and the stats of the correction stages.

    The shares are as the stages leave them; no stage touches a demonstration, which no policy sampled.
    """
    device = out.logp_R.device
    at = torch.from_numpy(packed.flat_R)
    rollouts, adv = batch.rollouts, batch.adv

    def pick(x_N: Tensor | None) -> Tensor | None:
        return None if x_N is None else to_device(x_N[at], device)

    behaviour, mask = to_device(rollouts.behaviour_N[at], device), to_device(rollouts.mask_N[at], device)
    adv_R, lag = to_device(adv.adv_N[at], device), pick(rollouts.lag_N)
    rollout = to_device(torch.from_numpy(packed.sequence_R), device)
    old, old_mean = pick(rollouts.old_N), pick(rollouts.old_mean_N)
    old = out.logp_R.detach() if old is None else old
    share = before = to_device(torch.from_numpy(share_R), device)
    stats: Stats = {}
    if lag is not None:
        new = old if batch.stages.cfg.policy == "old" else out.logp_R
        view = token_view(new, behaviour, adv_R, mask, rollout, lag)
        factor, stats = correct(batch.stages.cfg, view, batch.stages.mask_limit)
        share = before * factor
    tokens = Tokens(
        logp=out.logp_R,
        behaviour=behaviour,
        adv=adv_R,
        mask=mask,
        share=share,
        old=old,
        returns=pick(adv.returns_N),
        values=out.values_R,
        old_values=pick(rollouts.values_N),
        rollout=rollout,
        mean=out.mean_R,
        old_mean=out.mean_R if old_mean is None else old_mean,
        reference=pick(rollouts.reference_N),
        lag=lag,
        value_share=None if lag is None else before,
        entropy=out.entropy_R,
        pair=pick(None if adv.pair_B is None else adv.pair_B.repeat_interleave(rollouts.length_B)),
    )
    return tokens, stats


def _policy_stats(tokens: Tokens, out: ForwardOutputs) -> Stats:
    """Stats of every algorithm: entropy, KL to the policy that sampled, effective fraction of the ratios."""
    mask, logp = tokens.mask, tokens.logp.detach()
    weight = maths.ratio(logp, tokens.behaviour, mask)
    k3 = maths.k3(maths.guard(tokens.behaviour, mask), maths.guard(logp, mask))
    return {
        "entropy": maths.stat(out.entropy_R, mask),
        "kl_behaviour": maths.stat(k3, mask),
        **effective_fraction("ess_fraction", weight, mask),
    }


def _batch_metrics(rollouts: Rollouts, adv: Advantages) -> dict[str, float]:
    """Metrics of the batch before its first update."""
    used_N = adv.adv_N[rollouts.mask_N] if bool(rollouts.mask_N.any()) else torch.zeros(1)
    metrics = {
        "adv_mean": float(used_N.mean()),
        "adv_std": float(used_N.std(correction=0)),
        "adv_max": float(used_N.abs().max()),
        "response_tokens": float(rollouts.length_B.float().mean()),
        "masked_fraction": 1.0 - float(rollouts.mask_N.float().mean()),
    }
    if rollouts.reference_N is not None and rollouts.old_N is not None:
        # k2: under k3 a single token that only the reference finds probable would decide the mean.
        metrics["kl_reference"] = float(maths.k2(rollouts.old_N, rollouts.reference_N).mean())
    if adv.returns_N is not None and rollouts.values_N is not None and adv.returns_N.ndim == 1:
        metrics["explained_variance"] = maths.explained_variance(adv.returns_N, rollouts.values_N)
    return metrics
