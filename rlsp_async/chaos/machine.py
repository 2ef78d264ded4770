"""What is done to the machine (Linux): the processes of a run are found and signalled, a small disk is filled.

The small disk is a tmpfs in a mount namespace of this process and its children.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterable
from pathlib import Path

from rlsp_async.errors import MachineError

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_MNT_DETACH = 2
_MODULES = {"rlsp_async.cli", "rlsp_async.learning.follower"}
FILL_TRIES = 1000
"""Attempts to allocate what is left of the disk."""


# --- processes -------------------------------------------------------------------------------------------------------


def find_services(config: Path) -> dict[str, int]:
    """The pids of a run's living services by name, found by their command lines. Example: {"sampler-0": 4711}.

    The other ranks of a learner are among them, as learner-0.rank1.
    """
    wanted = {str(config), *map(str, (config.parent / "logs").glob("*.ranks.toml"))}
    pids = {}
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit():
            continue
        words = _words(directory)
        if wanted & set(words) and "--worker" in words and _MODULES & set(words):
            pids[words[words.index("--worker") + 1]] = int(directory.name)
    return pids


def ranks_of(name: str, services: Iterable[str]) -> list[str]:
    """The names of all ranks of a learner, the first one first; of another service its own name."""
    return [name, *sorted(one for one in services if one.startswith(f"{name}.rank"))]


def _words(directory: Path) -> list[str]:
    """The words of a process's command line; empty when the process has ended."""
    try:
        return [word.decode(errors="replace") for word in (directory / "cmdline").read_bytes().split(b"\0")]
    except OSError:
        return []


def send_signal(pid: int, signum: signal.Signals) -> bool:
    """Sends a signal to a process, and to the group that it leads, as each service does. False: it has ended."""
    try:
        (os.killpg if os.getpgid(pid) == pid else os.kill)(pid, signum)
    except ProcessLookupError:
        return False
    return True


# --- the small disk --------------------------------------------------------------------------------------------------


def mount_small_disk(place: Path, size_mb: int) -> None:
    """Mounts a small disk at `place`, an empty directory. To be called before any thread is started.

    Raises MachineError where the machine does not allow it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    root = os.geteuid() == 0
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWNS | (0 if root else _CLONE_NEWUSER)):
        raise _refused()
    if not root:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    if libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None):
        raise _refused()
    if libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, f"size={size_mb}m".encode()):
        raise _refused()


def unmount(place: Path) -> None:
    """Removes the small disk with all that is on it, and the directory where it was mounted."""
    ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(place), _MNT_DETACH)
    place.rmdir()


def _refused() -> MachineError:
    reason = os.strerror(ctypes.get_errno())
    return MachineError(
        f"this machine does not let us mount a small disk to fill ({reason}): leave enospc out of --faults"
    )


def fill_disk(place: Path) -> Path:
    """Fills the disk with one file, and returns its path; removing the file frees the disk."""
    ballast = place / "ballast"
    with open(ballast, "wb") as file:
        for _ in range(FILL_TRIES):  # others write meanwhile: an allocation of all that was free may be refused
            status = os.statvfs(place)
            free_bytes = status.f_bavail * status.f_frsize
            if not free_bytes:
                break
            with contextlib.suppress(OSError):
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, free_bytes)
    return ballast
