"""Does a run that was killed end with the same weights as one that was not, and how soon does each service come back?

    python benchmarks/recovery.py bits  launch/configs/ops_cpu.toml --kills 20     kill the learner at 20 random points
    python benchmarks/recovery.py times launch/configs/ops_cpu.toml --kills 3      kill each service three times
    python benchmarks/recovery.py bits  launch/configs/ops_cpu_smoke.toml --kills 5 stages.rlsp.steps=60

`bits`: the run continues after each kill -9. When it is over, its batches are read back from the journal, and a learner
that is never interrupted trains on them from the initial model. Every published version, including those published a
second time, and the final model must have the same SHA-256 (exit code 1 otherwise). `times`: seconds from the kill
until the service's new process runs (the supervisor's pause, the interpreter), until the hub has welcomed it (imports,
model or engine, hello), and until the next step is reported.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rlsp_async import config  # noqa: E402
from rlsp_async.config import RunConfig  # noqa: E402

ROLES = ("replay", "sampler", "verifier", "learner")
WAIT_S = 240.0
ONLINE = {"replay": "listening"}
"""The log event with which a service can work; the other services log `welcome`, when the hub has accepted them."""


def main() -> int:
    args = _arguments()
    run = start(args.config, args.overrides, args.out)
    print(f"run {run.directory}", flush=True)
    try:
        if args.what == "times":
            return _times(run, args)
        return _bits(run, args)
    finally:
        run.end()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["bits", "times"])
    parser.add_argument("config", metavar="CONFIG")
    parser.add_argument("overrides", metavar="key=value", nargs="*", default=[])
    parser.add_argument("--kills", type=int, default=20, help="of the learner (bits), of each service (times)")
    parser.add_argument("--seed", type=int, default=0, help="of the times of the kills")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "recovery", help="must not exist yet")
    args, rest = parser.parse_known_args()
    args.overrides += rest
    return args


# --- a run and its processes ---------------------------------------------------------------------------------------


class Run:
    """A run seen from outside: its journal, its logs, its processes."""

    def __init__(self, cfg: RunConfig, supervisor: subprocess.Popen[bytes]) -> None:
        self.cfg, self.directory, self.supervisor = cfg, cfg.directory, supervisor

    def step(self) -> int:
        """The newest step in the journal; 0 before the first."""
        try:
            with closing(sqlite3.connect(f"file:{self.directory / 'journal.sqlite'}?mode=ro", uri=True)) as db:
                return int(db.execute("SELECT coalesce(max(step), 0) FROM steps").fetchone()[0])
        except sqlite3.OperationalError:
            return 0

    def wait(self, step: int) -> bool:
        """Waits until that step is in the journal. False: the run was over before."""
        deadline = time.monotonic() + WAIT_S
        while self.step() < step:
            if self.supervisor.poll() is not None:
                return False
            if time.monotonic() > deadline:
                raise SystemExit(f"step {step} did not come within {WAIT_S:.0f} s; see {self.directory}")
            time.sleep(0.02)
        return True

    def kill(self, role: str) -> float:
        """Kills the role's present process with SIGKILL; returns the time (seconds since 1970)."""
        pid = self.pid(role)
        now = time.time()
        if pid:
            os.kill(pid, signal.SIGKILL)
        return now

    def pid(self, role: str) -> int:
        """The pid of the supervisor's child with that role; 0 while there is none."""
        children = Path(f"/proc/{self.supervisor.pid}/task/{self.supervisor.pid}/children").read_text().split()
        for child in children:
            try:
                words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            except FileNotFoundError:
                continue
            if role.encode() in words:
                return int(child)
        return 0

    def logged(self, role: str, event: str, after: float) -> float | None:
        """The time of the first log line with that event after a time (seconds since 1970); None without one."""
        for line in (self.directory / "logs" / f"{role}-0.jsonl").read_text(errors="replace").splitlines():
            row = json.loads(line) if line.endswith("}") else {}
            if row.get("event") == event:
                at = datetime.datetime.fromisoformat(row["time"]).timestamp()
                if at > after:
                    return at
        return None

    def end(self) -> None:
        """Stops the run if it is still going on."""
        if self.supervisor.poll() is None:
            self.supervisor.send_signal(signal.SIGINT)
            try:
                self.supervisor.wait(60)
            except subprocess.TimeoutExpired:
                self.supervisor.kill()


