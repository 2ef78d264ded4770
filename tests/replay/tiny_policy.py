"""A third replay policy in one file, for test_replay_policies.py.

The first group of a run is the prompt at index 77; every batch is written to a table of the policy's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from rlsp_async.config import RunConfig
from rlsp_async.messages import RolloutGroup, VerifiedGroup
from rlsp_async.replay.ledger import Counters, Ledger
from rlsp_async.replay.policies import BatchChange, IssuedGroup, ReplayPolicy
from rlsp_async.replay.records import GroupRecord, Manifest, Record
from rlsp_async.replay.sql import Database


class Seen(msgspec.Struct, frozen=True):
    """The policy's own record: a batch was chosen."""

    step: int


class TinyPolicy(ReplayPolicy):
    """Remembers the steps whose batches it has seen, and which hooks were called."""

    def __init__(self, seen: list[Seen]) -> None:
        self.seen = [record.step for record in seen]
        self.calls: list[str] = []

    def on_issue(self, stage: str, ledger: Ledger, counters: Counters, now: float) -> IssuedGroup | None:
        if counters["tiny"]:
            return None
        self.calls.append("on_issue")
        return IssuedGroup(GroupRecord(group_id=0, stage=stage, index=77, issued_s=now), [counters.increase("tiny")])

    def on_sampled(self, record: GroupRecord, group: RolloutGroup) -> RolloutGroup:
        self.calls.append("on_sampled")
        return group

    def on_batch(self, batch: Sequence[GroupRecord], step: int, ledger: Ledger) -> BatchChange:
        self.calls.append("on_batch")
        self.seen.append(step)
        return BatchChange([], [], [Seen(step)])  # type: ignore[list-item]

    def on_send(self, manifest: Manifest, groups: list[VerifiedGroup]) -> list[VerifiedGroup]:
        self.calls.append("on_send")
        return groups

    def on_reported(self, step: int) -> None:
        self.calls.append("on_reported")

    def on_stage_end(self, stage: str) -> list[Record]:
        self.calls.append("on_stage_end")
        return []

    def figures(self, manifest: Manifest, ledger: Ledger) -> dict[str, float]:
        return {"tiny_batches": len(self.seen)}

    def remembered(self, step: int) -> list[Any]:
        return self.seen


def load(cfg: RunConfig, task: Any, remembered: list[Seen]) -> TinyPolicy:
    return TinyPolicy(remembered)


class TinyStore:
    schema = "CREATE TABLE IF NOT EXISTS tiny (step INTEGER PRIMARY KEY);"
    records = (Seen,)

    def store(self, db: Database, record: Seen, pruned_to: int) -> None:
        db.execute("INSERT INTO tiny VALUES (?)", (record.step,))

    def load(self, db: Database) -> list[Seen]:
        return [Seen(step) for (step,) in db.execute("SELECT step FROM tiny ORDER BY step")]

    def prune(self, db: Database, upto: int) -> None:
        """It has no tokens."""

    def restore_batch(self, db: Database, manifest: Manifest, groups: list[VerifiedGroup]) -> list[VerifiedGroup]:
        return groups

    def check_manifest(self, db: Database, cfg: RunConfig, manifest: Manifest) -> None:
        """It has no rule."""


STORE = TinyStore()
