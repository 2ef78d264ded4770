"""The pulse: what stands still is named, whether the process is stopped, its loop is blocked, or a work thread."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rlsp_async import pulse
from rlsp_async.errors import MachineError
from rlsp_async.pulse import Beat, HeldJobs, Part, Pulse

ROOT = Path(__file__).parents[1]
SETTINGS = """name = "t"
runs_dir = "{runs}"
[replay]
lease_s = 0.5
stall_s = 1.0
timeout_s = 0.4
heartbeat_s = 0.1
[stages.rlsp]
"""


def test_the_first_part_beyond_its_bound_is_named() -> None:
    beat = Beat(pid=7, parts=[Part("the event loop", 100.0, 120.0), Part("thread learner_0", 50.0, 150.0)])
    assert pulse.still(beat, 200.0) == ""
    assert pulse.still(beat, 201.0) == "process 7: thread learner_0 has not moved for 151 s (bound 150 s)"
    assert pulse.still(beat, 221.0).startswith("process 7: the event loop has not moved for 121 s")


def test_a_work_thread_counts_while_it_is_called_and_moves_while_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(pulse.PULSE, raising=False)
    begun, computes, computed, ends = (threading.Event() for _ in range(4))

    def work() -> None:
        begun.set()
        computes.wait()
        used_s = time.thread_time()
        while time.thread_time() - used_s < 10 * pulse.USED_S:
            pass
        computed.set()
        ends.wait()

    process = Pulse(150.0)
    thread = threading.Thread(target=pulse.watched, args=(work,), name="w_0")
    thread.start()
    try:
        begun.wait()
        (_, first) = process.parts(1e9)  # what it used until now is counted at the first look
        (loop, part) = process.parts(2e9)
        assert (loop, part) == (Part("the event loop", 2e9, 120.0), Part("thread w_0", first.moved_s, 150.0))
        computes.set()
        computed.wait()
        assert process.parts(3e9)[1].moved_s == 3e9
        assert process.parts(4e9)[1].moved_s == 3e9
    finally:
        for event in (computes, ends):
            event.set()
        thread.join()
    assert len(process.parts(5e9)) == 1


async def test_jobs_count_while_one_is_held_and_move_when_one_begins_or_ends() -> None:
    now = [0.0]
    jobs = HeldJobs(lambda: now[0])
    process = Pulse(150.0, jobs, 600.0)
    gates = [asyncio.Event(), asyncio.Event()]
    handler = jobs.counted(lambda number: gates[number].wait())
    tasks = []
    for number in (0, 1):
        now[0] += 1.0
        tasks.append(asyncio.create_task(handler(number)))
        await asyncio.sleep(0)
    assert process.parts(9.0)[1] == Part("every job", 2.0, 600.0)
    now[0] = 5.0
    gates[0].set()
    await tasks[0]
    assert process.parts(9.0)[1] == Part("every job", 5.0, 600.0)
    gates[1].set()
    await tasks[1]
    assert len(process.parts(9.0)) == 1


def test_the_file_is_written_in_place_and_keeps_its_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p"
    monkeypatch.setenv(pulse.PULSE, str(path))
    process = Pulse(1.0)
    inode = path.stat().st_ino
    process.beat()
    assert (path.stat().st_ino, path.stat().st_size) == (inode, 1024)
    beat = pulse.read(path)
    assert beat is not None and beat.pid == os.getpid()
    assert pulse.read(tmp_path / "none") is None
    monkeypatch.setenv(pulse.PULSE, str(tmp_path / "no" / "p"))
    with pytest.raises(MachineError, match="no/p: cannot be written"):
        Pulse(1.0)


@contextmanager
def service(tmp_path: Path, body: str) -> Iterator[subprocess.Popen[bytes]]:
    """A service whose loop may be still for half a second only."""
    (tmp_path / "run.toml").write_text(SETTINGS.format(runs=tmp_path))
    lines = [
        "import asyncio, time",
        "from rlsp_async import pulse",
        "from rlsp_async.service import serve, in_thread",
        f"pulse.LOOP_S, pulse.BEAT_S = {'0.5' if 'thread' not in body else '60.0'}, 0.05",
        "async def main(cfg, service):",
        f"    {body}",
        "    await asyncio.sleep(600)",
        "serve('sampler', main)",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), pulse.PULSE: str(tmp_path / "pulse")}
    process = subprocess.Popen([sys.executable, "-c", "\n".join(lines), str(tmp_path / "run.toml")], env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def said(tmp_path: Path) -> str:
    beat = pulse.read(tmp_path / "pulse")
    return "no pulse" if beat is None else pulse.still(beat, time.monotonic())


def until(condition: Callable[[], bool], bound_s: float = 40.0) -> None:
    deadline = time.monotonic() + bound_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def probe(tmp_path: Path) -> tuple[int, str]:
    """As the kubelet runs it."""
    done = subprocess.run(
        [sys.executable, "-m", "rlsp_async.pulse"],
        env=os.environ | {"PYTHONPATH": str(ROOT), pulse.PULSE: str(tmp_path / "pulse")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_a_stopped_process_has_no_pulse_until_it_goes_on(tmp_path: Path) -> None:
    assert probe(tmp_path) == (1, f"no pulse in {tmp_path / 'pulse'}: no service has started here\n")
    with service(tmp_path, "pass") as process:
        until(lambda: said(tmp_path) == "")
        process.send_signal(signal.SIGSTOP)
        until(lambda: said(tmp_path).startswith(f"process {process.pid}: the event loop has not moved"))
        code, text = probe(tmp_path)
        assert (code, text.startswith(f"process {process.pid}: the event loop")) == (1, True)
        process.send_signal(signal.SIGCONT)
        until(lambda: said(tmp_path) == "")


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ("await asyncio.sleep(0.3); time.sleep(600)", "the event loop"),
        ("await in_thread(time.sleep, 'engine')(600)", "thread engine_0"),
    ],
)
def test_a_blocked_loop_and_a_stuck_thread_have_no_pulse(tmp_path: Path, body: str, part: str) -> None:
    with service(tmp_path, body):
        until(lambda: part in said(tmp_path))
