"""A temperature of the grid for each group, uniformly at random: the baseline that a controller must beat."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from rlsp_async.config import Section
from rlsp_async.config.ranges import Range
from rlsp_async.temperatures.base import SALT, FixedSchedule, check_grid


class RandomConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `random`."""

    grid: tuple[Annotated[float, Range(gt=0, le=100)], ...] = (0.6, 0.8, 1.0, 1.2)
    """The temperatures to draw from."""

    def __post_init__(self) -> None:
        check_grid(self.grid)


Config = RandomConfig


class Random(FixedSchedule):
    """Draws that are a function of (seed, cursor)."""

    def __init__(self, cfg: RandomConfig, seed: int) -> None:
        self._grid, self._seed = cfg.grid, seed

    def draw(self, cursor: int) -> float:
        """A temperature of the grid."""
        return self._grid[int(np.random.default_rng([self._seed, cursor, SALT]).integers(len(self._grid)))]


def load(cfg: RandomConfig, seed: int, temperature: float) -> Random:
    """The schedule with these options."""
    return Random(cfg, seed)
