"""The environment and the arguments with which vLLM runs, on a CPU and on a GPU.

CPU: two processes (front and engine) with one OpenMP thread each, eager mode, nothing compiled. The engine is forked
from the front, which has imported everything already, and starts in 3 to 7 seconds instead of 20.
GPU: vLLM's own defaults (CUDA graphs, asynchronous scheduling), one process for each GPU under tensor parallelism. The
engine is spawned, not forked: a process that has asked torch for its CUDA devices cannot use CUDA after a fork. The KV
cache has a computed size, because vLLM's own measurement counts what a learner on the same card allocates meanwhile.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, NamedTuple

from rlsp_async.config import LoraConfig, RunConfig, load_lora
from rlsp_async.errors import ConfigError
from rlsp_async.model.adapter import num_values
from rlsp_async.model.info import ModelInfo, window_tokens

CPU_BLOCK_TOKENS = 32
"""Tokens of a block of the KV cache on a CPU."""
LOWEST_TEMPERATURE = 0.01
"""Below it vLLM samples at 0.01 without a word (SamplingParams), and reports log-probs of that distribution."""

PREFILL_TOKENS = 16384
PREFILL_TOKENS_SHARED = 8192
"""Tokens of one engine step on a card of its own, and on a card that a learner shares. vLLM's default, 2,048, cuts the
prompts of a few groups into many steps."""
ENGINE_GIB = 3.0
"""Estimate of what vLLM holds on a card beside weights, KV cache and logits: context and graphs 1, activations 2."""

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks for which vLLM makes room."""
FRONT_PID = "RLSP_FRONT_PID"
"""Variable with the process id of the sampler. A spawned engine reads it as soon as it imports the extension, minutes
before it answers its first call, and ends when that process ends."""

_QUIET = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "TQDM_DISABLE": "1"}


def set_environment(cpu: bool, threads: int) -> None:
    """Sets what vLLM reads from the environment. Call before the first import of vllm."""
    os.environ.update(_QUIET)
    os.environ[FRONT_PID] = str(os.getpid())
    # On a GPU vLLM only warns about layers whose weights it did not find when it loads a version.
    os.environ["VLLM_LOGGING_LEVEL"] = "ERROR" if cpu else "WARNING"
    logging.getLogger("torch._library.triton").setLevel(logging.ERROR)  # "Triton not available", on every CPU
    if cpu:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # allows the "uni" executor: no third, spinning process
        os.environ["TORCH_COMPILE_DISABLE"] = "1"  # else the first log-probs compile C++ for seconds
        os.environ["OMP_NUM_THREADS"] = str(threads)
    else:
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
        os.environ["VLLM_USE_FLASHINFER_SAMPLER"] = "0"  # never used with processed log-probs; would want a compiler


def engine_arguments(
    cfg: RunConfig, model_dir: Path, info: ModelInfo, seed: int, cpu: bool, longest_prompt: int | None = None
) -> dict[str, Any]:
    """Keyword arguments of AsyncEngineArgs; `weight_transfer_config` and the extension come on top.

    On a GPU `gpu_arguments` comes on top, too.
    """
    common: dict[str, Any] = {
        "model": str(model_dir),
        "skip_tokenizer_init": True,
        "dtype": cfg.model.dtype,
        "seed": seed,
        "max_model_len": window(cfg, info, cpu, longest_prompt),
        "max_num_seqs": cfg.sampler.max_sequences,
        "logprobs_mode": "processed_logprobs",  # of the distribution at the temperature: the behaviour log-probs
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "tensor_parallel_size": cfg.sampler.tensor_parallel,
    }
    if cpu:
        return common | {
            "enforce_eager": True,
            "distributed_executor_backend": "uni",
            "kv_cache_memory_bytes": _cache_bytes(cfg),
            "block_size": CPU_BLOCK_TOKENS,
        }
    return common


