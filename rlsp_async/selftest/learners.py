"""Trials of the learner: attention, resume, equal bits, and the seconds of a step, of a version and of a checkpoint."""

from __future__ import annotations

import itertools
import mmap
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from rlsp_async.preflight.estimate import learner_gib
from rlsp_async.selftest import made
from rlsp_async.selftest.trials import TrialNote, TrialSite

TOLERANCE = {"float32": 1e-4, "bfloat16": 0.03}
"""Largest difference from exact attention, as a share of the largest value."""
WINDOW = 16
TRAIN_S = 200.0
"""Longest time of one process that trains a few steps."""


def packed_attention(site: TrialSite) -> Iterator[TrialNote]:
    """Attention over a packed row, its output and gradients, against each sequence by itself in float32."""
    from rlsp_async.learning.attention import Spans
    from rlsp_async.learning.attention import packed_attention as packed

    torch.manual_seed(0)
    lengths = torch.randint(3, 200 if site.is_gpu else 40, (40 if site.is_gpu else 8,)).sort(descending=True).values
    ends = torch.cat((torch.zeros(1, dtype=torch.long), lengths.cumsum(0)))
    dtype, tokens = getattr(torch, site.dtype), int(lengths.sum())
    spans = Spans.of(ends.numpy().astype("int32"), site.device)
    q, k, v = (torch.randn(1, heads, tokens, 64, device=site.device).to(dtype).requires_grad_() for heads in (8, 2, 2))
    seed = torch.randn(1, tokens, 8, 64, device=site.device)
    for window in (None, WINDOW):
        out, _ = packed(torch.nn.Module(), q, k, v, None, packing=spans, sliding_window=window)
        ours = (out.float(), *(g.float() for g in torch.autograd.grad(out, (q, k, v), seed.to(out.dtype))))
        exact = _one_by_one(q, k, v, ends.tolist(), window)
        theirs = (exact, *(g.float() for g in torch.autograd.grad(exact, (q, k, v), seed.to(exact.dtype))))
        errors = [float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, theirs, strict=True)]
        yield TrialNote(
            text=f"{len(lengths)} sequences{f', window {window}' if window else ''}: output off by {errors[0]:.2g}, "
            f"gradients of q, k, v by {errors[1]:.2g}, {errors[2]:.2g}, {errors[3]:.2g} of their largest value",
            ok=max(errors) < TOLERANCE[site.dtype],
            figures=dict(zip(("output", "grad_q", "grad_k", "grad_v"), errors, strict=True)),
        )


def _one_by_one(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ends: list[int], window: int | None) -> torch.Tensor:
    """[1, T, H, D] in float32, without packing."""
    outs = []
    for begin, end in itertools.pairwise(ends):
        visible = torch.ones(end - begin, end - begin, dtype=torch.bool, device=q.device).tril()
        visible = visible if window is None else visible.triu(1 - window)
        part = [x[:, :, begin:end].float() for x in (q, k, v)]
        part[1:] = [x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in part[1:]]
        scores = part[0] @ part[1].transpose(2, 3) * q.shape[3] ** -0.5
        outs.append(scores.masked_fill(~visible, float("-inf")).softmax(-1) @ part[2])
    return torch.cat(outs, dim=2).transpose(1, 2)


def resume(site: TrialSite) -> Iterator[TrialNote]:
    """Two steps, a checkpoint, a new process, two more steps: the weights of four steps in one go."""
    sizes = made.SMALL if site.is_gpu else made.TINY
    model = made.write_model(site.directory / "model", sizes, site.dtype, device=site.device)
    straight = _train(site, model, "straight", (1, 2, 3, 4))
    _train(site, model, "broken", (1, 2))
    again = _in_process(_train, site, model, "broken", (3, 4))
    yield _difference(straight, again, "after a resume")


def equal_bits(site: TrialSite) -> Iterator[TrialNote]:
    """The same two steps twice, in two processes, with learner.deterministic."""
    sizes = made.SMALL if site.is_gpu else made.TINY
    model = made.write_model(site.directory / "model", sizes, site.dtype, device=site.device)
    first = _train(site, model, "first", (1, 2))
    second = _in_process(_train, site, model, "second", (1, 2))
    yield _difference(first, second, "of a repetition")


def _in_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in a new process, as a restart does."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result(TRAIN_S)


def _train(site: TrialSite, model: Path, name: str, steps: tuple[int, ...]) -> Path:
    """Trains steps, from the newest checkpoint on; returns the file of the last version."""
    from safetensors.torch import save_file

    from rlsp_async.learning.learner import Learner

    directory = site.directory / name
    cfg = made.run_config(
        directory,
        site.dtype,
        site.device,
        learner={"deterministic": True, "weights_dir": str(directory / "weights")},
    )
    learner = Learner(cfg, model, cfg.directory)
    for step in steps:
        learner.train(made.train_job(step, learner.policy.model.config.vocab_size))
    learner.on_stop()
    path = directory / f"after-{steps[-1]}.safetensors"
    save_file({n: p.detach().cpu().contiguous() for n, p in learner.policy.policy_parameters()}, path)
    return path


