"""Which safetensors files are read, and what is said of damaged ones."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from rlsp_async import config
from rlsp_async.errors import DataError
from rlsp_async.model import count_parameters, prepare_model, read_config, tiny_qwen2, weight_files
from rlsp_async.model.weights import INDEX, check_weights
from rlsp_async.sampling.torch_model import read_tensors
from rlsp_async.tokens import load_tokenizer


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tiny_qwen2(tmp_path / "source", seed=0)
    return tmp_path / "source"


def run(path: Path) -> config.RunConfig:
    return config.RunConfig(name="r", stages={"s": config.StageConfig()}, model=config.ModelConfig(path=str(path)))


def shard(model: Path) -> Path:
    """Splits model.safetensors into two files with an index."""
    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names, places = sorted(tensors), {}
    for number, part in enumerate((names[:9], names[9:])):
        file = f"model-0000{number + 1}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, model / file, metadata={"format": "pt"})
        places |= dict.fromkeys(part, file)
    (model / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return model


@pytest.mark.parametrize("sharded", [False, True])
def test_stray_files_are_read_by_nobody(model: Path, tmp_path: Path, sharded: bool) -> None:
    wanted = load_file(model / "model.safetensors")
    if sharded:
        shard(model)
    wrong = {name: tensor + 1 for name, tensor in wanted.items()}
    for name in ("consolidated.safetensors", "adapter_model.safetensors", "old.safetensors"):
        save_file(wrong, model / name)
    prepare_model(run(model), tmp_path / "model")
    for directory in (model, tmp_path / "model"):
        assert read_tensors(directory).keys() == wanted.keys()
        assert all(torch.equal(tensor, wanted[name]) for name, tensor in read_tensors(directory).items())
        assert count_parameters(directory) == sum(tensor.numel() for tensor in wanted.values())
        loaded = AutoModelForCausalLM.from_pretrained(directory).state_dict()
        assert all(torch.equal(tensor, wanted[name]) for name, tensor in loaded.items())
    assert len(list((tmp_path / "model").glob("*.safetensors"))) == 1 + sharded


def cut(model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pointer(model: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"
    (model / "model.safetensors").write_text(text)


def no_header(model: Path) -> None:
    (model / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")


def other_header(model: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": "x", "data_offsets": [0]}}).encode()
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)


def no_tensors(model: Path) -> None:
    save_file({}, model / "model.safetensors")


def lost_shard(model: Path) -> None:
    (shard(model) / "model-00002-of-00002.safetensors").unlink()


def other_place(model: Path) -> None:
    (model / INDEX).write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))


def only_shards(model: Path) -> None:
    (shard(model) / INDEX).unlink()


def quantised(model: Path) -> None:
    settings = json.loads((model / "config.json").read_text()) | {"quantization_config": {"quant_method": "fp8"}}
    (model / "config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (cut, r"model\.safetensors: has \d+ bytes and its header says \d+: it was cut off"),
        (pointer, r"model\.safetensors: is a git-lfs pointer, not the weights; fetch them with `git lfs pull`"),
        (
            lambda model: (model / "model.safetensors").write_bytes(b""),
            r"model\.safetensors: no valid safetensors file",
        ),
        (no_header, r"no valid safetensors file: a header of \d+ bytes in a file of 10"),
        (other_header, "no valid safetensors file"),
        (no_tensors, "hold no tensor"),
        (lost_shard, r"names model-00002-of-00002\.safetensors, which is not there"),
        (other_place, "must name files of this directory"),
        (only_shards, r"neither model\.safetensors nor model\.safetensors\.index\.json"),
        (quantised, r"are quantised \(fp8 in config\.json\)"),
    ],
)
def test_weights_that_cannot_be_used_are_refused_in_one_line(
    model: Path, tmp_path: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    damage(model)
    with pytest.raises(DataError, match=sentence) as caught:
        prepare_model(run(model), tmp_path / "run" / "model")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("model.path: ")
    assert not (tmp_path / "run").exists()


def rewritten(model: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the header of model.safetensors and keeps the bytes behind it."""
    path = model / "model.safetensors"
    content = path.read_bytes()
    end = 8 + struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:end])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[end:])


