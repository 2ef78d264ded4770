"""A controller that keeps the entropy of the samples where it was, after arXiv:2505.18573.

    H       mean of -log-prob of the group's tokens at its temperature: estimates the entropy of the sampling
    target  given, or the mean H of the first `first` groups
    T  <-   clip(T exp(rate (target - H) / target), low, high)        after each group

The idea is the paper's; the rule and the constants are ours. Pending groups were sampled at an older T, so `rate` times
their number must stay well below 1.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Annotated

from rlsp_async.config import Section
from rlsp_async.config.ranges import Range
from rlsp_async.errors import DataError
from rlsp_async.messages import RolloutGroup, Verdict
from rlsp_async.observations import joined_logprobs

_ROW = struct.Struct("<ddI")


class EntropyConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `entropy`."""

    target: Annotated[float, Range(ge=0, le=100)] = 0.0
    """Entropy in nats per token; 0: the entropy of the first groups."""
    first: Annotated[int, Range(ge=1, le=10**9)] = 32
    """Number of groups at sampling.temperature on which the target is measured."""
    rate: Annotated[float, Range(ge=0, le=1)] = 0.005
    """How far the temperature moves after each group."""
    low: Annotated[float, Range(gt=0, le=100)] = 0.5
    """Smallest temperature."""
    high: Annotated[float, Range(gt=0, le=100)] = 1.5
    """Largest temperature."""

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low must be at most high")


Config = EntropyConfig


class Entropy:
    """The present temperature, and the mean entropy from which the target follows."""

    def __init__(self, cfg: EntropyConfig, temperature: float) -> None:
        self._cfg = cfg
        self.temperature = min(cfg.high, max(cfg.low, temperature))
        self._measured = cfg.target
        self._num = cfg.first if cfg.target else 0

    def draw(self, cursor: int) -> float:
        """The present temperature."""
        return self.temperature

    def observe(self, group: RolloutGroup, verdicts: Sequence[Verdict]) -> bytes:
        """Moves the temperature by the entropy of one group; whether the answers are right does not matter."""
        logprobs_N = joined_logprobs(group.rollouts)
        if not len(logprobs_N):
            return b""
        entropy = -float(logprobs_N.mean(dtype="float64"))
        if self._num < self._cfg.first:
            self._num += 1
            self._measured += (entropy - self._measured) / self._num
        elif self._measured > 0:
            moved = self.temperature * math.exp(self._cfg.rate * (self._measured - entropy) / self._measured)
            self.temperature = min(self._cfg.high, max(self._cfg.low, moved))
        return _ROW.pack(self.temperature, self._measured, self._num)

    def restore(self, row: bytes) -> None:
        """Takes in the row from the journal."""
        if len(row) != _ROW.size:
            raise DataError(
                f"what the journal knows of temperatures ({len(row)} bytes) is not from `entropy`: the "
                "schedule has changed since the run began"
            )
        self.temperature, self._measured, self._num = _ROW.unpack(row)

    def figures(self) -> dict[str, float]:
        """The present temperature and the target."""
        return {"now": self.temperature, "entropy_target": self._measured}


def load(cfg: EntropyConfig, seed: int, temperature: float) -> Entropy:
    """The schedule with these options."""
    return Entropy(cfg, temperature)
