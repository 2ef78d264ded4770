"""Every group at a temperature of the grid, evenly at random: what a controller must beat."""

from __future__ import annotations

import numpy as np

from rlsp_async.config import Section
from rlsp_async.temperatures.base import Fixed, check_grid

SALT = 0x7E3
"""So that prompts (seed, cursor) and temperatures are drawn independently."""


class Config(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `random`."""

    grid: tuple[float, ...] = (0.6, 0.8, 1.0, 1.2)

    def __post_init__(self) -> None:
        check_grid(self.grid)


class Random(Fixed):
    """A function of (seed, cursor)."""

    def __init__(self, cfg: Config, seed: int) -> None:
        self._grid, self._seed = cfg.grid, seed

    def draw(self, cursor: int) -> float:
        """One of the grid."""
        return self._grid[int(np.random.default_rng([self._seed, cursor, SALT]).integers(len(self._grid)))]


def load(cfg: Config, seed: int, temperature: float) -> Random:
    """See `base`."""
    return Random(cfg, seed)
