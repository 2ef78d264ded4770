"""Events in, sends out: the hub's state machine by hand."""

from __future__ import annotations

import math

import msgspec
import pytest

from rlsp_async.columns import pack_floats, pack_ints
from rlsp_async.config import EvaluationConfig, ReplayConfig, SamplingConfig, StageConfig
from rlsp_async.messages import (
    Ack,
    Batch,
    Bye,
    Done,
    Drain,
    Failed,
    Loaded,
    NewWeights,
    Ping,
    Pong,
    Refuse,
    Rejected,
    Revoke,
    SampleJob,
    StepReport,
    TrainJob,
    VerifyJob,
    Welcome,
    Work,
)
from rlsp_async.replay import health
from rlsp_async.replay.plan import Phase
from rlsp_async.replay.records import Evaluated, Manifest, Put, Stepped
from rlsp_async.replay.sample import may_sample
from tests.replay.line import (
    Bench,
    answer,
    config,
    hello,
    new_hub,
    report_of,
    rollouts_of,
    verdicts_of,
    weights,
)


def jobs(messages: list, kind: type) -> list:
    return [m.job for m in messages if isinstance(m, Work) and isinstance(m.job, kind)]


def crewed(**changes) -> Bench:
    bench = Bench(new_hub(config(**changes)))
    for peer, role in ((b"s", "sampler"), (b"v", "verifier"), (b"l", "learner")):
        bench.say(peer, hello(role))
    return bench


def test_a_whole_run_trains_three_steps_and_drains():
    bench = crewed()
    bench.run(b"s", b"v", b"l")
    state = bench.hub.state
    assert state.step == 3
    assert state.ending.kind == "finished"
    assert state.ledger.counts() == {"issued": 6, "trained": 6, "dropped": 0, "alive": 0}
    assert [r.step for r in bench.records if isinstance(r, Manifest)] == [1, 2, 3]
    assert [r.last_of_stage for r in bench.records if isinstance(r, Manifest)] == [False, False, True]
    assert state.ledger.tokens()["generated"] == 6 * 2 * 3 == state.ledger.tokens()["trained"]


def test_credit_bounds_the_leases_of_a_sampler():
    bench = Bench(new_hub(config()))
    sent = bench.say(b"s", hello("sampler", credit=3))
    assert isinstance(sent[0], Welcome)
    assert len(jobs(sent, SampleJob)) == 3


def test_capacity_bounds_what_is_issued():
    bench = Bench(new_hub(config(stage={"target_lag": 0})))
    sent = bench.say(b"s", hello("sampler", credit=64))
    assert len(jobs(sent, SampleJob)) == 2  # (0 + 1) * 2
    assert bench.hub.state.ledger.alive == 2


def test_synchronous_sampling_waits_for_the_new_version_to_be_loaded():
    bench = crewed(stage={"target_lag": 0})
    bench.until(lambda: jobs(bench.inbox[b"l"], TrainJob), b"s", b"v")
    bench.inbox[b"s"].clear()
    [work] = [m for m in bench.inbox[b"l"] if isinstance(m, Work)]
    bench.say(b"l", answer(work))
    assert [type(m) for m in bench.inbox[b"s"]] == [NewWeights]  # announced, but no work before it is loaded
    sent = bench.say(b"s", Loaded(version=1, seconds=0.1, probe_error=0.0))
    assert len(jobs(sent, SampleJob)) == 2


@pytest.mark.parametrize(
    ("target_lag", "served", "newest", "state", "may"),
    [
        (0, 4, 5, "loading", False),
        (1, 4, 5, "loading", False),
        (2, 4, 5, "loading", True),
        (2, 4, 5, "working", False),
        (2, 3, 5, "loading", False),
        (3, 3, 5, "loading", True),
        (3, -1, 1, "loading", False),
        (3, 6, 5, "loading", False),
        (0, 5, 5, "working", True),
    ],
)
def test_a_sampler_that_loads_goes_on_with_an_older_version_within_the_lag(target_lag, served, newest, state, may):
    hub = crewed(stage={"target_lag": target_lag}).hub
    worker = next(worker for worker in hub.state.table.workers.values() if worker.role == "sampler")
    worker.version, worker.state, hub.state.training.version = served, state, newest
    assert may_sample(hub.state, worker) is may


