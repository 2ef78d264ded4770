"""A process whose wall clock is set from outside: at once, over restarts, with monotonic clocks as they were."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from rlsp_async.chaos.clocks import Clocks

SHOW = """
import sys, time
for line in sys.stdin:
    start = time.monotonic()
    print(time.time(), time.time_ns() / 1e9, time.clock_gettime(time.CLOCK_REALTIME), start, flush=True)
"""


def shown(process: subprocess.Popen[str]) -> tuple[list[float], float]:
    """How far the three wall clocks of a process are off, in hours, and its monotonic clock in seconds."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    *walls, monotonic = map(float, process.stdout.readline().split())
    return [round((wall - time.time()) / 3600.0, 2) for wall in walls], monotonic - time.monotonic()


def start(clocks: Clocks, *words: str, path: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SHOW, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=clocks.environment({**os.environ, "PYTHONPATH": path}),
    )


def test_each_process_follows_its_own_clock_at_once_and_after_a_restart(tmp_path: Path):
    clocks = Clocks(tmp_path)
    with start(clocks, "--worker", "sampler-0") as sampler, start(clocks, "--worker", "sampler-9") as other:
        assert shown(sampler)[0] == shown(other)[0] == [0.0, 0.0, 0.0]
        clocks.set("sampler-0", -3600.0)
        walls, drift_s = shown(sampler)
        assert walls == [-1.0, -1.0, -1.0] and abs(drift_s) < 60.0
        assert shown(other)[0] == [0.0, 0.0, 0.0]
        clocks.set("", 86400.0)
        assert shown(sampler)[0] == shown(other)[0] == [24.0, 24.0, 24.0]
        sampler.kill()
        with start(clocks, "--worker", "sampler-0") as again:
            assert shown(again)[0] == [24.0, 24.0, 24.0]
            again.kill()
        other.kill()


def test_what_a_process_starts_has_its_clock_and_another_sitecustomize_still_works(tmp_path: Path):
    clocks = Clocks(tmp_path / "clocks") if (tmp_path / "clocks").mkdir() is None else None
    assert clocks is not None
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "sitecustomize.py").write_text("import sys\nsys.mine = 7\n")
    clocks.set("verifier-0", 7200.0)
    code = "import subprocess, sys; print(sys.mine, flush=True); subprocess.run([sys.executable, '-c', 'import sys, time; print(sys.mine, time.time())'])"
    done = subprocess.run(
        [sys.executable, "-c", code, "--worker", "verifier-0"],
        env=clocks.environment({**os.environ, "PYTHONPATH": str(tmp_path / "own")}),
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = done.stdout.splitlines()
    assert (first, second.split()[0]) == ("7", "7")
    assert 1.9 < (float(second.split()[1]) - time.time()) / 3600.0 < 2.1


def test_without_the_variable_nothing_is_shifted(tmp_path: Path):
    clocks = Clocks(tmp_path)
    clocks.set("", 1e6)
    env = clocks.environment({**os.environ, "PYTHONPATH": ""})
    del env["RLSP_CHAOS_CLOCKS"]
    done = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"], env=env, capture_output=True, text=True, check=True
    )
    assert abs(float(done.stdout) - time.time()) < 100.0
