"""Which start of the learner may write the files of a run: an older one that goes on late must not (fencing).

    fence = WriteFence(run / "checkpoints", incarnation)
    fence.claim()      at the start of a process: from now on every older start is refused
    fence.check()      before each write; FencedError when a newer start has claimed the files
    fence.sweep(dirs)  after the claim: removes what older starts left half written

A check alone leaves a gap: a process may be stopped (SIGSTOP) between its check and its write. Therefore every write is
prepared in a temporary directory whose name contains the incarnation, and ends with one rename of that directory. The
claim is followed by a sweep that removes the temporary directories of all others, so that the rename of a process that
was stopped in the gap finds nothing to rename.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rlsp_async.errors import DataError, FencedError, MachineError, unwritable
from rlsp_async.files import replace_file
from rlsp_async.starts import LARGEST

_NAME = "OWNER"
_CLAIM_S = 5.0
"""How long a claim waits for another claim that is in progress."""
_TEMPORARY = re.compile(r"\.(.+)\.\d+\.tmp")
_ASIDE = re.compile(r"\.(.+)\.(old|gone)")


class WriteFence:
    """The right of one start of the learner to write. Example: WriteFence(RUN/checkpoints, 7)."""

    def __init__(self, directory: Path, incarnation: int) -> None:
        """Takes the directory that holds the claim, and the start number of this process."""
        self.directory, self.incarnation = directory, incarnation
        self._lock: int | None = None
        with suppress(OSError):  # `claim` says what is wrong
            directory.mkdir(
                parents=True, exist_ok=True
            )  # once: a run that is moved away later does not get a second directory

    def claim(self, alone: bool = False) -> None:
        """Claims the files for this start, durably, and holds a lock (OWNER.alive) for the life of the process.

        Args:
            alone: refuse when another process holds that lock. Otherwise the newer start takes over: the older one may
                be frozen and never let go.

        Raises:
            FencedError: a newer start has claimed them, or (`alone`) another learner is at work.
            DataError: OWNER holds a number that no start has.
            MachineError: the disk refuses, or another claim is in progress and does not end.
        """
        try:
            self.directory.mkdir(exist_ok=True)
            if not self._hold() and alone:
                raise FencedError(f"{self.directory.parent}: a learner is at work on this run already; stop it first")
            with _locked(self.directory / "OWNER.lock"):
                holder = self.holder()
                if holder > self.incarnation:
                    raise self._fenced(holder)
                replace_file(self.directory / _NAME, f"{self.incarnation}\n", durable=True)
        except OSError as e:
            raise unwritable(self.directory, e) from e

    def _hold(self) -> bool:
        """Takes the lock that ends with this process; False when another process has it."""
        if self._lock is None:
            self._lock = os.open(self.directory / "OWNER.alive", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            weakref.finalize(self, os.close, self._lock)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def check(self) -> None:
        """Raises FencedError when a newer start of the learner has claimed these files."""
        holder = self.holder()
        if holder > self.incarnation:
            raise self._fenced(holder)

    def holder(self) -> int:
        """The newest start that claimed; 0 before the first claim, and for a torn file."""
        try:
            text = (self.directory / _NAME).read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            return 0
        if not text.isdecimal():
            return 0
        if len(text) > 19 or int(text) > LARGEST:
            raise DataError(
                f"{self.directory / _NAME} holds {text[:40]}, a number that no start of a learner has: it is damaged; "
                "remove the file and start again"
            )
        return int(text)

    def temporary(self, target: Path) -> Path:
        """Where `target` is prepared before the one rename that gives it its name."""
        return target.with_name(f".{target.name}.{self.incarnation}.tmp")

    def sweep(self, directories: list[Path]) -> None:
        """Removes what others left half written or half removed; brings back what was set aside and not replaced."""
        for directory in directories:
            for path in sorted(directory.iterdir()) if directory.is_dir() else ():
                if _TEMPORARY.fullmatch(path.name) and path != self.temporary(self._target(path)):
                    shutil.rmtree(path, ignore_errors=True)
                elif match := _ASIDE.fullmatch(path.name):
                    if match[2] == "old" and not (directory / match[1]).exists():
                        path.replace(directory / match[1])
                    else:
                        shutil.rmtree(path, ignore_errors=True)

    def _target(self, temporary: Path) -> Path:
        """The final name of a temporary directory of any start."""
        match = _TEMPORARY.fullmatch(temporary.name)
        assert match is not None, temporary
        return temporary.with_name(match[1])

    def _fenced(self, holder: int) -> FencedError:
        return FencedError(
            f"{self.directory.parent}: a newer start of the learner ({holder}) has taken over this run; "
            f"this one ({self.incarnation}) writes nothing more: nothing to do"
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Admits one claim at a time. Raises MachineError when another claim keeps the lock longer than _CLAIM_S."""
    deadline = time.monotonic() + _CLAIM_S
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise MachineError(
                        f"{path.parent.parent}: another learner is in the middle of its start and does "
                        "not go on; end that process, then start again"
                    ) from None
                time.sleep(0.05)
        yield
