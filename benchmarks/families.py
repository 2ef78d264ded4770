"""Does every family of models train three steps with each engine? The table of docs/models.md.

    python -m benchmarks.families                    # all of tests/model/families.py; minutes, vLLM on the CPU
    python -m benchmarks.families gemma3 mixtral     # some of them
    python -m benchmarks.families --engine torch
    python -m benchmarks.families --lora             # through adapters of rank 8 in all linear layers of the blocks

Each family is a tiny random model. The engine samples rollouts at temperature 0.7, the learner computes their log-probs
and makes an update, the new weights are published as the learner publishes them, and the engine loads them. Printed:
the largest difference between the log-probs of engine and learner, in nats, over the rollouts of the three steps and
59 tokens that every version scores; or the sentence with which learner or engine refuses the family.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from rlsp_async.config import ModelConfig, RunConfig, SamplerConfig, SamplingConfig, StageConfig, load_lora
from rlsp_async.errors import EngineError, UserError
from rlsp_async.learning import lora, pack, policy, publish
from rlsp_async.sampling.engine import Completion, Engine, GenerateSettings
from rlsp_async.sampling.engines import check_engine, make_engine
from tests.model.families import BASE, FAMILIES, make_model

STEPS, TEMPERATURE, ACCEPTED = 3, 0.7, 1e-4
IDS = np.random.default_rng(3).integers(0, BASE["vocab_size"], 60).astype(np.int32)
PROMPTS = [IDS[:5], IDS[7:30], IDS[31:40], IDS[2:50]]
"""One of them is longer than most tiny windows."""


LORA = {"rank": 8, "alpha": 16.0}


def run_config(engine: str, adapters: dict[str, Any] | None = None) -> RunConfig:
    """Settings for one engine, with `model.lora` if adapters are trained."""
    return RunConfig(
        name="families",
        model=ModelConfig(lora=adapters or {}),
        stages={"only": StageConfig()},
        sampler=SamplerConfig(engine=engine, memory=0.1, max_sequences=8),  # type: ignore[arg-type]
        sampling=SamplingConfig(max_new_tokens=20),
    )


async def three_steps(
    model_dir: Path, engine_name: str, scratch: Path, adapters: dict[str, Any] | None = None
) -> float:
    """Trains a model for three steps on what an engine samples, and publishes each version to the engine.

    Args:
        model_dir: a Hugging Face directory.
        engine_name: vllm or torch.
        scratch: where published versions are written.
        adapters: `model.lora`; None: every weight is trained.

    Returns:
        the largest difference between a log-prob of the engine and that of the learner.

    Raises:
        UserError: learner or engine refuses the model.
        EngineError: the engine died.
    """
    cfg = run_config(engine_name, adapters)
    model = policy.load_model(model_dir)
    publish.try_export(model, model_dir)
    if options := load_lora(cfg.model):
        lora.add_adapters(model, options, 0, str(model_dir))
    made = policy.Policy(model)
    optimizer = torch.optim.AdamW([p for _, p in made.policy_parameters()], lr=3e-2 if adapters else 3e-3)
    check_engine(cfg, model_dir, max(map(len, PROMPTS)))
    engine = make_engine(engine_name, cfg, model_dir, 1, max(map(len, PROMPTS)))
    await engine.start()
    try:
        worst = await _difference_of_scores(engine, made)
        for step in range(1, STEPS + 1):
            settings = GenerateSettings(max_new_tokens=20, temperature=TEMPERATURE)
            drawn = await asyncio.gather(*(engine.generate(ids.tolist(), settings) for ids in PROMPTS))
            if {int(version) for one in drawn for version in one.versions} != {step - 1}:
                raise AssertionError(f"tokens of step {step} are labelled {[one.versions for one in drawn]}")
            row, behaviour_R = packed(drawn)
            out = made.outputs(row, TEMPERATURE)
            worst = max(worst, float((out.logp_R.detach() - behaviour_R).abs().max()))
            advantage_R = torch.where(out.logp_R.detach() > -3, 1.0, -1.0)
            optimizer.zero_grad()
            (-(advantage_R * out.logp_R).mean()).backward()
            optimizer.step()
            await engine.load_weights(write_version(made, scratch, step), step)
            worst = max(worst, await _difference_of_scores(engine, made))
    finally:
        await engine.close()
    return worst


def packed(drawn: list[Completion]) -> tuple[pack.PackedBatch, torch.Tensor]:
    """One row of the prompts' completions, and the engine's log-probs of its response tokens, [R]."""
    total = sum(len(one.token_ids) for one in drawn)
    sequences = pack.Sequences(
        list(PROMPTS),
        [one.token_ids for one in drawn],
        np.concatenate([one.logprobs for one in drawn]),
        np.zeros(total, np.int32),
        np.arange(len(drawn)),
        np.zeros(len(drawn), np.int64),
    )
    row = pack.pack_sequences(sequences, range(len(drawn)))
    return row, torch.from_numpy(sequences.behaviour_N[row.flat_R])


def write_version(made: policy.Policy, directory: Path, version: int) -> Path:
    """The weights, or the adapters, as a published version."""
    path = directory / f"v{version}.safetensors"
    tensors = publish.published_tensors(made)
    save_file({name: t.detach().contiguous().clone() for name, t in tensors.items()}, path, metadata={"format": "pt"})
    return path


async def _difference_of_scores(engine: Engine, made: policy.Policy) -> float:
    expected = np.frombuffer(publish.make_probe(made, IDS).logprobs, np.float32)
    return float(np.abs(await engine.score(IDS.tolist()) - expected).max())


async def _try(name: str, engine: str, adapters: dict[str, Any] | None) -> str:
    """One cell of the table."""
    with tempfile.TemporaryDirectory() as directory:
        model_dir = make_model(name, Path(directory) / "model")
        try:
            worst = await three_steps(model_dir, engine, Path(directory), adapters)
        except UserError as e:
            return f"refused: {str(e).replace(str(model_dir), 'MODEL')}"
        except (EngineError, AssertionError, RuntimeError, ValueError, TypeError) as e:  # and on with the next family
            return f"FAILED: {type(e).__name__}: {(str(e).splitlines() or [''])[0][:300]}"
    return f"{'yes' if worst <= ACCEPTED else 'DIFFERS'}, {worst:.1e}"


def main() -> None:
    """Prints one line for each family and engine."""
    parser = argparse.ArgumentParser(description="every family of models, three steps with each engine")
    parser.add_argument("names", nargs="*", help="families; all of them when none is named")
    parser.add_argument("--engine", choices=("vllm", "torch"), action="append", help="one engine; both by default")
    parser.add_argument("--lora", action="store_true", help="train adapters")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in arguments.names or FAMILIES:
        for engine in arguments.engine or ("torch", "vllm"):
            print(
                f"{name:<22} {engine:<6} {asyncio.run(_try(name, engine, LORA if arguments.lora else None))}",
                flush=True,
            )


if __name__ == "__main__":
    main()
