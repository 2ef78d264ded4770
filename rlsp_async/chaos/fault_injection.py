"""What becomes of one message that passes the proxy: how often it arrives, and how late. Pure, seeded."""

from __future__ import annotations

from random import Random

SHARE = 0.1
"""Share of the messages that are affected in a window of drop, duplicate or reorder."""
LATE_S = 0.4
"""Longest delay of a message that others overtake."""
SLOW_S = (0.2, 1.0)
"""Range of the delay of every message in a window of slow; one value for a window, so that the order stays."""


class FaultInjector:
    """Affects messages in time windows: `begin` opens a window, `delays` decides about one message."""

    def __init__(self, seed: int) -> None:
        self._random = Random(f"{seed}/mischief")  # the seed's text decides what a seed means: it stays
        self._until_s: dict[str, float] = {}
        self._slow_s = 0.0
        self.counts = {"passed": 0, "drop": 0, "duplicate": 0, "reorder": 0, "slow": 0}
        """Messages that came, and how many of them were affected in which way."""

    def begin(self, kind: str, now: float, seconds: float) -> None:
        """Opens a window of one kind for `seconds`; a longer one that is open stays open."""
        self._until_s[kind] = max(self._until_s.get(kind, 0.0), now + seconds)
        if kind == "slow":
            self._slow_s = self._random.uniform(*SLOW_S)

    def end(self) -> None:
        """Closes all windows."""
        self._until_s.clear()

    def delays(self, now: float) -> list[float]:
        """The delays, in seconds, after which a message arrives: one for each arrival; empty when it is dropped."""
        self.counts["passed"] += 1
        if self._is_affected("drop", now):
            return []
        delay_s = 0.0
        if now < self._until_s.get("slow", 0.0):
            self.counts["slow"] += 1
            delay_s = self._slow_s
        if self._is_affected("reorder", now):
            delay_s += self._random.uniform(0.02, LATE_S)
        if self._is_affected("duplicate", now):
            return [delay_s, delay_s + self._random.uniform(0.0, LATE_S)]
        return [delay_s]

    def _is_affected(self, kind: str, now: float) -> bool:
        if now >= self._until_s.get(kind, 0.0) or self._random.random() >= SHARE:
            return False
        self.counts[kind] += 1
        return True
