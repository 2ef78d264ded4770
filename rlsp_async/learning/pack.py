"""Sequences of any length, packed end to end into micro-batches: no padding tokens anywhere.

    sequences   [p p p r r] [p p r r r r] [p r]      p prompt token, r response token
    packed      [p p r r r r | p p p r r | p r]      one row of T tokens, longest sequence first

Shapes: S sequences of a batch, N their response tokens end to end, T packed tokens of one micro-batch, R response
tokens among them, Q sequences among them. Pure: arrays in, arrays out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rlsp_async.columns import Floats, Ids

Longs = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Sequences:
    """The S sequences of a batch. Example: prompts [[5, 6]], responses [[7, 2]], behaviour_N [-.1, -.2]."""

    prompts: list[Ids]
    """S prompts, token ids."""
    responses: list[Ids]
    """S responses, token ids, none of them empty."""
    behaviour_N: Floats
    """Behaviour log-probs, response after response."""
    versions_N: Ids
    """Policy version that sampled each response token; -1: no policy did."""
    group_S: Longs
    """Which group of the batch each sequence belongs to."""
    rollout_S: Longs
    """Index of each sequence within its group."""
    temperature_S: Floats | None = None
    """At which each was drawn, when they differ; None: the whole batch at the temperature of its plan."""

    @property
    def length_S(self) -> Longs:
        """Response tokens of each sequence."""
        return np.array([len(r) for r in self.responses], dtype=np.int64)

    @property
    def total_S(self) -> Longs:
        """Prompt and response tokens of each sequence."""
        return np.array([len(p) + len(r) for p, r in zip(self.prompts, self.responses, strict=True)], dtype=np.int64)

    @property
    def start_S(self) -> Longs:
        """Where each response begins on the N axis."""
        length_S = self.length_S
        start_S: Longs = np.cumsum(length_S) - length_S
        return start_S


@dataclass(frozen=True)
class PackedBatch:
    """One micro-batch. R columns are aligned with the response tokens, in packed order."""

    ids_T: Longs
    position_ids_T: Longs
    """0, 1, 2, ... within each sequence."""
    cu_seqlens: Ids
    """[Q + 1] cumulative lengths: sequence q is tokens cu_seqlens[q] .. cu_seqlens[q + 1]."""
    response_T: Bools
    """Whether the token is of a response."""
    source_R: Longs
    """Index into T of the token whose output predicts each response token."""
    target_R: Longs
    """The response token itself."""
    behaviour_R: Floats
    versions_R: Ids
    group_R: Longs
    rollout_R: Longs
    sequence_R: Longs
    """Number of the token's sequence within this micro-batch."""
    flat_R: Longs
    """Index into the batch's N response tokens."""
    temperature_R: Floats | None = None
    """Of the distribution each response token was drawn from; None: one for all, which the caller knows."""

    @property
    def num_tokens(self) -> int:
        return len(self.ids_T)


def numbers(*columns: list[Ids]) -> Longs:
    """[S] the same number, counted from 0, for sequences with the same ids in every column. Example: [[5, 6], [7],
    [5, 6]] -> [0, 1, 0]."""
    seen: dict[tuple[bytes, ...], int] = {}
    keys = (tuple(ids.tobytes() for ids in row) for row in zip(*columns, strict=True))
    return np.array([seen.setdefault(key, len(seen)) for key in keys], dtype=np.int64)


def plan(
    total_S: Sequence[int] | Longs, capacity_tokens: int, together_S: Sequence[int] | Longs | None = None
) -> list[list[int]]:
    """First-fit-decreasing: micro-batches of sequence numbers, each of at most `capacity_tokens` tokens.

    Sequences with the same number in `together_S`, -1 excepted, share a micro-batch. Raises ValueError when one
    sequence, or those that go together, are longer.
    """
    units = _units(len(total_S), together_S)
    lengths = [sum(int(total_S[i]) for i in unit) for unit in units]
    if lengths and max(lengths) > capacity_tokens:
        what = "a sequence" if len(units[lengths.index(max(lengths))]) == 1 else "a pair of sequences"
        raise ValueError(
            f"{what} of {max(lengths)} tokens does not fit a micro-batch of {capacity_tokens}; "
            "raise learner.tokens_per_microbatch"
        )
    bins: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        need = lengths[number]
        slot = next((b for b, free in enumerate(room) if free >= need), None)
        if slot is None:
            bins.append([])
            room.append(capacity_tokens)
            slot = len(bins) - 1
        bins[slot] += units[number]
        room[slot] -= need
    return bins


def _units(num: int, together_S: Sequence[int] | Longs | None) -> list[list[int]]:
    """Sequence numbers by what must not be parted. Example: (-1, 4, -1, 4) -> [[0], [1, 3], [2]]."""
    units: dict[tuple[int, int], list[int]] = {}
    for i in range(num):
        key = -1 if together_S is None else int(together_S[i])
        units.setdefault((key, i if key == -1 else 0), []).append(i)
    return list(units.values())


def build(sequences: Sequences, members: Sequence[int]) -> PackedBatch:
    """Packs the sequences `members`, in that order, into one row."""
    prompts = [sequences.prompts[m] for m in members]
    responses = [sequences.responses[m] for m in members]
    prompt_Q = np.array([len(p) for p in prompts], dtype=np.int64)
    length_Q = np.array([len(r) for r in responses], dtype=np.int64)
    if len(members) == 0 or int(prompt_Q.min()) == 0 or int(length_Q.min()) == 0:
        raise ValueError("every packed sequence needs a prompt token and a response token")
    total_Q = prompt_Q + length_Q
    begin_Q = np.cumsum(total_Q) - total_Q
    response_T = np.ones(int(total_Q.sum()), dtype=np.bool_)
    response_T[_spans(begin_Q, prompt_Q)] = False
    at = np.asarray(members, dtype=np.int64)
    flat_R = _spans(sequences.start_S[at], length_Q)
    return PackedBatch(
        ids_T=np.concatenate([part for pair in zip(prompts, responses, strict=True) for part in pair]).astype(np.int64),
        position_ids_T=_spans(np.zeros_like(total_Q), total_Q),
        cu_seqlens=np.concatenate([[0], np.cumsum(total_Q)]).astype(np.int32),
        response_T=response_T,
        source_R=_spans(begin_Q + prompt_Q - 1, length_Q),
        target_R=np.concatenate(responses).astype(np.int64),
        behaviour_R=sequences.behaviour_N[flat_R],
        versions_R=sequences.versions_N[flat_R],
        group_R=np.repeat(sequences.group_S[at], length_Q),
        rollout_R=np.repeat(sequences.rollout_S[at], length_Q),
        sequence_R=np.repeat(np.arange(len(at)), length_Q),
        flat_R=flat_R,
        temperature_R=None if sequences.temperature_S is None else np.repeat(sequences.temperature_S[at], length_Q),
    )


def _spans(begin: npt.NDArray[Any], length: npt.NDArray[Any]) -> Longs:
    """begin[0], begin[0] + 1, ... length[0] of them, then the next: one flat index."""
    ends = np.cumsum(length)
    spans: Longs = np.arange(int(ends[-1]), dtype=np.int64) + np.repeat(begin - (ends - length), length)
    return spans
