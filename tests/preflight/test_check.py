"""`rlsp check`: what follows from the settings, what is refused, what is warned of."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rlsp_async.config import RunConfig, convert
from rlsp_async.errors import ConfigError
from rlsp_async.model import ModelInfo, planned_model
from rlsp_async.preflight import estimate
from rlsp_async.preflight.check import check, general_warnings, refuse, reward_condition, stage_warnings
from rlsp_async.runner.prepare import models_beside

CONFIGS = Path(__file__).parents[2] / "launch" / "configs"


def settings(**sections: Any) -> RunConfig:
    stage = {"steps": 10, "groups_per_step": 4, **sections.pop("stage", {})}
    return convert({"name": "x", "stages": {"rl": stage}, **sections}, RunConfig, "x")


def output(path: Path, *overrides: str) -> str:
    out = io.StringIO()
    assert check(str(path), list(overrides), out) == 0
    return out.getvalue()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_config_is_accepted(path: Path) -> None:
    assert f"rlsp check: {path} can run" in output(path)


def test_the_main_job_in_figures() -> None:
    text = output(CONFIGS / "ops_cpu.toml")
    assert "  stages.rlsp.optimizer.lr = 0.0003\n" in text
    assert "  learner.keep_checkpoints = 2\n" in text
    assert "capacity              64 groups" in text
    assert "worst lag             1 version " in text
    assert "a step                256 rollouts, up to 65.5 k tokens" in text
    assert "optimizer updates     96 " in text
    assert "processes             7 " in text
    assert "model                 218 k parameters" in text
    assert "bound C < 68.27 at alpha = 0.8" in text
    assert "warning" not in text


def test_missing_model_is_a_warning_here() -> None:
    text = output(CONFIGS / "gsm8k_qwen2.5-1.5b_2gpu.toml")
    assert "warning: model.path: models/Qwen2.5-1.5B-Instruct: not on this machine" in text


def test_a_reward_that_prefers_wrong_answers_is_warned_of() -> None:
    text = output(CONFIGS / "ops_cpu.toml", "stages.rlsp.reward.scale=1000")
    assert "is BROKEN" in text
    assert "a correct answer shorter than 126 tokens scores below a wrong one of 256; lower scale below 68.27" in text


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
        ({"sampler": {"groups_in_flight": 0}}, "sampler.groups_in_flight = 0 must be at least 1"),
        ({"verifier": {"processes": 0}}, "verifier.processes = 0 must be at least 1"),
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
    assert general_warnings(cfg) == []
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
    texts = [*general_warnings(cfg), *stage_warnings(cfg, "rl", cfg.stages["rl"])]
    assert any(message in text for text in texts), texts


def test_demonstrations_have_no_reward_and_no_lag() -> None:
    cfg = settings(stage={"source": "demonstrations", "reward": {"explore": "len_inv"}})
    assert reward_condition(cfg, cfg.stages["rl"]) is None
    assert estimate.admitted_lag(cfg.stages["rl"]) == 0


def test_options_of_an_algorithm_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"stages.rlsp: .*rlsp_cpuu"):
        check(str(CONFIGS / "ops_cpu.toml"), ["stages.rlsp.algorithm.preset=rlsp_cpuu"], io.StringIO())


def test_a_models_shape_comes_from_its_config_alone(tmp_path: Path) -> None:
    qwen = {
        "vocab_size": 151936,
        "hidden_size": 1536,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "intermediate_size": 8960,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": True,
    }
    (tmp_path / "config.json").write_text(json.dumps(qwen))
    shape = planned_model(settings(model={"path": str(tmp_path)}))
    assert shape is not None
    assert shape.num_parameters == pytest.approx(1.5436e9, rel=1e-3)
    assert (shape.head_dim, shape.context) == (128, 32768)
    assert planned_model(settings(model={"path": str(tmp_path / "no")})) is None


def test_estimates_by_hand() -> None:
    cfg = settings(stage={"minibatches": 2, "epochs": 3, "target_lag": 2})
    stage = cfg.stages["rl"]
    assert estimate.tokens_per_step(cfg, stage) == 4 * 8 * 256
    assert estimate.optimizer_updates(stage) == 60
    assert estimate.group_bytes(cfg, stage) == 8 * (256 * 17 + 200) + 8192
    assert estimate.buffer_bytes(cfg, stage) == 12 * estimate.group_bytes(cfg, stage)
    assert sum(estimate.num_processes(cfg).values()) == 7


def test_what_stands_beside_the_policy_is_counted() -> None:
    """Of a model of a thousand million parameters, on top of what `rlsp check` says of one that is alone."""
    shape = ModelInfo(
        vocabulary=1, hidden=1, layers=0, heads=1, kv_heads=1, head_dim=1, intermediate=1, context=1, tied=True
    )
    shape = msgspec.structs.replace(shape, vocabulary=10**9 - 1)

    def more(algorithm: dict[str, object], of: Callable[..., float]) -> float:
        cfg = settings(stage={"algorithm": algorithm})
        return of(cfg, shape, models_beside(cfg)) - of(cfg, shape)

    def gib(*given: Any) -> float:
        return estimate.learner_gib(*given) * estimate.GIB / 1e9

    grpo, t1 = {"name": "grpo"}, {"name": "t1", "options": {"reference_ema": 0.01}}
    released = {"name": "ppo", "preset": "rlsp_released"}
    assert more(grpo, gib) == 0.0
    assert more({**grpo, "options": {"kl_coef": 0.01}}, gib) == pytest.approx(4)
    assert more(t1, gib) == pytest.approx(4)
    assert more(t1, estimate.checkpoint_bytes) == 4e9
    assert more(released, gib) == pytest.approx(16 + 4)
    assert more(released, estimate.checkpoint_bytes) == 12e9
    assert more(released, estimate.disk_bytes) == 12e9 * 3 + 4e9


def test_remembered_successes_are_part_of_the_buffer() -> None:
    cfg = settings(stage={"success_replay": {"capacity": 4, "total": 100}})
    assert estimate.success_bytes(cfg, cfg.stages["rl"]) == 100 * (256 * 17 + 200)
    without = settings()
    assert estimate.success_bytes(without, without.stages["rl"]) == 0
    more = estimate.buffer_bytes(cfg, cfg.stages["rl"]) - estimate.buffer_bytes(without, without.stages["rl"])
    assert more == 100 * (256 * 17 + 200)
