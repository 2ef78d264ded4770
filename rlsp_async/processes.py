"""A child process that ends when its parent ends, and a parent that ends its children."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def kill_with_parent(parent: int) -> bool:
    """Has the kernel kill this process (SIGKILL) as soon as its parent dies. Linux only; elsewhere nothing is done.

    The kernel watches the thread that forked this process: that thread has to live as long as its process.

    Args:
        parent: process id that the parent is expected to have.

    Returns:
        False when `parent` is not the parent of this process, for example because it has died already.
    """
    if not sys.platform.startswith("linux"):
        return True
    if os.getppid() != parent:
        return False
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return os.getppid() == parent  # it may have died just before the line above


def kill_children() -> list[int]:
    """Sends SIGKILL to every child of this process, whichever thread started it. Linux only; elsewhere nothing is done.

    Returns:
        The process ids.
    """
    found = []
    for listing in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            found += [int(pid) for pid in listing.read_text().split()]
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return found
