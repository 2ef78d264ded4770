"""Every prompt of a finite split once in each pass, in an order that is random for each pass.

    pick(seed=0, size=5, cursor=5) -> (4, 1)        the 6th draw from 5 prompts: prompt 4, for the second time
    pick(seed=0, size=None, cursor=4) -> (4, 0)     an endless split counts up

A pure function of (seed, size, cursor): the journal keeps one number, and a restart continues from there.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import lru_cache

from rlsp_async.prompts.base import Draw, PoolConfig, pool_size


class UniformConfig(PoolConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `uniform`: only the pool, which this selection does not need."""


Config = UniformConfig


def pick(seed: int, size: int | None, cursor: int) -> tuple[int, int]:
    """The prompt of draw number `cursor` (0, 1, 2 ...).

    Returns (index in the split, how often the prompt had been issued before). Raises ValueError for an empty split or a
    negative cursor.
    """
    if cursor < 0:
        raise ValueError(f"cursor {cursor} is below 0")
    if size is None:
        return cursor, 0
    if size < 1:
        raise ValueError("there is no prompt to pick: the set is empty")
    visit, position = divmod(cursor, size)
    return _permutation(seed, size, visit)[position], visit


@lru_cache(maxsize=4)
def _permutation(seed: int, size: int, visit: int) -> list[int]:
    order = list(range(size))
    random.Random(f"{seed}/{size}/{visit}").shuffle(order)
    return order


class Uniform:
    """`pick` as a selector. It learns nothing."""

    def __init__(self, seed: int, size: int | None) -> None:
        self._seed, self._size = seed, size

    def draw(self, cursor: int, pending: Mapping[int, int]) -> Draw:
        """The next prompt of this pass; pending groups do not matter."""
        index, visit = pick(self._seed, self._size, cursor)
        return Draw(index, visit)

    def observe(self, index: int, num_correct: int, num_judged: int) -> bytes:
        """Nothing is learnt."""
        return b""

    def restore(self, index: int, row: bytes) -> None:
        """Nothing was kept."""


def load(cfg: UniformConfig, seed: int, size: int | None) -> Uniform:
    """The selector. It also takes endless prompts."""
    return Uniform(seed, pool_size(cfg, size, "uniform") if cfg.pool else size)
