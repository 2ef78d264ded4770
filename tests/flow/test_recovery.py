"""A killed learner ends where one that was never killed ends; a stopped one that wakes up late writes nothing."""

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rlsp_async.errors import FencedError

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "launch" / "configs" / "ops_cpu_smoke.toml"
SHORT = ["stages.sft.steps=24", "stages.rlsp.steps=18", "evaluation.prompts=0", "learner.checkpoint_every=8"]


def recovery() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recovery", ROOT / "benchmarks" / "recovery.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def started(bench: Any, directory: Path, *overrides: str) -> Any:
    return bench.start(str(SMOKE), [*SHORT, *overrides], directory / "runs")


@pytest.mark.flow
@pytest.mark.timeout(400)
def test_a_learner_killed_at_random_moments_ends_with_the_same_bits(tmp_path: Path) -> None:
    bench, rng = recovery(), random.Random(3)
    run = started(bench, tmp_path)
    try:
        for point in (12, 30, 37):
            assert run.wait(point)
            time.sleep(0.3 * rng.random())
            run.kill("learner")
        assert run.supervisor.wait(120) == 0
    finally:
        run.end()
    straight, final = bench.retrain(run.directory, tmp_path / "straight")
    figures = bench.compare(run.directory, straight)
    assert (figures["steps"], figures["different"]) == (42, 0)
    # The last step of sft and all 18 of rlsp; one more when the first kill came after a checkpoint and before its report,
    # because the learner that restarts publishes the weights of that checkpoint.
    assert figures["published"] in (19, 20)
    assert figures["learners"] >= 3
    assert bench.files(run.directory / "final") == final
    assert len(final) == 1
    assert bench.compare(run.directory, dict.fromkeys(straight, "sha256:0"))["different"] >= 19


LEARNER = """
import sys
from pathlib import Path
from rlsp_async.errors import FencedError
from rlsp_async.learning import learner as module
from tests.learning.small import Shelf, jobs, run_config
root, model, incarnation, num = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
cfg = run_config(root)
made = module.Learner(cfg, model, cfg.directory, incarnation=incarnation)
if num == 0:
    made.train(jobs()[0])
    print("ready", flush=True)
    sys.stdin.readline()
try:
    for job in jobs()[made.step:]:
        made.train(job)
except FencedError as e:
    print(f"fenced: {e}", flush=True)
"""


@pytest.mark.flow
@pytest.mark.timeout(120)
def test_a_learner_that_was_stopped_writes_nothing_after_a_newer_one_worked(tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    from rlsp_async.weights.file import remove_published
    from tests.learning.small import run_config, tiny_config

    model = tmp_path / "model"
    LlamaForCausalLM(tiny_config()).save_pretrained(model)
    command = [sys.executable, "-c", LEARNER, str(tmp_path / "runs"), str(model)]
    options: dict[str, Any] = {
        "cwd": ROOT,
        "text": True,
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "env": {**os.environ, "PYTHONPATH": str(ROOT)},
    }
    (tmp_path / "runs").mkdir()
    with subprocess.Popen([*command, "5", "0"], **options) as older:
        assert older.stdout is not None
        assert older.stdout.readline() == "ready\n"
        older.send_signal(signal.SIGSTOP)
        newer = subprocess.run([*command, "6", "1"], cwd=ROOT, env=options["env"], timeout=60, check=False)
        assert newer.returncode == 0
        before = tree(tmp_path / "runs")
        assert any("v000006-6" in name for name in weights_of(tmp_path / "runs"))
        older.send_signal(signal.SIGCONT)
        said = older.communicate("go on\n", timeout=60)[0]
    assert said.startswith("fenced: ")
    assert "a newer start of the learner (6) has taken over" in said
    assert tree(tmp_path / "runs") == before
    assert not any("-5." in name for name in weights_of(tmp_path / "runs"))
    remove_published(run_config(tmp_path / "runs"))
    assert FencedError.exit_code == 2


def tree(directory: Path) -> dict[str, tuple[int, int]]:
    """Every file with its time of change and its inode."""
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in sorted(directory.rglob("*"))}


def weights_of(runs: Path) -> list[str]:
    """Files that the learners of this run have published."""
    from rlsp_async.weights.file import choose_directory
    from tests.learning.small import run_config

    return sorted(path.name for path in choose_directory(run_config(runs), 1).iterdir())
