"""What runs left in shared memory: published versions of runs that were removed, failed, or stopped.

    find_leftovers(Path("runs"), time.time())     # one entry for each directory /dev/shm/rlsp-NAME-HASH

A directory of published versions holds a file RUN with the path of its run. It is in use while a supervisor or a hub
holds a lock in the run's directory, and counts as in use when it was written in the last minutes: a learner may have
its hub on another machine. A directory of another user is left alone, and nothing in it is opened: whoever may write
to shared memory decides what is there. Every other one can go: a run that is resumed publishes again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from pathlib import Path
from typing import NamedTuple

from rlsp_async.files import SHARED_MEMORY

OWNER = "RUN"
"""The file with the path of the run."""
LOCKS = ("supervisor.lock", "hub.lock")
"""Files of a run's directory that its processes lock."""
RECENT_S = 600.0
_DIRECTORY = re.compile(r"rlsp-.+-[0-9a-f]{8}")


class Leftover(NamedTuple):
    """One directory of published versions in shared memory."""

    path: Path
    num_bytes: int
    run: Path | None
    """The directory of its run; None: not known."""
    state: str
    """In words: what is known of the run."""
    in_use: bool


def shared_name(name: str, run: Path) -> str:
    """The name of a run's directory in shared memory. Example: "rlsp-demo-0f3a29bc"."""
    return f"rlsp-{name}-{hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:8]}"


def find_leftovers(runs_dir: Path, now: float, shared_memory: Path = SHARED_MEMORY) -> list[Leftover]:
    """The directories of published versions in shared memory, those in use among them.

    Args:
        runs_dir: where runs are looked for whose directories name no run.
        now: seconds since 1970.
        shared_memory: where shared memory is mounted.
    """
    known = {shared_name(run.name, run): run for run in runs_dir.glob("*") if (run / "config.toml").is_file()}
    found = sorted(shared_memory.glob("rlsp-*")) if shared_memory.is_dir() else []
    return [
        _describe(path, known, now)
        for path in found
        if path.is_dir() and not path.is_symlink() and _DIRECTORY.fullmatch(path.name)
    ]


def owner_of(path: Path) -> Path | None:
    """The run that a directory of published versions notes as its owner; None when there is no such note."""
    try:
        text = (path / OWNER).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return Path(text) if text else None


def _describe(path: Path, known: dict[str, Path], now: float) -> Leftover:
    try:
        owner = path.stat().st_uid
        if owner != os.geteuid():
            return Leftover(path, 0, None, f"of another user, uid {owner}", in_use=True)
        files = [(entry, entry.stat()) for entry in path.iterdir() if entry.is_file()]
    except FileNotFoundError:
        return Leftover(path, 0, None, "it was removed meanwhile", in_use=True)
    except PermissionError as e:
        return Leftover(path, 0, None, f"it cannot be read: {e.strerror}", in_use=True)
    num_bytes = sum(stat.st_size for _, stat in files)
    recent = any(now - stat.st_mtime < RECENT_S for _, stat in files)
    run = owner_of(path) or known.get(path.name)
    if run is not None and not run.is_dir():
        return Leftover(path, num_bytes, run, "the run's directory is gone", in_use=False)
    if run is not None and any(_is_locked(run / name) for name in LOCKS):
        return Leftover(path, num_bytes, run, "the run is at work", in_use=True)
    if recent:
        return Leftover(path, num_bytes, run, f"written in the last {RECENT_S / 60:.0f} minutes", in_use=True)
    state = "the run is not at work; it publishes again when it is resumed" if run else "of an unknown run, not written"
    return Leftover(path, num_bytes, run, state, in_use=False)


def _is_locked(path: Path) -> bool:
    """Whether a process holds the lock. A file that cannot be opened counts as locked: its owner is somebody else."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
