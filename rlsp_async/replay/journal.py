"""The journal: every record of a run in one SQLite file, committed before anyone hears of it.

    journal = Journal(run / "journal.sqlite", cfg)
    loaded = journal.load()             what the ledger and the plan start from, after any crash
    journal.commit(records)             one transaction; returns when it is on disk
    journal.batch(step)                 the groups of an old step, in the order of its manifest

WAL mode. durability "power": synchronous FULL, every commit is synced; "process": NORMAL, survives kill -9 of the hub
but may lose its last commits with the machine. Blocking: use it from one thread. A group or an evaluation that is
already there is not stored again; a manifest or a step that is would be a bug (LawError, `laws.py`). Errors of the disk
are MachineError: nothing that was not committed has been acknowledged.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from rlsp_async.config import RunConfig, decides_the_weights
from rlsp_async.errors import ConfigError, MachineError
from rlsp_async.messages import PROTOCOL, StepReport, VerifiedGroup
from rlsp_async.replay import bodies
from rlsp_async.replay.laws import check_manifest, check_step
from rlsp_async.replay.records import (
    DEAD,
    Cursor,
    Evaluated,
    Event,
    GroupRecord,
    JournalContent,
    Learnt,
    Manifest,
    Published,
    Put,
    Record,
    Remember,
    Repeated,
    Stepped,
    Total,
)
from rlsp_async.replay.sql import EVENTS_KEPT, EVENTS_SLACK, ROWS, SCHEMA, SCHEMA_VERSION, body_digest, insert
from rlsp_async.replay.success import store as successes

CHECKPOINTS_LOOKED_BACK = 8
PAGE_BYTES = 16_384
"""Of a new file: a body of 40 KB is 3 pages, and the system is asked to write 3 times, not 10."""
WAL_PAGES = 1000
"""Pages in the write-ahead log after which they are moved into the file."""
WAL_BYTES = 32 << 20
"""The log is cut to this when it was longer: a reader had held it open, or a commit was huge."""

_encode = msgspec.msgpack.Encoder().encode
_head = msgspec.msgpack.Decoder(GroupRecord).decode
_manifest = msgspec.msgpack.Decoder(Manifest).decode
_report = msgspec.msgpack.Decoder(StepReport).decode
_result = msgspec.msgpack.Decoder(dict[str, Any]).decode


class Journal:
    """One writer. Raises MachineError when the file cannot be used, ConfigError when it is of another run."""

    def __init__(self, path: Path, cfg: RunConfig) -> None:
        self.path = path
        self._cfg = cfg
        self._prunes = cfg.replay.retention == "checkpoints"
        self._forgot_to = 0
        self._num_events = 0
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(f"PRAGMA synchronous = {'FULL' if cfg.replay.durability == 'power' else 'NORMAL'}")
            self._db.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
            self._db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
            with self._transaction():
                for statement in filter(str.strip, SCHEMA.split(";")):
                    self._db.execute(statement)
        try:
            self._check_run(cfg)
        except ConfigError:
            self._db.close()
            raise

    def commit(self, records: Iterable[Record]) -> None:
        """Stores records in order, all or none."""
        cursors: dict[str, int] = {}
        puts: list[Put] = []
        with self._translated(), self._transaction():
            for record in records:
                if isinstance(record, Put):
                    puts.append(record)
                elif isinstance(record, Cursor):
                    cursors[record.name] = record.value  # of one counter the newest value counts
                else:
                    if isinstance(record, Manifest | Stepped):  # their laws ask the tables
                        self._put(puts)
                        puts = []
                    self._store(record)
            self._put(puts)
            self._db.executemany("INSERT OR REPLACE INTO cursors VALUES (?, ?)", cursors.items())

    def batch(self, step: int) -> list[VerifiedGroup]:
        """The groups of one step, in order. Raises MachineError when one of them is not there any more."""
        with self._translated():
            row = self._db.execute("SELECT manifest FROM manifests WHERE step = ?", (step,)).fetchone()
            if row is None:
                raise MachineError(f"there is no batch of step {step}")
            manifest = _manifest(row[0])
            return successes.put_in(self._db, manifest, [bodies.verified(self._db, i) for i in manifest.groups])

    def close(self) -> None:
        """Idempotent."""
        self._db.close()

    # --- opening -------------------------------------------------------------------------------------------------

    def _check_run(self, cfg: RunConfig) -> None:
        """The first start writes down what the run is; every later one must be the same run."""
        then = dict(self._db.execute("SELECT key, value FROM run").fetchall())
        versions = {"protocol": str(PROTOCOL), "schema": str(SCHEMA_VERSION)}
        for key, value in versions.items():
            if then and then.get(key, "1") != value:
                raise ConfigError(
                    f"{self.path} was begun by another version of rlsp_async ({key} "
                    f"{then.get(key, '1')}, this one has {value}): go on with that version, or give this "
                    "run another name"
                )
        now = versions | _hashes(cfg)
        changed = [key for key, value in now.items() if then.get(key, value) != value]
        if changed:
            names = ", ".join(f"[{key.removeprefix('config.')}]" for key in changed)
            raise ConfigError(
                f"{self.path} was begun with other settings in {names}: go back to the settings in "
                f"{self.path.parent / 'config.toml'}, or give this run another name"
            )
        with self._translated(), self._transaction():
            starts = int(then.get("incarnation", 0)) + 1
            about = {"created": repr(time.time()), "config": msgspec.json.encode(cfg).decode()}
            for key, value in {**about, **now}.items():
                self._db.execute("INSERT OR IGNORE INTO run VALUES (?, ?)", (key, value))
            self._db.execute("INSERT OR REPLACE INTO run VALUES ('incarnation', ?)", (str(starts),))

    def load(self) -> JournalContent:
        """All that survives: live groups with their tokens, totals of the dead, batches, reports, cursors."""
        with self._translated():
            run = dict(self._db.execute("SELECT key, value FROM run").fetchall())
            self._forgot_to = int(run.get("forgot_to", 0))
            rows = self._db.execute("SELECT head FROM groups WHERE dead = 0").fetchall()
            query = "SELECT report FROM steps WHERE published = 1 ORDER BY step DESC LIMIT 1"
            newest = self._db.execute(query).fetchone()
            results = self._db.execute("SELECT key, result FROM evaluations").fetchall()
            last = self._db.execute("SELECT max(group_id) FROM groups").fetchone()[0]
            return JournalContent(
                incarnation=int(run["incarnation"]),
                created=float(run["created"]),
                heads=[_head(row[0]) for row in rows],
                bodies=dict(bodies.live_bodies(self._db)),
                verdicts=dict(bodies.live_verdicts(self._db)),
                totals=self._totals(),
                manifests=self._manifests(),
                reports=self._reports(),
                published=_report(newest[0]) if newest else None,
                evaluations={key: _result(blob) for key, blob in results},
                cursors=dict(self._db.execute("SELECT name, value FROM cursors").fetchall()),
                last_group_id=last or 0,
                successes=list(successes.live(self._db)),
                learnt=[
                    Learnt(stage=stage, what=what, place=place, row=row)
                    for stage, what, place, row in self._db.execute("SELECT stage, what, place, row FROM learnt")
                ],
            )

    def _totals(self) -> list[Total]:
        query = """SELECT purpose, provenance, state, reason, count(*), sum(num_tokens), sum(num_wasted_tokens)
                   FROM groups WHERE dead = 1 GROUP BY 1, 2, 3, 4"""
        return [
            Total(
                purpose=row[0],
                provenance=row[1],
                state=row[2],
                reason=row[3],
                num_groups=row[4],
                num_tokens=row[5],
                num_wasted_tokens=row[6],
            )
            for row in self._db.execute(query)
        ]

    def _manifests(self) -> list[Manifest]:
        query = "SELECT manifest FROM manifests WHERE step > ? ORDER BY step"
        return [_manifest(row[0]) for row in self._db.execute(query, (self._forgot_to,))]

    def _reports(self) -> list[StepReport]:
        """One for each of the newest checkpoints, then the newest of all."""
        query = f"""SELECT report, max(step) FROM steps GROUP BY checkpoint ORDER BY max(step) DESC
                    LIMIT {CHECKPOINTS_LOOKED_BACK}"""
        return [_report(row[0]) for row in self._db.execute(query)][::-1]

    # --- storing -------------------------------------------------------------------------------------------------

    def _store(self, record: Record) -> None:
        match record:
            case Manifest():
                check_manifest(self._db, self._cfg, record)
                self._db.execute(
                    "INSERT INTO manifests VALUES (?, ?, ?, ?, ?)",
                    (record.step, record.stage, record.incarnation, record.at_s, _encode(record)),
                )
            case Stepped():
                check_step(self._db, record)
                self._step(record)
                self._forget(record.forget_to)
            case Repeated(report=report, at_s=at_s):
                self._db.execute(
                    "INSERT INTO repeats (step, incarnation, digest, loss, at_s) VALUES (?, ?, ?, ?, ?)",
                    (report.step, report.incarnation, _digest(report), report.metrics.get("loss"), at_s),
                )
            case Published(report=report):
                query = "UPDATE steps SET published = 1, report = ? WHERE step = ?"
                self._db.execute(query, (_encode(report), report.step))
            case Evaluated(key=key, result=result):
                self._db.execute("INSERT OR IGNORE INTO evaluations VALUES (?, ?)", (key, _encode(result)))
            case Learnt(stage=stage, place=place, row=row, what=what):
                self._db.execute("INSERT OR REPLACE INTO learnt VALUES (?, ?, ?, ?)", (stage, what, place, row))
            case Remember():
                successes.store(self._db, record, self._forgot_to if self._prunes else -1)
            case Event():
                self._event(record)

    def _put(self, puts: list[Put]) -> None:
        """Heads, bodies and verdicts of many groups; what no checkpoint can need goes at once."""
        for at in range(0, len(puts), ROWS):
            self._put_some(puts[at : at + ROWS])
        if self._prunes:
            bodies.delete(self._db, [put.head.group_id for put in puts if self._is_needless(put.head)])

    def _put_some(self, puts: list[Put]) -> None:
        blobs = [None if put.body is None else _encode(put.body) for put in puts]
        insert(self._db, "groups", [_row(put.head, body) for put, body in zip(puts, blobs, strict=True)])
        insert(
            self._db,
            "bodies",
            [(put.head.group_id, body) for put, body in zip(puts, blobs, strict=True) if body is not None],
        )
        insert(
            self._db,
            "verdicts",
            [(put.head.group_id, _encode(put.verdicts)) for put in puts if put.verdicts is not None],
        )

    def _is_needless(self, head: GroupRecord) -> bool:
        """Nobody reads its tokens again. Trained long ago and buried only now: it waited in vain for a second use."""
        forgotten = head.state == "trained" and head.step <= self._forgot_to
        return forgotten or head.state in ("dropped", "evaluated")

    def _step(self, record: Stepped) -> None:
        report = record.report
        self._db.execute(
            "INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                report.step,
                record.stage,
                report.checkpoint,
                report.weights is not None,
                report.incarnation,
                _digest(report),
                record.at_s,
                _encode(report),
            ),
        )

    def _event(self, event: Event) -> None:
        self._db.execute(
            "INSERT INTO events (at_s, kind, worker, key, detail) VALUES (?, ?, ?, ?, ?)",
            (event.at_s, event.kind, event.worker, event.key, event.detail),
        )
        self._num_events += 1
        if self._num_events % EVENTS_SLACK == 0:
            self._db.execute("DELETE FROM events WHERE seq <= (SELECT max(seq) FROM events) - ?", (EVENTS_KEPT,))

    def _forget(self, step: int) -> None:
        """No kept checkpoint needs the tokens that were last trained at this step or before; heads stay."""
        if step <= self._forgot_to:
            return
        if self._prunes:
            bodies.delete_trained(self._db, self._forgot_to, step)
            successes.delete_gone(self._db, step)
        self._forgot_to = step
        self._db.execute("INSERT OR REPLACE INTO run VALUES ('forgot_to', ?)", (str(step),))

    # --- the disk ------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:  # SQLite itself rolls back when the disk is full
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (MachineError, msgspec.DecodeError) as e:
            raise MachineError(f"{self.path}: {e}; to see all that is wrong: rlsp audit {self.path.parent}") from None
        except (sqlite3.Error, OSError) as e:
            raise MachineError(
                f"{self.path}: the journal cannot be used: {e}; nothing that is not in it was "
                "acknowledged, so make room or mend the disk and start the run again"
            ) from None


def _row(head: GroupRecord, body: bytes | None) -> tuple[Any, ...]:
    """A row of `groups`."""
    return (
        head.group_id,
        head.purpose,
        head.provenance,
        head.stage,
        head.state,
        head.reason,
        head.num_tokens,
        head.num_wasted_tokens,
        head.uses,
        head.step,
        head.state in DEAD,
        head.oldest,
        head.newest,
        head.num_rollouts,
        head.num_verdicts,
        None if body is None else body_digest(body),
        head.why,
        _encode(head),
    )


def _digest(report: StepReport) -> str:
    """Of the weights that a step published; empty when it published none."""
    return report.weights.digest if report.weights else ""


def _hashes(cfg: RunConfig) -> dict[str, str]:
    """One hash a section, so that the section which differs can be named."""
    sections = msgspec.to_builtins(cfg)
    free = [name for name in sections if name in ("runs_dir", "learner") or not decides_the_weights(f"{name}.")]
    sections["learner"] = {"tokens_per_microbatch": cfg.learner.tokens_per_microbatch}
    return {
        f"config.{name}": hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()
        for name, value in sections.items()
        if name not in free or name == "learner"
    }
