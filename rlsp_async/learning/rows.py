"""A batch of messages as arrays: here the messages end and the mathematics begins.

Shapes: S sequences (rollouts of all groups, in manifest order), N their response tokens end to end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rlsp_async.columns import Floats, floats, ints
from rlsp_async.errors import MessageError
from rlsp_async.learning.pack import Bools, Sequences
from rlsp_async.messages import Batch, Rollout, Verdict, VerifiedGroup
from rlsp_async.rewards.explore import Reals, judge_score

_BOX = "\\boxed"


@dataclass(frozen=True)
class Rows:
    """What a learner reads of a batch."""

    sequences: Sequences
    parts: dict[str, Reals]
    """Reward parts by name, [S]; a part that a verdict lacks is 0 there. Empty for demonstrations."""
    boxed_S: Reals
    """1 where the verifier found an answer."""
    chars_S: Reals
    """Characters before the first boxed answer, or of the whole response."""
    judge_S: Reals
    """The judge's score, NaN where it gave none or says that it failed."""
    own_S: Bools
    """False for a rollout that success replay put in: it trains, and counts in no figure of what the policy can do."""
    temperature: float
    """At which the rollouts were drawn, 1 for demonstrations; where they differ, `sequences.temperature_S` counts."""
    texts: list[str]
    """Responses as text."""
    cut_S: Bools
    """Whether the limit of tokens ended it."""


def read(batch: Batch) -> Rows:
    """Arrays of a batch, rollouts without a token left out.

    Raises MessageError when a group lacks verdicts, when a verdict is none on the answer (those must never become
    reward), or when columns differ in length.
    """
    rollouts: list[tuple[int, VerifiedGroup, Rollout, Verdict | None]] = []
    for number, group in enumerate(batch.groups):
        rollouts += [(number, group, r, v) for r, v in _judged(group) if r.token_ids]
    if not rollouts:
        raise MessageError(f"batch of step {batch.step} holds no token to train on")
    verdicts = [v for _, _, _, v in rollouts if v is not None]
    if verdicts and len(verdicts) < len(rollouts):
        raise MessageError(f"batch of step {batch.step} mixes rollouts and demonstrations")
    return Rows(
        sequences=_sequences([(n, g, r) for n, g, r, _ in rollouts]),
        parts={
            name: np.array([v.parts.get(name, 0.0) for v in verdicts])
            for name in sorted({name for v in verdicts for name in v.parts})
        },
        boxed_S=np.array([float(v.status != "unparsable") for v in verdicts]),
        chars_S=np.array([float(len(r.text.split(_BOX, 1)[0])) for _, _, r, _ in rollouts]),
        judge_S=np.array([judge_score(v.parts) for v in verdicts]),
        own_S=np.array([not r.replayed_from for _, _, r, _ in rollouts]),
        temperature=drawn.pop() if len(drawn := _temperatures(batch)) == 1 else 1.0,
        texts=[r.text for _, _, r, _ in rollouts],
        cut_S=np.array([r.finish == "length" for _, _, r, _ in rollouts]),
    )


def scored_at(rows: Rows, temperature: float) -> Rows:
    """The same rollouts for a policy at this temperature; 0: as they were drawn."""
    if not temperature:
        return rows
    return replace(rows, temperature=temperature, sequences=replace(rows.sequences, temperature_S=None))


def _judged(group: VerifiedGroup) -> list[tuple[Rollout, Verdict | None]]:
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
    for _, group, r in rollouts:
        if not len(r.token_ids) == len(r.logprobs) == len(r.versions):
            raise MessageError(f"group {group.group.group_id}, rollout {r.index}: columns differ in length")
    return Sequences(
        prompts=[ints(g.group.prompt_ids) for _, g, _ in rollouts],
        responses=[ints(r.token_ids) for _, _, r in rollouts],
        behaviour_N=np.concatenate([floats(r.logprobs) for _, _, r in rollouts]),
        versions_N=np.concatenate([ints(r.versions) for _, _, r in rollouts]),
        group_S=np.array([n for n, _, _ in rollouts], dtype=np.int64),
        rollout_S=np.array([r.index for _, _, r in rollouts], dtype=np.int64),
        temperature_S=_mixed(np.array([_temperature(g) for _, g, _ in rollouts], dtype=np.float32)),
    )


def _mixed(temperature_S: Floats) -> Floats | None:
    return temperature_S if len(np.unique(temperature_S)) > 1 else None


def _temperatures(batch: Batch) -> set[float]:
    return {_temperature(group) for group in batch.groups}


def _temperature(group: VerifiedGroup) -> float:
    return group.group.sampling.temperature if group.group.provenance == "rollout" else 1.0
