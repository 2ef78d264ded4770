"""A message that is lost, late, repeated or out of order, or a frozen process: repaired, and charged to nobody wrongly."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rlsp_async.columns import pack_floats
from rlsp_async.config import ReplayConfig, StageConfig
from rlsp_async.messages import (
    Ack,
    Bye,
    Done,
    Drain,
    Failed,
    Hello,
    NewWeights,
    Ping,
    Pong,
    Refuse,
    Rejected,
    Revoke,
    StepReport,
    TrainJob,
    Welcome,
    Work,
)
from rlsp_async.replay.records import Event, Published, Put, Repeated
from rlsp_async.replay.records import JournalContent as LoadedJournal
from tests.replay.line import Bench, answer, config, hello, new_hub, report_of, rollouts_of, verdicts_of, weights


def crewed(**changes: Any) -> Bench:
    bench = Bench(new_hub(config(**changes)))
    for peer, role in ((b"s", "sampler"), (b"v", "verifier"), (b"l", "learner")):
        bench.say(peer, hello(role, seq=1))
    return bench


def events(bench: Bench, kind: str) -> list[Event]:
    return [record for record in bench.records if isinstance(record, Event) and record.kind == kind]


def works(bench: Bench, peer: bytes) -> list[Work]:
    return bench.got(peer, Work)


def sampled(bench: Bench) -> Work:
    """Lets the sampler answer once; the verifier's Work."""
    bench.say(b"s", answer(works(bench, b"s")[0]))
    return works(bench, b"v")[0]


def to_training(bench: Bench) -> list[Work]:
    bench.until(lambda: works(bench, b"l"), b"s", b"v")
    return works(bench, b"l")


# --- leases ------------------------------------------------------------------------------------------------------------


def test_a_lost_work_is_leased_again_after_two_pings_and_nobody_is_charged():
    bench = crewed()
    lost, kept = works(bench, b"s")[:2]
    for seq, now in enumerate((1.0, 3.5, 4.5), start=2):
        bench.now = now
        assert lost.job.group_id not in bench.hub.state.queues.sample.queue
        sent = bench.say(b"s", Ping(seq=seq, leases=[kept.lease], version=0))
    assert [m.job.group_id for m in sent if isinstance(m, Work)] == [lost.job.group_id]
    group_record = bench.hub.state.ledger.records[lost.job.group_id]
    assert (group_record.lost, group_record.deaths, group_record.faults) == (0, 0, 0)
    assert [event.key for event in events(bench, "lease_lost")] == [lost.job.group_id]


def test_an_older_ping_undoes_nothing():
    bench = crewed()
    first = works(bench, b"s")[0]
    bench.now = 10.0
    for seq in (9, 3, 4, 5):
        bench.say(b"s", Ping(seq=seq, leases=[w.lease for w in works(bench, b"s")] if seq == 9 else [], version=0))
    assert first.lease in bench.hub.state.table.leases


def test_a_named_lease_that_is_over_is_acknowledged_or_revoked():
    bench = crewed()
    done = works(bench, b"s")[0]
    bench.say(b"s", answer(done))
    sent = bench.say(b"s", Ping(seq=2, leases=[done.lease, 12345], version=0))
    assert Ack(lease=done.lease) in sent
    assert [m.lease for m in sent if isinstance(m, Revoke)] == [12345]


def test_leases_of_a_restarted_hub_are_taken_over_under_their_numbers():
    before = crewed()
    sampler_work = works(before, b"s")[0]
    group_records = list(before.hub.state.ledger.records.values())
    reborn = Bench(new_hub(config(), LoadedJournal(incarnation=2, groups=group_records, last_group_id=9)))
    reborn.tick(0.0)
    group_id = sampler_work.job.group_id
    stranger = reborn.say(b"t", hello("sampler", "sampler-1", credit=9))
    assert group_id not in [m.job.group_id for m in stranger if isinstance(m, Work)]  # it waits for its former holder
    sent = reborn.say(
        b"s", hello("sampler", seq=2, leases=[sampler_work.lease, 77], holding={sampler_work.lease: group_id, 77: 4040})
    )
    assert sent[0].leases == [sampler_work.lease]
    assert reborn.hub.state.table.leases[sampler_work.lease].key == group_id
    assert not events(reborn, "lease_lost")
    reborn.say(b"s", answer(sampler_work))
    assert reborn.hub.state.ledger.records[group_id].state == "sampled"


