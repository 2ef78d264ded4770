"""The run's directory as the hub holds it: one hub at a time, and how much room is left.

The lock is the kernel's (flock): it goes with the process that holds it, however that process ends.
"""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

from rlsp_async.errors import MachineError, unwritable

LOCK = "hub.lock"


class RunLock:
    """Held from construction to `close`. Raises MachineError that names the hub which holds it."""

    def __init__(self, directory: Path) -> None:
        path = directory / LOCK
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a+", encoding="ascii")  # noqa: SIM115  closed by close()
        except OSError as e:
            raise unwritable(path, e) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.truncate(0)
            self._file.write(f"pid {os.getpid()} on {socket.gethostname()}")
            self._file.flush()
        except BlockingIOError:
            holder = self._holder()
            self._file.close()
            raise MachineError(
                f"{directory}: a hub is at work on this run already ({holder}): stop it first, or give "
                "this run another name"
            ) from None
        except OSError as e:
            self._file.close()
            raise unwritable(path, e) from None

    def _holder(self) -> str:
        self._file.seek(0)
        return self._file.read() or "it has not said its pid yet"

    def close(self) -> None:
        """Idempotent. Unlocked for whoever inherited it, too: a process that is just being started has a copy."""
        if not self._file.closed:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self._file.close()


def measure(directory: Path) -> tuple[int, int]:
    """(bytes that are free for this user, bytes of the journal). Raises MachineError when the directory is gone."""
    try:
        disk = os.statvfs(directory)
        num_bytes = sum(path.stat().st_size for path in directory.glob("journal.sqlite*"))
    except OSError as e:
        raise unwritable(directory, e) from None
    return disk.f_bavail * disk.f_frsize, num_bytes
