"""From one temperature to another, in a straight line, over the first groups of the run."""

from __future__ import annotations

from typing import Annotated

from rlsp_async.config import Section
from rlsp_async.config.ranges import Range
from rlsp_async.temperatures.base import FixedSchedule


class LinearConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `linear`."""

    start: Annotated[float, Range(gt=0, le=100)] = 1.2
    """Temperature of the first group."""
    end: Annotated[float, Range(gt=0, le=100)] = 0.8
    """Temperature after `ramp` groups."""
    ramp: Annotated[int, Range(ge=1, le=10**9)] = 1000
    """Number of issued groups until `end` is reached."""


Config = LinearConfig


class Linear(FixedSchedule):
    """A temperature that is linear in the cursor."""

    def __init__(self, cfg: LinearConfig) -> None:
        self._cfg = cfg

    def draw(self, cursor: int) -> float:
        """Example: 1.2 to .8 over 10 groups: cursor 5 -> 1."""
        done = min(1.0, cursor / self._cfg.ramp)
        return self._cfg.start + (self._cfg.end - self._cfg.start) * done


def load(cfg: LinearConfig, seed: int, temperature: float) -> Linear:
    """The schedule with these options."""
    return Linear(cfg)