def test_an_evaluation_is_of_one_version_whatever_the_lag():
    bench = crewed(stage={"target_lag": 3}, evaluation=EvaluationConfig(prompts=2, before=["rlsp"]))
    worker = next(worker for worker in bench.hub.state.table.workers.values() if worker.role == "sampler")
    assert bench.hub.state.phase.kind == "evaluate"
    worker.version, worker.state, bench.hub.state.training.version = 4, "loading", 5
    assert not may_sample(bench.hub.state, worker)


def test_manifest_is_recorded_in_the_event_that_sends_the_batch():
    bench = crewed()
    effects = None
    for _ in range(50):
        if effects and any(isinstance(m, Work) and isinstance(m.job, TrainJob) for _, m in effects.sends):
            break
        bench.step(b"s")
        work = next((m for m in bench.inbox[b"v"] if isinstance(m, Work)), None)
        if work:
            bench.inbox[b"v"].remove(work)
            effects = bench.hub.on(b"v", answer(work), 0.0)
            bench.take(effects, b"v")
    [manifest] = [r for r in effects.records if isinstance(r, Manifest)]
    charged = [r.record for r in effects.records if isinstance(r, Put) and r.record.state == "training"]
    assert manifest.groups == [group_record.group_id for group_record in charged]
    assert [group_record.uses for group_record in charged] == [1, 1]


def test_learner_prefetches_one_step_and_no_more():
    bench = crewed(stage={"target_lag": 2})
    for _ in range(40):
        bench.step(b"s")
        bench.step(b"v")
    assert [job.batch.step for job in jobs(bench.inbox[b"l"], TrainJob)] == [1, 2]


def test_duplicate_done_is_acknowledged_and_counted_once():
    bench = crewed()
    work = bench.got(b"s", Work)[0]
    done = answer(work)
    bench.say(b"s", done)
    generated = bench.hub.state.ledger.tokens()["generated"]
    assert Ack(lease=work.lease) in bench.say(b"s", done)
    assert bench.hub.state.ledger.tokens()["generated"] == generated == 6
    assert bench.hub.state.num_duplicates == 1


def test_unknown_peer_is_asked_to_say_hello():
    bench = Bench(new_hub(config()))
    assert bench.say(b"x", Ping()) == [Pong(known=False)]
    assert bench.say(b"x", Done(lease=1)) == [Pong(known=False)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"run": "other"}, "serves run 'test'"),
        ({"proto": 99}, "protocol"),
        ({"credit": 0}, "credit"),
    ],
)
def test_hello_that_does_not_fit_is_refused(change, words):
    import msgspec

    bench = Bench(new_hub(config()))
    [refusal] = bench.say(b"s", msgspec.structs.replace(hello("sampler"), **change))
    assert isinstance(refusal, Refuse)
    assert words in refusal.reason
    assert not bench.hub.state.table.workers


def test_older_start_of_a_worker_is_fenced_off():
    bench = Bench(new_hub(config()))
    bench.say(b"s1", hello("sampler", start=1))
    bench.say(b"s2", hello("sampler", start=2))
    assert isinstance(bench.inbox[b"s1"][-1], Refuse)
    assert isinstance(bench.say(b"s1", hello("sampler", start=1))[0], Refuse)
    assert bench.hub.state.table.workers["sampler-0"].peer == b"s2"


def test_second_learner_and_stolen_name_are_refused():
    bench = crewed()
    assert isinstance(bench.say(b"l2", hello("learner", "learner-1"))[0], Refuse)
    assert isinstance(bench.say(b"v2", hello("verifier", "sampler-0"))[0], Refuse)


