"""The clock of a run: seconds since it began. It follows the machine's monotonic clock, and never runs backwards."""

from __future__ import annotations

from pathlib import Path


def boot_id() -> str:
    """Which start of the machine this is; empty where it does not say (Linux does)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def run_clock(before: str, age_s: float, boot: str, monotonic_s: float) -> str:
    """The machine and its monotonic clock at the moment when the run's clock was at 0: "BOOT SECONDS".

    While the machine runs, a run's clock follows that monotonic clock over all restarts of the hub, whatever becomes of
    the wall clock. After a reboot, or on another machine, it goes on from the age of the run.

    Args:
        before: what the former hub stored; empty for none.
        age_s: age of the run by its newest record and the wall clock.
        boot: which start of the machine this is.
        monotonic_s: time on its monotonic clock.
    """
    known, _, zero = before.partition(" ")
    if boot and known == boot and float(zero) <= monotonic_s:
        return before
    return f"{boot or '-'} {monotonic_s - age_s!r}"
