"""Adapters in the samplers: exactly the model that the learner trains, one version after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from rlsp_async.config import LoraConfig, RunConfig, convert
from rlsp_async.errors import ConfigError, WeightsError
from rlsp_async.learning import lora
from rlsp_async.sampling.engine import GenerateSettings
from rlsp_async.sampling.engines import has_vllm
from rlsp_async.sampling.torch_engine import TorchEngine

IDS = [1, 5, 9, 2, 33, 60, 7, 7, 12]


def with_lora(cfg: RunConfig, dtype: str = "float32", **options: Any) -> RunConfig:
    table = msgspec.to_builtins(cfg)
    table["model"] |= {"lora": {"rank": 3, "alpha": 6.0, **options}, "dtype": dtype}
    return convert(table, RunConfig, "test")


def make_adapters(model_dir: Path, path: Path, seed: int, dtype: str = "float32", **options: Any) -> torch.Tensor:
    """Writes random adapters; returns the log-probs of IDS that transformers and peft give with them."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=getattr(torch, dtype))
    lora.add_adapters(model, LoraConfig(rank=3, alpha=6.0, **options), seed, str(model_dir))
    adapters = lora.adapter_parameters(model)
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapters.values():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    save_file({name: parameter.data for name, parameter in adapters.items()}, path)
    with torch.no_grad():
        logits = model(torch.tensor([IDS])).logits[0, :-1].float()
    return torch.log_softmax(logits, -1).gather(1, torch.tensor(IDS[1:])[:, None])[:, 0]


@pytest.mark.parametrize(
    ("kind", "kv_heads", "targets"), [("llama", 4, []), ("qwen2", 2, []), ("llama", 2, ["q_proj", "v_proj", "up_proj"])]
)
async def test_the_torch_engine_has_the_log_probs_of_the_adapted_model_version_by_version(
    make_model: Any, make_config: Any, reference: Any, tmp_path: Path, kind: str, kv_heads: int, targets: list[str]
) -> None:
    model = make_model(kind, True, kv_heads)
    engine = TorchEngine(with_lora(make_config(), targets=targets), model, seed=1)
    await engine.start()
    np.testing.assert_allclose(await engine.score(IDS), reference(model, IDS), atol=1e-4)
    for version in (1, 2):
        wanted = make_adapters(model, tmp_path / f"{version}", version, targets=targets)
        await engine.load_weights(tmp_path / f"{version}", version)
        np.testing.assert_allclose(await engine.score(IDS), wanted, atol=1e-4)
        assert (wanted - reference(model, IDS)).abs().max() > 0.01
    done = await engine.generate(IDS[:2], GenerateSettings(max_new_tokens=5))
    assert done.versions.tolist() == [2] * 5
    await engine.close()


