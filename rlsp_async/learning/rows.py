"""A batch of messages as arrays: here the messages end and the mathematics begins.

What an environment said is context from here on: N leaves it out (`observations.py`, `pack.Sequences.at`).

Shapes: B rollouts of all groups, in manifest order; N their response tokens end to end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rlsp_async.columns import Floats, Ids, ints
from rlsp_async.errors import MessageError
from rlsp_async.learning.pack import Bools, Sequences
from rlsp_async.messages import Batch, Rollout, Verdict, VerifiedGroup
from rlsp_async.observations import joined_logprobs, num_sampled, sampled_tokens, sampled_versions
from rlsp_async.rewards.explore import Reals, judge_score

_BOX = "\\boxed"


@dataclass(frozen=True)
class BatchRows:
    """What a learner reads of a batch."""

    sequences: Sequences
    parts: dict[str, Reals]
    """Reward parts [B] by name; 0 where a verdict lacks the part. Empty for demonstrations."""
    boxed_B: Reals
    """1 where the verifier found an answer."""
    chars_B: Reals
    """Characters before the first boxed answer, or of the whole response."""
    judge_B: Reals
    """The judge's score; NaN where the judge gave none or failed."""
    own_B: Bools
    """False for a rollout that success replay put in: it trains, and counts in no metric of what the policy can do."""
    temperature: float
    """Temperature at which the rollouts were drawn, 1 for demonstrations; where rollouts differ,
    `sequences.temperature_B` counts."""
    texts: list[str]
    """Responses as text."""
    cut_B: Bools
    """Whether the limit of tokens ended the response."""


def read_rows(batch: Batch) -> BatchRows:
    """Reads a batch into arrays; rollouts without a token are left out.

    Args:
        batch: groups with verdicts, or demonstrations without.

    Returns:
        the arrays.

    Raises:
        MessageError: a group lacks verdicts, a verdict does not judge the answer (a time-out, for example, must never
            become reward), columns differ in length, rollouts and demonstrations are mixed, or no token is left.
    """
    rollouts: list[tuple[int, VerifiedGroup, Rollout, Verdict | None]] = []
    for number, group in enumerate(batch.groups):
        rollouts += [(number, group, r, v) for r, v in _with_verdicts(group) if num_sampled(r)]
    if not rollouts:
        raise MessageError(f"batch of step {batch.step} holds no token to train on")
    verdicts = [v for _, _, _, v in rollouts if v is not None]
    if verdicts and len(verdicts) < len(rollouts):
        raise MessageError(f"batch of step {batch.step} mixes rollouts and demonstrations")
    return BatchRows(
        sequences=_sequences([(n, g, r) for n, g, r, _ in rollouts]),
        parts={
            name: np.array([v.parts.get(name, 0.0) for v in verdicts])
            for name in sorted({name for v in verdicts for name in v.parts})
        },
        boxed_B=np.array([float(v.status != "unparsable") for v in verdicts]),
        chars_B=np.array([float(len(r.text.split(_BOX, 1)[0])) for _, _, r, _ in rollouts]),
        judge_B=np.array([judge_score(v.parts) for v in verdicts]),
        own_B=np.array([not r.replayed_from for _, _, r, _ in rollouts]),
        temperature=drawn.pop() if len(drawn := _temperatures(batch)) == 1 else 1.0,
        texts=[r.text for _, _, r, _ in rollouts],
        cut_B=np.array([r.finish == "length" for _, _, r, _ in rollouts]),
    )


def without_truncated(rows: BatchRows) -> BatchRows:
    """The same rollouts, with the tokens of those that ended at max_new_tokens masked out of the loss.

    Args:
        rows: the batch.

    Returns:
        the batch; a token without a behaviour log-prob is masked.
    """
    cut_N = np.repeat(rows.cut_B, rows.sequences.length_B)
    behaviour_N = np.where(cut_N, np.float32(np.nan), rows.sequences.behaviour_N)
    return replace(rows, sequences=replace(rows.sequences, behaviour_N=behaviour_N))


def at_temperature(rows: BatchRows, temperature: float) -> BatchRows:
    """The same rollouts for a policy that is trained at one temperature.

    Args:
        rows: the batch.
        temperature: of the policy; 0: each rollout at the temperature that drew it.

    Returns:
        the batch with that temperature.
    """
    if not temperature:
        return rows
    return replace(rows, temperature=temperature, sequences=replace(rows.sequences, temperature_B=None))


def _with_verdicts(group: VerifiedGroup) -> list[tuple[Rollout, Verdict | None]]:
    """Rollouts with their verdicts; None for demonstrations. Raises MessageError for verdicts that cannot be reward."""
    rollouts = group.group.rollouts
    if group.group.provenance == "demonstration" and not group.verdicts:
        return [(r, None) for r in rollouts]
    if len(group.verdicts) != len(rollouts):
        raise MessageError(f"group {group.group.group_id}: {len(rollouts)} rollouts, {len(group.verdicts)} verdicts")
    false = next((v for v in group.verdicts if not v.is_true), None)
    if false:
        raise MessageError(f"group {group.group.group_id}: a verdict of status {false.status!r} is no reward")
    return list(zip(rollouts, group.verdicts, strict=True))


def _sequences(rollouts: list[tuple[int, VerifiedGroup, Rollout]]) -> Sequences:
    """The tokens of rollouts, each with the number of its group."""
    for _, group, r in rollouts:
        if not len(r.token_ids) == len(r.logprobs) == len(r.versions):
            raise MessageError(f"group {group.group.group_id}, rollout {r.index}: columns differ in length")
    return Sequences(
        prompts=[ints(g.group.prompt_ids) for _, g, _ in rollouts],
        responses=[ints(r.token_ids) for _, _, r in rollouts],
        behaviour_N=joined_logprobs(r for _, _, r in rollouts),
        versions_N=np.concatenate([_versions(g, r) for _, g, r in rollouts]),
        group_B=np.array([n for n, _, _ in rollouts], dtype=np.int64),
        rollout_B=np.array([r.index for _, _, r in rollouts], dtype=np.int64),
        temperature_B=_mixed(np.array([_temperature(g) for _, g, _ in rollouts], dtype=np.float32)),
        at=[np.flatnonzero(sampled_tokens(r)) for _, _, r in rollouts]
        if any(r.turns for _, _, r in rollouts)
        else None,
    )


def _versions(group: VerifiedGroup, rollout: Rollout) -> Ids:
    """Versions of the tokens that count; -1 where no policy sampled, as in a demonstration of several turns."""
    versions = sampled_versions(rollout)
    return np.full_like(versions, -1) if group.group.provenance == "demonstration" else versions


def _mixed(temperature_B: Floats) -> Floats | None:
    """The temperatures if they differ."""
    return temperature_B if len(np.unique(temperature_B)) > 1 else None


def _temperatures(batch: Batch) -> set[float]:
    return {_temperature(group) for group in batch.groups}


def _temperature(group: VerifiedGroup) -> float:
    """Temperature at which a group was drawn; 1 for demonstrations."""
    return group.group.sampling.temperature if group.group.provenance == "rollout" else 1.0
