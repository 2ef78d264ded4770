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
