"""Which prompt is issued next: every prompt of a finite set once a pass, in an order of its own each pass.

    pick(seed=0, size=3, cursor=4) -> Pick(place=..., visit=1)      the 5th prompt of a set of 3 is a second visit
    pick(seed=0, size=None, cursor=4) -> Pick(place=4, visit=0)     an endless set counts up

A pure function of (seed, size, cursor): the journal keeps one number and a restart goes on where it was.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from rlsp_async.prompts.base import Draw, PoolConfig, pool_size


class Config(PoolConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`uniform` has only the option of a pool; it needs none."""


class Pick(NamedTuple):
    """Position in the split, and how often it had been issued before."""

    place: int
    visit: int


def pick(seed: int, size: int | None, cursor: int) -> Pick:
    """The prompt at `cursor` (0, 1, 2 ...). Raises ValueError for an empty set or a negative cursor."""
    if cursor < 0:
        raise ValueError(f"cursor {cursor} is below 0")
    if size is None:
        return Pick(cursor, 0)
    if size < 1:
        raise ValueError("there is no prompt to pick: the set is empty")
    visit, place = divmod(cursor, size)
    return Pick(_permutation(seed, size, visit)[place], visit)


@lru_cache(maxsize=4)
def _permutation(seed: int, size: int, visit: int) -> list[int]:
    order = list(range(size))
    random.Random(f"{seed}/{size}/{visit}").shuffle(order)
    return order


class Uniform:
    """`pick` as a selector: it learns nothing."""

    def __init__(self, seed: int, size: int | None) -> None:
        self._seed, self._size = seed, size

    def draw(self, cursor: int, pending: Mapping[int, int]) -> Draw:
        """The next prompt of this pass, whatever is on its way."""
        return Draw(*pick(self._seed, self._size, cursor))

    def observe(self, place: int, num_correct: int, num_judged: int) -> bytes:
        """Nothing is learnt."""
        return b""

    def restore(self, place: int, row: bytes) -> None:
        """Nothing was kept."""


def load(cfg: Config, seed: int, size: int | None) -> Uniform:
    """Any number of prompts, endless ones too."""
    return Uniform(seed, pool_size(cfg, size, "uniform") if cfg.pool else size)
