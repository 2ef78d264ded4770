"""Adapters (LoRA): which layers have one, what their files are called, and the sum with the weights that they adapt.

An adapter of a linear layer with weight W [out, in] is A [rank, in] and B [out, rank], and the layer computes with

    W + (alpha / rank) B A                                                        (LoRA, arXiv:2106.09685, section 4.1)

The names of tensors, files and settings are those of peft, so that peft and vLLM read what is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rlsp_async.config import LoraConfig, convert
from rlsp_async.errors import ConfigError, DataError
from rlsp_async.model.info import ModelInfo, read_json

if TYPE_CHECKING:
    from torch import Tensor, nn

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""How peft begins the name of every tensor of an adapter."""
FACTORS = ("lora_A.weight", "lora_B.weight")
LLAMA_TARGETS = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
"""The linear layers of a block of Llama, Qwen2, Qwen3 and Mistral."""
ROUTERS = ("gate", "router", "shared_expert_gate")
"""Linear layers that choose or weigh experts; they get an adapter only when `targets` names them."""


_UNSUPPORTED = (
    *("use_dora", "use_rslora", "lora_bias", "modules_to_save", "rank_pattern", "alpha_pattern"),
    *("layer_replication", "fan_in_fan_out", "target_parameters", "trainable_token_indices"),
)
_PLAIN = {"peft_type": "LORA", "bias": "none"}
"""What peft can do beside B A: settings that must be empty, and settings that must have these values."""


class Pair(NamedTuple):
    """The two factors of one layer's adapter."""

    a: Tensor
    """[rank, in]"""
    b: Tensor
    """[out, rank]"""


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of the decoder's blocks by their full names; embedding and output head are not among them."""
    from torch import nn

    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and re.search(r"\.\d+\.", name)
    }


def choose_layers(model: nn.Module, targets: list[str], where: str) -> list[str]:
    """The full names of the layers that get an adapter.

    Args:
        model: a causal language model without adapters.
        targets: the last parts of their names; empty: all linear layers of the blocks but the routers.
        where: the model's directory, for errors.

    Raises:
        ConfigError: a target is not there, or the model has no linear layer that could get an adapter.
    """
    layers = linear_layers(model)
    there = {name.rpartition(".")[2] for name in layers}
    default = there.difference(ROUTERS)
    if not default:
        raise ConfigError(f"model.lora: the blocks of {where} have no linear layer; take model.lora out")
    check_targets(targets, there, where)
    wanted = set(targets) or default
    return [name for name in layers if name.rpartition(".")[2] in wanted]


def check_targets(targets: list[str], there: set[str], where: str) -> None:
    """Raises ConfigError for a target that a model does not have; the sentence names those that it has."""
    if odd := sorted(set(targets) - there):
        raise ConfigError(
            f"model.lora.targets: the blocks of {where} have no linear layer {', '.join(odd)}; there is "
            f"{', '.join(sorted(there))}"
        )


def empty_model(model_dir: Path) -> Any:
    """The model of a directory without weights (on torch's "meta" device), to look at its layers. Raises DataError."""
    import torch
    from transformers import AutoModelForCausalLM

    from rlsp_async.model.create import reason, transformers_config

    config = transformers_config(model_dir)
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except Exception as e:  # translated: whatever a model's code raises, its layers cannot be named
        raise DataError(f"{model_dir}: no causal language model that transformers builds: {reason(e)}") from e


def num_values(info: ModelInfo, lora: LoraConfig, rank: int = 0) -> int:
    """Number of values of all adapters, from the sizes of a model whose blocks are Llama's.

    Args:
        info: the sizes. Experts get no adapter, so that a mixture has fewer.
        lora: rank and targets; a target that is not one of Llama's counts as the widest layer.
        rank: another rank than that of the settings; 0: that one.
    """
    queries, keys = info.heads * info.head_dim, info.kv_heads * info.head_dim
    ends = {
        "q_proj": info.hidden + queries,
        "k_proj": info.hidden + keys,
        "v_proj": info.hidden + keys,
        "o_proj": info.hidden + queries,
        **dict.fromkeys(("gate_proj", "up_proj", "down_proj"), info.hidden + info.intermediate),
        "qkv_proj": info.hidden + queries + 2 * keys,
        "gate_up_proj": info.hidden + 2 * info.intermediate,
    }
    width = sum(ends.get(name, info.hidden + 2 * info.intermediate) for name in lora.targets or LLAMA_TARGETS)
    return info.layers * (rank or lora.rank) * width