def test_silent_worker_loses_its_leases_to_another():
    bench = crewed()
    held = {m.job.group_id for m in bench.got(b"s", Work)}
    bench.now = 9.0
    bench.say(b"s2", hello("sampler", "sampler-1", credit=8))
    bench.inbox[b"s2"].clear()
    bench.tick(10.5)
    assert {m.job.group_id for m in bench.got(b"s2", Work)} == held
    assert "sampler-0" not in bench.hub.state.table.workers


def test_reconnect_keeps_the_leases_that_both_know():
    bench = crewed()
    first, second = bench.got(b"s", Work)[:2]
    sent = bench.say(b"s9", hello("sampler", leases=[first.lease]))
    assert sent[0].leases == [first.lease]
    again = [job.group_id for job in jobs(sent, SampleJob)]
    assert again == [second.job.group_id]


def test_result_of_a_lease_of_an_earlier_hub_is_taken():
    bench = crewed()
    work = bench.got(b"s", Work)[0]
    bench.say(b"s", Done(lease=999, groups=[rollouts_of(work.job)]))
    assert bench.hub.state.ledger.records[work.job.group_id].state == "sampled"
    assert any(isinstance(m, Revoke) and m.lease == work.lease for m in bench.inbox[b"s"])


def test_verifier_errors_are_leased_again_then_dropped_and_never_train():
    bench = crewed(replay=ReplayConfig(retries=2))
    bench.step(b"s")
    bench.step(b"s")
    tries = 0
    while works := [m for m in bench.inbox[b"v"] if isinstance(m, Work) and m.job.group_id == 1]:
        bench.inbox[b"v"].remove(works[0])
        bench.say(b"v", Done(lease=works[0].lease, verdicts=[verdicts_of(works[0].job, "timeout")]))
        tries += 1
    assert tries == 3
    assert bench.hub.state.ledger.dropped == {"verifier_error": 1}
    assert bench.hub.state.ledger.tokens()["quarantined"] == 6


def test_verdict_with_a_part_that_is_no_number_is_no_verdict():
    bench = crewed()
    for _ in range(2):
        bench.step(b"s")
    work = bench.got(b"v", Work)[0]
    verdicts = verdicts_of(work.job)
    verdicts.verdicts[0].parts["correct"] = float("nan")
    bench.say(b"v", Done(lease=work.lease, verdicts=[verdicts]))
    assert bench.hub.state.ledger.records[work.job.group_id].state == "sampled"
    assert bench.hub.state.ledger.records[work.job.group_id].faults == 1


def test_infrastructure_failure_goes_to_another_worker():
    bench = crewed()
    work = bench.got(b"s", Work)[0]
    bench.say(b"s2", hello("sampler", "sampler-1", credit=1))
    bench.say(b"s2", answer(bench.got(b"s2", Work)[0]))
    bench.inbox[b"s2"].clear()
    bench.say(b"s2", Failed(lease=0, kind="infrastructure", error="nothing"))
    bench.say(b"s", Failed(lease=work.lease, kind="infrastructure", error="engine died"))
    assert bench.hub.state.retries.avoid == {work.job.group_id: "sampler-0"}
    assert work.job.group_id not in [m.job.group_id for m in bench.got(b"s", Work)[1:]]


