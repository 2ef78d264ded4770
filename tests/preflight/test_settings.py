"""`rlsp check` on prompt and replay selections: what is refused, what is warned of."""

from __future__ import annotations

from typing import Any

import pytest

from rlsp_async.config import (
    PromptsConfig,
    RunConfig,
    SamplerConfig,
    SamplingConfig,
    StageConfig,
    TemperatureConfig,
    convert,
)
from rlsp_async.errors import ConfigError
from rlsp_async.model import planned_model
from rlsp_async.preflight.estimate import admitted_lag, slots_lag
from rlsp_async.preflight.settings import policy_warnings, refuse, run_warnings, stage_warnings


@pytest.mark.parametrize(
    ("stage", "rollouts", "words"),
    [
        ({"drop_no_signal": True}, 1, "sampling.rollouts of 2 or more"),
        ({"source": "demonstrations", "drop_no_signal": True}, 8, "stages.s.drop_no_signal is about rollouts"),
        ({"source": "demonstrations", "oversample": 2.0}, 8, "stages.s.oversample is about rollouts"),
        (
            {"selection_options": {"min_ready": 65}},
            8,
            "min_ready = 65 groups will never be ready at once: the stage has 64",
        ),
        ({"source": "demonstrations", "prompts": PromptsConfig(name="mopps")}, 8, "stages.s.prompts is about rollouts"),
        ({"temperature": TemperatureConfig(name="bstar"), "success_replay": {"capacity": 8}}, 8, "same constant one"),
        (
            {"source": "imported", "temperature": TemperatureConfig(name="bstar")},
            8,
            "stages.s.temperature is about rollouts",
        ),
        ({"drop_no_signal": True, "success_replay": {"capacity": 8}}, 8, "stages.s.success_replay mends groups"),
    ],
)
def test_what_cannot_work_is_refused(stage: dict[str, Any], rollouts: int, words: str):
    cfg = RunConfig(name="x", stages={"s": StageConfig(**stage)}, sampling=SamplingConfig(rollouts=rollouts))
    with pytest.raises(ConfigError, match=words):
        refuse(cfg, None)


def test_successes_of_another_temperature_are_refused():
    warm, cold = (
        StageConfig(
            temperature=TemperatureConfig(options={"temperature": t}),
            success_replay={"capacity": 8},
            prompts=PromptsConfig(options={"pool": 99}),
        )
        for t in (1.2, 0.8)
    )
    refuse(RunConfig(name="x", stages={"a": warm, "b": warm}), None)
    with pytest.raises(ConfigError, match="same constant one"):
        refuse(RunConfig(name="x", stages={"a": warm, "b": cold}), None)


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ({"oversample": 1.5}, "without drop_no_signal"),
        (
            {"oversample": 2.0, "drop_no_signal": True, "max_lag": 2},
            "groups can be 3 versions behind, above max_lag = 2",
        ),
        ({"selection_options": {"min_new": 0.5}}, "no effect with max_uses = 1"),
        ({"selection_options": {"min_new": 1.0}, "max_uses": 2}, "no group is ever used again"),
        ({"success_replay": {"capacity": 8}}, "comes back only when the whole"),
        ({"prompts": PromptsConfig(name="mopps", options={"pool": 9})}, "64 groups are on their way at once"),
        (
            {"prompts": PromptsConfig(options={"pool": 9}), "max_uses": 2, "selection_options": {"carry": 50}},
            "14 groups are on",
        ),
        ({"selection_options": {"carry": 5}}, "nothing of it is taken over"),
    ],
)
def test_what_may_surprise_is_said(stage: dict[str, Any], words: str):
    [text] = policy_warnings("s", StageConfig(**stage))
    assert words in text


def test_plain_stages_are_not_warned_of():
    assert policy_warnings("s", StageConfig()) == []
    assert policy_warnings("s", StageConfig(oversample=1.5, drop_no_signal=True)) == []


