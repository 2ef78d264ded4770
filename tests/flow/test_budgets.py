"""What cannot succeed stops by itself with its exit code and one line, and goes on once its cause is mended."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flow import stub

pytestmark = [pytest.mark.flow, pytest.mark.timeout(300)]


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


FULL_DISK = """
import json, subprocess, sys
from pathlib import Path
from rlsp_async.chaos.machine import fill_disk, mount_small_disk
from rlsp_async.errors import MachineError
from tests.flow import stub
disk, model = Path(sys.argv[1]), Path(sys.argv[2])
try:
    mount_small_disk(disk, 96)
except MachineError as e:
    sys.exit(json.dumps({"skip": str(e)}))
stub.write_modules(disk / "home", verifier_s=0.02)
run = stub.stub_run(disk / "home", model, "stages.rl.steps=60")
process = subprocess.Popen([*stub.RLSP, "run", "--resume", str(run)], cwd=disk, env=stub.environment(run), text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
try:
    stub.wait_for(lambda: stub.last_step(run) >= 3 or process.poll() is not None, "step 3")
    ballast = fill_disk(disk)
    output, errors = process.communicate(timeout=120)
    full = subprocess.CompletedProcess([], process.returncode, output, errors)
finally:
    process.kill()
steps = stub.last_step(run)
ballast.unlink()
again = stub.resumed(run)
stub.audited(run)
print(json.dumps({"code": full.returncode, "said": stub.said(full), "steps": steps, "again": again.returncode,
                  "why": again.stderr, "trained": stub.last_step(run)}))
"""


def test_a_full_disk_stops_the_run_with_one_line_and_with_room_it_goes_on(tmp_path: Path, model: Path) -> None:
    """The disk is a small one of its own: a tmpfs, mounted for one child process."""
    (disk := tmp_path / "disk").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(disk), str(model)],
        cwd=stub.ROOT,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(stub.ROOT)},
        capture_output=True,
        timeout=280,
    )
    if done.stderr.startswith('{"skip"'):
        pytest.skip(json.loads(done.stderr)["skip"])
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["code"] == 2, found
    [line] = found["said"]
    assert line.startswith(f"rlsp: {disk}/home/runs/stub")
    assert any(words in line for words in ("full", "No space left on device")), line
    assert 3 <= found["steps"] < 60, "the disk was full too late"
    assert (found["again"], found["trained"]) == (0, 60), found["why"]
