"""What every service process shares: arguments, settings, logs, signals, drain, exit codes.

    serve("sampler", main)          reads `CONFIG [key=value ...] [--worker NAME]`, runs `await main(cfg, service)`
    await service.has_work()        before anything is loaded: is a hub there, and does its run go on?
    await service.work(handler)     leases work from the hub until drained (the handler never sees a socket)

Stopping has two steps. SIGTERM or SIGINT drains: the process takes no new work and finishes or returns its leases. A
second signal, or `KILL_S` after the first, cancels. Exit codes: 0 finished or stopped, 1 a bug (traceback), 2 an error
that the user can correct (one line), 3 diverged (one line).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import structlog

from rlsp_async import config
from rlsp_async.contents import is_worker_name, printable
from rlsp_async.errors import (
    ConfigError,
    DivergedError,
    FencedError,
    MachineError,
    RankLost,
    UserError,
    disk_is_full,
    unwritable,
)
from rlsp_async.files import replace_file
from rlsp_async.logs import open_log
from rlsp_async.messages import Status
from rlsp_async.processes import kill_with_parent
from rlsp_async.pulse import HeldJobs, Pulse, watched
from rlsp_async.report.write import load_report, write_report, write_status
from rlsp_async.starts import START, StartCounter
from rlsp_async.wire.address import read_hub_file
from rlsp_async.wire.codec import MAX_TOKENS, MEGABYTE
from rlsp_async.wire.jobs import Handler
from rlsp_async.wire.keyring import read_worker_keys
from rlsp_async.wire.knock import Knock
from rlsp_async.wire.link import LinkSettings, WorkerHooks, WorkerLink
from rlsp_async.wire.loading import OnWeights
from rlsp_async.wire.relayed import RelayedMessages
from rlsp_async.wire.sockets import ConnectionLimits

__all__ = [
    "Main",
    "Service",
    "hub_address",
    "in_thread",
    "keep_results",
    "keep_settings",
    "limits_of",
    "serve",
    "service_path",
    "wait_for_hub",
]

DRAIN_S = 30.0
"""How long leases may go on after the first signal."""
KILL_S = 40.0
"""Seconds after the first signal at which the process is cancelled."""
HUB_S = 120.0
"""How long a process waits for a hub."""
SILENT_S = 2.5
"""Seconds without an answer of the hub after which a worker says so."""
SUPERVISOR = "RLSP_SUPERVISOR_PID"
"""Environment variable that a supervisor sets to its own process id: the service is killed when the supervisor dies."""
LOG_ACKS = "RLSP_LOG_ACKS"
"""Environment variable of a test harness: each acknowledged result is logged, for comparison with the journal."""
HUB_ADDRESS = "RLSP_HUB_ADDRESS"
"""Environment variable with the address that workers use instead of the hub's own: a tunnel, or a test proxy."""

JOBS_STALLS = 2.0
"""A sampler or verifier stands still when none of its jobs begins or ends for this many times `replay.stall_s`."""
STOPPED_CODE = "RLSP_STOPPED_CODE"
"""Environment variable with the exit code of a service that a signal stopped; without it 0. For a Job of Kubernetes 0
means that nothing is left to do, also when the signal came from a node that is drained."""

FENCED_CODE = 75
"""Exit code, for its supervisor only, of a service that another start of its name has replaced: it is started again."""

A = TypeVar("A")
R = TypeVar("R")

log = structlog.get_logger("service")


