"""A curriculum by measured difficulty: from prompts that are mostly solved to prompts that mostly are not.

    success rate   rate <- (1 - weight) * rate + weight * success rate of the newest group
    target         moves from `start` to `end` over the first `ramp` draws
    weight         floor + (1 - floor) * exp(-((rate - target) / width)^2 / 2); 1 for a prompt without verdicts

A prompt is drawn with probability proportional to its weight, among the prompts without a pending group; the propensity
is exact. No weight is below `floor`, so that a misjudged prompt is drawn again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np

from rlsp_async.config.ranges import Range
from rlsp_async.prompts.base import Draw, PoolConfig, pool_size
from rlsp_async.prompts.table import PromptTable, Reals


class CurriculumConfig(PoolConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `curriculum`."""

    start: Annotated[float, Range(ge=0, le=1)] = 0.8
    """Target success rate at first."""
    end: Annotated[float, Range(ge=0, le=1)] = 0.3
    """Target success rate after `ramp` draws."""
    ramp: Annotated[int, Range(ge=1, le=10**9)] = 10_000
    """Draws (groups issued in the run) until `end` is reached."""
    width: Annotated[float, Range(gt=0, le=100)] = 0.2
    """Standard deviation of the preference around the target."""
    floor: Annotated[float, Range(gt=0, le=1)] = 0.05
    """Smallest weight of a prompt, relative to a prompt at the target."""
    weight: Annotated[float, Range(gt=0, le=1)] = 0.5
    """Weight of the newest group in the measured success rate."""


Config = CurriculumConfig


def target_rate(cfg: CurriculumConfig, cursor: int) -> float:
    """The target of draw number `cursor`. Example: .8 to .3 over 10 draws: cursor 5 -> .55."""
    return cfg.start + (cfg.end - cfg.start) * min(1.0, cursor / cfg.ramp)


def compute_weights(cfg: CurriculumConfig, rate_N: Reals, num_N: Reals, target: float) -> Reals:
    """The weight of each prompt, floor..1."""
    bell_N = np.exp(-0.5 * np.square((rate_N - target) / cfg.width))
    return np.where(num_N > 0, cfg.floor + (1.0 - cfg.floor) * bell_N, 1.0)


class Curriculum:
    """Measured success rates of a pool of prompts: `first_N` is the rate, `second_N` the number of rollouts."""

    def __init__(self, cfg: CurriculumConfig, seed: int, size: int) -> None:
        self._cfg, self._seed = cfg, seed
        self.table = PromptTable(size, 0.0, 0.0)

    def draw(self, cursor: int, pending: Mapping[int, int]) -> Draw:
        """One prompt."""
        free = self.table.not_pending(pending)
        target = target_rate(self._cfg, cursor)
        weights = compute_weights(self._cfg, self.table.first_N[free], self.table.second_N[free], target)
        share = weights / weights.sum()
        chosen = int(np.random.default_rng([self._seed, cursor]).choice(len(free), p=share))
        index = int(free[chosen])
        return Draw(index, self.table.visit(index), float(share[chosen]) * len(free), self.table.row(index))

    def observe(self, index: int, num_correct: int, num_judged: int) -> bytes:
        """Updates the prompt's success rate with the verdicts of one group."""
        table, rate = self.table, num_correct / num_judged
        if table.second_N[index]:
            rate = (1.0 - self._cfg.weight) * float(table.first_N[index]) + self._cfg.weight * rate
        table.first_N[index] = rate
        table.second_N[index] += num_judged
        return table.row(index)

    def restore(self, index: int, row: bytes) -> None:
        """Takes in a row from the journal."""
        self.table.restore(index, row)


def load(cfg: CurriculumConfig, seed: int, size: int | None) -> Curriculum:
    """The selector. Raises ConfigError when the prompts are endless and no pool is set."""
    return Curriculum(cfg, seed, pool_size(cfg, size, "curriculum"))
