"""What a model's config.json says, read without its weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlsp_async.config import ModelConfig, RunConfig, StageConfig
from rlsp_async.errors import DataError
from rlsp_async.model import count_parameters, planned_model, read_model_info, tiny_qwen2


def run(path: str) -> RunConfig:
    return RunConfig(name="demo", stages={"only": StageConfig()}, model=ModelConfig(path=path))


def test_a_model_directory_is_read_without_its_weights(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    tiny_qwen2(directory, seed=0)
    generation = {"eos_token_id": [2, 9]}
    (directory / "generation_config.json").write_text(json.dumps(generation))
    model = read_model_info(directory)
    assert (model.kind, model.context, model.tied) == ("qwen2", 2048, False)
    assert set(model.eos_ids) >= {2, 9}
    assert model.kv_values_per_token == 2 * 3 * 1 * 32
    biases = 3 * (64 + 2 * 32)
    assert count_parameters(directory) == model.num_parameters + biases


def test_the_planned_model_is_the_model_that_is_made(tmp_path: Path) -> None:
    tiny_qwen2(tmp_path / "model", seed=0)
    planned, made = planned_model(run("tiny-qwen2")), read_model_info(tmp_path / "model")
    assert planned is not None
    for name in planned.__struct_fields__:
        assert name == "eos_ids" or getattr(planned, name) == getattr(made, name), name
    assert planned_model(run(str(tmp_path / "model"))) == made
    assert planned_model(run(str(tmp_path / "nowhere"))) is None


def test_a_model_of_another_shape_is_read_and_not_planned_with(tmp_path: Path) -> None:
    tiny_qwen2(tmp_path / "model", seed=0)
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    config["ffn_dim"] = config.pop("intermediate_size")
    path.write_text(json.dumps(config))
    assert read_model_info(tmp_path / "model").context == 2048
    with pytest.raises(DataError, match="no 'intermediate_size'"):
        planned_model(run(str(tmp_path / "model")))


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"num_attention_heads": 2, "hidden_size": null}'])
def test_a_broken_model_directory_is_bad_data(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(DataError, match=r"config\.json"):
        read_model_info(tmp_path)


def test_an_end_token_of_minus_one_is_none(tmp_path):
    from rlsp_async.model.info import _eos_ids

    assert _eos_ids({"eos_token_id": -1}) == set()
    assert _eos_ids({"eos_token_id": [2, -1, None, "x"]}) == {2}
    assert _eos_ids({}) == set()
