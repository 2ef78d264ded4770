"""The processes of a run, found by their command lines (Linux), and what is done to them."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def services(config: Path) -> dict[str, int]:
    """Name -> pid of the run's living services, e.g. {"sampler-0": 4711}."""
    wanted, found = str(config), {}
    for place in Path("/proc").iterdir():
        if not place.name.isdigit():
            continue
        words = _words(place)
        if wanted in words and "--worker" in words and "rlsp_async.cli" in words:
            found[words[words.index("--worker") + 1]] = int(place.name)
    return found


def _words(place: Path) -> list[str]:
    """The command line of a process; empty when it is gone or a zombie."""
    try:
        return [word.decode(errors="replace") for word in (place / "cmdline").read_bytes().split(b"\0")]
    except OSError:
        return []


def act(pid: int, signum: signal.Signals) -> bool:
    """Sends a signal to a process and its group (a service leads its own). False: it is gone."""
    try:
        os.killpg(pid, signum)
    except ProcessLookupError:
        return False
    return True


def resident_mb(pid: int) -> float:
    """Resident memory in MiB; 0 when the process is gone."""
    try:
        pages = int((Path("/proc") / str(pid) / "statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
