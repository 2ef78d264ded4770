"""What a group costs the hub, part by part: CPU microseconds without sockets, the steadiest figures on a busy machine.

    python benchmarks/parts.py                         groups of one and of eight, 5 KB a rollout
    python benchmarks/parts.py --tree ../other         the same of another checkout, for a before and after

Frames in, frames out, in one process and one thread: decode -> Hub.hear -> Journal.commit -> encode -> write lines. The
stubs' own work is not counted. A group counts when it is trained. Sockets and threads come on top: see hub.py.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
CHUNK = 128
PARTS = ("decode", "hub", "commit", "encode", "lines")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, action="append", help="checkout to measure, may be repeated (this one)")
    parser.add_argument("--groups", type=int, default=3000, help="trained in each repeat, at least")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--of", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.of:
        print(" ".join(f"{value:.1f}" for value in _measure(args.of, args.groups)))
        return 0
    trees = args.tree or [HERE.parent]
    cases = [(num, tree) for num in (1, 8) for tree in trees]
    runs: dict[tuple[int, Path], list[list[float]]] = {case: [] for case in cases}
    for _ in range(args.repeats):
        for case in cases:
            runs[case].append(_in_tree(*case, args.groups))
    print(f"CPU us a group, median (lowest..highest) of {args.repeats}")
    for (num, tree), values in runs.items():
        columns = [*zip(*values, strict=True), [sum(one) for one in values]]
        cells = " ".join(
            f"{name} {median(column):.0f} ({min(column):.0f}..{max(column):.0f})"
            for name, column in zip((*PARTS, "sum"), columns, strict=True)
        )
        print(f"G={num} {tree}: {cells}")
    print(f"load average {' '.join(f'{load:.2f}' for load in os.getloadavg())}")
    return 0


def _in_tree(num_rollouts: int, tree: Path, num_groups: int) -> list[float]:
    command = [sys.executable, str(HERE / "parts.py"), "--of", str(num_rollouts), "--groups", str(num_groups)]
    environment = {**os.environ, "PYTHONPATH": str(tree.resolve()), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, timeout=300, env=environment)
    return [float(value) for value in done.stdout.split()]


def _measure(num_rollouts: int, num_groups: int) -> list[float]:
    """CPU us a group of each part, with the package that PYTHONPATH names."""
    directory = Path(tempfile.mkdtemp(prefix="rlsp-parts-"))
    try:
        return _play(num_rollouts, num_groups, directory)
    finally:
        shutil.rmtree(directory)


def _play(num_rollouts: int, num_groups: int, directory: Path) -> list[float]:
    from hubproc import CONFIG, FOREVER
    from stubs import Fleet, LeanWork, Plan, decode_lean

    from rlsp_async import config
    from rlsp_async.messages import Hello, Work
    from rlsp_async.replay.hub import Hub
    from rlsp_async.replay.journal import Journal
    from rlsp_async.replay.metrics import MetricLog
    from rlsp_async.tasks.base import load_task
    from rlsp_async.wire.codec import decode_from_hub, decode_from_worker, encode

    (directory / "config.toml").write_text(
        CONFIG.format(
            forever=FOREVER,
            groups_per_step=64,
            target_lag=15,
            rollouts=num_rollouts,
            durability="power",
            timeout_s=60.0,
        )
    )
    cfg = config.load(directory / "config.toml", [f"runs_dir={directory}"])
    journal, metric_log = Journal(cfg.directory / "journal.sqlite", cfg), MetricLog(cfg.directory)
    hub = Hub(cfg, load_task(cfg.task, cfg.seed), journal.load(), 0.0)
    answers = Fleet(Plan(address="inproc://nobody", run=cfg.name, samplers=0, verifiers=0, learners=0))
    crew = [("learner-0", 2), *((f"verifier-{i}", 500) for i in range(2)), *((f"sampler-{i}", 125) for i in range(8))]
    inbox = [
        (
            name.encode(),
            encode(
                Hello(
                    run=cfg.name,
                    role=name.partition("-")[0],
                    worker=name,  # type: ignore[arg-type]
                    credit=credit,
                    incarnation=1,
                    step=0 if name == "learner-0" else -1,
                    seq=1,
                )
            ),
        )
        for name, credit in crew
    ]
    cost: Counter[str] = Counter()
    now = 0.0
    while hub.state.ledger.trained < num_groups:
        now += 0.01
        marks = [time.process_time_ns()]
        arrived = [(peer, decode_from_worker(frame)) for peer, frame in inbox[:CHUNK]]
        marks.append(time.process_time_ns())
        todo = _hear(hub, arrived, now)
        marks.append(time.process_time_ns())
        journal.commit(todo.records)
        marks.append(time.process_time_ns())
        frames = [(peer, encode(message)) for peer, message in todo.sends]
        marks.append(time.process_time_ns())
        metric_log.write(todo.rows)
        marks.append(time.process_time_ns())
        for part, since, to in zip(PARTS, marks[:-1], marks[1:], strict=True):
            cost[part] += to - since
        said = [(peer, (decode_lean if peer == b"learner-0" else decode_from_hub)(frame)) for peer, frame in frames]
        inbox = inbox[CHUNK:] + [
            (peer, encode(answers.done_of(message))) for peer, message in said if isinstance(message, Work | LeanWork)
        ]
    journal.close()
    return [cost[part] / 1e3 / hub.state.ledger.trained for part in PARTS]


def _hear(hub: Any, arrived: list[tuple[bytes, Any]], now: float) -> Any:
    """Older checkouts hear one message at a time."""
    if hasattr(hub, "hear"):
        return hub.hear(arrived, now)
    from rlsp_async.replay.server import merge  # type: ignore[attr-defined]

    return merge([hub.on(peer, message, now) for peer, message in arrived])


if __name__ == "__main__":
    sys.exit(main())
