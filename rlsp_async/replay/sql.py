"""The tables of a run's journal, and statements for many rows at once.

`Journal` writes these tables and `rlsp audit` reads them; a replay policy may add tables of its own
(`policies.PolicyStore.schema`). The rows of `groups`, `manifests`, `amendments`, `steps` and `repeats` are kept for
ever, and the newest EVENTS_KEPT rows of `events`, so that a run can be checked long after its tokens were deleted.
`amendments` has each manifest as it was before groups were taken out of it. `bodies` and `verdicts` hold what a learner
may still be sent again; `groups.body_digest` is the digest of a body as it came. Every other table has a column `seal`,
a digest of the row's other values (SEALED): `integrity.py` compares it at each start of the hub. A row of an older
version has none (NULL), and is believed. The one row of `commits` counts the transactions.

    insert(db, "bodies", [(7, b"..."), (8, b"...")])
    put_row(db, "INSERT", "cursors", ("train", 12))
    select(db, "SELECT group_id, state FROM groups WHERE group_id IN", [7, 8])

Many rows share one statement: Python pays for one call instead of many, and SQLite releases the interpreter lock to the
hub's loop while it works.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Protocol

import msgspec

SCHEMA_VERSION = 3
EVENTS_KEPT = 100_000
EVENTS_SLACK = 1_000
"""Number of further events that are collected before the oldest are deleted."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS run (key TEXT PRIMARY KEY, value TEXT NOT NULL, seal BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS groups (
    group_id INTEGER PRIMARY KEY, purpose TEXT NOT NULL, provenance TEXT NOT NULL, stage TEXT NOT NULL,
    state TEXT NOT NULL, reason TEXT NOT NULL, num_tokens INTEGER NOT NULL, num_wasted_tokens INTEGER NOT NULL,
    uses INTEGER NOT NULL, step INTEGER NOT NULL, dead INTEGER NOT NULL, oldest INTEGER NOT NULL,
    newest INTEGER NOT NULL, num_rollouts INTEGER NOT NULL, num_verdicts INTEGER NOT NULL, body_digest BLOB,
    why TEXT NOT NULL, head BLOB NOT NULL, seal BLOB);
CREATE INDEX IF NOT EXISTS live_groups ON groups (group_id) WHERE dead = 0;
CREATE TABLE IF NOT EXISTS bodies (group_id INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS verdicts (group_id INTEGER PRIMARY KEY, verdicts BLOB NOT NULL, seal BLOB);
CREATE TABLE IF NOT EXISTS manifests (
    step INTEGER PRIMARY KEY, stage TEXT NOT NULL, incarnation INTEGER NOT NULL, at_s REAL NOT NULL,
    manifest BLOB NOT NULL, seal BLOB);
CREATE TABLE IF NOT EXISTS amendments (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, step INTEGER NOT NULL, groups TEXT NOT NULL, why TEXT NOT NULL,
    at_s REAL NOT NULL, former BLOB NOT NULL, seal BLOB);
CREATE TABLE IF NOT EXISTS steps (
    step INTEGER PRIMARY KEY, stage TEXT NOT NULL, checkpoint INTEGER NOT NULL, published INTEGER NOT NULL,
    incarnation INTEGER NOT NULL, digest TEXT NOT NULL, at_s REAL NOT NULL, report BLOB NOT NULL, seal BLOB);
CREATE TABLE IF NOT EXISTS repeats (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, step INTEGER NOT NULL, incarnation INTEGER NOT NULL, digest TEXT NOT NULL,
    loss REAL, at_s REAL NOT NULL, seal BLOB);
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at_s REAL NOT NULL, kind TEXT NOT NULL, worker TEXT NOT NULL,
    key INTEGER NOT NULL, detail TEXT NOT NULL, seal BLOB);
