"""Training through adapters (LoRA): peft's layers in the model, which alone are trained, published and kept.

    add_adapters(model, lora, seed)      the model's own weights are frozen; A is random by the seed, B is zero
    adapter_parameters(model)            A and B of each layer under the names of peft's adapter files, in float32
    holding(model, tensors)              while a block runs, the adapters have other values: a reference policy needs no
                                         second model
    merged(model)                        while a block runs, the model is a plain one with W + (alpha / rank) B A

The adapters of a float32 and of a bfloat16 model are float32: a step of 1e-6 vanishes in bfloat16.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rlsp_async.algos.base import AlgorithmConfig
from rlsp_async.config import LoraConfig
from rlsp_async.errors import ConfigError, DataError
from rlsp_async.files import readable, replace_file, sha256, sync
from rlsp_async.model import weight_files
from rlsp_async.model.adapter import CONFIG, PREFIX, WEIGHTS, Pair, adapter_config, add_pair, choose_layers

ADAPTER = "default"
"""The name that peft gives the only adapter of a model."""
DIRECTORY = "adapter"
"""Directory of the adapter beside an exported model."""


def add_adapters(model: Any, lora: LoraConfig, seed: int, where: str) -> None:
    """Puts an adapter into each chosen linear layer, and freezes everything else.

    Args:
        model: a causal language model of transformers; changed in place. It computes what it computed before.
        lora: rank, alpha and targets.
        seed: what the random numbers of A are made of.
        where: the model's directory, for errors.

    Raises:
        ConfigError: a target is not there.
    """
    import peft

    layers = choose_layers(model, lora.targets, where)
    config = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=layers, lora_dropout=0.0, bias="none")
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):  # peft draws A from torch's own generator, whose state a checkpoint has
        peft.inject_adapter_in_model(config, model)
    generator = torch.Generator().manual_seed(seed % 2**63)
    for name, parameter in adapter_parameters(model).items():
        parameter.data = parameter.data.float()
        if name.endswith("lora_A.weight"):
            bound = 1 / math.sqrt(parameter.shape[1])  # nn.Linear's own, and peft's
            drawn = torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator)
            parameter.data.copy_(drawn)
        parameter.requires_grad_(True)


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of the adapters under their names in peft's files; empty for a model without adapters."""
    ends = (f".lora_A.{ADAPTER}.weight", f".lora_B.{ADAPTER}.weight")
    return {
        PREFIX + name.replace(f".{ADAPTER}.weight", ".weight"): parameter
        for name, parameter in model.named_parameters()
        if name.endswith(ends)
    }


@contextlib.contextmanager
def holding(adapters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Lets adapters have other values while the block runs, without a copy. No gradient may be pending.

    Args:
        adapters: parameters by name.
        tensors: a value for each.
    """
    own = {name: parameter.data for name, parameter in adapters.items()}
    try:
        for name, parameter in adapters.items():
            parameter.data = tensors[name]
        yield
    finally:
        for name, parameter in adapters.items():
            parameter.data = own[name]


@contextlib.contextmanager
def merged(model: Any) -> Iterator[None]:
    """Makes the model a plain one while the block runs: each adapted layer has the sum, made in float32, as its weight.

    The sum is rounded to the model's type once. Afterwards the weights are the same objects with the same bits. A model
    without adapters is left alone.
    """
    taken: list[tuple[Any, str, Any, Tensor]] = []
    try:
        for parent, name, layer in _adapted(model):
            weight, pair = layer.base_layer.weight, Pair(*_factors(layer))
            taken.append((parent, name, layer, weight.data))
            weight.data = add_pair(weight.data, pair, layer.scaling[ADAPTER]).to(weight.dtype)
            setattr(parent, name, layer.base_layer)
        yield
    finally:
        for parent, name, layer, own in taken:
            layer.base_layer.weight.data = own
            setattr(parent, name, layer)


def _adapted(model: Any) -> list[tuple[Any, str, Any]]:
    """(parent, name in it, layer) of every layer with an adapter."""
    return [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if ADAPTER in getattr(child, "lora_A", ())
    ]


def _factors(layer: Any) -> tuple[Tensor, Tensor]:
    return layer.lora_A[ADAPTER].weight.data, layer.lora_B[ADAPTER].weight.data


def write_adapter(directory: Path, tensors: Mapping[str, Tensor], lora: LoraConfig, base: Path) -> None:
    """Writes adapters as a directory that `PeftModel.from_pretrained` and vLLM load, into a directory that exists.

    Args:
        directory: where the two files are written; made if it is missing.
        tensors: the adapters under peft's names.
        lora: rank and alpha.
        base: directory of the model that they belong to.

    Raises:
        OSError: the disk refuses.
    """
    from msgspec import json

    directory.mkdir(exist_ok=True)
    host = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    save_file(host, directory / WEIGHTS, metadata={"format": "pt"})
    layers = [name.rpartition(".lora_")[0] for name in tensors]
    content = json.format(json.encode(adapter_config(lora, layers, str(base.resolve()))), indent=2)
    replace_file(directory / CONFIG, content, durable=False)
    readable(directory)
    for path in directory.iterdir():
        sync(path)


def describe_base(model_dir: Path) -> dict[str, str]:
    """Path and SHA-256 of the weights that adapters belong to, for a checkpoint that does not hold them."""
    digests = {path.name: sha256(path) for path in weight_files(model_dir)}
    return {"path": str(model_dir.resolve()), **{f"sha256/{name}": digest for name, digest in digests.items()}}


def require_base(saved: Mapping[str, str], now: Mapping[str, str], run_dir: Path) -> None:
    """Raises DataError when adapters were trained on other weights than those that are loaded.

    Args:
        saved: `describe_base` when the checkpoint was made.
        now: `describe_base` of the model that is loaded.
        run_dir: the run's directory, for the error.
    """
    files = {name for name in {**saved, **now} if name != "path" and saved.get(name) != now.get(name)}
    if files:
        raise DataError(
            f"{run_dir}: the adapters of its checkpoint belong to the weights of {saved.get('path')}, and "
            f"{min(files).removeprefix('sha256/')} of {now.get('path')} has other bytes: put the model back, or give "
            "the run another name to begin again"
        )


def refuse(options: AlgorithmConfig, where: str) -> None:
    """Raises ConfigError for an algorithm that would need a second copy of all weights.

    Args:
        options: the algorithm's options.
        where: the stage's place in the settings, e.g. "stages.rlsp".
    """
    if options.critic == "separate":
        raise ConfigError(
            f'{where}: critic = "separate" trains a second trunk, and with model.lora nothing but adapters is trained: '
            'take critic = "head" or "head_detached"'
        )
    if options.reference_ema:
        raise ConfigError(
            f"{where}: reference_ema averages weights, and the average of two adapters B A is no adapter of their "
            "rank: set reference_ema to 0, or take model.lora out"
        )