class Service:
    """One service process: its role and name, and whether it should stop."""

    def __init__(self, cfg: config.RunConfig, role: str, worker: str, stays: bool = False) -> None:
        """`stays`: of a hub, whether it goes on after a run that is complete."""
        self.stays = stays
        self.cfg, self.role, self.worker = cfg, role, worker
        self.is_supervised = SUPERVISOR in os.environ and START in os.environ
        self.incarnation = int(os.environ[START]) if self.is_supervised else StartCounter(cfg.directory).next()
        self.stopping = asyncio.Event()
        self.reason = ""
        self._jobs = HeldJobs()
        stall_s = cfg.replay.stall_s
        # A learner's step takes as long as it takes: its thread shows whether it moves.
        self.pulse = Pulse(stall_s / 2, None if role == "learner" else self._jobs, JOBS_STALLS * stall_s)
        self._on_drain: list[Callable[[str], None]] = []

    def on_drain(self, act: Callable[[str], None]) -> None:
        """Has `act(reason)` called at the first signal; at once when the signal has come already."""
        self._on_drain.append(act)
        if self.stopping.is_set():
            act(self.reason)

    def drain(self, reason: str) -> None:
        """Begins the drain, the first step of stopping. Idempotent."""
        if not self.stopping.is_set():
            self.reason = reason
            self.stopping.set()
            log.info("draining", reason=reason)
            for act in self._on_drain:
                act(reason)

    async def has_work(self) -> bool:
        """Whether a worker has anything to do; says in one sentence why not. To be asked before anything is loaded.

        A worker of a supervisor has: its hub starts at the same time. Another one waits for the hub, so that it loads
        no model for a run that is over, or for a hub that is not there. False also when it is stopped meanwhile.

        Raises MachineError when no hub answers for HUB_S.
        """
        if self.is_supervised:
            return True
        report = load_report(self.cfg.directory)
        reason = "the run is complete" if report is not None and report.finished else await self._ask()
        if reason:
            print(f"rlsp {self.worker}: {printable(reason)}: there is nothing to do", flush=True)
            log.info("nothing to do", reason=reason)
        return not reason and not self.stopping.is_set()

    async def _ask(self) -> str:
        """Why the run is over, from its hub; empty when it goes on, or this process is stopped."""
        keys = read_worker_keys(self.cfg.replay.keys, self.role, self.worker)
        knock = Knock(self.worker, lambda: hub_address(self.cfg), limits_of(self.cfg), keys, HUB_S)
        asking = asyncio.create_task(knock.ask(), name="knock")
        helpers = [
            asyncio.create_task(self.stopping.wait(), name="stopping"),
            asyncio.create_task(self._warn_of_silence(lambda: knock.is_answered, lambda: knock.obstacle)),
        ]
        try:
            await asyncio.wait([asking, helpers[0]], timeout=HUB_S + KILL_S, return_when=asyncio.FIRST_COMPLETED)
            return asking.result() if asking.done() else ""
        finally:
            for task in (asking, *helpers):
                task.cancel()
            await asyncio.gather(asking, *helpers, return_exceptions=True)

    async def _warn_of_silence(self, is_welcome: Callable[[], bool], obstacle: Callable[[], str]) -> None:
        def say(text: str) -> None:
            log.warning(text)
            if not self.is_supervised:  # what a supervised service prints counts as its last words
                print(f"rlsp {self.worker}: {printable(text)}", file=sys.stderr, flush=True)

        await warn_of_silence(is_welcome, lambda: hub_address(self.cfg), SILENT_S, obstacle, say)

    async def work(
        self,
        handler: Handler | None,
        *,
        credit: int = 1,
        on_weights: OnWeights | None = None,
        metrics: Callable[[], dict[str, float]] | None = None,
        step: Callable[[], int] | None = None,
        info: dict[str, str] | None = None,
        on_welcome: Callable[[], None] | None = None,
        relayed: RelayedMessages | None = None,
    ) -> None:
        """Works for the hub until drained. Raises what `WorkerLink.run` raises.

        Args:
            handler: works one job; None: no job is taken.
            credit: leases that are worked at once.
            on_weights: loads a version of the weights and returns the largest error of its probe.
            metrics: figures since the last call.
            step: newest step in a learner's weights.
            info: shown to people.
            on_welcome: called once, when the hub has taken this worker in, before any work.
            relayed: speaks with another worker through the hub.
        """
        cfg = self.cfg
        settings = LinkSettings(
            run=cfg.name,
            role=_worker_role(self.role),
            worker=self.worker,
            credit=credit,
            incarnation=self.incarnation,
            yields=not self.is_supervised,
            limits=limits_of(cfg),
            give_up_s=HUB_S,
            drain_s=DRAIN_S,
            info={"host": socket.gethostname(), "pid": str(os.getpid())} | (info or {}),
        )
        hooks = WorkerHooks(
            handler=self._jobs.counted(handler) if handler else None,
            on_weights=on_weights,
            metrics=metrics or dict,
            step=step or (lambda: -1),
            on_welcome=on_welcome,
            relayed=relayed,
            on_acknowledged=_log_acknowledged if LOG_ACKS in os.environ else None,
        )
        keys = read_worker_keys(cfg.replay.keys, self.role, self.worker)
        link = WorkerLink(settings, lambda: hub_address(cfg), hooks, keys)
        self.on_drain(link.drain)
        silence = asyncio.create_task(
            self._warn_of_silence(lambda: link.is_welcome, lambda: link.obstacle), name="silence"
        )
        try:
            log.info("left", reason=await link.run())
        finally:
            silence.cancel()


