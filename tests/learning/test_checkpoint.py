"""A checkpoint is complete or absent; a damaged one is logged and not used; an older start of the learner writes
nothing."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import structlog
import torch

from rlsp_async.errors import DataError, FencedError
from rlsp_async.learning import checkpoint
from rlsp_async.learning.fence import WriteFence
from rlsp_async.starts import StartCounter

ROOT = Path(__file__).parents[2]
NUM_KILLS = 50


def save(directory, step, keep=2, fence=None):
    tensors = {"a": torch.full((2, 3), float(step))}
    return checkpoint.save(directory, checkpoint.Checkpoint(step, tensors, {"stage": "rl"}), keep, fence)


def names(directory):
    return sorted(path.name for path in directory.iterdir() if not path.name.startswith("OWNER"))


def test_what_is_saved_comes_back(tmp_path):
    place = save(tmp_path, 12)
    assert place.name == "step-00000012"
    assert sorted(p.name for p in place.iterdir()) == ["DONE", "state.json", "tensors.safetensors"]
    found = checkpoint.load_newest(tmp_path)
    assert (found.step, found.state["stage"]) == (12, "rl")
    assert torch.equal(found.tensors["a"], torch.full((2, 3), 12.0))


def test_only_the_newest_stay(tmp_path):
    for step in (1, 2, 10):
        save(tmp_path, step)
    assert names(tmp_path) == ["step-00000002", "step-00000010"]


# --- damage --------------------------------------------------------------------------------------------------------


def cut(content):
    return content[:-9]


def flip_a_bit(content):
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


def empty(_):
    return b""


def another_json(_):
    return b'["tensors.safetensors"]'


FILES = ("tensors.safetensors", "state.json", "DONE")


@pytest.mark.parametrize("damage", FILES)
@pytest.mark.parametrize("harm", [cut, flip_a_bit, empty, another_json, None])
def test_a_damaged_checkpoint_is_passed_over_and_said(tmp_path, damage, harm):
    save(tmp_path, 1)
    broken = save(tmp_path, 2) / damage
    if harm is None:
        broken.unlink()
    else:
        broken.write_bytes(harm(broken.read_bytes()))
    with structlog.testing.capture_logs() as lines:
        assert checkpoint.load_newest(tmp_path).step == 1
    assert [line["event"] for line in lines] == ["checkpoint_damaged"]
    assert "step-00000002" in lines[0]["path"]
    assert lines[0]["error"]


def test_a_damaged_one_gives_up_its_name_and_goes_when_enough_are_kept(tmp_path):
    save(tmp_path, 1)
    (save(tmp_path, 2) / "DONE").unlink()
    checkpoint.load_newest(tmp_path)
    assert names(tmp_path) == [".step-00000002.damaged", "step-00000001"]
    save(tmp_path, 2)
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_when_all_are_damaged_nothing_starts_over_silently(tmp_path):
    (save(tmp_path, 1) / "DONE").unlink()
    (save(tmp_path, 2) / "state.json").write_text("{}")
    with pytest.raises(DataError) as caught:
        checkpoint.load_newest(tmp_path)
    text = str(caught.value)
    assert "no checkpoint can be loaded (step-00000002: state.json does not have the digest" in text
    assert text.endswith("put back a copy of one, or give the run another name to begin again")
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_no_directory_is_no_checkpoint(tmp_path):
    assert checkpoint.load_newest(tmp_path / "none") is None


# --- kills ---------------------------------------------------------------------------------------------------------

LOOP = """
import os, sys
from pathlib import Path
import torch
from rlsp_async.learning import checkpoint
from rlsp_async.learning.fence import WriteFence