CREATE TABLE IF NOT EXISTS evaluations (key TEXT PRIMARY KEY, result BLOB NOT NULL, seal BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS learnt (
    stage TEXT NOT NULL, what TEXT NOT NULL, place INTEGER NOT NULL, row BLOB NOT NULL, seal BLOB,
    PRIMARY KEY (stage, what, place)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cursors (name TEXT PRIMARY KEY, value INTEGER NOT NULL, seal BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS commits (one INTEGER PRIMARY KEY, num INTEGER NOT NULL);
"""

SEALED: dict[str, tuple[str, ...]] = {
    "run": ("key", "value"),
    "manifests": ("step", "stage", "incarnation", "at_s", "manifest"),
    "amendments": ("step", "groups", "why", "at_s", "former"),
    "steps": ("step", "stage", "checkpoint", "published", "incarnation", "digest", "at_s", "report"),
    "repeats": ("step", "incarnation", "digest", "loss", "at_s"),
    "evaluations": ("key", "result"),
    "learnt": ("stage", "what", "place", "row"),
    "cursors": ("name", "value"),
    "successes": ("group_id", "rollout", "uses", "step", "kept", "digest", "success"),
    "groups": (
        *("group_id", "purpose", "provenance", "stage", "state", "reason", "num_tokens", "num_wasted_tokens", "uses"),
        *("step", "dead", "oldest", "newest", "num_rollouts", "num_verdicts", "why", "head"),
    ),
    "verdicts": ("group_id", "verdicts"),
    "events": ("at_s", "kind", "worker", "key", "detail"),
}
"""Table -> the columns that its seal is about, in the order of `seal`'s argument. `groups.body_digest` is not among
them, because a later row keeps the older value."""

NEWEST_ROW = """ON CONFLICT (group_id) DO UPDATE SET state = excluded.state, reason = excluded.reason,
    num_tokens = excluded.num_tokens, num_wasted_tokens = excluded.num_wasted_tokens, uses = excluded.uses,
    step = excluded.step, dead = excluded.dead, oldest = excluded.oldest, newest = excluded.newest,
    num_rollouts = excluded.num_rollouts, num_verdicts = excluded.num_verdicts,
    body_digest = coalesce(excluded.body_digest, body_digest), why = excluded.why, head = excluded.head,
    seal = excluded.seal"""
INSERTS = {
    "groups": ("INSERT", 19, NEWEST_ROW),
    "bodies": ("INSERT OR IGNORE", 2, ""),
    "verdicts": ("INSERT OR IGNORE", 3, ""),
}
"""Table -> (verb, number of columns, what happens to a row that exists). The newest row of `groups` replaces the older
one; the first body and the first verdicts of a group stay."""


def body_digest(body: bytes) -> bytes:
    """A digest of 16 bytes that tells whether stored bytes are still what came."""
    return hashlib.blake2b(body, digest_size=16).digest()


def seal(values: Sequence[Any]) -> bytes:
    """A digest of 8 bytes of the values of a row, as SQLite gives them back.

    So they must be: 1 instead of True, None instead of NaN, a float in a column of floats.
    """
    return hashlib.blake2b(_values(values), digest_size=8).digest()


_values = msgspec.msgpack.Encoder().encode


def put_row(db: Database, verb: str, table: str, values: tuple[Any, ...]) -> None:
    """Inserts one row and its seal. `values` are those of SEALED; `verb`: INSERT, INSERT OR REPLACE, INSERT OR
    IGNORE."""
    db.execute(row_statement(verb, table), (*values, seal(values)))


@lru_cache(maxsize=32)
def row_statement(verb: str, table: str) -> str:
    """The statement that inserts one row with its seal."""
    columns = SEALED[table]
    marks = ", ".join("?" * (len(columns) + 1))
    return f"{verb} INTO {table} ({', '.join(columns)}, seal) VALUES ({marks})"


ROWS = 32
"""Most rows in one statement, and most bodies that are encoded at once."""
CHUNKS = (ROWS, 8, 1)
"""Numbers of rows of one statement. There are few, so that SQLite compiles each statement once."""
MARKS = 500
"""Most values after one IN; SQLite itself allows at least 999."""


class Database(Protocol):
    """The part of `sqlite3.Connection` that storing needs. The pure modules do not import sqlite3."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Any:
        """Runs one statement; returns its cursor."""


def insert(db: Database, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Inserts rows in order; what happens to a row that exists is said in INSERTS."""
    at = 0
    for num in CHUNKS:
        while len(rows) - at >= num:
            db.execute(_statement(table, num), list(chain.from_iterable(rows[at : at + num])))
            at += num


@lru_cache(maxsize=16)
def _statement(table: str, num_rows: int) -> str:
    verb, num_columns, conflict = INSERTS[table]
    row = f"({', '.join('?' * num_columns)})"
    return f"{verb} INTO {table} VALUES {', '.join([row] * num_rows)} {conflict}"


def select(db: Database, query: str, keys: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    """Runs a statement that ends with IN for all keys and yields its rows; without keys it yields nothing."""
    for at in range(0, len(keys), MARKS):
        some = keys[at : at + MARKS]
        yield from db.execute(f"{query} ({', '.join('?' * len(some))})", some).fetchall()
