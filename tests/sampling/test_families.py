"""Families of models in the samplers: the torch engine computes some and refuses the rest; vLLM loads published experts.

The learner's side of the same table is in tests/learning/test_families.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.core_model_loading import revert_weight_conversion

from rlsp_async.config import RunConfig, SamplerConfig, SamplingConfig, StageConfig
from rlsp_async.errors import DataError
from rlsp_async.sampling.engine import GenerateSettings
from rlsp_async.sampling.engines import check_engine, choose_engine, has_vllm
from rlsp_async.sampling.torch_engine import TorchEngine
from rlsp_async.sampling.torch_model import is_tied
from tests.model.families import FAMILIES, make_model

IN_TORCH = {"llama", "llama-tied", "mistral", "qwen2", "qwen3"}
IDS = np.random.default_rng(3).integers(0, 96, 60).tolist()


def run(engine: str = "torch") -> RunConfig:
    return RunConfig(
        name="t",
        stages={"only": StageConfig()},
        sampler=SamplerConfig(engine=engine, memory=0.1, max_sequences=8),  # type: ignore[arg-type]
        sampling=SamplingConfig(max_new_tokens=30),
    )


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if not family.refused])
async def test_the_torch_engine_computes_a_family_or_refuses_it_before_it_starts(
    name: str, tmp_path: Path, reference: Callable[..., torch.Tensor]
) -> None:
    model = make_model(name, tmp_path)
    if name not in IN_TORCH:
        with pytest.raises(DataError, match=r'the torch engine does not compute .* set sampler\.engine = "vllm"'):
            check_engine(run(), model, 20)
        if has_vllm():
            assert choose_engine(run("auto"), model)[0] == "vllm"
        return
    assert check_engine(run(), model, 20) == ("torch", 128)
    engine = TorchEngine(run(), model, seed=1)
    await engine.start()
    np.testing.assert_allclose(await engine.score(IDS), reference(model, IDS), atol=1e-4)
    other = make_model(name, tmp_path / "other", seed=1)
    await engine.load_weights(other / "model.safetensors", 1)
    np.testing.assert_allclose(await engine.score(IDS), reference(other, IDS), atol=1e-4)
    await engine.close()


@pytest.mark.skipif(not has_vllm() or torch.cuda.is_available(), reason="vllm on a CPU")
def test_latent_attention_is_refused_where_vllm_dies_of_it(tmp_path: Path) -> None:
    model = make_model("deepseek_v3", tmp_path)
    with pytest.raises(DataError, match="does not compute multi-head latent attention"):
        check_engine(run("vllm"), model, 20)


async def test_a_head_that_is_not_the_embedding_is_used_whatever_the_config_says(
    tmp_path: Path, reference: Callable[..., torch.Tensor]
) -> None:
    model = make_model("llama-tied", tmp_path)
    tensors = load_file(model / "model.safetensors")
    assert is_tied(True, tensors)
    assert is_tied(True, tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()})
    tensors["lm_head.weight"] = torch.randn_like(tensors["model.embed_tokens.weight"])
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    engine = TorchEngine(run(), model, seed=1)
    await engine.start()
    np.testing.assert_allclose(await engine.score(IDS), reference(model, IDS), atol=1e-4)
    await engine.load_weights(model / "model.safetensors", 1)
    np.testing.assert_allclose(await engine.score(IDS), reference(model, IDS), atol=1e-4)
    await engine.close()


@pytest.mark.vllm
@pytest.mark.timeout(120)
@pytest.mark.filterwarnings(
    # vLLM leaves its sockets' context to the garbage collector: not ours to close.
    "ignore:Exception ignored in. <function Context.__del__:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.filterwarnings("ignore:Unclosed context:ResourceWarning")
@pytest.mark.skipif(not has_vllm(), reason="vllm is not installed")
@pytest.mark.parametrize("name", ["mixtral", "gemma3"])
async def test_vllm_computes_published_experts_and_windows(
    name: str, tmp_path: Path, reference: Callable[..., torch.Tensor]
) -> None:
    """A version that is published as the learner does it: experts under the names of the checkpoint."""
    from rlsp_async.sampling.vllm_engine import VllmEngine

    model = make_model(name, tmp_path / "model")
    engine = VllmEngine(run("vllm"), model, 3, longest_prompt=50)
    await engine.start()
    try:
        np.testing.assert_allclose(await engine.score(IDS), reference(model, IDS), atol=1e-4)
        for version in (1, 2):
            directory = make_model(name, tmp_path / str(version), seed=version)
            trained: Any = AutoModelForCausalLM.from_pretrained(directory)
            tensors = revert_weight_conversion(trained, {n: p.detach() for n, p in trained.named_parameters()})
            path = tmp_path / f"v{version}.safetensors"
            save_file({n: t.contiguous().clone() for n, t in tensors.items()}, path, metadata={"format": "pt"})
            await engine.load_weights(path, version)
            np.testing.assert_allclose(await engine.score(IDS), reference(directory, IDS), atol=1e-4)
        with pytest.raises(DataError, match=r"temperature 0\.001 is below 0\.01"):
            await engine.generate(IDS[:9], GenerateSettings(max_new_tokens=2, temperature=1e-3))
    finally:
        await engine.close()
