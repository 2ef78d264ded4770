"""Random models and random batches for the trials: no file of anybody is needed.

Sizes: "tiny" on a CPU; on a GPU "small" (0.5B parameters) where a trial is about correctness, "1.5B" where it is about
seconds, both in the shapes of Qwen2.5 with its vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlsp_async import config
from rlsp_async.columns import pack_floats, pack_ints
from rlsp_async.messages import (
    Batch,
    Prompt,
    Rollout,
    RolloutGroup,
    Sampling,
    TrainJob,
    Verdict,
    VerifiedGroup,
)
from rlsp_async.model import tiny_qwen2


class Sizes(NamedTuple):
    """The shape of a Qwen2."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int = 151_936


TINY = Sizes(64, 2, 2, 1, 96, 259)
"""Heads of 32, which vLLM on a CPU needs at least."""
SMALL = Sizes(896, 24, 14, 2, 4864)
LARGE = Sizes(1536, 28, 12, 2, 8960)


def write_model(directory: Path, sizes: Sizes, dtype: str, seed: int = 0, device: str = "cpu") -> Path:
    """A Qwen2 of these sizes with random weights and a byte-level tokenizer, made on `device`; returns its directory.

    Weights are wider than a new model's (0.05), so that its distributions are not flat.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    tiny_qwen2(directory, seed, dtype)
    shape = AutoConfig.from_pretrained(directory)
    shape.update(
        {
            "vocab_size": sizes.vocabulary,
            "hidden_size": sizes.hidden,
            "num_hidden_layers": sizes.layers,
            "num_attention_heads": sizes.heads,
            "num_key_value_heads": sizes.kv_heads,
            "intermediate_size": sizes.intermediate,
            "max_window_layers": sizes.layers,
            "layer_types": ["full_attention"] * sizes.layers,
            "tie_word_embeddings": True,
            "initializer_range": 0.05,
        }
    )
    torch.manual_seed(seed)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(shape, dtype=getattr(torch, dtype))
    model.save_pretrained(directory)
    return directory


def run_config(directory: Path, dtype: str, device: str, **sections: dict[str, Any]) -> config.RunConfig:
    """The settings of a run with one stage "rl" of PPO with a value head, a checkpoint every two steps.

    Args:
        directory: the run's directory is DIRECTORY/run.
        dtype: number format of the model.
        device: the learner's.
        sections: what is added to a section, e.g. sampler={"memory": 0.3}.
    """
    table: dict[str, Any] = {
        "name": "run",
        "runs_dir": str(directory),
        "model": {"dtype": dtype},
        "sampling": {"max_new_tokens": 64},
        "stages": {
            "rl": {
                "steps": 4,
                "minibatches": 2,
                "groups_per_step": 4,
                "algorithm": {"name": "ppo", "options": {"critic": "head"}},
                "optimizer": {"lr": 1e-4},
            }
        },
        "learner": {"device": device, "checkpoint_every": 2, "tokens_per_microbatch": 512},
    }
    for name, more in sections.items():
        table[name] = {**table.get(name, {}), **more}
    return config.convert(table, config.RunConfig, "selftest")


def train_job(
    step: int, vocabulary: int, groups: int = 4, rollouts: int = 4, tokens: int = 32, last: bool = False
) -> TrainJob:
    """A batch of random rollouts of `tokens` / 2 to `tokens` tokens, the same for the same arguments."""
    rng = np.random.default_rng([step, vocabulary])
    return TrainJob(
        batch=Batch(
            stage="rl",
            step=step,
            stage_step=step,
            last_of_stage=last,
            groups=[_group(rng, 1000 * step + number, vocabulary, rollouts, tokens) for number in range(groups)],
        )
    )


def _group(rng: np.random.Generator, number: int, vocabulary: int, rollouts: int, tokens: int) -> VerifiedGroup:
    made, verdicts = [], []
    for index in range(rollouts):
        length = int(rng.integers(tokens // 2, tokens + 1))
        made.append(
            Rollout(
                index=index,
                token_ids=pack_ints(rng.integers(3, vocabulary, length)),
                logprobs=pack_floats(np.full(length, -np.log(vocabulary)) + 0.1 * rng.standard_normal(length)),
                versions=pack_ints(np.zeros(length)),
                text="",
            )
        )
        right = float(index == 0)
        verdicts.append(Verdict(status="correct" if right else "wrong", parts={"correct": right}))
    group = RolloutGroup(
        group_id=number,
        prompt=Prompt(prompt_id=f"p{number}", task="selftest", text="q", answer="a"),
        prompt_ids=pack_ints(rng.integers(3, vocabulary, 8)),
        sampling=Sampling(rollouts=rollouts),
        rollouts=made,
    )
    return VerifiedGroup(group=group, verdicts=verdicts)
