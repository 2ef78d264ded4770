"""Evaluations during a stage, and one seed: a run that is killed in the middle of an evaluation, and has other batches in
its engine, and loses its published weights, ends with the bits of one that is not."""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from rlsp_async.chaos.machine import find_services, send_signal
from rlsp_async.jsonl import read_jsonl
from rlsp_async.report.results import build_report
from tests.flow import stub

pytestmark = [pytest.mark.flow, pytest.mark.timeout(300)]

PROMPTS = 12
HELD = "SELECT group_id, state FROM groups WHERE purpose = 'evaluate' ORDER BY group_id"
SETTINGS = (
    "sampler.engine=torch",
    "stages.rl.steps=8",
    "stages.rl.groups_per_step=4",
    "stages.rl.target_lag=0",
    "stages.rl.max_lag=0",
    "stages.rl.optimizer.lr=0.01",
    f"evaluation.prompts={PROMPTS}",
    "evaluation.rollouts=2",
    "evaluation.every=3",
    'evaluation.after=["rl"]',
)
FIGURES = ("key", "step", "version", "oldest_version", "num_prompts", "pass_at_1", "pass_at_2", "response_tokens")


def test_a_run_killed_in_an_evaluation_has_the_evaluations_and_bits_of_another_one(tmp_path: Path, model: Path) -> None:
    straight = stub.stub_run(tmp_path / "straight", model, *SETTINGS)
    done = stub.resumed(straight)
    assert done.returncode == 0, done.stdout + done.stderr
    stub.write_modules(tmp_path / "killed", verifier_s=0.02)
    killed = stub.stub_run(tmp_path / "killed", model, *SETTINGS, "sampler.groups_in_flight=3")
    with stub.running(killed) as process:
        stub.wait_for(lambda: len(ready(killed)) >= PROMPTS + 3, "the middle of the second evaluation")
        process.kill()
        for pid in find_services(killed / "config.toml").values():
            send_signal(pid, signal.SIGKILL)
    shutil.rmtree(tmp_path / "killed" / "weights")  # what a reboot does to shared memory: they are published again
    assert stub.rows(killed, "SELECT key FROM evaluations") == [("during rl 3",)]
    assert stub.last_step(killed) == 6, "a batch was trained while a step was evaluated"
    done = stub.resumed(killed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(stub.rows(killed, HELD)) == 3 * PROMPTS, "a prompt was evaluated twice"
    assert stub.rows(killed, "SELECT count(*) FROM groups WHERE purpose = 'evaluate' AND state = 'trained'") == [(0,)]
    stub.audited(killed)
    found = evaluations(killed)
    assert [(row["key"], row["step"], row["version"], row["oldest_version"], row["num_prompts"]) for row in found] == [
        ("during rl 3", 3, 3, 3, PROMPTS),
        ("during rl 6", 6, 6, 6, PROMPTS),
        ("after rl", 8, 8, 8, PROMPTS),
    ]
    assert [e.label for e in build_report(killed).evaluations] == ["rl step 3", "rl step 6", "after rl"]
    assert found == evaluations(straight)
    assert rewards(killed) == rewards(straight)
    assert len(set(rewards(killed))) > 1, "the rewards say nothing"
    digests = "SELECT step, digest FROM steps ORDER BY step"
    assert stub.rows(killed, digests) == stub.rows(straight, digests)
    assert build_report(killed).digest == build_report(straight).digest != ""


def ready(run: Path) -> list[int]:
    """Held-out groups that have their verdicts."""
    return [group_id for group_id, state in stub.rows(run, HELD) if state in ("ready", "evaluated")]


def evaluations(run: Path) -> list[dict[str, Any]]:
    return [{name: row[name] for name in FIGURES} for row in read_jsonl(run / "evaluations.jsonl")]


def rewards(run: Path) -> list[tuple[int, float, float]]:
    return [(step, row["reward"], row["loss"]) for step, row in sorted(stub.curve(run).items())]
