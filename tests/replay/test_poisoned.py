"""Rollouts and verdicts that nobody can train on are refused; a batch that the learner cannot train loses its group."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rlsp_async.audit.checks import audit
from rlsp_async.columns import pack_floats, pack_ints
from rlsp_async.errors import InvariantError
from rlsp_async.messages import Ack, Done, Failed, Revoke, TrainJob, Verdict, Work
from rlsp_async.replay.hub import Hub
from rlsp_async.replay.journal import Journal
from rlsp_async.replay.records import Amended, Manifest
from tests.replay.line import Bench, SmallTask, answer, config, hello, rollouts_of, rows, verdicts_of

VOCABULARY = 50


def bench_of(directory: Path, **changes: Any) -> tuple[Bench, Journal]:
    cfg = config(**changes)
    journal = Journal(directory / "journal.sqlite", cfg)
    bench = Bench(Hub(cfg, SmallTask(), journal.load(), 0.0, VOCABULARY))
    for peer, role in ((b"s", "sampler"), (b"v", "verifier"), (b"l", "learner")):
        bench.say(peer, hello(role, seq=1, step=bench.hub.state.step if role == "learner" else -1, start=9))
    return bench, journal


POISON = [
    {"prompt_ids": b"abc"},
    {"prompt_ids": b""},
    {"prompt_ids": pack_ints([1, VOCABULARY])},
    {"prompt_ids": pack_ints([-1])},
    {"token_ids": pack_ints([7, 7, 2**30])},
    {"token_ids": pack_ints([7, -7, 7])},
    {"token_ids": pack_ints([7, 7, VOCABULARY])},
    {"token_ids": b"", "logprobs": b"", "versions": b""},
    {"token_ids": pack_ints([7] * 9), "logprobs": pack_floats([-1.0] * 9), "versions": pack_ints([0] * 9)},
    {"token_ids": b"abcde"},
    {"logprobs": pack_floats([-1.0, -3e38, -1.0])},
    {"logprobs": pack_floats([-1.0, 3.0, -1.0])},
    {"logprobs": pack_floats([-1.0, math.inf, -1.0])},
    {"versions": pack_ints([0, -1, 0])},
    {"versions": pack_ints([0, 1, 0])},
    {"step_offsets": b"abc"},
    {"step_offsets": pack_ints([0, 3])},
    {"step_offsets": pack_ints([2, 1])},
    {"step_offsets": pack_ints([1, 1])},
    {"step_offsets": pack_ints([-1, 1])},
    # a run without an environment has no turns, no claims and no observations
    {"turns": pack_ints([0])},
    {"turns": pack_ints([0, 2]), "versions": pack_ints([0, -1, 0])},
    {"claim": {"correct": 1.0}},
    {"ended": "done"},
    {"transcript": b"x"},
]


@pytest.mark.parametrize("poison", POISON, ids=[" ".join(one) + f" {number}" for number, one in enumerate(POISON)])
def test_a_poisoned_rollout_is_refused_before_it_is_stored_and_another_attempt_is_made(tmp_path: Path, poison: Any):
    bench, journal = bench_of(tmp_path)
    work = bench.got(b"s", Work)[0]
    group = rollouts_of(work.job)
    if "prompt_ids" in poison:
        group = msgspec.structs.replace(group, **poison)
    else:
        group.rollouts[1] = msgspec.structs.replace(group.rollouts[1], **poison)
    sent = bench.say(b"s", Done(lease=work.lease, groups=[group]))
    record = bench.hub.state.ledger.records[work.job.group_id]
    assert (record.state, record.faults) == ("issued", 1)
    assert [m.lease for m in sent if isinstance(m, Revoke) and m.refused] == [work.lease]
    assert not [m for m in sent if isinstance(m, Ack)]
    assert f"group {work.job.group_id}" in bench.hub.state.ending.last_error
    assert work.job.group_id not in bench.hub.state.ledger.bodies
    bench.run(b"s", b"v", b"l")
    assert bench.hub.state.step == 3
    journal.close()


def test_step_offsets_that_rise_within_the_response_and_the_largest_id_are_taken(tmp_path: Path):
    bench, journal = bench_of(tmp_path)
    work = bench.got(b"s", Work)[0]
    group = rollouts_of(work.job)
    changes = {"step_offsets": pack_ints([0, 2]), "token_ids": pack_ints([0, VOCABULARY - 1, 3])}
    group.rollouts[0] = msgspec.structs.replace(group.rollouts[0], **changes, logprobs=pack_floats([0.0, -99.0, 1e-4]))
    assert Ack(lease=work.lease) in bench.say(b"s", Done(lease=work.lease, groups=[group]))
    journal.close()


# --- verdicts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300, -1e10])
def test_a_part_that_no_learner_can_sum_is_no_verdict(tmp_path: Path, value: float):
    bench, journal = bench_of(tmp_path)
    bench.say(b"s", answer(bench.got(b"s", Work)[0]))
    work = bench.got(b"v", Work)[0]
    verdicts = verdicts_of(work.job)
    verdicts.verdicts[1] = Verdict(status="correct", parts={"correct": 1.0, "x": value})
    sent = bench.say(b"v", Done(lease=work.lease, verdicts=[verdicts]))
    assert [m.lease for m in sent if isinstance(m, Revoke) and m.refused] == [work.lease]
    assert bench.hub.state.ledger.records[work.job.group_id].state == "sampled"
    journal.close()


def test_names_of_parts_are_bounded_in_a_run_and_what_is_dropped_is_counted(tmp_path: Path):
    bench, journal = bench_of(tmp_path, stage={"max_uses": 1})
    num = 0
    for _ in range(60):
        for work in [m for m in bench.inbox.get(b"v", []) if isinstance(m, Work)]:
            names = {f"name-{num}-{i}": 1.0 for i in range(20)} | {"y" * 65: 1.0, "bell\x07": 1.0, "correct": 1.0}
            verdicts = verdicts_of(work.job)
            verdicts.verdicts[:] = [Verdict(status="correct", parts=names) for _ in work.job.items]
            bench.inbox[b"v"].remove(work)
            assert Ack(lease=work.lease) in bench.say(b"v", Done(lease=work.lease, verdicts=[verdicts]))
            num += 1
        for peer in (b"s", b"l"):
            bench.step(peer)
    assert num >= 6
    state = bench.hub.state
    assert len(state.part_names) == 64
    assert max(len(name) for name in state.part_names) <= 64
    assert state.pace.figures["refused.parts"] > 100
    parts = [name for name in state.pace.figures if name.startswith("parts.")]
    assert "parts.correct" in parts
    assert len(parts) <= 64
    stored = [v for verdicts in state.ledger.verdicts.values() for v in verdicts]
    assert all("correct" in v.parts for v in stored)
    journal.close()


# --- a way out --------------------------------------------------------------------------------------------------------


def refuse(bench: Bench, work: Work, groups: list[int]) -> list[Any]:
    return bench.say(b"l", Failed(lease=work.lease, kind="data", error="group is poison", groups=groups))


def batches(bench: Bench) -> list[Work]:
    return [m for m in bench.got(b"l", Work) if isinstance(m.job, TrainJob)]


def test_a_batch_that_the_learner_cannot_train_loses_the_named_group_by_a_decision_that_survives(tmp_path: Path):
    bench, journal = bench_of(tmp_path)
    bench.until(lambda: batches(bench), b"s", b"v")
    [first] = batches(bench)
    guilty, other = (verified.group.group_id for verified in first.job.batch.groups)
    bench.inbox[b"l"].clear()
    again = [m for m in refuse(bench, first, [guilty, 4711]) if isinstance(m, Work)]
    assert [v.group.group_id for v in again[0].job.batch.groups] == [guilty, other]  # once may be an accident
    after = [m for m in refuse(bench, again[0], [guilty]) if isinstance(m, Work)]
    assert [v.group.group_id for v in after[0].job.batch.groups] == [other]
    bench.inbox[b"l"].clear()
    journal.commit(bench.records)
    journal.close()
    # The hub is killed: what it decided is in the journal, and its learner is sent the smaller batch.
    bench, journal = bench_of(tmp_path)
    bench.tick(5.0)
    bench.tick(9.0)
    [work] = [m for m in bench.got(b"l", Work) if m.job.batch.step == 1]
    assert [v.group.group_id for v in work.job.batch.groups] == [other]
    bench.run(b"s", b"v", b"l")
    assert bench.hub.state.step == 3
    assert bench.hub.state.ledger.dropped["quarantined"] == 1
    journal.commit(bench.records)
    journal.close()
    [(state, reason, uses, why)] = rows(
        tmp_path / "journal.sqlite", f"SELECT state, reason, uses, why FROM groups WHERE group_id = {guilty}"
    )
    assert (state, reason, uses) == ("dropped", "quarantined", 0)
    assert "poison" in why
    [(step, groups)] = rows(tmp_path / "journal.sqlite", "SELECT step, groups FROM amendments")
    assert (step, groups) == (1, f"[{guilty}]")
    found = {f.guarantee: f.rows for f in audit(tmp_path).findings if f.outcome == "violated"}
    assert found == {}
    rows(tmp_path / "journal.sqlite", "DELETE FROM amendments RETURNING step")
    assert "G4" in {f.guarantee for f in audit(tmp_path).findings if f.outcome == "violated"}


def test_a_batch_that_is_all_poison_is_trained_empty_and_the_run_goes_on(tmp_path: Path):
    bench, journal = bench_of(tmp_path)
    bench.until(lambda: batches(bench), b"s", b"v")
    [first] = batches(bench)
    ids = [verified.group.group_id for verified in first.job.batch.groups]
    bench.inbox[b"l"].clear()
    work = next(m for m in refuse(bench, first, ids) if isinstance(m, Work))
    work = next(m for m in refuse(bench, work, ids) if isinstance(m, Work))
    assert work.job.batch.groups == []
    bench.inbox[b"l"] = [work]
    bench.run(b"s", b"v", b"l")
    assert bench.hub.state.step == 3
    journal.commit(bench.records)
    journal.close()
    assert audit(tmp_path).ok


def test_a_group_that_was_trained_before_stays_trained_and_its_use_is_given_back(tmp_path: Path):
    bench, journal = bench_of(tmp_path, stage={"max_uses": 3, "max_lag": 4, "selection": "fifo"})
    named: dict[int, int] = {}
    for _ in range(200):
        for work in batches(bench):
            if work not in bench.inbox[b"l"]:
                continue
            records = bench.hub.state.ledger.records
            used = [v.group.group_id for v in work.job.batch.groups if records[v.group.group_id].uses > 1]
            if (used and not named) or set(used) & named.keys():
                bench.inbox[b"l"].remove(work)
                named[used[0]] = work.job.batch.step
                refuse(bench, work, used[:1])
        for peer in (b"s", b"v", b"l"):
            bench.step(peer)
    assert bench.hub.state.step == 3
    journal.commit(bench.records)
    journal.close()
    assert {f.guarantee: f.rows for f in audit(tmp_path).findings if f.outcome == "violated"} == {}
    if named:
        [(state, uses)] = rows(
            tmp_path / "journal.sqlite", f"SELECT state, uses FROM groups WHERE group_id = {next(iter(named))}"
        )
        assert state == "trained"
        assert uses >= 1


@pytest.mark.parametrize("named", [[], [4711]])
def test_a_learner_that_names_no_group_of_its_batch_takes_nothing_out(tmp_path: Path, named: list[int]):
    bench, journal = bench_of(tmp_path)
    bench.until(lambda: batches(bench), b"s", b"v")
    refuse(bench, batches(bench)[0], named)
    assert bench.hub.state.ending.kind == "failed"
    assert not [r for r in bench.records if isinstance(r, Amended)]
    journal.close()


@pytest.mark.parametrize("damage", ["reported", "another group", "in training", "none"])
def test_the_journal_refuses_a_decision_that_breaks_a_batch(tmp_path: Path, damage: str):
    bench, journal = bench_of(tmp_path)
    bench.until(lambda: batches(bench), b"s", b"v")
    manifest = next(r for r in bench.records if isinstance(r, Manifest))
    if damage == "reported":
        bench.run(b"s", b"v", b"l")
    journal.commit(bench.records)
    first, second = manifest.groups
    kept = [first] if damage != "another group" else [999]
    changed = msgspec.structs.replace(
        manifest,
        groups=kept,
        oldest=manifest.oldest[:1],
        uses=manifest.uses[:1],
        propensities=manifest.propensities[:1],
    )
    groups = [] if damage == "none" else [second]
    with pytest.raises(InvariantError):
        journal.commit([Amended(manifest=changed, groups=groups, why="x")])
    assert rows(tmp_path / "journal.sqlite", "SELECT count(*) FROM amendments") == [(0,)]
    journal.close()
