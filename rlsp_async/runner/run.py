"""`rlsp run CONFIG`: check, prepare RUN, start the services, watch them, write the report.

    new run        everything is checked before anything is written; then RUN appears whole (prepare.py)
    interrupted    the same command continues it: the hub from its journal, the learner from its checkpoint
    finished       the same command shows the result again and trains nothing

Only one `rlsp run` may work in a RUN at a time (a lock, which the kernel releases when the supervisor dies).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

import msgspec

from rlsp_async import config
from rlsp_async.config import RunConfig, load
from rlsp_async.contents import printable
from rlsp_async.errors import ConfigError, DataError, MachineError, UserError
from rlsp_async.messages import Status
from rlsp_async.model import ModelInfo, planned_model
from rlsp_async.preflight import estimate
from rlsp_async.preflight.inputs import require_keys, require_memory
from rlsp_async.preflight.settings import refuse
from rlsp_async.pulse import Pulse
from rlsp_async.replay.plan import needs_sampler
from rlsp_async.report.text import bytes_text, print_report
from rlsp_async.report.write import load_report, write_report, write_status
from rlsp_async.runner.gpus import GPU_THREADS, assign_gpus, fill_count, gpu_environment, idle_gpus, visible_gpus
from rlsp_async.runner.resume import find_damage, is_finished, is_run, load_interrupted, require_same, take_over
from rlsp_async.runner.supervise import RunEnd, ServiceProcess, Supervisor, service_command, service_environment
from rlsp_async.starts import StartCounter
from rlsp_async.weights.place import find_place, remove_published

LOST = (
    "they belong to different runs, or the journal lost its end",
    "an older checkpoint than the kept ones was loaded",
)
"""What the hub says when no further start can succeed."""
LOOK_EVERY_S = 0.5
"""Pause between two looks at whether RUN is still where it was."""
FILES = 48
"""Open files of any service, besides those below: libraries, logs, sockets, the journal (a hub with 4 peers has 35)."""
FILES_A_CHECKER = 8
"""Open files of a verifier for each of its processes."""
ENGINE_FILES = 256
"""Open files of a sampler with vLLM."""
TAIL_LINES = 25
"""Lines of a service's output that are shown after a bug."""


def run(path: str, overrides: list[str]) -> int:
    """Trains, continues an interrupted run, or shows a finished one.

    Args:
        path: the config file.
        overrides: `key=value` words.

    Returns: the exit code. Raises: UserError before anything is written.
    """
    return _run(resolve(load(path, overrides)))


def resume(directory: str, overrides: list[str]) -> int:
    """`rlsp run --resume RUN`: continues what is in RUN with its own settings. Raises UserError when it is no run."""
    return _run(resolve(load_interrupted(Path(directory), overrides)))


def _run(cfg: RunConfig) -> int:
    end = train(cfg)
    if end.code == 0:
        return show_result(cfg.directory, end.reason)
    if end.code == 1:
        print(_tail(cfg.directory / "logs" / f"{end.service}.out"), file=sys.stderr)
    print(f"rlsp: {end.reason}", file=sys.stderr)
    if (cfg.directory / "config.toml").is_file():
        print(f"rlsp: {what_is_kept(cfg.directory, end.reason, end.service)}", file=sys.stderr)
    return end.code


def what_is_kept(directory: Path, reason: str = "", service: str = "") -> str:
    """One sentence about how a run goes on that has ended early: by --resume where that can succeed.

    It cannot with a damaged journal or one that lost its end, when the learner's checkpoint is newer than the journal
    or older than its batches (`reason` is then the hub's), or when the checkpoints of a run that saved some are gone.
    A learner that died again and again (`service`) may do so again: what is in its batch stays the same.
    """
    wrong = find_damage(directory) or next(
        (f"its journal does not fit ({sign})" for sign in LOST if sign in reason), ""
    )
    if wrong:
        return f"{directory} cannot go on as it is: {wrong}; restore it from a copy, or start anew under another name"
    if service.startswith("learner") and " times in a row" in reason:
        return (
            f"what was done is kept; `rlsp run --resume {directory}` tries the same step again, with the same batch: "
            "if the learner dies there again, give it more memory or another device, or start anew under another name"
        )
    return f"what was done is kept; `rlsp run --resume {directory}` goes on from there"


