"""What a temperature schedule is: a module that offers `Config` and `load(cfg, seed, temperature)`.

    stages.rl.temperature = { name = "bstar", options = { grid = [0.6, 0.8, 1.0, 1.2] } }

When a group is issued, the schedule says at which temperature its rollouts are sampled. What the schedule has learnt is
one short row of bytes, which the journal keeps together with the verdicts that led to it. Its random numbers are a
function of (seed, cursor), and the temperature of an issued group is part of the group's record, so a hub that is
restarted draws the same temperatures as an uninterrupted one. Evaluations always use `sampling.temperature`. A name
with a dot is a module of your own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from rlsp_async import config
from rlsp_async.messages import RolloutGroup, Verdict
from rlsp_async.plugins import PluginFamily

TEMPERATURE_SCHEDULES = PluginFamily(
    noun="temperature",
    package="rlsp_async.temperatures",
    setting="temperature.name",
    options="temperature.options",
    needs=("Config", "load"),
)

SALT = 0x7E3
"""Part of the seed of every random temperature, so that draws of prompts (seed, cursor) are independent of them."""


class TemperatureSchedule(Protocol):
    """Draws temperatures. Pure: no clock and no file, so the same calls give the same temperatures."""

    def draw(self, cursor: int) -> float:
        """The temperature of the group that is issued as number `cursor` (0, 1, 2 ...)."""
        ...

    def observe(self, group: RolloutGroup, verdicts: Sequence[Verdict]) -> bytes:
        """Takes in the verdicts of one group (each group once); returns the row that must be kept (empty: none).

        Every verdict is one on the answer: a group with a time-out or an error is not observed.
        """
        ...

    def restore(self, row: bytes) -> None:
        """Takes in the row that was kept. Raises DataError for a row of another schedule."""
        ...

    def figures(self) -> dict[str, float]:
        """The present state for metrics.jsonl, by name; the hub adds the word temperature."""
        ...


class FixedSchedule:
    """Base class of schedules that learn nothing."""

    def observe(self, group: RolloutGroup, verdicts: Sequence[Verdict]) -> bytes:
        """Nothing is learnt."""
        return b""

    def restore(self, row: bytes) -> None:
        """Nothing was kept."""

    def figures(self) -> dict[str, float]:
        """There is nothing to report."""
        return {}


def check_grid(grid: Sequence[float]) -> None:
    """Raises ValueError unless the grid holds distinct temperatures above 0."""
    if not grid or len(set(grid)) < len(grid) or not all(0 < t < math.inf for t in grid):
        raise ValueError("grid must hold different temperatures above 0, e.g. [0.6, 0.8, 1.0, 1.2]")


def lowest_temperature(section: config.TemperatureConfig, temperature: float) -> float:
    """The lowest temperature that a stage's options name; `temperature` is the setting sampling.temperature.

    It is looked for in the options of the shipped schedules. Raises ConfigError for an unknown name or option.
    """
    module = TEMPERATURE_SCHEDULES.find(section.name)
    cfg = TEMPERATURE_SCHEDULES.decode_options(section.name, module, section.options)
    named = [getattr(cfg, name, None) for name in ("temperature", "start", "end", "low")]
    values = [value for value in (*named, *getattr(cfg, "grid", ())) if isinstance(value, float) and value > 0]
    return min((temperature, *values))


def load_schedule(section: config.TemperatureConfig, seed: int, temperature: float) -> TemperatureSchedule:
    """The schedule that a stage names; `temperature` is the setting sampling.temperature.

    Raises ConfigError for an unknown name or option.
    """
    module = TEMPERATURE_SCHEDULES.find(section.name)
    cfg = TEMPERATURE_SCHEDULES.decode_options(section.name, module, section.options)
    schedule: TemperatureSchedule = module.load(cfg, seed, temperature)
    return schedule
