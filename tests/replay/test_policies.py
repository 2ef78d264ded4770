"""Each policy once through the hub, without sockets: what is issued, what is chosen, what is dropped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlsp_async.config import PromptsConfig, RunConfig, StageConfig
from rlsp_async.config.schema import RewardConfig
from rlsp_async.messages import Done, SampleJob, Verdict, VerdictSet, VerifyJob, Work
from rlsp_async.replay.hub import Hub
from rlsp_async.replay.journal import Journal
from rlsp_async.replay.records import Learnt, Manifest
from rlsp_async.replay.verify import has_signal, most_without_signal
from tests.replay.line import Bench, SmallTask, config, hello, new_hub, rollouts_of

S, V, L = b"s", b"v", b"l"


class JudgingBench(Bench):
    """`right(group_id, place)` says which rollouts are correct."""

    def __init__(self, hub: Hub, right: Callable[[int, int], bool]) -> None:
        super().__init__(hub)
        self.right = right

    def step(self, peer: bytes) -> bool:
        if self.inbox.get(peer) and isinstance(self.inbox[peer][0], Work):
            job = self.inbox[peer][0].job
            if isinstance(job, VerifyJob):
                self.say(peer, self.verdicts(self.inbox[peer].pop(0)))
                return True
        return super().step(peer)

    def verdicts(self, work: Work) -> Done:
        right = [self.right(work.job.group_id, place) for place in range(len(work.job.items))]
        return Done(
            lease=work.lease,
            verdicts=[
                VerdictSet(
                    group_id=work.job.group_id,
                    verdicts=[
                        Verdict(status="correct" if one else "wrong", parts={"correct": float(one), **self.part(place)})
                        for place, one in enumerate(right)
                    ],
                )
            ],
        )

    def part(self, place: int) -> dict[str, float]:
        """Of the verdict on the rollout in this place, besides whether it is right."""
        return {}


class StepsBench(JudgingBench):
    """No two rollouts of a group have as many search steps."""

    def part(self, place: int) -> dict[str, float]:
        return {"search_steps": float(place)}


def bench(
    stage: dict[str, Any],
    right: Callable[[int, int], bool] = lambda group_id, place: place == 0,
    credit: int = 4,
    **changes: Any,
) -> JudgingBench:
    made = JudgingBench(new_hub(config(stage=stage, **changes)), right)
    made.say(S, hello("sampler", credit=credit))
    made.say(V, hello("verifier"))
    return made


def sample_jobs(line: Bench) -> list[SampleJob]:
    return [m.job for m in line.got(S, Work) if isinstance(m.job, SampleJob)]


def manifests(line: Bench) -> list[Manifest]:
    return [record for record in line.records if isinstance(record, Manifest)]


def test_uniform_prompts_say_so():
    jobs = sample_jobs(bench({}))
    assert [(job.prompt.index, job.prompt.selector, job.prompt.propensity) for job in jobs] == [
        (index, "uniform", 1.0) for index in range(4)
    ]


def test_mopps_marks_what_is_pending_and_learns_from_verdicts():
    line = bench({"prompts": PromptsConfig(name="mopps", options={"pool": 4})})
    jobs = sample_jobs(line)
    assert sorted(job.prompt.index for job in jobs) == [0, 1, 2, 3]  # four slots, four prompts, none twice
    assert {job.prompt.selector for job in jobs} == {"mopps"}
    assert all(job.prompt.propensity > 0 for job in jobs)
    line.step(S)
    line.step(S)
    assert set(line.hub.state.ledger.pending) == {0, 1, 2, 3}  # sampled, not judged
    line.step(S)
    line.run(S, V)
    assert line.hub.state.ledger.pending == {}
    table = line.hub.state.selectors["rlsp"].table
    assert table.first_N.tolist() == table.second_N.tolist() == [2.0] * 4  # prior, and one right of two
    learnt = [record for record in line.records if isinstance(record, Learnt)]
    assert len(learnt) == 8  # issued, judged
    assert {record.stage for record in learnt} == {"rlsp"}


def test_what_mopps_learnt_outlives_the_hub(tmp_path: Path):
    cfg: RunConfig = config(stage={"prompts": PromptsConfig(name="mopps", options={"pool": 6, "candidates": 6})})
    journal = Journal(tmp_path / "j.sqlite", cfg)
    line = JudgingBench(Hub(cfg, SmallTask(), journal.load(), 0.0), lambda group_id, place: group_id % 2 == 0)
    line.say(S, hello("sampler", credit=4))
    line.say(V, hello("verifier"))
    line.run(S, V)
    journal.commit(line.records)
    journal.close()
    before = line.hub.state
    again = Journal(tmp_path / "j.sqlite", cfg)
    after = Hub(cfg, SmallTask(), again.load(), 0.0).state
    again.close()
    assert before.counters["train"] == after.counters["train"] == 4
    for cursor in range(4, 20):
        assert before.selectors["rlsp"].draw(cursor, {}) == after.selectors["rlsp"].draw(cursor, {})


def test_the_curriculum_is_fed_by_verdicts():
    line = bench(
        {"prompts": PromptsConfig(name="curriculum", options={"pool": 4})}, lambda group_id, place: group_id < 3
    )
    line.run(S, V)
    rates = {job.prompt.index: float(job.group_id < 3) for job in sample_jobs(line)}
    table = line.hub.state.selectors["rlsp"].table
    assert {place: float(table.first_N[place]) for place in rates} == rates


def test_a_failed_group_teaches_nothing():
    line = bench({"prompts": PromptsConfig(name="mopps", options={"pool": 4})})
    line.step(S)
    line.step(S)
    work = next(m for m in line.inbox[V] if isinstance(m, Work))
    bad = VerdictSet(group_id=work.job.group_id, verdicts=[Verdict(status="timeout"), Verdict(status="timeout")])
    line.say(V, Done(lease=work.lease, verdicts=[bad]))
    assert line.hub.state.selectors["rlsp"].table.first_N.tolist() == [1.0] * 4


def test_groups_without_signal_are_dropped_and_batches_still_fill():
    line = bench({"drop_no_signal": True}, lambda group_id, place: group_id % 3 == 0 or place == 0)
    line.say(L, hello("learner", step=0))
    line.run(S, V, L)
    state = line.hub.state
    assert state.ending.kind == "finished"
    assert [manifest.groups for manifest in manifests(line)] == [[1, 2], [4, 5], [7, 8]]
    assert state.ledger.dropped["no_signal"] == 2
    account = state.ledger.tokens()
    assert account["no_signal"] == 2 * 6  # two groups of two rollouts of three tokens
    assert account["generated"] == sum(account.values()) - account["generated"]
    assert state.counters["no_signal"] == 0


def test_oversampling_has_more_slots():
    assert len(sample_jobs(bench({"oversample": 1.5}, credit=99))) == 6  # (1 + 1) * 2 * 1.5
    assert StageConfig(target_lag=0, groups_per_step=3, oversample=1.4).capacity == 5


def test_a_stage_without_any_signal_stops():
    line = bench({"drop_no_signal": True}, lambda group_id, place: True)
    line.say(L, hello("learner", step=0))
    line.run(S, V, L)
    assert line.hub.state.ending.kind == "failed"
    assert "had no signal" in line.hub.state.ending.message
    assert line.hub.state.ledger.dropped["no_signal"] == most_without_signal(2) + 1
    assert most_without_signal(2) == 100
    assert most_without_signal(32) == 320


def test_signal_is_what_the_reward_is_made_of():
    job = SampleJob(group_id=1, prompt=SmallTask().prompt("train", 0), sampling=config().sampling)
    group = rollouts_of(job)
    same = [Verdict(status="correct", parts={"correct": 1.0, "search_steps": n}) for n in (1.0, 2.0)]
    mixed = [Verdict(status="correct", parts={"correct": n}) for n in (1.0, 0.0)]
    assert not has_signal(group, same, RewardConfig())
    assert has_signal(group, same, RewardConfig(explore="steps"))
    assert has_signal(group, mixed, RewardConfig())
    assert not has_signal(group, [same[0], same[0]], RewardConfig(explore="len_inv"))


@pytest.mark.parametrize(("explore", "weight"), [("none", 0.25), ("steps", 0.25 + 0.75 * 0.4)])
def test_what_exploration_tells_apart_is_written_with_the_group_and_weighs(explore: Any, weight: float):
    """Groups of one right rollout of two, and groups of two right ones; their rollouts differ in search steps."""
    stage = {
        "selection": "prioritised",
        "target_lag": 3,
        "reward": RewardConfig(explore=explore, scale=2.0),
        "selection_options": {"floor": 0.25, "explored": 0.4},
    }
    line = StepsBench(new_hub(config(stage=stage)), lambda group_id, place: group_id % 2 == 0 or place == 0)
    line.say(S, hello("sampler", credit=99))
    line.say(V, hello("verifier"))
    line.run(S, V)
    group_records = line.hub.state.ledger.records.values()
    assert {group_record.group_id: group_record.has_signal for group_record in group_records} == {
        n: n % 2 == 1 or explore != "none" for n in range(1, 7)
    }
    line.say(L, hello("learner", step=0))
    [first, *_] = manifests(line)
    weights = {group_id: weight if group_id % 2 == 0 else 1.0 for group_id in range(1, 7)}
    expected = [weights[group_id] / (sum(weights.values()) / 6) for group_id in first.groups]
    assert [round(p, 9) for p in first.propensities] == [round(p, 9) for p in expected]


def test_prioritised_logs_its_propensities_in_the_manifest():
    line = bench(
        {"selection": "prioritised", "target_lag": 3, "selection_options": {"floor": 0.25}},
        lambda group_id, place: group_id % 2 == 0 or place == 0,
        credit=99,
    )
    line.run(S, V)
    assert line.hub.state.ledger.by_state["ready"] == 6  # three steps of two
    line.say(L, hello("learner", step=0))
    [first, *_] = manifests(line)
    weight = {group_id: 0.25 if group_id % 2 == 0 else 1.0 for group_id in range(1, 7)}
    expected = [weight[group_id] / (3.75 / 6) for group_id in first.groups]
    assert [round(p, 9) for p in first.propensities] == [round(p, 9) for p in expected]
    line.run(L)
    rows = [row for file, row in line.lines if file == "metrics"]
    assert rows[0]["choice_propensity_max"] == max(first.propensities)
    assert "prompt_propensity_max" not in rows[0]


def test_stratified_composes_the_batch():
    line = bench(
        {"selection": "stratified", "target_lag": 3, "selection_options": {"correct": 0.0}},
        lambda group_id, place: group_id not in (4, 6),
        credit=99,
    )
    line.run(S, V)
    line.say(L, hello("learner", step=0))
    assert manifests(line)[0].groups == [4, 6]


def test_new_groups_get_the_slots_of_used_ones():
    stage = {"max_uses": 3, "target_lag": 0, "max_lag": 5, "selection_options": {"min_new": 0.5}}
    line = bench(stage)
    line.say(L, hello("learner", step=0))
    line.run(S, V, L)
    assert line.hub.state.ending.kind == "finished"
    assert [manifest.groups for manifest in manifests(line)] == [[1, 2], [3, 2], [4, 3]]
    assert [manifest.uses for manifest in manifests(line)] == [[1, 1], [1, 2], [1, 2]]


def test_min_ready_of_all_slots_makes_the_lag_exact():
    line = bench(
        {},
        stages={
            "rl": StageConfig(steps=6, groups_per_step=2, target_lag=2, max_lag=2, selection_options={"min_ready": 6})
        },
    )
    line.say(L, hello("learner", step=0))
    line.run(S, V, L)
    assert line.hub.state.ending.kind == "finished"
    assert [step - 1 - min(manifest.oldest) for step, manifest in enumerate(manifests(line), 1)] == [0, 1, 2, 2, 2, 2]
    assert [min(manifest.oldest) == max(manifest.oldest) for manifest in manifests(line)] == [True] * 6
