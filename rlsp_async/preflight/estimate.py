"""Estimates from the settings before anything runs: sizes of buffer, disk and memory, lags, processes.

Pure functions of the settings and of the model's sizes. All figures are upper bounds or rough estimates; each function
says which.
"""

from __future__ import annotations

import msgspec

from rlsp_async.config import RunConfig, StageConfig, SuccessReplayConfig, convert, load_lora
from rlsp_async.model import ModelInfo
from rlsp_async.model.adapter import num_values
from rlsp_async.replay.plan import needs_sampler

GIB = float(1 << 30)
COLUMN_BYTES = 12
"""Bytes of one token on the wire and in the journal: id, log-prob and version, 4 bytes each."""
TEXT_BYTES = 5
"""Upper bound of the bytes of one token as text."""
CHUNK_LOGITS = {"cpu": 1 << 26, "cuda": 1 << 27}
"""Logits that the learner holds at once, by device (`learning.policy.CHUNK_LOGITS`)."""
TORCH_GIB = 0.5
VLLM_GIB = 1.3
"""Resident memory of an idle process with torch and transformers, and of the two processes of vLLM."""


class ExtraModels(msgspec.Struct, frozen=True, kw_only=True):
    """Number of models that the learner keeps besides the policy, at most at any time (`inputs.extra_models`)."""

    trained: int = 0
    """Trunks of a critic: 1 when a stage has `critic = "separate"`."""
    frozen: int = 0
    """Reference policies: 1 when an algorithm needs one."""
    averaged: int = 0
    """Reference policies that follow the policy as an average, and are part of every checkpoint."""


NO_EXTRA_MODELS = ExtraModels()


# --- groups ------------------------------------------------------------------------------------------------------


def rollouts_per_group(cfg: RunConfig, stage: StageConfig) -> int:
    """Rollouts of one group, at most. A demonstration is a group of one."""
    return 1 if stage.source == "demonstrations" else cfg.sampling.rollouts


def tokens_per_step(cfg: RunConfig, stage: StageConfig) -> int:
    """Response tokens of one step, at most."""
    return stage.groups_per_step * rollouts_per_group(cfg, stage) * cfg.sampling.max_new_tokens


def optimizer_updates(stage: StageConfig) -> int:
    """Optimizer updates over the whole stage."""
    return stage.steps * stage.minibatches * stage.epochs