def train(cfg: RunConfig, stop: StopRequest | None = None) -> RunEnd:
    """Trains a new run, or continues an interrupted one; leaves a finished one as it is. Blocks until the run is over.

    Args:
        cfg: the settings, paths resolved (`resolve`).
        stop: with it another thread may stop the run. Signals are handled in the main thread alone.

    Returns: how the run ended; code 0: it is finished and its report is written.
    Raises: UserError before anything is written.
    """
    directory, old = cfg.directory, is_run(cfg.directory)
    if old:
        changed = require_same(cfg, directory)
        if is_finished(directory):
            return RunEnd(0, "finished already; another one: name=..., or remove the directory")
    check_machine(cfg)
    if not old:
        prepare(cfg)
    with locked(directory):
        if old:
            take_over(cfg, changed)
        end, status = asyncio.run(supervised(cfg, stop))
        if end.reason == moved(directory):
            return end  # nothing is written or removed where the run was
        if not old and is_refusal(cfg, end, status):
            discard(cfg)
        else:
            conclude(cfg, end, status)
    return end


def is_refusal(cfg: RunConfig, end: RunEnd, status: Status | None) -> bool:
    """Whether a service refused the settings or the machine (exit code 2) before anything was sampled or trained."""
    if end.code != UserError.exit_code or status is None or status.step:
        return end.code == UserError.exit_code and status is None
    demonstrated = next(iter(cfg.stages.values())).source == "demonstrations"  # they cost nothing: not sampled
    return not (status.tokens.get("evaluated") if demonstrated else sum(status.tokens.values()))


def discard(cfg: RunConfig) -> None:
    """Removes RUN and its published weights: nothing was done, and the name is free again."""
    remove_published(cfg)
    shutil.rmtree(cfg.directory, ignore_errors=True)


def resolve(cfg: RunConfig) -> RunConfig:
    """Makes paths absolute, because services may start in any directory; `sampler.count = 0` becomes a number.

    The paths are runs_dir, model.path, replay.keys, learner.weights_dir, the verifier's file, and options that begin
    with path_.
    """
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
    weights = _absolute(cfg.learner.weights_dir) if cfg.learner.weights_dir else ""
    learner = msgspec.structs.replace(cfg.learner, weights_dir=weights)
    cfg = msgspec.structs.replace(
        cfg, runs_dir=_absolute(cfg.runs_dir), model=model, task=task, replay=replay, learner=learner
    )
    return fill_count(cfg, visible_gpus(os.environ))


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
    """Raises UserError for settings that cannot work, a missing model, unfit keys, a port in use, a full disk.

    Prints where versions are published when that is not where they usually are.
    """
    shape = planned_model(cfg)
    if shape is None and not (Path(cfg.model.path) / "config.json").is_file():
        raise DataError(
            f"model.path: {cfg.model.path}: no such model directory; give a local Hugging Face directory "
            "(config.json, *.safetensors, tokenizer.json). Nothing is downloaded here; fetch it first, for example "
            "with `hf download NAME --local-dir DIR`"
        )
    refuse(cfg, shape)
    check_gpus(cfg)
    require_keys(cfg)
    check_files(cfg)
    check_port(cfg.replay.address, cfg.replay.keys)
    if shape is not None:
        require_memory(cfg, shape)
        check_disk(cfg, shape)
        place = find_place(cfg, estimate.version_bytes(cfg, shape))
        if place.why:
            print(f"rlsp: {place.why}: versions are published to {place.directory}", flush=True)


