"""Whether a journal is still what was written: asked at each start of the hub, before anything is written to it.

    check_journal(path, may_lose=False)     returns, or raises one MachineError: what is damaged or lost, and what to do

What is compared, in this order, within CHECK_S seconds:

    the end       journal.tail, beside the journal, has the number of the newest commit: the journal must hold as many.
                  A write-ahead log that was removed, cut or damaged takes commits with it, without an error of SQLite
    the rows      each row against its seal (`sql.SEALED`), small tables first; manifests and steps have no gap
    the pages     SQLite's own quick_check, and the index of the live groups against its table
    the tokens    each stored body against its digest, the newest first

A journal that takes longer is used as far as it was compared, and the log says so: the tokens of a batch are compared
again when they are read. Damage that hits nothing of these (free pages) is not found, and does no harm. Rows of older
versions have no seals and count as whole.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

import structlog

from rlsp_async.contents import printable
from rlsp_async.errors import MachineError
from rlsp_async.replay.sql import SCHEMA_VERSION, SEALED, body_digest, seal

CHECK_S = 30.0
"""Longest time that a start of the hub spends on the comparison; workers wait longer than this for a hub."""
SHOW_EVERY_S = 5.0
STEPS = 100_000
"""Instructions of SQLite's machine between two looks at the clock."""
WIDTH = 20
"""Digits of the number in journal.tail, so that one write replaces it."""
NAMED = 3
"""Damaged rows that the sentence names."""
_KEYS = {"run": "key", "cursors": "name", "evaluations": "key", "events": "seq", "repeats": "seq", "amendments": "seq"}
"""Columns that name a row for people; in the other tables it is the first one."""

log = structlog.get_logger("replay")


class CommitTail:
    """The number of the newest commit, in a file beside the journal. Written after each commit, never synced: after a
    power cut it may be older than the journal, and says nothing then."""

    def __init__(self, journal: Path) -> None:
        self.path = tail_path(journal)
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def write(self, num_commits: int) -> None:
        """So many commits are on disk."""
        os.pwrite(self._file, f"{num_commits:0{WIDTH}d}\n".encode(), 0)

    def close(self) -> None:
        """Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def tail_path(journal: Path) -> Path:
    """Where the number of the newest commit of a journal is."""
    return journal.with_suffix(".tail")


def read_tail(journal: Path) -> int:
    """The number of commits that a journal must hold; 0 when that is not known (no file, or not a number)."""
    try:
        text = tail_path(journal).read_bytes()[: WIDTH + 1]
    except FileNotFoundError:
        return 0
    return int(text) if len(text) == WIDTH + 1 and text.strip().isdigit() else 0


def check_journal(path: Path, *, may_lose: bool = False, bound_s: float = CHECK_S) -> None:
    """Compares a journal with what was written.

    Args:
        path: the journal; one that is not there is a new one, unless journal.tail says otherwise.
        may_lose: the run has `replay.durability = "process"`: a power cut may take the last commits; that is logged.
        bound_s: longest time.

    Raises: MachineError, one sentence, when rows are damaged or commits are lost.
    """
    wanted = read_tail(path)
    if not wanted and (not path.is_file() or not path.stat().st_size):
        return
    wrong = find_damage(path, bound_s)
    if wrong:
        raise MachineError(
            f"{path} is damaged: {wrong}; nothing was changed: put {path.name} and {path.name}-wal back from a copy, "
            f"or start anew under another name; to see what else is wrong: rlsp audit {path.parent}"
        )
    held = num_commits(path)
    if held >= wanted:
        return
    lost = f"{path} has lost its end: it holds {held:,} of {wanted:,} commits that were made"
    if may_lose:
        log.warning(f'{lost}; replay.durability is "process", so the run goes on from there')
        return
    raise MachineError(
        f"{lost}, because {path.name}-wal or pages of {path.name} were removed, cut or damaged; put these files back "
        f"from a copy; to go on without what was lost, where no checkpoint is newer, remove {tail_path(path)}"
    )


def find_damage(path: Path, bound_s: float = CHECK_S) -> str:
    """What differs from what was written, for a sentence; empty when nothing was found. Changes nothing."""
    if not path.is_file():
        return "the file is gone"
    if not path.stat().st_size:
        return "the file is empty"
    with closing(_open(path)) as db:
        clock = _Clock(path, bound_s)
        db.set_progress_handler(clock.is_late, STEPS)
        try:
            checks = () if _is_of_another_version(db) else (_rows, _gaps, _pages, _tokens)
            for check in checks:
                if wrong := check(db, clock):
                    return wrong
        except sqlite3.OperationalError as e:
            if not clock.has_ended:
                return str(e)
            log.warning(f"{path} was compared for {bound_s:.0f} s and not to its end ({clock.at}); it is used as it is")
        except sqlite3.DatabaseError as e:
            return str(e)
    return ""


def num_commits(path: Path) -> int:
    """How many commits a journal holds; 0 when it counts none: an older version made it, or nothing is left in it."""
    if not path.is_file() or not path.stat().st_size:
        return 0
    with closing(_open(path)) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'commits'").fetchall():
            return 0
        [(num,)] = db.execute("SELECT coalesce(max(num), 0) FROM commits").fetchall()
        return int(num)


def _open(path: Path) -> sqlite3.Connection:
    """For reading only: closing it moves nothing from the log into the file."""
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None)


class _Clock:
    """Ends a comparison that takes too long, and shows that a long one goes on."""

    def __init__(self, path: Path, bound_s: float) -> None:
        self._path, self._bound_s, self._began_s = path, bound_s, time.monotonic()
        self._shown_s = 0.0
        self.at = "its rows"
        self.has_ended = False

    def is_late(self) -> bool:
        """Whether the time is up; SQLite then interrupts its statement."""
        gone_s = time.monotonic() - self._began_s
        if gone_s - self._shown_s > SHOW_EVERY_S:
            self._shown_s = gone_s
            log.info(f"{self._path} is compared with its digests ({self.at}), since {gone_s:.0f} s")
        self.has_ended = gone_s > self._bound_s
        return self.has_ended

    def require_time(self) -> None:
        """Raises OperationalError when the time is up."""
        if self.is_late():
            raise sqlite3.OperationalError("interrupted")


def _is_of_another_version(db: sqlite3.Connection) -> bool:
    """Whether the tables have other meanings, so that nothing can be compared: the journal will be refused."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'run'").fetchall():
        return False
    rows = db.execute("SELECT * FROM run WHERE key = 'schema'").fetchall()
    return any(row[1] != str(SCHEMA_VERSION) and (len(row) < 3 or row[2] in (None, seal(row[:2]))) for row in rows)


