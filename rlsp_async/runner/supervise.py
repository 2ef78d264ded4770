"""Keeps the processes of a run alive, and ends all of them.

    start -> died -> (restarts left?) pause -> start again           a crash, a kill -9
                  -> final: 2 the user can correct it, 3 diverged     printed once, the run ends with that code
    stop  -> SIGTERM learner -> SIGTERM workers -> SIGTERM hub -> SIGKILL what is left, with its whole process group

Every service leads its own process group, so Ctrl-C in the terminal reaches only the supervisor, and the processes that
a dead service left behind can be killed. A service asks the kernel to be killed when the supervisor dies, for whatever
reason (service.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from rlsp_async.contents import printable
from rlsp_async.errors import MachineError, unwritable
from rlsp_async.messages import Status
from rlsp_async.pulse import PULSE, read, still
from rlsp_async.runner.hang_detector import HangDetector
from rlsp_async.starts import START

PARENT_VARIABLE = "RLSP_SUPERVISOR_PID"
FINAL_CODES = (2, 3)
"""Exit codes of a service that end the run."""
KILL_S = 10.0
"""Longest time until a killed process has ended."""
CHECK_EVERY_S = 1.0
STILL_CHECKS = 10
"""A service stands still when this many checks in a row find it so: after a freeze of the machine it moves soon."""
NO_HUB_S = 5.0
"""Shutdown timeout when no hub runs. Workers cannot return leases then; only the learner's checkpoint matters."""
FENCED_CODE = 75
"""Exit code of a service that another start of its name has replaced (service.py): it is started again."""
START_TRIES = 3
"""A service that ends at its start this many times in a row, each time with the same last line, ends the run."""
LEFT_S = 5.0
"""A worker that ends with exit code 0 was sent away by the hub, which itself ends within this time."""
ORDER = (("learner",), ("sampler", "verifier"), ("replay",))
"""The ranks in which services are stopped. The hub is last, so that the learner can still report its last step."""


class ServiceProcess(msgspec.Struct, frozen=True, kw_only=True):
    """How one process is started. Example: ServiceProcess(name="sampler-0", role="sampler", command=[...], log=...)."""

    name: str
    role: str
    command: list[str]
    log: Path
    threads: int = 1
    environment: Mapping[str, str] = {}
    """What its environment has on top of the supervisor's."""


class RestartBudget:
    """How often a process may die in a row. A life in which it worked, or one of `healthy_s`, resets the count."""

    def __init__(self, tries: int = 8, healthy_s: float = 300.0, first_s: float = 0.1, longest_s: float = 10.0) -> None:
        self.tries, self.healthy_s, self.first_s, self.longest_s = tries, healthy_s, first_s, longest_s
        self.deaths = 0

    def died(self, lived_s: float, worked: bool = False) -> float | None:
        """Counts a death.

        Returns: seconds to wait before the next start, doubling from `first_s`; None when the budget is spent.
        """
        self.deaths = 1 if worked or lived_s >= self.healthy_s else self.deaths + 1
        if self.deaths > self.tries:
            return None
        return float(min(self.longest_s, self.first_s * 2 ** (self.deaths - 1)))


class RunEnd(msgspec.Struct, frozen=True):
    """Why the run is over: the exit code and, unless the run finished, one sentence."""

    code: int
    reason: str = ""
    service: str = ""