def test_restored_groups_are_leased_again_when_nobody_claims_them():
    group_records = list(crewed().hub.state.ledger.records.values())
    reborn = Bench(new_hub(config(), LoadedJournal(incarnation=2, groups=group_records, last_group_id=9)))
    reborn.tick(0.0)
    reborn.say(b"s", hello("sampler", credit=9))
    reborn.tick(1.0)
    restored = {group_record.group_id for group_record in group_records}
    assert not restored & {work.job.group_id for work in works(reborn, b"s")}
    reborn.tick(2.5)
    assert restored < {work.job.group_id for work in works(reborn, b"s")}


def test_a_returned_lease_is_not_charged_and_its_worker_gets_nothing_until_its_next_ping():
    bench = crewed()
    work = works(bench, b"s")[0]
    sent = bench.say(b"s", Failed(lease=work.lease, kind="returned", error="above the credit"))
    assert not [m for m in sent if isinstance(m, Work)]
    sent = bench.say(b"s", Ping(seq=2, leases=[w.lease for w in works(bench, b"s")], version=0))
    assert [m.job.group_id for m in sent if isinstance(m, Work)] == [work.job.group_id]
    group_record = bench.hub.state.ledger.records[work.job.group_id]
    assert (group_record.lost, group_record.deaths, group_record.faults) == (0, 0, 0)


# --- hello, bye, starts ------------------------------------------------------------------------------------------------


def test_a_hello_that_comes_twice_late_or_after_the_goodbye_changes_nothing():
    bench = crewed()
    held = set(bench.hub.state.table.workers["sampler-0"].leases)
    assert bench.say(b"s", hello("sampler", seq=1)) == []
    assert set(bench.hub.state.table.workers["sampler-0"].leases) == held
    bench.say(b"s2", hello("sampler", seq=2, leases=sorted(held)))
    assert bench.say(b"s", hello("sampler", seq=1)) == []  # of the connection before
    assert bench.hub.state.table.workers["sampler-0"].peer == b"s2"
    bench.say(b"s2", Bye())
    assert bench.say(b"s2", hello("sampler", seq=2)) == []
    assert "sampler-0" not in bench.hub.state.table.workers


def test_a_hello_sent_again_because_no_welcome_came_is_welcomed_and_keeps_its_leases():
    bench = crewed()
    held = sorted(bench.hub.state.table.workers["sampler-0"].leases)
    sent = bench.say(b"s", hello("sampler", seq=2))
    assert [(m.leases, m.seq) for m in sent if isinstance(m, Welcome)] == [(held, 2)]


def test_what_an_older_start_says_is_refused_recorded_and_never_stored():
    bench = crewed()
    work = to_training(bench)[0]
    bench.say(b"l2", hello("learner", start=2, step=0, seq=1))
    late = Done(lease=work.lease, steps=[report_of(work.job)])
    [refusal] = bench.say(b"l", late)
    assert isinstance(refusal, Refuse)
    assert bench.hub.state.step == 0
    assert [event.worker for event in events(bench, "fenced")] == ["learner-0", "l"]
    assert isinstance(bench.say(b"l9", hello("learner", start=1, step=0, seq=7))[0], Refuse)


def test_an_older_start_is_refused_after_the_newer_one_has_left():
    bench = crewed()
    bench.say(b"s2", hello("sampler", start=2, seq=1))
    bench.say(b"s2", Bye())
    assert isinstance(bench.say(b"s", hello("sampler", start=1, seq=9))[0], Refuse)


def test_a_hub_that_was_frozen_does_not_take_its_own_sleep_for_their_silence():
    bench = crewed()
    bench.tick(0.25)
    bench.tick(120.0)
    assert set(bench.hub.state.table.workers) == {"sampler-0", "verifier-0", "learner-0"}
    assert not events(bench, "gone")


