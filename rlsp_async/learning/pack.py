"""Sequences of any length, packed end to end into micro-batches: no padding tokens anywhere.

    sequences   [p p p r r] [p p r r r r] [p r]      p prompt token, r response token
    packed      [p p r r r r | p p p r r | p r]      one row of T tokens, longest sequence first

What an environment said stands in a response, but its tokens are no response tokens: they are packed as they were read,
and they are no targets. N and R count the other tokens alone, so that nothing behind this module can take them in.

Shapes: B sequences of a batch, one for each rollout; N their response tokens end to end; T packed tokens of one
micro-batch, R response tokens among them, Q sequences among them. Pure: arrays in, arrays out.
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
    """The tokens of a batch's rollouts. Example: prompts [[5, 6]], responses [[7, 2]], behaviour_N [-.1, -.2]."""

    prompts: list[Ids]
    """B prompts, token ids."""
    responses: list[Ids]
    """B responses, token ids, none of them empty; what an environment said between the turns is in them."""
    behaviour_N: Floats
    """Log-probs under the policy that sampled, response after response."""
    versions_N: Ids
    """Policy version that sampled each response token; -1: no policy did."""
    group_B: Longs
    """The group of the batch that each rollout belongs to."""
    rollout_B: Longs
    """Index of each rollout within its group."""
    temperature_B: Floats | None = None
    """Temperature at which each rollout was drawn, when they differ; None: the caller knows the one of the batch."""
    at: list[Longs] | None = None
    """Offsets within each of the `responses` of its response tokens; None: all of them, no environment took part."""

    @property
    def targets(self) -> list[Ids]:
        """B responses without what an environment said, token ids."""
        if self.at is None:
            return self.responses
        return [ids[at] for ids, at in zip(self.responses, self.at, strict=True)]

    @property
    def length_B(self) -> Longs:
        """Response tokens of each rollout."""
        return np.array([len(at) for at in (self.responses if self.at is None else self.at)], dtype=np.int64)

    @property
    def total_B(self) -> Longs:
        """Prompt and response tokens of each rollout, and what an environment said."""
        return np.array([len(p) + len(r) for p, r in zip(self.prompts, self.responses, strict=True)], dtype=np.int64)

    @property
    def start_B(self) -> Longs:
        """Where each response begins on the N axis."""
        length_B = self.length_B
        start_B: Longs = np.cumsum(length_B) - length_B
        return start_B


@dataclass(frozen=True)
class PackedBatch:
    """One micro-batch. R columns are aligned with the response tokens, in packed order."""

    ids_T: Longs
    position_ids_T: Longs
    """0, 1, 2, ... within each sequence."""
    cu_seqlens: Ids
    """[Q + 1] cumulative lengths: sequence q is tokens cu_seqlens[q] .. cu_seqlens[q + 1]."""
    response_T: Bools
    """Whether the token is a response token."""
    source_R: Longs
    """Index into T of the token whose output predicts each response token."""
    target_R: Longs
    """The response token itself."""
    sequence_R: Longs
    """Number of the token's sequence within this micro-batch."""
    flat_R: Longs
    """Index into the batch's N response tokens."""
    temperature_R: Floats | None = None
    """Temperature at which each response token was drawn; None: one for all, which the caller knows."""

    @property
    def num_tokens(self) -> int:
        """Prompt and response tokens of the micro-batch, T."""
        return len(self.ids_T)


def number_equal(*columns: list[Ids]) -> Longs:
    """Numbers rollouts such that those with the same ids in every column share a number.

    Example: [[5, 6], [7], [5, 6]] -> [0, 1, 0].

    Args:
        columns: lists of B rows of token ids.

    Returns:
        [B], numbers counted from 0.
    """
    seen: dict[tuple[bytes, ...], int] = {}
    keys = (tuple(ids.tobytes() for ids in row) for row in zip(*columns, strict=True))
    return np.array([seen.setdefault(key, len(seen)) for key in keys], dtype=np.int64)


def plan_micro_batches(
    total_B: Sequence[int] | Longs, capacity_tokens: int, together_B: Sequence[int] | Longs | None = None
) -> list[list[int]]:
    """Chooses the sequences of each micro-batch, by first-fit-decreasing.

    Args:
        total_B: tokens of each sequence.
        capacity_tokens: size of a micro-batch; sequences that are longer, or have to be together and are longer, get
            one of their own.
        together_B: sequences with the same number share a micro-batch, -1 excepted; None: any may be parted.

    Returns:
        numbers of the sequences of each micro-batch.
    """
    units = _units(len(total_B), together_B)
    lengths = [sum(int(total_B[i]) for i in unit) for unit in units]
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


def _units(num: int, together_B: Sequence[int] | Longs | None) -> list[list[int]]:
    """Sequences that must not be parted. Example: (-1, 4, -1, 4) -> [[0], [1, 3], [2]]."""
    units: dict[tuple[int, int], list[int]] = {}
    for i in range(num):
        key = -1 if together_B is None else int(together_B[i])
        units.setdefault((key, i if key == -1 else 0), []).append(i)
    return list(units.values())


def pack_sequences(sequences: Sequences, members: Sequence[int]) -> PackedBatch:
    """Packs sequences end to end into one row.

    Args:
        sequences: the batch.
        members: numbers of the sequences to pack, in the order of the row.

    Returns:
        the row.

    Raises:
        ValueError: no member, or a member without a prompt token or without a response token.
    """
    prompts = [sequences.prompts[m] for m in members]
    responses = [sequences.responses[m] for m in members]
    prompt_Q = np.array([len(p) for p in prompts], dtype=np.int64)
    at = np.asarray(members, dtype=np.int64)
    length_Q = sequences.length_B[at]
    if len(members) == 0 or int(prompt_Q.min()) == 0 or int(length_Q.min()) == 0:
        raise ValueError("every packed sequence needs a prompt token and a response token")
    total_Q = prompt_Q + np.array([len(r) for r in responses], dtype=np.int64)
    begin_Q = np.cumsum(total_Q) - total_Q
    first_Q = begin_Q + prompt_Q
    if sequences.at is None:
        place_R = _spans(first_Q, length_Q)
    else:
        place_R = np.repeat(first_Q, length_Q) + np.concatenate([sequences.at[m] for m in members])
    response_T = np.zeros(int(total_Q.sum()), dtype=np.bool_)
    response_T[place_R] = True
    ids_T = np.concatenate([part for pair in zip(prompts, responses, strict=True) for part in pair]).astype(np.int64)
    return PackedBatch(
        ids_T=ids_T,
        position_ids_T=_spans(np.zeros_like(total_Q), total_Q),
        cu_seqlens=np.concatenate([[0], np.cumsum(total_Q)]).astype(np.int32),
        response_T=response_T,
        source_R=place_R - 1,
        target_R=ids_T[place_R],
        sequence_R=np.repeat(np.arange(len(at)), length_Q),
        flat_R=_spans(sequences.start_B[at], length_Q),
        temperature_R=None if sequences.temperature_B is None else np.repeat(sequences.temperature_B[at], length_Q),
    )


def _spans(begin: npt.NDArray[Any], length: npt.NDArray[Any]) -> Longs:
    """One flat index: begin[0], begin[0] + 1, ... length[0] of them, then the same for the next span."""
    ends = np.cumsum(length)
    spans: Longs = np.arange(int(ends[-1]), dtype=np.int64) + np.repeat(begin - (ends - length), length)
    return spans
