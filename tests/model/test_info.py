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


@pytest.mark.parametrize(
    ("names", "intermediate"),
    [
        ({"n_embd": 48, "n_layer": 5, "n_head": 3, "n_positions": 77}, 192),  # GPT-2
        ({"d_model": 48, "n_layers": 5, "n_heads": 3, "max_seq_len": 77}, 192),  # MPT
        ({"hidden_size": 48, "num_hidden_layers": 5, "num_attention_heads": 3, "max_position_embeddings": 77, "ffn_dim": 9}, 9),
        ({"hidden_size": 48, "num_layers": 5, "num_heads": 3, "max_position_embeddings": 77, "intermediate_size": None}, 192),
    ],
)  # fmt: skip
def test_sizes_have_other_names_in_other_families(tmp_path: Path, names: dict[str, int], intermediate: int) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 10, **names}))
    model = read_model_info(tmp_path)
    assert (model.hidden, model.layers, model.heads, model.context) == (48, 5, 3, 77)
    assert (model.intermediate, model.kv_heads, model.head_dim) == (intermediate, 3, 16)
    assert planned_model(run(str(tmp_path))) == model


GOOD = {
    "vocab_size": 10,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 9,
}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"vocab_size": -1}, "vocab_size = -1 is no whole number above 0"),
        ({"vocab_size": "10"}, "vocab_size = '10' is no whole number"),
        ({"vocab_size": True}, "vocab_size = True is no whole number"),
        ({"hidden_size": 8.5}, "hidden_size = 8.5 is no whole number"),
        ({"hidden_size": 10**30}, "hidden_size = 1000000000000000000000000000000 is above"),
        ({"num_hidden_layers": 0}, "num_hidden_layers = 0 is no whole number above 0"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers = 1000000 is above 4,096"),
        ({"num_attention_heads": None, "model_type": "mamba"}, "no 'num_attention_heads' for model_type 'mamba'"),
        ({"max_position_embeddings": None, "model_type": "bloom"}, "names no longest sequence"),
        ({"max_position_embeddings": -4}, "names no longest sequence"),
        ({"head_dim": [4, {}]}, ""),
        ({"head_dim": []}, r"head_dim = \[\] is no whole number"),
    ],
)
def test_a_size_that_cannot_be_one_is_named(tmp_path: Path, change: dict[str, object], sentence: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(GOOD | change))
    if not sentence:
        assert read_model_info(tmp_path).head_dim == 4  # one for each layer
        return
    with pytest.raises(DataError, match=sentence):
        read_model_info(tmp_path)


def test_an_end_token_beyond_the_vocabulary_is_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(GOOD | {"eos_token_id": [3, 10, 10**30, True]}))
    assert read_model_info(tmp_path).eos_ids == (3,)


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
