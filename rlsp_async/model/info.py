"""What is known of a model without loading it: from its config.json, or from the settings of a run.

read_model_info(run / "model").context    the longest sequence of that model, in tokens
planned_model(cfg).num_parameters         of the model that a run will start from
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec

from rlsp_async.config import RunConfig
from rlsp_async.errors import DataError

TINY_QWEN2 = "tiny-qwen2"
"""The value of `model.path` for a small random Qwen2 model with a byte-level tokenizer."""
PROMPTS = "prompts.json"
"""The file in RUN that holds the longest prompt in tokens: samplers take their window from it."""


MAX_JSON_BYTES = 16_000_000
"""Largest config.json or generation_config.json; released ones have some thousand bytes."""


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of a decoder. Example: ModelInfo(kind="llama", hidden=64, layers=3, heads=2, kv_heads=1, ...)."""

    kind: str = ""
    """`model_type` of config.json."""
    vocabulary: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    """Width of the feed-forward layer; 0 when config.json gives it another name."""
    context: int
    """Longest sequence, in tokens."""
    tied: bool
    """The output head is the embedding."""
    eos_ids: tuple[int, ...] = ()
    """End-of-sequence ids of config.json and generation_config.json together."""

    @property
    def num_parameters(self) -> int:
        """Parameters of a Llama- or Qwen-shaped model; biases and norms of the attention are left out."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        block = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden
        heads = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return heads + self.layers * block + self.hidden

    @property
    def kv_values_per_token(self) -> int:
        """Numbers that one token leaves in the KV cache, all layers together."""
        return 2 * self.layers * self.kv_heads * self.head_dim


TINY = ModelInfo(
    kind="qwen2",
    vocabulary=259,
    hidden=64,
    layers=3,
    heads=2,
    kv_heads=1,
    head_dim=32,
    intermediate=192,
    context=2048,
    tied=False,
)
"""The model that `model.path = "tiny-qwen2"` builds."""


def planned_model(cfg: RunConfig, *, scratch_vocabulary: int = 128) -> ModelInfo | None:
    """The model that a run starts from; None when its directory is not on this machine.

    Args:
        cfg: the run.
        scratch_vocabulary: tokens of a task's own tokenizer, which is not loaded for this.

    Raises:
        DataError: config.json is there and cannot be used.
    """
    if not cfg.model.path:
        scratch = cfg.model.scratch
        return ModelInfo(
            kind="llama",
            vocabulary=scratch_vocabulary,
            hidden=scratch.hidden,
            layers=scratch.layers,
            heads=scratch.heads,
            kv_heads=scratch.heads,
            head_dim=scratch.head_dim,
            intermediate=scratch.intermediate,
            context=scratch.context,
            tied=True,
        )
    if cfg.model.path == TINY_QWEN2:
        return TINY
    directory = Path(cfg.model.path).expanduser()
    if not (directory / "config.json").exists():
        return None
    model = read_model_info(directory)
    if not model.intermediate:
        raise DataError(f"{directory / 'config.json'}: no 'intermediate_size'; a Llama- or Qwen-shaped model is needed")
    return model


def read_model_info(directory: Path) -> ModelInfo:
    """Reads config.json and generation_config.json of a model directory. Raises DataError."""
    config = read_config(directory)
    generation = directory / "generation_config.json"
    eos = _eos_ids(config) | (_eos_ids(_read_json(generation)) if generation.exists() else set())
    try:
        heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
        return ModelInfo(
            kind=str(config.get("model_type", "")),
            vocabulary=int(config["vocab_size"]),
            hidden=hidden,
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            intermediate=int(config.get("intermediate_size") or 0),
            context=longest_sequence(config) or int(config["max_position_embeddings"]),
            tied=bool(config.get("tie_word_embeddings", False)),
            eos_ids=tuple(sorted(eos)),
        )
    except KeyError as e:
        raise DataError(f"{directory / 'config.json'}: no {e.args[0]!r}; a causal language model is needed") from None
    except (TypeError, ValueError, ZeroDivisionError) as e:
        raise DataError(f"{directory / 'config.json'}: no usable model configuration: {e!r}") from None


def longest_sequence(config: dict[str, Any]) -> int | None:
    """Longest sequence that a configuration allows, in tokens; None when it names none. See `longrope_limit`."""
    named = [config.get("max_position_embeddings"), longrope_limit(config)]
    return min((int(tokens) for tokens in named if tokens), default=None)


def longrope_limit(config: dict[str, Any]) -> int | None:
    """Longest sequence, in tokens, that a longrope model (Phi-3 with 128k) treats as it treats a shorter one.

    Beyond that length transformers changes the rotary embedding of the whole row, and vLLM that of all sequences when
    its window is longer. Up to it they are alike. None for other models.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(rope, dict) or (rope.get("rope_type") or rope.get("type")) not in ("longrope", "su"):
        return None
    original = config.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings")
    return int(original) if original else None


def window_tokens(cfg: RunConfig, model: ModelInfo, longest_prompt: int | None) -> int:
    """Tokens of prompt and response together that a run samples at most.

    Args:
        cfg: the run.
        model: its model.
        longest_prompt: tokens of the longest prompt; None when it is not known, and the model's window is the bound.
    """
    if longest_prompt is None:
        return model.context
    return min(model.context, longest_prompt + cfg.sampling.max_new_tokens)


def write_longest_prompt(directory: Path, num_tokens: int) -> None:
    """Writes the longest prompt of a run, in tokens, into its directory; not durable."""
    (directory / PROMPTS).write_text(json.dumps({"longest_prompt_tokens": num_tokens}) + "\n", encoding="utf-8")


def read_longest_prompt(directory: Path) -> int | None:
    """Reads what `write_longest_prompt` wrote; None when nothing was written. Raises DataError for another file."""
    if not (directory / PROMPTS).exists():
        return None
    num_tokens = _read_json(directory / PROMPTS).get("longest_prompt_tokens")
    if type(num_tokens) is not int or num_tokens < 1:
        raise DataError(f"{directory / PROMPTS}: longest_prompt_tokens must be a number of tokens")
    return num_tokens


def read_config(directory: Path) -> dict[str, Any]:
    """The settings in a model directory's config.json. Raises DataError when the file is missing or damaged."""
    if not (directory / "config.json").exists():
        if re.fullmatch(r"step-\d{8}", directory.resolve().name):
            run, step = directory.resolve().parents[1], int(directory.resolve().name[5:])
            raise DataError(
                f"{directory}: is a checkpoint of a run, not a model; `rlsp export-model {run} --step {step}` makes one"
            )
        raise DataError(f"{directory}: has no config.json; give a Hugging Face model directory")
    return _read_json(directory / "config.json")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if (num_bytes := path.stat().st_size) > MAX_JSON_BYTES:
            raise DataError(f"{path}: {num_bytes:,} bytes; a model's configuration has at most {MAX_JSON_BYTES:,}")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror}; a Hugging Face model directory is needed") from None
    except DataError:
        raise
    except ValueError as e:
        raise DataError(f"{path}: no valid JSON: {e}") from None
    except RecursionError:
        raise DataError(f"{path}: no valid JSON: its lists or objects are nested too deep") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: a JSON object is needed")
    return content


def _eos_ids(config: dict[str, Any]) -> set[int]:
    eos = config.get("eos_token_id")
    ids = eos if isinstance(eos, list) else [eos]
    return {one for one in ids if isinstance(one, int) and one >= 0}  # -1 means "none" in some published files
