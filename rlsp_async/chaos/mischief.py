"""What becomes of one message that passes the proxy: how often it arrives, and how late. Pure, seeded."""

from __future__ import annotations

from random import Random

SHARE = 0.1
"""Of the messages in a window of drop, duplicate or reorder."""
LATE_S = 0.4
"""Longest delay of a message that is overtaken."""
SLOW_S = (0.2, 1.0)
"""Delay of every message in a window of slow; one value a window, so that the order stays."""


class Mischief:
    """Windows are opened by `begin`; a message asks `fate`."""

    def __init__(self, seed: int) -> None:
        self._random = Random(f"{seed}/mischief")
        self._until_s: dict[str, float] = {}
        self._slow_s = 0.0
        self.counts = {"passed": 0, "drop": 0, "duplicate": 0, "reorder": 0, "slow": 0}

    def begin(self, kind: str, now: float, seconds: float) -> None:
        """From now on, for so long, messages suffer this."""
        self._until_s[kind] = max(self._until_s.get(kind, 0.0), now + seconds)
        if kind == "slow":
            self._slow_s = self._random.uniform(*SLOW_S)

    def end(self) -> None:
        """All windows are closed."""
        self._until_s.clear()

    def fate(self, now: float) -> list[float]:
        """Delays after which the message arrives; none: it never does."""
        self.counts["passed"] += 1
        if self._strikes("drop", now):
            return []
        delay_s = 0.0
        if now < self._until_s.get("slow", 0.0):
            self.counts["slow"] += 1
            delay_s = self._slow_s
        if self._strikes("reorder", now):
            delay_s += self._random.uniform(0.02, LATE_S)
        if self._strikes("duplicate", now):
            return [delay_s, delay_s + self._random.uniform(0.0, LATE_S)]
        return [delay_s]

    def _strikes(self, kind: str, now: float) -> bool:
        if now >= self._until_s.get(kind, 0.0) or self._random.random() >= SHARE:
            return False
        self.counts[kind] += 1
        return True
