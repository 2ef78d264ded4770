"""A healthy journal is green; each kind of damage turns exactly its own guarantees red."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rlsp_async.audit.checks import audit
from rlsp_async.cli.audit import show_audit
from rlsp_async.columns import pack_ints
from rlsp_async.config import EvaluationConfig, LearnerConfig, StageConfig
from rlsp_async.errors import DataError
from rlsp_async.messages import RolloutGroup, StepReport, Verdict
from rlsp_async.replay.hub import Hub
from rlsp_async.replay.journal import Journal
from rlsp_async.replay.records import Event, GroupRecord, Manifest, Repeated
from rlsp_async.replay.sql import body_digest
from tests.replay.line import Bench, SmallTask, config, hello, weights
from tests.test_layers import imports, sources

pack = msgspec.msgpack.encode


def healthy(directory: Path) -> Path:
    """An honest run of six steps in two stages, with reuse, an evaluation, a repeat and a checkpoint."""
    stages = {
        "a": StageConfig(steps=3, groups_per_step=2, max_uses=2, target_lag=1, max_lag=2),
        "b": StageConfig(steps=3, groups_per_step=2),
    }
    cfg = config(
        stages=stages,
        evaluation=EvaluationConfig(prompts=3, rollouts=2, after=["b"]),
        learner=LearnerConfig(device="cpu"),
    )
    journal = Journal(directory / "journal.sqlite", cfg)
    bench = Bench(Hub(cfg, SmallTask(), journal.load()))
    for peer, role in ((b"s", "sampler"), (b"v", "verifier"), (b"l", "learner")):
        bench.say(peer, hello(role, step=0))
    bench.run(b"s", b"v", b"l")
    journal.commit(bench.records)
    journal.commit(
        [
            Repeated(report=StepReport(step=6, weights=weights(6)), at_s=9.0),
            Event(kind="gone", worker="sampler-0", at_s=9.0),
        ]
    )
    journal.close()
    save_checkpoint(directory)
    return directory


def save_checkpoint(directory: Path) -> None:
    place = directory / "checkpoints" / "step-00000006"
    place.mkdir(parents=True)
    for name in ("state.json", "tensors.safetensors"):
        (place / name).write_bytes(name.encode() * 9)
    digests = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(place.iterdir())}
    (place / "DONE").write_text(json.dumps(digests))


def red(directory: Path) -> set[str]:
    return {finding.guarantee for finding in audit(directory).findings if finding.outcome == "violated"}


# --- damage ----------------------------------------------------------------------------------------------------------


def told(directory: Path, **said: Any) -> None:
    """An acknowledgement in a worker's log."""
    (directory / "logs").mkdir()
    (directory / "logs" / "w.jsonl").write_text(json.dumps({**said, "event": "acknowledged", "lease": 1}) + "\n")


def sql(*statements: str) -> Callable[[Path], None]:
    def act(directory: Path) -> None:
        db = sqlite3.connect(directory / "journal.sqlite")
        for statement in statements:
            assert db.execute(statement).rowcount > 0, statement
        db.commit()
        db.close()

    return act


def edit(
    table: str, column: str, kind: Any, where: str, change: Callable[[Any], Any], redigest: bool = False
) -> Callable[[Path], None]:
    """Decodes one blob, changes it, stores it again."""

    def act(directory: Path) -> None:
        db = sqlite3.connect(directory / "journal.sqlite")
        key = "step" if table == "manifests" else "group_id"
        number, blob = db.execute(f"SELECT {key}, {column} FROM {table} WHERE {where} ORDER BY 1 LIMIT 1").fetchone()
        new = pack(change(msgspec.msgpack.decode(blob, type=kind)))
        db.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (new, number))
        if redigest:
            db.execute("UPDATE groups SET body_digest = ? WHERE group_id = ?", (body_digest(new), number))
        db.commit()
        db.close()

    return act


def both(column: str, value: int, where: str) -> Callable[[Path], None]:
    """Changes a column and the head that says the same."""

    def act(directory: Path) -> None:
        edit("groups", "head", GroupRecord, where, lambda h: msgspec.structs.replace(h, **{column: value}))(directory)
        sql(f"UPDATE groups SET {column} = {value} WHERE group_id = (SELECT min(group_id) FROM groups WHERE {where})")(
            directory
        )

    return act


