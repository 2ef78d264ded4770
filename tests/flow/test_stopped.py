"""`rlsp run` that is told to stop, or is killed with everything it started, goes on as if nothing had been."""

import math
import shutil
import signal
from pathlib import Path

import pytest

from rlsp_async.chaos.machine import find_services, send_signal
from rlsp_async.messages import StepReport
from tests.flow import stub

pytestmark = [pytest.mark.flow, pytest.mark.timeout(300)]


def test_sigterm_saves_and_resume_goes_on_with_the_same_curve(tmp_path: Path, model: Path) -> None:
    stub.write_modules(tmp_path, verifier_s=0.02)
    run = stub.stub_run(
        tmp_path,
        model,
        "stages.rl.steps=90",
        "learner.checkpoint_every=7",
        "stages.rl.publish_every=8",
        "stages.rl.max_lag=8",
    )
    with stub.running(run) as process:
        stub.wait_for(lambda: stub.last_step(run) >= 10, "step 10")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=45) == 143
        assert find_services(run / "config.toml") == {}
    stopped_at = stub.last_step(run)
    assert 10 <= stopped_at < 90
    assert stub.checkpoints(run)[-1] == f"step-{stopped_at:08d}"
    before = stub.curve(run)
    assert sorted(before) == list(range(1, stopped_at + 1))
    shutil.rmtree(tmp_path / "weights")  # what a reboot does to memory, most likely between two published versions
    with stub.running(run) as process:  # this time everything is killed at once
        stub.wait_for(
            lambda: stub.last_step(run) % 7 >= 4 and stub.last_step(run) > stopped_at + 7, "a step between checkpoints"
        )
        process.kill()
        for pid in find_services(run / "config.toml").values():
            send_signal(pid, signal.SIGKILL)
    again = stub.rows(run, "SELECT DISTINCT step FROM repeats")
    assert again == [(stopped_at,)], "what was saved was trained again, or its weights were not made again"
    done = stub.resumed(run)
    assert done.returncode == 0, done.stdout + done.stderr
    after = stub.curve(run)
    assert {step: after[step] for step in before} == before
    check_repeats(run)
    stub.audited(run)


def check_repeats(run: Path) -> None:
    """Steps after the checkpoint that the last start began from were trained again, to the same loss and weights. The
    one that the second start began from was published then, most likely for the first time."""
    first = {
        step: (stub.decoded(report, StepReport).metrics["loss"], digest)
        for step, report, digest in stub.rows(run, "SELECT step, report, digest FROM steps")
    }
    assert sorted(first) == list(range(1, 91))
    again = {step: (loss, digest) for step, loss, digest in stub.rows(run, "SELECT step, loss, digest FROM repeats")}
    assert len(again) >= 3
    assert {step: loss for step, (loss, _) in again.items()} == {step: first[step][0] for step in again}
    assert all(digest == first[step][1] for step, (_, digest) in again.items() if digest and first[step][1])
    assert all(math.isfinite(loss) and loss != 0.0 for loss, _ in again.values())