def start(config_file: str, overrides: list[str], out_dir: Path) -> Run:
    """Starts `rlsp run`, with its run directory in `out_dir`. Every checkpoint is kept, so the hub forgets no batch."""
    overrides = [*overrides, f"runs_dir={out_dir}", "learner.keep_checkpoints=1000", "learner.device=cpu"]
    cfg = config.load(config_file, overrides)
    if cfg.directory.exists():
        raise SystemExit(f"{cfg.directory} is there; remove it, or choose another --out")
    out_dir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "rlsp_async.cli", "run", config_file, *overrides]
    with (out_dir / f"{cfg.name}.out").open("wb") as out:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return Run(cfg, subprocess.Popen(command, stdout=out, stderr=out, env=environment))


# --- bits ----------------------------------------------------------------------------------------------------------


def _bits(run: Run, args: argparse.Namespace) -> int:
    rng = random.Random(args.seed)
    last = sum(stage.steps for stage in run.cfg.stages.values())
    num_kills = 0
    for point in sorted(rng.randrange(1, last) for _ in range(args.kills)):
        # One step of progress since the last kill; otherwise the supervisor sees a crash loop.
        if not run.wait(max(point, run.step() + 1)):
            break
        time.sleep(1.0 + rng.random())  # also within the steps that are trained again
        num_kills += bool(run.pid("learner"))
        run.kill("learner")
        print(f"kill {num_kills} of {args.kills} at step {run.step()} of {last}", flush=True)
        time.sleep(0.3)
    code = run.supervisor.wait(WAIT_S * 4)
    if code:
        raise SystemExit(f"the run ended with exit code {code}; see {args.out / (run.cfg.name + '.out')}")
    began = time.monotonic()
    straight, final = retrain(run.directory, args.out / "straight")
    return report(run.directory, straight, final, num_kills, time.monotonic() - began)


def retrain(directory: Path, scratch: Path) -> tuple[dict[int, str], dict[str, bytes]]:
    """Trains one uninterrupted learner on the batches of the journal.

    Returns: the digests by version, and the weight files of its final model.
    """
    from rlsp_async.learning.learner import Learner
    from rlsp_async.messages import Batch, TrainJob
    from rlsp_async.replay.journal import Journal
    from rlsp_async.replay.records import Manifest
    from rlsp_async.weights.place import remove_published

    cfg = config.load(directory / "config.toml", [f"runs_dir={scratch}"])
    shutil.rmtree(scratch, ignore_errors=True)
    cfg.directory.mkdir(parents=True)
    with (
        closing(sqlite3.connect(directory / "journal.sqlite")) as db,
        closing(sqlite3.connect(cfg.directory / "journal.sqlite")) as copy,
    ):
        db.backup(copy)
        rows = db.execute("SELECT manifest FROM manifests ORDER BY step").fetchall()
    journal = Journal(cfg.directory / "journal.sqlite", cfg)
    learner = Learner(cfg, directory / "model", cfg.directory, incarnation=1)
    digests = {}
    for manifest in [msgspec.msgpack.decode(row[0], type=Manifest) for row in rows]:
        batch = Batch(
            stage=manifest.stage,
            step=manifest.step,
            groups=journal.batch(manifest.step),
            last_of_stage=manifest.last_of_stage,
            stage_step=manifest.stage_step,
        )
        made = learner.train(TrainJob(batch=batch))
        digests[manifest.step] = made.weights.digest if made.weights else ""
    journal.close()
    learner.on_stop()
    remove_published(cfg)
    return digests, files(cfg.directory / "final")


