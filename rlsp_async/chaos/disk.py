"""A small disk of our own that can be filled: a tmpfs in a mount namespace of this process and its children."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

from rlsp_async.errors import MachineError

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_MNT_DETACH = 2
FILLS = 1000
"""Attempts to take what is left."""


def mount_small_disk(place: Path, size_mb: int) -> None:
    """Mounts it at `place`, an empty directory. To be called before any thread is started.

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
    """Takes the small disk away, with all that is on it, and the directory that it was mounted at."""
    ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(place), _MNT_DETACH)
    place.rmdir()


def _refused() -> MachineError:
    reason = os.strerror(ctypes.get_errno())
    return MachineError(
        f"this machine does not let us mount a small disk to fill ({reason}): leave enospc out of --faults"
    )


def fill(place: Path) -> Path:
    """Takes all the room that is left with one file; remove it to free the disk."""
    ballast = place / "ballast"
    with open(ballast, "wb") as file:
        for _ in range(FILLS):  # others write meanwhile: what was free a moment ago may be refused as a whole
            room = os.statvfs(place)
            free_bytes = room.f_bavail * room.f_frsize
            if not free_bytes:
                break
            with contextlib.suppress(OSError):
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, free_bytes)
    return ballast
