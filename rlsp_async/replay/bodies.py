"""The tokens of groups in the journal: checked when they are read, pruned when nobody can need them any more.

A body is stored with a digest of its bytes; what is read must still have it. With `replay.retention` "checkpoints" the
tokens of a group are deleted once it is evaluated or dropped, or trained at a step that even the oldest kept checkpoint
has behind it. SQLite fills the freed pages again, so the file stops growing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import msgspec

from rlsp_async.errors import MachineError
from rlsp_async.messages import RolloutGroup, Verdict, VerifiedGroup
from rlsp_async.replay.records import Manifest
from rlsp_async.replay.sql import body_digest, select

_body = msgspec.msgpack.Decoder(RolloutGroup).decode
_verdicts = msgspec.msgpack.Decoder(list[Verdict]).decode
_manifest = msgspec.msgpack.Decoder(Manifest).decode


def live_bodies(db: sqlite3.Connection) -> Iterator[tuple[int, RolloutGroup]]:
    """(group id, tokens) of every group that may still be trained. Raises MachineError when one is not what came."""
    query = "SELECT group_id, body, body_digest FROM groups JOIN bodies USING (group_id) WHERE dead = 0"
    return ((group_id, _checked(group_id, body, digest)) for group_id, body, digest in db.execute(query))


def live_verdicts(db: sqlite3.Connection) -> Iterator[tuple[int, list[Verdict]]]:
    """(group id, verdicts) of every group that may still be trained."""
    query = "SELECT group_id, verdicts FROM groups JOIN verdicts USING (group_id) WHERE dead = 0"
    return ((group_id, _verdicts(blob)) for group_id, blob in db.execute(query))


def verified(db: sqlite3.Connection, group_id: int) -> VerifiedGroup:
    """One group, live or dead. Raises MachineError when its tokens are gone or not what came."""
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


def delete(db: sqlite3.Connection, group_ids: list[int]) -> None:
    """Their tokens and verdicts go, their heads stay."""
    for table in ("bodies", "verdicts"):
        list(select(db, f"DELETE FROM {table} WHERE group_id IN", group_ids))


def delete_trained(db: sqlite3.Connection, after: int, upto: int) -> None:
    """The tokens of the dead groups of the batches of steps after+1..upto, unless a later batch holds them too."""
    old = db.execute("SELECT manifest FROM manifests WHERE step > ? AND step <= ?", (after, upto)).fetchall()
    for manifest in [_manifest(row[0]) for row in old]:
        query = f"SELECT group_id FROM groups WHERE dead = 1 AND step <= {upto:d} AND group_id IN"
        delete(db, [row[0] for row in select(db, query, manifest.groups)])
