"""Families of models in the samplers: the torch engine computes some and refuses the rest; vLLM loads published experts.

The learner's side of the same table is in tests/learning/test_families.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.families import three_steps
from rlsp_async.config import ModelConfig, RunConfig, SamplerConfig, SamplingConfig, StageConfig
from rlsp_async.errors import ConfigError, DataError
from rlsp_async.model import read_config, read_model_info
from rlsp_async.sampling.engine import GenerateSettings
from rlsp_async.sampling.engines import check_engine, choose_engine, has_vllm
from rlsp_async.sampling.torch_engine import TorchEngine
from rlsp_async.sampling.torch_model import is_tied
from rlsp_async.sampling.vllm_settings import why_refused
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


TRAINED = [name for name, family in FAMILIES.items() if not family.refused]


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # GPT-BigCode's own
@pytest.mark.parametrize("name", TRAINED)
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
    assert await three_steps(model, "torch", tmp_path) < 1e-4
    engine = TorchEngine(run(), model, seed=1)
    await engine.start()
    np.testing.assert_allclose(await engine.score(IDS), reference(model, IDS), atol=1e-4)
    other = make_model(name, tmp_path / "other", seed=1)
    await engine.load_weights(other / "model.safetensors", 1)
    np.testing.assert_allclose(await engine.score(IDS), reference(other, IDS), atol=1e-4)
    await engine.close()


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
@pytest.mark.skipif(not has_vllm() or torch.cuda.is_available(), reason="vllm on a CPU")
@pytest.mark.parametrize("name", TRAINED)
def test_families_that_vllm_does_not_compute_are_refused_before_it_starts(name: str, tmp_path: Path) -> None:
    model, reason, no_adapters = make_model(name, tmp_path), FAMILIES[name].not_in_vllm, FAMILIES[name].no_adapters
    adapted = msgspec.structs.replace(run("vllm"), model=ModelConfig(lora={"rank": 2}))
    for cfg, refused in ((run("vllm"), reason), (adapted, reason or no_adapters)):
        if not refused:
            assert check_engine(cfg, model, 20)[0] == "vllm"
            continue
        with pytest.raises((DataError, ConfigError), match=refused):
            check_engine(cfg, model, 20)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("cohere2", {"sliding_window": 200}),
        ("qwen2-window", {"max_window_layers": 0, "sliding_window": 9}),
        ("qwen2-window", {"use_sliding_window": False}),
    ],
)
def test_what_is_not_effective_is_not_refused(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    model = make_model(name, tmp_path, **changes)
    assert why_refused(read_config(model), read_model_info(model), cpu=True) == ""


def test_the_page_of_models_says_of_each_family_what_the_tests_say() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    table = page.partition("## Families")[2].partition("\n## ")[0]
    said: dict[str, list[str]] = {}
    for line in (line for line in table.splitlines() if line.startswith("| `")):
        names, _, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        said |= dict.fromkeys((name.strip().strip("`") for name in names.split(",")), cells)
    assert said.keys() == set(TRAINED)
    for name, (engine, adapters) in said.items():
        family = FAMILIES[name]
        assert engine == (f"refused: {family.not_in_vllm}" if family.not_in_vllm else "yes"), name
        expected = f"refused: {family.no_adapters}" if family.no_adapters else "yes"
        assert adapters == ("as without" if family.not_in_vllm else expected), name


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


async def test_vllm_is_not_asked_for_a_temperature_that_it_would_change(tmp_path: Path) -> None:
    from rlsp_async.sampling.vllm_engine import VllmEngine

    engine = VllmEngine(run("vllm"), make_model("llama", tmp_path), 3, longest_prompt=50)
    with pytest.raises(DataError, match=r"temperature 0\.001 is below 0\.01"):
        await engine.generate(IDS[:9], GenerateSettings(max_new_tokens=2, temperature=1e-3))


@pytest.mark.vllm
@pytest.mark.timeout(240)
@pytest.mark.filterwarnings(
    # vLLM leaves its sockets' context to the garbage collector: not ours to close.
    "ignore:Exception ignored in. <function Context.__del__:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.filterwarnings("ignore:Unclosed context:ResourceWarning")
@pytest.mark.skipif(not has_vllm(), reason="vllm is not installed")
@pytest.mark.parametrize("name", ["mixtral", "gemma3", "granitemoe"])
async def test_three_steps_with_vllm(name: str, tmp_path: Path) -> None:
    """Experts, windows and scaled logits; `benchmarks/families.py` does all families of the table."""
    assert await three_steps(make_model(name, tmp_path / "model"), "vllm", tmp_path) < 1e-4