def check_files(cfg: RunConfig) -> None:
    """Raises the limit of open files to what the services need, as far as the machine lets it.

    Raises MachineError when it does not.
    """
    needed = files_needed(cfg)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise MachineError(
            f"a process may open {hard} files on this machine (ulimit -Hn), and a service of this run needs up to "
            f"{needed}: raise that limit, e.g. `ulimit -n 1024`, LimitNOFILE= of systemd, --ulimit nofile= of docker"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def files_needed(cfg: RunConfig) -> int:
    """Open files of the service that needs most: the hub has one for each worker, a verifier some for each of its
    processes, and an engine many."""
    num_workers = 1 + cfg.sampler.count + cfg.verifier.count
    engine = ENGINE_FILES if cfg.sampler.engine == "vllm" else 0
    return max(FILES + 2 * num_workers, FILES + FILES_A_CHECKER * cfg.verifier.processes, engine)


def check_gpus(cfg: RunConfig) -> None:
    """Names the GPUs that no service gets. Raises ConfigError when the services want more GPUs than there are."""
    gpus = visible_gpus(os.environ)
    if idle := idle_gpus(gpus, assign_gpus(gpus, cfg)):
        print(
            f"rlsp: {len(idle)} of {len(gpus)} GPUs ({', '.join(idle)}) stay idle: raise sampler.count or "
            "sampler.tensor_parallel to use them"
        )


def check_port(address: str, keys: str = "") -> None:
    """Checks that the hub can listen to an address.

    Raises ConfigError when it is malformed, MachineError when it is in use or, without keys, open to other machines.
    """
    from rlsp_async.wire.auth import require_private  # loads zmq, which `rlsp --help` does not need

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
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
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
    """Makes RUN with its model, in a process of its own.

    Raises UserError with what that process found wrong, SystemExit(1) after a bug, whose traceback is printed.
    """
    print(f"preparing {cfg.directory}", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "rlsp_async.runner.prepare", str(cfg.directory)],
        check=False,
        input=config.to_toml(cfg),
        env=service_environment(1, os.environ),
        stderr=subprocess.PIPE,
        text=True,
    )
    said = re.search(r"^rlsp: (.*)", done.stderr, re.MULTILINE | re.DOTALL)
    if done.returncode == UserError.exit_code and said:
        raise UserError(said[1].strip())
    print(done.stderr, end="", file=sys.stderr, flush=True)
    if done.returncode:
        raise SystemExit(done.returncode)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds the lock of RUN. Raises MachineError when another `rlsp run` has it."""
    with open(directory / "supervisor.lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise MachineError(f"{directory} is being run by another `rlsp run`; stop that one first") from None
        yield


# --- while it runs -------------------------------------------------------------------------------------------------


def services(cfg: RunConfig) -> list[ServiceProcess]:
    """Every process of the run: hub, learner; samplers and verifiers when anything is sampled."""
    run_config, logs = cfg.directory / "config.toml", cfg.directory / "logs"
    if not needs_sampler(cfg):
        cfg = msgspec.structs.replace(
            cfg,
            sampler=msgspec.structs.replace(cfg.sampler, count=0),
            verifier=msgspec.structs.replace(cfg.verifier, count=0),
        )
    wanted = [
        ("replay", 1, 1),
        ("learner", 1, cfg.learner.threads),
        ("sampler", cfg.sampler.count, cfg.sampler.threads),
        ("verifier", cfg.verifier.count, 1),
    ]
    gpus = assign_gpus(visible_gpus(os.environ), cfg)
    return [
        ServiceProcess(
            name=f"{role}-{i}",
            role=role,
            command=service_command(role, run_config, f"{role}-{i}"),
            log=logs / f"{role}-{i}.out",
            threads=max(threads, GPU_THREADS) if f"{role}-{i}" in gpus else threads,
            environment=gpu_environment(f"{role}-{i}", gpus),
        )
        for role, count, threads in wanted
        for i in range(count)
    ]


class StopRequest:
    """A request of another thread that a run ends, as by Ctrl-C: the first one drains it, the second one kills it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._early = 0
        self._send: Callable[[], object] | None = None

    def ask(self) -> None:
        """Asks, from any thread; before the services are started, the run ends as soon as they are."""
        with self._lock:
            if self._send is None:
                self._early += 1
            else:
                self._send()

    def connect(self, send: Callable[[], object]) -> None:
        """The run takes requests from now on; those that came before are sent at once."""
        with self._lock:
            self._send = send
            for _ in range(self._early):
                send()

    def disconnect(self) -> None:
        """The run has ended."""
        with self._lock:
            self._send = lambda: None


