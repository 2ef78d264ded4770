"""Shifts the wall clock of a Python process: put first on PYTHONPATH by `rlsp chaos` (clocks.py), read by no other run.

Python imports this module at its start, before anything else. `time.time`, `time.time_ns` and CLOCK_REALTIME of
`time.clock_gettime` then show the machine's time plus the seconds in the process's own file, which may change at any
moment. Monotonic clocks stay as they are. Another `sitecustomize` that is on the path is imported as well.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import mmap
import os
import struct
import sys
import time

DIRECTORY = "RLSP_CHAOS_CLOCKS"
NAME = "RLSP_CHAOS_CLOCK_NAME"


def shift(directory: str) -> None:
    """Has the clock of this process follow the file that its service's name has in `directory`."""
    words = sys.orig_argv
    name = words[words.index("--worker") + 1] if "--worker" in words[:-1] else os.environ.get(NAME, "supervisor")
    os.environ[NAME] = name  # for the processes that this one starts
    file = os.open(os.path.join(directory, name), os.O_RDWR | os.O_CREAT)
    if os.fstat(file).st_size < 8:
        os.ftruncate(file, 8)
    shared = mmap.mmap(file, 8, prot=mmap.PROT_READ)
    os.close(file)
    offset_s = struct.Struct("<d").unpack_from
    now, now_ns, clock = time.time, time.time_ns, time.clock_gettime

    def shifted() -> float:
        return now() + float(offset_s(shared)[0])

    def shifted_ns() -> int:
        return now_ns() + int(offset_s(shared)[0] * 1e9)

    def shifted_clock(which: int, /) -> float:
        return shifted() if which == time.CLOCK_REALTIME else clock(which)

    time.time, time.time_ns, time.clock_gettime = shifted, shifted_ns, shifted_clock


def import_next() -> None:
    """Imports the `sitecustomize` that would have been imported without this one."""
    here = os.path.dirname(os.path.abspath(__file__))
    others = [path for path in sys.path if os.path.abspath(path) != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


if __name__ == "sitecustomize":  # imported by Python itself
    if DIRECTORY in os.environ:
        shift(os.environ[DIRECTORY])
    import_next()