def test_oversampling_makes_groups_older():
    assert [slots_lag(StageConfig(target_lag=1, oversample=x)) for x in (1.0, 1.5, 2.0)] == [1, 2, 3]
    assert admitted_lag(StageConfig(target_lag=1, oversample=2.0)) == 3


def settings(**sections: Any) -> RunConfig:
    stage = {"steps": 10, "groups_per_step": 4, **sections.pop("stage", {})}
    return convert({"name": "x", "stages": {"rl": stage}, **sections}, RunConfig, "x")


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"stage": {"minibatches": 5}}, "stages.rl.minibatches = 5 is above groups_per_step = 4"),
        ({"sampling": {"max_new_tokens": 512}}, "leaves no room for a prompt in the model's window of 512"),
        ({"replay": {"lease_s": 2.0}}, "replay.lease_s = 2 must be above twice replay.heartbeat_s = 1"),
        ({"replay": {"stall_s": 60.0}}, "replay.stall_s = 60 must be above replay.lease_s = 60"),
        (
            {"replay": {"max_message_mb": 1}, "sampling": {"rollouts": 64}},
            "above replay.max_message_mb = 1; set it to 2",
        ),
    ],
)
def test_impossible_settings_are_refused(sections: dict[str, Any], message: str) -> None:
    cfg = settings(**sections)
    with pytest.raises(ConfigError) as caught:
        refuse(cfg, planned_model(cfg))
    assert message in str(caught.value)


def test_possible_settings_pass() -> None:
    cfg = settings()
    refuse(cfg, planned_model(cfg))
    assert run_warnings(cfg) == []
    assert stage_warnings(cfg, "rl", cfg.stages["rl"]) == []


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"sampler": {"count": 0}}, "sampler.count = 0: the run waits until a sampler joins"),
        ({"sampler": {"max_sequences": 64}}, "16 groups of 8 are 128 rollouts, above max_sequences = 64"),
        ({"learner": {"tokens_per_microbatch": 128}}, "a long rollout takes a pass of its own"),
        ({"stage": {"target_lag": 4, "publish_every": 2}}, "groups can be 5 versions behind"),
        (
            {"stage": {"epochs": 4, "minibatches": 4, "algorithm": {"name": "reinforce"}}},
            "a rollout is behind up to 32 updates",
        ),
    ],
)
def test_surprises_are_warned_of(sections: dict[str, Any], message: str) -> None:
    cfg = settings(**sections)
    texts = [*run_warnings(cfg), *stage_warnings(cfg, "rl", cfg.stages["rl"])]
    assert any(message in text for text in texts), texts


def test_samplers_that_ask_for_more_groups_than_the_stage_has_slots():
    stage = StageConfig(groups_per_step=64, target_lag=2)
    cfg = RunConfig(name="x", stages={"s": stage}, sampler=SamplerConfig(count=7, groups_in_flight=64))
    (text,) = [text for text in run_warnings(cfg) if "slots" in text]
    assert "7 samplers x 64 groups_in_flight ask for 448 groups at once, and the stage has 192 slots" in text
    assert "lower sampler.groups_in_flight to 27" in text
    for sampler in (SamplerConfig(count=7, groups_in_flight=27), SamplerConfig(count=1, groups_in_flight=999)):
        cfg = RunConfig(name="x", stages={"s": stage}, sampler=sampler)
        assert not [text for text in run_warnings(cfg) if "slots" in text]


def test_adapters_on_random_weights_are_warned_of() -> None:
    run = {"name": "x", "stages": {"s": {}}, "model": {"lora": {"rank": 4}}}
    text = "model.lora: the weights of a model that is built from model.scratch are random"
    assert any(text in warning for warning in run_warnings(convert(run, RunConfig, "x")))
    run["model"] = {"lora": {"rank": 4}, "path": "somewhere"}
    assert not any("model.lora" in warning for warning in run_warnings(convert(run, RunConfig, "x")))
