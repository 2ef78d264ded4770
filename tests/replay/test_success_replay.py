"""Success replay in a whole run: what the learner gets, what is counted, what survives a kill, what is refused and found."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from rlsp_async.audit.checks import audit
from rlsp_async.config import ReplayConfig
from rlsp_async.errors import DataError, InvariantError, MachineError
from rlsp_async.messages import Batch, Rollout, RolloutGroup, Sampling
from rlsp_async.replay.journal import Journal
from rlsp_async.replay.ledger import check_whole
from rlsp_async.replay.records import Judged, Learnt, Manifest, Remember, Success
from rlsp_async.replay.sql import body_digest
from rlsp_async.replay.success_replay import Memory, SuccessReplay
from tests.replay.chaos import Chaos
from tests.replay.line import SmallTask, rows
from tests.replay.replayed import ON, run, settings

pack, unpack = msgspec.msgpack.encode, msgspec.msgpack.decode
replaced = msgspec.structs.replace


def memory_of(line: Chaos) -> Memory:
    [policy] = line.hub.state.policies
    assert isinstance(policy, SuccessReplay)
    return policy.memory


def batches_of(line: Chaos) -> list[Batch]:
    return [unpack(line.batches[step], type=Batch) for step in sorted(line.batches)]


def test_learner_gets_one_success_in_each_failed_group_that_has_one(tmp_path: Path):
    line = run(tmp_path)
    succeeded: dict[int, list[str]] = {}
    num_failed = num_replayed = 0
    for manifest, batch in zip(line.batches_chosen, batches_of(line), strict=True):
        for group in batch.groups:
            place = group.group.prompt.index
            marks = [rollout.replayed_from for rollout in group.group.rollouts]
            if marks[0]:
                num_replayed += 1
                assert marks[0] in succeeded[place][-2:], "of the two newest successes of its prompt, earlier batches'"
                assert marks[1:] == [""] * (len(marks) - 1)
                assert [verdict.status for verdict in group.verdicts] == ["correct"] + ["wrong"] * (len(marks) - 1)
            else:
                failed = all(verdict.status == "wrong" for verdict in group.verdicts)
                num_failed += failed
                assert not (failed and succeeded.get(place)), "a success of its prompt was known"
        assert len(manifest.replayed) == sum(bool(g.group.rollouts[0].replayed_from) for g in batch.groups)
        for group in batch.groups:
            succeeded.setdefault(group.group.prompt.index, []).extend(
                f"{group.group.group_id}/{rollout.index}"
                for rollout, verdict in zip(group.group.rollouts, group.verdicts, strict=True)
                if verdict.status == "correct" and not rollout.replayed_from
            )
    assert num_replayed >= 3 and num_failed >= 1


def test_a_replayed_rollout_keeps_its_tokens_log_probs_versions_and_sampler(tmp_path: Path):
    line = run(tmp_path)
    born = {
        record.success.key: record.body.rollout
        for record in line.records
        if isinstance(record, Remember) and record.body is not None
    }
    for manifest, batch in zip(line.batches_chosen, batches_of(line), strict=True):
        groups = {group.group.group_id: group.group for group in batch.groups}
        for one in manifest.replayed:
            rollout = groups[one.group_id].rollouts[one.rollout]
            assert replaced(rollout, index=one.source_rollout, replayed_from="") == born[one.source]


def test_nothing_but_the_batch_knows_of_it(tmp_path: Path):
    """Accuracy, the beliefs of MoPPS and the token account are those of the same run without success replay."""
    (tmp_path / "on").mkdir()
    (tmp_path / "off").mkdir()
    on, off = run(tmp_path / "on"), run(tmp_path / "off", {})
    learnt = [[record for record in one.records if isinstance(record, Learnt)] for one in (on, off)]
    assert learnt[0] == learnt[1] != []
    assert on.hub.state.ledger.tokens() == off.hub.state.ledger.tokens()
    rows = [[line.row for line in one.lines if line.file == "metrics"] for one in (on, off)]
    added = ("replayed", "replayed_groups", "failed_groups", "replayed_age_mean", "remembered")
    assert [{key: value for key, value in row.items() if key not in added} for row in rows[0]] == rows[1]
    assert [row["replayed_groups"] for row in rows[0]] == [len(m.replayed) for m in on.batches_chosen]
    assert rows[0][-1]["replayed"] == len(on.batches_chosen[-1].replayed) / 6
    assert rows[0][0]["replayed_groups"] == 0 and "replayed" not in rows[1][0]
    assert all(row["remembered"] <= 6 for row in rows[0])


@pytest.mark.parametrize("retention", ["checkpoints", "all"])
def test_tokens_stay_while_a_learner_may_be_sent_the_batch_again(tmp_path: Path, retention: Any):
    replay = ReplayConfig(retention=retention, retries=2, failures_per_100=100.0, stall_s=1e9)
    line = run(tmp_path, {"capacity": 1}, replay=replay, steps=16)
    path = line.journal.path
    [forgot_to] = [int(value) for (value,) in rows(path, "SELECT value FROM run WHERE key = 'forgot_to'")]
    kept = {step for (step,) in rows(path, "SELECT step FROM successes WHERE body IS NOT NULL")}
    gone = {step for (step,) in rows(path, "SELECT step FROM successes WHERE body IS NULL")}
    assert forgot_to >= 8
    if retention == "checkpoints":
        assert gone and max(gone) <= forgot_to < min(kept, default=forgot_to + 1)
    else:
        assert not gone
    for step in range(forgot_to + 1, 17):
        groups = line.journal.batch(step)
        assert pack(groups) == pack(unpack(line.batches[step], type=Batch).groups)
    rows(path, "UPDATE successes SET body = x'93' WHERE body IS NOT NULL")
    step = next((m.step for m in line.batches_chosen if m.replayed and m.step > forgot_to), None)
    if step is not None:
        with pytest.raises(MachineError, match="of the success .* are not those that came"):
            line.journal.batch(step)


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_hub_and_a_killed_learner_send_the_same_batches_again(tmp_path: Path, seed: int):
    """`Chaos` compares every batch, byte by byte, with the one of that step before, and the memory across each kill."""
    cfg = settings(ON, max_uses=2)
    chaos = Chaos(cfg, tmp_path / "journal.sqlite", Random(seed))
    learner, seen, kept = chaos.workers[-1], 0, 0
    while not chaos.hub.is_over:
        for worker in chaos.workers:
            chaos.handle(worker, honest=True)
        chaos.pass_time(0.2)
        if chaos.hub.state.training.last_manifest > seen:  # its batch is under way
            seen, kept = chaos.hub.state.training.last_manifest, max(kept, memory_of(chaos).num_kept)
            chaos.kill_hub()
            learner.restart()
            chaos.deliver(learner, learner.hello())
    assert seen == 8 and kept > 0
    assert chaos.hub.state.ending.kind == "finished" and chaos.violations() == []
    assert any(
        one.replayed_from for batch in batches_of(chaos) for group in batch.groups for one in group.group.rollouts
    )
    chaos.journal.close()
    assert not [
        f
        for f in audit(tmp_path / "journal.sqlite").findings
        if f.outcome == "violated" and f.guarantee in ("G4", "G5", "success")
    ]


def test_a_stage_ends_with_its_memory(tmp_path: Path):
    line = run(tmp_path)
    assert memory_of(line).num_kept == 0
    assert [one for one in line.journal.load().policies["success_replay"] if one.success.kept] == []


def test_a_sampler_cannot_say_that_a_rollout_is_replayed():
    mine = Rollout(index=0, token_ids=b"", logprobs=b"", versions=b"", text="", replayed_from="1/1")
    group = RolloutGroup(
        group_id=1,
        prompt=SmallTask().prompt("train", 0),
        prompt_ids=b"",
        rollouts=[mine],
        sampling=Sampling(rollouts=1),
    )
    with pytest.raises(DataError, match="a sampler cannot replay"):
        check_whole(group)


# --- what the journal refuses ----------------------------------------------------------------------------------------


def spoil_one(**changes: Any) -> Callable[[Manifest], Manifest]:
    return lambda manifest: replaced(manifest, replayed=[replaced(manifest.replayed[0], **changes)])


REFUSED: dict[str, tuple[Callable[[Manifest], Manifest], str]] = {
    "nobody knows it": (spoil_one(source_group=9999), "the journal does not know it"),
    "another group": (spoil_one(group_id=9999), "the group is not in the batch"),
    "no such place": (spoil_one(rollout=2), "is in place 2 of 2"),
    "a use that was not charged": (spoil_one(uses=9), "its use 9 of"),
    "two in one group": (lambda m: replaced(m, replayed=[m.replayed[0]] * 2), "replaces two rollouts of one group"),
}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return run(tmp_path_factory.mktemp("records")).records


@pytest.mark.parametrize("kind", REFUSED)
def test_journal_refuses_a_manifest_with_a_false_success(tmp_path: Path, records: list[Any], kind: str):
    at = next(i for i, record in enumerate(records) if isinstance(record, Manifest) and record.replayed)
    spoil, words = REFUSED[kind]
    refuse(tmp_path, [*records[:at], spoil(records[at])], words)


def change_success(**changes: Any) -> Callable[[Remember], Remember]:
    return lambda record: replaced(record, success=replaced(record.success, **changes))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (change_success(index=77), "it is of prompt 77"),
        (change_success(since=99), "it is of step 99"),
        (change_success(kept=False), "charged for step"),
        (change_success(step=1), "charged for step 1"),
        (change_success(oldest=-3), ""),
        (change_success(oldest=99), "versions old"),
    ],
)
def test_journal_refuses_a_success_that_does_not_fit(
    tmp_path: Path, records: list[Any], change: Callable[[Remember], Remember], words: str
):
    """Of the charge right before the first batch that replays."""
    at = next(i for i, record in enumerate(records) if isinstance(record, Manifest) and record.replayed)
    key = records[at].replayed[-1].source
    last = max(i for i in range(at) if isinstance(records[i], Remember) and records[i].success.key == key)
    before = [*records[:last], change(records[last]), *records[last + 1 : at]]
    if words:
        refuse(tmp_path, [*before, records[at]], words)
    else:
        commit(tmp_path, [*before, records[at]])


def test_journal_refuses_a_success_that_is_wrong_and_a_group_that_is_not(tmp_path: Path, records: list[Any]):
    at = next(i for i, record in enumerate(records) if isinstance(record, Manifest) and record.replayed)
    born = next(
        i
        for i, record in enumerate(records)
        if isinstance(record, Remember)
        and record.body is not None
        and record.success.key == records[at].replayed[0].source
    )
    wrong = replaced(records[born].body, verdict=replaced(records[born].body.verdict, status="wrong"))
    refuse(tmp_path, [*records[:born], replaced(records[born], body=wrong), *records[born + 1 : at + 1]], "it is wrong")


def refuse(directory: Path, records: list[Any], words: str) -> None:
    with pytest.raises(InvariantError, match=words):
        commit(directory, records)


def commit(directory: Path, records: list[Any]) -> None:
    journal = Journal(directory / "journal.sqlite", settings(ON))
    try:
        journal.commit(records)
    finally:
        journal.close()


# --- what the audit finds --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    replay = ReplayConfig(retention="all", retries=2, failures_per_100=100.0, stall_s=1e9)
    line = run(tmp_path_factory.mktemp("healthy"), steps=4, replay=replay)
    line.journal.close()
    return line.path


def edit(db: sqlite3.Connection, column: str, kind: Any, where: str, change: Callable[[Any], Any]) -> None:
    group_id, rollout, blob = db.execute(
        f"SELECT group_id, rollout, {column} FROM successes WHERE {where} ORDER BY 1, 2 LIMIT 1"
    ).fetchone()
    new = pack(change(unpack(blob, type=kind)))
    db.execute(f"UPDATE successes SET {column} = ? WHERE group_id = ? AND rollout = ?", (new, group_id, rollout))
    if column == "body":
        db.execute(
            "UPDATE successes SET digest = ? WHERE group_id = ? AND rollout = ?", (body_digest(new), group_id, rollout)
        )


def head(**changes: Any) -> Callable[[sqlite3.Connection], None]:
    return lambda db: edit(db, "success", Success, "uses > 0", lambda one: replaced(one, **changes))


def body(change: Callable[[Judged], Judged]) -> Callable[[sqlite3.Connection], None]:
    where = "body IS NOT NULL AND group_id IN (SELECT group_id FROM bodies)"
    return lambda db: edit(db, "body", Judged, where, change)


def manifest(change: Callable[[Manifest], Manifest]) -> Callable[[sqlite3.Connection], None]:
    def act(db: sqlite3.Connection) -> None:
        for step, blob in db.execute("SELECT step, manifest FROM manifests ORDER BY step").fetchall():
            found = unpack(blob, type=Manifest)
            if found.replayed:
                db.execute("UPDATE manifests SET manifest = ? WHERE step = ?", (pack(change(found)), step))
                return

    return act


PLANTED: dict[str, tuple[Callable[[sqlite3.Connection], Any], str]] = {
    "a row is gone": (lambda db: db.execute("DELETE FROM successes WHERE uses > 0"), "the journal lacks the success"),
    "of another prompt": (head(index=77), "it is of prompt 77"),
    "of another stage": (head(stage="b"), "of stage b"),
    "of another rollout": (head(rollout=1), "its row says that it is"),
    "a use is hidden": (head(uses=0), "charged 0 times"),
    "another batch was the newest": (head(step=1), "at last for step 1"),
    "learnt from a later batch": (head(since=99), "comes from the batch of step 99"),
    "younger than its batch": (head(oldest=99), "age -"),
    "more are kept than may be": (
        lambda db: [
            edit(db, "success", Success, f"group_id = {g} AND rollout = {r}", lambda s: replaced(s, kept=True))
            for g, r in db.execute("SELECT group_id, rollout FROM successes").fetchall()
        ],
        "kept of 2",
    ),
    "its tokens were deleted too early": (
        lambda db: db.execute("UPDATE successes SET body = NULL WHERE step = (SELECT max(step) FROM successes)"),
        "its tokens are gone",
    ),
    "a bit of it flips": (
        lambda db: db.execute("UPDATE successes SET digest = x'00' WHERE body IS NOT NULL"),
        "not the ones that came",
    ),
    "a failure was replayed": (
        body(lambda one: replaced(one, verdict=replaced(one.verdict, status="wrong"))),
        "its verdict is wrong",
    ),
    "its tokens are others": (
        body(lambda one: replaced(one, rollout=replaced(one.rollout, token_ids=b"\0" * 4))),
        "not those of its group",
    ),
    "unreadable": (lambda db: db.execute("UPDATE successes SET success = x'c1' WHERE uses > 0"), "cannot be decoded"),
    "a use more than was charged": (manifest(spoil_one(uses=9)), "the batch says 9"),
    "in a group of another batch": (manifest(spoil_one(group_id=9999)), "a group that is not in the batch"),
    "twice in a group": (manifest(lambda m: replaced(m, replayed=[m.replayed[0]] * 2)), "a second rollout"),
    "no such place": (manifest(spoil_one(rollout=7)), "has index 7"),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_audit_finds_a_false_success(tmp_path: Path, healthy: Path, kind: str):
    path = tmp_path / "journal.sqlite"
    shutil.copyfile(healthy, path)
    act, words = PLANTED[kind]
    db = sqlite3.connect(path)
    act(db)
    db.commit()
    db.close()
    [found] = [finding for finding in audit(path).findings if finding.outcome == "violated"]
    assert found.guarantee == "success" and any(words in row["what"] for row in found.rows), found.rows


def test_audit_of_a_run_with_success_replay_is_green_and_says_how_much(healthy: Path):
    result = audit(healthy)
    assert result.ok
    [found] = [finding for finding in result.findings if finding.guarantee == "success"]
    assert found.outcome == "ok" and not found.figures.startswith("0 uses")