async def warn_of_silence(
    is_welcome: Callable[[], bool],
    address: Callable[[], str | None],
    after_s: float = SILENT_S,
    obstacle: Callable[[], str] = str,
    say: Callable[[str], None] | None = None,
) -> None:
    """Says after some seconds that no hub has answered yet, where it was looked for, and how long it is waited for.

    Args:
        is_welcome: whether a hub has answered.
        address: where it is looked for; None: not known yet.
        after_s: the seconds.
        obstacle: what stands between this worker and the hub, in words; empty: not known.
        say: tells a person; None: the log.
    """
    await asyncio.sleep(after_s)
    if not is_welcome():
        where = address()
        what = f": {obstacle()}" if where and obstacle() else "; is it running, and is this worker's key on its list?"
        (say or log.warning)(
            f"no hub answers yet at {where or 'an address that RUN/hub.json will name'}{what}"
            f" (this process goes on trying, for up to {HUB_S:.0f} s)"
        )


def _log_acknowledged(lease: int, key: int) -> None:
    log.info("acknowledged", lease=lease, key=key)


Main = Callable[[config.RunConfig, Service], Awaitable[None]]


def serve(role: str, main: Main) -> NoReturn:
    """Runs a service as this process and ends it with its exit code."""
    arguments = _parser(role).parse_args()
    follow_supervisor()
    code = _code_of(role, main, arguments)
    # The interpreter's teardown is skipped: it waits for a thread in the middle of a torch step, and torch's own takes
    # seconds. Nothing is left to do: `main` has closed what it opened, and the log is unbuffered.
    os._exit(code)


def follow_supervisor() -> None:
    """Has the kernel kill this process when its supervisor dies (Linux), if RLSP_SUPERVISOR_PID names one.

    Raises SystemExit(0) when that supervisor is gone already.
    """
    supervisor = os.environ.get(SUPERVISOR)
    if supervisor is not None and not kill_with_parent(int(supervisor)):
        raise SystemExit(0)


def limits_of(cfg: config.RunConfig) -> ConnectionLimits:
    """The limits of both ends of a connection, from [replay]."""
    replay = cfg.replay
    return ConnectionLimits(
        heartbeat_s=replay.heartbeat_s,
        timeout_s=replay.timeout_s,
        max_message_bytes=replay.max_message_mb * MEGABYTE,
        max_tokens=MAX_TOKENS if cfg.model.path else cfg.model.scratch.context,
    )


def in_thread(function: Callable[[A], R], name: str = "work") -> Callable[[A], Awaitable[R]]:
    """Makes an awaitable handler of a blocking function; heartbeats go on while a torch step or a file write runs.

    The calls run one after the other on one thread called NAME_0. A cancelled call that already runs is not
    interrupted: its result is dropped, and the next call waits for it.
    """
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def call(argument: A) -> R:
        return await asyncio.get_running_loop().run_in_executor(pool, watched, function, argument)

    return call


# --- where things are ----------------------------------------------------------------------------------------------


def service_path(role: str) -> Path:
    """The script of a role, in the checkout or in the wheel. Raises MachineError when it is in neither."""
    package = Path(__file__).parent
    checkout, wheel = package.parent / "services" / f"{role}.py", package / "_services" / f"{role}.py"
    if (package.parent / "pyproject.toml").is_file() and checkout.is_file():
        return checkout
    if wheel.is_file():
        return wheel
    raise MachineError(f"no script for service {role!r} in {checkout.parent} or {wheel.parent}: reinstall rlsp_async")


def hub_address(cfg: config.RunConfig) -> str | None:
    """The hub's address: RLSP_HUB_ADDRESS, else replay.address, else (port 0) the one in RUN/hub.json.

    Returns None while hub.json does not exist. Raises MachineError when it is damaged.
    """
    if address := os.environ.get(HUB_ADDRESS):
        return address
    if not cfg.replay.address.endswith(":0"):
        return cfg.replay.address
    found = read_hub_file(cfg.directory / "hub.json")
    return found.address if found else None


async def wait_for_hub(cfg: config.RunConfig, bound_s: float = HUB_S) -> str:
    """Waits for the hub's address. Raises MachineError after `bound_s`."""
    deadline = time.monotonic() + bound_s
    while time.monotonic() < deadline:
        if (address := hub_address(cfg)) is not None:
            return address
        await asyncio.sleep(min(0.1, bound_s))
    raise MachineError(f"no {cfg.directory / 'hub.json'} for {bound_s:.0f} s: start `rlsp replay`")


def keep_settings(cfg: config.RunConfig) -> None:
    """Writes RUN/config.toml of a service that was started by hand, when it is missing, as `rlsp report` reads it.

    Raises MachineError when the disk refuses.
    """
    path = cfg.directory / "config.toml"
    if not path.exists():
        try:
            replace_file(path, config.to_toml(cfg), durable=False)
        except OSError as e:
            raise unwritable(path, e) from None


