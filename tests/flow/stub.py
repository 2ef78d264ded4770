"""A line of real processes that is cheap: a stub engine, a model of a few thousand weights, and modules of the test's own.

RUN = stub_run(home, model, "stages.rl.steps=12")     as `rlsp run` prepares it, without the seconds that takes
done = resumed(RUN)                                   `rlsp run --resume RUN`, to its end
"""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from rlsp_async import config
from rlsp_async.chaos.machine import find_services, send_signal
from rlsp_async.jsonl import read_jsonl

ROOT = Path(__file__).parents[2]
RLSP = [sys.executable, "-m", "rlsp_async.cli"]
BOUND_S = 150.0

STUB = """
name = "stub"
[model.scratch]
hidden = 32
layers = 1
heads = 1
head_dim = 32
intermediate = 32
context = 128
[task]
name = "ops"
verifier = "mine.parity"
[sampling]
max_new_tokens = 16
rollouts = 2
[replay]
heartbeat_s = 0.5
timeout_s = 3.0
retention = "all"
durability = "process"
disk_reserve_mb = 0
[sampler]
engine = "scripted"
groups_in_flight = 8
[learner]
device = "cpu"
checkpoint_every = 4
[stages.rl]
steps = 12
groups_per_step = 2
[stages.rl.algorithm]
name = "mine.loss"
[stages.rl.optimizer]
lr = 1e-4
[evaluation]
prompts = 0
"""

LOSS = """
from rlsp_async.algos.reinforce import NEEDS, PRESETS, Config, advantages as _advantages, needs
from rlsp_async.algos import reinforce
import msgspec

BAD = {bad}
num_calls = 0


def advantages(cfg, batch):
    return _advantages(msgspec.structs.replace(cfg, drop_flat_groups=False), batch)


def token_loss(cfg, tokens):
    global num_calls
    num_calls += 1
    loss, stats = reinforce.token_loss(cfg, tokens)
    loss = loss - 0.01 * (tokens.share * tokens.logp).sum()
    return loss * float("nan") if num_calls >= BAD else loss, stats
"""
"""Finite for the first BAD - 1 updates of a process, then not a number."""

PARITY = """
import time
from rlsp_async.messages import Verdict

VERSION = "1"
LANE = "fast"


def score(prompt, response, answer):
    time.sleep({seconds})
    {first}
    right = float(sum(map(ord, response)) % 2)
    return Verdict(status="correct" if right else "wrong", parts={{"correct": right, "letters": float(len(response))}})
"""
"""Judges by the sum of the letters, so that half of what the stub says is right."""

NEVER = 1_000_000


def write_modules(home: Path, bad_update: int = NEVER, verifier_first: str = "", verifier_s: float = 0.0) -> None:
    """The package `mine` in `home`: a loss that is NaN from an update on, a verifier that does `verifier_first`."""
    mine = home / "mine"
    mine.mkdir(parents=True, exist_ok=True)
    (mine / "__init__.py").touch()
    (mine / "loss.py").write_text(LOSS.format(bad=bad_update))
    (mine / "parity.py").write_text(PARITY.format(first=verifier_first, seconds=verifier_s))


def stub_run(home: Path, model: Path, *overrides: str) -> Path:
    """A run directory that nobody has started yet. `model`: one that `prepare` made."""
    if not (home / "mine").exists():
        write_modules(home)
    (home / "stub.toml").write_text(STUB)
    cfg = config.load(home / "stub.toml", [f"runs_dir={home}/runs", f"learner.weights_dir={home}/weights", *overrides])
    (cfg.directory / "logs").mkdir(parents=True)
    shutil.copytree(model, cfg.directory / "model")
    (cfg.directory / "config.toml").write_text(config.to_toml(cfg))
    return cfg.directory


def environment(run: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{run.parents[1]}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }


def resumed(run: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """`rlsp run --resume RUN`, to its end."""
    return subprocess.run(
        [*RLSP, "run", "--resume", str(run), *overrides],
        cwd=run.parents[1],
        env=environment(run),
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )


@contextmanager
def running(run: Path, *overrides: str) -> Iterator[subprocess.Popen[str]]:
    """The same in the background; nothing of it is left behind."""
    out = run.with_suffix(".out")
    with out.open("a") as file:
        process = subprocess.Popen(
            [*RLSP, "run", "--resume", str(run), *overrides],
            cwd=run.parents[1],
            text=True,
            env=environment(run),
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=10)
        for pid in find_services(run / "config.toml").values():
            send_signal(pid, signal.SIGKILL)


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What it said on standard error for people, without the line that tells how to go on."""
    return [line for line in done.stderr.splitlines() if "what was done is kept" not in line]


def rows(run: Path, query: str) -> list[Any]:
    """Of the journal; empty while there is none."""
    path = run / "journal.sqlite"
    if not path.is_file():
        return []
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=2.0)
    try:
        return db.execute(query).fetchall()
    except sqlite3.OperationalError as e:
        if "no such table" in str(e):
            return []
        raise
    finally:
        db.close()


def last_step(run: Path) -> int:
    """Newest step of the journal."""
    found = rows(run, "SELECT max(step) FROM steps")
    return (found[0][0] or 0) if found else 0


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir() if path.name.startswith("step-"))


def audited(run: Path) -> None:
    """`rlsp audit RUN` finds nothing."""
    done = subprocess.run(
        [*RLSP, "audit", str(run)], env=environment(run), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def curve(run: Path) -> dict[int, dict[str, Any]]:
    """Step -> its line in metrics.jsonl; a step must be there once."""
    lines = [row for row in read_jsonl(run / "metrics.jsonl") if row["kind"] == "step"]
    found = {row["step"]: row for row in lines}
    assert len(found) == len(lines), "a step was counted twice"
    return found


def wait_for(condition: Callable[[], bool], what: str, bound_s: float = BOUND_S) -> None:
    deadline = time.monotonic() + bound_s
    while not condition():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.05)


def prepared_model(place: Path) -> Path:
    """The model directory of a stub run, made once for all tests."""
    write_modules(place)
    (place / "stub.toml").write_text(STUB)
    cfg = config.load(place / "stub.toml", [f"runs_dir={place}"])
    subprocess.run(
        [sys.executable, "-m", "rlsp_async.runner.prepare", str(cfg.directory)],
        input=config.to_toml(cfg),
        text=True,
        env=environment(place / "runs" / "x"),
        check=True,
        timeout=120,
    )
    return cfg.directory / "model"


def decoded(blob: bytes, kind: Any) -> Any:
    return msgspec.msgpack.decode(blob, type=kind)
