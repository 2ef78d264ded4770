"""Evaluations during a stage, by real processes that are killed in the middle of one."""

import signal
from pathlib import Path

import pytest

from rlsp_async.chaos.machine import find_services, send_signal
from rlsp_async.jsonl import read_jsonl
from rlsp_async.report.results import build_report
from tests.flow import stub

pytestmark = [pytest.mark.flow, pytest.mark.timeout(300)]

PROMPTS = 24
HELD = "SELECT group_id, state, head FROM groups WHERE purpose = 'evaluate' ORDER BY group_id"


def test_an_evaluation_that_is_killed_in_the_middle_is_made_once(tmp_path: Path, model: Path) -> None:
    stub.write_modules(tmp_path, verifier_s=0.02)
    settings = (
        f"evaluation.prompts={PROMPTS}",
        "evaluation.rollouts=2",
        "evaluation.every=3",
        'evaluation.after=["rl"]',
    )
    run = stub.stub_run(tmp_path, model, "stages.rl.steps=8", *settings)
    with stub.running(run) as process:
        stub.wait_for(lambda: len(ready(run)) >= PROMPTS + 5, "the middle of the second evaluation")
        process.kill()
        for pid in find_services(run / "config.toml").values():
            send_signal(pid, signal.SIGKILL)
    assert stub.rows(run, "SELECT key FROM evaluations") == [("during rl 3",)]
    assert stub.last_step(run) == 6, "a batch was trained while a step was evaluated"
    before = ready(run)
    done = stub.resumed(run)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read_jsonl(run / "evaluations.jsonl")
    assert [(row["key"], row["version"], row["oldest_version"]) for row in rows] == [
        ("during rl 3", 3, 3),
        ("during rl 6", 6, 6),
        ("after rl", 8, 8),
    ]
    assert [row["num_prompts"] for row in rows] == [PROMPTS] * 3
    assert len(stub.rows(run, HELD)) == 3 * PROMPTS, "a prompt was evaluated twice"
    assert set(before) <= {group_id for group_id, _, _ in stub.rows(run, HELD)}
    trained = stub.rows(run, "SELECT count(*) FROM groups WHERE purpose = 'evaluate' AND state = 'trained'")
    assert trained == [(0,)]
    assert [e.label for e in build_report(run).evaluations] == ["rl step 3", "rl step 6", "after rl"]
    assert sorted(stub.curve(run)) == list(range(1, 9))
    stub.audited(run)


def ready(run: Path) -> list[int]:
    """Held-out groups that have their verdicts."""
    return [group_id for group_id, state, _ in stub.rows(run, HELD) if state in ("ready", "evaluated")]