def lora_arguments(lora: LoraConfig, layers: list[str]) -> dict[str, Any]:
    """Keyword arguments of AsyncEngineArgs for one adapter.

    Args:
        lora: its rank.
        layers: names of the adapted layers. They are named, because vLLM would give the output head one, too.
    """
    return {
        "enable_lora": True,
        "max_loras": 1,
        "max_lora_rank": room_for_rank(lora.rank),
        "lora_target_modules": sorted({name.rpartition(".")[2] for name in layers}),
    }


def room_for_rank(rank: int) -> int:
    """The smallest of vLLM's ranks that holds an adapter of this rank."""
    return next(room for room in LORA_RANKS if room >= rank)


def gpu_arguments(cfg: RunConfig, info: ModelInfo, card_bytes: int, shared: bool) -> dict[str, Any]:
    """Keyword arguments of AsyncEngineArgs that depend on the card.

    Args:
        cfg: the run.
        info: its model.
        card_bytes: memory of one card.
        shared: whether a learner uses the same card.

    Raises:
        ConfigError: `sampler.memory` is no share of a card, or leaves no KV cache for one sequence.
    """
    refuse_no_share(cfg)
    return {
        "gpu_memory_utilization": cfg.sampler.memory,  # vLLM starts only where as much is free
        "kv_cache_memory_bytes": card_cache_bytes(cfg, info, card_bytes),
        "max_num_batched_tokens": PREFILL_TOKENS_SHARED if shared else PREFILL_TOKENS,
    }


def refuse_no_share(cfg: RunConfig) -> None:
    """Raises ConfigError when `sampler.memory`, which is GiB on a CPU, is not the share of a GPU."""
    if cfg.sampler.memory >= 1:
        raise ConfigError(
            f"sampler.memory = {cfg.sampler.memory:g}: on a GPU it is the share of the card's memory for vLLM, below 1 "
            "(GiB on a CPU only): set it to about 0.85 for a card of the sampler's own, 0.35 for one that the learner "
            "shares"
        )


class CardNeeds(NamedTuple):
    """Bytes of one card that vLLM needs beside the KV cache, and those of the KV cache of one sequence."""

    weights: int
    """Weights, and the room for an adapter."""
    logits: int
    """Logits and log-probs of a step: three float32 copies of [max_sequences, vocabulary]."""
    engine: int
    sequence: int
    """KV cache of `sampling.max_new_tokens`."""


def card_needs(cfg: RunConfig, info: ModelInfo) -> CardNeeds:
    """What vLLM needs of one card.

    Args:
        cfg: the run.
        info: its model.
    """
    ranks, value_bytes = cfg.sampler.tensor_parallel, 4 if cfg.model.dtype == "float32" else 2
    lora = load_lora(cfg.model)
    adapters = num_values(info, lora, room_for_rank(lora.rank)) if lora else 0  # vLLM splits half of them over ranks
    return CardNeeds(
        weights=info.num_parameters * value_bytes // ranks + adapters * value_bytes,
        logits=3 * 4 * cfg.sampler.max_sequences * info.vocabulary,
        engine=int(ENGINE_GIB * 2**30),
        sequence=cfg.sampling.max_new_tokens * info.kv_values_per_token * value_bytes // min(ranks, info.kv_heads),
    )


def card_cache_bytes(cfg: RunConfig, info: ModelInfo, card_bytes: int) -> int:
    """Bytes of the KV cache on one card: the sampler's share less weights, adapters, engine and logits.

    Raises:
        ConfigError: nothing is left for one sequence of `sampling.max_new_tokens`.
    """
    needs = card_needs(cfg, info)
    room = int(cfg.sampler.memory * card_bytes) - needs.weights - needs.logits - needs.engine
    if room < needs.sequence:
        raise ConfigError(
            f"sampler.memory = {cfg.sampler.memory:g} of a card of {card_bytes / 2**30:.0f} GiB leaves "
            f"{room / 2**30:.1f} GiB for the KV cache after weights ({needs.weights / 2**30:.1f}), logits "
            f"({needs.logits / 2**30:.1f}) and engine ({ENGINE_GIB:g}), one sequence needs "
            f"{needs.sequence / 2**30:.2f}: raise sampler.memory or sampler.tensor_parallel, or lower "
            "sampler.max_sequences"
        )
    return room


