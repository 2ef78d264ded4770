"""Does any service of the real line grow when one of them stands still? `memory.py` with real workers.

    python benchmarks/line_memory.py --frozen learner --minutes 4
    python benchmarks/line_memory.py --frozen verifier --minutes 4

Hub, learner, verifier and two samplers as processes of their own (a small model, the scripted engine), no supervisor:
it would kill what is frozen and start it again. After `STEPS` steps one of them is stopped (SIGSTOP); the memory of all
is read once a second. Passes when none has grown in the second half and the samplers wait for credit.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from memory import GROWTH, Row, Scenario, _row, _rss_mb, _slope, _start, _text
from stubs import Outcome, Plan

ROOT = Path(__file__).resolve().parent.parent
NAME = "line"
CONFIG = ROOT / "launch" / "configs" / "chaos_cpu.toml"
SETTINGS = (
    f"name={NAME}",
    "sampler.engine=scripted",
    "stages.rlsp.steps=100000",
    "stages.sft.steps=5",
    "replay.stall_s=3600",
    "replay.heartbeat_s=1.0",
    "replay.timeout_s=10.0",
    "evaluation.prompts=0",
)
WORKERS = {"learner": "learner-0", "verifier": "verifier-0", "sampler": "sampler-0", "sampler2": "sampler-1"}
STEPS = 30
START_S = 120.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frozen", choices=["learner", "verifier", "nobody"], default="learner")
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--json", type=Path, help="every figure of every second")
    args = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="rlsp-line-"))
    try:
        row = _run(args.frozen, 60 * args.minutes, directory)
    finally:
        shutil.rmtree(directory)
    for role, values in row["memory"].items():
        half = values[len(values) // 2 :]
        if role != "hub" and _slope(half) * len(half) > GROWTH * half[0]:
            row["wrong"].append(f"{role} grows by {60 * _slope(half):.2f} MB a minute")
    print(_text(row), flush=True)
    if args.json:
        args.json.write_text(json.dumps(row, indent=1) + "\n")
    return 1 if row["wrong"] else 0


def _run(frozen: str, seconds: float, directory: Path) -> Row:
    _prepare(directory)
    services = {"hub": _service("replay", "replay-0", directory)}
    try:
        address = _address(directory)
        for role, worker in WORKERS.items():
            services[role] = _service(role.rstrip("2"), worker, directory)
        _wait(lambda: _num_steps(directory / NAME / "metrics.jsonl") >= STEPS, directory)
        if frozen != "nobody":
            services[frozen].send_signal(signal.SIGSTOP)
        observer = _start(
            Plan(
                address=address, run=NAME, samplers=0, verifiers=0, learners=0, observers=1, warm_s=0.0, seconds=seconds
            )
        )
        memory = _watch(services, seconds)
        said, _ = observer.communicate(timeout=30)
    finally:
        for process in services.values():
            process.kill()
            process.wait()
    scenario = Scenario(f"real line, {frozen} frozen", "" if frozen == "nobody" else frozen, 2)
    return _row(scenario, memory, msgspec.json.decode(said, type=Outcome).statuses)


def _prepare(directory: Path) -> None:
    """The model that the run begins with, as `rlsp run` makes it; in a process that ends, with torch."""
    code = (
        "import sys; from pathlib import Path; from rlsp_async.config import load; from rlsp_async.model import "
        "prepare_model; cfg = load(Path(sys.argv[1]), sys.argv[2:]); cfg.directory.mkdir(parents=True); "
        "prepare_model(cfg, cfg.directory / 'model')"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(CONFIG), f"runs_dir={directory}", *SETTINGS],
        check=True,
        timeout=START_S,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def _service(role: str, worker: str, directory: Path) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        str(ROOT / "services" / f"{role}.py"),
        str(CONFIG),
        f"runs_dir={directory}",
        *SETTINGS,
        "--worker",
        worker,
    ]
    with (directory / f"{worker}.log").open("wb") as log:
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )


def _address(directory: Path) -> str:
    path = directory / NAME / "hub.json"
    _wait(path.is_file, directory)
    return str(json.loads(path.read_text())["address"])


def _wait(so: Callable[[], bool], directory: Path) -> None:
    deadline = time.monotonic() + START_S
    while not so():
        if time.monotonic() > deadline:
            logs = "\n".join(path.read_text()[-500:] for path in sorted(directory.glob("*.log")))
            raise SystemExit(f"the line does not move:\n{logs}")
        time.sleep(0.1)


def _num_steps(metrics: Path) -> int:
    return metrics.read_bytes().count(b"\n") if metrics.is_file() else 0


def _watch(services: dict[str, subprocess.Popen[bytes]], seconds: float) -> dict[str, list[float]]:
    """MB of each process, once a second."""
    memory: dict[str, list[float]] = {role: [] for role in services}
    start = time.monotonic()
    while time.monotonic() < start + seconds - 1:
        time.sleep(1.0)
        for role, process in services.items():
            if process.poll() is not None:
                raise SystemExit(f"{role} has ended with {process.returncode}")
            memory[role].append(_rss_mb(process.pid))
    return memory


if __name__ == "__main__":
    sys.exit(main())