def test_a_frozen_worker_that_wakes_is_asked_for_a_hello_and_gets_its_lease_back():
    bench = crewed()
    held = {work.lease: work.job.group_id for work in works(bench, b"s")}
    for now in range(12):
        bench.tick(float(now))
    assert "sampler-0" not in bench.hub.state.table.workers
    assert bench.say(b"s", Ping(seq=2, leases=sorted(held))) == [Pong(known=False)]
    [welcome, *_] = bench.say(b"s", hello("sampler", seq=2, leases=sorted(held), holding=held))
    assert welcome.leases == sorted(held)


# --- results -----------------------------------------------------------------------------------------------------------


def test_a_result_for_another_group_than_the_leased_one_is_not_accepted():
    bench = crewed()
    first = sampled(bench)
    bench.say(b"s", answer(works(bench, b"s")[1]))
    other = works(bench, b"v")[1]
    bench.say(b"v", Done(lease=first.lease, verdicts=[verdicts_of(other.job)]))
    state = bench.hub.state
    assert state.ledger.records[other.job.group_id].state == "sampled"
    assert state.ledger.records[first.job.group_id].faults == 1


@pytest.mark.parametrize(
    "change", [{"logprobs": pack_floats([-1.0, float("nan"), -1.0])}, {"future": True}, {"prompt": True}]
)
def test_rollouts_that_cannot_be_trained_on_are_a_fault_of_the_answer(change: dict[str, Any]):
    bench = crewed()
    work = works(bench, b"s")[0]
    group = rollouts_of(work.job, version=7 if "future" in change else 0)
    if "logprobs" in change:
        group.rollouts[1] = msgspec.structs.replace(group.rollouts[1], **change)
    if "prompt" in change:
        group = msgspec.structs.replace(group, prompt=msgspec.structs.replace(group.prompt, prompt_id="small/train/99"))
    bench.say(b"s", Done(lease=work.lease, groups=[group]))
    group_record = bench.hub.state.ledger.records[work.job.group_id]
    assert (group_record.state, group_record.faults) == ("issued", 1)


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": {"answer": "42"}},
        {"prompt": {"text": "say 42"}},
        {"prompt": {"propensity": 0.5}},
        {"sampling": {"temperature": 9.0}},
        {"sampling": {"seed": 1}},
        {"purpose": "evaluate"},
        {"stage": "sft"},
        {"provenance": "demonstration"},
    ],
)
def test_rollouts_of_something_else_than_was_issued_are_a_fault_of_the_answer(change: dict[str, Any]):
    """What a sampler echoes is what its rollouts are judged by: a wrong answer there would be a false reward."""
    bench = crewed()
    work = works(bench, b"s")[0]
    group = rollouts_of(work.job)
    echoed = {
        name: msgspec.structs.replace(getattr(group, name), **value) if isinstance(value, dict) else value
        for name, value in change.items()
    }
    bench.say(b"s", Done(lease=work.lease, groups=[msgspec.structs.replace(group, **echoed)]))
    group_record = bench.hub.state.ledger.records[work.job.group_id]
    assert (group_record.state, group_record.faults) == ("issued", 1)
    assert "than it was issued with" in bench.hub.state.ending.last_error


def test_late_verdicts_and_rollouts_are_counted_and_recorded_not_trained():
    bench = crewed()
    work = works(bench, b"s")[0]
    bench.say(b"s", answer(work))
    assert bench.say(b"s", answer(work)) == [Ack(lease=work.lease)]  # sent twice: nothing happened
    assert not events(bench, "dropped_late")
    bench.say(b"s", Done(lease=555, groups=[rollouts_of(work.job)]))
    bench.say(b"v", Done(lease=556, verdicts=[verdicts_of(works(bench, b"v")[0].job)]))
    assert [event.key for event in events(bench, "dropped_late")] == [work.job.group_id] * 2
    assert bench.hub.state.num_duplicates == 3


def test_somebody_elses_lease_is_not_ended_by_a_result():
    bench = crewed()
    work = works(bench, b"s")[0]
    bench.say(b"s2", hello("sampler", "sampler-1", credit=1))
    bench.say(b"s2", Done(lease=work.lease))
    assert work.lease in bench.hub.state.table.leases


