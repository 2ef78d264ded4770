"""Trials of vLLM: its start, its log-probs beside the learner's, versions that change while it samples, its death.

On a GPU vLLM runs other code than on a CPU (its model runner V2, CUDA graphs, asynchronous scheduling), so that tests
on a CPU say nothing of the labels and log-probs there.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlsp_async.columns import Floats
from rlsp_async.config import RunConfig
from rlsp_async.cuda import SHARED_CARD
from rlsp_async.errors import EngineError
from rlsp_async.sampling.engine import Completion, GenerateSettings
from rlsp_async.selftest import made
from rlsp_async.selftest.trials import TrialNote, TrialSite

PROMPT = [5, 6, 7, 8]
MEAN_ERROR = {"float32": 1e-4, "bfloat16": 0.05}
"""Largest mean difference of log-probs between vLLM and the learner."""
NOISE = 0.02
"""Standard deviation of what is added to each weight for the second version."""
NOTICED_S = 60.0
"""Longest time until the completions of a killed engine have ended."""
BEGUN_S = 0.3
"""Completions are decoded for this long before the second version is loaded."""


class Amount(NamedTuple):
    """How much the engine is given."""

    sizes: made.Sizes
    completions: int
    tokens: int


def work_of(site: TrialSite) -> Amount:
    """64 completions of a 0.5B model on a GPU, 8 of a tiny one on a CPU."""
    return Amount(made.SMALL, 64, 400) if site.is_gpu else Amount(made.TINY, 8, 300)


def vllm(site: TrialSite) -> Iterator[TrialNote]:
    """Starts vLLM, compares its log-probs with the learner's, loads a second version while it samples."""
    yield from drained(_vllm(site))


def shared_card(site: TrialSite) -> Iterator[TrialNote]:
    """Sampler and learner on one card; the engine is killed with SIGKILL and starts again beside the learner."""
    os.environ[SHARED_CARD] = "1"
    yield from drained(_shared_card(site))


def drained(findings: AsyncIterator[TrialNote]) -> Iterator[TrialNote]:
    """The findings of an asynchronous trial, each as soon as it is there."""
    with asyncio.Runner() as runner:
        while (finding := runner.run(_next(findings))) is not None:
            yield finding


async def _next(findings: AsyncIterator[TrialNote]) -> TrialNote | None:
    return await anext(findings, None)


def _settings(site: TrialSite, tokens: int) -> RunConfig:
    return made.run_config(
        site.directory,
        site.dtype,
        site.device,
        sampling={"max_new_tokens": tokens},
        sampler={"engine": "vllm", "memory": 0.3, "max_sequences": 64},
        learner={"device": site.device, "weights_dir": str(site.directory / "weights")},
    )


async def _vllm(site: TrialSite) -> AsyncIterator[TrialNote]:
    from rlsp_async.sampling.vllm_engine import VllmEngine

    sizes, count, tokens = work_of(site)
    model = made.write_model(site.directory / "model", sizes, site.dtype, device=site.device)
    engine = VllmEngine(_settings(site, tokens), model, 0, len(PROMPT))
    begun = time.monotonic()
    await engine.start()
    try:
        seconds = time.monotonic() - begun
        method = os.environ.get("VLLM_WORKER_MULTIPROC_METHOD", "")
        yield TrialNote(
            text=f"vLLM started in {seconds:.1f} s, its engine by {method}", figures={"start_seconds": seconds}
        )
        policy = LearnersView(site, model)
        completions, finding = await _sampled(engine, count, tokens)
        yield finding
        yield policy.compared(completions)
        async for each in _second_version(site, engine, policy, completions):
            yield each
    finally:
        await engine.close()


async def _sampled(engine: Any, count: int, tokens: int) -> tuple[list[Completion], TrialNote]:
    settings = GenerateSettings(max_new_tokens=tokens, temperature=1.0)
    begun = time.monotonic()
    done = await asyncio.gather(*(engine.generate(PROMPT, settings) for _ in range(count)))
    rate = sum(len(each.token_ids) for each in done) / (time.monotonic() - begun)
    return list(done), TrialNote(
        text=f"{count} completions of {tokens} tokens at {rate:,.0f} tokens/s", figures={"tokens_per_s": rate}
    )


async def _second_version(
    site: TrialSite, engine: Any, policy: LearnersView, completions: list[Completion]
) -> AsyncIterator[TrialNote]:
    """Loads perturbed weights while completions run; looks at their labels and at what is computed afterwards."""
    ids = [*PROMPT, *completions[0].token_ids.tolist()[:60]]
    before = policy.scored_whole(ids)
    path = policy.perturb(site.directory / "v1.safetensors")
    settings = GenerateSettings(max_new_tokens=work_of(site).tokens, temperature=1.0)
    running = [asyncio.ensure_future(engine.generate(PROMPT, settings)) for _ in range(16)]
    await asyncio.sleep(BEGUN_S)
    begun = time.monotonic()
    await engine.load_weights(path, 1)
    seconds = time.monotonic() - begun
    done = await asyncio.gather(*running)
    mixed = sum(len(set(each.versions.tolist())) == 2 for each in done)
    ordered = all((np.diff(each.versions) >= 0).all() and each.versions[-1] <= 1 for each in done)
    yield TrialNote(
        text=f"a version loaded in {seconds:.2f} s while 16 completions ran; {mixed} of them have tokens of both",
        ok=mixed > 0 and ordered,
        figures={"load_seconds": seconds},
    )
    now = np.asarray(await engine.score(ids))
    right, old = (np.abs(now - scores) for scores in (policy.scored_whole(ids), before))
    yield TrialNote(
        text=f"the probe's log-probs: off by {right.mean():.2g} on average and {right.max():.2g} at most; with the "
        f"weights of the version before it would be {old.mean():.2g} and {old.max():.2g}",
        ok=bool(right.mean() < MEAN_ERROR[site.dtype] and 3 * right.mean() < old.mean()),
        figures={
            "probe_mean": float(right.mean()),
            "probe_max": float(right.max()),
            "old_mean": float(old.mean()),
            "old_max": float(old.max()),
        },
    )


