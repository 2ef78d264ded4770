"""One number decides: `target_lag` 0 is synchronous RL, above 0 sampling goes on while a batch is trained."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlsp_async.jsonl import read_jsonl

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "launch" / "configs" / "ops_cpu_smoke.toml"
SHORT = ["stages.rlsp.steps=12", "evaluation.prompts=0"]


@pytest.mark.flow
@pytest.mark.timeout(180)
def test_lag_0_waits_and_lag_1_overlaps(tmp_path: Path) -> None:
    waiting, overlapping = (run(tmp_path, target_lag) for target_lag in (0, 1))
    assert {row["lag_max"] for row in steps(waiting)} == {0}
    assert overlap_s(waiting) == 0.0
    assert {row["lag_max"] for row in steps(overlapping)} <= {0, 1, 2}
    assert max(row["lag_max"] for row in steps(overlapping)) > 0
    assert overlap_s(overlapping) > 0.0


def run(directory: Path, target_lag: int) -> Path:
    name = f"lag{target_lag}"
    command = [
        sys.executable,
        "-m",
        "rlsp_async.cli",
        "run",
        str(SMOKE),
        f"runs_dir={directory}",
        f"name={name}",
        *SHORT,
        f"stages.rlsp.target_lag={target_lag}",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory / name


def steps(run: Path) -> list[dict[str, Any]]:
    return [row for row in read_jsonl(run / "metrics.jsonl") if row.get("stage") == "rlsp"]


def overlap_s(run: Path) -> float:
    """Seconds in which a group was being sampled while a batch was being trained."""
    spans = read_jsonl(run / "timeline.jsonl")
    sampled, trained = (
        [(row["t0"], row["t1"]) for row in spans if row["kind"] == kind] for kind in ("sample", "train")
    )
    both = (min(a1, b1) - max(a0, b0) for a0, a1 in sampled for b0, b1 in trained)
    return sum(seconds for seconds in both if seconds > 0)
