"""Finished rollouts become prompts of their own: who is chosen, what is recorded, and what does not learn from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from rlsp_async.config import PromptsConfig, RunConfig, StageConfig
from rlsp_async.errors import ConfigError
from rlsp_async.messages import Done, Prompt, SampleJob, Sampling, Verdict, Work
from rlsp_async.replay import spawn
from rlsp_async.replay.hub import Hub
from rlsp_async.replay.journal import Journal
from rlsp_async.replay.ledger import Ledger
from rlsp_async.replay.records import GroupRecord, JournalContent, Learnt, Manifest, Put, Remember
from tests.replay.line import Bench, SmallTask, VerifyingTask, config, hello, rollouts_of

S, V, L = b"s", b"v", b"l"


def ledger_of(statuses: list[list[Any]]) -> Ledger:
    """Groups 1, 2 .. of two rollouts each, with these verdicts."""
    ledger = Ledger()
    for group_id, judged in enumerate(statuses, start=1):
        group_record = GroupRecord(group_id=group_id, stage="rlsp", index=group_id)
        ledger.issue(group_record)
        prompt = VerifyingTask().prompt("train", group_id)
        job = SampleJob(group_id=group_id, prompt=prompt, stage="rlsp", sampling=Sampling(rollouts=len(judged)))
        ledger.sampled(rollouts_of(job), 0.0)
        ledger.verified(group_id, [Verdict(status=status) for status in judged], 0.0)
    return ledger


def spawner(**options: Any) -> spawn.Spawner:
    made = spawn.load_spawner(StageConfig(spawn={"share": 0.125, **options}), VerifyingTask(), seed=0)
    assert made is not None
    return made


def test_every_eighth_draw_asks_for_a_child():
    assert [n for n in range(33) if spawner().is_due(n)] == [7, 15, 23, 31]
    assert [n for n in range(10) if spawner(share=0.3).is_due(n)] == [3, 6, 9]
    assert sum(spawner(share=0.3).is_due(n) for n in range(1000)) == 300


def test_verdicts_take_turns_however_rare_one_is():
    ledger = ledger_of([["correct", "wrong"]] + [["wrong", "wrong"]] * 9)
    cursors = {"spawned/wrong": 5}
    child = spawner().choose(ledger, "rlsp", 7, cursors)
    assert child is not None
    assert (child.parent.group_id, child.rollout, child.status) == (1, 0, "correct")
    assert child.prompt.answer == "ok"
    cursors["spawned/correct"] = 8
    assert spawner().choose(ledger, "rlsp", 15, cursors).status == "wrong"
    statuses = [spawner(balance=False).choose(ledger, "rlsp", n, {}).status for n in range(200)]
    assert 3 <= statuses.count("correct") <= 20  # one rollout of twenty


def test_any_finished_rollout_may_be_chosen():
    ledger = ledger_of([["wrong", "wrong"]] * 4)
    chosen = [spawner().choose(ledger, "rlsp", n, {}) for n in range(400)]
    places = [(child.parent.group_id, child.rollout) for child in chosen]
    assert len(set(places)) == 8
    assert min(places.count(place) for place in set(places)) > 25  # 50 each are expected


def test_who_is_no_candidate():
    ledger = ledger_of([["wrong", "correct"]] * 4)
    ledger.spawned(1)
    ledger.records[2] = msgspec.structs.replace(ledger.records[2], parent="9/0")
    ledger.records[3] = msgspec.structs.replace(ledger.records[3], stage="other")
    assert {one.group_id for one in spawn.candidates(ledger, "rlsp", 100)} == {4}
    assert len(spawn.candidates(ledger, "rlsp", 5)) == 2  # 2 tokens of the prompt and 3 of the response
    assert spawn.candidates(ledger, "rlsp", 4) == []


def test_candidates_that_the_task_cannot_use_are_skipped():
    ledger = ledger_of([["unparsable", "unparsable"], ["unparsable", "wrong"]])
    child = spawner().choose(ledger, "rlsp", 0, {"spawned/wrong": 1})
    assert child is not None
    assert (child.parent.group_id, child.rollout, child.status) == (2, 1, "wrong")
    assert spawner().choose(ledger_of([["unparsable", "unparsable"]]), "rlsp", 0, {}) is None


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ({"spawn": {"share": 0.6}}, "at least 0 and at most 0.5"),
        ({"spawn": {"shares": 0.1}}, "did you mean 'share'"),
        ({"spawn": {"share": 0.1}, "source": "demonstrations"}, "trains on demonstrations"),
        ({"spawn": {"max_tokens": 0}}, "at least 1"),
    ],
)
def test_options_that_cannot_work_are_refused(stage: dict, words: str):
    with pytest.raises(ConfigError, match=words):
        spawn.load_spawner(StageConfig(**stage), VerifyingTask(), 0)


def test_a_task_without_verification_is_refused():
    with pytest.raises(ConfigError, match="task 'small' does not say how"):
        spawn.load_spawner(StageConfig(spawn={"share": 0.1}), SmallTask(), 0)
    assert spawn.load_spawner(StageConfig(), SmallTask(), 0) is None
    assert spawn.load_spawner(StageConfig(spawn={"share": 0.0}), SmallTask(), 0) is None


# --- through the hub -------------------------------------------------------------------------------------------------


def line(loaded: JournalContent | None = None, **stage: Any) -> Bench:
    """Every second draw asks for a child, as soon as a group is judged."""
    made = Bench(Hub(config_of(**stage), VerifyingTask(), loaded or JournalContent(incarnation=1)))
    made.say(S, hello("sampler", credit=1))
    made.say(V, hello("verifier"))
    return made


def config_of(**stage: Any) -> RunConfig:
    return config(stage={"spawn": {"share": 0.5}, **stage})


def jobs_of(bench: Bench) -> list[SampleJob]:
    return [m.job for m in bench.got(S, Work) if isinstance(m.job, SampleJob)]


def test_child_is_sampled_verified_and_trained_like_any_group():
    bench = line()
    bench.say(L, hello("learner", step=0))
    bench.run(S, V, L)
    state = bench.hub.state
    group_records = {record.record.group_id: record.record for record in bench.records if isinstance(record, Put)}
    children = [group_record for group_record in group_records.values() if group_record.parent]
    assert state.ending.kind == "finished"
    assert state.step == 3
    assert len(children) >= 2
    assert {group_record.state for group_record in children} <= {"trained", "dropped"}
    assert any(group_record.state == "trained" for group_record in children)
    bodies = {
        record.record.group_id: record.body for record in bench.records if isinstance(record, Put) and record.body
    }
    for group_record in children:
        parent_id, place = map(int, group_record.parent.split("/"))
        parent, body = bodies[parent_id], bodies[group_record.group_id]
        assert body.prompt.text == f"{parent.prompt.text} {parent.rollouts[place].text} check"
        assert body.prompt.prompt_id == f"spawned/{group_record.parent}/{parent.prompt.prompt_id}"
        assert body.prompt.selector == "spawn"
        assert {(r.parent, r.root, r.depth) for r in body.rollouts} == {(group_record.parent, group_record.parent, 1)}
        assert group_records[parent_id].num_children == 1
        assert group_records[parent_id].parent == ""
        assert group_record.prompt is None  # its body holds it
    rows = [line.row for line in bench.lines if line.file == "metrics"]
    assert max(row["verification_share"] for row in rows) == 0.5
    assert all(row["verification_accuracy"] == 1.0 for row in rows if row["verification_share"])


def test_a_child_is_decided_with_its_parent_in_one_commit_and_issued_again_as_it_was(tmp_path: Path):
    cfg = config_of(target_lag=2)
    journal = Journal(tmp_path / "journal.sqlite", cfg)
    bench = line(journal.load(), target_lag=2)
    bench.until(lambda: any(job.prompt.selector == "spawn" for job in jobs_of(bench)), S, V)
    [issued] = [job for job in jobs_of(bench) if job.prompt.selector == "spawn"]
    parent_id = int(issued.prompt.prompt_id.split("/")[1])
    ids = [record.record.group_id for record in bench.records if isinstance(record, Put)]
    at = ids.index(issued.group_id)
    assert ids[at - 1] == parent_id  # of one event, so of one commit
    journal.commit(bench.records)
    journal.close()
    again = Journal(tmp_path / "journal.sqlite", cfg)
    later = Bench(Hub(cfg, VerifyingTask(), again.load()))
    again.close()
    assert later.hub.state.ledger.records[parent_id].num_children == 1
    later.tick(0.0)
    later.tick(60.0)  # nobody came back with it
    later.say(S, hello("sampler", credit=9))
    assert [job for job in jobs_of(later) if job.group_id == issued.group_id] == [issued]


def test_prompt_selections_do_not_learn_from_children():
    bench = line(prompts=PromptsConfig(name="mopps", options={"pool": 50}), target_lag=2)
    bench.until(lambda: sum(1 for r in bench.records if isinstance(r, Put) and r.record.parent and r.verdicts), S, V)
    [child] = [r.record for r in bench.records if isinstance(r, Put) and r.record.parent and r.verdicts]
    table = bench.hub.state.selectors["rlsp"].table
    solved = [r for r in bench.records if isinstance(r, Put) and r.verdicts and r.record.index == child.index]
    assert len(solved) == 2  # the parent and the child
    assert table.first_N[child.index] == 0.5 * 1 + 0.5 * 1 + 2  # the prior and two right ones: learnt once
    learnt = [r for r in bench.records if isinstance(r, Learnt) and r.index == child.index]
    assert len(learnt) == 2  # issued, judged


def test_children_are_no_successes_of_the_problem_and_get_none():
    bench = line(success_replay={"capacity": 2})
    bench.say(L, hello("learner", step=0))
    bench.until(lambda: bench.hub.state.training.last_manifest == 3, S, V, L)
    group_records = {record.record.group_id: record.record for record in bench.records if isinstance(record, Put)}
    trained = {group_id for record in bench.records if isinstance(record, Manifest) for group_id in record.groups}
    sources = {record.success.group_id for record in bench.records if isinstance(record, Remember)}
    assert any(group_records[group_id].parent for group_id in trained)
    assert sources == {group_id for group_id in trained if not group_records[group_id].parent}


def test_an_answer_to_another_prompt_than_the_childs_is_refused():
    bench = line(target_lag=2)
    bench.until(lambda: jobs_of(bench) and jobs_of(bench)[-1].prompt.selector == "spawn", S, V)
    work = bench.got(S, Work)[-1]
    bench.inbox[S].clear()
    assert work.job.prompt.index not in bench.hub.state.ledger.pending  # its parent is judged: the problem is free
    problem = bench.hub.state.task.prompt("train", work.job.prompt.index)
    forged = rollouts_of(msgspec.structs.replace(work.job, prompt=problem))
    bench.say(S, Done(lease=work.lease, groups=[forged]))
    assert bench.hub.state.ledger.records[work.job.group_id].faults == 1


def test_figures_tell_problems_and_verifications_apart():
    def judged(parent: str, answer: str, right: list[bool]):
        verdicts = [Verdict(status="correct" if one else "wrong") for one in right]
        return (
            GroupRecord(group_id=1, stage="s", parent=parent, parent_oldest=4),
            Prompt(prompt_id="p", task="t", text="?", answer=answer),
            verdicts,
        )

    found = spawn.figures(
        [
            judged("", "7", [True, False]),
            judged("1/0", "ok", [True, True]),
            judged("2/0", "x", [True, False]),
            judged("3/0", "x", [False, False]),
        ],
        step=6,
    )
    assert found == {
        "verification_share": 0.75,
        "solved": 0.5,
        "verification_accuracy": 0.5,
        "verification_balanced": (1.0 + 0.25) / 2,
        "verification_parent_lag": 1.0,
        "verification.ok": 1.0,
        "verification.x": 0.25,
    }
    assert spawn.figures([judged("", "7", [True])], step=1) == {"verification_share": 0.0, "solved": 1.0}
