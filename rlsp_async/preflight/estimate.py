"""What follows from the settings, before anything runs: sizes of the model, the buffer, the disk, the processes.

Pure functions of the configuration (and of one config.json); all figures are upper bounds or rough estimates, and say
which. Nothing here loads a model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from rlsp_async.config import RunConfig, StageConfig, SuccessReplayConfig, convert
from rlsp_async.errors import DataError

GIB = float(1 << 30)
COLUMN_BYTES = 12
"""Of one token on the wire and in the journal: id, log-prob and version, 4 bytes each."""
TEXT_BYTES = 5
"""Of one token as text, generously."""
PYTHON_GIB = 0.1
TORCH_GIB = 0.5
VLLM_GIB = 1.3
"""Resident memory of an idle process: hub or verifier; with torch and transformers; both processes of vLLM."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """A decoder's sizes, as config.json has them."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    context: int
    tied: bool

    @property
    def num_parameters(self) -> int:
        """Of a Llama- or Qwen-shaped model; biases and norms of attention left out."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        block = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden
        heads = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return heads + self.layers * block + self.hidden

    @property
    def kv_bytes_per_token(self) -> int:
        """Of the KV cache, at 4 bytes a number."""
        return 2 * self.layers * self.kv_heads * self.head_dim * 4


class ExtraModels(msgspec.Struct, frozen=True, kw_only=True):
    """Number of models that the learner keeps extras the policy, at most at any time (`inputs.extra_models`)."""

    trained: int = 0
    """The trunk of a critic that is "separate"."""
    frozen: int = 0
    """A reference."""
    averaged: int = 0
    """A reference that follows the policy, and stands in every checkpoint."""


NO_EXTRA_MODELS = ExtraModels()


def model_shape(cfg: RunConfig, *, scratch_vocabulary: int = 128) -> Shape | None:
    """Sizes of the run's model, None when its directory is not on this machine.

    Raises DataError when config.json is there and cannot be read.
    """
    scratch = cfg.model.scratch
    if not cfg.model.path:
        return Shape(
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
    if cfg.model.path == "tiny-qwen2":
        return Shape(
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
    return read_shape(Path(cfg.model.path).expanduser() / "config.json")


def read_shape(file: Path) -> Shape | None:
    """The shape in a config.json; None when there is none."""
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        return _shape(table)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DataError(f"{file}: no usable model configuration: {e!r}") from None


def _shape(table: dict[str, Any]) -> Shape:
    heads = int(table["num_attention_heads"])
    hidden = int(table["hidden_size"])
    return Shape(
        vocabulary=int(table["vocab_size"]),
        hidden=hidden,
        layers=int(table["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(table.get("num_key_value_heads") or heads),
        head_dim=int(table.get("head_dim") or hidden // heads),
        intermediate=int(table["intermediate_size"]),
        context=int(table["max_position_embeddings"]),
        tied=bool(table.get("tie_word_embeddings", False)),
    )


# --- the line ------------------------------------------------------------------------------------------------------


def rollouts_per_group(cfg: RunConfig, stage: StageConfig) -> int:
    """A demonstration is a group of one; an imported group has as many as a sampled one, or fewer."""
    return 1 if stage.source == "demonstrations" else cfg.sampling.rollouts


def tokens_per_step(cfg: RunConfig, stage: StageConfig) -> int:
    """At most, response tokens."""
    return stage.groups_per_step * rollouts_per_group(cfg, stage) * cfg.sampling.max_new_tokens


def optimizer_updates(stage: StageConfig) -> int:
    """Over the whole stage."""
    return stage.steps * stage.minibatches * stage.epochs


def slots_lag(stage: StageConfig) -> int:
    """Batches that fit into the slots, less the one in training: target_lag, or more when it is oversampled."""
    return -(-stage.capacity // stage.groups_per_step) - 1


def admitted_lag(stage: StageConfig) -> int:
    """Versions between the oldest token of a group and the step that trains it, as far as admission decides it.

    Groups are issued up to target_lag versions ahead; a version that is not published makes them one older. A group
    that is used more than once may grow as old as max_lag. `max_lag` is the bound that is kept whatever happens.
    """
    if stage.source != "rollouts":
        return 0
    admitted = slots_lag(stage) + max(0, stage.publish_every - 1)
    return stage.max_lag if stage.max_uses > 1 else min(stage.max_lag, admitted)


def group_bytes(cfg: RunConfig, stage: StageConfig) -> int:
    """One group at its largest: columns and text of every rollout, plus its prompt."""
    per_token = COLUMN_BYTES + TEXT_BYTES
    return (rollouts_per_group(cfg, stage) * (cfg.sampling.max_new_tokens * per_token + 200)) + 8192


def batch_bytes(cfg: RunConfig, stage: StageConfig) -> int:
    """One training message at its largest."""
    return stage.groups_per_step * group_bytes(cfg, stage)


def buffer_bytes(cfg: RunConfig, stage: StageConfig) -> int:
    """The hub's buffer at its largest: every slot holds a finished group, and every success is remembered."""
    return stage.capacity * group_bytes(cfg, stage) + success_bytes(cfg, stage)


