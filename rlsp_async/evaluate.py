"""Held-out pass@1 and pass@n of any model directory, in this one process (`rlsp eval`).

    result = evaluate(Path("runs/ops_cpu/final"), config.TaskConfig(name="ops"), rollouts=8, prompts=256)
    print(result)                                 # the table
    result.figures["pass_at_1"]                   # {"mean": 0.61, "low": 0.57, "high": 0.65}

    prompts --Sampler--> RolloutGroup --VerifierPool--> verdicts --> figures

Sampler, verifiers and statistics are those of a run. A group in which a check timed out or failed is left out and
counted in `num_dropped`; its rollouts are not counted as wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from rlsp_async import blocking, config
from rlsp_async.cuda import has_cuda
from rlsp_async.errors import ConfigError, DivergedError, MachineError, RlspError, first_error
from rlsp_async.files import replace_file
from rlsp_async.messages import (
    Prompt,
    RolloutGroup,
    SampleJob,
    Sampling,
    Verdict,
    VerdictSet,
    VerifiedGroup,
    VerifyItem,
    VerifyJob,
)
from rlsp_async.model import check_model, check_window
from rlsp_async.model.adapter import WEIGHTS, is_adapter, read_adapter
from rlsp_async.observations import num_sampled
from rlsp_async.tasks.base import load_task

Sample = Callable[[SampleJob], Awaitable[RolloutGroup]]
Verify = Callable[[VerifyJob], Awaitable[VerdictSet]]
EngineName = Literal["auto", "vllm", "torch", "scripted"]
SOLE_SHARE = 0.85
SOLE_SEQUENCES = 512
"""Share of a card, and rollouts decoded at once, of an evaluation that has a GPU for itself."""


class EvaluationResult(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of an evaluation, and what was evaluated. `str()` gives a table."""

    model: str
    task: str
    verifier: str
    """Name and version, e.g. "ops/1"."""
    engine: str
    seed: int
    temperature: float
    max_new_tokens: int
    seconds: float
    num_prompts: int
    """Prompts of which every rollout was judged."""
    num_dropped: int
    """Prompts left out because a check timed out or failed."""
    rollouts: int
    """Rollouts of each prompt."""
    statuses: dict[str, int]
    """Number of verdicts by status."""
    figures: dict[str, dict[str, float]]
    """pass_at_1, pass_at_K .., response_tokens, truncated, search_steps: mean, low, high (95 % interval)."""

    def __str__(self) -> str:
        head = (
            f"{self.model}: {self.task}, {self.num_prompts} held-out prompts x {self.rollouts} rollouts, "
            f"temperature {self.temperature:g}, {self.engine} engine, {self.seconds:.0f} s"
        )
        rows = [
            f"{_label(name):<16} {_text(name, figure):>8}  {_interval(name, figure)}"
            for name, figure in self.figures.items()
        ]
        verdicts = ", ".join(f"{num} {status}" for status, num in sorted(self.statuses.items()))
        dropped = f"; {self.num_dropped} prompts left out" if self.num_dropped else ""
        title = f"{'':<16} {'mean':>8}  95 % interval"
        return "\n".join([head, "", title, *rows, "", f"verdicts: {verdicts}{dropped}"])