def test_incomplete_group_is_not_accepted():
    bench = crewed()
    work = bench.got(b"s", Work)[0]
    group = rollouts_of(work.job)
    group.rollouts.pop()
    bench.say(b"s", Done(lease=work.lease, groups=[group]))
    assert bench.hub.state.ledger.records[work.job.group_id].state == "issued"
    assert bench.hub.state.ledger.records[work.job.group_id].faults == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"logprobs": b"abc"},
        {"versions": b"abcdefg"},
        {"token_ids": pack_ints([7])},
        {"logprobs": pack_floats([0.0, math.nan, 0.0])},
        {"logprobs": pack_floats([0.0, -math.inf, 0.0])},
        {"versions": pack_ints([0, 1, 0])},
    ],
)
def test_columns_that_cannot_be_true_are_the_fault_of_their_group(changes):
    bench = crewed()
    work = bench.got(b"s", Work)[0]
    group = rollouts_of(work.job)
    group.rollouts[1] = msgspec.structs.replace(group.rollouts[1], **changes)
    bench.say(b"s", Done(lease=work.lease, groups=[group]))
    group_record = bench.hub.state.ledger.records[work.job.group_id]
    assert (group_record.state, group_record.faults) == ("issued", 1)
    assert f"group {group_record.group_id}" in bench.hub.state.ending.last_error


def test_aborted_rollouts_are_sampled_again_and_their_tokens_accounted():
    bench = crewed()
    work = bench.got(b"s", Work)[0]
    bench.say(b"s", Done(lease=work.lease, groups=[rollouts_of(work.job, finish="abort")]))
    account = bench.hub.state.ledger.tokens()
    assert (account["generated"], account["aborted"]) == (6, 6)
    assert work.job.group_id in [m.job.group_id for m in bench.got(b"s", Work)[1:]]


def test_stale_group_is_dropped_before_it_is_verified():
    bench = crewed(stage={"max_lag": 1, "target_lag": 1})
    work = bench.got(b"s", Work)[0]
    bench.hub.state.training.step = 5
    bench.say(b"s", Done(lease=work.lease, groups=[rollouts_of(work.job, version=3)]))  # lag 5 - 3 = 2
    assert bench.hub.state.ledger.dropped == {"stale": 1}
    assert not bench.got(b"v", Work)


def test_lag_counts_from_the_oldest_token():
    bench = crewed(stage={"max_lag": 8})
    bench.hub.state.training.step = 9
    work = bench.got(b"s", Work)[0]
    group = rollouts_of(work.job, version=9)
    import msgspec

    from rlsp_async.columns import pack_ints

    group.rollouts[1] = msgspec.structs.replace(group.rollouts[1], versions=pack_ints([9, 4, 9]))
    bench.say(b"s", Done(lease=work.lease, groups=[group]))
    group_record = bench.hub.state.ledger.records[work.job.group_id]
    assert (group_record.oldest, group_record.newest) == (4, 9)


def test_groups_left_at_the_end_of_a_stage_are_dropped_and_revoked():
    stages = {"a": StageConfig(steps=1, groups_per_step=2, max_uses=2), "b": StageConfig(steps=1, groups_per_step=2)}
    bench = crewed(stages=stages)
    bench.until(lambda: jobs(bench.inbox[b"l"], TrainJob), b"s", b"v")
    bench.step(b"l")
    bench.step(b"l")
    state = bench.hub.state
    assert state.phase.stage == "b"
    assert state.ledger.trained == 2
    assert state.ledger.dropped["stage_end"] == state.ledger.dropped.total() > 0
    assert any(isinstance(m, Revoke) for m in [*bench.inbox[b"s"], *bench.inbox[b"v"]])


def test_reused_groups_train_max_uses_times():
    bench = crewed(stage={"max_uses": 3, "max_lag": 8})
    bench.run(b"s", b"v", b"l")
    uses: dict[int, int] = {}
    for manifest in (r for r in bench.records if isinstance(r, Manifest)):
        for group_id in manifest.groups:
            uses[group_id] = uses.get(group_id, 0) + 1
    assert max(uses.values()) > 1
    assert max(uses.values()) <= 3
    assert bench.hub.state.ledger.alive == 0


