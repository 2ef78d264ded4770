"""What a schedule of temperatures is: a module that offers `Config` and `load(cfg, seed, temperature) -> Schedule`.

    stages.rl.temperature = { name = "bstar", options = { grid = [0.6, 0.8, 1.0, 1.2] } }

It says at which temperature the rollouts of a group are drawn, when the group is issued. What it has learnt is one
short row of bytes, which the journal keeps with the verdicts that it came from; its random numbers are a function of
(seed, cursor), and the temperature of an issued group stands in its head. So a hub that is restarted draws what it
would have drawn. Evaluations are always at `sampling.temperature`. A name with a dot is a module of your own.
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


class Schedule(Protocol):
    """Pure: no clock, no file; the same calls give the same temperatures."""

    def draw(self, cursor: int) -> float:
        """The temperature of the group that is issued as number `cursor` (0, 1, 2 ...)."""
        ...

    def observe(self, group: RolloutGroup, verdicts: Sequence[Verdict]) -> bytes:
        """True verdicts of one group came, each group once; returns the row that must be kept (empty: none)."""
        ...

    def restore(self, row: bytes) -> None:
        """Takes back the row that was kept. Raises DataError when it is none of this schedule's."""
        ...

    def figures(self) -> dict[str, float]:
        """What it knows now, for metrics.jsonl, by name without the word temperature."""
        ...


class Fixed:
    """Base of schedules that learn nothing."""

    def observe(self, group: RolloutGroup, verdicts: Sequence[Verdict]) -> bytes:
        """Nothing is learnt."""
        return b""

    def restore(self, row: bytes) -> None:
        """Nothing was kept."""

    def figures(self) -> dict[str, float]:
        """Nothing is known."""
        return {}


def check_grid(grid: Sequence[float]) -> None:
    """Raises ValueError unless these are different temperatures."""
    if not grid or len(set(grid)) < len(grid) or not all(0 < t < math.inf for t in grid):
        raise ValueError("grid must hold different temperatures above 0, e.g. [0.6, 0.8, 1.0, 1.2]")


def load_schedule(section: config.TemperatureConfig, seed: int, temperature: float) -> Schedule:
    """The schedule that a stage names; `temperature`: sampling.temperature.

    Raises ConfigError for an unknown name or option.
    """
    module = TEMPERATURE_SCHEDULES.find(section.name)
    cfg = TEMPERATURE_SCHEDULES.decode_options(section.name, module, section.options)
    schedule: Schedule = module.load(cfg, seed, temperature)
    return schedule
