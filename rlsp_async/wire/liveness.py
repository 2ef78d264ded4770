"""Who is silent since when, and how long to wait before trying again. Pure: time is an argument, in seconds.

live = Liveness(timeout_s=10.0)
live.heard("hub", now=3.0)
live.silent_s("hub", now=8.0) == 5.0
live.gone(now=14.0) == ["hub"]
"""

from __future__ import annotations

import math

LARGEST_FACTOR = 32


class Liveness:
    """When each name was last heard. A name is gone when it has been silent for more than `timeout_s`."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._heard: dict[str, float] = {}

    def heard(self, name: str, now: float) -> None:
        """A sign of life. Time never runs backwards: an older `now` changes nothing."""
        self._heard[name] = max(now, self._heard.get(name, now))

    def forget(self, name: str) -> None:
        """It left on purpose; its silence means nothing."""
        self._heard.pop(name, None)

    def silent_s(self, name: str, now: float) -> float:
        """Seconds since it was heard; infinite for a name that never was."""
        return now - self._heard[name] if name in self._heard else math.inf

    def is_gone(self, name: str, now: float) -> bool:
        """Whether it has been silent for too long."""
        return self.silent_s(name, now) > self.timeout_s

    def gone(self, now: float) -> list[str]:
        """All that are, the longest silent first."""
        names = [name for name in self._heard if self.is_gone(name, now)]
        return sorted(names, key=lambda name: self._heard[name])

    def beats_left(self, name: str, now: float, heartbeat_s: float) -> int:
        """Heartbeats that may still be missed before it is gone; 0 when it is."""
        left_s = self.timeout_s - self.silent_s(name, now)
        return max(0, math.ceil(left_s / heartbeat_s)) if left_s > 0 else 0


def backoff_s(attempt: int, heartbeat_s: float, jitter: float) -> float:
    """Wait before attempt 0, 1, 2 ...: 1, 2, 4 .. 32 heartbeats, each times 0.75 .. 1.25 by `jitter` in 0..1.

    Doubling (zguide ch. 4, Paranoid Pirate) spares a hub that is starting; jitter keeps workers that lost it together
    from coming back together.
    """
    return heartbeat_s * min(2.0 ** min(attempt, 10), LARGEST_FACTOR) * (0.75 + 0.5 * jitter)
