"""What every inference engine offers, and which one a run takes.

An engine turns prompt ids into completions and swaps its weights while they run: a token's version is that of the
weights that computed its distribution. Log-probs are those of the distribution that was sampled from (logits divided
by the temperature). Implementations: `vllm_engine.py`, `torch_engine.py`, `scripted.py` (tests).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rlsp_async.columns import Floats, Ids
from rlsp_async.config import RunConfig
from rlsp_async.errors import ConfigError, MachineError
from rlsp_async.messages import Finish
from rlsp_async.model.info import count_parameters, read_model_info

VLLM_FROM_PARAMETERS = 5_000_000
"""Below, one decode step is mostly overhead, and the torch engine has several times less of it (TASKS.md 7)."""


@dataclass(frozen=True, kw_only=True)
class GenerateSettings:
    """How one completion is drawn. Example: GenerateSettings(max_new_tokens=200, temperature=0.7, stop_ids=(2,))."""

    max_new_tokens: int
    temperature: float = 1.0
    stop_ids: tuple[int, ...] = ()
    """Any of these ends the completion and is part of it."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One completion of T tokens."""

    token_ids: Ids
    """[T], the stop token included."""
    logprobs: Floats
    """[T], at the sampling temperature."""
    versions: npt.NDArray[np.int32]
    """[T] policy version that sampled each token."""
    finish: Finish


class Engine(Protocol):
    """One model, many completions at once; used by one event loop."""

    name: str
    window: int
    """Most tokens of prompt and completion together."""

    @property
    def version(self) -> int:
        """Policy version that the next token is sampled from."""
        ...

    @property
    def errored(self) -> bool:
        """Dead: every call raises EngineError until the engine is closed and started again."""
        ...

    async def start(self) -> None:
        """Loads the initial model as version 0. Raises DataError, MachineError or EngineError."""
        ...

    async def generate(self, prompt_ids: Sequence[int], settings: GenerateSettings) -> Completion:
        """Samples one completion; cancelling the caller frees its place. Raises EngineError when the engine dies."""
        ...

    async def load_weights(self, path: Path, version: int) -> None:
        """Swaps the weights between two decode steps; running completions go on, on their old KV cache."""
        ...

    async def score(self, ids: Sequence[int]) -> Floats:
        """Log-probs [N-1] at temperature 1 of ids[1:], each given what stands before it."""
        ...

    async def close(self) -> None:
        """Ends it, and what still runs with EngineError. May be called twice."""
        ...


def choose_engine(cfg: RunConfig, model_dir: Path) -> tuple[str, str]:
    """The engine's name, and why. Raises MachineError when vLLM is asked for and not installed."""
    asked = cfg.sampler.engine
    if asked != "auto":
        if asked == "vllm" and not has_vllm():
            raise MachineError(
                'sampler.engine is "vllm" but vllm is not installed: run ./launch/setup.sh (CPU) '
                "or pip install 'rlsp_async[vllm]' (GPU), or set sampler.engine = \"torch\""
            )
        return asked, "sampler.engine asks for it"
    return _choose(count_parameters(model_dir), has_vllm(), has_cuda())


def _choose(num_parameters: int, vllm: bool, cuda: bool) -> tuple[str, str]:
    size = f"{num_parameters / 1e6:.1f} M parameters"
    if not vllm:
        return "torch", "vllm is not installed"
    if cuda:
        return "vllm", "vllm is installed and there is a CUDA device"
    if num_parameters >= VLLM_FROM_PARAMETERS:
        return "vllm", f"{size}, and vllm is installed"
    return "torch", f"{size} without a GPU: below {VLLM_FROM_PARAMETERS / 1e6:.0f} M the torch engine is faster"


def make_engine(name: str, cfg: RunConfig, model_dir: Path, seed: int) -> Engine:
    """An engine that has not been started yet; its library is imported here."""
    if name == "vllm":
        from rlsp_async.sampling.vllm_engine import VllmEngine

        return VllmEngine(cfg, model_dir, seed)
    if name == "torch":
        from rlsp_async.sampling.torch_engine import TorchEngine

        return TorchEngine(cfg, model_dir, seed)
    if name == "scripted":
        from rlsp_async.sampling.scripted import ScriptedEngine

        return ScriptedEngine(seed=seed, window=read_model_info(model_dir).context)
    raise ConfigError(f"sampler.engine {name!r}: there is auto, vllm, torch and scripted")


def has_vllm() -> bool:
    """Whether vLLM can be imported, without importing it."""
    return importlib.util.find_spec("vllm") is not None


def has_cuda() -> bool:
    """Whether torch sees a CUDA device."""
    import torch

    return torch.cuda.is_available()
