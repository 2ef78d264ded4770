"""Success replay (ARPO, arXiv:2505.16282, section 3): a group of which every rollout failed is trained with a
remembered success of its prompt. Pure.

    stages.rl.success_replay = { capacity = 8 }

When a batch is chosen, in this order:

    1. for each group of the batch of which every rollout failed, if a success of its prompt is remembered:
       its first rollout is replaced by a success that is drawn uniformly by (seed, step, group)
    2. the correct rollouts of the batch's own groups are remembered; each prompt keeps its newest `capacity` ones

So a rollout never replaces one of its own batch. A stage's memory ends with the stage. A success that is not kept any
more may still stand in a batch that a learner is sent again: its tokens stay in the hub until that batch is reported,
and in the journal until every kept checkpoint is newer (`SuccessStore`).

A part of the journal's format is this policy's: the records `Success`, `Judged`, `Remember`, the field
`Manifest.replayed`, and the table `successes`.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec

from rlsp_async.config import RunConfig, SuccessReplayConfig, load_success_replay
from rlsp_async.errors import InvariantError, MachineError
from rlsp_async.messages import Verdict, VerifiedGroup
from rlsp_async.observations import sampled_versions
from rlsp_async.replay.ledger import Ledger
from rlsp_async.replay.policies import BatchChange, ReplayPolicy
from rlsp_async.replay.records import GroupRecord, Judged, Manifest, Record, Remember, Replayed, RolloutKey, Success
from rlsp_async.replay.sql import Database, body_digest, put_row, seal

REPLACED = 0
"""Index of the rollout that is replaced: all of them failed, so any will do."""

_encode = msgspec.msgpack.Encoder().encode
_success = msgspec.msgpack.Decoder(Success).decode
_judged = msgspec.msgpack.Decoder(Judged).decode
_group_record = msgspec.msgpack.Decoder(GroupRecord).decode


def load(cfg: RunConfig, task: Any, remembered: list[Remember]) -> SuccessReplay | None:
    """The policy of a run; None when no stage uses it. Raises ConfigError as `config.load_success_replay`."""
    options = {name: load_success_replay(name, stage) for name, stage in cfg.stages.items()}
    return SuccessReplay(options, cfg.seed, remembered) if any(one.capacity for one in options.values()) else None


class SuccessReplay(ReplayPolicy):
    """The policy of a run."""

    def __init__(self, options: dict[str, SuccessReplayConfig], seed: int, remembered: Iterable[Remember] = ()) -> None:
        self._options, self._seed = options, seed
        self.memory = Memory(remembered)

    def on_batch(self, batch: Sequence[GroupRecord], step: int, ledger: Ledger) -> BatchChange:
        """Replaces a rollout of each failed group, then remembers the successes of the batch."""
        replayed, charges = self._replace(batch, step, ledger)
        return BatchChange(replayed, before=charges, after=self._remember(batch, step, ledger))

    def on_send(self, manifest: Manifest, groups: list[VerifiedGroup]) -> list[VerifiedGroup]:
        """The groups of a batch with its successes in place."""
        if not manifest.replayed:
            return groups
        bodies = {one.source: self.memory.body(one.source) for one in manifest.replayed}
        return with_successes(groups, manifest.replayed, bodies)

    def on_reported(self, step: int) -> None:
        """Tokens that only the reported batches need are in the journal."""
        self.memory.forget(step)

    def on_quarantined(self, groups: Collection[int]) -> list[Record]:
        """What was remembered of the groups is not drawn any more."""
        return list(self.memory.distrust(groups))

    def on_stage_end(self, stage: str) -> list[Record]:
        """What the stage remembered is not drawn any more."""
        return list(self.memory.end(stage))

    def figures(self, manifest: Manifest, ledger: Ledger) -> dict[str, float]:
        """How many rollouts of a batch were replayed and how old they were; empty for a stage without the policy."""
        if not self._options[manifest.stage].capacity:
            return {}
        sources = [self.memory.body(one.source).rollout for one in manifest.replayed]
        ages = [manifest.step - 1 - int(sampled_versions(rollout).min()) for rollout in sources]
        records = [ledger.records[group_id] for group_id in manifest.groups]
        return {
            "replayed": len(ages) / sum(record.num_rollouts for record in records),
            "replayed_groups": len(ages),
            "failed_groups": sum(record.num_correct == 0 for record in records),
            "replayed_age_mean": sum(ages) / max(1, len(ages)),
            "remembered": self.memory.num_kept,
        }

    def remembered(self, step: int) -> list[Any]:
        """Successes that are kept, and those in batches that are not reported."""
        return [success for success in self.memory.known() if success.kept or success.step > step]

    def _replace(self, batch: Sequence[GroupRecord], step: int, ledger: Ledger) -> tuple[list[Replayed], list[Record]]:
        replayed: list[Replayed] = []
        charges: list[Record] = []
        for record in batch:
            cfg = self._options[record.stage]
            if not cfg.capacity or record.parent or not has_failed(cfg, ledger.verdicts[record.group_id]):
                continue
            success = self.memory.draw(cfg, record.stage, record.index, step, record.group_id, self._seed)
            if success is None:
                continue
            charged = self.memory.charge(success, step)
            charges.append(charged)
            replayed.append(
                Replayed(
                    group_id=record.group_id,
                    rollout=REPLACED,
                    source_group=success.group_id,
                    source_rollout=success.rollout,
                    uses=charged.success.uses,
                )
            )
        return replayed, charges

    def _remember(self, batch: Sequence[GroupRecord], step: int, ledger: Ledger) -> list[Record]:
        """Remembers the successes of groups that are trained for the first time. A spawned group answers another
        question than the problem at its index."""
        changes: list[Record] = []
        order = 0
        for record in batch:
            cfg = self._options[record.stage]
            if not cfg.capacity or record.uses or record.parent:
                continue
            body = ledger.bodies[record.group_id]
            for rollout, verdict in zip(body.rollouts, ledger.verdicts[record.group_id], strict=True):
                if verdict.status != "correct" or not rollout.token_ids:
                    continue
                success = Success(
                    group_id=record.group_id,
                    rollout=rollout.index,
                    stage=record.stage,
                    index=record.index,
                    oldest=int(sampled_versions(rollout).min()),
                    since=step,
                    order=order,
                )
                changes += self.memory.remember(cfg, success, Judged(rollout=rollout, verdict=verdict))
                order += 1
        return changes


def has_failed(cfg: SuccessReplayConfig, verdicts: list[Verdict]) -> bool:
    """Whether nothing can be learnt from a group. Example: eight scores of 0 -> True; one of them is 1 -> False."""
    scores = [verdict.parts.get("correct", 0.0) for verdict in verdicts]
    if not scores or any(verdict.status == "correct" for verdict in verdicts):
        return False
    mean = sum(scores) / len(scores)
    variance = sum((score - mean) ** 2 for score in scores) / len(scores)
    return mean < cfg.mean_below and variance < cfg.std_below**2


class Memory:
    """The successes of a run, by prompt. Each change returns its records."""

    def __init__(self, remembered: Iterable[Remember] = ()) -> None:
        self._known: dict[RolloutKey, Remember] = {}
        self._of_prompt: dict[tuple[str, int], dict[RolloutKey, None]] = {}
        self._queue: dict[RolloutKey, None] = {}
        """Those that are kept, oldest first; the tables of the prompts are in the same order."""
        for entry in sorted(remembered, key=lambda entry: (entry.success.since, entry.success.order)):
            self._add(entry)

    @property
    def num_kept(self) -> int:
        """Number of successes that may be drawn."""
        return len(self._queue)

    def of_prompt(self, stage: str, index: int) -> list[Success]:
        """Successes of one prompt that may be drawn, oldest first."""
        return [self._known[key].success for key in self._of_prompt.get((stage, index), {})]

    def known(self) -> list[Success]:
        """All successes whose tokens are held, in the order in which they came."""
        return [entry.success for entry in self._known.values()]

    def body(self, key: RolloutKey) -> Judged:
        """Tokens and verdict of a success."""
        body = self._known[key].body
        assert body is not None, key
        return body

    def draw(
        self, cfg: SuccessReplayConfig, stage: str, index: int, step: int, group_id: int, seed: int
    ) -> Success | None:
        """Draws a success for a failed group in the batch of `step`; None when no success may be used."""
        usable = [
            success
            for success in self.of_prompt(stage, index)
            if (not cfg.max_age or step - 1 - success.oldest <= cfg.max_age)
            and (not cfg.max_uses or success.uses < cfg.max_uses)
        ]
        return random.Random(f"{seed}/{step}/{group_id}/success").choice(usable) if usable else None

    def charge(self, success: Success, step: int) -> Remember:
        """Counts one use: the success replaces a failed rollout in the batch of `step`."""
        return self._change(success.key, uses=success.uses + 1, step=step)

    def remember(self, cfg: SuccessReplayConfig, success: Success, body: Judged) -> list[Remember]:
        """Adds a success; the oldest ones are not kept any more when there are too many."""
        self._add(Remember(success=success, body=body))
        same_prompt = self._of_prompt[success.stage, success.index]
        evicted = [self._evict(next(iter(same_prompt)))] if len(same_prompt) > cfg.capacity else []
        if self.num_kept > cfg.total:
            evicted.append(self._evict(next(iter(self._queue))))
        return [Remember(success=success, body=body), *evicted]

    def end(self, stage: str) -> list[Remember]:
        """A stage has ended: its successes are not kept any more."""
        return [self._evict(key) for key in list(self._queue) if self._known[key].success.stage == stage]

    def distrust(self, groups: Collection[int]) -> list[Remember]:
        """The successes of these groups are not kept any more."""
        return [self._evict(key) for key in list(self._queue) if key[0] in groups]

    def forget(self, step: int) -> None:
        """Deletes the tokens that only the batches up to `step` need: those are reported."""
        needless = [key for key, entry in self._known.items() if not entry.success.kept and entry.success.step <= step]
        for key in needless:
            del self._known[key]

    # --- inside --------------------------------------------------------------------------------------------------

    def _add(self, entry: Remember) -> None:
        success = entry.success
        self._known[success.key] = entry
        if success.kept:
            self._queue[success.key] = None
            self._of_prompt.setdefault((success.stage, success.index), {})[success.key] = None

    def _change(self, key: RolloutKey, **changes: int | bool) -> Remember:
        """Returns the record without the body, which the journal has."""
        entry = self._known[key]
        success: Success = msgspec.structs.replace(entry.success, **changes)
        self._known[key] = Remember(success=success, body=entry.body)
        return Remember(success=success)

    def _evict(self, key: RolloutKey) -> Remember:
        changed = self._change(key, kept=False)
        prompt = changed.success.stage, changed.success.index
        del self._queue[key], self._of_prompt[prompt][key]
        if not self._of_prompt[prompt]:
            del self._of_prompt[prompt]
        return changed


def with_successes(
    groups: list[VerifiedGroup], replayed: list[Replayed], bodies: dict[RolloutKey, Judged]
) -> list[VerifiedGroup]:
    """The groups of a batch with its successes in place. A success keeps its log-probs, versions and sampler."""
    by_group = {one.group_id: one for one in replayed}
    return [
        _replace_rollout(group, one, bodies[one.source]) if (one := by_group.get(group.group.group_id)) else group
        for group in groups
    ]


def _replace_rollout(whole: VerifiedGroup, one: Replayed, body: Judged) -> VerifiedGroup:
    rollouts, verdicts = list(whole.group.rollouts), list(whole.verdicts)
    rollouts[one.rollout] = msgspec.structs.replace(
        body.rollout, index=one.rollout, replayed_from=f"{one.source_group}/{one.source_rollout}"
    )
    verdicts[one.rollout] = body.verdict
    return VerifiedGroup(group=msgspec.structs.replace(whole.group, rollouts=rollouts), verdicts=verdicts)


# --- in the journal --------------------------------------------------------------------------------------------------


class SuccessStore:
    """Successes in the journal (a `PolicyStore`). Rows stay for ever; the tokens are stored with a digest, and are
    deleted once a success is not kept any more and every kept checkpoint is newer than its newest batch."""

    records = (Remember,)
    schema = """
