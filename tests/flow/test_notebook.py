"""`rlsp_async.run` as a notebook calls it: from a running event loop, interrupted, and from another thread."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.flow import stub

pytestmark = [pytest.mark.flow, pytest.mark.timeout(300)]

CELLS = """
import asyncio, os, signal, sys, threading, time
import rlsp_async as rl

signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a kernel, whatever the shell that runs this ignores
config = rl.load_config(sys.argv[1])
metrics = config.directory / "metrics.jsonl"


def interrupt():
    while not metrics.exists() or not metrics.read_bytes():
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)


async def cell():
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        rl.run(config)
    except KeyboardInterrupt as e:
        print("interrupted:", e)


asyncio.new_event_loop().run_until_complete(cell())
found = []
thread = threading.Thread(target=lambda: found.append(rl.run(config)))
thread.start()
thread.join()
print("finished:", found[0].report().finished, len(found[0].metrics()))
"""


def test_a_run_in_a_notebook_is_interrupted_and_goes_on_in_a_thread(tmp_path: Path, model: Path) -> None:
    stub.write_modules(tmp_path, verifier_s=0.02)
    run = stub.stub_run(tmp_path, model, "stages.rl.steps=40")
    done = subprocess.run(
        [sys.executable, "-c", CELLS, str(run / "config.toml")],
        cwd=tmp_path,
        env=stub.environment(run),
        capture_output=True,
        text=True,
        timeout=2 * stub.BOUND_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith(("interrupted:", "finished:"))]
    assert said[0].startswith("interrupted: stopped; what was done is kept in")
    assert said[1] == "finished: True 40"
    assert sorted(stub.curve(run)) == list(range(1, 41))
