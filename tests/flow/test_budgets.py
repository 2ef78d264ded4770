"""What cannot succeed stops by itself with its exit code and one line, and goes on once its cause is mended."""

from pathlib import Path

import pytest

from tests.flow import stub

pytestmark = [pytest.mark.flow, pytest.mark.timeout(120)]


def test_a_loss_that_is_nan_stops_the_run_and_nothing_of_the_step_is_kept(tmp_path: Path, model: Path) -> None:
    stub.write_modules(tmp_path, bad_update=7)
    run = stub.stub_run(tmp_path, model)
    done = stub.resumed(run)
    assert done.returncode == 3, done.stdout + done.stderr
    assert stub.said(done) == ["rlsp: stage 'rl', step 7: the loss is nan; lower the learning rate"]
    assert stub.last_step(run) == 6
    assert stub.checkpoints(run) == ["step-00000004"]
    assert max(path.name for path in (tmp_path / "weights").rglob("v*")) < "v000007"
    stub.write_modules(tmp_path)
    done = stub.resumed(run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(stub.curve(run)) == list(range(1, 13))
    stub.audited(run)


def test_a_verifier_that_always_errs_stops_the_run_and_is_named(tmp_path: Path, model: Path) -> None:
    stub.write_modules(tmp_path, verifier_first="raise ValueError('no such key: gold')")
    run = stub.stub_run(tmp_path, model)
    done = stub.resumed(run)
    assert done.returncode == 3, done.stdout + done.stderr
    [line] = stub.said(done)
    assert line.startswith("rlsp: stage rl: 50 of the last 50 groups failed, more than replay.failures_per_100 = 20; ")
    assert line.endswith(": verdict of parity/1 on rollout 0: error: ValueError: no such key: gold")
    assert stub.last_step(run) == 0
    reasons = stub.rows(run, "SELECT DISTINCT state, reason, uses FROM groups WHERE dead = 1")
    assert reasons == [("dropped", "verifier_error", 0)]
    stub.audited(run)
    stub.write_modules(tmp_path)
    done = stub.resumed(run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(stub.curve(run)) == list(range(1, 13))
    stub.audited(run)
