"""Groups and rollouts that were made from earlier ones.

spawn    each child has one parent, which was judged before; no rollout has two children
success  each rollout that replaced a failed one is a correct rollout of the same prompt, from an earlier batch of its
         stage, and its use was charged
"""

from __future__ import annotations

from collections import Counter

import msgspec

from rlsp_async.audit.history import Finding, History, Violations
from rlsp_async.config import load_success_replay
from rlsp_async.messages import RolloutGroup
from rlsp_async.replay.records import GroupRecord, Judged, Manifest, Replayed, RolloutKey, Success
from rlsp_async.replay.sql import body_digest

_record = msgspec.msgpack.Decoder(GroupRecord).decode
_success = msgspec.msgpack.Decoder(Success).decode
_judged = msgspec.msgpack.Decoder(Judged).decode
_group = msgspec.msgpack.Decoder(RolloutGroup).decode


# --- spawned groups --------------------------------------------------------------------------------------------------


def check_spawned(history: History) -> Finding:
    """Checks all records, and the stored tokens of children. Rows that cannot be decoded are a finding of G1."""
    found = Violations("spawn", "children have one judged parent each")
    records = {record.group_id: record for record in _records(history)}
    children = [record for record in records.values() if record.parent]
    taken: dict[str, int] = {}
    for child in children:
        wrong = _wrong_parent(child, records)
        if wrong:
            found.add(wrong, group=child.group_id)
        if taken.setdefault(child.parent, child.group_id) != child.group_id:
            found.add(f"group {taken[child.parent]} is a child of the same rollout", group=child.group_id)
        if _named_parents(history, child.group_id) - {child.parent}:
            found.add(f"its rollouts do not say that they come from {child.parent}", group=child.group_id)
    return found.finding(f"{len(children):,} children", applies=bool(children))


def _records(history: History) -> list[GroupRecord]:
    records = []
    for (blob,) in history.rows("SELECT head FROM groups"):
        try:
            records.append(_record(blob))
        except msgspec.DecodeError:
            continue  # G1 reports it
    return records


def _wrong_parent(child: GroupRecord, records: dict[int, GroupRecord]) -> str:
    """What is wrong with a child's parent; empty when it is correct."""
    group, _, place = child.parent.partition("/")
    parent = records.get(int(group)) if group.isdecimal() and place.isdecimal() else None
    if parent is None or parent.group_id >= child.group_id:
        return f"its parent {child.parent!r} was not issued before it"
    if parent.parent or parent.purpose != "train" or parent.provenance != "rollout" or parent.stage != child.stage:
        return f"its parent {child.parent} is not a problem of its stage"
    if not parent.num_children or parent.num_verdicts <= int(place):
        return f"its parent {child.parent} was not judged, or does not know its child"
    return ""


def _named_parents(history: History, group_id: int) -> set[str]:
    """The parents that the rollouts of a group name; none when its tokens were pruned."""
    for (blob,) in history.rows(f"SELECT body FROM bodies WHERE group_id = {group_id:d}"):
        try:
            return {rollout.parent for rollout in _group(blob).rollouts}
        except msgspec.DecodeError:
            continue  # G1 reports it
    return set()


# --- success replay --------------------------------------------------------------------------------------------------


