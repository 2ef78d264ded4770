"""How much of the time between two pings a worker had something to do. Pure: time is an argument, in seconds."""

from __future__ import annotations


class BusyMeter:
    """Adds up the seconds in which at least one lease was running."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._at = now
        self._busy_s = 0.0
        self._running = 0

    def running(self, num_leases: int, now: float) -> None:
        """From `now` on, so many leases run."""
        self._advance(now)
        self._running = num_leases

    def take(self, now: float) -> tuple[float, float]:
        """(busy_s, window_s) since the last call."""
        self._advance(now)
        result = (self._busy_s, now - self._since)
        self._since, self._busy_s = now, 0.0
        return result

    def _advance(self, now: float) -> None:
        if self._running:
            self._busy_s += now - self._at
        self._at = now
