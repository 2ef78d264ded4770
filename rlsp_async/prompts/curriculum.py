"""A curriculum by measured difficulty: from prompts that are mostly solved to prompts that mostly are not.

    difficulty   rate <- (1 - weight) * rate + weight * success rate of the newest group
    wanted       moves from `start` to `end` over the first `ramp` draws
    weight of a prompt   floor + (1 - floor) * exp(-((rate - wanted) / width)^2 / 2); 1 while nothing is known of it

A prompt is drawn with probability proportional to its weight among those of which no group is on its way; the
propensity is exact. Every prompt keeps `floor`, so that one which was misjudged comes again.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rlsp_async.prompts.base import Draw, PoolConfig, pool_size
from rlsp_async.prompts.table import Reals, Table


class Config(PoolConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `curriculum`."""

    start: float = 0.8
    """Success rate that is wanted at first."""
    end: float = 0.3
    """And after `ramp` draws."""
    ramp: int = 10_000
    """Draws (groups issued in the run) until `end` is reached."""
    width: float = 0.2
    """Standard deviation of the preference around the wanted rate."""
    floor: float = 0.05
    """Smallest weight of a prompt, relative to one that is just right."""
    weight: float = 0.5
    """How much the newest group counts against what was known."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.start <= 1 and 0 <= self.end <= 1 and 0 < self.floor <= 1 and 0 < self.weight <= 1):
            raise ValueError("start and end must lie in 0..1, floor and weight above 0 and at most 1")
        if self.width <= 0 or self.ramp < 1:
            raise ValueError("width must be above 0, ramp at least 1")


def wanted(cfg: Config, cursor: int) -> float:
    """The success rate that is wanted now. Example: .8 to .3 over 10 draws: cursor 5 -> .55."""
    return cfg.start + (cfg.end - cfg.start) * min(1.0, cursor / cfg.ramp)


def weights(cfg: Config, rate_N: Reals, num_N: Reals, target: float) -> Reals:
    """How much each prompt is wanted, floor..1."""
    bell_N = np.exp(-0.5 * np.square((rate_N - target) / cfg.width))
    return np.where(num_N > 0, cfg.floor + (1.0 - cfg.floor) * bell_N, 1.0)


class Curriculum:
    """Measured success rates of a pool of prompts: `first_N` the rate, `second_N` the rollouts behind it."""

    def __init__(self, cfg: Config, seed: int, size: int) -> None:
        self._cfg, self._seed = cfg, seed
        self.table = Table(size, 0.0, 0.0)

    def draw(self, cursor: int, pending: Mapping[int, int]) -> Draw:
        """One prompt."""
        free = self.table.not_pending(pending)
        w = weights(self._cfg, self.table.first_N[free], self.table.second_N[free], wanted(self._cfg, cursor))
        share = w / w.sum()
        at = int(np.random.default_rng([self._seed, cursor]).choice(len(free), p=share))
        place = int(free[at])
        return Draw(place, self.table.visit(place), float(share[at]) * len(free), self.table.row(place))

    def observe(self, place: int, num_correct: int, num_judged: int) -> bytes:
        """Verdicts of one group."""
        table, rate = self.table, num_correct / num_judged
        if table.second_N[place]:
            rate = (1.0 - self._cfg.weight) * float(table.first_N[place]) + self._cfg.weight * rate
        table.first_N[place] = rate
        table.second_N[place] += num_judged
        return table.row(place)

    def restore(self, place: int, row: bytes) -> None:
        """Takes back what the journal kept."""
        self.table.restore(place, row)


def load(cfg: Config, seed: int, size: int | None) -> Curriculum:
    """Raises ConfigError when the prompts have no end and no pool is set."""
    return Curriculum(cfg, seed, pool_size(cfg, size, "curriculum"))
