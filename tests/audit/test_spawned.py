"""Children of a run: an honest one is green, each kind of damage is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlsp_async.audit.checks import audit
from rlsp_async.audit.history import History
from rlsp_async.config import ReplayConfig
from rlsp_async.messages import RolloutGroup
from rlsp_async.offline.export import rows_of_group
from rlsp_async.replay.hub import Hub
from rlsp_async.replay.journal import Journal
from rlsp_async.replay.records import GroupRecord
from tests.audit.test_audit import edit, replaced, sql
from tests.replay.line import Bench, VerifyingTask, config, hello


def healthy(directory: Path) -> list[GroupRecord]:
    """A run in which half of the groups are children; returns their heads."""
    cfg = config(stage={"spawn": {"share": 0.5}}, replay=ReplayConfig(retention="all"))
    journal = Journal(directory / "journal.sqlite", cfg)
    bench = Bench(Hub(cfg, VerifyingTask(), journal.load()))
    for peer, role in ((b"s", "sampler"), (b"v", "verifier"), (b"l", "learner")):
        bench.say(peer, hello(role, step=0, credit=1))
    bench.run(b"s", b"v", b"l")
    journal.commit(bench.records)
    journal.close()
    heads = {record.record.group_id: record.record for record in bench.records if hasattr(record, "record")}
    return [head for head in heads.values() if head.parent]


def outcome(directory: Path) -> tuple[str, str]:
    [finding] = [one for one in audit(directory).findings if one.guarantee == "spawn"]
    return finding.outcome, " ".join(row["what"] for row in finding.rows)


def test_honest_children_are_green(tmp_path: Path):
    children = healthy(tmp_path)
    assert len(children) >= 2
    result = audit(tmp_path)
    assert not [one.guarantee for one in result.findings if one.outcome == "violated"]
    assert outcome(tmp_path) == ("ok", "")


DAMAGE: dict[str, tuple[Callable[[GroupRecord], Callable[[Path], None]], str]] = {
    "no parent": (lambda c: head(c, parent="99/0"), "was not issued before it"),
    "no place": (lambda c: head(c, parent="elsewhere"), "was not issued before it"),
    "no such rollout": (lambda c: head(c, parent=f"{c.parent.split('/')[0]}/7"), "was not judged"),
    "of another stage": (lambda c: head(c, stage="else"), "not a problem of its stage"),
    "tokens of another": (
        lambda c: edit("bodies", "body", RolloutGroup, f"group_id = {c.group_id}", strangers, redigest=True),
        "do not say that they come from",
    ),
}


def head(child: GroupRecord, **changes: Any) -> Callable[[Path], None]:
    return edit("groups", "head", GroupRecord, f"group_id = {child.group_id}", replaced(**changes))


def strangers(group: RolloutGroup) -> RolloutGroup:
    return replaced(rollouts=[replaced(parent="1/1")(rollout) for rollout in group.rollouts])(group)


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found(tmp_path: Path, kind: str):
    child = max(healthy(tmp_path), key=lambda head: head.group_id)
    act, words = DAMAGE[kind]
    act(child)(tmp_path)
    result, what = outcome(tmp_path)
    assert result == "violated"
    assert words in what


def test_two_children_of_one_rollout_are_found(tmp_path: Path):
    first, second = sorted(healthy(tmp_path), key=lambda head: head.group_id)[:2]
    head(second, parent=first.parent)(tmp_path)
    assert "is a child of the same rollout" in outcome(tmp_path)[1]


def test_children_are_exported_with_their_parents_and_are_no_demonstrations(tmp_path: Path):
    children = healthy(tmp_path)
    history = History(tmp_path)
    rows = [row for row in history.groups() if row.num_verdicts]
    rollouts = [line for row in rows for line in rows_of_group(row, "rollouts")]
    shown = [line for row in rows for line in rows_of_group(row, "demonstrations")]
    history.close()
    judged = [child for child in children if child.num_verdicts]
    assert sorted(line["parent"] for line in rollouts if "parent" in line) == sorted(
        child.parent for child in judged for _ in range(2)
    )
    assert shown
    assert not [line for line in shown if "check" in line["prompt"]]


def test_children_that_cannot_be_decoded_are_no_crash(tmp_path: Path):
    healthy(tmp_path)
    sql("UPDATE groups SET head = x'c1'", "UPDATE bodies SET body = x'c1'")(tmp_path)
    assert outcome(tmp_path) == ("not applicable", "")
