"""Tiny models with random weights, and the Hugging Face forward pass as the reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from rlsp_async.config import ModelConfig, RunConfig, SamplerConfig, StageConfig
from rlsp_async.messages import Prompt, SampleJob, Sampling

VOCAB = 61


def _sizes(tied: bool, kv_heads: int) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": kv_heads,
        "intermediate_size": 48,
        "vocab_size": VOCAB,
        "max_position_embeddings": 64,
        "tie_word_embeddings": tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "initializer_range": 0.3,
    }


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    """make_model(kind, tied, kv_heads, seed) -> directory of a saved model."""

    def make(kind: str = "llama", tied: bool = True, kv_heads: int = 4, seed: int = 0) -> Path:
        torch.manual_seed(seed)
        if kind == "llama":
            model: Any = LlamaForCausalLM(LlamaConfig(**_sizes(tied, kv_heads), head_dim=16))
        else:
            model = Qwen2ForCausalLM(Qwen2Config(**_sizes(tied, kv_heads)))
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.5)
        directory = tmp_path / f"{kind}-{tied}-{kv_heads}-{seed}"
        model.save_pretrained(directory)
        return directory

    return make


@pytest.fixture
def reference() -> Callable[..., torch.Tensor]:
    """reference(directory, ids, temperature) -> log-probs [N-1] of ids[1:] by Hugging Face's own forward pass."""

    def score(directory: Path, ids: list[int], temperature: float = 1.0) -> torch.Tensor:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, :-1].float() / temperature
        return torch.log_softmax(logits, -1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]

    return score


@pytest.fixture
def make_config() -> Callable[..., RunConfig]:
    """make_config(max_sequences=3) -> settings with one stage; keywords go to the sampler's section."""

    def make(model_dtype: Any = "float32", **sampler: Any) -> RunConfig:
        return RunConfig(
            name="test",
            stages={"only": StageConfig()},
            sampler=SamplerConfig(**sampler),
            model=ModelConfig(dtype=model_dtype),
        )

    return make


@pytest.fixture
def job() -> SampleJob:
    """Three rollouts of one prompt."""
    prompt = Prompt(prompt_id="t/1", task="t", text="2 3", answer="5")
    return SampleJob(group_id=9, prompt=prompt, sampling=Sampling(rollouts=3, max_new_tokens=6), stage="only")