def slots_lag(stage: StageConfig) -> int:
    """Batches that fit into the slots, without the one in training: target_lag, or more with oversampling."""
    return -(-stage.capacity // stage.groups_per_step) - 1


def admitted_lag(stage: StageConfig) -> int:
    """Largest lag that the admission of groups allows: versions from a group's oldest token to its training step.

    Groups are issued up to target_lag versions ahead; each version that is not published makes them one version older.
    A group that is used more than once may become as old as max_lag, which always bounds the lag.
    """
    if stage.source != "rollouts":
        return 0
    admitted = slots_lag(stage) + max(0, stage.publish_every - 1)
    return stage.max_lag if stage.max_uses > 1 else min(stage.max_lag, admitted)


def group_bytes(cfg: RunConfig, stage: StageConfig) -> int:
    """Largest size of one group: columns and text of every rollout, and the prompt."""
    per_token = COLUMN_BYTES + TEXT_BYTES
    return (rollouts_per_group(cfg, stage) * (cfg.sampling.max_new_tokens * per_token + 200)) + 8192


def batch_bytes(cfg: RunConfig, stage: StageConfig) -> int:
    """Largest size of one training message."""
    return stage.groups_per_step * group_bytes(cfg, stage)


def buffer_bytes(cfg: RunConfig, stage: StageConfig) -> int:
    """Largest size of the hub's buffer: every slot holds a finished group, and every success is remembered."""
    return stage.capacity * group_bytes(cfg, stage) + success_bytes(cfg, stage)


def success_bytes(cfg: RunConfig, stage: StageConfig) -> int:
    """Largest size of the remembered successes."""
    options = convert(stage.success_replay, SuccessReplayConfig, "success_replay") if stage.success_replay else None
    return (
        options.total * (cfg.sampling.max_new_tokens * (COLUMN_BYTES + TEXT_BYTES) + 200)
        if options and options.capacity
        else 0
    )


# --- the machine ---------------------------------------------------------------------------------------------------


def weight_bytes(cfg: RunConfig, shape: ModelInfo) -> int:
    """Bytes of all weights of the model."""
    return shape.num_parameters * (2 if cfg.model.dtype == "bfloat16" else 4)


def adapter_values(cfg: RunConfig, shape: ModelInfo) -> int:
    """Number of values of the adapters; 0 when every weight is trained."""
    lora = load_lora(cfg.model)
    return num_values(shape, lora) if lora else 0


def version_bytes(cfg: RunConfig, shape: ModelInfo) -> int:
    """Bytes of one published version: float32 adapters, or all weights."""
    return 4 * adapter_values(cfg, shape) or weight_bytes(cfg, shape)


def checkpoint_bytes(cfg: RunConfig, shape: ModelInfo, extra: ExtraModels = NO_EXTRA_MODELS) -> int:
    """Bytes of one checkpoint.

    Float32 weights and two moments, of the policy and of a critic's trunk, below float32 the weights in their own type,
    too, and an averaged reference. With adapters: theirs alone.
    """
    if adapters := adapter_values(cfg, shape):
        return 12 * adapters
    each = 12 if cfg.model.dtype == "float32" else 14
    return shape.num_parameters * (each * (1 + extra.trained) + 4 * extra.averaged)


def disk_bytes(cfg: RunConfig, shape: ModelInfo, extra: ExtraModels = NO_EXTRA_MODELS) -> int:
    """Largest size of the run directory. Weights in shared memory are counted as well."""
    weights, frozen = version_bytes(cfg, shape), 4 * (adapter_values(cfg, shape) or shape.num_parameters)
    journal = sum(buffer_bytes(cfg, s) * 2 for s in cfg.stages.values())
    return (
        weights * (cfg.learner.keep_weights + 2)
        + checkpoint_bytes(cfg, shape, extra) * (cfg.learner.keep_checkpoints + 1)
        + frozen * extra.frozen * len(cfg.stages)
        + journal
        + (64 << 20)
    )


def learner_gib(cfg: RunConfig, shape: ModelInfo, extra: ExtraModels = NO_EXTRA_MODELS) -> float:
    """Estimate of the memory of one rank of the learner in GiB.

    Counts, of the policy and of a critic's trunk: weights, gradients and two moments, below float32 also float32
    masters, which have the gradients then; a reference's weights. And of one micro-batch: the hidden states of every
    layer (with gradient checkpointing only the inputs of the layers, and one layer in full), and three times the logits
    of a chunk. With adapters: the weights once, weights, gradients and moments of the adapters in float32, a copy for
    a reference; and below float32 the inputs of the adapted layers once more in float32. With several ranks: of the
    float32 masters, their gradients and moments, and of a reference, one part each; one whole layer, and embedding and
    output head, in the type in which the model computes; adapters, and the weights below them, are not shared out.
    """
    value_bytes, adapters = 4 if cfg.model.dtype == "float32" else 2, adapter_values(cfg, shape)
    trained = 16 if value_bytes == 4 else 18
    state = shape.num_parameters * (trained * (1 + extra.trained) + value_bytes * extra.frozen)
    tokens = cfg.learner.tokens_per_microbatch
    layer = tokens * value_bytes * (14 * shape.hidden + 4 * shape.intermediate)
    if adapters:
        state = shape.num_parameters * value_bytes + adapters * (16 + 4 * extra.frozen)
        if value_bytes == 2:
            layer += tokens * 4 * (6 * shape.hidden + shape.intermediate)
    elif (ranks := cfg.learner.ranks) > 1:
        state = shape.num_parameters * (16 * (1 + extra.trained) + 4 * extra.frozen) // ranks
        whole = (1 if shape.tied else 2) * shape.vocabulary * shape.hidden
        state += value_bytes * (whole + (shape.num_parameters - whole) // shape.layers)
    kept = tokens * value_bytes * shape.hidden if cfg.learner.gradient_checkpointing else layer
    activations = shape.layers * kept * (1 + extra.trained) + layer
    chunk = CHUNK_LOGITS["cuda" if cfg.learner.device == "cuda" else "cpu"]
    logits = 3 * 4 * min(chunk, tokens * shape.vocabulary)
    return TORCH_GIB + (state + activations + logits) / GIB


def sampler_gib(cfg: RunConfig, shape: ModelInfo, *, vllm: bool) -> float:
    """Estimate of a sampler's memory in GiB: weights (twice while a version is loaded) and, on a CPU, the KV cache.

    With adapters vLLM keeps the weights once, and the torch engine twice: those of the model and the sums.
    """
    base = VLLM_GIB if vllm else TORCH_GIB
    rows = min(cfg.sampler.max_sequences, cfg.sampler.groups_in_flight * cfg.sampling.rollouts)
    cache = cfg.sampler.memory if vllm else rows * cfg.sampling.max_new_tokens * 4 * shape.kv_values_per_token / GIB
    weights = weight_bytes(cfg, shape)
    both = weights + (2 * version_bytes(cfg, shape) if cfg.model.lora and vllm else weights)
    return base + cache + both / GIB


def num_processes(cfg: RunConfig) -> dict[str, int]:
    """Number of processes by role. One vLLM engine consists of two processes."""
    samples = needs_sampler(cfg)
    engine = 1 if cfg.sampler.engine in ("torch", "scripted") else 2
    return {
        "supervisor": 1,
        "replay": 1,
        "learner": 1,
        "sampler": cfg.sampler.count * engine if samples else 0,
        "verifier": cfg.verifier.count * (1 + cfg.verifier.processes) if samples else 0,
    }