def test_evaluation_before_and_after_at_one_version_each():
    bench = crewed(evaluation=EvaluationConfig(prompts=4, rollouts=2, before=["rlsp"], after=["rlsp"]))
    assert bench.hub.state.phase.kind == "evaluate"
    bench.run(b"s", b"v", b"l")
    results = {r.key: r.result for r in bench.records if isinstance(r, Evaluated)}
    assert [(k, r["version"], r["num_prompts"]) for k, r in results.items()] == [
        ("before rlsp", 0, 4),
        ("after rlsp", 3, 4),
    ]
    assert results["after rlsp"]["pass_at_1"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert results["after rlsp"]["oldest_version"] == 3
    account = bench.hub.state.ledger.tokens()
    assert account["evaluated"] == 2 * 4 * 2 * 3
    assert account["generated"] == account["evaluated"] + account["trained"]
    assert bench.hub.state.ledger.issued == 6  # evaluation stands outside of the slot law


def test_evaluation_waits_for_the_final_version_to_be_loaded():
    bench = crewed(evaluation=EvaluationConfig(prompts=4, rollouts=2, after=["rlsp"]))
    bench.until(lambda: bench.hub.state.step == 3, b"s", b"v", b"l")
    assert bench.hub.state.phase.kind == "evaluate"
    assert not [m for m in bench.got(b"s", Work) if m.job.purpose == "evaluate"]
    bench.run(b"s", b"v", b"l")
    assert bench.hub.state.ending.kind == "finished"


def evaluated_during(steps: int, every: int, after: list[str]) -> Bench:
    stages = {"rlsp": StageConfig(steps=steps, groups_per_step=2, publish_every=3)}
    return crewed(stages=stages, evaluation=EvaluationConfig(prompts=4, rollouts=2, every=every, after=after))


def test_evaluations_during_a_stage_are_of_the_version_of_their_step():
    bench = evaluated_during(6, 2, ["rlsp"])
    bench.run(b"s", b"v", b"l")
    results = {r.key: r.result for r in bench.records if isinstance(r, Evaluated)}
    assert [(k, r["when"], r["stage_step"], r["version"], r["oldest_version"]) for k, r in results.items()] == [
        ("during rlsp 2", "during", 2, 2, 2),
        ("during rlsp 4", "during", 4, 4, 4),
        ("after rlsp", "after", 6, 6, 6),
    ]
    assert bench.hub.state.ledger.tokens()["evaluated"] == 3 * 4 * 2 * 3
    trained = [r for r in bench.records if isinstance(r, Manifest)]
    evaluated = {r.record.group_id for r in bench.records if isinstance(r, Put) and r.record.purpose == "evaluate"}
    assert len(evaluated) == 12
    assert not evaluated & {group_id for manifest in trained for group_id in manifest.groups}


def test_without_an_evaluation_after_the_stage_its_last_step_is_evaluated_as_well():
    bench = evaluated_during(4, 2, [])
    bench.run(b"s", b"v", b"l")
    assert [r.key for r in bench.records if isinstance(r, Evaluated)] == ["during rlsp 2", "during rlsp 4"]
    assert bench.hub.state.ending.kind == "finished"


def test_no_batch_is_chosen_while_a_step_is_evaluated():
    bench = evaluated_during(6, 2, ["rlsp"])
    training = bench.hub.state.training
    bench.until(lambda: training.step == 1, b"s", b"v", b"l")
    bench.until(lambda: training.last_manifest == 2, b"s", b"v")
    bench.until(lambda: len(bench.hub.state.ledger.ready) == 2, b"s", b"v")  # while step 2 trains
    assert max(r.step for r in bench.records if isinstance(r, Manifest)) == 2
    bench.until(lambda: bench.hub.state.step == 2, b"s", b"v", b"l")
    assert bench.hub.state.phase == Phase("evaluate", "rlsp", "during rlsp 2")
    bench.until(lambda: len(bench.hub.state.ledger.ready) >= 2, b"v", b"s")
    assert max(r.step for r in bench.records if isinstance(r, Manifest)) == 2
    status = health.status(bench.hub.state, 0.0)
    assert (status.phase, status.evaluated < 4, status.to_evaluate) == ("evaluating", True, 4)
    bench.run(b"s", b"v", b"l")
    assert max(r.step for r in bench.records if isinstance(r, Manifest)) == 6
    assert health.status(bench.hub.state, 0.0).to_evaluate == 0


def test_an_evaluated_step_must_publish():
    bench = evaluated_during(6, 1, [])
    bench.until(lambda: jobs(bench.inbox[b"l"], TrainJob), b"s", b"v")
    work = bench.got(b"l", Work)[0]
    bench.say(b"l", Done(lease=work.lease, steps=[report_of(work.job, publish=False)]))
    assert "published no weights after the step that is evaluated, 1" in bench.hub.state.ending.message


def test_last_step_of_a_stage_must_publish():
    bench = crewed(stages={"a": StageConfig(steps=1, groups_per_step=2)})
    bench.until(lambda: jobs(bench.inbox[b"l"], TrainJob), b"s", b"v")
    work = bench.got(b"l", Work)[0]
    bench.say(b"l", Done(lease=work.lease, steps=[report_of(work.job, publish=False)]))
    assert bench.hub.state.ending.kind == "failed"
    assert "published no weights" in bench.hub.state.ending.message


def trained_bench(checkpoint: int) -> Bench:
    """Two of three steps reported, with this newest checkpoint."""
    bench = crewed()
    for _ in range(300):
        if bench.hub.state.step >= 2:
            break
        bench.step(b"s")
        bench.step(b"v")
        for work in [m for m in bench.inbox[b"l"] if isinstance(m, Work)]:
            bench.inbox[b"l"].remove(work)
            if work.job.batch.step <= 2:
                bench.say(b"l", Done(lease=work.lease, steps=[report_of(work.job, checkpoint=checkpoint)]))
    return bench


def test_restarted_learner_is_sent_the_same_batches_again():
    bench = trained_bench(checkpoint=0)
    manifests = {r.step: r.groups for r in bench.records if isinstance(r, Manifest)}
    bench.say(b"l2", hello("learner", start=2, step=0))
    assert bench.wants == [1]
    bodies = {r.record.group_id: r for r in bench.records if isinstance(r, Put) and r.body is not None}
    from rlsp_async.messages import VerifiedGroup

    steps = []
    while bench.wants:
        step = bench.wants.pop(0)
        groups = [VerifiedGroup(group=bodies[i].body) for i in manifests[step]]
        bench.take(bench.hub.restored(step, groups, 0.0), b"l2")
    for job in jobs(bench.inbox[b"l2"], TrainJob):
        assert [g.group.group_id for g in job.batch.groups] == manifests[job.batch.step]
        steps.append(job.batch.step)
    assert steps == [1, 2]
    assert max(r.step for r in bench.records if isinstance(r, Manifest)) == bench.hub.state.training.last_manifest


def test_learner_that_only_reconnects_is_sent_nothing_twice():
    bench = trained_bench(checkpoint=0)
    sent = bench.say(b"l2", hello("learner", start=1, step=2, leases=[]))
    assert not bench.wants
    assert all(job.batch.step > 2 for job in jobs(sent, TrainJob))


def test_learner_of_another_run_stops_the_run():
    bench = crewed()
    bench.say(b"l", Bye())
    bench.say(b"l", hello("learner", start=2, step=50))
    assert bench.hub.state.ending.kind == "failed"
    assert "starts from step 50" in bench.hub.state.ending.message


def test_weights_made_again_replace_the_old_reference():
    bench = trained_bench(checkpoint=0)
    bench.inbox[b"s"].clear()
    repeat = StepReport(step=2, weights=weights(2, incarnation=2))
    bench.say(b"l", Done(lease=77, steps=[repeat]))
    assert bench.inbox[b"s"] == [NewWeights(weights=weights(2, incarnation=2))]
    assert bench.hub.state.step == 2


def test_bodies_are_forgotten_only_when_no_kept_checkpoint_needs_them():
    bench = trained_bench(checkpoint=1)
    forgotten = [r.forget_to for r in bench.records if isinstance(r, Stepped)]
    assert forgotten == [0, 0]  # one known checkpoint, two are kept


def test_rejected_weights_are_offered_again_then_the_run_fails():
    bench = trained_bench(checkpoint=0)
    bench.inbox[b"s"].clear()
    for _ in range(4):
        bench.say(b"s", Rejected(version=2, reason="digest differs"))
    assert len(bench.got(b"s", NewWeights)) == 3
    assert bench.hub.state.ending.kind == "failed"
    assert "digest differs" in bench.hub.state.ending.message


def test_too_many_failures_stop_the_run():
    bench = crewed(stages={"rlsp": StageConfig(steps=99, groups_per_step=2)}, replay=ReplayConfig(retries=0))
    for _ in range(2000):
        bench.step(b"s")
        for work in [m for m in bench.inbox[b"v"] if isinstance(m, Work)]:
            bench.inbox[b"v"].remove(work)
            bench.say(b"v", Done(lease=work.lease, verdicts=[verdicts_of(work.job, "error")]))
    assert bench.hub.state.ending.kind == "failed"
    assert "failures_per_100" in bench.hub.state.ending.message
    assert bench.hub.state.ledger.dropped["verifier_error"] == 50
    assert any(isinstance(m, Drain) for m in bench.inbox[b"l"])


def test_stalled_run_names_who_it_waits_for():
    bench = crewed(replay=ReplayConfig(stall_s=50.0))
    for now in range(0, 70, 5):
        bench.now = float(now)
        for peer in (b"s", b"v", b"l"):
            bench.say(peer, Ping())
        bench.tick(float(now))
    assert bench.hub.state.ending.kind == "failed"
    assert "stage rlsp waits for sampler-0, which has held group 1 for 5" in bench.hub.state.ending.message


def test_stall_without_any_worker_says_so():
    bench = Bench(new_hub(config(replay=ReplayConfig(stall_s=50.0))))
    bench.tick(51.0)
    assert "a sampler that serves version 0; no sampler is connected" in bench.hub.state.ending.message


def test_observer_sees_the_run_once_a_second():
    bench = Bench(new_hub(config()))
    sent = bench.say(b"o", hello("observer", credit=0))
    assert sent[1].phase == "running"
    bench.tick(0.1)
    bench.tick(0.5)
    bench.tick(1.2)
    assert len(bench.inbox[b"o"]) == 4  # welcome, status on arrival, at 0.1 and at 1.2
    assert bench.inbox[b"o"][-1].counts["alive"] == 0


def test_stop_drains_and_the_run_can_be_resumed():
    bench = crewed()
    bench.take(bench.hub.stop("Ctrl-C", 0.0), b"")
    assert isinstance(bench.inbox[b"s"][-1], Drain)
    for peer in (b"s", b"v", b"l"):
        bench.say(peer, Bye())
    assert bench.hub.is_over
    assert bench.hub.state.ending.kind == "draining"


def test_batch_has_the_groups_in_manifest_order():
    bench = crewed()
    for _ in range(20):
        bench.step(b"s")
        bench.step(b"v")
    batch: Batch = jobs(bench.inbox[b"l"], TrainJob)[0].batch
    assert [g.group.group_id for g in batch.groups] == bench.hub.state.training.manifests[1].groups
    assert all(len(g.verdicts) == 2 for g in batch.groups)
    assert (batch.step, batch.stage_step, batch.stage) == (1, 1, "rlsp")


def test_verify_job_holds_texts_and_reference():
    bench = crewed()
    bench.step(b"s")
    bench.step(b"s")
    job: VerifyJob = jobs(bench.inbox[b"v"], VerifyJob)[0]
    assert (job.items[0].prompt, job.items[0].response, job.items[0].answer) == ("0 + 1 =", "2", "1")
    assert len(job.items) == config(sampling=SamplingConfig(rollouts=2)).sampling.rollouts