CREATE TABLE IF NOT EXISTS successes (
    group_id INTEGER NOT NULL, rollout INTEGER NOT NULL, uses INTEGER NOT NULL, step INTEGER NOT NULL,
    kept INTEGER NOT NULL, digest BLOB NOT NULL, success BLOB NOT NULL, body BLOB, seal BLOB,
    PRIMARY KEY (group_id, rollout));
CREATE INDEX IF NOT EXISTS gone_successes ON successes (step) WHERE kept = 0 AND body IS NOT NULL;
"""

    def store(self, db: Database, record: Remember, pruned_to: int) -> None:
        """Inserts a new success, or updates the row of one that has changed."""
        success = record.success
        if record.body is None:
            query = "SELECT digest FROM successes WHERE group_id = ? AND rollout = ?"
            for (digest,) in db.execute(query, success.key).fetchall():
                row = _row(success, digest)
                db.execute(
                    "UPDATE successes SET uses = ?, step = ?, kept = ?, success = ?, seal = ? "
                    "WHERE group_id = ? AND rollout = ?",
                    (success.uses, success.step, success.kept, row[-1], seal(row), *success.key),
                )
            if not success.kept:
                self.prune(db, pruned_to)
        else:
            blob = _encode(record.body)
            row = _row(success, body_digest(blob))
            put_row(db, "INSERT", "successes", row)
            query = "UPDATE successes SET body = ? WHERE group_id = ? AND rollout = ?"
            db.execute(query, (blob, *success.key))

    def load(self, db: Database) -> list[Remember]:
        """Successes that are kept, and those in batches that are not reported."""
        query = """SELECT group_id, rollout, digest, body, success FROM successes
                   WHERE kept = 1 OR step > (SELECT coalesce(max(step), 0) FROM steps)"""
        return [
            Remember(success=_success(blob), body=_checked((group_id, rollout), digest, body))
            for group_id, rollout, digest, body, blob in db.execute(query)
        ]

    def prune(self, db: Database, upto: int) -> None:
        """Deletes the tokens of successes that are not kept, and that no batch after step `upto` holds."""
        db.execute("UPDATE successes SET body = NULL WHERE kept = 0 AND body IS NOT NULL AND step <= ?", (upto,))

    def restore_batch(self, db: Database, manifest: Manifest, groups: list[VerifiedGroup]) -> list[VerifiedGroup]:
        """The groups of a batch with its successes in place."""
        query = "SELECT digest, body FROM successes WHERE group_id = ? AND rollout = ?"
        bodies = {
            one.source: _checked(one.source, *(db.execute(query, one.source).fetchone() or (None, None)))
            for one in manifest.replayed
        }
        return with_successes(groups, manifest.replayed, bodies)

    def check_manifest(self, db: Database, cfg: RunConfig, manifest: Manifest) -> None:
        """Every success in a batch is a correct rollout of the same prompt from an earlier batch, charged for this one,
        in a group of this batch of which no rollout is correct."""
        if len({one.group_id for one in manifest.replayed}) != len(manifest.replayed):
            raise InvariantError(f"the manifest of step {manifest.step} replaces two rollouts of one group")
        for one in manifest.replayed:
            wrong = _violation(db, cfg, manifest, one)
            if wrong:
                raise InvariantError(
                    f"the success {one.source_group}/{one.source_rollout} cannot stand in group {one.group_id} "
                    f"in the batch of step {manifest.step}: {wrong}"
                )


STORE = SuccessStore()


def _row(success: Success, digest: bytes) -> tuple[Any, ...]:
    """The sealed columns of a row of `successes`."""
    return (*success.key, success.uses, success.step, int(success.kept), digest, _encode(success))


def _violation(db: Database, cfg: RunConfig, manifest: Manifest, one: Replayed) -> str:
    row = db.execute("SELECT success, body FROM successes WHERE group_id = ? AND rollout = ?", one.source).fetchone()
    if row is None or row[1] is None:
        return "the journal does not know it, or has no tokens of it"
    success, body = _success(row[0]), _judged(row[1])
    if one.group_id not in manifest.groups:
        return "the group is not in the batch"
    record = _group_record(db.execute("SELECT head FROM groups WHERE group_id = ?", (one.group_id,)).fetchone()[0])
    if (success.stage, success.index) != (manifest.stage, record.index):
        return f"it is of prompt {success.index} of stage {success.stage}, the group of prompt {record.index}"
    if body.verdict.status != "correct" or record.num_correct:
        return f"it is {body.verdict.status}, and {record.num_correct} of the group are correct"
    if not success.kept or success.since >= manifest.step or success.step != manifest.step:
        return f"it is of step {success.since}, charged for step {success.step}"
    if not 1 <= one.uses <= success.uses or not 0 <= one.rollout < record.num_rollouts:
        return f"its use {one.uses} of {success.uses} is in place {one.rollout} of {record.num_rollouts}"
    age, bounds = manifest.step - 1 - success.oldest, load_success_replay(manifest.stage, cfg.stages[manifest.stage])
    if not bounds.capacity or age < 0 or (bounds.max_age and age > bounds.max_age):
        return f"it is {age} versions old"
    return f"it has {one.uses} uses of {bounds.max_uses}" if bounds.max_uses and one.uses > bounds.max_uses else ""


def _checked(key: RolloutKey, digest: bytes | None, body: bytes | None) -> Judged:
    if body is None:
        raise MachineError(f"the tokens of the success {key[0]}/{key[1]} are not there any more")
    if body_digest(body) != digest:
        raise MachineError(
            f"the stored tokens of the success {key[0]}/{key[1]} are not those that came (their digest differs)"
        )
    return _judged(body)
