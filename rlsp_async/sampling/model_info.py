"""What a Hugging Face model directory says about itself, read without loading the weights."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlsp_async.errors import DataError


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """Example: ModelInfo(kind="llama", context=512, num_parameters=217_000, eos_ids=(2,), ...)."""

    kind: str
    """`model_type` of config.json."""
    context: int
    """Longest sequence, tokens."""
    num_parameters: int
    eos_ids: tuple[int, ...]
    """End-of-sequence ids of config.json and generation_config.json together."""
    kv_values_per_token: int
    """Numbers that one token leaves in the KV cache, all layers."""


def read_model_info(model_dir: Path) -> ModelInfo:
    """Reads config.json, generation_config.json and the headers of the safetensors files. Raises DataError."""
    config = _read_json(model_dir / "config.json")
    generation = model_dir / "generation_config.json"
    eos = _eos_ids(config) | (_eos_ids(_read_json(generation)) if generation.exists() else set())
    try:
        heads = config.get("num_key_value_heads") or config["num_attention_heads"]
        head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        return ModelInfo(
            kind=config["model_type"],
            context=int(config["max_position_embeddings"]),
            num_parameters=sum(_num_values(path) for path in sorted(model_dir.glob("*.safetensors"))),
            eos_ids=tuple(sorted(eos)),
            kv_values_per_token=2 * config["num_hidden_layers"] * heads * head_dim,
        )
    except KeyError as e:
        raise DataError(f"{model_dir / 'config.json'}: no {e.args[0]!r}; a causal language model is needed") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror}; a Hugging Face model directory is needed") from None
    except ValueError as e:
        raise DataError(f"{path}: no valid JSON: {e}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: a JSON object is needed")
    return content


def _eos_ids(config: dict[str, Any]) -> set[int]:
    eos = config.get("eos_token_id")
    return set() if eos is None else set(eos) if isinstance(eos, list) else {eos}


def _num_values(path: Path) -> int:
    """Values in a safetensors file, by its header: 8 bytes of length, then JSON."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    except (OSError, ValueError, struct.error) as e:
        raise DataError(f"{path}: no valid safetensors file: {e}") from None
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
