"""One number decides: `target_lag` 0 is synchronous RL, above 0 sampling goes on while a batch is trained."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlsp_async.jsonl import read_jsonl

ROOT = Path(__file__).parents[2]
SMOKE = (ROOT / "launch" / "configs" / "ops_cpu_smoke.toml").read_text()
LAGS = {"waiting": 0, "overlapping": 1}
"""Stage -> its `target_lag`."""


@pytest.mark.flow
@pytest.mark.timeout(180)
def test_lag_0_waits_and_lag_1_overlaps(tmp_path: Path) -> None:
    run = two_stages(tmp_path)
    assert {row["lag_max"] for row in steps(run, "waiting")} == {0}
    assert overlap_s(run, "waiting") == 0.0
    assert {row["lag_max"] for row in steps(run, "overlapping")} <= {0, 1, 2}
    assert max(row["lag_max"] for row in steps(run, "overlapping")) > 0
    assert overlap_s(run, "overlapping") > 0.0


def two_stages(directory: Path) -> Path:
    """A run of the smoke configuration that has its stage `rlsp` twice, with either lag."""
    before, rlsp, _ = re.split(r"(?=\[stages\.rlsp\]|\[evaluation\])", SMOKE)
    (directory / "lags.toml").write_text(
        before
        + "".join(rlsp.replace("rlsp]", f"{name}]").replace("rlsp.", f"{name}.") for name in LAGS)
        + "[evaluation]\nprompts = 0\n"
    )
    overrides = [
        word for name, lag in LAGS.items() for word in (f"stages.{name}.steps=12", f"stages.{name}.target_lag={lag}")
    ]
    command = [
        sys.executable,
        "-m",
        "rlsp_async.cli",
        "run",
        str(directory / "lags.toml"),
        f"runs_dir={directory}",
        *overrides,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory / "ops_cpu_smoke"


def steps(run: Path, stage: str) -> list[dict[str, Any]]:
    found = [row for row in read_jsonl(run / "metrics.jsonl") if row.get("stage") == stage and row["kind"] == "step"]
    assert len(found) == 12
    return found


def overlap_s(run: Path, stage: str) -> float:
    """Seconds in which a group was being sampled while a batch of this stage was being trained."""
    trained_in = {f"step {row['step']}" for row in steps(run, stage)}
    spans = read_jsonl(run / "timeline.jsonl")
    sampled = [(row["t0"], row["t1"]) for row in spans if row["kind"] == "sample"]
    trained = [(row["t0"], row["t1"]) for row in spans if row["kind"] == "train" and row["what"] in trained_in]
    assert len(trained) == 12
    both = (min(a1, b1) - max(a0, b0) for a0, a1 in sampled for b0, b1 in trained)
    return sum(seconds for seconds in both if seconds > 0)
