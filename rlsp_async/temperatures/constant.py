"""One temperature for every group of the stage."""

from __future__ import annotations

from rlsp_async.config import Section
from rlsp_async.temperatures.base import Fixed


class Config(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `constant`."""

    temperature: float = 0.0
    """0: sampling.temperature, at which evaluations are drawn too."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature {self.temperature} must be at least 0")


class Constant(Fixed):
    """Always the same."""

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature

    def draw(self, cursor: int) -> float:
        """The temperature."""
        return self._temperature


def load(cfg: Config, seed: int, temperature: float) -> Constant:
    """See `base`."""
    return Constant(cfg.temperature or temperature)