class Supervisor:
    """Starts services, starts them again when they die, and decides when the run is over: `end` is set once."""

    def __init__(
        self,
        services: list[ServiceProcess],
        say: Callable[[str], None],
        budget: Callable[[], RestartBudget] = RestartBudget,
        silence_s: float = 20.0,
        next_start: Callable[[], int] | None = None,
    ) -> None:
        """Makes a supervisor that has not started anything.

        Args:
            services: the processes of the run.
            say: shows one sentence to the user.
            budget: makes the restart budget of one service.
            next_start: gives the number of one more start (starts.py); None: services number themselves.
            silence_s: a service that the hub has heard, and then not for this long, is killed and started again.
        """
        self._services, self._say, self._new_budget, self._next_start = services, say, budget, next_start
        self._detector = HangDetector("replay-0", silence_s)
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._log_begins: dict[str, int] = {}
        """Where the output of a service's present process begins in its log, in bytes."""
        self._failed_starts: dict[str, list[str]] = {}
        """The last lines of the starts in a row after which a service ended before the hub heard it."""
        self._still: dict[str, int] = {}
        """How many checks in a row have found that a service stands still, by its pulse."""
        self._stopping = False
        self.ending = False
        """Whether the hub drains: a worker that ends now is not started again."""
        self.end: asyncio.Future[RunEnd] = asyncio.get_running_loop().create_future()

    async def run(self, drain_s: float = 45.0) -> RunEnd:
        """Runs until the run is over, then stops everything; each rank has `drain_s` seconds to drain."""
        keepers = [asyncio.create_task(self._keep(service), name=service.name) for service in self._services]
        keepers.append(asyncio.create_task(self._kill_hanging(), name="hang detector"))
        for keeper in keepers:
            keeper.add_done_callback(self._keeper_ended)
        try:
            end = await asyncio.shield(self.end)
        finally:
            self._stopping = True
            await self._stop(drain_s)
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
        return end

    def finish(self, code: int, reason: str = "", service: str = "") -> None:
        """Ends the run. Only the first call has an effect."""
        if not self.end.done():
            self.end.set_result(RunEnd(code, reason, service))

    def seen(self, status: Status) -> None:
        """Takes a status of the hub: the workers that it names do not hang."""
        self.ending = status.phase in ("draining", "finished", "failed")
        self._detector.seen(status, time.monotonic())

    async def _kill_hanging(self) -> None:
        """Kills services that hang, once a second, until cancelled. `_keep` starts them again."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            if self._stopping or self.ending or self.end.done():
                continue
            for name, silent_s in self._detector.hanging(time.monotonic()):
                self._replace(name, f"{name} has given no sign for {silent_s:.0f} s")
            for service in self._services:
                if why := self._stands_still(service):
                    self._replace(service.name, f"{service.name} stands still ({why})")

    def _stands_still(self, service: ServiceProcess) -> str:
        """What of a service has stood still over several checks, by the pulse of its present process."""
        process, beat = self._processes.get(service.name), read(pulse_of(service))
        is_its = process is not None and beat is not None and beat.pid == process.pid
        why = still(beat, time.monotonic()) if is_its and beat else ""
        self._still[service.name] = self._still.get(service.name, 0) + 1 if why else 0
        return why if self._still[service.name] >= STILL_CHECKS else ""

    def _replace(self, name: str, why: str) -> None:
        """Kills a service; `_keep` starts it again."""
        process = self._processes.get(name)
        if process is not None and process.returncode is None:
            self._say(f"{why}: it is killed and started again")
            self._detector.started(name)
            self._still[name] = 0
            kill_group(process.pid)

    def kill(self) -> None:
        """Kills everything at once, process groups included. Idempotent."""
        self._stopping = True
        for process in self._processes.values():
            kill_group(process.pid)

    def alive(self, roles: tuple[str, ...]) -> list[asyncio.subprocess.Process]:
        """Processes of these roles that have not ended."""
        names = [s.name for s in self._services if s.role in roles]
        return [p for n, p in self._processes.items() if n in names and p.returncode is None]

    async def _keep(self, service: ServiceProcess) -> None:
        """Starts one service, waits for its end, and decides. Returns when the run is over or the end is final."""
        budget = self._new_budget()
        while True:
            began = time.monotonic()
            process = await self._start(service)
            self._detector.started(service.name)
            code = await process.wait()
            heard, worked = self._detector.was_heard(service.name), self._detector.ended(service.name)
            kill_group(process.pid)  # processes that it started and that outlive it
            if self._stopping or self._is_final(service, code) or await self._was_sent_away(service, code):
                return
            if self._fails_to_start(service, code, heard):
                return
            pause_s = budget.died(time.monotonic() - began, worked)
            if pause_s is None:
                self.finish(
                    1,
                    f"{service.name} died {budget.deaths} times in a row, last with {exit_text(code)}; "
                    f"its output is in {service.log}",
                    service.name,
                )
                return
            self._say(
                f"{service.name} ended with {exit_text(code)}; it is started again in {pause_s:g} s "
                f"({budget.deaths} of {budget.tries})"
            )
            await asyncio.sleep(pause_s)

    def _fails_to_start(self, service: ServiceProcess, code: int, heard: bool) -> bool:
        """Ends the run when a service ends before the hub hears it, again and again with the same last line."""
        if heard or code <= 0 or code == FENCED_CODE:
            self._failed_starts.pop(service.name, None)
            return False
        said = last_words(service.log, self._log_begins.get(service.name, 0))
        before = self._failed_starts.setdefault(service.name, [])
        before[:] = [*(text for text in before if _alike(text) == _alike(said)), said]
        if not said or len(before) < START_TRIES:
            return False
        self.finish(1, f"{service.name} cannot start: {said}; its output is in {service.log}", service.name)
        return True

    def _why(self, service: ServiceProcess, said: str) -> str:
        """What the hub said at its end, and what a service that could not start by then had said."""
        starting = [
            f"{name} ended at its start with: {texts[-1]}" for name, texts in self._failed_starts.items() if texts
        ]
        return "; ".join([said, *starting]) if service.role == "replay" and said else said

    def _is_final(self, service: ServiceProcess, code: int) -> bool:
        if code in FINAL_CODES:
            said = last_words(service.log, self._log_begins.get(service.name, 0))
            if not said and code == MachineError.exit_code:
                said = full_disk(service.name, service.log)
            self.finish(code, self._why(service, said) or f"{service.name} ended with {exit_text(code)}", service.name)
            return True
        if code == 0 and service.role == "replay":
            self.finish(0)
            return True
        return False

    async def _was_sent_away(self, service: ServiceProcess, code: int) -> bool:
        """Whether the hub sent a worker away at the end of the run; then the hub itself ends soon."""
        if service.role == "replay":
            return False
        if code == 0:
            await asyncio.wait([self.end], timeout=LEFT_S)
        return self.ending or self.end.done()

    async def _start(self, service: ServiceProcess) -> asyncio.subprocess.Process:
        try:
            log = await asyncio.to_thread(open, service.log, "ab")
        except OSError as e:
            raise unwritable(service.log, e) from None
        environment = service_environment(service.threads, os.environ, service.environment)
        environment[PULSE] = str(pulse_of(service))
        if self._next_start is not None:
            environment[START] = str(self._next_start())
        with log:
            self._log_begins[service.name] = log.tell()
            process = await asyncio.create_subprocess_exec(
                *service.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self._processes[service.name] = process
        return process

    def _keeper_ended(self, keeper: asyncio.Task[None]) -> None:
        """Passes an error of one of the supervisor's own tasks on to `run`, which would otherwise wait for ever."""
        error = None if keeper.cancelled() else keeper.exception()
        if error is not None and not self.end.done():
            self.end.set_exception(error)

    async def _stop(self, drain_s: float) -> None:
        """SIGTERM rank by rank, each with its own time to drain; then SIGKILL. `kill` ends these waits early."""
        everybody = tuple(role for roles in ORDER for role in roles)
        ranks, drain_s = (ORDER, drain_s) if self.alive(("replay",)) else ((everybody,), NO_HUB_S)
        for roles in ranks:
            for process in self.alive(roles):
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
            await self._ended(roles, drain_s)
        self.kill()
        await self._ended(everybody, KILL_S)

    async def _ended(self, roles: tuple[str, ...], bound_s: float) -> None:
        """Waits until the processes of these roles have ended, for at most `bound_s`."""
        waits = [asyncio.create_task(process.wait()) for process in self.alive(roles)]
        if waits:
            await asyncio.wait(waits, timeout=bound_s)
        for wait in waits:
            wait.cancel()


