"""Does anything grow when a stage stands still? Memory of every process and every queue of the hub, once a second.

    python benchmarks/memory.py --minutes 3        three scenarios of so many minutes
    python benchmarks/memory.py --smoke            about 30 s in all

Scenarios: `learner` and `verifiers` are frozen (SIGSTOP) after a few seconds of work; in `samplers` 1,000 of them work
against a learner that keeps up. A real hub process; each role is one process of stub workers (stubs.py). Passes when
the hub's memory and every queue have stopped growing, and the waiting samplers are shown as `waiting for credit`.

What is judged is the second half. A connection costs the hub 64 KiB once 512 messages have gone over it each way
(the chunks of its queues in ZeroMQ, tests/wire/test_growth.py); at the pace of `samplers` that takes 6 minutes: give it
12. Whoever looks for less time sees the queues being filled and takes it for a leak.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from hubproc import NAME, HubProcess
from stubs import Outcome, Plan

from rlsp_async.messages import Status
from rlsp_async.report.svg import Series, line_chart

HERE = Path(__file__).resolve().parent
WORK_S = 4.0
"""Before anything is frozen."""
TIMEOUT_S = 10.0
RATE = 400.0
"""Groups a second, in the scenario in which nothing is frozen."""
GROWTH = 0.05
"""Share of its size by which the hub may grow in the second half: noise of the allocator."""
SHOWN_S = 30
GROUPS_PER_STEP, TARGET_LAG = 64, 15
LEVELS = (
    "alive",
    "sampled",
    "ready",
    "training",
    "sampling",
    "verifying",
    "queue_sample",
    "queue_verify",
    "queue_train",
)


class Scenario(NamedTuple):
    """Who is frozen, and how many samplers there are."""

    name: str
    frozen: str
    samplers: int
    rate: float = 0.0


SCENARIOS = (
    Scenario("learner", "learner", 16),
    Scenario("verifiers", "verifier", 16),
    Scenario("samplers", "", 1000, RATE),
)

Row = dict[str, Any]


def main() -> int:
    args = _arguments()
    rows = []
    for scenario in [one for one in SCENARIOS if args.scenario in (one.name, "all")]:
        directory = Path(tempfile.mkdtemp(prefix="rlsp-memory-", dir=args.dir))
        try:
            rows.append(_run(scenario, args.seconds, directory))
        finally:
            shutil.rmtree(directory)
        print(_text(rows[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    if args.out:
        args.out.write_text(_chart(rows) + "\n")
    return 0 if all(not row["wrong"] for row in rows) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", choices=[*(one.name for one in SCENARIOS), "all"], default="all")
    parser.add_argument("--minutes", type=float, default=1.2, help="of each scenario")
    parser.add_argument("--smoke", action="store_true", help="10 s each")
    parser.add_argument("--json", type=Path, help="every figure of every second")
    parser.add_argument("--out", type=Path, help="chart, e.g. docs/memory.svg")
    parser.add_argument("--dir", type=Path, help="where the journals lie while it runs")
    args = parser.parse_args()
    args.seconds = 10.0 if args.smoke else 60 * args.minutes
    return args


def _run(scenario: Scenario, seconds: float, directory: Path) -> Row:
    """One hub and three processes of stubs; everything that was seen, and what is wrong with it."""
    with HubProcess(directory, groups_per_step=GROUPS_PER_STEP, target_lag=TARGET_LAG, timeout_s=TIMEOUT_S) as hub:
        common: dict[str, Any] = {
            "address": hub.address,
            "run": NAME,
            "samplers": 0,
            "verifiers": 0,
            "learners": 0,
            "warm_s": 0.0,
            "seconds": seconds,
        }
        fleets = {
            "learner": _start(Plan(**common | {"learners": 1})),
            "verifier": _start(Plan(**common | {"verifiers": 1, "verifier_credit": 256})),
            "sampler": _start(
                Plan(
                    **common
                    | {"samplers": scenario.samplers, "observers": 1, "sampler_credit": 4, "rate": scenario.rate}
                )
            ),
        }
        try:
            memory = _watch(
                {"hub": hub.pid, **{role: fleet.pid for role, fleet in fleets.items()}}, fleets, scenario, seconds
            )
            said, _ = fleets["sampler"].communicate(timeout=30)
        finally:
            for fleet in fleets.values():
                fleet.kill()
                fleet.wait()
    return _row(scenario, memory, msgspec.json.decode(said, type=Outcome).statuses)


def _start(plan: Plan) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(HERE / "stubs.py"), msgspec.json.encode(plan).decode()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(HERE.parent)})


def _watch(
    pids: dict[str, int], fleets: dict[str, subprocess.Popen[bytes]], scenario: Scenario, seconds: float
) -> dict[str, list[float]]:
    """MB of each process, once a second; freezes one on the way."""
    memory: dict[str, list[float]] = {role: [] for role in pids}
    start, is_frozen = time.monotonic(), False
    while time.monotonic() < start + seconds - 1:
        time.sleep(1.0)
        if scenario.frozen and not is_frozen and time.monotonic() > start + WORK_S:
            fleets[scenario.frozen].send_signal(signal.SIGSTOP)
            is_frozen = True
        for role, pid in pids.items():
            memory[role].append(_rss_mb(pid))
    return memory


def _rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


# --- what is said --------------------------------------------------------------------------------------------------


def _row(scenario: Scenario, memory: dict[str, list[float]], statuses: list[Status]) -> Row:
    half = memory["hub"][len(memory["hub"]) // 2 :]
    slope = _slope(half)
    capacity = statuses[-1].counts.get("capacity", GROUPS_PER_STEP * (TARGET_LAG + 1))
    highest = {name: max(status.counts.get(name, 0) for status in statuses) for name in LEVELS}
    last = statuses[-1]
    states = Counter(worker.state for worker in last.workers if worker.role == "sampler")
    wrong = []
    if slope * len(half) > GROWTH * statistics.mean(half):
        wrong.append(f"the hub grows by {60 * slope:.2f} MB a minute")
    if max(highest.values()) > capacity:
        wrong.append(f"a queue is longer than the {capacity} slots: {highest}")
    if scenario.frozen and set(states) != {"waiting_credit"}:
        wrong.append(f"the samplers are shown as {dict(states)}, not as waiting for credit")
    return {
        "scenario": scenario.name,
        "memory": memory,
        "levels": {name: [status.counts.get(name, 0) for status in statuses] for name in LEVELS},
        "mb": {role: [values[len(values) // 2], values[-1]] for role, values in memory.items()},
        "mb_per_minute": {role: 60 * _slope(values[len(values) // 2 :]) for role, values in memory.items()},
        "highest": highest,
        "states": dict(states),
        "trained": last.counts["trained"],
        "wrong": wrong,
    }


def _slope(values: list[float]) -> float:
    """Least squares, MB a second."""
    return statistics.linear_regression(range(len(values)), values).slope if len(values) > 1 else 0.0


def _text(row: Row) -> str:
    lines = [f"scenario {row['scenario']}: {len(row['memory']['hub'])} s, {row['trained']} groups trained"]
    lines += [
        f"  {role:<9} {mb[0]:>7.1f} MB at half time, {mb[1]:>7.1f} at the end, "
        f"{row['mb_per_minute'][role]:+7.2f} MB a minute in the second half"
        for role, mb in row["mb"].items()
    ]
    hub = row["memory"]["hub"]
    lines += [f"  hub, every {SHOWN_S} s: " + " ".join(f"{mb:.0f}" for mb in hub[SHOWN_S - 1 :: SHOWN_S])]
    lines += [
        "  highest   " + ", ".join(f"{name} {num}" for name, num in row["highest"].items()),
        "  samplers  "
        + ", ".join(f"{num} {state.replace('waiting_', 'waiting for ')}" for state, num in row["states"].items()),
        "  NOT as promised: " + "; ".join(row["wrong"]) if row["wrong"] else "  a plateau, as promised",
    ]
    return "\n".join(lines) + "\n"


def _chart(rows: list[Row]) -> str:
    series = [Series(row["scenario"], list(enumerate(row["memory"]["hub"], 1))) for row in rows]
    return line_chart("Hub memory, MB", series, x_name="seconds")


if __name__ == "__main__":
    sys.exit(main())
