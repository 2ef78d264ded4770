"""Tokens in the journal: deleted when nobody can need them, kept while somebody may, refused when they have changed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from rlsp_async.columns import pack_floats, pack_ints
from rlsp_async.config import EvaluationConfig, ReplayConfig, RunConfig, StageConfig
from rlsp_async.errors import MachineError
from rlsp_async.messages import Prompt, Rollout, RolloutGroup, Sampling, StepReport, Verdict
from rlsp_async.replay.journal import WAL_BYTES, Journal
from rlsp_async.replay.records import GroupRecord, Manifest, Put, Stepped
from tests.replay.line import config


def group(group_id: int, num_tokens: int = 3) -> RolloutGroup:
    rollouts = [
        Rollout(
            index=i,
            token_ids=pack_ints([7] * num_tokens),
            logprobs=pack_floats([-1.0] * num_tokens),
            versions=pack_ints([0] * num_tokens),
            text="2",
        )
        for i in range(2)
    ]
    prompt = Prompt(prompt_id=f"small/{group_id}", task="small", text="1 + 1 =", answer="2")
    return RolloutGroup(
        group_id=group_id, prompt=prompt, prompt_ids=pack_ints([1]), sampling=Sampling(rollouts=2), rollouts=rollouts
    )


def group_record(group_id: int, state: str, step: int = 0, uses: int = 0, oldest: int = 0) -> GroupRecord:
    return GroupRecord(
        group_id=group_id,
        stage="rlsp",
        state=state,
        step=step,
        uses=uses,
        oldest=oldest,  # type: ignore
        num_rollouts=2,
        num_verdicts=2,
        num_tokens=6,
    )


def ready(group_id: int, num_tokens: int = 3, oldest: int = 0) -> Put:
    return Put(
        record=group_record(group_id, "ready", oldest=oldest),
        body=group(group_id, num_tokens),
        verdicts=[Verdict(status="correct")] * 2,
    )


def trained(journal: Journal, step: int, groups: list[int], forget_to: int = 0, bury: bool = True) -> None:
    """One step over groups that are ready."""
    journal.commit(
        [
            *(Put(record=group_record(i, "training", step, 1, step - 1)) for i in groups),
            Manifest(step=step, stage="rlsp", stage_step=step, groups=groups),
        ]
    )
    journal.commit(
        [
            *(Put(record=group_record(i, "trained" if bury else "ready", step, 1, step - 1)) for i in groups),
            Stepped(report=StepReport(step=step), stage="rlsp", forget_to=forget_to),
        ]
    )


def kept(path: Path) -> list[int]:
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT group_id FROM bodies EXCEPT SELECT group_id FROM verdicts").fetchall() == []
        rows = db.execute("SELECT group_id FROM bodies ORDER BY group_id").fetchall()
    db.close()
    return [row[0] for row in rows]


def many(**replay) -> RunConfig:
    return config(
        stages={"rlsp": StageConfig(steps=1000, groups_per_step=4, max_lag=8, max_uses=2)},
        replay=ReplayConfig(durability="process", **replay),
    )


def test_only_what_the_oldest_kept_checkpoint_has_behind_it_is_pruned(tmp_path):
    journal = Journal(tmp_path / "j.sqlite", many())
    for step in (1, 2, 3):
        journal.commit([ready(2 * step), ready(2 * step + 1)])
        trained(journal, step, [2 * step, 2 * step + 1], forget_to=step - 2)
    assert kept(tmp_path / "j.sqlite") == [4, 5, 6, 7]
    journal.close()


def test_a_group_that_may_be_used_again_is_kept_until_it_is_finished(tmp_path):
    journal = Journal(tmp_path / "j.sqlite", many())
    journal.commit([ready(1), ready(2)])
    trained(journal, 1, [1], bury=False)
    trained(journal, 2, [2], forget_to=2)
    assert kept(tmp_path / "j.sqlite") == [1]
    journal.commit([Put(record=group_record(1, "trained", 1, 1))])  # no second use came in time
    assert kept(tmp_path / "j.sqlite") == []
    journal.close()


@pytest.mark.parametrize("state", ["dropped", "evaluated"])
def test_tokens_that_never_train_go_at_once(tmp_path, state):
    journal = Journal(tmp_path / "j.sqlite", many())
    journal.commit([ready(1), ready(2)])
    journal.commit([Put(record=group_record(1, state))])
    assert kept(tmp_path / "j.sqlite") == [2]
    journal.close()


def test_retention_all_keeps_every_token(tmp_path):
    journal = Journal(tmp_path / "j.sqlite", many(retention="all"))
    journal.commit([ready(i) for i in (1, 2, 3, 4)])
    journal.commit([Put(record=group_record(4, "dropped"))])
    trained(journal, 1, [1])
    trained(journal, 2, [2], forget_to=2)
    trained(journal, 3, [3], forget_to=3)
    assert kept(tmp_path / "j.sqlite") == [1, 2, 3, 4]
    assert [g.group.group_id for g in journal.batch(1)] == [1]
    journal.close()


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


def test_the_file_stops_growing_but_for_its_records(tmp_path):
    """16 KB a group, 4 groups a step: 100 steps bring 6.4 MB, and again after the first hundred nothing is added."""
    path = tmp_path / "j.sqlite"
    sizes = {}
    journal = Journal(path, many())
    for step in range(1, 401):
        ids = [4 * step + i for i in range(4)]
        journal.commit([ready(i, num_tokens=700) for i in ids])
        trained(journal, step, ids, forget_to=max(0, step - 8))
        if step % 100 == 0:
            sizes[step] = path.stat().st_size
    assert size(path) - path.stat().st_size <= WAL_BYTES + (1 << 20)
    journal.close()
    assert len(kept(path)) == 8 * 4
    grown = sizes[400] - sizes[200]
    assert grown < 200 * 4 * 1000, sizes  # records, manifests and steps stay: under 1 KB a group
    assert sizes[400] < 3_000_000, sizes


def damage(path: Path, statement: str) -> None:
    db = sqlite3.connect(path)
    assert db.execute(statement).rowcount == 1
    db.commit()
    db.close()


FLIP = "UPDATE bodies SET body = CAST(substr(body, 1, 40) || x'00' || substr(body, 42) AS BLOB) WHERE group_id = 2"


@pytest.mark.parametrize("statement", [FLIP, "UPDATE groups SET body_digest = NULL WHERE group_id = 2"])
def test_tokens_that_have_changed_are_named_and_never_served(tmp_path, statement):
    path = tmp_path / "j.sqlite"
    journal = Journal(path, many())
    journal.commit([ready(1), ready(2)])
    damage(path, statement)
    with pytest.raises(MachineError, match=r"tokens of group 2 are not those that came.*rlsp audit"):
        journal.load()
    trained(journal, 1, [1, 2])
    with pytest.raises(MachineError, match=r"tokens of group 2 are not those that came.*rlsp audit"):
        journal.batch(1)
    journal.close()


def test_a_record_that_cannot_be_read_is_one_sentence(tmp_path):
    path = tmp_path / "j.sqlite"
    journal = Journal(path, many())
    journal.commit([ready(1)])
    damage(path, "UPDATE groups SET head = x'c1' WHERE group_id = 1")
    with pytest.raises(MachineError, match="rlsp audit"):
        journal.load()
    journal.close()


def test_evaluations_leave_no_tokens_behind(tmp_path):
    from rlsp_async.replay.hub import Hub
    from tests.replay.line import Bench, SmallTask, hello

    cfg = config(evaluation=EvaluationConfig(prompts=5, rollouts=2, after=["rlsp"]))
    journal = Journal(tmp_path / "j.sqlite", cfg)
    bench = Bench(Hub(cfg, SmallTask(), journal.load()))
    for peer, role in ((b"s", "sampler"), (b"v", "verifier"), (b"l", "learner")):
        bench.say(peer, hello(role, step=0))
    bench.run(b"s", b"v", b"l")
    journal.commit(bench.records)
    journal.close()
    assert bench.hub.state.ending.kind == "finished"
    assert kept(tmp_path / "j.sqlite") == [1, 2, 3, 4, 5, 6]
