"""Temperature schedules through the hub: what is issued, what is learnt, what survives a kill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlsp_async.config import EvaluationConfig, RunConfig, StageConfig, TemperatureConfig
from rlsp_async.messages import SampleJob, TrainJob, Work
from rlsp_async.replay.hub import Hub
from rlsp_async.replay.journal import Journal
from rlsp_async.replay.records import Learnt
from rlsp_async.replay.turn import Effects
from tests.replay.line import SmallTask, config, hello, new_hub
from tests.replay.test_policies import JudgingBench

S, V, L = b"s", b"v", b"l"
GRID = [0.5, 0.75, 1.25]
BSTAR = {"temperature": TemperatureConfig(name="bstar", options={"grid": GRID, "target": 2})}


class Line(JudgingBench):
    """Keeps every job that was handed out."""

    def __init__(self, hub: Hub, right: Callable[[int, int], bool] = lambda group_id, place: place == 0) -> None:
        super().__init__(hub, right)
        self.jobs: list[Any] = []

    def take(self, effects: Effects, peer: bytes) -> list[Any]:
        self.jobs += [message.job for _, message in effects.sends if isinstance(message, Work)]
        return super().take(effects, peer)

    def of(self, kind: type) -> list[Any]:
        return [job for job in self.jobs if isinstance(job, kind)]


def bench(
    stage: dict[str, Any],
    right: Callable[[int, int], bool] = lambda group_id, place: place == 0,
    credit: int = 4,
    **changes: Any,
) -> Line:
    made = Line(new_hub(config(stage=stage, **changes)), right)
    made.say(S, hello("sampler", credit=credit))
    made.say(V, hello("verifier"))
    return made


def rows_of(line: Line) -> list[dict[str, Any]]:
    return [line.row for line in line.lines if line.file == "metrics"]


def test_a_constant_of_its_own_leaves_evaluations_where_they_were():
    line = bench(
        {"temperature": TemperatureConfig(options={"temperature": 1.25})},
        credit=99,
        evaluation=EvaluationConfig(prompts=3, rollouts=1, before=["rlsp"]),
    )
    line.run(S, V)
    jobs = line.of(SampleJob)
    assert {(job.purpose, job.sampling.temperature) for job in jobs} == {("evaluate", 1.0), ("train", 1.25)}


def test_batches_mix_the_arms_and_every_group_says_its_own():
    line = bench(BSTAR, lambda group_id, place: group_id % 2 == 0, credit=99)
    line.say(L, hello("learner", step=0))
    line.run(S, V, L)
    assert line.hub.state.ending.kind == "finished"
    drawn = {job.group_id: job.sampling.temperature for job in line.of(SampleJob)}
    assert set(drawn.values()) <= set(GRID)
    assert len(set(drawn.values())) > 1
    trained = [group.group for job in line.of(TrainJob) for group in job.batch.groups]
    assert len(trained) == 6
    assert all(group.sampling.temperature == drawn[group.group_id] for group in trained)


def test_each_verdict_teaches_in_its_own_commit_and_the_step_says_what_is_known():
    line = bench(BSTAR, lambda group_id, place: True, credit=4)
    line.say(L, hello("learner", step=0))
    line.run(S, V, L)
    learnt = [record for record in line.records if isinstance(record, Learnt)]
    assert {(record.what, record.index, record.stage) for record in learnt} == {("temperature", 0, "rlsp")}
    assert len(learnt) == len([job for job in line.of(SampleJob) if job.purpose == "train"])
    row = rows_of(line)[-1]
    assert {f"temperature_score_{t:g}" for t in GRID} <= set(row)
    assert min(GRID) <= row["temperature_min"] <= row["temperature_mean"] <= row["temperature_max"] <= max(GRID)


def test_a_run_at_one_temperature_says_nothing_of_it():
    line = bench({}, credit=4)
    line.say(L, hello("learner", step=0))
    line.run(S, V, L)
    assert not [key for row in rows_of(line) for key in row if key.startswith("temperature")]


@pytest.mark.parametrize("name", ["bstar", "entropy", "random"])
def test_a_killed_hub_decides_the_same_again(tmp_path: Path, name: str):
    schedule = TemperatureConfig(name=name, options={"first": 2} if name == "entropy" else {})
    stage = StageConfig(steps=20, groups_per_step=20, temperature=schedule)
    cfg: RunConfig = config(stages={"rlsp": stage})
    journal = Journal(tmp_path / "j.sqlite", cfg)
    line = Line(Hub(cfg, SmallTask(), journal.load(), 0.0), lambda group_id, place: group_id % 3 == 0)
    line.say(S, hello("sampler", credit=20))
    line.say(V, hello("verifier"))
    for _ in range(12):  # some are judged, some are sampled, some are only issued
        line.step(S)
    for _ in range(7):
        line.step(V)
    journal.commit(line.records)
    journal.close()
    issued = {job.group_id: job.sampling for job in line.of(SampleJob)}
    before = line.hub.state
    again = Journal(tmp_path / "j.sqlite", cfg)
    restarted = Line(Hub(cfg, SmallTask(), again.load(), 0.0), line.right)
    again.close()
    after = restarted.hub.state
    cursor = before.counters["train"]
    assert [before.schedules["rlsp"].draw(at) for at in range(cursor, cursor + 50)] == [
        after.schedules["rlsp"].draw(at) for at in range(cursor, cursor + 50)
    ]
    restarted.tick(0.0)
    restarted.say(V, hello("verifier"))
    restarted.tick(3.0)  # nobody says that he still holds what the killed hub had handed out
    restarted.say(S, hello("sampler", credit=20))
    reissued = {job.group_id: job.sampling for job in restarted.of(SampleJob)}
    both = issued.keys() & reissued.keys()
    assert both
    assert all(issued[group_id] == reissued[group_id] for group_id in both)