NORM, OTHER = "model.layers.0.input_layernorm.weight", "model.layers.1.input_layernorm.weight"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda h: h[OTHER].update(data_offsets=h[NORM]["data_offsets"]), "does not lie in the bytes"),
        (lambda h: h[NORM].update(data_offsets=h[NORM]["data_offsets"][::-1]), "does not lie in the bytes"),
        (lambda h: h[NORM].update(data_offsets=[-256, 0]), "no valid shape or offsets"),
        (lambda h: h[NORM].update(data_offsets=[0, 256, 512]), "no valid shape or offsets"),
        (lambda h: h[NORM].update(shape=[-64]), "no valid shape or offsets"),
        (lambda h: h[NORM].update(shape=[-8, -8]), "no valid shape or offsets"),
        (lambda h: h[NORM].update(shape=[2**62]), "does not lie in the bytes"),
        (lambda h: h[NORM].update(shape=[64.0]), "no valid shape or offsets"),
        (lambda h: h[NORM].update(dtype="F13"), "no number format that the form knows"),
        (lambda h: h[NORM].update(dtype=["F32"]), "no number format that the form knows"),
        (lambda h: h.update(more="text"), "no number format that the form knows"),
        (lambda h: h.update(__metadata__=[1]), "is no table of tensors"),
        (lambda h: h.pop(NORM), "does not lie in the bytes"),
        (lambda h: h[NORM].update(dtype="I32"), rf"are quantised \({NORM} holds I32\)"),
    ],
)
def test_a_header_is_what_the_bytes_are(model: Path, change: Callable[[dict[str, Any]], None], sentence: str) -> None:
    check_weights(model, {})
    rewritten(model, change)
    with pytest.raises(DataError, match=sentence):
        check_weights(model, {})


def test_a_header_that_is_nested_without_end_is_one_sentence(model: Path) -> None:
    text = b"[" * 300_000
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(DataError, match="nested too deep"):
        check_weights(model, {})
    (model / INDEX).write_text("[" * 300_000)
    with pytest.raises(DataError, match="no index of safetensors files"):
        check_weights(model, {})


def test_adapters_and_other_forms_of_weights_are_named(model: Path) -> None:
    (model / "model.safetensors").rename(model / "model-q4.gguf")
    with pytest.raises(DataError, match=r"no \*\.safetensors \(its weights are in model-q4\.gguf"):
        weight_files(model)
    save_file({"a": torch.zeros(1)}, model / "adapter_model.safetensors")
    with pytest.raises(DataError, match=r"an adapter \(LoRA\), not a model"):
        weight_files(model)
    (model / "adapter_config.json").write_text("{}")
    (model / "config.json").unlink()
    with pytest.raises(DataError, match=r"no config\.json: it holds an adapter"):
        read_config(model)


def test_half_precision_is_not_quantised(model: Path) -> None:
    check_weights(model, {"dtype": "bfloat16"})
    assert len(weight_files(model)) == 1


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(model: Path) -> None:
    from rlsp_async.preflight import inputs

    tokenizer = load_tokenizer(model)
    inputs.measure(run(model), model)
    tokenizer.add_tokens(["<image_soft_token>"])
    tokenizer.save_pretrained(str(model))
    inputs.measure(run(model), model)  # Gemma 3 1B comes with it
    tokenizer.add_tokens([f"<new{i}>" for i in range(9)])
    tokenizer.save_pretrained(str(model))
    with pytest.raises(DataError, match=r"ids up to 268 \('<new0>' is 260\), and the model's vocabulary has 259"):
        inputs.measure(run(model), model)


def test_what_follows_from_the_prompts_is_kept_for_the_samplers(model: Path, tmp_path: Path) -> None:
    from rlsp_async.model import read_longest_prompt, write_longest_prompt

    assert read_longest_prompt(tmp_path) is None
    write_longest_prompt(tmp_path, 5000)
    assert read_longest_prompt(tmp_path) == 5000
    (tmp_path / "prompts.json").write_text('{"longest_prompt_tokens": "many"}')
    with pytest.raises(DataError, match=r"prompts\.json"):
        read_longest_prompt(tmp_path)