def evaluate(
    model: Path,
    task: config.TaskConfig,
    *,
    rollouts: int = 8,
    prompts: int = 256,
    engine: EngineName = "auto",
    max_new_tokens: int = 256,
    temperature: float = 1.0,
    seed: int = 0,
    out: Path | None = None,
    sampler: config.SamplerConfig | None = None,
) -> EvaluationResult:
    """Samples and judges the first held-out prompts of a task. Blocks until done.

    Args:
        model: a Hugging Face directory, or that of an adapter (peft), which names its base model.
        task: where the prompts come from, and their verifier.
        rollouts: rollouts of each prompt.
        prompts: number of held-out prompts, at most.
        engine: as `sampler.engine`.
        max_new_tokens: longest response.
        temperature: softmax temperature of sampling.
        seed: seed of sampling.
        out: file for every response with its verdict, as JSON lines (`response_rows`); None: none is written.
        sampler: memory, sequences and GPUs of the engine; its own `engine` is not read. None: `sole_sampler`.

    Raises: DataError (model, tokenizer or prompts unusable), ConfigError, MachineError when `out` cannot be written, or
        DivergedError when no group was judged.
    """
    settings = {"temperature": temperature, "max_new_tokens": max_new_tokens, "rollouts": rollouts}
    base, lora = read_adapter(model) if is_adapter(model) else (model, None)
    dtype = "bfloat16" if _dtype(check_model(base)) in ("bfloat16", "float16") else "float32"
    adapters = msgspec.to_builtins(lora) if lora else {}
    cfg = config.RunConfig(
        name="eval",
        seed=seed,
        task=task,
        stages={"eval": config.StageConfig()},
        sampler=msgspec.structs.replace(sampler or sole_sampler(has_cuda()), engine=engine),
        sampling=config.convert(settings, config.SamplingConfig, "rlsp eval"),
        model=config.convert({"path": str(base), "dtype": dtype, "lora": adapters}, config.ModelConfig, "rlsp eval"),
    )
    if out is not None and not out.absolute().parent.is_dir():
        raise ConfigError(f"{out}: the directory of this file does not exist; make it first")
    with _logs_to_stderr():
        groups, result = blocking.run(_evaluate(cfg, base, prompts, model / WEIGHTS if lora else None))
    result = msgspec.structs.replace(result, model=str(model))
    if out is not None:
        rows = b"".join(msgspec.json.encode(row) + b"\n" for row in response_rows(groups))
        try:
            replace_file(out, rows, durable=False)
        except OSError as e:
            raise MachineError(f"{out}: cannot be written: {e.strerror}") from None
    return result


