"""Novelty: how little of a rollout is also said by another rollout of its group. Ours.

    novelty_i = 1 - max over j != i of Jaccard(shingles_i, shingles_j)       in [0, 1], 0 for exact copies

A shingle is a run of NGRAM tokens, as a 64-bit hash; a shorter rollout has one shingle, the whole of it. A rollout
alone in its group has novelty 0. When a group has more than MAX_SHINGLES shingles, those whose hash is a multiple of m
stand for all: the same ones in every rollout, so that copies stay copies and the order of the group does not matter.
With 16 rollouts of 4,096 tokens 2,000 shingles of each rollout are left, an error of about 1 %.

Shapes: B rollouts, G rollouts of a group, U distinct shingles of a group, N shingles of a group end to end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rlsp_async.columns import Ids
from rlsp_async.rewards.explore import Longs, Reals

NGRAM = 4
MAX_SHINGLES = 32_768
"""Approximate largest number of shingles of a group that are compared."""

Hashes = npt.NDArray[np.uint64]
_FACTOR, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)


def novelty(responses: Sequence[Ids], group_B: Longs) -> Reals:
    """Novelty of each rollout within its group.

    Args:
        responses: B responses, token ids.
        group_B: the group of each rollout.

    Returns:
        [B], in [0, 1].

    Raises:
        ValueError: the numbers of rollouts differ.
    """
    if len(responses) != len(group_B):
        raise ValueError(f"group_B has shape {list(group_B.shape)}, and there are {len(responses)} responses")
    novelty_B = np.zeros(len(responses))
    for group in np.unique(group_B):
        members = np.flatnonzero(group_B == group)
        novelty_B[members] = group_novelty([responses[i] for i in members])
    return novelty_B


def group_novelty(responses: Sequence[Ids]) -> Reals:
    """Novelty of each rollout of one group, 1 - max over j != i of Jaccard(shingles_i, shingles_j).

    Args:
        responses: G responses, token ids.

    Returns:
        [G], in [0, 1]; 0 for a rollout alone.
    """
    if len(responses) < 2:
        return np.zeros(len(responses))
    hashes = thin_out([shingles(ids) for ids in responses])
    _, column_N = np.unique(np.concatenate(hashes), return_inverse=True)
    row_N = np.repeat(np.arange(len(hashes)), [len(h) for h in hashes])
    has_GU = np.zeros((len(hashes), int(column_N.max(initial=-1)) + 1), dtype=np.float32)
    has_GU[row_N, column_N] = 1.0
    both_GG = (has_GU @ has_GU.T).astype(np.float64)
    size_G = both_GG.diagonal()
    either_GG = size_G[:, None] + size_G[None, :] - both_GG
    # Two rollouts of which no shingle is left count as the same.
    same_GG = np.divide(both_GG, either_GG, out=np.ones_like(both_GG), where=either_GG > 0)
    np.fill_diagonal(same_GG, 0.0)
    novelty_G: Reals = 1.0 - same_GG.max(axis=1)
    return novelty_G


def shingles(ids: Ids) -> Hashes:
    """Hashes the runs of NGRAM tokens of a response.

    Args:
        ids: token ids.

    Returns:
        64-bit hashes in the order of the runs, with repetitions.
    """
    width = min(NGRAM, len(ids))
    num = len(ids) - width + 1
    hash_N = np.full(num if width else 0, width, dtype=np.uint64)
    for at in range(width):
        hash_N = (hash_N + ids[at : at + num].astype(np.uint64)) * _FACTOR  # wraps around on purpose
        hash_N ^= hash_N >> np.uint64(29)
    return (hash_N * _MIX) >> np.uint64(1)


def thin_out(hashes: list[Hashes]) -> list[Hashes]:
    """Keeps the shingles whose hash is a multiple of m, with the smallest m that leaves about MAX_SHINGLES.

    Args:
        hashes: the shingles of each rollout of a group.

    Returns:
        those that stay, of each rollout.
    """
    keep_every = -(-sum(len(h) for h in hashes) // MAX_SHINGLES)
    return hashes if keep_every <= 1 else [h[h % np.uint64(keep_every) == 0] for h in hashes]
