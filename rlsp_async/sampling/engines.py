"""The choice of a run's inference engine."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from rlsp_async.config import RunConfig, load_lora
from rlsp_async.cuda import has_cuda
from rlsp_async.errors import ConfigError, DataError, MachineError
from rlsp_async.model import count_parameters, read_config, read_model_info, transformers_config
from rlsp_async.model.adapter import LLAMA_TARGETS, check_targets, choose_layers, empty_model
from rlsp_async.sampling.engine import Engine

VLLM_FROM_PARAMETERS = 5_000_000
"""Without a GPU, vLLM is taken for models of at least this size. A decode step of a smaller model is mostly overhead,
of which the torch engine has several times less."""


def choose_engine(cfg: RunConfig, model_dir: Path) -> tuple[str, str]:
    """Returns the name of the run's engine, and the reason. Raises MachineError when vLLM is wanted and missing."""
    wanted = cfg.sampler.engine
    if wanted != "auto":
        if wanted == "vllm" and not has_vllm():
            raise MachineError(
                'sampler.engine is "vllm" but vllm is not installed: run ./launch/setup.sh (CPU) '
                "or pip install 'rlsp_async[vllm]' (GPU), or set sampler.engine = \"torch\""
            )
        return wanted, "sampler.engine asks for it"
    engine, reason = choose_by_size(count_parameters(model_dir), vllm=has_vllm(), cuda=has_cuda())
    if engine == "torch" and has_vllm() and (odd := _unknown_to_torch(model_dir)):
        return "vllm", odd
    return engine, reason


def check_engine(cfg: RunConfig, model_dir: Path, longest_prompt: int) -> tuple[str, int | None]:
    """Which engine would sample, and its window, without starting it.

    Args:
        cfg: the run.
        model_dir: the initial model.
        longest_prompt: tokens of the longest prompt.

    Returns:
        name and window; the window is None on a machine without the engine's library.

    Raises:
        ConfigError: the settings do not fit the model.
        DataError: the engine does not compute this model.
    """
    if cfg.sampler.engine == "vllm" and not has_vllm():
        return "vllm", None
    name, _ = choose_engine(cfg, model_dir)
    info = read_model_info(model_dir)
    if name == "torch" and (odd := _unknown_to_torch(model_dir)):
        raise DataError(odd)
    if name == "torch" and (lora := load_lora(cfg.model)):
        check_targets(lora.targets, set(LLAMA_TARGETS), str(model_dir))
    if name == "vllm":
        from rlsp_async.sampling.vllm_settings import why_no_adapters, why_refused, window

        if reason := why_refused(read_config(model_dir), info, not has_cuda()):
            raise DataError(f"{model_dir}: {reason}, and the torch engine does not compute it either")
        targets = _targets(cfg, model_dir)
        if targets and (reason := why_no_adapters(read_config(model_dir), targets, not has_cuda())):
            raise DataError(f"{model_dir}: {reason}")
        return name, window(cfg, info, not has_cuda(), longest_prompt)
    return name, info.context


def _targets(cfg: RunConfig, model_dir: Path) -> set[str]:
    """The last parts of the names of the adapted layers; empty without adapters. Raises ConfigError."""
    lora = load_lora(cfg.model)
    layers = choose_layers(empty_model(model_dir), lora.targets, str(model_dir)) if lora else []
    return {name.rpartition(".")[2] for name in layers}


def _unknown_to_torch(model_dir: Path) -> str:
    """Why the torch engine does not compute a model; empty when it does."""
    from rlsp_async.sampling.torch_model import check_family

    config = transformers_config(model_dir)
    try:
        check_family(config, model_dir)
    except DataError as e:
        return str(e)
    return ""


def choose_by_size(num_parameters: int, *, vllm: bool, cuda: bool) -> tuple[str, str]:
    """The rule of `sampler.engine = "auto"`: the engine's name and the reason.

    Args:
        num_parameters: size of the model.
        vllm: vLLM is installed.
        cuda: torch sees a CUDA device.
    """
    size = f"{num_parameters / 1e6:.1f} M parameters"
    if not vllm:
        return "torch", "vllm is not installed"
    if cuda:
        return "vllm", "vllm is installed and there is a CUDA device"
    if num_parameters >= VLLM_FROM_PARAMETERS:
        return "vllm", f"{size}, and vllm is installed"
    return "torch", f"{size} without a GPU: below {VLLM_FROM_PARAMETERS / 1e6:.0f} M the torch engine is faster"


def make_engine(name: str, cfg: RunConfig, model_dir: Path, seed: int, longest_prompt: int | None = None) -> Engine:
    """Makes an engine that has not been started yet; its library is imported here.

    Args:
        name: vllm, torch or scripted.
        cfg: the run.
        model_dir: the initial model.
        seed: seed of its draws.
        longest_prompt: tokens of the longest prompt; None when it is not known.

    Raises:
        ConfigError: there is no such engine, or the settings do not fit the model.
        DataError: the engine does not compute this model.
    """
    if name == "vllm":
        from rlsp_async.sampling.vllm_engine import VllmEngine

        return VllmEngine(cfg, model_dir, seed, longest_prompt)
    if name == "torch":
        from rlsp_async.sampling.torch_engine import TorchEngine

        return TorchEngine(cfg, model_dir, seed)
    if name == "scripted":
        from rlsp_async.sampling.scripted import ScriptedEngine

        return ScriptedEngine(seed=seed, window=read_model_info(model_dir).context)
    raise ConfigError(f"sampler.engine {name!r}: there is auto, vllm, torch and scripted")


def has_vllm() -> bool:
    """Whether vLLM can be imported; it is not imported."""
    return importlib.util.find_spec("vllm") is not None