class SuccessChecks:
    """Checks all remembered successes, and all batches in which they were used."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._found = Violations("success", "a replayed rollout is a success of its prompt")
        self._options = {name: load_success_replay(name, stage) for name, stage in history.cfg.stages.items()}
        self._known: dict[RolloutKey, Success] = {}
        self._uses: Counter[RolloutKey] = Counter()
        self._newest: dict[RolloutKey, int] = {}
        self._num_rollouts = 0

    def run(self) -> list[Finding]:
        """One finding; it does not apply when no stage has success replay."""
        for group_id, rollout, digest, blob, body in self._history.rows(
            "SELECT group_id, rollout, digest, success, body FROM successes"
        ):
            self._row((group_id, rollout), digest, blob, body)
        for manifest in self._history.manifests(as_chosen=True):
            self._num_rollouts += len(manifest.groups)
            self._manifest(manifest)
        self._charges()
        self._bounds()
        figures = (
            f"{self._uses.total():,} uses of {len(self._uses):,} successes in {self._num_rollouts:,} groups, "
            f"{len(self._known):,} were remembered"
        )
        return [self._found.finding(figures, applies=any(cfg.capacity for cfg in self._options.values()))]

    # --- what is remembered --------------------------------------------------------------------------------------

    def _row(self, key: RolloutKey, digest: bytes, blob: bytes, body: bytes | None) -> None:
        try:
            success, judged = _success(blob), None if body is None else _judged(body)
        except msgspec.DecodeError as e:
            self._add(f"it cannot be decoded: {e}", key)
            return
        self._known[key] = success
        if success.key != key:
            self._add(f"its row says that it is {success.group_id}/{success.rollout}", key)
        if judged is None:
            if success.kept or success.step > self._history.forgot_to:
                self._add("a learner may need it, and its tokens are gone", key)
        elif body_digest(body or b"") != digest:
            self._add("its tokens are not the ones that came (digest)", key)
        elif judged.verdict.status != "correct":
            self._add(f"its verdict is {judged.verdict.status}", key)
        self._source(success, judged)

    def _source(self, success: Success, judged: Judged | None) -> None:
        """Compares a success with the group that it comes from."""
        record = self._record_of(success.group_id)
        if record is None or not record.uses:
            self._add("its group was never trained", success.key)
            return
        if (record.stage, record.index, record.purpose) != (success.stage, success.index, "train"):
            self._add(
                f"it is of prompt {success.index} of stage {success.stage}, its group of prompt {record.index} of "
                f"stage {record.stage}",
                success.key,
            )
        if record.num_correct < 1 or not 0 <= success.rollout < record.num_rollouts:
            self._add(f"its group has {record.num_rollouts} rollouts, {record.num_correct} correct", success.key)
        stored = self._history.rows("SELECT body FROM bodies WHERE group_id = ?", success.group_id)
        if judged and stored and judged.rollout != _rollout(stored[0][0], success.rollout):
            self._add("its tokens are not those of its group", success.key)

    # --- where it was used ---------------------------------------------------------------------------------------

    def _manifest(self, manifest: Manifest) -> None:
        changed: set[int] = set()
        for one in manifest.replayed:
            self._uses[one.source] += 1
            self._newest[one.source] = manifest.step
            if one.group_id in changed or one.group_id not in manifest.groups:
                self._add(
                    "it replaced a second rollout, or one of a group that is not in the batch",
                    one.source,
                    step=manifest.step,
                )
            changed.add(one.group_id)
            wrong = self._wrong(manifest, one)
            if wrong:
                self._add(f"in group {one.group_id}: {wrong}", one.source, step=manifest.step)

    def _wrong(self, manifest: Manifest, one: Replayed) -> str:
        success, record, cfg = (
            self._known.get(one.source),
            self._record_of(one.group_id),
            self._options.get(manifest.stage),
        )
        if success is None or record is None or cfg is None:
            return "the journal lacks the success or the group"
        if (success.stage, success.index) != (manifest.stage, record.index):
            return f"it is of prompt {success.index}, the group of prompt {record.index}"
        if record.num_correct or not 0 <= one.rollout < record.num_rollouts:
            return f"{record.num_correct} rollouts of the group are correct, and it has index {one.rollout}"
        if success.since >= manifest.step:
            return f"it comes from the batch of step {success.since}"
        if one.uses != self._uses[one.source] or (cfg.max_uses and one.uses > cfg.max_uses):
            return f"its use number {self._uses[one.source]} of {cfg.max_uses or 'any'}, the batch says {one.uses}"
        age = manifest.step - 1 - success.oldest
        if age < 0 or (cfg.max_age and age > cfg.max_age):
            return f"age {age}, outside 0..{cfg.max_age or ''}"
        return "" if cfg.capacity else "the stage has no success replay"

    def _charges(self) -> None:
        for key, success in self._known.items():
            if success.uses != self._uses[key] or success.step != self._newest.get(key, 0):
                self._add(
                    f"charged {success.uses} times, at last for step {success.step}, and used {self._uses[key]} "
                    f"times, at last in step {self._newest.get(key, 0)}",
                    key,
                )

    def _bounds(self) -> None:
        """No more successes are kept than the settings allow."""
        kept = [success for success in self._known.values() if success.kept]
        for (stage, place), num in Counter((one.stage, one.index) for one in kept).items():
            if stage in self._options and num > self._options[stage].capacity:
                self._found.add(
                    f"{num} successes are kept of {self._options[stage].capacity}", stage=stage, prompt=place
                )
        if len(kept) > max((cfg.total for cfg in self._options.values()), default=0):
            self._found.add(f"{len(kept)} successes are kept in all")

    # --- helpers --------------------------------------------------------------------------------------------------

    def _record_of(self, group_id: int) -> GroupRecord | None:
        rows = self._history.rows("SELECT head FROM groups WHERE group_id = ?", group_id)
        try:
            return _record(rows[0][0]) if rows else None
        except msgspec.DecodeError:
            return None

    def _add(self, what: str, key: RolloutKey, **where: int) -> None:
        self._found.add(what, success=f"{key[0]}/{key[1]}", **where)


def _rollout(blob: bytes, index: int) -> object:
    """One rollout of a stored group; None when there is none, or the group cannot be decoded."""
    try:
        return next((rollout for rollout in _group(blob).rollouts if rollout.index == index), None)
    except msgspec.DecodeError:
        return None
