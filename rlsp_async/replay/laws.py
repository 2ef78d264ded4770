"""The laws that a transaction must keep, asked of the tables themselves: a bug elsewhere cannot train a wrong batch.

Each raises LawError, and the transaction that holds the record is rolled back.
"""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from rlsp_async.config import RunConfig, StageConfig, load_success_replay
from rlsp_async.errors import InvariantError
from rlsp_async.replay.records import GroupRecord, Judged, Manifest, Replayed, Stepped, Success
from rlsp_async.replay.sql import select

_head = msgspec.msgpack.Decoder(GroupRecord).decode
_success = msgspec.msgpack.Decoder(Success).decode
_judged = msgspec.msgpack.Decoder(Judged).decode

_ROWS = """SELECT group_id, state, step, provenance, oldest, uses, num_rollouts, num_verdicts FROM groups
           WHERE group_id IN"""


def check_manifest(db: sqlite3.Connection, cfg: RunConfig, manifest: Manifest) -> None:
    """Steps have no gap; every group is whole, judged, fresh enough, charged for this step, and not above its uses."""
    last = db.execute("SELECT max(step) FROM manifests").fetchone()[0] or 0
    if manifest.step != last + 1:
        raise InvariantError(f"the manifest of step {manifest.step} would follow that of step {last}")
    if len(set(manifest.groups)) != len(manifest.groups):
        raise InvariantError(f"the manifest of step {manifest.step} names a group twice")
    stage = cfg.stages[manifest.stage]
    rows = {row[0]: row[1:] for row in select(db, _ROWS, manifest.groups)}
    for group_id in manifest.groups:
        wrong = _wrong(rows.get(group_id), manifest.step, stage, cfg.sampling.rollouts)
        if wrong:
            raise InvariantError(f"group {group_id} cannot be in the batch of step {manifest.step}: {wrong}")
    check_replayed(db, cfg, manifest)


def check_replayed(db: sqlite3.Connection, cfg: RunConfig, manifest: Manifest) -> None:
    """Every success that stands in a batch is a correct rollout of the same prompt from an earlier batch, charged for
    this one, in a group of this batch in which nobody was right."""
    if len({one.group_id for one in manifest.replayed}) != len(manifest.replayed):
        raise InvariantError(f"the manifest of step {manifest.step} replaces two rollouts of one group")
    for one in manifest.replayed:
        wrong = _wrongly_replayed(db, cfg, manifest, one)
        if wrong:
            raise InvariantError(
                f"the success {one.source_group}/{one.source_rollout} cannot stand in group {one.group_id} "
                f"in the batch of step {manifest.step}: {wrong}"
            )


def _wrongly_replayed(db: sqlite3.Connection, cfg: RunConfig, manifest: Manifest, one: Replayed) -> str:
    found = db.execute("SELECT success, body FROM successes WHERE group_id = ? AND rollout = ?", one.source).fetchone()
    if found is None or found[1] is None:
        return "the journal does not know it, or has no tokens of it"
    success, body = _success(found[0]), _judged(found[1])
    if one.group_id not in manifest.groups:
        return "the group is not in the batch"
    head = _head(db.execute("SELECT head FROM groups WHERE group_id = ?", (one.group_id,)).fetchone()[0])
    if (success.stage, success.place) != (manifest.stage, head.index):
        return f"it is of prompt {success.place} of stage {success.stage}, the group of prompt {head.index}"
    if body.verdict.status != "correct" or head.num_correct:
        return f"it is {body.verdict.status}, and {head.num_correct} of the group are correct"
    if not success.kept or success.since >= manifest.step or success.step != manifest.step:
        return f"it is of step {success.since}, charged for step {success.step}"
    if not 1 <= one.uses <= success.uses or not 0 <= one.rollout < head.num_rollouts:
        return f"its use {one.uses} of {success.uses} is in place {one.rollout} of {head.num_rollouts}"
    age, most = manifest.step - 1 - success.oldest, load_success_replay(manifest.stage, cfg.stages[manifest.stage])
    if not most.capacity or age < 0 or (most.max_age and age > most.max_age):
        return f"it is {age} versions old"
    return f"it has {one.uses} uses of {most.max_uses}" if most.max_uses and one.uses > most.max_uses else ""


def _wrong(row: tuple[Any, ...] | None, step: int, stage: StageConfig, rollouts: int) -> str:
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
    """Whether a group may have `num` rollouts: `rollouts` when it was sampled, one of a task's demonstrations, no more
    than `rollouts` when it was imported, from wherever."""
    if provenance != "demonstration":
        return num == rollouts
    return 1 <= num <= rollouts if stage.source == "imported" else num == 1


def check_step(db: sqlite3.Connection, stepped: Stepped) -> None:
    """A step is reported once, after the one before it, and its batch was written down before."""
    step = stepped.report.step
    last = db.execute("SELECT max(step) FROM steps").fetchone()[0] or 0
    if step != last + 1:
        raise InvariantError(f"the report of step {step} would follow that of step {last}")
    if db.execute("SELECT 1 FROM manifests WHERE step = ?", (step,)).fetchone() is None:
        raise InvariantError(f"step {step} was reported, but no batch of it was ever written down")
