"""Remembered successes in the journal: stored with a digest, read again, and their tokens deleted when nobody can need
them: a success that is drawn no more, and whose newest batch is behind every kept checkpoint. The rows stay.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import msgspec

from rlsp_async.errors import MachineError
from rlsp_async.messages import VerifiedGroup
from rlsp_async.replay.records import Judged, Manifest, Remember, Success
from rlsp_async.replay.sql import body_digest
from rlsp_async.replay.success.memory import mended

_encode = msgspec.msgpack.Encoder().encode
_success = msgspec.msgpack.Decoder(Success).decode
_judged = msgspec.msgpack.Decoder(Judged).decode


def store(db: sqlite3.Connection, record: Remember, forgot_to: int) -> None:
    """A new success, or what has become of one. `forgot_to`: no kept checkpoint needs that step; -1: nothing is
    deleted."""
    success = record.success
    if record.body is None:
        db.execute(
            "UPDATE successes SET uses = ?, step = ?, kept = ?, success = ? WHERE group_id = ? AND rollout = ?",
            (success.uses, success.step, success.kept, _encode(success), *success.key),
        )
        if not success.kept:
            delete_gone(db, forgot_to)
    else:
        blob = _encode(record.body)
        db.execute(
            "INSERT INTO successes VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*success.key, success.uses, success.step, success.kept, body_digest(blob), _encode(success), blob),
        )


def delete_gone(db: sqlite3.Connection, upto: int) -> None:
    """The tokens of successes that went, and that no batch after step `upto` holds."""
    db.execute("UPDATE successes SET body = NULL WHERE kept = 0 AND body IS NOT NULL AND step <= ?", (upto,))


def live(db: sqlite3.Connection) -> Iterator[Remember]:
    """What a hub that starts must know: those that are kept, and those of batches that are not reported. Raises
    MachineError when the tokens of one are gone or not what came."""
    query = """SELECT group_id, rollout, digest, body, success FROM successes
               WHERE kept = 1 OR step > (SELECT coalesce(max(step), 0) FROM steps)"""
    return (
        Remember(success=_success(blob), body=_checked((group_id, rollout), digest, body))
        for group_id, rollout, digest, body, blob in db.execute(query)
    )


def put_in(db: sqlite3.Connection, manifest: Manifest, groups: list[VerifiedGroup]) -> list[VerifiedGroup]:
    """The groups of a batch with its successes in their places. Raises MachineError."""
    query = "SELECT digest, body FROM successes WHERE group_id = ? AND rollout = ?"
    bodies = {
        one.source: _checked(one.source, *(db.execute(query, one.source).fetchone() or (None, None)))
        for one in manifest.replayed
    }
    return mended(groups, manifest.replayed, bodies)


def _checked(key: tuple[int, int], digest: bytes | None, body: bytes | None) -> Judged:
    if body is None:
        raise MachineError(f"the tokens of the success {key[0]}/{key[1]} are not there any more")
    if body_digest(body) != digest:
        raise MachineError(
            f"the stored tokens of the success {key[0]}/{key[1]} are not those that came (their digest differs)"
        )
    return _judged(body)
