"""How much does the hub carry, and what does one more worker cost it?

    python benchmarks/hub.py                       all parts, about 4 minutes
    python benchmarks/hub.py --part workers        sizes | workers | latency
    python benchmarks/hub.py --smoke               about 10 s

A real hub process (router, ledger, journal) on real sockets; all workers are stubs in one other process (stubs.py), so
what is measured is the hub alone. A group counts when its whole life is on disk: issued, sampled, verified, in a
manifest, trained. Each repeat runs all arms one after the other, then the next repeat does, with bare ZeroMQ and bare
SQLite in between (floors.py), so that ratios hold on a machine whose speed changes. The CPU time a group costs the hub
is the steadiest figure. Tables hold the median and, in brackets, the range.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from floors import echo_per_s, sqlite_per_s
from hubproc import NAME, HubProcess
from stubs import Outcome, Plan, frame_bytes

from rlsp_async.report.svg import Series, line_chart

HERE = Path(__file__).resolve().parent
FLAT = 2.0
"""A group costs at most so many times as much with 1,000 workers as with 10."""
IN_FLIGHT = 1000
DRIVER_S = 60.0

Arm = dict[str, Any]
Row = dict[str, Any]


def main() -> int:
    args = _arguments()
    arms = [arm for part, make in PARTS.items() if args.part in (part, "all") for arm in make(args)]
    directory = Path(tempfile.mkdtemp(prefix="rlsp-bench-", dir=args.dir))
    try:
        runs = [_run_arm(arm, args, directory / "run") for _ in range(args.repeats) for arm in arms]
    finally:
        shutil.rmtree(directory)
    rows = [
        _summary(arm, [run for run, of in zip(runs, arms * args.repeats, strict=True) if of is arm]) for arm in arms
    ]
    for part in PARTS:
        if any(row["part"] == part for row in rows):
            print(_table(part, [row for row in rows if row["part"] == part]), flush=True)
    print(
        f"load average {' '.join(f'{load:.2f}' for load in os.getloadavg())}, {os.cpu_count()} cores, "
        f"{args.repeats} repeats of {args.seconds:g} s"
    )
    if args.json:
        args.json.write_text(json.dumps({"rows": rows, "runs": runs}, indent=1) + "\n")
    if args.out:
        args.out.write_text(_chart(rows) + "\n")
    return _judge(rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=[*PARTS, "all"], default="all")
    parser.add_argument("--smoke", action="store_true", help="10 and 200 workers once, about 10 s")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="measured in each arm, after the warm-up")
    parser.add_argument("--warm", type=float, default=1.0, help="seconds")
    parser.add_argument("--json", type=Path, help="every figure of every repeat")
    parser.add_argument("--out", type=Path, help="chart, e.g. docs/hub.svg")
    parser.add_argument("--dir", type=Path, help="where the journals lie while it runs (on the disk that counts)")
    args = parser.parse_args()
    if args.smoke:
        args.part, args.repeats, args.seconds = "workers", 1, 2.0
    return args


# --- arms ----------------------------------------------------------------------------------------------------------


def _sizes(args: argparse.Namespace) -> list[Arm]:
    """Bodies of 1, 5 and 100 KB a rollout, groups of one and of eight, both durabilities; the sampler leg alone."""
    arms = [{"durability": "power", "rollouts": n, "bytes": size} for size in (1_000, 5_000, 100_000) for n in (1, 8)]
    arms += [{"durability": "process", "rollouts": n, "bytes": 5_000} for n in (1, 8)]
    arms += [{"durability": "power", "rollouts": n, "bytes": 5_000, "leg": "sampled"} for n in (1, 8)]
    return [{"part": "sizes", "workers": 8, "floors": True, **arm} for arm in arms]


def _workers(args: argparse.Namespace) -> list[Arm]:
    """The same credit in all, spread over more and more samplers."""
    return [
        {"part": "workers", "workers": num, "rollouts": 1, "bytes": 5_000, "durability": "power"}
        for num in ((10, 200) if args.smoke else (1, 10, 100, 1000))
    ]


def _latency(args: argparse.Namespace) -> list[Arm]:
    """Samplers that answer 200 groups a second in all: the hub is not the bottleneck."""
    return [
        {"part": "latency", "workers": num, "rollouts": 1, "bytes": 5_000, "durability": "power", "rate": 200.0}
        for num in (1, 10, 100, 1000)
    ]


PARTS = {"sizes": _sizes, "workers": _workers, "latency": _latency}


def _run_arm(arm: Arm, args: argparse.Namespace, directory: Path) -> Row:
    """One hub, one set of stubs, one measurement."""
    is_big = arm["bytes"] >= 100_000
    in_flight = 100 if arm["bytes"] >= 100_000 else IN_FLIGHT
    is_leg = arm.get("leg") == "sampled"
    per_step = 8 if is_big else 64
    slots = 40_000 if is_leg else 4096 if "rate" in arm else in_flight + per_step  # few: no leg runs ahead
    load = os.getloadavg()[0]
    with HubProcess(
        directory,
        durability=arm["durability"],
        rollouts=arm["rollouts"],
        groups_per_step=per_step,
        target_lag=slots // per_step - 1,
    ) as hub:
        plan = Plan(
            address=hub.address,
            run=NAME,
            pid=hub.pid,
            samplers=arm["workers"],
            verifiers=0 if is_leg else 2,
            learners=0 if is_leg else 1,
            sampler_credit=max(1, in_flight // arm["workers"]),
            verifier_credit=in_flight // 2,
            rollout_bytes=arm["bytes"],
            warm_s=args.warm,
            seconds=args.seconds,
            rate=arm.get("rate", 0.0),
        )
        outcome = _drive(plan)
    if not outcome.total_sampled:
        raise SystemExit(f"the hub acknowledged nothing: {arm}")
    shutil.rmtree(directory)
    groups = outcome.sampled if is_leg else min(outcome.sampled, outcome.verified, outcome.steps * per_step)
    row: Row = {
        "groups_per_s": groups / outcome.seconds,
        "rollouts_per_s": groups * arm["rollouts"] / outcome.seconds,
        "cpu_us": 1e6 * outcome.hub_cpu_s / max(1, groups),
        "hub_cores": outcome.hub_cpu_s / outcome.seconds,
        "stub_cores": outcome.own_cpu_s / outcome.seconds,
        "load": load,
        **_quantiles("ack", outcome.ack_s),
        **_quantiles("lease", outcome.lease_s),
        **_quantiles("hello", outcome.hello_s),
    }
    if arm.get("floors"):
        row.update(_floors(arm, row["groups_per_s"], directory.parent))
    return row


def _drive(plan: Plan) -> Outcome:
    command = [sys.executable, str(HERE / "stubs.py"), msgspec.json.encode(plan).decode()]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(
        command, stdout=subprocess.PIPE, check=True, timeout=plan.warm_s + plan.seconds + DRIVER_S, env=environment
    )
    return msgspec.json.decode(done.stdout, type=Outcome)


def _floors(arm: Arm, groups_per_s: float, directory: Path) -> Row:
    frame = frame_bytes(arm["rollouts"], arm["bytes"])
    echo, sqlite = echo_per_s(frame, 0.4), sqlite_per_s(frame, 0.4, directory)
    return {
        "frame_bytes": len(frame),
        "echo_per_s": echo,
        "sqlite_per_s": sqlite,
        "of_echo": groups_per_s / echo,
        "of_sqlite": groups_per_s / sqlite,
    }


def _quantiles(name: str, seconds: list[float]) -> Row:
    """p50 and p99 in ms."""
    if len(seconds) < 2:
        value = 1e3 * seconds[0] if seconds else float("nan")
        return {f"{name}_p50_ms": value, f"{name}_p99_ms": value}
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {f"{name}_p50_ms": 1e3 * cuts[49], f"{name}_p99_ms": 1e3 * cuts[98]}


# --- what is said --------------------------------------------------------------------------------------------------


def _summary(arm: Arm, runs: list[Row]) -> Row:
    """Median, lowest and highest of each figure."""
    figures = {}
    for name in runs[0]:
        values = sorted(run[name] for run in runs)
        figures[name] = [statistics.median(values), values[0], values[-1]]
    return {**arm, "figures": figures}


COLUMNS = {
    "sizes": ("groups_per_s", "rollouts_per_s", "cpu_us", "hub_cores", "of_echo", "of_sqlite", "ack_p50_ms"),
    "workers": ("groups_per_s", "cpu_us", "hub_cores", "ack_p50_ms", "ack_p99_ms", "hello_p50_ms", "hello_p99_ms"),
    "latency": ("groups_per_s", "cpu_us", "lease_p50_ms", "lease_p99_ms", "ack_p50_ms", "ack_p99_ms"),
}


def _table(part: str, rows: list[Row]) -> str:
    lines = [
        PARTS[part].__doc__ or "",
        f"{'workers':>7} {'bytes':>7} {'G':>2} {'durable':<8}{'life':<8} "
        + " ".join(f"{name:>22}" for name in COLUMNS[part]),
    ]
    for row in rows:
        cells = " ".join(f"{_cell(row['figures'].get(name)):>22}" for name in COLUMNS[part])
        lines.append(
            f"{row['workers']:>7} {row['bytes']:>7} {row['rollouts']:>2} {row['durability']:<8}"
            f"{row.get('leg', 'whole'):<8} {cells}"
        )
    return "\n".join(lines) + "\n"


def _cell(values: list[float] | None) -> str:
    if values is None:
        return "-"
    digits = [f"{value:.0f}" if value >= 100 else f"{value:.3g}" for value in values]
    return f"{digits[0]} ({digits[1]}..{digits[2]})"


def _chart(rows: list[Row]) -> str:
    """CPU time of a group over the number of workers, when that part ran."""
    points = [(float(row["workers"]), row["figures"]["cpu_us"][0]) for row in rows if row["part"] == "workers"]
    return line_chart("Hub CPU time per group, microseconds", [Series("cpu_us", points)], x_name="workers")


def _judge(rows: list[Row]) -> int:
    """1 when a group costs the hub more with more workers."""
    cost = {row["workers"]: row["figures"]["cpu_us"][0] for row in rows if row["part"] == "workers"}
    if 10 not in cost:
        return 0
    most = max(cost)
    ok = cost[most] <= FLAT * cost[10]
    print(
        f"{'flat' if ok else 'NOT flat'}: a group costs {cost[10]:.0f} us of CPU with 10 workers, "
        f"{cost[most]:.0f} us with {most} ({cost[most] / cost[10]:.2f} times; bar {FLAT:g})"
    )
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
