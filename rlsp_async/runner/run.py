"""`rlsp run CONFIG`: check, prepare RUN, start the services, watch them, write the report.

    new run        everything is checked before anything is written; then RUN appears whole (prepare.py)
    interrupted    the same command continues it: the hub from its journal, the learner from its checkpoint
    finished       the same command shows the result again and trains nothing

Nobody else may run in the same RUN meanwhile (a lock, released by the kernel when the supervisor dies).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from rlsp_async import config
from rlsp_async.cli.show import show_run
from rlsp_async.config import RunConfig, load
from rlsp_async.errors import ConfigError, DataError, MachineError
from rlsp_async.keys import require_keys
from rlsp_async.messages import Status
from rlsp_async.model import ModelInfo, planned_model
from rlsp_async.preflight import estimate
from rlsp_async.preflight.check import refuse
from rlsp_async.report.report import write_report, write_status
from rlsp_async.report.text import bytes_text
from rlsp_async.runner.gpus import assign, visible
from rlsp_async.runner.resume import interrupted, is_finished, is_run, require_same, take_over
from rlsp_async.runner.supervise import End, Service, Supervisor, command, environment

TAIL_LINES = 25


def run(path: str, overrides: list[str]) -> int:
    """Trains, or continues, or shows; returns the exit code. Raises UserError before anything is written."""
    return _run(resolve(load(path, overrides)))


def resume(directory: str, overrides: list[str]) -> int:
    """`rlsp run --resume RUN`: continues what is in RUN with its own settings. Raises UserError when it is no run."""
    return _run(resolve(interrupted(Path(directory), overrides)))


def _run(cfg: RunConfig) -> int:
    directory, old = cfg.directory, is_run(cfg.directory)
    if old:
        changed = require_same(cfg, directory)
        if is_finished(directory):
            return show_run(directory, "finished already; another one: name=..., or remove the directory")
    check_machine(cfg)
    if not old:
        prepare(cfg)
    with locked(directory):
        if old:
            take_over(cfg, changed)
        return conclude(cfg, *asyncio.run(supervised(cfg)))


def resolve(cfg: RunConfig) -> RunConfig:
    """Paths (runs_dir, model.path, replay.keys, the verifier's file, path_* of options) made absolute: services start
    anywhere."""
    path, task = cfg.model.path, cfg.task
    if path and (Path(path).expanduser().exists() or os.sep in path):
        path = _absolute(path)
    verifier = _absolute(task.verifier) if task.verifier.endswith(".py") else task.verifier
    task = msgspec.structs.replace(
        task, options=_with_paths(task.options), verifier=verifier, verifier_options=_with_paths(task.verifier_options)
    )
    model = msgspec.structs.replace(cfg.model, path=path)
    keys = _absolute(cfg.replay.keys) if cfg.replay.keys else ""
    replay = msgspec.structs.replace(cfg.replay, keys=keys)
    return msgspec.structs.replace(cfg, runs_dir=_absolute(cfg.runs_dir), model=model, task=task, replay=replay)


def _with_paths(options: dict[str, Any]) -> dict[str, Any]:
    files: dict[str, Any] = {
        k: _absolute(v) for k, v in options.items() if k.startswith("path_") and isinstance(v, str) and v
    }
    match options.get("command"):
        case [str(program), *arguments] if os.sep in program:
            files["command"] = [_absolute(program), *arguments]
    return {**options, **files}


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve())


# --- before anything is written ------------------------------------------------------------------------------------


def check_machine(cfg: RunConfig) -> None:
    """Settings that cannot work, a missing model, a port in use, a full disk: raises UserError."""
    shape = planned_model(cfg)
    if shape is None and not (Path(cfg.model.path) / "config.json").is_file():
        raise DataError(
            f"model.path: {cfg.model.path}: no such model directory; give a local Hugging Face directory "
            "(config.json, *.safetensors, tokenizer.json)"
        )
    refuse(cfg, shape)
    require_keys(cfg)
    check_port(cfg.replay.address, cfg.replay.keys)
    if shape is not None:
        check_disk(cfg, shape)


def check_port(address: str, keys: str = "") -> None:
    """Raises ConfigError when it is no address, MachineError when it is taken or, without keys, open to others."""
    from rlsp_async.wire.auth import require_private  # loads zmq, which `rlsp --help` does without

    url = urlsplit(address)
    try:
        host, port = url.hostname, url.port
    except ValueError:
        host, port = None, None
    if url.scheme != "tcp" or not host or port is None:
        raise ConfigError(f"replay.address = {address!r}: write it like tcp://127.0.0.1:5555 (port 0: any free port)")
    require_private(address, has_keys=bool(keys))
    if not port:
        return
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as e:
            raise MachineError(
                f"replay.address = {address!r} cannot be used: {e.strerror}; choose another port, or 0 for any free one"
            ) from None


def check_disk(cfg: RunConfig, shape: ModelInfo) -> None:
    """Raises MachineError when RUN would not fit, or cannot be written at all."""
    runs = Path(cfg.runs_dir)
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise MachineError(f"runs_dir = {cfg.runs_dir!r} cannot be made: {e.strerror}") from None
    if not os.access(runs, os.W_OK):
        raise MachineError(f"runs_dir = {cfg.runs_dir!r} cannot be written")
    free, needed = shutil.disk_usage(runs).free, estimate.disk_bytes(cfg, shape)
    if free < needed:
        raise MachineError(
            f"{runs} has {bytes_text(free)} free, the run may need {bytes_text(needed)}; free some, or set "
            "runs_dir, learner.keep_checkpoints or learner.keep_weights"
        )


def prepare(cfg: RunConfig) -> None:
    """RUN with its model, by a process of its own, which says itself what is wrong. Raises SystemExit with its code."""
    print(f"preparing {cfg.directory}", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "rlsp_async.runner.prepare", str(cfg.directory)],
        check=False,
        input=config.to_toml(cfg).encode(),
        env=environment(1, os.environ),
    )
    if done.returncode:
        raise SystemExit(done.returncode)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds RUN for this process. Raises MachineError when another `rlsp run` has it."""
    with open(directory / "supervisor.lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise MachineError(f"{directory} is being run by another `rlsp run`; stop that one first") from None
        yield


# --- while it runs -------------------------------------------------------------------------------------------------


def services(cfg: RunConfig) -> list[Service]:
    """Every process of the run: hub, learner, samplers, verifiers."""
    run_config, logs = cfg.directory / "config.toml", cfg.directory / "logs"
    wanted = [
        ("replay", 1, 1),
        ("learner", 1, cfg.learner.threads),
        ("sampler", cfg.sampler.count, cfg.sampler.threads),
        ("verifier", cfg.verifier.count, 1),
    ]
    cards = assign(visible(os.environ), cfg.sampler.count, cfg.sampler.tensor_parallel)
    return [
        Service(
            name=f"{role}-{i}",
            role=role,
            command=command(role, run_config, f"{role}-{i}"),
            log=logs / f"{role}-{i}.out",
            threads=threads,
            cards=cards.get(f"{role}-{i}", ""),
        )
        for role, count, threads in wanted
        for i in range(count)
    ]


async def supervised(cfg: RunConfig) -> tuple[End, Status | None]:
    """Starts, shows, ends everything; `End.code` 0 means that the run is finished. With the last look at the hub."""
    from rlsp_async.logs import open_log
    from rlsp_async.runner.terminal import View
    from rlsp_async.runner.watch import watch

    with open_log(cfg.directory / "logs" / "supervisor.jsonl", role="supervisor", worker="supervisor"):
        view = View(cfg)
        supervisor = Supervisor(services(cfg), view.say, frozen_s=2 * cfg.replay.timeout_s)

        def seen(status: Status) -> None:
            supervisor.seen(status)
            view.update(status)

        _on_signals(_Stop(supervisor, view.say))
        tasks = [
            asyncio.create_task(watch(cfg, seen), name="watch"),
            asyncio.create_task(view.keep_showing(), name="show"),
        ]
        try:
            return await supervisor.run(), view.status
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            view.close()


def _on_signals(stop: _Stop) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.asked, number)


class _Stop:
    """First signal: drain. Second: kill."""

    def __init__(self, supervisor: Supervisor, say: Callable[[str], None]) -> None:
        self._supervisor, self._say = supervisor, say
        self._asked_at = 0.0

    def asked(self, number: int) -> None:
        """A signal arrived."""
        if self._asked_at:
            self._say("stopping at once")
            self._supervisor.kill()
            return
        self._asked_at = time.monotonic()
        code = 130 if number == signal.SIGINT else 128 + number
        self._say("stopping: the services finish what they hold (Ctrl-C again: at once)")
        self._supervisor.finish(code, "stopped")


# --- afterwards ----------------------------------------------------------------------------------------------------


def conclude(cfg: RunConfig, end: End, status: Status | None = None) -> int:
    """Report, table, clean-up; or the reason why not. Returns the exit code. Raises MachineError when a finished run
    has no room for its report."""
    from rlsp_async.weights.file import remove_published

    try:
        if status is not None:
            write_status(cfg.directory, status)
        write_report(cfg.directory, finished=end.code == 0)
    except MachineError as e:
        if end.code == 0:
            raise
        if end.code != e.exit_code:  # else the disk is why the run ended, and that is said below
            print(f"rlsp: {e}", file=sys.stderr)
    if end.code == 0:
        remove_published(cfg)
        return show_run(cfg.directory)
    if end.code == 1:
        print(_tail(cfg.directory / "logs" / f"{end.service}.out"), file=sys.stderr)
    print(f"rlsp: {end.reason}", file=sys.stderr)
    print(f"rlsp: what was done is kept; `rlsp run --resume {cfg.directory}` goes on from there", file=sys.stderr)
    return end.code


def _tail(log: Path) -> str:
    """The last lines of a service's output, where its traceback is."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    begins = [i for i, line in enumerate(lines) if line.startswith("Traceback")]
    return "\n".join(f"  {line}" for line in lines[max(begins[-1] - 1 if begins else 0, len(lines) - TAIL_LINES) :])
