"""The journal: every record of a run in one SQLite file, committed before anyone hears of it.

    journal = Journal(run / "journal.sqlite", cfg)
    content = journal.load()            what the ledger and the plan start from, after any crash
    journal.commit(records)             one transaction; returns when it is on disk
    journal.batch(step)                 the groups of an old step, in the order of its manifest

WAL mode. durability "power": synchronous FULL, every commit is synced; "process": NORMAL, survives kill -9 of the hub
but may lose its last commits with the machine. Blocking: use it from one thread. A group or an evaluation that is
stored already is not stored again. Errors of the disk are MachineError: nothing that was not committed has been
acknowledged.

Invariants. Before a manifest or a step is stored, the tables themselves are asked whether it may be: a bug elsewhere
cannot train a wrong batch. A record that breaks an invariant raises InvariantError and its transaction is rolled back.

Damage. Every row has a digest, which is compared at each start before anything is written, and a small file beside the
journal (journal.tail) has the number of commits, so that a log that was cut or removed is noticed (`integrity.py`).

Tokens. A body is stored with a digest of its bytes, and is checked against it when it is read. With `replay.retention`
"checkpoints" the tokens of a group are deleted once it is evaluated or dropped, or was trained at a step that is older
than the oldest kept checkpoint. SQLite fills the freed pages again, so the file stops growing.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from rlsp_async.config import RunConfig, StageConfig, decides_the_weights, sections_to_keep
from rlsp_async.errors import ConfigError, InvariantError, MachineError
from rlsp_async.messages import PROTOCOL, RolloutGroup, StepReport, Verdict, VerifiedGroup
from rlsp_async.replay.integrity import CommitTail, check_journal
from rlsp_async.replay.policies import PolicyStore, policy_stores
from rlsp_async.replay.records import (
    DEAD,
    Amended,
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
    Repeated,
    Stepped,
    Total,
    without_groups,
)
from rlsp_async.replay.run_clock import boot_id, run_clock
from rlsp_async.replay.sql import (
    EVENTS_KEPT,
    EVENTS_SLACK,
    ROWS,
    SCHEMA,
    SCHEMA_VERSION,
    SEALED,
    Database,
    body_digest,
    insert,
    put_row,
    row_statement,
    seal,
    select,
)

CHECKPOINTS_LOOKED_BACK = 8
TIMED = ("manifests", "steps", "events")
"""Tables that say when their rows were made."""
PAGE_BYTES = 16_384
"""Page size of a new file: a body of 40 KB is 3 pages and 3 writes of the system, instead of 10."""
WAL_PAGES = 1000
"""Pages in the write-ahead log after which they are moved into the file."""
WAL_BYTES = 32 << 20
"""The log is cut to this when it has grown longer, because a reader held it open or a commit was huge."""

_encode = msgspec.msgpack.Encoder().encode
_record = msgspec.msgpack.Decoder(GroupRecord).decode
_body = msgspec.msgpack.Decoder(RolloutGroup).decode
_verdicts = msgspec.msgpack.Decoder(list[Verdict]).decode
_manifest = msgspec.msgpack.Decoder(Manifest).decode
_report = msgspec.msgpack.Decoder(StepReport).decode
_result = msgspec.msgpack.Decoder(dict[str, Any]).decode


class Journal:
    """One writer. Raises MachineError when the file cannot be used, ConfigError when it is of another run."""

    def __init__(self, path: Path, cfg: RunConfig) -> None:
        self.path = path
        self._cfg = cfg
        self._prunes = cfg.replay.retention == "checkpoints"
        self._stores = policy_stores()
        self._forgot_to = 0
        self._num_events = 0
        check_journal(path, may_lose=cfg.replay.durability == "process")
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(f"PRAGMA synchronous = {'FULL' if cfg.replay.durability == 'power' else 'NORMAL'}")
            self._db.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
            self._db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
            with self._transaction():
                schema = SCHEMA + "".join(store.schema for store in self._stores.values())
                for statement in filter(str.strip, schema.split(";")):
                    self._db.execute(statement)
                self._add_seals()
                [(num,)] = self._db.execute("SELECT coalesce(max(num), 0) FROM commits").fetchall()
            self._num_commits = int(num)
            self._tail = CommitTail(path)
        try:
            self._check_run(cfg)
        except ConfigError:
            self.close()
            raise

    def _add_seals(self) -> None:
        """A journal of an older version gets the columns; its rows stay without seals."""
        for table in SEALED:
            if "seal" not in [row[1] for row in self._db.execute(f"PRAGMA table_info({table})")]:
                self._db.execute(f"ALTER TABLE {table} ADD COLUMN seal BLOB")

    def commit(self, records: Iterable[Record]) -> None:
        """Stores records in order, all or none."""
        cursors: dict[str, int] = {}
        puts: list[Put] = []
        with self._translated(), self._transaction():
            for record in records:
                if isinstance(record, Put):
                    puts.append(record)
                elif isinstance(record, Cursor):
                    cursors[record.name] = record.value  # only the newest value of a counter is stored
                else:
                    if isinstance(record, Manifest | Amended | Stepped):  # their invariants ask the tables
                        self._put(puts)
                        puts = []
                    self._store(record)
            self._put(puts)
            newest = [(*cursor, seal(cursor)) for cursor in cursors.items()]
            self._db.executemany(row_statement("INSERT OR REPLACE", "cursors"), newest)
            self._count()
        with self._translated():
            self._tail.write(self._num_commits)

    def batch(self, step: int) -> list[VerifiedGroup]:
        """The groups of one step, in order, as the learner got them. Raises MachineError when one is deleted or
        damaged."""
        with self._translated():
            row = self._db.execute("SELECT manifest FROM manifests WHERE step = ?", (step,)).fetchone()
            if row is None:
                raise MachineError(f"there is no batch of step {step}")
            manifest = _manifest(row[0])
            groups = [_read_group(self._db, group_id) for group_id in manifest.groups]
            for store in self._stores.values():
                groups = store.restore_batch(self._db, manifest, groups)
            return groups

    def pragma(self, statement: str) -> Any:
        """Runs one PRAGMA on this connection and returns its value: what is synced, how large the file may be."""
        row = self._db.execute(f"PRAGMA {statement}").fetchone()
        return row[0] if row else None

    def close(self) -> None:
        """Idempotent."""
        self._tail.close()
        self._db.close()

    # --- opening -------------------------------------------------------------------------------------------------

    def _check_run(self, cfg: RunConfig) -> None:
        """The first start stores what the run is; every later start must be of the same run."""
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
                put_row(self._db, "INSERT OR IGNORE", "run", (key, value))
            put_row(self._db, "INSERT OR REPLACE", "run", ("incarnation", str(starts)))
            clock = run_clock(then.get("clock", ""), self._age(then), boot_id(), time.monotonic())
            put_row(self._db, "INSERT OR REPLACE", "run", ("clock", clock))
            self._count()
        with self._translated():
            self._tail.write(self._num_commits)

    def _age(self, then: dict[str, str]) -> float:
        """How old the run is, in seconds, as far as the journal and the wall clock know it; 0 for a new run."""
        if not then:
            return 0.0
        newest = [self._db.execute(f"SELECT max(at_s) FROM {table}").fetchone()[0] for table in TIMED]
        return max(0.0, time.time() - float(then["created"]), *(at_s or 0.0 for at_s in newest))

    def load(self) -> JournalContent:
        """Everything that survives a crash. Raises MachineError when stored tokens are damaged."""
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
                zero_s=float(run["clock"].split()[-1]),
                groups=[_record(row[0]) for row in rows],
                bodies=dict(_live_bodies(self._db)),
                verdicts=dict(_live_verdicts(self._db)),
                totals=self._totals(),
                manifests=self._manifests(),
                reports=self._reports(),
                published=_report(newest[0]) if newest else None,
                evaluations={key: _result(blob) for key, blob in results},
                cursors=dict(self._db.execute("SELECT name, value FROM cursors").fetchall()),
                last_group_id=last or 0,
                policies={name: store.load(self._db) for name, store in self._stores.items()},
                learnt=[
                    Learnt(stage=stage, what=what, index=index, row=row)
                    for stage, what, index, row in self._db.execute("SELECT stage, what, place, row FROM learnt")
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
        """One report for each of the newest checkpoints, then the newest report of all."""
        query = f"""SELECT report, max(step) FROM steps GROUP BY checkpoint ORDER BY max(step) DESC
                    LIMIT {CHECKPOINTS_LOOKED_BACK}"""
        return [_report(row[0]) for row in self._db.execute(query)][::-1]

    # --- storing -------------------------------------------------------------------------------------------------

    def _store(self, record: Record) -> None:
        match record:
            case Manifest():
                check_manifest(self._db, self._cfg, record, self._stores.values())
                put_row(self._db, "INSERT", "manifests", _manifest_row(record))
            case Amended(manifest=manifest):
                former = check_amended(self._db, record)
                decision = (manifest.step, json.dumps(record.groups), record.why, float(record.at_s), former)
                put_row(self._db, "INSERT", "amendments", decision)
                put_row(self._db, "INSERT OR REPLACE", "manifests", _manifest_row(manifest))
            case Stepped():
                check_step(self._db, record)
                self._step(record)
                self._forget(record.forget_to)
            case Repeated(report=report, at_s=at_s):
                loss = _number(report.metrics.get("loss"))
                again = (report.step, report.incarnation, _digest(report), loss, float(at_s))
                put_row(self._db, "INSERT", "repeats", again)
            case Published(report=report):
                query = "SELECT step, stage, checkpoint, 1, incarnation, digest, at_s FROM steps WHERE step = ?"
                for row in self._db.execute(query, (report.step,)).fetchall():
                    put_row(self._db, "INSERT OR REPLACE", "steps", (*row, _encode(report)))
            case Evaluated(key=key, result=result):
                put_row(self._db, "INSERT OR IGNORE", "evaluations", (key, _encode(result)))
            case Learnt(stage=stage, index=index, row=blob, what=what):
                put_row(self._db, "INSERT OR REPLACE", "learnt", (stage, what, index, blob))
            case Event():
                self._event(record)
            case _:
                self._store_of(record).store(self._db, record, self._forgot_to if self._prunes else -1)

    def _store_of(self, record: Record) -> PolicyStore:
        """The replay policy that stores this kind of record."""
        return next(store for store in self._stores.values() if isinstance(record, store.records))

    def _put(self, puts: list[Put]) -> None:
        """Records, bodies and verdicts of many groups; tokens that no checkpoint can need are deleted at once."""
        for at in range(0, len(puts), ROWS):
            self._put_some(puts[at : at + ROWS])
        if self._prunes:
            _delete_tokens(self._db, [put.record.group_id for put in puts if self._is_needless(put.record)])

    def _put_some(self, puts: list[Put]) -> None:
        blobs = [None if put.body is None else _encode(put.body) for put in puts]
        insert(self._db, "groups", [_row(put.record, body) for put, body in zip(puts, blobs, strict=True)])
        insert(
            self._db,
            "bodies",
            [(put.record.group_id, body) for put, body in zip(puts, blobs, strict=True) if body is not None],
        )
        insert(
            self._db,
            "verdicts",
            [_verdicts_row(put.record.group_id, put.verdicts) for put in puts if put.verdicts is not None],
        )

    def _is_needless(self, record: GroupRecord) -> bool:
        """Whether nobody reads a group's tokens again. A group that waited in vain for a further use becomes trained
        long after its last step."""
        is_forgotten = record.state == "trained" and record.step <= self._forgot_to
        return is_forgotten or record.state in ("dropped", "evaluated")

    def _step(self, record: Stepped) -> None:
        report = record.report
        row = (
            report.step,
            record.stage,
            report.checkpoint,
            int(report.weights is not None),
            report.incarnation,
            _digest(report),
            float(record.at_s),
            _encode(report),
        )
        put_row(self._db, "INSERT", "steps", row)

    def _event(self, event: Event) -> None:
        row = (float(event.at_s), event.kind, event.worker, event.key, event.detail)
        put_row(self._db, "INSERT", "events", row)
        self._num_events += 1
        if self._num_events % EVENTS_SLACK == 0:
            self._db.execute("DELETE FROM events WHERE seq <= (SELECT max(seq) FROM events) - ?", (EVENTS_KEPT,))

    def _forget(self, step: int) -> None:
        """No kept checkpoint needs the tokens that were last trained at this step or before; the records stay."""
        if step <= self._forgot_to:
            return
        if self._prunes:
            _delete_trained(self._db, self._forgot_to, step)
            for store in self._stores.values():
                store.prune(self._db, step)
        self._forgot_to = step
        put_row(self._db, "INSERT OR REPLACE", "run", ("forgot_to", str(step)))

    # --- the disk ------------------------------------------------------------------------------------------------

    def _count(self) -> None:
        """One more commit is being made."""
        self._num_commits += 1
        self._db.execute("INSERT OR REPLACE INTO commits VALUES (1, ?)", (self._num_commits,))

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


def _number(value: float | None) -> float | None:
    """A float, or None for no number, as SQLite stores it."""
    return None if value is None or value != value else float(value)


def _row(record: GroupRecord, body: bytes | None) -> tuple[Any, ...]:
    """A row of `groups`."""
    facts = (
        record.group_id,
        record.purpose,
        record.provenance,
        record.stage,
        record.state,
        record.reason,
        record.num_tokens,
        record.num_wasted_tokens,
        record.uses,
        record.step,
        int(record.state in DEAD),
        record.oldest,
        record.newest,
        record.num_rollouts,
        record.num_verdicts,
    )
    words = (record.why, _encode(record))
    return (*facts, None if body is None else body_digest(body), *words, seal((*facts, *words)))


def _verdicts_row(group_id: int, verdicts: list[Verdict]) -> tuple[Any, ...]:
    """A row of `verdicts`."""
    row = (group_id, _encode(verdicts))
    return (*row, seal(row))


def _manifest_row(manifest: Manifest) -> tuple[Any, ...]:
    """A row of `manifests`."""
    return (manifest.step, manifest.stage, manifest.incarnation, float(manifest.at_s), _encode(manifest))


def _digest(report: StepReport) -> str:
    """Digest of the weights that a step published; empty when it published none."""
    return report.weights.digest if report.weights else ""


def _hashes(cfg: RunConfig) -> dict[str, str]:
    """One hash for each section of the settings, so that an error can name the section that differs."""
    sections = sections_to_keep(cfg)
    free = [name for name in sections if name in ("runs_dir", "learner") or not decides_the_weights(f"{name}.")]
    sections["learner"] = {"tokens_per_microbatch": cfg.learner.tokens_per_microbatch}
    return {
        f"config.{name}": hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()
        for name, value in sections.items()
        if name not in free or name == "learner"
    }


# --- invariants ------------------------------------------------------------------------------------------------------

_ROWS = """SELECT group_id, state, step, provenance, oldest, uses, num_rollouts, num_verdicts FROM groups
           WHERE group_id IN"""


def check_manifest(db: Database, cfg: RunConfig, manifest: Manifest, stores: Iterable[PolicyStore]) -> None:
    """Steps have no gap; every group is whole, verified, fresh enough, charged for this step and within its uses.

    Raises InvariantError. The replay policies check their own replacements.
    """
    last = db.execute("SELECT max(step) FROM manifests").fetchone()[0] or 0
    if manifest.step != last + 1:
        raise InvariantError(f"the manifest of step {manifest.step} would follow that of step {last}")
    if len(set(manifest.groups)) != len(manifest.groups):
        raise InvariantError(f"the manifest of step {manifest.step} names a group twice")
    stage = cfg.stages[manifest.stage]
    rows = {row[0]: row[1:] for row in select(db, _ROWS, manifest.groups)}
    for group_id in manifest.groups:
        wrong = find_violation(rows.get(group_id), manifest.step, stage, cfg.sampling.rollouts)
        if wrong:
            raise InvariantError(f"group {group_id} cannot be in the batch of step {manifest.step}: {wrong}")
    for store in stores:
        store.check_manifest(db, cfg, manifest)


def find_violation(row: tuple[Any, ...] | None, step: int, stage: StageConfig, rollouts: int) -> str:
    """Why a group cannot be in the batch of `step`; empty when it can.

    `row` is its row of `groups` (state, step, provenance, oldest, uses, num_rollouts, num_verdicts), `rollouts` the
    number of rollouts that a sampled group has.
    """
    if row is None:
        return "the journal does not know it"
    state, charged_for, provenance, oldest, uses, num_rollouts, num_verdicts = row
    lag = 0 if provenance == "demonstration" else step - 1 - oldest
    if state != "training" or charged_for != step:
        return f"it is {state}, charged for step {charged_for}"
    if not 0 <= lag <= stage.max_lag:
        return f"its lag is {lag}, outside 0..{stage.max_lag}"
    if not 1 <= uses <= stage.max_uses:
        return f"it has {uses} uses of {stage.max_uses}"
    if not is_whole(stage, provenance, num_rollouts, rollouts):
        return f"it has {num_rollouts} rollouts of {rollouts}"
    if num_verdicts != num_rollouts and (provenance != "demonstration" or num_verdicts):
        return f"it has {num_verdicts} true verdicts on {num_rollouts} rollouts"
    return ""


def is_whole(stage: StageConfig, provenance: str, num: int, rollouts: int) -> bool:
    """Whether a group may have `num` rollouts: exactly `rollouts` when it was sampled, one when it is a demonstration
    of the task, at most `rollouts` when it was imported."""
    if provenance != "demonstration":
        return num == rollouts
    return 1 <= num <= rollouts if stage.source == "imported" else num == 1


def check_amended(db: Database, amended: Amended) -> bytes:
    """A batch loses groups only while its step is not reported, keeps the order of the others, and what it loses is not
    in training any more. Returns the stored bytes of the former manifest. Raises InvariantError."""
    step = amended.manifest.step
    row = db.execute("SELECT manifest FROM manifests WHERE step = ?", (step,)).fetchone()
    if row is None or db.execute("SELECT 1 FROM steps WHERE step = ?", (step,)).fetchone() is not None:
        raise InvariantError(f"the batch of step {step} cannot change: it was never stored, or its step is reported")
    former = _manifest(row[0])
    if not amended.groups or amended.manifest != without_groups(former, amended.groups):
        raise InvariantError(f"the new batch of step {step} is not the former one without groups {amended.groups}")
    query = "SELECT group_id FROM groups WHERE state = 'training' AND group_id IN"
    if in_training := list(select(db, query, amended.groups)):
        raise InvariantError(f"group {in_training[0][0]} is taken out of step {step} and still in training")
    blob: bytes = row[0]
    return blob


def check_step(db: Database, stepped: Stepped) -> None:
    """A step is reported once, after the one before it, and its batch was stored before. Raises InvariantError."""
    step = stepped.report.step
    last = db.execute("SELECT max(step) FROM steps").fetchone()[0] or 0
    if step != last + 1:
        raise InvariantError(f"the report of step {step} would follow that of step {last}")
    if db.execute("SELECT 1 FROM manifests WHERE step = ?", (step,)).fetchone() is None:
        raise InvariantError(f"step {step} was reported, but no batch of it was ever written down")


# --- tokens ----------------------------------------------------------------------------------------------------------


def _live_bodies(db: Database) -> Iterator[tuple[int, RolloutGroup]]:
    """(group id, tokens) of every live group. Raises MachineError when stored tokens are damaged."""
    query = "SELECT group_id, body, body_digest FROM groups JOIN bodies USING (group_id) WHERE dead = 0"
    return ((group_id, _checked(group_id, body, digest)) for group_id, body, digest in db.execute(query))


def _live_verdicts(db: Database) -> Iterator[tuple[int, list[Verdict]]]:
    """(group id, verdicts) of every live group."""
    query = "SELECT group_id, verdicts FROM groups JOIN verdicts USING (group_id) WHERE dead = 0"
    return ((group_id, _verdicts(blob)) for group_id, blob in db.execute(query))


def _read_group(db: Database, group_id: int) -> VerifiedGroup:
    """One group, live or dead. Raises MachineError when its tokens are deleted or damaged."""
    query = "SELECT body, body_digest FROM bodies JOIN groups USING (group_id) WHERE group_id = ?"
    row = db.execute(query, (group_id,)).fetchone()
    if row is None:
        raise MachineError(f"the tokens of group {group_id} are not there any more")
    verdicts = db.execute("SELECT verdicts FROM verdicts WHERE group_id = ?", (group_id,)).fetchone()
    return VerifiedGroup(group=_checked(group_id, *row), verdicts=_verdicts(verdicts[0]) if verdicts else [])


def _checked(group_id: int, body: bytes, digest: bytes | None) -> RolloutGroup:
    if digest is None or body_digest(body) != digest:
        raise MachineError(f"the stored tokens of group {group_id} are not those that came (their digest differs)")
    return _body(body)


def _delete_tokens(db: Database, group_ids: list[int]) -> None:
    """Deletes the tokens and verdicts of groups; their records stay."""
    for table in ("bodies", "verdicts"):
        list(select(db, f"DELETE FROM {table} WHERE group_id IN", group_ids))


def _delete_trained(db: Database, after: int, upto: int) -> None:
    """Deletes the tokens of the dead groups of the batches of steps after+1..upto, unless a later batch holds them
    too."""
    blobs = db.execute("SELECT manifest FROM manifests WHERE step > ? AND step <= ?", (after, upto)).fetchall()
    blobs += db.execute("SELECT former FROM amendments WHERE step > ? AND step <= ?", (after, upto)).fetchall()
    for manifest in [_manifest(row[0]) for row in blobs]:
        query = f"SELECT group_id FROM groups WHERE dead = 1 AND step <= {upto:d} AND group_id IN"
        _delete_tokens(db, [row[0] for row in select(db, query, manifest.groups)])
