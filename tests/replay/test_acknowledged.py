"""Acknowledged is stored: a result is acknowledged to the start of the worker whose lease it answers, and to nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from rlsp_async.messages import Ack, Done, Loaded, Ping, Revoke, Work
from rlsp_async.replay.records import JournalContent
from tests.replay.line import Bench, answer, config, hello, new_hub, report_of, rollouts_of, verdicts_of


def crewed(**changes: Any) -> Bench:
    bench = Bench(new_hub(config(**changes)))
    for peer, role in ((b"s", "sampler"), (b"v", "verifier"), (b"l", "learner")):
        bench.say(peer, hello(role, seq=1))
    return bench


def refused(sent: list[Any]) -> list[int]:
    return [m.lease for m in sent if isinstance(m, Revoke) and m.refused]


def acknowledged(sent: list[Any]) -> list[int]:
    return [m.lease for m in sent if isinstance(m, Ack)]


@pytest.mark.parametrize("peer", [b"v", b"s", b"l"])
def test_empty_answers_to_leases_to_come_are_refused_counted_and_take_nothing_from_anybody(peer: bytes):
    bench = crewed()
    first = bench.got(b"s", Work)[0].lease
    for number in range(first, first + 200):
        if number not in bench.hub.state.table.leases:
            assert refused(bench.say(peer, Done(lease=number))) == [number]
    num = int(bench.hub.state.pace.figures["refused.results"])
    assert num >= 190
    assert len([r for r in bench.records if getattr(r, "kind", "") == "refused"]) == 20  # the rest is only counted
    bench.run(b"s", b"v", b"l")
    assert bench.hub.state.step == 3  # every result was looked at
    assert bench.hub.state.pace.figures["refused.results"] == num


def test_an_answer_to_the_lease_of_another_role_acknowledges_nothing():
    bench = crewed()
    work = bench.got(b"s", Work)[0]
    assert refused(bench.say(b"v", Done(lease=work.lease))) == [work.lease]
    assert work.lease in bench.hub.state.table.leases
    assert acknowledged(bench.say(b"s", answer(work))) == [work.lease]
    assert bench.hub.state.ledger.records[work.job.group_id].state == "sampled"
    assert acknowledged(bench.say(b"v", Done(lease=work.lease))) == []  # not after its end either


def test_another_worker_of_the_role_cannot_answer_and_another_start_is_not_told_what_the_first_was():
    bench = crewed()
    work = bench.got(b"s", Work)[0]
    bench.say(b"s2", hello("sampler", "sampler-1", credit=1))
    assert refused(bench.say(b"s2", answer(work))) == [work.lease]
    assert acknowledged(bench.say(b"s", answer(work))) == [work.lease]
    assert refused(bench.say(b"s2", answer(work))) == [work.lease]
    bench.say(b"s3", hello("sampler", start=2, seq=1))
    assert refused(bench.say(b"s3", Done(lease=work.lease))) == [work.lease]


def test_an_own_lease_without_its_result_is_refused_its_work_done_again_and_a_repeat_gets_the_same_answer():
    bench = crewed()
    work = bench.got(b"s", Work)[0]
    sent = bench.say(b"s", Done(lease=work.lease))
    assert refused(sent) == [work.lease]
    assert acknowledged(sent) == []
    assert bench.hub.state.ledger.records[work.job.group_id].faults == 1
    assert work.job.group_id in [m.job.group_id for m in sent if isinstance(m, Work)]
    assert refused(bench.say(b"s", Done(lease=work.lease))) == [work.lease]
    assert refused(bench.say(b"s", Ping(seq=2, leases=[work.lease]))) == [work.lease]
    assert bench.hub.state.ledger.records[work.job.group_id].faults == 1


def test_rollouts_that_are_not_taken_are_not_acknowledged():
    bench = crewed()
    work = bench.got(b"s", Work)[0]
    sent = bench.say(b"s", Done(lease=work.lease, groups=[rollouts_of(work.job, finish="abort")]))
    assert (acknowledged(sent), refused(sent)) == ([], [work.lease])


def test_verdicts_of_a_lease_that_was_taken_back_are_acknowledged_only_once_the_group_is_judged():
    bench = crewed()
    bench.say(b"s", answer(bench.got(b"s", Work)[0]))
    work = bench.got(b"v", Work)[0]
    bench.say(b"v2", hello("verifier", "verifier-1", credit=8))
    bench.hub.state.table.release(work.lease)
    bench.hub.state.queues.verify.enqueue(work.job.group_id)
    sent = bench.say(b"v", Done(lease=work.lease, verdicts=[verdicts_of(work.job)]))
    assert (acknowledged(sent), refused(sent)) == ([], [work.lease])
    assert bench.hub.state.ledger.records[work.job.group_id].state == "sampled"
    again = [w for w in bench.got(b"v", Work) + bench.got(b"v2", Work) if w.job.group_id == work.job.group_id][-1]
    bench.say(b"v2" if again in bench.got(b"v2", Work) else b"v", answer(again))
    assert bench.hub.state.ledger.records[work.job.group_id].state != "sampled"


@pytest.mark.parametrize("step", [0, -1, 2, 7, 2**40])
def test_a_report_of_a_step_that_was_never_sent_is_refused(step: int):
    bench = crewed()
    bench.until(lambda: bench.got(b"l", Work), b"s", b"v")
    work = bench.got(b"l", Work)[0]
    report = report_of(work.job)
    changed = type(report)(step=step, metrics=report.metrics, weights=report.weights)
    for lease in (work.lease + 1000, 5):
        assert acknowledged(bench.say(b"l", Done(lease=lease, steps=[changed]))) == []
    assert bench.hub.state.step == 0


def test_a_worker_cannot_claim_leases_that_it_was_never_given():
    bench = crewed()
    table = bench.hub.state.table
    group = bench.got(b"s", Work)[0].job.group_id
    foreign = bench.got(b"s", Work)[0].lease
    coming = max(table.leases) + 1
    bench.say(b"x", hello("sampler", "sampler-1", holding={coming: group, foreign: group, -4: group, 2**62: group}))
    assert {lease.worker for lease in table.leases.values() if lease.lease in (coming, foreign, -4, 2**62)} <= {
        "sampler-0",
        "sampler-1",
    }
    assert table.leases[foreign].worker == "sampler-0"
    assert -4 not in table.leases
    assert 2**62 not in table.leases


def test_after_a_restart_of_the_hub_a_stored_result_is_acknowledged_and_a_group_that_never_was_is_refused():
    before = crewed()
    work = before.got(b"s", Work)[0]
    before.say(b"s", answer(work))
    state = before.hub.state
    content = JournalContent(
        incarnation=2,
        groups=list(state.ledger.records.values()),
        bodies=dict(state.ledger.bodies),
        last_group_id=state.last_group_id,
    )
    bench = Bench(new_hub(config(), content))
    bench.tick(0.0)
    bench.say(b"s", hello("sampler", seq=2))
    assert acknowledged(bench.say(b"s", answer(work))) == [work.lease]
    unknown = rollouts_of(work.job)
    unknown = type(unknown)(**{**{f: getattr(unknown, f) for f in unknown.__struct_fields__}, "group_id": 10**6})
    assert refused(bench.say(b"s", Done(lease=77, groups=[unknown]))) == [77]


def test_loaded_again_and_again_is_no_progress():
    bench = crewed()
    moved_s = bench.hub.state.pace.progress_s
    bench.now = 50.0
    for _ in range(5):
        bench.say(b"s", Loaded(version=0, seconds=0.0, probe_error=0.0))
    assert bench.hub.state.pace.progress_s == moved_s