def success_bytes(cfg: RunConfig, stage: StageConfig) -> int:
    """The memory of successes at its largest."""
    options = convert(stage.success_replay, SuccessReplayConfig, "success_replay") if stage.success_replay else None
    return (
        options.total * (cfg.sampling.max_new_tokens * (COLUMN_BYTES + TEXT_BYTES) + 200)
        if options and options.capacity
        else 0
    )


# --- the machine ---------------------------------------------------------------------------------------------------


def weight_bytes(cfg: RunConfig, shape: Shape) -> int:
    """Of one published version."""
    return shape.num_parameters * (2 if cfg.model.dtype == "bfloat16" else 4)


def checkpoint_bytes(cfg: RunConfig, shape: Shape, extra: ExtraModels = NO_EXTRA_MODELS) -> int:
    """Weights and two moments at 4 bytes each, of the policy and of a critic's trunk; an averaged reference."""
    return shape.num_parameters * (12 * (1 + extra.trained) + 4 * extra.averaged)


def disk_bytes(cfg: RunConfig, shape: Shape, extra: ExtraModels = NO_EXTRA_MODELS) -> int:
    """Of the run directory at its largest, weights in shared memory counted as if they lay there too."""
    weights = weight_bytes(cfg, shape)
    journal = sum(buffer_bytes(cfg, s) * 2 for s in cfg.stages.values())
    return (
        weights * (cfg.learner.keep_weights + 2)
        + checkpoint_bytes(cfg, shape, extra) * (cfg.learner.keep_checkpoints + 1)
        + 4 * shape.num_parameters * extra.frozen * len(cfg.stages)
        + journal
        + (64 << 20)
    )


def learner_gib(cfg: RunConfig, shape: Shape, extra: ExtraModels = NO_EXTRA_MODELS) -> float:
    """Weights, gradients, two moments at 4 bytes (a critic's trunk, too), a reference's weights, and the activations of
    one microbatch (logits twice)."""
    tokens = cfg.learner.tokens_per_microbatch
    block = 2 * shape.hidden if cfg.learner.gradient_checkpointing else 14 * shape.hidden + 4 * shape.intermediate
    activations = tokens * 4 * (shape.layers * block + 2 * shape.vocabulary)
    state = shape.num_parameters * (16 * (1 + extra.trained) + 4 * extra.frozen)
    return TORCH_GIB + (state + activations) / GIB


def sampler_gib(cfg: RunConfig, shape: Shape, *, vllm: bool) -> float:
    """Weights (twice while a version is loaded) and, on the CPU, the KV cache."""
    base = VLLM_GIB if vllm else TORCH_GIB
    rows = min(cfg.sampler.max_sequences, cfg.sampler.groups_in_flight * cfg.sampling.rollouts)
    cache = cfg.sampler.memory if vllm else rows * cfg.sampling.max_new_tokens * shape.kv_bytes_per_token / GIB
    return base + cache + 2 * weight_bytes(cfg, shape) / GIB


def num_processes(cfg: RunConfig) -> dict[str, int]:
    """Processes by role; one vLLM engine is two."""
    needs_sampler = cfg.evaluation.prompts > 0 or any(s.source == "rollouts" for s in cfg.stages.values())
    engine = 1 if cfg.sampler.engine in ("torch", "scripted") else 2
    return {
        "supervisor": 1,
        "replay": 1,
        "learner": 1,
        "sampler": cfg.sampler.count * engine if needs_sampler else 0,
        "verifier": cfg.verifier.count * (1 + cfg.verifier.processes) if needs_sampler else 0,
    }
