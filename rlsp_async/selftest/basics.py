"""Trials for every machine, with and without a GPU: each takes seconds."""

from __future__ import annotations

import asyncio
import importlib.metadata
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rlsp_async.config import RunConfig, StageConfig, TaskConfig
from rlsp_async.messages import VerifyItem, VerifyJob
from rlsp_async.sampling.engine import Engine, GenerateSettings
from rlsp_async.selftest import made
from rlsp_async.selftest.trials import TrialNote, TrialSite

if TYPE_CHECKING:
    from rlsp_async.wire.router import Router

LIBRARIES = ("torch", "vllm", "transformers", "peft", "numpy", "pyzmq", "safetensors", "nvidia-nccl-cu13")
ANSWER_S = 20.0


def facts(site: TrialSite) -> Iterator[TrialNote]:
    """Versions of libraries, cards, driver, how the cards are connected."""
    found = []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    yield TrialNote(text=f"Python {platform.python_version()}, {', '.join(found)}")
    if not site.is_gpu:
        return
    import torch

    for number in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(number)
        figures = {"memory_gib": card.total_memory / 2**30, "capability": card.major + card.minor / 10}
        yield TrialNote(
            text=f"card {number}: {card.name}, {figures['memory_gib']:.0f} GiB, capability {card.major}.{card.minor}",
            figures=figures,
        )
    yield TrialNote(text=f"CUDA {torch.version.cuda} of torch, NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}")  # type: ignore[no-untyped-call]
    for arguments in (("--query-gpu=driver_version,pcie.link.gen.max", "--format=csv,noheader"), ("topo", "-m")):
        yield TrialNote(text=_nvidia(*arguments))


def _nvidia(*arguments: str) -> str:
    """The first lines of what nvidia-smi says."""
    if shutil.which("nvidia-smi") is None:
        return "nvidia-smi is not there"
    done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=30, check=False)
    return " / ".join(line.strip() for line in done.stdout.splitlines()[:3])


def message(site: TrialSite) -> Iterator[TrialNote]:
    """A hub's socket on this machine, and a worker that asks it whether its run goes on."""
    begun = time.monotonic()
    answer = asyncio.run(_asked())
    milliseconds = 1000 * (time.monotonic() - begun)
    yield TrialNote(
        text=f"a hub answered over tcp in {milliseconds:.0f} ms",
        ok=answer == "",
        figures={"milliseconds": milliseconds},
    )


async def _asked() -> str:
    from rlsp_async.wire.knock import Knock
    from rlsp_async.wire.router import Router
    from rlsp_async.wire.sockets import ConnectionLimits

    limits = ConnectionLimits()
    async with Router(limits) as router:
        address = await router.bind("tcp://127.0.0.1:0")
        reading = asyncio.ensure_future(_read(router))
        try:
            return await Knock("selftest-0", lambda: address, limits, give_up_s=ANSWER_S).ask()
        finally:
            reading.cancel()


async def _read(router: Router) -> None:
    async with asyncio.timeout(ANSWER_S):
        while True:
            await router.receive()


def sandbox(site: TrialSite) -> Iterator[TrialNote]:
    """Verifiers judge a right and a wrong program; what graded code cannot do on this machine, as tried out."""
    yield from asyncio.run(_judged())


async def _judged() -> list[TrialNote]:
    from rlsp_async.verifying.pool import VerifierPool

    cfg = RunConfig(name="selftest", stages={"s": StageConfig()}, task=TaskConfig(name="humaneval"))
    test = "def check(candidate):\n    assert candidate(2) == 4\n\ncheck(double)\n"
    items = [
        VerifyItem(prompt="", response=f"```python\ndef double(x):\n    return {body}\n```", answer=test)
        for body in ("2 * x", "x")
    ]
    async with VerifierPool(cfg) as pool:
        verdicts = (await pool.verify(VerifyJob(group_id=0, task="humaneval", items=items))).verdicts
        held = dict(pool.restrictions)
    statuses = [verdict.status for verdict in verdicts]
    open_ = sorted(name.removeprefix("no ") for name, holds in held.items() if not holds)
    shown = f"; this machine does not keep it from: {', '.join(open_)}" if open_ else ""
    return [
        TrialNote(
            text=f"programs, right and wrong: {', '.join(statuses)}; graded code has {', '.join(sorted(held))}{shown}",
            ok=statuses == ["correct", "wrong"],
        )
    ]


def learner(site: TrialSite) -> Iterator[TrialNote]:
    """A tiny model trains four times on one batch; its loss is finite and its weights move."""
    import torch

    from rlsp_async.learning.learner import Learner

    model = made.write_model(site.directory / "model", made.TINY, site.dtype)
    cfg = made.run_config(
        site.directory, site.dtype, site.device, learner={"weights_dir": str(site.directory / "weights")}
    )
    trained = Learner(cfg, model, cfg.directory)
    before = [parameter.detach().clone() for _, parameter in trained.policy.policy_parameters()]
    begun = time.monotonic()
    report = trained.train(made.train_job(1, made.TINY.vocabulary))
    seconds = time.monotonic() - begun
    moved = max(
        float((now.detach() - then).abs().max())
        for (_, now), then in zip(trained.policy.policy_parameters(), before, strict=True)
    )
    finite = bool(torch.isfinite(torch.tensor(list(report.metrics.values()))).all())
    yield TrialNote(
        text=f"one step of {report.metrics['tokens']:.0f} tokens on {site.device} in {seconds:.2f} s, weights moved "
        f"by up to {moved:.1e}, version {report.weights.version if report.weights else 'not'} published",
        ok=finite and moved > 0 and report.weights is not None,
        figures={"seconds": seconds},
    )


def torch_engine(site: TrialSite) -> Iterator[TrialNote]:
    """The package's own engine samples from a tiny model."""
    from rlsp_async.sampling.torch_engine import TorchEngine

    model = made.write_model(site.directory / "model", made.TINY, site.dtype)
    cfg = made.run_config(site.directory, site.dtype, site.device)
    yield asyncio.run(_sampled(TorchEngine(cfg, model, 0), 64))


def vllm_engine(site: TrialSite) -> Iterator[TrialNote]:
    """vLLM starts and samples from a tiny model."""
    from rlsp_async.sampling.vllm_engine import VllmEngine

    model = made.write_model(site.directory / "model", made.TINY, site.dtype)
    cfg = made.run_config(site.directory, site.dtype, site.device, sampler={"memory": 0.3, "engine": "vllm"})
    yield asyncio.run(_sampled(VllmEngine(cfg, model, 0, 16), 64))


async def _sampled(engine: Engine, tokens: int) -> TrialNote:
    begun = time.monotonic()
    await engine.start()
    try:
        started = time.monotonic()
        settings = GenerateSettings(max_new_tokens=tokens, temperature=1.0, stop_ids=())
        done = await asyncio.gather(*(engine.generate([5, 6, 7], settings) for _ in range(8)))
        seconds = time.monotonic() - started
    finally:
        await engine.close()
    count = sum(len(completion.token_ids) for completion in done)
    return TrialNote(
        text=f"the {engine.name} engine started in {started - begun:.1f} s, {count} tokens in {seconds:.2f} s",
        ok=count == 8 * tokens and len({tuple(completion.token_ids) for completion in done}) > 1,
        figures={"start_seconds": started - begun, "tokens_per_s": count / max(seconds, 1e-9)},
    )
