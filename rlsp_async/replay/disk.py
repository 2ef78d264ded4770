"""A disk that runs full pauses the run before anything breaks. Pure.

free < reserve           paused: no new prompt is issued, no demonstration admitted; what is alive goes on
free >= 1.25 * reserve   the run goes on
paused for `stall_s`     the run stops, and can be taken up again when there is room
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MIB = 1 << 20
RESUME_AT = 1.25
"""Above the reserve by so much before a paused run goes on: it does not flutter."""


@dataclass(slots=True)
class Disk:
    """What was last measured. Example: Disk("runs/demo", reserve_bytes=256 << 20, patience_s=300.0)."""

    directory: str
    reserve_bytes: int
    patience_s: float
    free_bytes: int = -1
    """-1 before the first measurement."""
    journal_bytes: int = 0
    paused_since_s: float | None = None
    is_given_up: bool = False
    """It stayed full for too long: the run stops for this reason."""

    @property
    def is_paused(self) -> bool:
        """Whether nothing new may begin."""
        return self.paused_since_s is not None

    def measured(self, free_bytes: int, journal_bytes: int, now: float) -> Literal["", "paused", "unpaused", "full"]:
        """Takes in a measurement; says what changed with it."""
        self.free_bytes, self.journal_bytes = free_bytes, journal_bytes
        if self.paused_since_s is None:
            if free_bytes >= self.reserve_bytes:
                return ""
            self.paused_since_s = now
            return "paused"
        if free_bytes >= RESUME_AT * self.reserve_bytes:
            self.paused_since_s = None
            return "unpaused"
        self.is_given_up = now - self.paused_since_s > self.patience_s
        return "full" if self.is_given_up else ""

    def sentence(self) -> str:
        """What is wrong and what to do, with figures."""
        what = (
            f"{self.free_bytes / MIB:.0f} MiB are free for {self.directory}, less than replay.disk_reserve_mb = "
            f"{self.reserve_bytes // MIB}"
        )
        if self.is_given_up:
            return (
                f"{what}, for more than replay.stall_s = {self.patience_s:g} s: free some space, then the run goes "
                f"on: rlsp run --resume {self.directory}"
            )
        return (
            f"paused: {what}; free some space: at {RESUME_AT * self.reserve_bytes / MIB:.0f} MiB the run goes on, "
            f"after {self.patience_s:g} s it stops"
        )

    def figures(self) -> dict[str, float]:
        """For a row of metrics; empty before the first measurement."""
        if self.free_bytes < 0:
            return {}
        return {"disk_free_mb": round(self.free_bytes / MIB, 1), "journal_mb": round(self.journal_bytes / MIB, 2)}
