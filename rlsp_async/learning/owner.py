"""Which start of the learner owns the files of a run: an older one that wakes up again must not write (fencing).

    owner = Owner(run / "checkpoints", incarnation)
    owner.claim()      at the start of a process: from now on every older one is refused
    owner.check()      before each write; FencedError when a newer one has claimed
    owner.sweep(dirs)  after the claim: what older ones had half written goes

A check alone leaves a gap: a process may be stopped (SIGSTOP) between its check and its write. Therefore every write is
prepared in a temporary directory whose name carries the incarnation, and ends with one rename of it. The claim removes
the temporary directories of all others, so the rename of a process that was stopped in the gap finds nothing to rename.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlsp_async.errors import FencedError, MachineError, unwritable

_NAME = "OWNER"
_CLAIM_S = 5.0
"""How long a claim waits for another one that is in the middle of its own."""
_TEMPORARY = re.compile(r"\.(.+)\.\d+\.tmp")
_ASIDE = re.compile(r"\.(.+)\.(old|gone)")


class Owner:
    """One start of the learner. Example: Owner(RUN/checkpoints, time.time_ns())."""

    def __init__(self, directory: Path, incarnation: int) -> None:
        self.directory, self.incarnation = directory, incarnation

    def claim(self) -> None:
        """Takes the files over. Raises FencedError when a newer start has them, MachineError when the disk refuses."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with _locked(self.directory / "OWNER.lock"):
                holder = self.holder()
                if holder > time.time_ns():
                    self.incarnation = max(self.incarnation, holder + 1)  # the machine's clock was set back
                if holder > self.incarnation:
                    raise self._fenced(holder)
                self._write()
        except OSError as e:
            raise unwritable(self.directory, e) from e

    def check(self) -> None:
        """Raises FencedError when a newer start of the learner has claimed these files."""
        holder = self.holder()
        if holder > self.incarnation:
            raise self._fenced(holder)

    def holder(self) -> int:
        """The newest start that claimed; 0 before the first. A torn file counts as none: a claim writes it anew."""
        try:
            text = (self.directory / _NAME).read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            return 0
        return int(text) if text.isdecimal() else 0

    def temporary(self, target: Path) -> Path:
        """Where `target` is prepared before the one rename that makes it real."""
        return target.with_name(f".{target.name}.{self.incarnation}.tmp")

    def sweep(self, directories: list[Path]) -> None:
        """Removes what others left half written or half removed; brings back what was set aside for its successor."""
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
        match = _TEMPORARY.fullmatch(temporary.name)
        assert match is not None, temporary
        return temporary.with_name(match[1])

    def _write(self) -> None:
        temporary = self.directory / f"{_NAME}.tmp"
        with temporary.open("w", encoding="ascii") as file:
            file.write(f"{self.incarnation}\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.directory / _NAME)

    def _fenced(self, holder: int) -> FencedError:
        return FencedError(
            f"{self.directory.parent}: a newer start of the learner ({holder}) has taken over this run; "
            f"this one ({self.incarnation}) writes nothing more: nothing to do"
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One claim at a time. A claim that was stopped in the middle ends the wait of the next with a sentence."""
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