def flip(path: str) -> Callable[[Path], None]:
    def act(directory: Path) -> None:
        data = bytearray((directory / path).read_bytes())
        data[len(data) // 2] ^= 1
        (directory / path).write_bytes(data)

    return act


def replaced(**changes: Any) -> Callable[[Any], Any]:
    return lambda value: msgspec.structs.replace(value, **changes)


def body(change: Callable[[RolloutGroup], RolloutGroup]) -> Callable[[Path], None]:
    """Of the last trained group, with a digest that fits."""
    return edit("bodies", "body", RolloutGroup, "group_id = (SELECT max(group_id) FROM bodies)", change, redigest=True)


def older(group: RolloutGroup) -> RolloutGroup:
    rollouts = [replaced(versions=pack_ints([0] * 3))(rollout) for rollout in group.rollouts]
    return replaced(rollouts=rollouts)(group)


TRAINED = "state = 'trained'"
LAST = "group_id = (SELECT max(group_id) FROM bodies)"
DAMAGE: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "a group is deleted": (
        sql(f"DELETE FROM groups WHERE group_id = (SELECT min(group_id) FROM groups WHERE {TRAINED})"),
        {"G1", "G4", "G14"},
    ),
    "a body is deleted": (sql("DELETE FROM bodies WHERE group_id = (SELECT max(group_id) FROM bodies)"), {"G1"}),
    "verdicts are deleted": (sql("DELETE FROM verdicts WHERE group_id = (SELECT max(group_id) FROM verdicts)"), {"G1"}),
    "a bit of a body flips": (sql("UPDATE bodies SET body = x'93' WHERE group_id = 2"), {"G1"}),
    "tokens are changed": (
        edit("bodies", "body", RolloutGroup, LAST, lambda g: replaced(prompt_ids=b"\0" * 8)(g)),
        {"G1"},
    ),
    "two bodies are one": (
        sql(
            "UPDATE bodies SET body = (SELECT body FROM bodies WHERE group_id = 1) WHERE group_id = 2",
            "UPDATE groups SET body_digest = (SELECT body_digest FROM groups WHERE group_id = 1) WHERE group_id = 2",
        ),
        {"G2"},
    ),
    "a rollout is dropped": (body(lambda g: replaced(rollouts=g.rollouts[:1])(g)), {"G1", "G3"}),
    "a group was trained with a rollout less": (both("num_rollouts", 1, TRAINED), {"G3", "G8"}),
    "a manifest names a group twice": (
        edit("manifests", "manifest", Manifest, "step = 2", lambda m: replaced(groups=[m.groups[0]] * 2)(m)),
        {"G4"},
    ),
    "a manifest is deleted": (sql("DELETE FROM manifests WHERE step = 2"), {"G4"}),
    "the last manifest is deleted": (sql("DELETE FROM manifests WHERE step = 6"), {"G4"}),
    "a step is deleted": (sql("DELETE FROM steps WHERE step = 2"), {"G4", "G9"}),
    "a use is hidden": (both("uses", 1, "uses = 2"), {"G4"}),
    "uses above the limit": (edit("manifests", "manifest", Manifest, "step = 2", replaced(uses=[3, 1])), {"G4"}),
    "a batch was too old": (edit("manifests", "manifest", Manifest, "step = 6", replaced(oldest=[1, 1])), {"G5"}),
    "a head was made younger": (both("oldest", 5, f"{TRAINED} AND oldest = 4"), {"G5", "G12"}),
    "a token is of another version": (body(older), {"G12"}),
    "other weights the second time": (sql("UPDATE repeats SET digest = 'sha256:else'"), {"G6"}),
    "an old learner wrote": (sql("UPDATE steps SET incarnation = 7 WHERE step = 4"), {"G7"}),
    "an old hub chose": (sql("UPDATE manifests SET incarnation = 7 WHERE step = 4"), {"G7"}),
    "a verdict was a timeout": (
        edit(
            "verdicts",
            "verdicts",
            list[Verdict],
            "group_id = (SELECT max(group_id) FROM verdicts)",
            lambda v: [replaced(status="timeout")(v[0]), *v[1:]],
        ),
        {"G8"},
    ),
    "a group was trained without verdicts": (both("num_verdicts", 0, TRAINED), {"G8"}),
    "a run that is finished lacks its end": (
        sql("DELETE FROM steps WHERE step = 6", "DELETE FROM repeats WHERE step = 6"),
        {"G9", "G12"},
    ),
    "a manifest is unreadable": (sql("UPDATE manifests SET manifest = x'c1' WHERE step = 2"), {"G4"}),
    "a use more than was charged": (edit("manifests", "manifest", Manifest, "step = 1", replaced(uses=[2, 1])), {"G4"}),
    "a live group is marked as gone": (sql("UPDATE groups SET dead = 0 WHERE group_id = 1"), {"G1"}),
    "another loss the second time": (sql("UPDATE repeats SET loss = 99.0, digest = ''"), {"G6"}),
    "a report is unreadable": (sql("UPDATE steps SET report = x'c1' WHERE step = 4"), {"G6"}),
    "another protocol": (sql("UPDATE run SET value = '99' WHERE key = 'protocol'"), {"G13"}),
    "config.toml is no TOML": (lambda d: (d / "config.toml").write_text("= = ="), {"G13"}),
    "a checkpoint is damaged": (flip("checkpoints/step-00000006/tensors.safetensors"), {"G11"}),
    "DONE is gone": (lambda d: (d / "checkpoints/step-00000006/DONE").unlink(), {"G11"}),
    "a setting was changed": (
        sql("UPDATE run SET value = replace(value, '\"max_uses\":2', '\"max_uses\":3') WHERE key = 'config'"),
        {"G13"},
    ),
    "more was acknowledged than is stored": (
        sql("UPDATE cursors SET value = value + 1 WHERE name = 'acked.sample'"),
        {"G1"},
    ),
    "more verdicts were acknowledged than are stored": (
        sql("UPDATE cursors SET value = value + 1 WHERE name = 'acked.verify'"),
        {"G1"},
    ),
    "a worker was told that a group is stored which is not": (
        lambda d: told(d, role="sampler", worker="sampler-0", key=4711),
        {"G1"},
    ),
    "a learner was told that a step is stored which is not": (
        lambda d: told(d, role="learner", worker="learner-0", key=99),
        {"G1"},
    ),
    "tokens came from nowhere": (sql("UPDATE cursors SET value = value - 1 WHERE name = 'generated'"), {"G14"}),
    "more groups live than there are slots": (sql("UPDATE groups SET dead = 0 WHERE stage = 'b'"), {"G1", "slots"}),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_turns_its_own_guarantees_red(tmp_path: Path, kind: str):
    healthy(tmp_path)
    act, expected = DAMAGE[kind]
    act(tmp_path)
    assert red(tmp_path) == expected


def test_digests_of_two_kinds_are_not_compared(tmp_path: Path):
    """A run that moved from a disk to shared memory: its repeats have sums where its steps have a SHA-256."""
    healthy(tmp_path)
    sql("UPDATE repeats SET digest = 'sums:else'")(tmp_path)
    assert red(tmp_path) == set()


def test_honest_run_is_green_and_its_account_closes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert show_audit(healthy(tmp_path), as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if "VIOLATED" in line]
    [account] = [line for line in lines if line.startswith("tokens:")]
    tokens = audit(tmp_path).tokens
    assert account.startswith(f"tokens: generated {tokens['generated']} = trained {tokens['trained']} + stale 0")
    assert tokens["generated"] == tokens["trained"] + tokens["evaluated"] + tokens["aborted"] > 50


def test_journal_alone_can_be_audited(tmp_path: Path):
    healthy(tmp_path)
    copy = tmp_path / "copy.sqlite"
    copy.write_bytes((tmp_path / "journal.sqlite").read_bytes())
    result = audit(copy)
    assert result.ok and result.run == "test"


def test_violations_end_with_exit_code_1_and_json_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    healthy(tmp_path)
    sql("DELETE FROM manifests WHERE step = 2")(tmp_path)
    assert show_audit(tmp_path, as_json=False) == 1
    text = capsys.readouterr().out
    assert "VIOLATED  G4" in text and "step 3: the batches of steps 2..2 are gone" in text
    assert show_audit(tmp_path, as_json=True) == 1
    found = json.loads(capsys.readouterr().out)
    assert [f["guarantee"] for f in found["findings"] if f["outcome"] == "violated"] == ["G4"]


@pytest.mark.parametrize("content", [None, b"this is no database" * 99])
def test_what_is_no_journal_is_one_sentence(tmp_path: Path, content: bytes | None):
    if content is not None:
        (tmp_path / "journal.sqlite").write_bytes(content)
    with pytest.raises(DataError, match="is no run|cannot be read as a journal"):
        audit(tmp_path)


def test_truncated_journal_is_one_sentence(tmp_path: Path):
    path = healthy(tmp_path) / "journal.sqlite"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(DataError, match="damaged"):
        audit(tmp_path)


def test_the_audit_shares_records_and_tables_with_the_hub_and_no_decisions():
    shared = {"rlsp_async.replay.records", "rlsp_async.replay.sql"}
    of_replay = {
        module
        for name, source in sources()
        if name.startswith("rlsp_async.audit")
        for _, module in imports(source)
        if module.startswith("rlsp_async.replay")
    }
    assert of_replay == shared