def why_refused(config: dict[str, Any], info: ModelInfo, cpu: bool) -> str:
    """Why vLLM does not compute a family as the learner does; empty where nothing is known against it.

    What is not known here is found when the sampler starts: it scores the probe of the initial model.

    Args:
        config: the content of config.json.
        info: the model.
        cpu: whether vLLM runs on the CPU.
    """
    sliding = config.get("sliding_window")
    is_windowed = type(sliding) is int and sliding < info.context
    layers, windowed_from = info.layers, config.get("max_window_layers")
    if cpu and config.get("kv_lora_rank"):
        return "vLLM does not compute multi-head latent attention (kv_lora_rank in config.json) on a CPU"
    if info.kind == "phimoe":
        return "vLLM does not run the router of 'phimoe'"
    if info.kind == "cohere2" and is_windowed:
        return "vLLM's sliding windows of 'cohere2' are one token longer than those that are trained"
    is_partial = type(windowed_from) is int and 0 < windowed_from < layers
    if info.kind.startswith("qwen2") and is_windowed and config.get("use_sliding_window") and is_partial:
        return f"vLLM computes no {info.kind!r} whose sliding windows begin at layer {windowed_from} of {layers}"
    return ""


def why_no_adapters(config: dict[str, Any], targets: set[str], cpu: bool) -> str:
    """Why vLLM does not compute adapters of a family as the learner does; empty where nothing is known against it.

    Args:
        config: the content of config.json.
        targets: the last parts of the names of the adapted layers.
        cpu: whether vLLM runs on the CPU.
    """
    kind = str(config.get("model_type"))
    experts = [key for key, value in config.items() if "experts" in key and isinstance(value, int) and value > 1]
    if cpu and experts:
        return f"vLLM on a CPU does not compute a mixture of experts ({experts[0]} in config.json) beside an adapter"
    unknown = targets.intersection({"glm4": {"gate_up_proj"}, "gpt_bigcode": {"c_attn"}}.get(kind, ()))
    if unknown:
        rest = ", ".join(f'"{name}"' for name in sorted(targets - unknown))
        return f"vLLM has no adapter for {min(unknown)} of {kind!r}: set model.lora.targets = [{rest}]"
    return ""


def window(cfg: RunConfig, info: ModelInfo, cpu: bool, longest_prompt: int | None = None) -> int:
    """Most tokens of prompt and completion together.

    On a GPU: the longest prompt and its response, as far as the model's own window goes. On a CPU, where the size of
    the KV cache is a setting: everything that the cache holds, as far as the model's own window goes.

    Args:
        cfg: the run.
        info: its model.
        cpu: whether vLLM runs on the CPU.
        longest_prompt: tokens of the longest prompt; None when it is not known.

    Raises:
        ConfigError: the KV cache holds less than the longest prompt and its response.
    """
    tokens = window_tokens(cfg, info, longest_prompt)
    if not cpu:
        return tokens
    value_bytes = 4 if cfg.model.dtype == "float32" else 2
    room = _cache_bytes(cfg) // (info.kv_values_per_token * value_bytes) // CPU_BLOCK_TOKENS * CPU_BLOCK_TOKENS
    needed = tokens if longest_prompt is not None else min(info.context, cfg.sampling.max_new_tokens + 1)
    if room < needed:
        raise ConfigError(
            f"sampler.memory = {cfg.sampler.memory} GiB holds {room} tokens of KV cache, one sequence "
            f"may have {needed}: raise sampler.memory or lower sampling.max_new_tokens"
        )
    return min(info.context, room)


def _cache_bytes(cfg: RunConfig) -> int:
    return int(cfg.sampler.memory * 2**30)
