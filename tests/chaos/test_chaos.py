"""`rlsp chaos` as a user starts it: a short seeded run that passes, the same without manifests that must not, and bad
arguments."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlsp_async.chaos.machine import find_services
from tests.flow import slow_ops

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "launch" / "configs" / "chaos_cpu.toml")
DOUBLE = ROOT / "tests" / "chaos" / "double"
BROKEN = ROOT / "tests" / "chaos" / "broken"
SLOW = ["task.verifier=tests.flow.slow_ops", "verifier.count=1", "verifier.processes=1", "stages.sft.steps=20"]
"""One process that checks one answer after the other."""
NEW_PER_STEP = 4 / 2 * 2
"""Answers that a step needs at least: 4 groups that are used twice, of 2 rollouts each (chaos_cpu.toml)."""


def steps_for(minutes: float) -> int:
    """Steps of the stage rlsp with which a run takes longer than the schedule, however fast the machine is: the answers
    alone take as long, and every restart comes on top."""
    return int(60.0 * minutes / (NEW_PER_STEP * slow_ops.SECONDS))


def chaos(tmp_path: Path, *words: str, first_on_path: str = "", bug: str = "") -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([*([first_on_path] if first_on_path else []), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", "rlsp_async.cli", "chaos", CONFIG, f"runs_dir={tmp_path}", "name=c", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=230,
        check=False,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "RLSP_TEST_BUG": bug},
    )


@pytest.mark.flow
@pytest.mark.alone
@pytest.mark.timeout(240)
def test_a_short_schedule_of_everything_passes(tmp_path: Path):
    steps = f"stages.rlsp.steps={steps_for(minutes=0.4)}"
    done = chaos(tmp_path, "--seed", "40", "--minutes", "0.4", "--rate", "24", "--json", *SLOW, steps)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert result["passed"] and result["reasons"] == []
    assert result["num_struck"]["kill"] >= 3 and result["num_struck"]["stop"] >= 1
    assert sum(result["messages"][kind] for kind in ("drop", "duplicate", "reorder", "slow")) > 0
    assert result["acknowledged"] > 900
    assert {finding["outcome"] for finding in result["audit"]["findings"]} <= {"ok", "not applicable"}
    faults = [json.loads(line) for line in (tmp_path / "c" / "chaos.jsonl").read_text().splitlines()]
    assert (len(faults), result["num_unreached"]) == (13, 0)  # the whole schedule
    assert not find_services(tmp_path / "c" / "config.toml")


@pytest.mark.flow
@pytest.mark.alone
@pytest.mark.timeout(240)
def test_without_manifests_a_restart_of_everything_is_found_out(tmp_path: Path):
    """The harness can fail: a learner that makes its batches anew after a restart is noticed."""
    words = ("--faults", "restart-all", "--seed", "2", "--minutes", "0.3", "--rate", "10", *SLOW)
    done = chaos(tmp_path, *words, f"stages.rlsp.steps={steps_for(minutes=0.3)}", first_on_path=str(DOUBLE))
    assert "Traceback" not in done.stderr
    assert done.returncode == 1, done.stdout
    assert done.stdout.endswith("FAIL\n")
    assert "violated" in done.stdout


@pytest.mark.flow
@pytest.mark.alone
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("bug", "seed"), [("byzantine", "150"), ("clock", "1299")])
def test_a_line_with_a_planted_bug_fails_under_the_fault_that_it_cannot_stand(tmp_path: Path, bug: str, seed: str):
    """`broken/` says which bugs: numbers that nobody gave out are taken, or starts are numbered by the wall clock."""
    words = ("--faults", bug, "--seed", seed, "--minutes", "0.1", "--rate", "20", "--settle", "40", *SLOW)
    steps = f"stages.rlsp.steps={steps_for(minutes=0.3)}"
    done = chaos(tmp_path, *words, steps, first_on_path=str(BROKEN), bug=bug)
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.endswith("FAIL\n")


@pytest.mark.flow
@pytest.mark.alone
@pytest.mark.timeout(120)
def test_told_to_stop_it_leaves_nothing_running(tmp_path: Path):
    command = [sys.executable, "-m", "rlsp_async.cli", "chaos", CONFIG, f"runs_dir={tmp_path}", "name=c"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        deadline = time.monotonic() + 60.0
        while len(find_services(tmp_path / "c" / "config.toml")) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        running.send_signal(signal.SIGTERM)
        out, _ = running.communicate(timeout=30)
    assert running.returncode == 1
    assert "it was told to stop by SIGTERM" in out and out.endswith("FAIL\n")
    assert not find_services(tmp_path / "c" / "config.toml")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--faults", "kill,burn"], "burn is not a kind of fault"),
        (["--minutes", "0"], "--minutes and --rate"),
        (["stages.rlsp.steps=x"], "stages.rlsp.steps"),
    ],
)
def test_bad_arguments_end_with_one_line(tmp_path: Path, words: list[str], what: str):
    done = chaos(tmp_path, *words)
    assert done.returncode == 2
    assert what in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "c").exists()


def test_a_run_that_is_there_is_not_touched(tmp_path: Path):
    (tmp_path / "c").mkdir()
    done = chaos(tmp_path)
    assert done.returncode == 2 and "is there already" in done.stderr


def test_a_dry_run_shows_the_schedule_and_starts_nothing(tmp_path: Path):
    done = chaos(tmp_path, "--dry-run", "--seed", "3", "--rate", "60", "--minutes", "1")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert 35 < len(lines) < 90 and "sampler-0" in done.stdout
    assert [float(line.split()[0]) for line in lines] == sorted(float(line.split()[0]) for line in lines)
    assert not (tmp_path / "c").exists()