def files(final: Path) -> dict[str, bytes]:
    """The weights of a final model."""
    return {path.name: path.read_bytes() for path in sorted(final.glob("*.safetensors"))}


def compare(directory: Path, straight: dict[int, str]) -> dict[str, int]:
    """Compares the digests in the journal, first and repeated, with those of the uninterrupted learner."""
    with closing(sqlite3.connect(directory / "journal.sqlite")) as db:
        first = db.execute("SELECT step, digest FROM steps ORDER BY step").fetchall()
        again = db.execute("SELECT step, digest FROM repeats ORDER BY seq").fetchall()
        starts = db.execute("SELECT count(DISTINCT incarnation) FROM steps").fetchone()[0]
    different = [step for step, digest in [*first, *again] if digest and digest != straight[step]]
    return {
        "steps": len(first),
        "published": sum(bool(digest) for _, digest in first),
        "trained_again": len(again),
        "published_again": sum(bool(digest) for _, digest in again),
        "learners": starts,
        "different": len(different),
    }


def report(directory: Path, straight: dict[int, str], final: dict[str, bytes], num_kills: int, seconds: float) -> int:
    """Prints the table. Returns the exit code: 1 when a digest differs."""
    figures: dict[str, Any] = {
        "kills": num_kills,
        **compare(directory, straight),
        "final_is_the_same": files(directory / "final") == final,
        "retrained_in_s": round(seconds, 1),
    }
    for name, value in figures.items():
        print(f"  {name.replace('_', ' '):<20} {value}")
    return int(bool(figures["different"]) or not figures["final_is_the_same"])


# --- times ---------------------------------------------------------------------------------------------------------


def _times(run: Run, args: argparse.Namespace) -> int:
    rng = random.Random(args.seed)
    run.wait(_first_step_of_rollouts(run.cfg) + 2)
    rows = []
    for role in [role for role in ROLES for _ in range(args.kills)]:
        time.sleep(1.0 + rng.random())
        rows.append((role, *_recovery(run, role)))
        print("  {:<9} process {:5.2f} s   online {:5.2f} s   next step {:5.2f} s".format(*rows[-1]), flush=True)
    print(f"\n{'killed':<9} {'process':>8} {'online':>8} {'next step':>10}    (median seconds after the kill)")
    for role in ROLES:
        mine = [row[1:] for row in rows if row[0] == role]
        middle = [sorted(column)[len(mine) // 2] for column in zip(*mine, strict=True)]
        print(f"{role:<9} {middle[0]:8.2f} {middle[1]:8.2f} {middle[2]:10.2f}")
    return 0


def _first_step_of_rollouts(cfg: RunConfig) -> int:
    step = 0
    for stage in cfg.stages.values():
        if stage.source == "rollouts":
            break
        step += stage.steps
    return step


def _recovery(run: Run, role: str) -> tuple[float, float, float]:
    """Seconds from the kill until the new process runs, until it can work, and until the next step is trained."""
    killed = run.kill(role)
    process = _await(run, role, "started", killed)
    online = _await(run, role, ONLINE.get(role, "welcome"), process)
    step = run.step()
    if not run.wait(step + 1):
        raise SystemExit("the run was over too soon: give it more steps")
    return process - killed, online - killed, time.time() - killed


def _await(run: Run, role: str, event: str, after: float) -> float:
    deadline = time.monotonic() + WAIT_S
    while (at := run.logged(role, event, after)) is None:
        if time.monotonic() > deadline or run.supervisor.poll() is not None:
            raise SystemExit(f"{role}: no {event!r} after the kill; see {run.directory / 'logs'}")
        time.sleep(0.02)
    return at


if __name__ == "__main__":
    raise SystemExit(main())
