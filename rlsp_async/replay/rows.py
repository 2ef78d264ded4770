"""Many rows in one statement: what Python pays for a statement it pays once, and SQLite gives the interpreter back to
the hub's loop while it works.

    insert(db, "bodies", [(7, b"..."), (8, b"...")])
    select(db, "SELECT group_id, state FROM groups WHERE group_id IN", [7, 8])
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

from rlsp_async.replay.tables import INSERTS

ROWS = 32
"""At most so many rows in one statement, and so many bodies in memory at once."""
CHUNKS = (ROWS, 8, 1)
"""Rows of one statement: few sizes, so that each is compiled once."""
MARKS = 500
"""Values after one IN; SQLite itself allows 999 or more."""


def insert(db: sqlite3.Connection, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Inserts rows in order, by the rule of their table."""
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


def select(db: sqlite3.Connection, query: str, keys: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    """Runs a statement that ends with IN for all keys; nothing for none."""
    for at in range(0, len(keys), MARKS):
        some = keys[at : at + MARKS]
        yield from db.execute(f"{query} ({', '.join('?' * len(some))})", some).fetchall()