def test_a_report_that_overtook_the_one_before_is_not_acknowledged_until_it_can_be_stored():
    bench = crewed(stage={"target_lag": 2})
    bench.until(lambda: len(works(bench, b"l")) == 2, b"s", b"v")
    first, second = works(bench, b"l")
    assert bench.say(b"l", answer(second)) == []
    assert second.lease in bench.hub.state.table.leases
    assert Ack(lease=first.lease) in bench.say(b"l", answer(first))
    assert Ack(lease=second.lease) in bench.say(b"l", answer(second))
    assert bench.hub.state.step == 2


def test_a_report_sent_twice_is_no_repeated_step_but_one_trained_again_is():
    bench = crewed()
    work = to_training(bench)[0]
    report = msgspec.structs.replace(report_of(work.job), incarnation=1)
    bench.say(b"l", Done(lease=work.lease, steps=[report]))
    bench.say(b"l", Done(lease=work.lease, steps=[report]))
    bench.say(b"l", Done(lease=999, steps=[report]))
    assert not [r for r in bench.records if isinstance(r, Repeated)]
    bench.say(b"l", Done(lease=1000, steps=[msgspec.structs.replace(report, incarnation=2)]))
    assert len([r for r in bench.records if isinstance(r, Repeated)]) == 1


def test_weights_of_an_older_learner_never_replace_newer_ones():
    bench = crewed()
    work = to_training(bench)[0]
    bench.say(b"l", Done(lease=work.lease, steps=[StepReport(step=1, weights=weights(1, incarnation=5))]))
    bench.say(b"l", Done(lease=900, steps=[StepReport(step=1, weights=weights(1, incarnation=4))]))
    assert bench.hub.state.training.weights.incarnation == 5
    bench.say(b"l", Done(lease=901, steps=[StepReport(step=1, weights=weights(1, incarnation=6))]))
    assert bench.hub.state.training.weights.incarnation == 6


def test_steps_that_came_out_of_order_are_sent_again_in_order_and_are_no_failure():
    bench = crewed(stage={"target_lag": 2})
    bench.until(lambda: len(works(bench, b"l")) == 2, b"s", b"v")
    first, second = works(bench, b"l")  # the first was lost
    bench.inbox[b"l"].clear()
    bench.say(b"l", Failed(lease=second.lease, kind="returned", error="step 2 cannot follow step 0"))
    for seq in range(2, 7):
        bench.now = float(seq)
        bench.say(b"l", Ping(seq=seq, leases=[w.lease for w in works(bench, b"l")]))
    assert [w.job.batch.step for w in works(bench, b"l")] == [2, 1]
    assert bench.hub.state.retries.train_failures == 0
    assert first.lease not in bench.hub.state.table.leases


# --- versions and drains -----------------------------------------------------------------------------------------------


def test_a_sampler_that_missed_a_version_is_told_again_but_not_at_every_ping():
    bench = crewed()
    work = to_training(bench)[0]
    bench.say(b"l", answer(work))
    bench.inbox[b"s"].clear()
    for seq in range(2, 12):
        bench.now += 1.0
        bench.say(b"s", Ping(seq=seq, version=0, leases=[w.lease for w in works(bench, b"s")]))
    assert 2 <= len(bench.got(b"s", NewWeights)) <= 4
    bench.inbox[b"s"].clear()
    bench.now += 9.0
    bench.say(b"s", Ping(seq=12, version=1, made_by=1))
    assert not bench.got(b"s", NewWeights)
    assert bench.hub.state.table.workers["sampler-0"].version == 1  # its Loaded was lost


def test_a_lost_drain_is_sent_again_with_each_ping():
    bench = crewed()
    bench.take(bench.hub.stop("enough", 0.0), b"")
    assert bench.say(b"s", Ping(seq=2)) == [Drain(reason="enough")]
    bench.say(b"s", Bye())
    bench.say(b"v", Bye())
    bench.say(b"l", Bye())
    assert [event.detail for event in events(bench, "stopped")] == ["enough"]


# --- budgets -----------------------------------------------------------------------------------------------------------


