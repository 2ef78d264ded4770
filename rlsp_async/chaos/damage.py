"""Damage to the files of a run, and what may follow from it.

    weights      the newest published version: no sampler serves it; the next version comes, or the run ends with a
                 sentence and goes on after a new start
    checkpoint   the newest one, while an older one is whole: a learner that starts uses the older one
    notes        files that only people read, or that can be made again: the run goes on
    journal      the file or its write-ahead log, while nothing runs: the run is refused with one sentence that names
                 the journal, unless no row of any table was hit

`content` is the judge of the last line: every row of every table, read from copies by SQLite itself.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from urllib.parse import unquote, urlsplit

import msgspec

from rlsp_async.audit.history import History
from rlsp_async.errors import DataError
from rlsp_async.messages import StepReport

FLIPPED = 64
"""Bytes that change in each place."""
PLACES = 3
NOTES = ("metrics.jsonl", "timeline.jsonl", "status.json", "report.json", "starts", "checkpoints/OWNER")
JOURNAL = ("journal.sqlite", "journal.sqlite-wal", "journal.tail")

_report = msgspec.msgpack.Decoder(StepReport).decode


def damage(path: Path, how: str, random: Random) -> None:
    """Flips bytes of a file, cuts off its end, empties or removes it. Raises OSError."""
    size = path.stat().st_size
    match how:
        case "flip":
            with path.open("r+b") as file:
                for _ in range(PLACES):
                    at = random.randrange(max(1, size - FLIPPED))
                    file.seek(at)
                    old = file.read(FLIPPED)
                    file.seek(at)
                    file.write(bytes(byte ^ random.randrange(1, 256) for byte in old))
        case "cut":
            with path.open("r+b") as file:
                file.truncate(int(size * random.uniform(0.1, 0.95)))
        case "empty":
            path.write_bytes(b"")
        case _:
            path.unlink()


def newest_weights(run: Path) -> Path | None:
    """The file of the newest published version, as far as the journal knows and the file is there."""
    query = "SELECT report FROM steps WHERE published = 1 ORDER BY step DESC LIMIT 1"
    try:
        with closing(History(run, timeout_s=0.5)) as history:
            reports = [_report(blob) for (blob,) in history.rows(query)]
    except (DataError, msgspec.DecodeError):
        return None
    refs = [report.weights for report in reports if report.weights is not None]
    files = [urlsplit(uri) for ref in refs for uri in (ref.uri, *ref.also)]
    paths = [Path(unquote(uri.path)) for uri in files if uri.scheme == "file"]
    return next((path for path in paths if path.is_file()), None)


def newest_checkpoint(run: Path, spared: Sequence[str]) -> Path | None:
    """The newest complete checkpoint when an older one, which is not in `spared`, is complete too."""
    found = sorted((run / "checkpoints").glob("step-*"), reverse=True)
    whole = [path for path in found if (path / "DONE").is_file() and path.name not in spared]
    return whole[0] if len(whole) > 1 else None


def copy_journal(from_dir: Path, to_dir: Path) -> None:
    """Copies a journal of which no process is at work, with its log; what stood in `to_dir` is replaced."""
    to_dir.mkdir(parents=True, exist_ok=True)
    for name in (*JOURNAL, "journal.sqlite-shm"):
        (to_dir / name).unlink(missing_ok=True)
    for name in JOURNAL:
        if (from_dir / name).is_file():
            shutil.copy(from_dir / name, to_dir / name)


def content(run: Path, place: Path) -> dict[str, str]:
    """A digest of all rows for each table of a journal, read from a copy in `place`; empty: it cannot be read."""
    copy_journal(run, place)
    found: dict[str, str] = {}
    if not (place / JOURNAL[0]).is_file():
        return found
    try:
        with closing(sqlite3.connect(place / JOURNAL[0])) as db:
            tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()]
            for table in tables:
                digest = hashlib.sha256()
                for row in sorted(map(repr, db.execute(f"SELECT * FROM {table} NOT INDEXED"))):
                    digest.update(row.encode())
                found[table] = digest.hexdigest()
    except (sqlite3.Error, UnicodeDecodeError):
        return {}
    return found


def why_wrong(code: int, said: Sequence[str]) -> str:
    """What is wrong with how a run over a damaged journal was refused; empty when it was refused as it must be."""
    words = " ".join(line for line in said if line.startswith("rlsp"))
    if any("Traceback" in line for line in said):
        return "it ended with a traceback"
    if code not in (2, 3):
        return f"it ended with code {code}"
    if "journal" not in words:
        return f"its last words do not name the journal: {words[-200:]}"
    return "it promised that --resume goes on" if "goes on from there" in words else ""
