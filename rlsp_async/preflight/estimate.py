"""What follows from the settings, before anything runs: sizes of the model, the buffer, the disk, the processes.

Pure functions of the configuration and of the model's sizes; all figures are upper bounds or rough estimates, and say
which. Nothing here loads a model.
"""

from __future__ import annotations

import msgspec

from rlsp_async.config import RunConfig, StageConfig, SuccessReplayConfig, convert
from rlsp_async.model import ModelInfo

GIB = float(1 << 30)
COLUMN_BYTES = 12
"""Of one token on the wire and in the journal: id, log-prob and version, 4 bytes each."""
TEXT_BYTES = 5
"""Of one token as text, generously."""
PYTHON_GIB = 0.1
TORCH_GIB = 0.5
VLLM_GIB = 1.3
"""Resident memory of an idle process: hub or verifier; with torch and transformers; both processes of vLLM."""


class ExtraModels(msgspec.Struct, frozen=True, kw_only=True):
    """Number of models that the learner keeps besides the policy, at most at any time (`inputs.extra_models`)."""

    trained: int = 0
    """The trunk of a critic that is "separate"."""
    frozen: int = 0
    """A reference."""
    averaged: int = 0
    """A reference that follows the policy, and stands in every checkpoint."""


NO_EXTRA_MODELS = ExtraModels()


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


def weight_bytes(cfg: RunConfig, shape: ModelInfo) -> int:
    """Of one published version."""
    return shape.num_parameters * (2 if cfg.model.dtype == "bfloat16" else 4)


def checkpoint_bytes(cfg: RunConfig, shape: ModelInfo, extra: ExtraModels = NO_EXTRA_MODELS) -> int:
    """Weights and two moments at 4 bytes each, of the policy and of a critic's trunk; an averaged reference."""
    return shape.num_parameters * (12 * (1 + extra.trained) + 4 * extra.averaged)


def disk_bytes(cfg: RunConfig, shape: ModelInfo, extra: ExtraModels = NO_EXTRA_MODELS) -> int:
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


def learner_gib(cfg: RunConfig, shape: ModelInfo, extra: ExtraModels = NO_EXTRA_MODELS) -> float:
    """Weights, gradients, two moments at 4 bytes (a critic's trunk, too), a reference's weights, and the activations of
    one microbatch (logits twice)."""
    tokens = cfg.learner.tokens_per_microbatch
    block = 2 * shape.hidden if cfg.learner.gradient_checkpointing else 14 * shape.hidden + 4 * shape.intermediate
    activations = tokens * 4 * (shape.layers * block + 2 * shape.vocabulary)
    state = shape.num_parameters * (16 * (1 + extra.trained) + 4 * extra.frozen)
    return TORCH_GIB + (state + activations) / GIB


def sampler_gib(cfg: RunConfig, shape: ModelInfo, *, vllm: bool) -> float:
    """Weights (twice while a version is loaded) and, on the CPU, the KV cache."""
    base = VLLM_GIB if vllm else TORCH_GIB
    rows = min(cfg.sampler.max_sequences, cfg.sampler.groups_in_flight * cfg.sampling.rollouts)
    cache = cfg.sampler.memory if vllm else rows * cfg.sampling.max_new_tokens * 4 * shape.kv_values_per_token / GIB
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