def sole_sampler(cuda: bool) -> config.SamplerConfig:
    """The engine's settings when nothing else runs on the machine: on a GPU it has the whole card."""
    if not cuda:
        return config.SamplerConfig()
    return config.SamplerConfig(memory=SOLE_SHARE, max_sequences=SOLE_SEQUENCES, groups_in_flight=SOLE_SEQUENCES // 8)


async def judge_prompts(
    prompts: list[Prompt], sampling: Sampling, sample: Sample, verify: Verify, in_flight: int
) -> list[VerifiedGroup]:
    """Samples and verifies every prompt, `in_flight` at a time. Returns groups in the order of the prompts."""
    results: dict[int, VerifiedGroup] = {}
    waiting = iter(enumerate(prompts))
    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(min(in_flight, len(prompts))):
                workers.create_task(_work(waiting, sampling, sample, verify, results))
    except* RlspError as failures:
        raise first_error(failures) from None
    return [results[i] for i in range(len(prompts))]


def response_rows(groups: list[VerifiedGroup]) -> Iterator[dict[str, Any]]:
    """A row for each response: what was asked, what was answered, and the verdict on it."""
    for verified in groups:
        prompt = verified.group.prompt
        for rollout, verdict in zip(verified.group.rollouts, verified.verdicts, strict=True):
            yield {
                "prompt_id": prompt.prompt_id,
                "prompt": prompt.text,
                "answer": prompt.answer,
                "rollout": rollout.index,
                "response": rollout.text,
                "status": verdict.status,
                "parts": verdict.parts,
                "extracted": verdict.extracted,
                "detail": verdict.detail,
                "finish": rollout.finish,
                "num_tokens": num_sampled(rollout),
            }


def summarize_groups(groups: list[VerifiedGroup]) -> tuple[dict[str, dict[str, float]], int]:
    """The figures over the groups that were judged completely, with intervals, and the number of those groups."""
    from rlsp_async.replay.evaluation import score_prompt, summarize

    whole = [g for g in groups if all(verdict.is_true for verdict in g.verdicts)]
    row: dict[str, Any] = summarize([score_prompt(g.group, g.verdicts) for g in whole])
    return {name: value for name, value in row.items() if isinstance(value, dict)}, len(whole)


async def _evaluate(
    cfg: config.RunConfig, model: Path, num_prompts: int, adapter: Path | None
) -> tuple[list[VerifiedGroup], EvaluationResult]:
    from rlsp_async.sampling.sampler import Sampler
    from rlsp_async.tokens import load_tokenizer
    from rlsp_async.verifying.pool import VerifierPool

    task, start = load_task(cfg.task, cfg.seed), time.monotonic()
    size = task.size("test")
    prompts = [task.prompt("test", i) for i in range(num_prompts if size is None else min(size, num_prompts))]
    if not prompts:
        raise ConfigError(f"task {cfg.task.name!r} has no held-out prompts, or none were asked for")
    longest = check_window(cfg, task, load_tokenizer(model), len(prompts))
    sampling = Sampling(
        temperature=cfg.sampling.temperature,
        max_new_tokens=cfg.sampling.max_new_tokens,
        rollouts=cfg.sampling.rollouts,
        seed=cfg.seed,
    )
    async with VerifierPool(cfg) as pool, Sampler(cfg, model, "eval", longest_prompt=longest) as sampler:
        if adapter:
            await sampler.adopt(adapter)
        groups = await judge_prompts(prompts, sampling, sampler.sample, pool.verify, cfg.sampler.groups_in_flight)
        engine = sampler.info["engine"]
    return groups, _result(cfg, groups, engine, time.monotonic() - start)


async def _work(
    waiting: Iterator[tuple[int, Prompt]],
    sampling: Sampling,
    sample: Sample,
    verify: Verify,
    results: dict[int, VerifiedGroup],
) -> None:
    """One worker: takes prompts until none are left, waits for sampler and verifiers, stores verified groups."""
    for i, prompt in waiting:
        group = await sample(SampleJob(group_id=i, prompt=prompt, sampling=sampling, purpose="evaluate", stage="eval"))
        items = [
            VerifyItem(prompt=prompt.text, response=r.text, answer=prompt.answer, claim=r.claim, ended=r.ended)
            for r in group.rollouts
        ]
        verdicts = await verify(VerifyJob(group_id=i, task=prompt.task, items=items))
        results[i] = VerifiedGroup(group=group, verdicts=verdicts.verdicts)


def _result(cfg: config.RunConfig, groups: list[VerifiedGroup], engine: str, seconds: float) -> EvaluationResult:
    verdicts = [verdict for group in groups for verdict in group.verdicts]
    counts: Counter[str] = Counter(verdict.status for verdict in verdicts)
    figures, num_whole = summarize_groups(groups)
    if not num_whole:
        raise DivergedError(f"no prompt could be judged; the first reason: {_first_fault(verdicts)}")
    return EvaluationResult(
        model=cfg.model.path,
        task=cfg.task.name,
        verifier=verdicts[0].verifier,
        engine=engine,
        seed=cfg.seed,
        temperature=cfg.sampling.temperature,
        max_new_tokens=cfg.sampling.max_new_tokens,
        seconds=seconds,
        num_prompts=num_whole,
        num_dropped=len(groups) - num_whole,
        rollouts=cfg.sampling.rollouts,
        statuses=dict(counts),
        figures=figures,
    )


def _first_fault(verdicts: list[Verdict]) -> str:
    return next((f"{v.status}: {v.detail}" for v in verdicts if not v.is_true), "no rollouts")


@contextlib.contextmanager
def _logs_to_stderr() -> Iterator[None]:
    """Sends log lines to stderr, because standard output is for the result: `rlsp eval --json | jq`."""
    import structlog

    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr), cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**before)


def _dtype(settings: dict[str, Any]) -> str:
    return str(settings.get("dtype") or settings.get("torch_dtype") or "float32")


def _label(name: str) -> str:
    return name.replace("pass_at_", "pass@").replace("_", " ")


def _text(name: str, figure: dict[str, float]) -> str:
    return _number(name, figure["mean"])


def _interval(name: str, figure: dict[str, float]) -> str:
    return f"{_number(name, figure['low'])} .. {_number(name, figure['high'])}"


def _number(name: str, value: float) -> str:
    return f"{value:.3f}" if name.startswith("pass_at_") or name == "truncated" else f"{value:.1f}"