def keep_results(cfg: config.RunConfig, status: Status) -> None:
    """Writes status.json and the report of a run that is complete, at its hub. Raises MachineError, DataError."""
    write_status(cfg.directory, status)
    write_report(cfg.directory, finished=True)


# --- one process ---------------------------------------------------------------------------------------------------


def _parser(role: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"rlsp {role}", description=f"The {role} service of a run.")
    parser.add_argument("config", metavar="CONFIG", help="TOML file of the run")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="settings, e.g. seed=3")
    parser.add_argument("--worker", metavar="NAME", default=f"{role}-0", help="name, unique in the run (%(default)s)")
    if role == "replay":
        parser.add_argument("--stay", action="store_true", help="go on after the run, and tell workers that it is over")
    return parser


def _code_of(role: str, main: Main, arguments: argparse.Namespace) -> int:
    """Exit code of a service. On a full disk the last log lines cannot be written: only the exit code tells."""
    try:
        code = _run(role, main, arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError as e:
        if not disk_is_full(e):
            raise
        return MachineError.exit_code
    return code


def _worker_role(role: str) -> Any:
    if role not in ("sampler", "verifier", "learner", "observer"):
        raise ValueError(f"{role!r} leases no work")
    return role


def _run(role: str, main: Main, arguments: argparse.Namespace) -> int:
    try:
        cfg = config.load(arguments.config, arguments.overrides)
        if not is_worker_name(arguments.worker):
            raise ConfigError("--worker: a name has 1 to 128 letters, digits, '-', '_' and '.', like sampler-9")
        logs = open_log(cfg.directory / "logs" / f"{arguments.worker}.jsonl", role=role, worker=arguments.worker)
    except UserError as e:
        print(f"rlsp {role}: {e}", file=sys.stderr)
        return e.exit_code
    with logs:
        try:
            service = Service(cfg, role, arguments.worker, stays=role == "replay" and arguments.stay)
        except UserError as e:
            log.error(str(e), kind=type(e).__name__)
            return e.exit_code
        return _loop_run()(_supervise(service, main))


def _loop_run() -> Callable[[Awaitable[int]], int]:
    """The runner of uvloop where it is installed, else asyncio's; with pyzmq both are equally fast."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run  # type: ignore[return-value]
    return uvloop.run  # type: ignore[return-value]


async def _supervise(service: Service, main: Main) -> int:
    """Runs `main` with signal handlers; returns the exit code."""
    task = asyncio.ensure_future(main(service.cfg, service))
    loop = asyncio.get_running_loop()

    def stop(name: str) -> None:
        if service.stopping.is_set():
            task.cancel()
        else:
            loop.call_later(KILL_S, task.cancel)
            service.drain(f"{service.worker} got {name}")

    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop, signum.name)
    log.info("started", pid=os.getpid())
    beating = asyncio.create_task(service.pulse.keep(), name="pulse")
    await asyncio.wait([task])
    beating.cancel()
    if task.cancelled():
        log.warning("cancelled", reason=service.reason)
        return int(os.environ.get(STOPPED_CODE, "0")) if service.stopping.is_set() else 1
    code = exit_code_of(task.exception(), service.cfg.directory)
    if code == 0 and service.stopping.is_set():
        return int(os.environ.get(STOPPED_CODE, "0"))
    is_fenced = service.is_supervised and isinstance(_root_of(task.exception()), FencedError)
    return FENCED_CODE if is_fenced else code


def _root_of(error: BaseException | None) -> BaseException | None:
    """The error that decides, of errors that came together."""
    while isinstance(error, BaseExceptionGroup):
        error = _worst(error.exceptions)
    return error


def exit_code_of(error: BaseException | None, directory: Path) -> int:
    """The exit code for what `main` raised. Logs the error once, with a traceback only for a bug."""
    error = _root_of(error)
    if disk_is_full(error):
        error = MachineError(
            f"{directory}: the disk is full; free some space, then the run goes on: rlsp run --resume {directory}"
        )
    match error:
        case None:
            log.info("finished")
            return 0
        case UserError() | DivergedError():
            log.error(str(error), kind=type(error).__name__)
            return error.exit_code
        case RankLost():  # no bug of this process
            log.error(str(error), kind=type(error).__name__)
            return error.exit_code
        case SystemExit(code=code):
            return code if isinstance(code, int) else 1
        case _:
            log.error(f"{type(error).__name__}: {error}", exc_info=error)
            return 1


def _worst(errors: tuple[BaseException, ...]) -> BaseException:
    """The most telling of errors that came together: a bug before a divergence before an error of the user."""
    return min(errors, key=lambda error: (isinstance(error, UserError), isinstance(error, DivergedError)))
