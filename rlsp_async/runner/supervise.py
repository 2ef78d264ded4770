"""Keeps the processes of a run alive, and ends them all.

    start -> died -> (budget left?) back-off -> start again          a crash, a kill -9
                  -> final: 2 the user must mend it, 3 diverged       said once, the run ends with that code
    stop  -> SIGTERM learner -> SIGTERM workers -> SIGTERM hub -> SIGKILL what is left, with its whole process group

Every child leads its own process group, so Ctrl-C in the terminal reaches only the supervisor, and what a child leaves
behind can be swept. A child asks the kernel to be killed when the supervisor is gone (service.py), whatever killed it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from rlsp_async.errors import MachineError, unwritable
from rlsp_async.messages import Status
from rlsp_async.runner.hang_detector import Vigil

PARENT_VARIABLE = "RLSP_SUPERVISOR_PID"
FINAL_CODES = (2, 3)
KILL_S = 10.0
LOOK_S = 1.0
NO_HUB_S = 5.0
"""To drain without a hub: nothing can be handed back any more, only a checkpoint written."""
LEFT_S = 5.0
"""A worker that leaves in peace was told to by the hub, whose own end follows within this time."""
ORDER = (("learner",), ("sampler", "verifier"), ("replay",))
"""Drained one after another: the learner's last step still finds the hub, the hub goes last."""


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """One process. Example: Service(name="sampler-0", role="sampler", command=[...], log=RUN/logs/sampler-0.out)."""

    name: str
    role: str
    command: list[str]
    log: Path
    threads: int = 1
    cards: str = ""
    """CUDA_VISIBLE_DEVICES; empty: as the supervisor has it."""


class Budget:
    """How often a process may die: `tries` times in a row; a life in which it worked, or one of `healthy_s`, starts
    the count anew."""

    def __init__(self, tries: int = 8, healthy_s: float = 300.0, first_s: float = 0.1, longest_s: float = 10.0) -> None:
        self.tries, self.healthy_s, self.first_s, self.longest_s = tries, healthy_s, first_s, longest_s
        self.deaths = 0

    def died(self, lived_s: float, worked: bool = False) -> float | None:
        """Seconds to wait before the next start (doubling from `first_s`), None when the budget is spent."""
        self.deaths = 1 if worked or lived_s >= self.healthy_s else self.deaths + 1
        if self.deaths > self.tries:
            return None
        return float(min(self.longest_s, self.first_s * 2 ** (self.deaths - 1)))


class End(msgspec.Struct, frozen=True):
    """Why the run is over: exit code and, unless it finished, one sentence."""

    code: int
    reason: str = ""
    service: str = ""


