"""One hub for each run directory, by a lock that ends with its process; and the measurement of the room on the disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlsp_async.errors import MachineError
from rlsp_async.replay.server import RunLock, measure
from tests.replay.line import config
from tests.replay.test_server import FakeRouter, server

HOLDER = """
import sys
from pathlib import Path
from rlsp_async.replay.server import RunLock
lock = RunLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def hold(directory: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock until its stdin ends or it is killed."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": "."},
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


async def test_second_hub_is_refused_by_the_pid_of_the_first_and_touches_nothing(tmp_path):
    cfg = config(runs_dir=str(tmp_path))
    first = hold(cfg.directory)
    with pytest.raises(MachineError, match=rf"a hub is at work on this run already \(pid {first.pid} on "):
        await server(cfg).run(FakeRouter)
    assert [path.name for path in cfg.directory.iterdir()] == ["hub.lock"]
    first.kill()  # kill -9: nobody tidies up
    first.communicate()
    await server(cfg).run(FakeRouter)
    RunLock(cfg.directory).close()  # a hub that ended has given it back


def test_lock_is_not_inherited_by_what_a_hub_starts(tmp_path):
    lock = RunLock(tmp_path)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    lock.close()
    RunLock(tmp_path).close()
    child.communicate(b"\n")


def test_directory_that_cannot_be_locked_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="cannot be written"):
        RunLock(tmp_path / "file")


def test_measure_counts_the_journal_and_its_log(tmp_path):
    for name, num_bytes in (("journal.sqlite", 300), ("journal.sqlite-wal", 20), ("journal.sqlite-shm", 1), ("x", 9)):
        (tmp_path / name).write_bytes(b"x" * num_bytes)
    free_bytes, journal_bytes = measure(tmp_path)
    assert journal_bytes == 321
    assert free_bytes > 0
    with pytest.raises(MachineError, match="cannot be written"):
        measure(tmp_path / "absent")