def deaths_of(bench: Bench, num: int, start: int) -> None:
    """The one sampler is killed and started again."""
    for incarnation in range(start, start + num):
        bench.say(b"s%d" % incarnation, hello("sampler", start=incarnation, credit=1, seq=1))


def test_a_group_with_which_three_workers_died_is_quarantined_with_its_reason():
    bench = Bench(new_hub(config(replay=ReplayConfig(retries=99))))
    deaths_of(bench, 4, start=1)
    assert bench.hub.state.ledger.dropped == {"quarantined": 1}
    [group_record] = [r.record for r in bench.records if isinstance(r, Put) and r.record.state == "dropped"]
    assert "3 workers died" in group_record.why
    assert "3 workers died" in events(bench, "quarantined")[0].detail


def test_a_worker_that_falls_silent_again_and_again_is_one_death():
    bench = Bench(new_hub(config()))
    for seq in range(1, 6):
        bench.say(b"s", hello("sampler", credit=1, seq=seq))
        for _ in range(12):
            bench.tick(bench.now + 1.0)
    assert not bench.hub.state.ledger.dropped
    assert len(events(bench, "gone")) == 5


def test_deaths_and_faults_are_two_budgets():
    bench = crewed(replay=ReplayConfig(retries=2))
    group_id = works(bench, b"s")[0].job.group_id
    for lease in [w for w in works(bench, b"s") if w.job.group_id == group_id]:
        bench.say(b"s", Failed(lease=lease.lease, kind="infrastructure", error="engine died"))
    for _ in range(2):
        work = [w for w in works(bench, b"s") if w.job.group_id == group_id][-1]
        bench.say(b"s", Failed(lease=work.lease, kind="data", error="too long"))
    group_record = bench.hub.state.ledger.records[group_id]
    assert (group_record.lost, group_record.faults, group_record.state) == (1, 2, "issued")


# --- watchdog ----------------------------------------------------------------------------------------------------------


def test_a_stall_is_reported_at_half_of_its_bound_and_taken_back_when_the_line_moves():
    bench = crewed(replay=ReplayConfig(stall_s=50.0))
    bench.say(b"o", Hello(run="test", role="observer", worker="o", credit=0))
    for now in range(27):
        bench.now = float(now)
        for seq, peer in enumerate((b"s", b"v", b"l", b"o")):
            leases = [w.lease for w in works(bench, peer)]
            bench.say(peer, Ping(seq=now * 4 + seq + 1, leases=leases, version=0))
        bench.tick(float(now))
    state = bench.hub.state
    assert state.ending.kind == ""
    assert state.ending.message.startswith("nothing moved for 26 s")
    assert "stage rlsp waits for sampler-0, which has held group 1 for 26 s" in state.ending.message
    assert len(events(bench, "stalled")) == 1
    bench.say(b"s", answer(works(bench, b"s")[0]))
    bench.tick(27.0)
    assert state.ending.message == ""


def test_a_learner_that_holds_a_step_far_longer_than_usual_is_named():
    bench = crewed(stages={"rlsp": StageConfig(steps=9, groups_per_step=2)}, replay=ReplayConfig(stall_s=600.0))
    for step in range(1, 5):
        bench.until(lambda step=step: len(works(bench, b"l")) >= step, b"s", b"v")
        bench.now += 2.0
        bench.say(b"l", answer(works(bench, b"l")[step - 1]))
    bench.until(lambda: len([w for w in works(bench, b"l") if isinstance(w.job, TrainJob)]) >= 5, b"s", b"v")
    for _ in range(35):
        bench.now += 1.0
        for peer in (b"s", b"v", b"l"):
            bench.say(peer, Ping())
        bench.tick(bench.now)
    assert bench.hub.state.ending.message.startswith("learner-0 has held step 5 for 3")
    assert "usually take 2.0 s" in bench.hub.state.ending.message
    assert len(events(bench, "stalled")) == 1


def test_how_a_run_ended_is_recorded():
    bench = crewed()
    bench.tick(0.0)
    bench.run(b"s", b"v", b"l")
    assert [
        event.kind
        for event in bench.records
        if isinstance(event, Event) and event.kind in ("hub_start", "finished", "failed", "stopped")
    ] == ["hub_start", "finished"]


