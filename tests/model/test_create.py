"""The directory a run starts from: built, taken over, or refused with one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlsp_async import config
from rlsp_async.errors import ConfigError, DataError
from rlsp_async.model import check_model, check_window, own_code, prepare_model, transformers_config
from rlsp_async.tasks.base import load_task
from rlsp_async.tokens import load_tokenizer


def run(path: str = "", seed: int = 0, **more: Any) -> config.RunConfig:
    model = config.ModelConfig(path=path, **more.pop("model", {}))
    return config.RunConfig(name="r", seed=seed, stages={"s": config.StageConfig()}, model=model, **more)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "qwen"
    prepare_model(run("tiny-qwen2"), directory)
    return directory


def test_scratch_llama(tmp_path: Path) -> None:
    prepare_model(run(), tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    sizes = model.config
    assert (sizes.model_type, sizes.hidden_size, sizes.head_dim, sizes.vocab_size) == ("llama", 64, 32, 124)
    assert (sizes.bos_token_id, sizes.eos_token_id, sizes.pad_token_id) == (1, 2, 0)
    assert sum(p.numel() for p in model.parameters()) == 217_280
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert len(load_tokenizer(tmp_path / "model")) == 124


def test_the_seed_decides_the_weights_and_nothing_else_does(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.rand(3)
        before = torch.get_rng_state()
        prepare_model(run(seed=seed), tmp_path / name)
        assert torch.equal(before, torch.get_rng_state())
    one, same, other = ((tmp_path / n / "model.safetensors").read_bytes() for n in "abc")
    assert one == same
    assert one != other


def test_tiny_qwen2_is_a_chat_model_with_an_untied_head(qwen: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(qwen)
    assert (model.config.model_type, model.config.tie_word_embeddings, model.config.vocab_size) == ("qwen2", False, 259)
    assert load_tokenizer(qwen).chat_template


def test_bfloat16(tmp_path: Path) -> None:
    prepare_model(run(model={"dtype": "bfloat16"}), tmp_path / "model")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model").dtype == torch.bfloat16


def test_a_users_directory_is_taken_whole(qwen: Path, tmp_path: Path) -> None:
    prepare_model(run(str(qwen)), tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").is_symlink()
    mine, theirs = (AutoModelForCausalLM.from_pretrained(d).state_dict() for d in (tmp_path / "model", qwen))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert load_tokenizer(tmp_path / "model").chat_template


def test_a_directory_that_is_there_is_left_alone(qwen: Path) -> None:
    before = (qwen / "model.safetensors").stat().st_mtime_ns
    prepare_model(run(), qwen)
    assert (qwen / "model.safetensors").stat().st_mtime_ns == before


def damaged(qwen: Path, directory: Path, **changes: object) -> Path:
    directory.mkdir(exist_ok=True)
    for item in qwen.iterdir():
        (directory / item.name).write_bytes(item.read_bytes())
    settings = json.loads((qwen / "config.json").read_text()) | changes
    (directory / "config.json").write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))
    return directory


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"architectures": ["BertModel"]}, "BertModel is no causal language model"),
        ({"architectures": None}, "an unnamed architecture is no causal language model"),
        ({"auto_map": {"AutoModel": "x.Y"}, "model_type": "hyper9"}, "needs its own Python code"),
        ({"auto_map": {"AutoModel": "x.Y"}, "architectures": ["HyperForCausalLM"]}, "needs its own Python code"),
        ({"model_type": ["qwen2"]}, "names no model_type"),
        ({"model_type": None}, "names no model_type"),
    ],
)
def test_models_that_are_refused(qwen: Path, tmp_path: Path, changes: dict[str, object], sentence: str) -> None:
    source = damaged(qwen, tmp_path / "source", **changes)
    with pytest.raises(DataError, match=sentence):
        prepare_model(run(str(source)), tmp_path / "run" / "model")
    assert not (tmp_path / "run").exists()


def test_own_code_is_ignored_where_transformers_has_the_family(qwen: Path, tmp_path: Path) -> None:
    code = {"AutoConfig": "configuration_x.X", "AutoModelForCausalLM": "modeling_x.X"}
    source = damaged(qwen, tmp_path / "source", auto_map=code)
    settings = json.loads((source / "tokenizer_config.json").read_text())
    (source / "tokenizer_config.json").write_text(json.dumps(settings | {"auto_map": {"AutoTokenizer": ["t.X", None]}}))
    for name in ("configuration_x", "modeling_x", "t"):
        (source / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass X: pass\n")
    assert [sentence.partition(": ")[0] for sentence in own_code(source)] == [
        str(source / "config.json"),
        str(source / "tokenizer_config.json"),
    ]
    prepare_model(run(str(source)), tmp_path / "run" / "model")
    for name in ("config.json", "tokenizer_config.json"):
        assert "auto_map" not in (tmp_path / "run" / "model" / name).read_text()
    assert own_code(tmp_path / "run" / "model") == []
    load_tokenizer(source)
    assert not (tmp_path / "ran").exists()


def test_a_model_that_config_json_describes_larger_than_its_files_is_refused(qwen: Path, tmp_path: Path) -> None:
    for number, changes in enumerate(({"vocab_size": 10**9}, {"hidden_size": 65_536}, {"num_hidden_layers": 4_000})):
        source = damaged(qwen, tmp_path / str(number), **changes)
        with pytest.raises(DataError, match="config.json describes a model of about .* do not belong together"):
            prepare_model(run(str(source)), tmp_path / "run" / "model")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rms_norm_eps": "1e-6"}, "rms_norm_eps"),
        ({"rope_scaling": "linear"}, "rope_parameters"),
        ({"layer_types": ["full_attention"]}, r"num_hidden_layers` \(3\) must be equal"),
        ({"model_type": "hyperion9"}, "hyperion9"),
        ({"head_dim": 33}, "even rotary dimension"),
    ],
)
def test_what_transformers_does_not_read_is_one_line(
    qwen: Path, tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(DataError, match=f"transformers does not read it: .*{sentence}") as caught:
        transformers_config(damaged(qwen, tmp_path / "source", **changes))
    assert "\n" not in str(caught.value)


def test_gpt2_is_a_causal_language_model(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=20, n_embd=32, n_layer=1, n_head=1, n_positions=64)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    assert check_model(tmp_path)["architectures"] == ["GPT2LMHeadModel"]


def test_missing_parts(qwen: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such directory"):
        prepare_model(run(str(tmp_path / "none")), tmp_path / "m")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"has no config\.json"):
        prepare_model(run(str(tmp_path / "empty")), tmp_path / "m")
    source = damaged(qwen, tmp_path / "empty")
    (source / "tokenizer.json").unlink()
    (source / "tokenizer_config.json").unlink()
    with pytest.raises(DataError, match="no tokenizer files"):
        prepare_model(run(str(source)), tmp_path / "m")
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"has no \*\.safetensors"):
        prepare_model(run(str(source)), tmp_path / "m")
    (source / "config.json").write_text("{")
    with pytest.raises(DataError, match=r"config\.json: no valid JSON"):
        prepare_model(run(str(source)), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_nothing_is_left_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", full_disk)
    with pytest.raises(OSError, match="No space"):
        prepare_model(run(), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_task_in_free_text_needs_a_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="to a local Hugging Face directory"):
        prepare_model(run(task=config.TaskConfig(name="gsm8k")), tmp_path / "m")


def test_window(qwen: Path) -> None:
    gsm8k = config.TaskConfig(name="gsm8k", options={"limit": 40})
    task, tokenizer = load_task(gsm8k, 0), load_tokenizer(qwen)
    longest = check_window(run("tiny-qwen2", task=gsm8k), task, tokenizer)
    assert 300 < longest < 1500
    with pytest.raises(DataError) as caught:
        check_window(
            run("tiny-qwen2", task=gsm8k, sampling=config.SamplingConfig(max_new_tokens=1900)), task, tokenizer
        )
    assert "prompt gsm8k/train/0: " in str(caught.value)
    assert "sampling.max_new_tokens = 1900 exceed the model's window of 2048" in str(caught.value)


def test_window_of_a_users_model(qwen: Path, tmp_path: Path) -> None:
    task, tokenizer = load_task(config.TaskConfig(), 0), load_tokenizer(qwen)
    source = damaged(qwen, tmp_path, max_position_embeddings=270)
    with pytest.raises(DataError, match="window of 270"):
        check_window(run(str(source)), task, tokenizer)
    assert check_window(run(str(source), sampling=config.SamplingConfig(max_new_tokens=200)), task, tokenizer, 50) < 40
