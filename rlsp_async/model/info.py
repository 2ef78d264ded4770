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
from rlsp_async.config.ranges import short
from rlsp_async.errors import DataError
from rlsp_async.model_files import require_regular

TINY_QWEN2 = "tiny-qwen2"
"""The value of `model.path` for a small random Qwen2 model with a byte-level tokenizer."""
PROMPTS = "prompts.json"
"""The file in RUN that holds the longest prompt in tokens: samplers take their window from it."""

_HIDDEN = ("hidden_size", "n_embd", "d_model")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx")
_INTERMEDIATE = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
"""What families call their sizes; the first is the name of most, the others are those of GPT-2, OPT, MPT and Falcon."""
_LARGEST = {"layers": 4_096, "heads": 65_536, "context": 2**24}
"""Bounds of the sizes with which a loop is run; memory bounds the others."""


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
    """Width of the feed-forward layer; four times `hidden` when config.json names none, as GPT-2 has it."""
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
    return read_model_info(directory) if directory.is_dir() else None


def read_model_info(directory: Path) -> ModelInfo:
    """Reads config.json and generation_config.json of a model directory. Raises DataError."""
    config = read_config(directory)
    generation = directory / "generation_config.json"
    eos = _eos_ids(config) | (_eos_ids(read_json(generation)) if generation.exists() else set())
    try:
        return _model_info(config, eos)
    except (TypeError, ValueError) as e:
        raise DataError(f"{directory / 'config.json'}: {e}; a causal language model is needed") from None


def _model_info(config: dict[str, Any], eos: set[int]) -> ModelInfo:
    """Raises ValueError for a size that is missing or cannot be one."""
    kind = config.get("model_type", "")
    heads, hidden = _size(config, _HEADS, "heads"), _size(config, _HIDDEN)
    head_dim = _size(config, ("head_dim",), default=max(1, hidden // heads))
    vocabulary = _size(config, ("vocab_size",))
    context = longest_sequence(config)
    if context is None or context < 1:
        raise ValueError(f"it names no longest sequence ({_CONTEXT[0]}), and this {kind!r} cannot be trained without")
    if context > (most := _LARGEST["context"]):
        raise ValueError(f"its longest sequence of {short(context)} tokens is above {most:,}")
    return ModelInfo(
        kind=str(kind),
        vocabulary=vocabulary,
        hidden=hidden,
        layers=_size(config, _LAYERS, "layers"),
        heads=heads,
        kv_heads=_size(config, ("num_key_value_heads",), default=heads),
        head_dim=head_dim,
        intermediate=_size(config, _INTERMEDIATE, default=4 * hidden),
        context=context,
        tied=bool(config.get("tie_word_embeddings", False)),
        eos_ids=tuple(sorted(token for token in eos if token < vocabulary)),  # no other can be sampled
    )


def _size(config: dict[str, Any], names: tuple[str, ...], what: str = "", default: int | None = None) -> int:
    """The first of several settings that config.json has. Raises ValueError unless it is a whole number above 0."""
    name = next((name for name in names if config.get(name) is not None), "")
    value = config[name] if name else default
    if value is None:
        raise ValueError(f"no {names[0]!r} for model_type {config.get('model_type')!r}")
    if isinstance(value, list) and value:  # one number for each layer: the largest is an upper bound
        value = max((one for one in value if isinstance(one, int)), default=value)
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} = {short(value)} is no whole number above 0")
    if value > (most := _LARGEST.get(what, 2**40)):
        raise ValueError(f"{name} = {short(value)} is above {most:,}")
    return value


def longest_sequence(config: dict[str, Any]) -> int | None:
    """Longest sequence that a configuration allows, in tokens; None when it names none. See `longrope_limit`."""
    context = next((config[name] for name in _CONTEXT if config.get(name)), None)
    named = [context, longrope_limit(config)]
    return min((tokens for tokens in named if type(tokens) is int), default=None)


def longrope_limit(config: dict[str, Any]) -> int | None:
    """Longest sequence, in tokens, that a longrope model (Phi-3 with 128k) treats as it treats a shorter one.

    Beyond that length transformers changes the rotary embedding of the whole row, and vLLM that of all sequences when
    its window is longer. Up to it they are alike. None for other models.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(rope, dict) or (rope.get("rope_type") or rope.get("type")) not in ("longrope", "su"):
        return None
    original = config.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings")
    return original if type(original) is int else None


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
    num_tokens = read_json(directory / PROMPTS).get("longest_prompt_tokens")
    if type(num_tokens) is not int or num_tokens < 1:
        raise DataError(f"{directory / PROMPTS}: longest_prompt_tokens must be a number of tokens")
    return num_tokens


def read_config(directory: Path) -> dict[str, Any]:
    """The settings in a model directory's config.json. Raises DataError when the file is missing or damaged."""
    path = directory / "config.json"
    if not path.exists() and not path.is_symlink():
        raise DataError(f"{directory}: {_what_it_is(directory)}")
    return read_json(path)


def _what_it_is(directory: Path) -> str:
    """What a directory without config.json is, and what to do."""
    if re.fullmatch(r"step-\d{8}", directory.resolve().name):
        run, step = directory.resolve().parents[1], int(directory.resolve().name[5:])
        return f"is a checkpoint of a run, not a model; `rlsp export-model {run} --step {step}` makes one"
    is_adapter = (directory / "adapter_config.json").is_file()
    adapter = ": it holds an adapter (LoRA), which has to be merged into its base model first" if is_adapter else ""
    return f"has no config.json{adapter}; give a Hugging Face model directory"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model directory. Raises DataError."""
    try:
        require_regular(path)
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
    return {one for one in ids if type(one) is int and one >= 0}  # -1 means "none" in some published files