def adapter_config(lora: LoraConfig, layers: list[str], base: str = "") -> dict[str, Any]:
    """The content of adapter_config.json.

    Args:
        lora: rank and alpha.
        layers: full or last names of the adapted layers.
        base: directory of the model that the adapter belongs to.
    """
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": int(lora.alpha) if lora.alpha.is_integer() else lora.alpha,
        "target_modules": sorted({name.rpartition(".")[2] for name in layers}),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def tensor_names(layers: list[str]) -> list[str]:
    """The names of the tensors of these layers' adapters."""
    return [f"{PREFIX}{layer}.{factor}" for layer in layers for factor in FACTORS]


def is_adapter(directory: Path) -> bool:
    """Whether a directory holds an adapter, and no model."""
    return (directory / CONFIG).is_file() and not (directory / "config.json").is_file()


def read_adapter(directory: Path) -> tuple[Path, LoraConfig]:
    """The base model of an adapter's directory, and the adapter's rank, alpha and targets.

    Args:
        directory: as peft writes it.

    Raises:
        DataError: the base is not on this machine, or the adapter is more than B A in linear layers.
    """
    from safetensors import SafetensorError, safe_open

    path = directory / CONFIG
    settings = read_json(path)
    odd = [key for key in _UNSUPPORTED if settings.get(key)]
    odd += [key for key, plain in _PLAIN.items() if settings.get(key, plain) != plain]
    if odd:
        raise DataError(f"{path}: {', '.join(odd)} is not computed here; merge the adapter into its model with peft")
    base = Path(str(settings.get("base_model_name_or_path") or ""))
    if not (base / "config.json").is_file():
        raise DataError(
            f"{path}: base_model_name_or_path is {str(base)!r}, and no model directory on this machine; put the "
            "directory of the adapter's base model there"
        )
    try:
        with safe_open(directory / WEIGHTS, "pt") as file:
            layers = {name.rpartition(".lora_")[0] for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as e:
        raise DataError(f"{directory / WEIGHTS}: cannot be read: {e}") from e
    options = {
        "rank": settings.get("r"),
        "alpha": settings.get("lora_alpha"),
        "targets": sorted({name.rpartition(".")[2] for name in layers}),
    }
    try:
        return base, convert(options, LoraConfig, str(path))
    except ConfigError as e:
        raise DataError(str(e)) from None


def read_pairs(tensors: Mapping[str, Tensor]) -> dict[str, Pair]:
    """The adapters of a file by the full names of their layers.

    Raises:
        ValueError: a tensor is no factor of an adapter, or its other factor is missing or of another rank.
    """
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        factor = next((one for one in FACTORS if name.endswith(f".{one}")), "")
        if not name.startswith(PREFIX) or not factor or tensor.ndim != 2:
            raise ValueError(f"tensor {name} {list(tensor.shape)} is no factor of an adapter")
        pairs.setdefault(name.removeprefix(PREFIX).removesuffix(f".{factor}"), {})[factor] = tensor
    for layer, pair in pairs.items():
        if len(pair) != 2 or pair[FACTORS[0]].shape[0] != pair[FACTORS[1]].shape[1]:
            raise ValueError(f"the adapter of {layer} has no two factors of one rank")
    return {layer: Pair(pair[FACTORS[0]], pair[FACTORS[1]]) for layer, pair in pairs.items()}


def add_pair(weight: Tensor, pair: Pair, scale: float) -> Tensor:
    """W + scale B A in float32, [out, in].

    Args:
        weight: W [out, in], of any type.
        pair: A and B.
        scale: alpha / rank.
    """
    return weight.float().addmm(pair.b.float(), pair.a.float(), alpha=scale)