async def _shared_card(site: TrialSite) -> AsyncIterator[TrialNote]:
    from rlsp_async.learning.learner import Learner
    from rlsp_async.sampling.vllm_engine import VllmEngine

    sizes, _, tokens = work_of(site)
    model = made.write_model(site.directory / "model", sizes, site.dtype, device=site.device)
    cfg = _settings(site, tokens)
    engine = VllmEngine(cfg, model, 0, len(PROMPT))
    await engine.start()
    try:
        learner = await asyncio.to_thread(Learner, cfg, model, cfg.directory)
        await asyncio.to_thread(learner.train, made.train_job(1, sizes.vocabulary))
        yield TrialNote(text="a step was trained beside the sampler")
        settings = GenerateSettings(max_new_tokens=tokens, temperature=1.0)
        running = [asyncio.ensure_future(engine.generate(PROMPT, settings)) for _ in range(4)]
        await asyncio.sleep(BEGUN_S)
        os.kill(engine.core_pid, signal.SIGKILL)
        async with asyncio.timeout(NOTICED_S):
            ends = await asyncio.gather(*running, return_exceptions=True)
        noticed = sum(isinstance(end, EngineError) for end in ends)
        yield TrialNote(text=f"{noticed} of 4 completions of a killed engine ended with an error", ok=noticed == 4)
        begun = time.monotonic()
        await engine.close()
        await engine.start()
        seconds = time.monotonic() - begun
        await _sampled(engine, 4, 16)
        await asyncio.to_thread(learner.train, made.train_job(2, sizes.vocabulary))
        await asyncio.to_thread(learner.on_stop)
        yield TrialNote(
            text=f"it came back in {seconds:.1f} s beside the learner, and both went on",
            figures={"restart_seconds": seconds},
        )
    finally:
        await engine.close()


class LearnersView:
    """The learner's own model: what it says of the engine's completions."""

    def __init__(self, site: TrialSite, model: Path) -> None:
        from rlsp_async.learning.policy import Policy, load_model

        self._place = site
        self._policy = Policy(load_model(model, site.dtype, site.device))

    def compared(self, completions: list[Completion]) -> TrialNote:
        """How far the log-probs that the engine reported are from the learner's."""
        theirs = np.concatenate([each.logprobs for each in completions])
        error = np.abs(theirs - self._scored([PROMPT] * len(completions), [each.token_ids for each in completions]))
        mean, largest, most = float(error.mean()), float(error.max()), float(np.quantile(error, 0.99))
        return TrialNote(
            text=f"log-probs of {len(theirs):,} tokens against the learner's: mean {mean:.2g}, 99 % below {most:.2g}, "
            f"at most {largest:.2g}",
            ok=mean < MEAN_ERROR[self._place.dtype],
            figures={"logprob_mean": mean, "logprob_p99": most, "logprob_max": largest},
        )

    def scored_whole(self, ids: Sequence[int]) -> Floats:
        """Log-probs [N-1] of ids[1:]."""
        return self._scored([ids[:1]], [ids[1:]])

    def _scored(self, prompts: Sequence[Sequence[int]], responses: Sequence[Any]) -> Floats:
        from rlsp_async.learning import pack, update

        arrays = [np.asarray(each, dtype=np.int32) for each in responses]
        length = sum(len(each) for each in arrays)
        sequences = pack.Sequences(
            prompts=[np.asarray(each, dtype=np.int32) for each in prompts],
            responses=arrays,
            behaviour_N=np.zeros(length, dtype=np.float32),
            versions_N=np.zeros(length, dtype=np.int32),
            group_B=np.arange(len(arrays)),
            rollout_B=np.zeros(len(arrays), dtype=np.int64),
        )
        schedule = update.UpdateSchedule(
            epochs=1,
            minibatches=1,
            capacity_tokens=8192,
            temperature=1.0,
            seed=(0, 0),
            critic_only=False,
            where="selftest",
        )
        scores = update.score(self._policy, sequences, np.arange(len(arrays)), schedule)
        return np.asarray(scores[0].numpy(), dtype=np.float32)

    def perturb(self, path: Path) -> Path:
        """Adds noise to every weight, and writes the result as a version of the model."""
        import torch
        from safetensors.torch import save_file

        from rlsp_async.learning import publish

        torch.manual_seed(1)
        with torch.no_grad():
            for _, parameter in self._policy.policy_parameters():
                parameter.add_(torch.randn_like(parameter) * NOISE)
        tensors = publish.checkpoint_tensors(self._policy.model)
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
        return path
