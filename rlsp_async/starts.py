"""Numbers of the starts of a run's services, which rise and do not come from a clock.

    number = StartCounter(RUN).next()      one more than every number that was ever given out in this run

The number of a start is its incarnation: of two starts of one worker the hub believes the one with the larger number. A
supervisor numbers the services that it starts and passes the number in RLSP_START; a service that is started by hand
takes the next number itself. A clock that is set back or ahead changes nothing. A number is
above the one in checkpoints/OWNER and above that of the newest learner in the journal.
"""

from __future__ import annotations

import fcntl
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from rlsp_async.errors import unwritable
from rlsp_async.files import replace_file

START = "RLSP_START"
"""Environment variable in which a supervisor passes the number of a start."""
LARGEST = 2**63 - 2**20
"""Larger numbers are damage: a journal and a message hold 64 bits."""
_NAME = "starts"


class StartCounter:
    """The numbers of one run directory. It survives a file that was removed or damaged, and any other process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._newest = 0
        with suppress(OSError):  # `next` says what is wrong
            directory.mkdir(parents=True, exist_ok=True)  # once, and not when it was moved away later

    def next(self) -> int:
        """The number of one more start. Raises MachineError when the disk refuses."""
        path = self._directory / _NAME
        try:
            with open(self._directory / f"{_NAME}.lock", "a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                owner = _number_in(self._directory / "checkpoints" / "OWNER")
                # What else knows a number is asked too: the file may be new, damaged, or an older copy.
                self._newest = max(self._newest, _number_in(path), owner, _learner_in(self._directory)) + 1
                replace_file(path, f"{self._newest}\n", durable=False)
        except OSError as e:
            raise unwritable(path, e) from None
        return self._newest


def newest_start(directory: Path) -> int:
    """The newest number that was given out in a run directory; 0 when that is not known."""
    try:
        return _number_in(directory / _NAME)
    except OSError:
        return 0


def _number_in(path: Path) -> int:
    """The number in a file; 0 when the file is missing or holds none that can be a start."""
    try:
        text = path.read_bytes().strip()
    except FileNotFoundError:
        return 0
    return int(text) if len(text) < 20 and text.isdigit() and int(text) <= LARGEST else 0


def _learner_in(directory: Path) -> int:
    """The newest start of the learner that the journal knows; 0 when there is none to be read."""
    journal = directory / "journal.sqlite"
    if not journal.is_file():
        return 0
    try:
        with closing(sqlite3.connect(f"file:{quote(str(journal))}?mode=ro", uri=True)) as db:
            row = db.execute("SELECT value FROM cursors WHERE name = 'learner'").fetchone()
    except sqlite3.Error:
        return 0
    return int(row[0]) if row and 0 < int(row[0]) <= LARGEST else 0
