"""The pulse of a process: a small file that shows that its event loop, its work threads and its jobs move.

    RLSP_PULSE=/tmp/pulse rlsp sampler ...     the service writes the file once a second, from its event loop
    python -m rlsp_async.pulse                 exit code 0: everything moves; 1: one sentence says what does not

A probe cannot ask a frozen process whether it is frozen, and a connection proves nothing: a thread of ZeroMQ keeps it
alive. The file says of each part when it last moved and how long it may be still:

    event loop     the moment of the write: a process that is stopped, or whose loop is blocked, writes nothing
    thread NAME    a call on a work thread (`watch`): its begin, or when the thread last used the processor
    every job      the last begin or end of a leased job (`HeldJobs`), while one is held

Times are those of the monotonic clock, which all processes of a machine share. The file has a fixed length and is
written in place, so it needs no room on a full disk.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from rlsp_async.errors import unwritable

PULSE = "RLSP_PULSE"
"""Environment variable with the path of the file; without it no file is written."""
BEAT_S = 1.0
LOOP_S = 120.0
"""How long an event loop may be still. Imports at the start of a service block it for many seconds on a slow disk."""
PARTS_SHOWN = 4
NAME_CHARACTERS = 64
FILE_BYTES = 1024
USED_S = 0.001
"""Seconds of the processor that show that a thread has moved."""

T = TypeVar("T")
R = TypeVar("R")


class Part(NamedTuple):
    """One part of a process."""

    name: str
    moved_s: float
    """When it last moved, on the monotonic clock."""
    bound_s: float
    """How long it may be still."""


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the file."""

    pid: int
    parts: list[Part]


def still(beat: Beat, now: float) -> str:
    """What of a process does not move, in one sentence; empty when everything moves."""
    for part in beat.parts:
        if now - part.moved_s > part.bound_s:
            still_s = now - part.moved_s
            return f"process {beat.pid}: {part.name} has not moved for {still_s:.0f} s (bound {part.bound_s:g} s)"
    return ""


# --- what moves ------------------------------------------------------------------------------------------------------


class _WatchedCall:
    """A call in progress on a work thread."""

    def __init__(self, now: float) -> None:
        self.name = threading.current_thread().name[:NAME_CHARACTERS]
        self._clock = time.pthread_getcpuclockid(threading.get_ident())
        self._used_s, self._moved_s = time.thread_time(), now

    def moved_s(self, now: float) -> float:
        """When the thread last moved: when it last used the processor, or began."""
        try:
            used_s = time.clock_gettime(self._clock)
        except OSError:  # the thread has ended
            return now
        if used_s - self._used_s > USED_S:
            self._used_s, self._moved_s = used_s, now
        return self._moved_s


_calls: dict[int, _WatchedCall] = {}
"""The calls in progress on this process's work threads."""


@contextmanager
def watch() -> Iterator[None]:
    """Marks a call on the present thread as work whose standstill the pulse shows."""
    call = _WatchedCall(time.monotonic())
    _calls[id(call)] = call
    try:
        yield
    finally:
        del _calls[id(call)]


def watched(function: Callable[..., T], *arguments: Any) -> T:
    """Calls the function under `watch`."""
    with watch():
        return function(*arguments)


class HeldJobs:
    """The leased jobs of a worker: at work while one is held, and moving when one begins or ends."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._num, self.moved_s = clock, 0, clock()

    @property
    def at_work(self) -> bool:
        """Whether a job is held."""
        return self._num > 0

    def counted(self, handler: Callable[[T], Awaitable[R]]) -> Callable[[T], Awaitable[R]]:
        """The handler, each of whose calls is a job."""

        async def call(job: T) -> R:
            self._change(1)
            try:
                return await handler(job)
            finally:
                self._change(-1)

        return call

    def _change(self, by: int) -> None:
        self._num, self.moved_s = self._num + by, self._clock()


# --- the file --------------------------------------------------------------------------------------------------------


class Pulse:
    """Writes the pulse of this process to the file that RLSP_PULSE names; nothing without that variable."""

    def __init__(self, work_bound_s: float, jobs: HeldJobs | None = None, jobs_bound_s: float = 0.0) -> None:
        """Writes the first beat. Raises MachineError when the file cannot be written."""
        self._work_bound_s, self._jobs, self._jobs_bound_s = work_bound_s, jobs, jobs_bound_s
        self._file: int | None = None
        if path := os.environ.get(PULSE):
            try:
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
                self.beat()
            except OSError as e:
                raise unwritable(path, e) from None

    def parts(self, now: float) -> list[Part]:
        """The event loop, and the other parts that have been still for longest."""
        others = [Part(f"thread {call.name}", call.moved_s(now), self._work_bound_s) for call in list(_calls.values())]
        if self._jobs is not None and self._jobs.at_work:
            others.append(Part("every job", self._jobs.moved_s, self._jobs_bound_s))
        return [Part("the event loop", now, LOOP_S), *sorted(others, key=lambda part: part.moved_s)[:PARTS_SHOWN]]

    def beat(self) -> None:
        """Writes what moves now."""
        if self._file is not None:
            line = msgspec.json.encode(Beat(pid=os.getpid(), parts=self.parts(time.monotonic())))
            os.pwrite(self._file, line.ljust(FILE_BYTES - 1)[: FILE_BYTES - 1] + b"\n", 0)

    async def keep(self) -> None:
        """Writes once a second; ends by cancelling."""
        while self._file is not None:
            self.beat()
            await asyncio.sleep(BEAT_S)


def read(path: Path) -> Beat | None:
    """The newest beat in a file; None when there is none, or it is being written."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Beat)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def main() -> int:
    """The probe: judges the file that RLSP_PULSE or the only argument names. Returns the exit code."""
    path = sys.argv[1] if len(sys.argv) == 2 else os.environ.get(PULSE, "")
    beat = read(Path(path)) if path else None
    wrong = still(beat, time.monotonic()) if beat else f"no pulse in {path or PULSE}: no service has started here"
    if wrong:
        print(wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