# --- what is compared ------------------------------------------------------------------------------------------------


def _rows(db: sqlite3.Connection, clock: _Clock) -> str:
    """Rows that differ from their seals."""
    there = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()}
    for table, columns in SEALED.items():
        if table not in there or "seal" not in [row[1] for row in db.execute(f"PRAGMA table_info({table})")]:
            continue
        clock.at = f"the rows of {table}"
        name = _KEYS.get(table, columns[0])
        query = f"SELECT {name}, seal, {', '.join(columns)} FROM {table} NOT INDEXED"
        found, num = [], 0
        for key, sealed, *values in db.execute(query):
            num += 1
            if num % 1000 == 0:
                clock.require_time()
            if sealed is not None and seal(values) != sealed:
                found.append(printable(str(key), 40))
        if found:
            return _named(found, f"of the {num:,} rows of its table {table}", "not what was written")
    return ""


def _gaps(db: sqlite3.Connection, clock: _Clock) -> str:
    """Steps and manifests are numbered without a gap from 1."""
    clock.at = "the numbers of its steps"
    for table in ("manifests", "steps"):
        with suppress(sqlite3.OperationalError):  # a journal without tables is a new one
            [(num, last)] = db.execute(f"SELECT count(*), coalesce(max(step), 0) FROM {table}").fetchall()
            if num != last:
                return f"{last - num:,} of the {last:,} rows of its table {table} are gone"
    return ""


def _pages(db: sqlite3.Connection, clock: _Clock) -> str:
    """SQLite's own check; and the index of live groups, whose content that one does not compare."""
    clock.at = "its pages"
    [(health,)] = db.execute("PRAGMA quick_check(1)").fetchall()
    if health != "ok":
        return printable(" ".join(str(health).split()), 200)
    live = "SELECT count(*), total(group_id) FROM groups {} WHERE dead = 0"
    try:
        by_table, by_index = (
            db.execute(live.format(how)).fetchall() for how in ("NOT INDEXED", "INDEXED BY live_groups")
        )
    except sqlite3.OperationalError:
        clock.require_time()
        return ""  # no such table or index yet
    return "" if by_table == by_index else "its index of live groups does not fit its table groups"


def _tokens(db: sqlite3.Connection, clock: _Clock) -> str:
    """Stored bodies that differ from their digests, the newest first."""
    clock.at = "its tokens"
    query = "SELECT group_id, body, body_digest FROM bodies JOIN groups USING (group_id) ORDER BY group_id DESC"
    found, num = [], 0
    try:
        rows: Iterator[tuple[int, bytes, bytes | None]] = db.execute(query)
    except sqlite3.OperationalError:
        clock.require_time()
        return ""  # no such table yet
    for group_id, body, digest in rows:
        num += 1
        clock.require_time()
        if digest is not None and body_digest(body) != digest:
            found.append(str(group_id))
    return _named(found, f"of the tokens of {num:,} groups", "not those that came") if found else ""


def _named(found: list[str], of: str, how: str) -> str:
    some = ", ".join(found[:NAMED]) + (", ..." if len(found) > NAMED else "")
    return f"{len(found):,} {of} ({some}) are {how}"
