"""One temperature for every group of the stage."""

from __future__ import annotations

from typing import Annotated

from rlsp_async.config import Section
from rlsp_async.config.ranges import Range
from rlsp_async.temperatures.base import FixedSchedule


class ConstantConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `constant`."""

    temperature: Annotated[float, Range(ge=0, le=100)] = 0.0
    """The temperature; 0: sampling.temperature, which evaluations use too."""


Config = ConstantConfig


class Constant(FixedSchedule):
    """Always the same temperature."""

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature

    def draw(self, cursor: int) -> float:
        """The temperature."""
        return self._temperature


def load(cfg: ConstantConfig, seed: int, temperature: float) -> Constant:
    """The schedule with these options."""
    return Constant(cfg.temperature or temperature)