def test_a_step_that_the_learner_has_left_behind_is_not_sent_again_and_again():
    """Its lease ran out after a later step was reported: the learner cannot train it any more, and nobody needs it."""
    bench = crewed(stages={"rlsp": StageConfig(steps=9, groups_per_step=2, target_lag=2)})
    for step in (1, 2, 3):
        bench.until(lambda step=step: len(works(bench, b"l")) >= step, b"s", b"v")
        bench.say(b"l", answer(works(bench, b"l")[step - 1]))
    bench.say(b"l2", hello("learner", start=2, step=0, seq=1))  # from the beginning, no checkpoint was made
    for step in (1, 2):
        bench.take(bench.hub.restored(step, [], 0.0), b"")
    first, second = works(bench, b"l2")
    bench.say(b"l2", Done(lease=second.lease, steps=[report_of(second.job)]))
    bench.say(b"l2", Failed(lease=first.lease, kind="returned", error="step 1 cannot follow step 2"))
    bench.say(b"l2", Ping(seq=1, leases=[]))
    bench.take(bench.hub.restored(3, [], 0.0), b"")
    bench.say(b"l2", Ping(seq=2, leases=[]))
    assert [work.job.batch.step for work in works(bench, b"l2")][:3] == [1, 2, 3]


def test_a_step_that_was_forgotten_meanwhile_is_skipped():
    bench = crewed(stages={"rlsp": StageConfig(steps=9, groups_per_step=2, target_lag=2)})
    bench.until(lambda: len(works(bench, b"l")) == 2, b"s", b"v")
    first, second = works(bench, b"l")
    bench.say(b"l", answer(first))
    del bench.hub.state.training.manifests[1]
    bench.hub.state.training.requeue(1, held=set())
    assert not bench.hub.state.training.to_train
    bench.say(b"l", answer(second))
    bench.until(lambda: len(works(bench, b"l")) == 3, b"s", b"v")
    assert works(bench, b"l")[2].job.batch.step == 3


def test_after_a_reboot_between_two_published_versions_the_learner_is_asked_for_the_weights_that_it_has():
    bench = crewed(stages={"rlsp": StageConfig(steps=9, groups_per_step=2, publish_every=2, target_lag=2)})
    for step in range(1, 4):  # version 2 is out, step 3 is saved and published nothing
        bench.until(lambda step=step: len(works(bench, b"l")) >= step, b"s", b"v")
        job = works(bench, b"l")[step - 1]
        bench.say(b"l", Done(lease=job.lease, steps=[report_of(job.job, publish=step == 2, checkpoint=3)]))
    state = bench.hub.state
    assert (state.step, state.version) == (3, 2)
    bench.say(b"l2", hello("learner", start=2, step=3, seq=1))
    for _ in range(6):
        bench.say(b"s", Rejected(version=2, reason="no such file"))
    assert state.ending.kind == ""
    bench.take(bench.hub.restored(3, [], 0.0), b"")
    asked = [work for work in works(bench, b"l2") if isinstance(work.job, TrainJob)]
    assert asked[0].job.batch.step == 3
    bench.say(
        b"l2", Done(lease=asked[0].lease, steps=[StepReport(step=3, weights=weights(3, incarnation=2), incarnation=2)])
    )
    assert state.version == 3
    assert bench.got(b"s", NewWeights)[-1].weights == weights(3, incarnation=2)
    assert [r.report.step for r in bench.records if isinstance(r, Published)] == [3]


def test_steps_whose_reports_were_lost_with_the_learner_are_closed_from_its_checkpoint():
    bench = crewed(stage={"target_lag": 2})
    bench.until(lambda: len(works(bench, b"l")) == 2, b"s", b"v")
    bench.say(b"l2", hello("learner", start=2, step=2, seq=1))  # trained 1 and 2, saved 2, and was killed
    assert bench.hub.state.step == 1
    [again] = [work for work in works(bench, b"l2") if isinstance(work.job, TrainJob) and work.job.batch.step == 2]
    bench.say(b"l2", answer(again))
    assert bench.hub.state.step == 2
    assert [event.key for event in events(bench, "lease_lost") if "in the weights of step 2" in event.detail] == [1]
