"""Which successes are remembered and drawn, by hand."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest

from rlsp_async.columns import pack_floats, pack_ints
from rlsp_async.config import StageConfig, SuccessReplayConfig, load_success_replay
from rlsp_async.errors import ConfigError
from rlsp_async.messages import Prompt, Rollout, RolloutGroup, Sampling, Verdict, VerifiedGroup
from rlsp_async.replay.records import Judged, Replayed, Success
from rlsp_async.replay.success_replay import Memory, has_failed, with_successes

RIGHT, WRONG = Verdict(status="correct", parts={"correct": 1.0}), Verdict(status="wrong", parts={"correct": 0.0})


def rollout(index: int, version: int = 3) -> Rollout:
    return Rollout(
        index=index,
        token_ids=pack_ints([7, index]),
        logprobs=pack_floats([-0.5, -0.25]),
        versions=pack_ints([version, version]),
        text="x",
        sampler="sampler-4",
    )


def filled(num: int, cfg: SuccessReplayConfig | None = None, **fields: Any) -> Memory:
    """Successes 1/0, 2/0, .. of prompt 5, each learnt one step later and sampled by one version more."""
    memory = Memory()
    for n in range(1, num + 1):
        memory.remember(cfg or SuccessReplayConfig(), success(n, **fields), Judged(rollout=rollout(0), verdict=RIGHT))
    return memory


def success(n: int, index: int = 5) -> Success:
    return Success(group_id=n, rollout=0, stage="a", index=index, oldest=n - 1, since=n, order=0)


@pytest.mark.parametrize(
    ("scores", "failed"),
    [
        ([0.0] * 8, True),
        ([0.0] * 7 + [1.0], False),
        ([0.1] * 8, True),
        ([0.0] * 4 + [0.1] * 4, False),
        ([0.25] * 8, False),
        ([], False),
    ],
)
def test_a_group_has_failed_by_mean_and_deviation(scores: list[float], failed: bool):
    """Eight of .1: mean .1, deviation 0. Half of .1: deviation .05, which is not below .05."""
    verdicts = [Verdict(status="wrong", parts={"correct": score}) for score in scores]
    assert has_failed(SuccessReplayConfig(), verdicts) is failed


def test_a_group_with_a_correct_rollout_has_not_failed_whatever_its_score():
    poor = Verdict(status="correct", parts={"correct": 0.0})
    assert not has_failed(SuccessReplayConfig(), [poor, WRONG])


def test_first_in_is_first_out_at_eight_of_a_prompt_and_at_the_total():
    memory = filled(10)
    assert [one.group_id for one in memory.of_prompt("a", 5)] == [3, 4, 5, 6, 7, 8, 9, 10]
    cfg = SuccessReplayConfig(capacity=2, total=3)
    memory = filled(2, cfg)
    gone = [
        record.success.group_id
        for n in (3, 4)
        for record in memory.remember(cfg, success(n, index=6), Judged(rollout=rollout(0), verdict=RIGHT))
        if not record.success.kept
    ]
    assert gone == [1] and memory.num_kept == 3
    assert memory.of_prompt("b", 5) == [] == memory.of_prompt("a", 7)


def test_a_draw_is_uniform_and_a_function_of_seed_step_and_group():
    memory, cfg = filled(4), SuccessReplayConfig()
    draws = [memory.draw(cfg, "a", 5, step, group, 0).group_id for step in range(10, 30) for group in range(100)]
    counts = Counter(draws)
    assert sorted(counts) == [1, 2, 3, 4] and all(abs(num - 500) < 80 for num in counts.values())
    assert draws == [
        memory.draw(cfg, "a", 5, step, group, 0).group_id for step in range(10, 30) for group in range(100)
    ]
    assert draws != [
        memory.draw(cfg, "a", 5, step, group, 1).group_id for step in range(10, 30) for group in range(100)
    ]
    assert memory.draw(cfg, "a", 6, 10, 0, 0) is None


def test_what_is_too_old_or_used_up_is_not_drawn():
    memory = filled(3)  # sampled by versions 0, 1, 2
    young = SuccessReplayConfig(max_age=8)
    assert {memory.draw(young, "a", 5, 11, group, 0).group_id for group in range(50)} == {3}
    assert memory.draw(young, "a", 5, 12, 0, 0) is None
    assert memory.draw(SuccessReplayConfig(), "a", 5, 1000, 0, 0) is not None
    once = SuccessReplayConfig(max_uses=1)
    drawn = []
    while (one := memory.draw(once, "a", 5, 11, len(drawn), 0)) is not None:
        assert memory.charge(one, 11).success.uses == 1
        drawn.append(one.group_id)
    assert sorted(drawn) == [1, 2, 3]


def test_what_went_is_known_until_the_batch_in_which_it_stands_is_reported():
    memory, cfg = filled(1, SuccessReplayConfig(capacity=1)), SuccessReplayConfig(capacity=1)
    memory.charge(memory.of_prompt("a", 5)[0], 7)
    [_, gone] = memory.remember(cfg, success(9), Judged(rollout=rollout(0), verdict=RIGHT))
    assert (gone.success.group_id, gone.success.kept, gone.success.step, gone.body) == (1, False, 7, None)
    memory.forget(6)
    assert memory.body((1, 0)).rollout.sampler == "sampler-4"
    memory.forget(7)
    assert [one.group_id for one in memory.known()] == [9]
    assert [record.success.kept for record in memory.end("a")] == [False] and memory.num_kept == 0
    assert memory.end("b") == []


def test_a_group_with_a_success_differs_in_one_rollout_and_its_verdict():
    group = RolloutGroup(
        group_id=8,
        prompt=Prompt(prompt_id="p", task="t", text="", answer=""),
        prompt_ids=b"",
        sampling=Sampling(rollouts=3),
        rollouts=[rollout(i, 9) for i in range(3)],
    )
    whole = VerifiedGroup(group=group, verdicts=[WRONG] * 3)
    one = Replayed(group_id=8, rollout=0, source_group=2, source_rollout=1, uses=1)
    [other, new] = with_successes(
        [VerifiedGroup(group=msgspec.structs.replace(group, group_id=7), verdicts=[WRONG] * 3), whole],
        [one],
        {(2, 1): Judged(rollout=rollout(1, 4), verdict=RIGHT)},
    )
    assert other.verdicts == [WRONG] * 3 and new.verdicts == [RIGHT, WRONG, WRONG]
    assert new.group.rollouts[1:] == group.rollouts[1:] and whole.group.rollouts[0].replayed_from == ""
    assert new.group.rollouts[0] == msgspec.structs.replace(rollout(1, 4), index=0, replayed_from="2/1")


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ({"source": "demonstrations", "success_replay": {"capacity": 8}}, "trains on demonstrations"),
        ({"drop_no_signal": True, "success_replay": {"total": 9}}, "drop_no_signal drops them before"),
        ({"success_replay": {"capacities": 8}}, "capacity"),
        ({"success_replay": {"total": 0}}, "total = 0: must be a whole number at least 1"),
        ({"success_replay": {"mean_below": 0.0}}, "mean_below = 0.0: must be a number above 0"),
    ],
)
def test_what_cannot_work_is_refused(stage: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=words):
        load_success_replay("rl", StageConfig(**stage))


def test_it_is_off_unless_it_is_asked_for():
    assert load_success_replay("rl", StageConfig(drop_no_signal=True)).capacity == 0
    assert load_success_replay("rl", StageConfig(success_replay={"capacity": 0}, drop_no_signal=True)).capacity == 0
    assert load_success_replay("rl", StageConfig(success_replay={"max_age": 4})) == SuccessReplayConfig(max_age=4)