directory = Path(sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:  # one fork for each kill: torch is imported once
    child = os.fork()
    if child == 0:
        fence = WriteFence(directory, int(line))
        fence.claim()
        fence.sweep([directory])
        found = checkpoint.load_newest(directory)
        step = found.step if found else 0
        while True:
            step += 1
            os.write(1, b"saving\\n")
            tensors = {str(i): torch.full((300, 300), float(step)) for i in range(4)}
            checkpoint.save(directory, checkpoint.Checkpoint(step, tensors, {}), 2, fence)
            (directory / "SAVED.new").write_text(str(step))
            os.replace(directory / "SAVED.new", directory / "SAVED")  # never torn
    print(child, flush=True)
    os.waitpid(child, 0)
    print("dead", flush=True)
"""


def test_a_kill_at_any_moment_leaves_the_newest_or_the_one_before_it(tmp_path):
    rng = random.Random(7)
    steps = []
    with subprocess.Popen(
        [sys.executable, "-c", LOOP, str(tmp_path)],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as parent:
        parent.stdout.readline()
        for number in range(NUM_KILLS):
            print(number + 1, file=parent.stdin, flush=True)
            child, begun = 0, 0
            while not child or begun < (2 if number == 0 else rng.randint(1, 3)):
                line = parent.stdout.readline()
                child, begun = (child, begun + 1) if line == "saving\n" else (int(line), begun)
            time.sleep(rng.uniform(0.0, 0.02))  # into the save that has begun
            os.kill(child, signal.SIGKILL)
            while parent.stdout.readline() != "dead\n":
                continue
            text = (tmp_path / "SAVED").read_text()
            copy = tmp_path.with_name(f"copy{number}")
            shutil.copytree(tmp_path, copy)
            step = checkpoint.load_newest(copy).step
            shutil.rmtree(copy)
            before = max([int(text), *steps])  # SAVED itself may be late by one
            assert step in (before, before + 1)
            steps.append(step)
        parent.stdin.close()
    assert steps == sorted(steps)
    assert len(set(steps)) > NUM_KILLS / 5  # most lives made progress, and each ended while a save was in progress
    fence = WriteFence(tmp_path, NUM_KILLS + 1)
    fence.sweep([tmp_path])
    assert len([name for name in names(tmp_path) if name.startswith(".")]) == 0


@pytest.mark.parametrize("killed_at", range(1, 4))
def test_a_kill_between_two_renames_loses_nothing(tmp_path, monkeypatch, killed_at):
    """The same step saved again: the older directory is set aside, then comes back or is removed."""
    save(tmp_path, 1)
    place = save(tmp_path, 2)
    calls = []
    for name in ("replace", "rename"):
        real = getattr(Path, name)

        def counted(self, target, real=real):
            calls.append(self.name)
            if len(calls) == killed_at:
                raise KeyboardInterrupt
            return real(self, target)

        monkeypatch.setattr(Path, name, counted)
    if killed_at < 3:
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 2)
    else:
        save(tmp_path, 2)
    monkeypatch.undo()
    WriteFence(tmp_path, 1).sweep([tmp_path])
    assert checkpoint.load_newest(tmp_path).step == 2
    assert names(tmp_path) == ["step-00000001", place.name]


def test_what_a_killed_writer_left_is_swept(tmp_path):
    save(tmp_path, 3)
    for name in (".step-00000004.17.tmp", ".step-00000001.gone", ".step-00000003.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.json").write_text("{")
    assert checkpoint.load_newest(tmp_path).step == 3
    WriteFence(tmp_path, 18).sweep([tmp_path])
    assert names(tmp_path) == ["step-00000003"]


# --- fencing -------------------------------------------------------------------------------------------------------


def test_an_older_start_saves_nothing(tmp_path):
    older, newer = WriteFence(tmp_path, 5), WriteFence(tmp_path, 6)
    older.claim()
    save(tmp_path, 1, fence=older)
    newer.claim()
    with pytest.raises(FencedError, match=r"a newer start of the learner \(6\) has taken over"):
        save(tmp_path, 2, fence=older)
    with pytest.raises(FencedError):
        older.claim()
    assert names(tmp_path)[-1] == "step-00000001"
    save(tmp_path, 2, fence=newer)


def test_a_writer_that_was_stopped_after_its_check_has_nothing_to_rename(tmp_path, monkeypatch):
    """SIGSTOP comes between the check and the rename; a newer start claims the run and saves; then SIGCONT."""
    older, newer = WriteFence(tmp_path, 5), WriteFence(tmp_path, 6)
    older.claim()
    save(tmp_path, 1, fence=older)
    check = WriteFence.check

    def stopped_here(self):
        check(self)
        monkeypatch.undo()
        newer.claim()
        newer.sweep([tmp_path])
        save(tmp_path, 2, fence=newer)

    monkeypatch.setattr(WriteFence, "check", stopped_here)
    with pytest.raises(FencedError):
        save(tmp_path, 2, fence=older)
    assert names(tmp_path) == ["step-00000001", "step-00000002"]
    assert checkpoint.load_newest(tmp_path).step == 2


def test_a_clock_that_was_set_back_does_not_lock_the_run(tmp_path):
    future = time.time_ns() + 10**15  # an older version took its numbers from the clock
    WriteFence(tmp_path / "checkpoints", future).claim()
    late = WriteFence(tmp_path / "checkpoints", StartCounter(tmp_path).next())
    late.claim()
    assert late.holder() == late.incarnation == future + 1
    late.check()


@pytest.mark.parametrize("clock_ns", [0, 10**9, 2**62])
def test_no_clock_decides_who_may_write(tmp_path, monkeypatch, clock_ns):
    monkeypatch.setattr(time, "time_ns", lambda: clock_ns)
    monkeypatch.setattr(time, "time", lambda: clock_ns / 1e9)
    newer = WriteFence(tmp_path, 2**61)
    newer.claim()
    with pytest.raises(FencedError, match="newer start of the learner"):
        WriteFence(tmp_path, 7).claim()
    assert newer.holder() == 2**61


def test_a_torn_owner_file_is_written_again(tmp_path):
    (tmp_path / "OWNER").write_bytes(b"\xff\x00")
    fence = WriteFence(tmp_path, 3)
    fence.claim()
    assert fence.holder() == 3


@pytest.mark.parametrize("number", ["9999999999999999999", "9" * 40, str(2**63 - 1)])
def test_an_owner_with_a_number_that_no_start_has_is_one_sentence(tmp_path, number):
    (tmp_path / "OWNER").write_text(number)
    with pytest.raises(DataError, match="OWNER holds .* remove the file"):
        WriteFence(tmp_path, 3).claim()


def test_a_learner_by_hand_claims_nothing_while_another_process_is_at_work(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from rlsp_async.learning.fence import WriteFence;"
        "fence = WriteFence(Path(sys.argv[1]), 5); fence.claim(); print('at work', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as at_work:
        assert at_work.stdout.readline() == "at work\n"
        with pytest.raises(FencedError, match="a learner is at work on this run already"):
            WriteFence(tmp_path, 9).claim(alone=True)
        assert (tmp_path / "OWNER").read_text() == "5\n"
        WriteFence(tmp_path, 6).claim()  # the run's own newer start takes over even from one that is frozen
        at_work.kill()
    WriteFence(tmp_path, 10).claim(alone=True)
