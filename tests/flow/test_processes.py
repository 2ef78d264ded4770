"""The whole line with real processes, and each of them killed with SIGKILL in the middle of the second stage."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from rlsp_async.jsonl import read_jsonl

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "launch" / "configs" / "ops_cpu_smoke.toml"
STEPS = 36
KILLS = {"sampler": 9, "verifier": 15, "learner": 21, "replay": 29}
"""Role -> the step at which its process is killed."""
SHORT = [f"stages.rlsp.steps={STEPS}", "learner.checkpoint_every=8", "replay.timeout_s=4.0", "evaluation.prompts=4"]


@pytest.mark.flow
@pytest.mark.timeout(480)
def test_every_killed_service_comes_back_and_the_run_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "out.txt"
    command = [sys.executable, "-m", "rlsp_async.cli", "run", str(SMOKE), f"runs_dir={tmp_path}", *SHORT]
    run, killed = tmp_path / "ops_cpu_smoke", []
    with log.open("w") as out, subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out) as running:
        for role, step in KILLS.items():
            wait_for(lambda step=step: newest_step(run) >= step or running.poll() is not None, 240.0)
            killed.append(pid_of(running.pid, role))
            os.kill(killed[-1], signal.SIGKILL)
        code = running.wait(timeout=180)
    assert code == 0, log.read_text()
    for role in KILLS:
        assert f"{role}-0 ended with signal SIGKILL" in log.read_text()
    check_what_is_left(run)


def check_what_is_left(run: Path) -> None:
    """Every step trained once, on groups no older than allowed, and every token accounted for."""
    steps = [row["step"] for row in read_jsonl(run / "metrics.jsonl") if row["kind"] == "step"]
    assert set(steps) <= set(range(1, 6 + STEPS + 1))
    assert len(set(steps)) >= 6 + STEPS - 1  # kill -9 of the hub may take the row that it is about to write
    tokens = json.loads((run / "report.json").read_text())["tokens"]
    assert tokens["generated"] == sum(n for name, n in tokens.items() if name != "generated")
    with sqlite3.connect(run / "journal.sqlite") as journal:
        manifests = journal.execute("SELECT COUNT(*) FROM manifests").fetchone()[0]
        assert [row[0] for row in journal.execute("SELECT step FROM steps ORDER BY step")] == list(range(1, 7 + STEPS))
        uses = {row[0] for row in journal.execute("SELECT uses FROM groups WHERE state = 'trained'")}
    assert (manifests, uses) == (6 + STEPS, {1})


def newest_step(run: Path) -> int:
    metrics = run / "metrics.jsonl"
    return (
        max((row["step"] for row in read_jsonl(metrics) if row["kind"] == "step"), default=0) if metrics.exists() else 0
    )


def pid_of(supervisor: int, role: str) -> int:
    return next(p.pid for p in psutil.Process(supervisor).children() if role in p.cmdline())


def wait_for(condition: Callable[[], bool], bound_s: float) -> None:
    deadline = time.monotonic() + bound_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)