def pulse_of(service: ServiceProcess) -> Path:
    """The file in which a service shows that it moves."""
    return service.log.with_suffix(".pulse")


def kill_group(group: int) -> None:
    """Sends SIGKILL to a whole process group; does nothing when the group is empty."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def exit_text(code: int) -> str:
    """The return code of a process as text: 3 -> "exit code 3"; -9 -> "signal SIGKILL"."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _alike(text: str) -> str:
    """A line without its numbers: addresses and times differ from start to start."""
    return re.sub(r"0x[0-9a-f]+|\d+", "0", text)


def full_disk(name: str, log: Path) -> str:
    """The sentence for a service that ended with exit code 2 and no output: on a full disk it cannot say why."""
    free_mb = shutil.disk_usage(log.parent).free / 2**20
    return (
        f"{log.parent.parent}: the disk was full when {name} had to write ({free_mb:.0f} MiB are free now); "
        "free some space"
    )


def last_words(log: Path, begin: int = 0, prefix: str = "rlsp") -> str:
    """The last line of a service's output since byte `begin` that is for people ("rlsp ...: sentence").

    Without such a line, the last line; without output, an empty text.
    """
    try:
        text = log.read_bytes()[begin:].decode(errors="replace")
    except FileNotFoundError:
        return ""
    lines = [line.rstrip() for line in text.split("\n") if line.strip()]  # no other sign ends a line
    said = [line for line in lines if line.startswith(prefix) and ": " in line]
    return printable(said[-1].partition(": ")[2] if said else (lines or [""])[-1].strip())


def service_environment(threads: int, base: Mapping[str, str], more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a service.

    Args:
        threads: CPU threads of its numerical libraries.
        base: the supervisor's environment.
        more: what comes on top, such as its GPUs.
    """
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, base.get("PYTHONPATH", "").split(os.pathsep))]
    return {
        **base,
        **{f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS")},
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        PARENT_VARIABLE: str(os.getpid()),
        **(more or {}),
    }


def service_command(role: str, config: Path, name: str) -> list[str]:
    """The command line that starts a service."""
    return [sys.executable, "-m", "rlsp_async.cli", role, str(config), "--worker", name]
