"""Memory, disk and tokens by hand, from the settings and a model's sizes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rlsp_async.cli.check import machine_facts
from rlsp_async.config import RunConfig, convert, load
from rlsp_async.errors import ConfigError
from rlsp_async.learning import policy
from rlsp_async.model import ModelInfo, planned_model
from rlsp_async.preflight import estimate
from rlsp_async.preflight.cards import plan_cards
from rlsp_async.preflight.inputs import extra_models
from tests.model.shapes import QWEN_1_5B, QWEN_7B


def settings(**sections: Any) -> RunConfig:
    stage = {"steps": 10, "groups_per_step": 4, **sections.pop("stage", {})}
    return convert({"name": "x", "stages": {"rl": stage}, **sections}, RunConfig, "x")


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


@pytest.mark.parametrize(("name", "learner_gb", "checkpoint_gb"), [("1gpu", 36, 21.6), ("2gpu", 66, 43.2)])
def test_the_learner_of_the_shipped_gpu_configurations(name: str, learner_gb: float, checkpoint_gb: float) -> None:
    """Worked out by hand for 1.54e9 parameters: 18 bytes each at the step, 14 in a checkpoint; twice with a critic."""
    cfg = load(f"launch/configs/gsm8k_qwen2.5-1.5b_{name}.toml")
    extra = extra_models(cfg)
    assert estimate.learner_gib(cfg, QWEN_1_5B, extra) * estimate.GIB / 1e9 == pytest.approx(learner_gb, rel=0.15)
    assert estimate.checkpoint_bytes(cfg, QWEN_1_5B, extra) / 1e9 == pytest.approx(checkpoint_gb, rel=0.01)


def test_adapters_of_the_shipped_configuration_fit_one_card_of_80_gb() -> None:
    """By hand for Qwen2.5-7B at rank 32: 28 layers x 32 x (2 x (3584 + 3584) + 2 x (3584 + 512) + 3 x (3584 + 18944))
    values, 16 bytes each while they are trained, 4 for the reference, beside 7.6e9 weights of 2 bytes."""
    cfg = load("launch/configs/gsm8k_qwen2.5-7b_lora_1gpu.toml")
    extra, values = extra_models(cfg), 28 * 32 * 90112
    assert estimate.adapter_values(cfg, QWEN_7B) == values == 80_740_352
    assert estimate.version_bytes(cfg, QWEN_7B) == 4 * values
    assert estimate.checkpoint_bytes(cfg, QWEN_7B, extra) == 12 * values
    learner_gb = estimate.learner_gib(cfg, QWEN_7B, extra) * estimate.GIB / 1e9
    activations_gb = 16384 * (28 * 2 * 3584 + 2 * (14 * 3584 + 4 * 18944) + 4 * (6 * 3584 + 18944)) / 1e9
    assert learner_gb == pytest.approx(15.23 + 20 * values / 1e9 + activations_gb + 12 * 2**27 / 1e9 + 0.54, rel=0.01)
    (use,) = plan_cards(cfg, QWEN_7B, {"learner-0": ["0"], "sampler-0": ["0"]}, 79.0, extra)
    assert use.texts[0] == "learner 26.6 of 41.1 GiB" and use.warnings == []
    facts = {fact.name: fact for fact in machine_facts(cfg, QWEN_7B)}
    assert "rank 32" in facts["adapters (LoRA)"].value
    whole = convert({**msgspec.to_builtins(cfg), "model": {"path": "x", "dtype": "bfloat16"}}, RunConfig, "x")
    with pytest.raises(ConfigError, match="the learner needs about 150.3 GiB of card 0, and 41.1 of its 79 are left"):
        plan_cards(whole, QWEN_7B, {"learner-0": ["0"], "sampler-0": ["0"]}, 79.0, extra)


def test_the_chunk_of_logits_is_the_learners() -> None:
    assert policy.CHUNK_LOGITS == estimate.CHUNK_LOGITS


def test_estimates_by_hand() -> None:
    cfg = settings(stage={"minibatches": 2, "epochs": 3, "target_lag": 2})
    stage = cfg.stages["rl"]
    assert estimate.tokens_per_step(cfg, stage) == 4 * 8 * 256
    assert estimate.optimizer_updates(stage) == 60
    assert estimate.group_bytes(cfg, stage) == 8 * (256 * 17 + 200) + 8192
    assert estimate.buffer_bytes(cfg, stage) == 12 * estimate.group_bytes(cfg, stage)
    assert sum(estimate.num_processes(cfg).values()) == 7


def test_models_besides_the_policy_are_counted() -> None:
    """Of a model of a thousand million parameters, on top of what `rlsp check` says of one that is alone."""
    shape = ModelInfo(
        vocabulary=1, hidden=1, layers=0, heads=1, kv_heads=1, head_dim=1, intermediate=1, context=1, tied=True
    )
    shape = msgspec.structs.replace(shape, vocabulary=10**9 - 1)

    def more(algorithm: dict[str, object], of: Callable[..., float]) -> float:
        cfg = settings(stage={"algorithm": algorithm})
        return of(cfg, shape, extra_models(cfg)) - of(cfg, shape)

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
