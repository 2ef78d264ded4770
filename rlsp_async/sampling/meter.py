"""Counts of what a sampler did since the last heartbeat."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Meter:
    """Counts tokens, rollouts and groups, and the seconds in which at least one group was in work."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.now = clock
        self._num_busy = 0
        self._busy_since = 0.0
        self._figures: dict[str, float] = {}

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Encloses the work on a group; the time of overlapping groups counts once."""
        if self._num_busy == 0:
            self._busy_since = self.now()
        self._num_busy += 1
        try:
            yield
        finally:
            self._num_busy -= 1
            if self._num_busy == 0:
                self._add("busy_s", self.now() - self._busy_since)

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Encloses a load of weights."""
        started = self.now()
        try:
            yield
        finally:
            self._add("loading_s", self.now() - started)

    def add_group(self, num_rollouts: int, num_tokens: int) -> None:
        """Counts a finished group."""
        self._add("groups", 1)
        self._add("rollouts", num_rollouts)
        self._add("tokens", num_tokens)

    def take(self) -> dict[str, float]:
        """Returns the figures since the last call and starts again at 0."""
        if self._num_busy:
            now = self.now()
            self._add("busy_s", now - self._busy_since)
            self._busy_since = now
        names = ("tokens", "rollouts", "groups", "busy_s", "loading_s")
        figures = {name: self._figures.get(name, 0.0) for name in names}
        self._figures = {}
        return figures

    def _add(self, name: str, amount: float) -> None:
        self._figures[name] = self._figures.get(name, 0.0) + amount