def _difference(one: Path, other: Path, what: str) -> TrialNote:
    """How far two sets of weights are apart; they must be equal to the last bit."""
    from safetensors.torch import load_file

    left, right = load_file(one), load_file(other)
    largest = max(float((left[name].float() - right[name].float()).abs().max()) for name in left)
    differ = sum(not torch.equal(left[name], right[name]) for name in left)
    return TrialNote(
        text=f"the weights {what} are the same bits"
        if not differ
        else f"{differ} of {len(left)} tensors {what} differ, by up to {largest:.2g}",
        ok=not differ,
        figures={"largest_difference": largest},
    )


def copies(site: TrialSite) -> Iterator[TrialNote]:
    """Bytes a second between card and host: pageable memory, pinned memory, a registered file in shared memory."""
    num = (1 << 30) if site.is_gpu else (1 << 24)
    there = torch.ones(num, dtype=torch.uint8, device=site.device)
    yield _copied("pageable memory", there, torch.empty(num, dtype=torch.uint8))
    if site.is_gpu:
        yield _copied("pinned memory", there, torch.empty(num, dtype=torch.uint8, pin_memory=True))
    shm = Path("/dev/shm")
    with tempfile.TemporaryFile(dir=shm if os.access(shm, os.W_OK) else None) as file:
        file.truncate(num)
        with mmap.mmap(file.fileno(), num) as mapping:
            host = torch.frombuffer(mapping, dtype=torch.uint8)
            registered = site.is_gpu and int(torch.cuda.cudart().cudaHostRegister(host.data_ptr(), num, 0)) == 0  # type: ignore[no-untyped-call]
            yield _copied(f"a file in shared memory{', registered' if registered else ''}", there, host)
            if registered:
                torch.cuda.cudart().cudaHostUnregister(host.data_ptr())  # type: ignore[no-untyped-call]
            del host


def _copied(what: str, there: torch.Tensor, host: torch.Tensor) -> TrialNote:
    """The better of three copies each way."""

    def seconds(target: torch.Tensor, source: torch.Tensor) -> float:
        best = float("inf")
        for _ in range(3):
            begun = time.monotonic()
            target.copy_(source, non_blocking=True)
            if there.is_cuda:
                torch.cuda.synchronize()
            best = min(best, time.monotonic() - begun)
        return best

    down, up = (there.numel() / seconds(*pair) / 1e9 for pair in ((host, there), (there, host)))
    return TrialNote(
        text=f"{what}: {down:.1f} GB/s to the host, {up:.1f} GB/s back", figures={"down_gb_s": down, "up_gb_s": up}
    )


def step_seconds(site: TrialSite) -> Iterator[TrialNote]:
    """Seconds of two steps with their versions, and of a checkpoint; the card's memory beside its estimate."""
    from rlsp_async.learning.learner import Learner
    from rlsp_async.model.info import read_model_info

    sizes, groups, tokens = (made.LARGE, 64, 512) if site.is_gpu else (made.TINY, 4, 64)
    model = made.write_model(site.directory / "model", sizes, site.dtype, device=site.device)
    cfg = made.run_config(
        site.directory,
        site.dtype,
        site.device,
        sampling={"max_new_tokens": tokens},
        learner={
            "tokens_per_microbatch": 16384 if site.is_gpu else 512,
            "gradient_checkpointing": True,
            "checkpoint_every": 0,
            "weights_dir": str(site.directory / "weights"),
        },
    )
    learner = Learner(cfg, model, cfg.directory)
    for step in (1, 2):
        begun = time.monotonic()
        report = learner.train(made.train_job(step, sizes.vocabulary, groups, 8, tokens))
        whole, rate = time.monotonic() - begun, report.metrics["tokens_per_s"]
        yield TrialNote(
            text=f"step {step}: {report.metrics['tokens']:,.0f} tokens in {report.metrics['seconds']:.1f} s, "
            f"{rate:,.0f} tokens/s; {whole - report.metrics['seconds']:.2f} s until its version was reported",
            figures={"tokens_per_s": rate, "version_seconds": whole - report.metrics["seconds"]},
        )
    if site.is_gpu:
        estimated, used = learner_gib(cfg, read_model_info(model)), torch.cuda.max_memory_allocated() / 2**30
        yield TrialNote(
            text=f"the learner used up to {used:.1f} GiB of the card; `rlsp check` estimates {estimated:.1f}",
            ok=abs(estimated - used) < 0.25 * used,
            figures={"used_gib": used, "estimated_gib": estimated},
        )
    begun = time.monotonic()
    learner.on_stop()
    seconds = time.monotonic() - begun
    yield TrialNote(text=f"a checkpoint was written in {seconds:.1f} s", figures={"checkpoint_seconds": seconds})