class Supervisor:
    """Starts services, starts them again when they die, knows when the run is over: `end` is set once."""

    def __init__(
        self,
        services: list[Service],
        say: Callable[[str], None],
        budget: Callable[[], Budget] = Budget,
        frozen_s: float = 20.0,
    ) -> None:
        """A service that the hub has not heard for `frozen_s`, and had heard before, is killed and started again."""
        self._services, self._say, self._new_budget = services, say, budget
        self._vigil = Vigil("replay-0", frozen_s)
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._log_begins: dict[str, int] = {}
        """Bytes of a service's output that are older than its present process."""
        self._stopping = False
        self.ending = False
        """The hub drains: a worker that leaves now is not missed."""
        self.end: asyncio.Future[End] = asyncio.get_running_loop().create_future()

    async def run(self, drain_s: float = 45.0) -> End:
        """Until the run is over; then everything is stopped, each rank with `drain_s` seconds to drain."""
        keepers = [asyncio.create_task(self._keep(service), name=service.name) for service in self._services]
        keepers.append(asyncio.create_task(self._look(), name="vigil"))
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
        """The run is over. The first reason counts."""
        if not self.end.done():
            self.end.set_result(End(code, reason, service))

    def seen(self, status: Status) -> None:
        """The hub spoke: who it hears is not frozen, and whoever was heard while a step was trained has worked."""
        self.ending = status.phase in ("draining", "finished", "failed")
        self._vigil.seen(status, time.monotonic())

    async def _look(self) -> None:
        """Kills what is frozen, once a second; ends by cancelling. What was killed is started again by its keeper."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._stopping or self.ending or self.end.done():
                continue
            for name, silent_s in self._vigil.frozen(time.monotonic()):
                process = self._processes.get(name)
                if process is not None and process.returncode is None:
                    self._say(f"{name} has given no sign for {silent_s:.0f} s: it is killed and started again")
                    self._vigil.started(name)
                    sweep(process.pid)

    def kill(self) -> None:
        """At once, everything, process groups included. Idempotent."""
        self._stopping = True
        for process in self._processes.values():
            sweep(process.pid)

    def alive(self, roles: tuple[str, ...]) -> list[asyncio.subprocess.Process]:
        """Processes of these roles that have not ended."""
        names = [s.name for s in self._services if s.role in roles]
        return [p for n, p in self._processes.items() if n in names and p.returncode is None]

    async def _keep(self, service: Service) -> None:
        """One service: start, wait for its end, decide. Ends when the run is over or the service's end is final."""
        budget = self._new_budget()
        while True:
            began = time.monotonic()
            process = await self._start(service)
            self._vigil.started(service.name)
            code = await process.wait()
            worked = self._vigil.ended(service.name)
            sweep(process.pid)  # what it started and did not take with it
            if self._stopping or self._is_final(service, code) or await self._left_in_peace(service, code):
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

    def _is_final(self, service: Service, code: int) -> bool:
        if code in FINAL_CODES:
            said = last_words(service.log, self._log_begins.get(service.name, 0))
            if not said and code == MachineError.exit_code:
                said = full_disk(service.name, service.log)
            self.finish(code, said or f"{service.name} ended with {exit_text(code)}", service.name)
            return True
        if code == 0 and service.role == "replay":
            self.finish(0)
            return True
        return False

    async def _left_in_peace(self, service: Service, code: int) -> bool:
        """A worker that the hub sent away at the end of the run; the end itself follows."""
        if service.role == "replay":
            return False
        if code == 0:
            await asyncio.wait([self.end], timeout=LEFT_S)
        return self.ending or self.end.done()

    async def _start(self, service: Service) -> asyncio.subprocess.Process:
        try:
            log = await asyncio.to_thread(open, service.log, "ab")
        except OSError as e:
            raise unwritable(service.log, e) from None
        with log:
            self._log_begins[service.name] = log.tell()
            process = await asyncio.create_subprocess_exec(
                *service.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(service.threads, os.environ, service.cards),
                start_new_session=True,
            )
        self._processes[service.name] = process
        return process

    def _keeper_ended(self, keeper: asyncio.Task[None]) -> None:
        """A supervisor that fails must not leave `run` waiting."""
        error = None if keeper.cancelled() else keeper.exception()
        if error is not None and not self.end.done():
            self.end.set_exception(error)

    async def _stop(self, drain_s: float) -> None:
        """SIGTERM rank by rank, each with its time; then SIGKILL. `kill` cuts every one of these waits short."""
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
        """Waits until these have ended, at most `bound_s`."""
        waits = [asyncio.create_task(process.wait()) for process in self.alive(roles)]
        if waits:
            await asyncio.wait(waits, timeout=bound_s)
        for wait in waits:
            wait.cancel()


def sweep(group: int) -> None:
    """SIGKILL to a whole process group; nothing if it is empty."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def exit_text(code: int) -> str:
    """3 -> "exit code 3"; -9 -> "signal SIGKILL"."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def full_disk(name: str, log: Path) -> str:
    """The sentence for a service that ended with exit code 2 and no word: on a full disk it cannot say why."""
    free_mb = shutil.disk_usage(log.parent).free / 2**20
    return (
        f"{log.parent.parent}: the disk was full when {name} had to write ({free_mb:.0f} MiB are free now); "
        "free some space"
    )


def last_words(log: Path, begin: int = 0, prefix: str = "rlsp") -> str:
    """The last line that a service said for people ("rlsp ...: sentence") since byte `begin`, else its last at all."""
    try:
        text = log.read_bytes()[begin:].decode(errors="replace")
    except FileNotFoundError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith(prefix) and ": " in line]
    return (said or lines or [""])[-1].partition(": ")[2] if said else (lines or [""])[-1]


def environment(threads: int, base: Mapping[str, str], cards: str = "") -> dict[str, str]:
    """What a service sees: its threads, no network for model hubs, the supervisor it must not outlive."""
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
        **({"CUDA_VISIBLE_DEVICES": cards} if cards else {}),
    }


def command(role: str, config: Path, name: str) -> list[str]:
    """How a service is started."""
    return [sys.executable, "-m", "rlsp_async.cli", role, str(config), "--worker", name]
