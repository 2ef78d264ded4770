"""Rounds: each stage adds new groups to those that it carries over; invariants hold through kills of every process."""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random
from typing import Any

import pytest

from rlsp_async.audit.checks import audit
from rlsp_async.config import EvaluationConfig, PromptsConfig, ReplayConfig, RunConfig, StageConfig
from rlsp_async.replay.records import GroupRecord, Manifest
from rlsp_async.replay.selection.base import SelectionConfig, groups_to_carry
from tests.replay.chaos import Chaos
from tests.replay.line import Bench, config, hello, new_hub

S, V, L = b"s", b"v", b"l"


def rounds(num: int = 3, groups: int = 2, **changes: Any) -> dict[str, StageConfig]:
    """Round i is one step on i * groups groups, all but `groups` of them carried over."""
    fields = {"max_lag": num, "max_uses": num, "target_lag": 0, "steps": 1, **changes}
    return {
        f"r{i}": StageConfig(groups_per_step=i * groups, selection_options={"carry": (i - 1) * groups}, **fields)
        for i in range(1, num + 1)
    }


def bench(stages: dict[str, StageConfig], **changes: Any) -> Bench:
    made = Bench(new_hub(config(stages=stages, **changes)))
    for peer, message in ((S, hello("sampler", credit=9)), (V, hello("verifier")), (L, hello("learner", step=0))):
        made.say(peer, message)
    return made


def manifests(line: Bench) -> list[Manifest]:
    return [record for record in line.records if isinstance(record, Manifest)]


def test_each_round_trains_what_all_rounds_found():
    line = bench(rounds(), evaluation=EvaluationConfig(prompts=3, rollouts=2, before=["r2"], after=["r3"]))
    line.run(S, V, L)
    state = line.hub.state
    assert state.ending.kind == "finished"
    found = [dict(zip(manifest.groups, manifest.oldest, strict=True)) for manifest in manifests(line)]
    assert [sorted(each.values()) for each in found] == [[0, 0], [0, 0, 1, 1], [0, 0, 1, 1, 2, 2]]
    assert found[2].items() >= found[1].items() >= found[0].items()
    assert [sorted(manifest.uses) for manifest in manifests(line)] == [[1, 1], [1, 1, 2, 2], [1, 1, 2, 2, 3, 3]]
    assert state.ledger.counts() == {"issued": 6, "trained": 6, "dropped": 0, "alive": 0}


def test_with_a_pool_each_round_samples_every_prompt_once_more():
    line = bench(rounds(prompts=PromptsConfig(options={"pool": 2})))
    line.run(S, V, L)
    place = {r.record.group_id: (r.record.index, r.record.visit) for r in line.records if hasattr(r, "record")}
    assert sorted(place.values()) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


@pytest.mark.parametrize(
    ("changes", "uses"),
    [
        ({"max_uses": 1}, [[1, 1], [1] * 4, [1] * 6]),  # every stage finds its groups used up
        ({"max_uses": 2, "max_lag": 1}, [[1, 1], [1, 1, 2, 2], [1, 1, 1, 1, 2, 2]]),  # r3 may not have those of r1
    ],
)
def test_what_is_used_up_or_too_old_for_the_next_stage_is_not_carried(changes, uses):
    line = bench(rounds(**changes))
    line.run(S, V, L)
    assert line.hub.state.ending.kind == "finished"
    assert [sorted(manifest.uses) for manifest in manifests(line)] == uses


def test_carried_are_the_last_to_go_and_no_more_than_there_are_slots():
    group_records = [GroupRecord(group_id=i, stage="a", state="ready", oldest=i, order=9 - i, uses=1) for i in range(5)]
    assert [group_record.group_id for group_record in groups_to_carry(SelectionConfig(carry=2), group_records, 9)] == [
        3,
        4,
    ]
    assert [
        group_record.group_id
        for group_record in groups_to_carry(SelectionConfig(carry=2, remove="oldest"), group_records, 9)
    ] == [1, 0]
    assert [group_record.group_id for group_record in groups_to_carry(SelectionConfig(carry=4), group_records, 1)] == [
        4
    ]
    assert groups_to_carry(SelectionConfig(), group_records, 9) == []
    with pytest.raises(ValueError, match="carry"):
        SelectionConfig(carry=-1)


def test_a_stage_of_demonstrations_carries_nothing():
    stages = {
        **rounds(1, max_uses=2),
        "sft": StageConfig(source="demonstrations", groups_per_step=2, steps=1, selection_options={"carry": 2}),
    }
    line = bench(stages)
    line.run(S, V, L)
    assert line.hub.state.phase.stage == "sft"
    assert line.hub.state.ledger.counts()["alive"] == 0


def chaos_config(random: Random) -> RunConfig:
    """Three stages of one to three steps; the carried groups may be used further in each."""
    stages = {
        name: StageConfig(
            steps=random.randint(1, 3),
            groups_per_step=random.randint(1, 3),
            max_uses=random.randint(2, 6),
            target_lag=random.randint(0, 2),
            max_lag=random.randint(2, 6),
            selection=random.choice(["fifo", "prioritised"]),
            selection_options={"carry": random.randint(0, 5), "min_new": random.choice([0.0, 0.5])},
        )
        for name in "abc"
    }
    evaluation = EvaluationConfig(prompts=2, rollouts=2, before=["b"], after=["b"])
    return config(
        stages=stages, evaluation=evaluation, replay=ReplayConfig(retries=2, failures_per_100=100.0, stall_s=1e9)
    )


@pytest.mark.parametrize("seed", range(10))
def test_invariants_hold_whatever_is_carried(seed: int):
    random = Random(seed)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as directory:
        chaos = Chaos(chaos_config(random), Path(directory) / "journal.sqlite", random)
        for _ in range(250):
            chaos.event()
        chaos.kill_hub()
        chaos.settle()
        assert chaos.hub.state.ending.kind == "finished", chaos.hub.state.ending.message
        assert chaos.violations() == []
        chaos.journal.close()
        findings = audit(Path(directory) / "journal.sqlite").findings
        checked = [f for f in findings if f.guarantee in ("G3", "G4", "G5", "G14", "slots")]
        assert len(checked) == 5
        assert not [finding for finding in checked if finding.outcome == "violated"]
