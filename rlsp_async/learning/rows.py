"""A batch of messages as arrays: here the messages end and the mathematics begins.

Shapes: S sequences (rollouts of all groups, in manifest order), N their response tokens end to end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlsp_async.columns import floats, ints
from rlsp_async.errors import MessageError
from rlsp_async.learning.pack import Sequences
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
    own_S: NDArray[np.bool_]
    """False for a rollout that success replay put in: it trains, and counts in no figure of what the policy can do."""
    temperature: float
    """At which the rollouts were drawn; 1 for demonstrations."""


def read(batch: Batch) -> Rows:
    """Arrays of a batch, rollouts without a token left out.

    Raises MessageError when a group lacks verdicts, when a verdict is none on the answer (those must never become
    reward), when columns differ in length or when the groups were drawn at different temperatures.
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
        parts={name: np.array([v.parts.get(name, 0.0) for v in verdicts])
               for name in sorted({name for v in verdicts for name in v.parts})},
        boxed_S=np.array([float(v.status != "unparsable") for v in verdicts]),
        chars_S=np.array([float(len(r.text.split(_BOX, 1)[0])) for _, _, r, _ in rollouts]),
        judge_S=np.array([judge_score(v.parts) for v in verdicts]),
        own_S=np.array([not r.replayed_from for _, _, r, _ in rollouts]),
        temperature=_temperature(batch),
    )


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
    )


def _temperature(batch: Batch) -> float:
    drawn = {g.group.sampling.temperature for g in batch.groups if g.group.provenance == "rollout"} or {1.0}
    if len(drawn) > 1:
        raise MessageError(f"batch of step {batch.step} mixes temperatures {sorted(drawn)}")
    return drawn.pop()