async def supervised(cfg: RunConfig, stop: StopRequest | None = None) -> tuple[RunEnd, Status | None]:
    """Starts the services, shows the run, and ends everything.

    Returns: how the run ended (`RunEnd.code` 0: it is finished), and the last status of the hub.
    """
    from rlsp_async.logs import open_log
    from rlsp_async.runner.terminal import LiveView, watch

    with open_log(cfg.directory / "logs" / "supervisor.jsonl", role="supervisor", worker="supervisor"):
        view = LiveView(cfg)
        supervisor = Supervisor(
            services(cfg),
            view.say,
            silence_s=2 * cfg.replay.timeout_s,
            next_start=StartCounter(cfg.directory).next,
        )

        def seen(status: Status) -> None:
            supervisor.seen(status)
            view.update(status)

        handler = _SignalHandler(supervisor, view.say)
        if threading.current_thread() is threading.main_thread():
            _on_signals(handler)
        if stop is not None:
            loop = asyncio.get_running_loop()
            stop.connect(lambda: loop.call_soon_threadsafe(handler.received, signal.SIGINT))
        tasks = [
            asyncio.create_task(_watch_directory(cfg.directory, supervisor), name="directory"),
            asyncio.create_task(Pulse(cfg.replay.stall_s).keep(), name="pulse"),
            asyncio.create_task(watch(cfg, seen), name="watch"),
            asyncio.create_task(view.keep_showing(), name="show"),
        ]
        here = _place(cfg.directory)
        try:
            return await supervisor.run(), view.status
        except (MachineError, OSError):
            if _place(cfg.directory) == here:
                raise
            # A service could not be started, or what it had said before its end could not be read.
            return RunEnd(MachineError.exit_code, moved(cfg.directory)), view.status
        finally:
            if stop is not None:
                stop.disconnect()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            view.close()


async def _watch_directory(directory: Path, supervisor: Supervisor) -> None:
    """Ends the run at once when its directory is moved or removed: nothing more may be written under its name."""
    here = _place(directory)
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        if _place(directory) != here:
            break
    supervisor.finish(MachineError.exit_code, moved(directory))
    supervisor.kill()  # what drains writes; what was acknowledged is on disk


def _place(directory: Path) -> tuple[int, int] | None:
    """Which directory a path names; None for none."""
    try:
        status = directory.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def moved(directory: Path) -> str:
    """The sentence about a run whose directory is gone."""
    return (
        f"{directory} was moved or removed while the run was at work, so the run has ended; what was acknowledged is "
        "in that directory, wherever it is now: `rlsp run --resume` with its new path goes on from there (a run's "
        "directory keeps its name)"
    )


def _on_signals(handler: _SignalHandler) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, handler.received, number)


class _SignalHandler:
    """The first signal drains the services, the second one kills them."""

    def __init__(self, supervisor: Supervisor, say: Callable[[str], None]) -> None:
        self._supervisor, self._say = supervisor, say
        self._received_at = 0.0

    def received(self, number: int) -> None:
        """A signal arrived."""
        if self._received_at:
            self._say("stopping at once")
            self._supervisor.kill()
            return
        self._received_at = time.monotonic()
        code = 130 if number == signal.SIGINT else 128 + number
        self._say("stopping: the services finish what they hold (Ctrl-C again: at once)")
        self._supervisor.finish(code, "stopped")


# --- afterwards ----------------------------------------------------------------------------------------------------


def conclude(cfg: RunConfig, end: RunEnd, status: Status | None = None) -> None:
    """Writes the report; removes the published weights of a run that finished.

    Raises MachineError when the disk has no room for the report of a finished run.
    """
    try:
        if status is not None:
            write_status(cfg.directory, status)
        write_report(cfg.directory, finished=end.code == 0)
    except UserError as e:
        if end.code == 0:
            raise
        if end.code != e.exit_code:  # otherwise the run ended for the same reason, which is printed later
            print(f"rlsp: {e}", file=sys.stderr)
    if end.code == 0:
        remove_published(cfg)


def show_result(directory: Path, note: str = "", out: TextIO | None = None) -> int:
    """Prints the table of results of a run whose report is written, then the note. Returns the exit code 0."""
    report = load_report(directory)
    if report is None:
        raise DataError(f"{directory}: no report.json; `rlsp report {directory}` makes it")
    print_report(report, out or sys.stdout)
    if note:
        print(f"{directory}: {note}", file=out or sys.stdout)
    return 0


def _tail(log: Path) -> str:
    """The last lines of a service's output, with its traceback."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    begins = [i for i, line in enumerate(lines) if line.startswith("Traceback")]
    return "\n".join(
        f"  {printable(line)}" for line in lines[max(begins[-1] - 1 if begins else 0, len(lines) - TAIL_LINES) :]
    )
