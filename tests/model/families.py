"""Tiny random models of many families, as people configure them. docs/models.md has the same table.

A family is a name, the `model_type` of transformers and what differs from BASE. Weights are large, so that whatever the
learner leaves out (a window, a cap, a scale) changes log-probs by far more than rounding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

BASE: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_LATENT = {
    "head_dim": None,
    "num_key_value_heads": 2,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
_WINDOWED = ["sliding_attention", "full_attention"]
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "long_factor": [8.0] * 16,
    "short_factor": [1.0] * 16,
    "original_max_position_embeddings": 64,
}


_GPT2 = {
    **dict.fromkeys(("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"), None),
    **dict.fromkeys(("num_key_value_heads", "head_dim", "max_position_embeddings"), None),
    **{"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 128},
}
"""The names that GPT-2 and its relatives have for their sizes."""
_LATENT_IN_VLLM = "multi-head latent attention"
_MIXTURE = "does not compute a mixture of experts"
_NOT_EXCHANGEABLE = "its attention cannot be exchanged"


class Family(NamedTuple):
    """One line of the table."""

    kind: str
    """`model_type` of transformers."""
    changes: dict[str, Any]
    """What differs from BASE; None leaves a setting out."""
    refused: str = ""
    """A part of the sentence with which the learner refuses the model; empty when it trains."""
    not_in_vllm: str = ""
    """A part of the sentence with which vLLM on a CPU is refused; empty when it computes the model."""
    no_adapters: str = ""
    """A part of the sentence with which `model.lora` is refused with vLLM on a CPU; empty when adapters are trained."""


FAMILIES: dict[str, Family] = {
    "llama": Family("llama", {}),
    "llama-tied": Family("llama", {"tie_word_embeddings": True, "attention_bias": True}),
    "mistral": Family("mistral", {"sliding_window": None}),
    "mistral-window": Family("mistral", {"sliding_window": 9}),
    "qwen2": Family("qwen2", {"head_dim": None, "attention_dropout": 0.3}),
    "qwen2-window": Family(
        "qwen2",
        {"head_dim": None, "use_sliding_window": True, "sliding_window": 100, "max_window_layers": 1},
        not_in_vllm="whose sliding windows begin at layer 1 of 2",
    ),
    "qwen3": Family("qwen3", {}),
    "gemma": Family("gemma", {}),
    "gemma2": Family("gemma2", {"sliding_window": 9, "query_pre_attn_scalar": 20}),
    "gemma3": Family("gemma3_text", {"sliding_window": 9, "layer_types": _WINDOWED}),
    "phi": Family("phi", {"head_dim": None, "num_key_value_heads": 2, "resid_pdrop": 0.2, "embd_pdrop": 0.2}),
    "phi3": Family("phi3", {"head_dim": None, "sliding_window": 100, "resid_pdrop": 0.2}),
    "phi3-longrope": Family(
        "phi3", {"head_dim": None, "rope_parameters": _LONGROPE, "original_max_position_embeddings": 64}
    ),
    "phimoe": Family(
        "phimoe",
        {"head_dim": None, "num_local_experts": 4, "sliding_window": 128},
        not_in_vllm="does not run the router of 'phimoe'",
    ),
    "starcoder2": Family("starcoder2", {"head_dim": None, "sliding_window": 9, "residual_dropout": 0.2}),
    "granite": Family(
        "granite",
        {
            "head_dim": None,
            "logits_scaling": 8.0,
            "embedding_multiplier": 12.0,
            "residual_multiplier": 0.22,
            "attention_multiplier": 0.1,
        },
    ),
    "granitemoe": Family(
        "granitemoe",
        {"head_dim": None, "num_local_experts": 4, "num_experts_per_tok": 2, "logits_scaling": 6.0},
        no_adapters=_MIXTURE,
    ),
    "cohere": Family("cohere", {"head_dim": None, "logit_scale": 0.25}),
    "cohere2": Family(
        "cohere2",
        {"logit_scale": 0.25, "sliding_window": 9, "layer_types": _WINDOWED},
        not_in_vllm="are one token longer than those that are trained",
    ),
    "olmo2": Family("olmo2", {"head_dim": None}),
    "olmo3": Family("olmo3", {"head_dim": None, "sliding_window": 9, "layer_types": _WINDOWED}),
    "smollm3": Family("smollm3", {"head_dim": None}),
    "seed_oss": Family("seed_oss", {"residual_dropout": 0.2, "attention_dropout": 0.2}),
    "hyperclovax": Family("hyperclovax", {"logits_scaling": 4.0}),
    "gpt_neox": Family(
        "gpt_neox", {"head_dim": None, "num_key_value_heads": None, "hidden_dropout": 0.2, "attention_dropout": 0.2}
    ),
    "exaone4": Family("exaone4", {"sliding_window": 9, "layer_types": _WINDOWED}),
    "glm4": Family("glm4", {}, no_adapters="has no adapter for gate_up_proj"),
    "qwen2_moe": Family(
        "qwen2_moe", {"head_dim": None, **_EXPERTS, "shared_expert_intermediate_size": 32}, no_adapters=_MIXTURE
    ),
    "qwen3_moe": Family("qwen3_moe", _EXPERTS, no_adapters=_MIXTURE),
    "mixtral": Family(
        "mixtral",
        {"num_local_experts": 4, "router_jitter_noise": 0.5, "sliding_window": 9, "intermediate_size": 64},
        no_adapters=_MIXTURE,
    ),
    "olmoe": Family(
        "olmoe",
        {"head_dim": None, "num_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 64},
        no_adapters=_MIXTURE,
    ),
    "gpt_oss": Family(
        "gpt_oss", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 9}, no_adapters=_MIXTURE
    ),
    "opt": Family(
        "opt",
        {
            **{"head_dim": None, "num_key_value_heads": None, "intermediate_size": None},
            **{"ffn_dim": 96, "word_embed_proj_dim": 64, "dropout": 0.2},
        },
    ),
    "olmo": Family("olmo", {"head_dim": None, "clip_qkv": 0.5}),
    "helium": Family("helium", {}),
    "arcee": Family("arcee", {}),
    "ernie4_5": Family("ernie4_5", {}),
    "gpt2": Family("gpt2", {**_GPT2, "resid_pdrop": 0.2}, no_adapters="have no linear layer"),
    "gpt_bigcode": Family("gpt_bigcode", {**_GPT2, "attn_pdrop": 0.2}, no_adapters="has no adapter for c_attn"),
    "deepseek_v2": Family("deepseek_v2", _LATENT, not_in_vllm=_LATENT_IN_VLLM),
    "deepseek_v3": Family("deepseek_v3", _LATENT, not_in_vllm=_LATENT_IN_VLLM),
    "minicpm3": Family("minicpm3", {**_LATENT, "scale_depth": 1.4, "dim_model_base": 16}, not_in_vllm=_LATENT_IN_VLLM),
    "stablelm": Family("stablelm", {"head_dim": None}, "which its layers do not hand on"),
    "nemotron": Family("nemotron", {}, "which its layers do not hand on"),
    "llama4": Family(
        "llama4_text", {"num_local_experts": 2, "attention_chunk_size": 16}, "layers of type chunked_attention"
    ),
    "qwen3_next": Family("qwen3_next", _EXPERTS, "layers of type linear_attention"),
    "mamba": Family("mamba", {}, "layers of type linear_attention"),
    "doge": Family("doge", {}, "takes a mask or bias of its own"),
    "bloom": Family("bloom", {}, _NOT_EXCHANGEABLE),
    "gptj": Family("gptj", {**_GPT2, "rotary_dim": 16}, _NOT_EXCHANGEABLE),
    "gpt_neo": Family(
        "gpt_neo",
        {"attention_types": [[["global", "local"], 1]], **_GPT2, "hidden_size": 64, "num_layers": 2, "num_heads": 2},
        _NOT_EXCHANGEABLE,
    ),
    "codegen": Family("codegen", {**_GPT2, "n_embd": 128, "n_head": 4, "rotary_dim": 16}, _NOT_EXCHANGEABLE),
    "falcon": Family("falcon", {"head_dim": None}, _NOT_EXCHANGEABLE),
    "mpt": Family("mpt", {**_GPT2, "d_model": 64, "n_layers": 2, "n_heads": 2, "max_seq_len": 128}, _NOT_EXCHANGEABLE),
    "rwkv": Family("rwkv", {"head_dim": None, "context_length": 128}, _NOT_EXCHANGEABLE),
    "xlstm": Family(
        "xlstm", {"head_dim": None, "num_heads": 2, "num_blocks": 2}, "log-probs of packed sequences differ by up to"
    ),
    "bert": Family("bert", {"head_dim": None, "is_decoder": False}, "its attention is not causal"),
    "llama-with-a-window": Family("llama", {"sliding_window": 9}, "which transformers does not apply to 'llama'"),
    "gemma3-bidirectional": Family(
        "gemma3_text",
        {"sliding_window": 9, "layer_types": _WINDOWED, "use_bidirectional_attention": True},
        "its attention is not causal",
    ),
}


def make_model(name: str, directory: Path, seed: int = 0, **changes: Any) -> Path:
    """Saves a random model of a family."""
    from transformers import AutoConfig, AutoModelForCausalLM

    family = FAMILIES[name]
    settings = {**BASE, **family.changes, **changes}
    config = AutoConfig.for_model(family.kind, **{key: value for key, value in settings.items() if value is not None})
    if "sliding_window" in settings and settings["sliding_window"] is None:
        config.sliding_window = None
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith(("bias", "sinks")):
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(directory)
    return directory