async def test_small_products_do_not_vanish_in_a_bfloat16_model(
    make_model: Any, make_config: Any, tmp_path: Path
) -> None:
    """Products far below half a unit in the last place of every weight change the log-probs as they do in the learner."""
    model = make_model("llama", True, 4)
    engine = TorchEngine(with_lora(make_config(), "bfloat16"), model, seed=1)
    await engine.start()
    make_adapters(model, tmp_path / "a", 1)
    small = {name: t * (1e-3 if "lora_B" in name else 1.0) for name, t in load_file(tmp_path / "a").items()}
    save_file(small, tmp_path / "a")
    await engine.load_weights(tmp_path / "a", 1)
    weight = engine._model._weights["0.down"]
    assert weight.dtype == torch.float32 and not torch.equal(weight, weight.bfloat16().float())
    wanted = make_adapters(model, tmp_path / "b", 1, "bfloat16")
    await engine.load_weights(tmp_path / "b", 2)
    np.testing.assert_allclose(await engine.score(IDS), wanted, atol=0.15)
    await engine.close()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.pop("base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"), "no two factors of one rank"),
        (lambda t: [t.pop(n) for n in list(t) if "layers.1.mlp.up_proj" in n], "not those of model.lora.targets, e.g."),
        (lambda t: t.update({"lm_head.weight": torch.zeros(2, 2)}), "tensor lm_head.weight .* is no factor"),
        (
            lambda t: t.update({"base_model.model.model.layers.0.mlp.up_proj.lora_B.weight": torch.zeros(7, 3)}),
            "size|shape",
        ),
    ],
)
async def test_adapters_that_are_not_of_the_model_are_refused_and_the_old_ones_stay(
    make_model: Any, make_config: Any, tmp_path: Path, change: Callable[[dict[str, Any]], Any], sentence: str
) -> None:
    model = make_model()
    engine = TorchEngine(with_lora(make_config()), model, seed=1)
    await engine.start()
    wanted = make_adapters(model, tmp_path / "good", 1)
    await engine.load_weights(tmp_path / "good", 1)
    tensors = load_file(tmp_path / "good")
    change(tensors)
    save_file(tensors, tmp_path / "bad")
    with pytest.raises(WeightsError, match=sentence):
        await engine.load_weights(tmp_path / "bad", 2)
    assert engine.version == 1
    np.testing.assert_allclose(await engine.score(IDS), wanted, atol=1e-4)
    await engine.close()


async def test_targets_that_the_torch_engine_does_not_have_are_refused(make_model: Any, make_config: Any) -> None:
    engine = TorchEngine(with_lora(make_config(), targets=["qkv_proj"]), make_model(), seed=1)
    with pytest.raises(ConfigError, match=r"no linear layer qkv_proj; there is down_proj, gate_proj"):
        await engine.start()


@pytest.mark.vllm
@pytest.mark.timeout(240)
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <function Context.__del__:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.filterwarnings("ignore:Unclosed context:ResourceWarning")  # vLLM's
@pytest.mark.skipif(not has_vllm(), reason="vllm is not installed")
async def test_vllm_has_the_log_probs_of_the_adapted_model_while_completions_run(
    make_config: Any, reference: Any, tmp_path: Path
) -> None:
    from rlsp_async.sampling.vllm_engine import VllmEngine

    model = make_llama(tmp_path / "model")
    engine = VllmEngine(with_lora(make_config(engine="vllm", memory=0.1, max_sequences=8)), model, seed=5)
    await engine.start()
    try:
        np.testing.assert_allclose(await engine.score(IDS), reference(model, IDS), atol=1e-4)
        wanted = [make_adapters(model, tmp_path / f"{version}", version) for version in (1, 2)]
        settings = GenerateSettings(max_new_tokens=480)
        running = [asyncio.create_task(engine.generate([1, 7, token], settings)) for token in range(4)]
        np.testing.assert_allclose(await engine.score(IDS), reference(model, IDS), atol=1e-4)
        for version in (1, 2):
            await engine.load_weights(tmp_path / f"{version}", version)
            np.testing.assert_allclose(await engine.score(IDS), wanted[version - 1], atol=1e-4)
        drawn = await engine.generate(IDS[:3], GenerateSettings(max_new_tokens=6, temperature=0.7))
        assert drawn.versions.tolist() == [2] * 6
        for token, one in enumerate(await asyncio.gather(*running)):
            early = int((one.versions == 0).sum())
            assert early and one.versions[-1] == 2
            ids = [1, 7, token, *one.token_ids[:early].tolist()]  # sampled by the model without adapters
            np.testing.assert_allclose(one.logprobs[:early], reference(model, ids)[2:], atol=1e-3)
    finally:
        await engine.close()


def make_llama(directory: Path) -> Path:
    """With a head size of 32, which vLLM needs on a CPU."""
    config = LlamaConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        intermediate_size=96,
        vocab_size=61,
        max_position_embeddings=512,
        initializer_range=0.15,
    )
    torch.manual_seed(3)
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory
