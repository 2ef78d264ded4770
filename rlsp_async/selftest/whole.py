"""One short run with all its services, and its audit: `rlsp run`, `rlsp audit`, as a user calls them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

from rlsp_async.selftest import made
from rlsp_async.selftest.trials import TrialNote, TrialSite

RUN_S = 220.0


def run(site: TrialSite) -> Iterator[TrialNote]:
    """On a GPU two steps of a random 0.5B model on gsm8k with the settings for one card; on a CPU the smoke test."""
    name = f"runs_dir={site.directory}"
    if site.is_gpu:
        model = made.write_model(site.directory / "model", made.SMALL, site.dtype, device=site.device)
        words = ["launch/configs/gsm8k_qwen2.5-1.5b_1gpu.toml", name, "name=short", *short_run(str(model))]
    else:
        words = ["launch/configs/ops_cpu_smoke.toml", name, "name=short", "stages.sft.steps=2", "stages.rlsp.steps=2"]
    begun = time.monotonic()
    yield _called(["run", *words], "the run", begun)
    begun = time.monotonic()
    yield _called(["audit", str(site.directory / "short")], "its audit", begun)


def short_run(model: str) -> list[str]:
    """The settings of a run of two steps."""
    return [
        f"model.path={model}",
        "stages.rlsp.steps=2",
        "stages.rlsp.groups_per_step=16",
        "stages.rlsp.minibatches=2",
        "sampling.max_new_tokens=128",
        "sampler.groups_in_flight=16",
        "sampler.max_sequences=128",
        "evaluation.prompts=16",
        "task.too_long=drop",
    ]


def _called(words: list[str], what: str, begun: float) -> TrialNote:
    done = subprocess.run(
        [sys.executable, "-m", "rlsp_async", *words], capture_output=True, text=True, timeout=RUN_S, check=False
    )
    print(done.stdout, done.stderr, flush=True)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    seconds = time.monotonic() - begun
    said = "" if done.returncode == 0 else f", exit code {done.returncode}: {lines[-1] if lines else 'no output'}"
    return TrialNote(text=f"{what}: {seconds:.0f} s{said}", ok=done.returncode == 0, figures={"seconds": seconds})
