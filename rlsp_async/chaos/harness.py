"""Runs a config as a user would, by `rlsp run`, and injects the faults of the schedule until all steps are trained.

_keep      starts `rlsp run` again when it was killed on purpose, or stopped because the disk was full
_inject    carries out the faults, one after the other
proxy      stands between the workers and the hub the whole time
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from rlsp_async.audit.history import History
from rlsp_async.chaos import machine
from rlsp_async.chaos.clocks import Clocks
from rlsp_async.chaos.corruption import Corruption
from rlsp_async.chaos.fault_injection import FaultInjector
from rlsp_async.chaos.faults import OFFSETS_S, WIRE_KINDS, InjectedFault, ScheduledFault
from rlsp_async.chaos.liar import Liar
from rlsp_async.chaos.proxy import Proxy
from rlsp_async.config import RunConfig
from rlsp_async.errors import DataError

LATE_S = 20.0
"""`rlsp run` may end because of a kill or a full disk up to this time after it."""
START_S = 180.0
"""Longest time until the first step is trained."""
GONE_S = 10.0
"""Longest time until the last killed process has ended."""
SHOW_EVERY_S = 5.0
RESTART_S = 0.3
"""Pause before `rlsp run` is started again."""
TRANSFER_S = 30.0
"""How long a fault waits for a transfer of weights."""
SENDING = b"weights are being sent"
"""What the learner logs then (`weights/serve.py`)."""
SLOW_CHANNEL = {"RLSP_SLOW_CHANNEL": "0.2:16384"}
"""A pause before every 16 KiB on a channel: a transfer of a small model lasts long enough to be broken."""
JOURNAL_S = 0.2
"""How long a locked journal may delay the harness."""


class HarnessResult(msgspec.Struct, kw_only=True):
    """What happened in a chaos run."""

    finished: bool
    reason: str = ""
    """Why it did not finish; empty when it did."""
    seconds: float = 0.0
    starts: int = 0
    """How often `rlsp run` was started."""
    faults: list[InjectedFault] = []
    num_unreached: int = 0
    """Faults of the schedule whose time had not come when the run was over."""
    messages: dict[str, int] = {}
    """The proxy's counts: passed, drop, duplicate ..."""


class Harness:
    """One chaos run."""

    def __init__(
        self,
        cfg: RunConfig,
        command: list[str],
        faults: list[ScheduledFault],
        seed: int,
        settle_s: float,
        output: Path,
        say: Callable[[str], None],
    ) -> None:
        """Makes a harness that has not started anything.

        Args:
            cfg: the settings of the run; its directory is not there yet.
            command: how `rlsp run` is started (`run_command`).
            faults: the schedule.
            seed: of what becomes of single messages.
            settle_s: how long the run may take to finish after the last fault.
            output: the file that gets the output of `rlsp run`.
            say: shows one line of progress.
        """
        self._cfg, self._command, self._faults, self._settle_s, self._say = cfg, command, faults, settle_s, say
        self._injector, self._seed = FaultInjector(seed), seed
        self._run: asyncio.subprocess.Process | None = None
        self._expected: tuple[int, ...] = ()
        """Exit codes of `rlsp run` that the faults cause: -9 after a kill, 2 after a full disk."""
        self._expected_until_s = 0.0
        self._may_start = asyncio.Event()
        """Cleared while `rlsp run` must not be started."""
        self._refusal: asyncio.Future[tuple[int, list[str]]] | None = None
        """Set while somebody wants to know how `rlsp run` ends: its exit code and its output."""
        self._clocks: Clocks
        self._corruption = Corruption(cfg.directory, seed, self)
        self._result = HarnessResult(finished=False)
        self._over: asyncio.Future[str]
        self._output = output

    async def run(self) -> HarnessResult:
        """Runs until everything is trained, the run ends by itself, or the time is up. Leaves no process running."""
        began_s = time.monotonic()
        loop = asyncio.get_running_loop()
        self._over = loop.create_future()
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(signum, self._finish, f"it was told to stop by {signum.name}")
        self._proxy = proxy = Proxy(self._hub_address, self._injector)
        place = Path(tempfile.mkdtemp(prefix="rlsp-clocks-"))
        self._clocks = Clocks(place)
        env = {**self._clocks.environment(os.environ), "RLSP_HUB_ADDRESS": proxy.bind(), "RLSP_LOG_ACKS": "1"}
        if any(fault.kind == "transfer" for fault in self._faults):
            env |= SLOW_CHANNEL
        self._may_start.set()
        tasks = [asyncio.create_task(work) for work in (proxy.run(), self._keep(env), self._inject(), self._show())]
        for task in tasks:
            task.add_done_callback(self._task_ended)
        try:
            self._result.reason = await self._over
            self._result.finished = not self._result.reason
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._kill_everything()
            shutil.rmtree(place, ignore_errors=True)
        self._result.num_unreached = len(self._faults) - len(self._result.faults)
        self._result.seconds = time.monotonic() - began_s
        self._result.messages = self._injector.counts
        return self._result

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """Ends the run when one of the harness's own tasks fails, which would otherwise wait for ever."""
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._over.done():
            self._over.set_exception(error)

    def _finish(self, reason: str) -> None:
        if not self._over.done():
            self._over.set_result(reason)

    # --- the run ---------------------------------------------------------------------------------------------------

    async def _keep(self, env: dict[str, str]) -> None:
        """Starts `rlsp run` again and again, until it reports that the run is finished."""
        while True:
            await self._may_start.wait()
            self._result.starts += 1
            begin = self._output.stat().st_size if self._output.exists() else 0
            with await asyncio.to_thread(open, self._output, "ab") as out:
                self._run = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    env=env,
                    start_new_session=True,
                )
            code = await self._run.wait()
            if self._refusal is not None and not self._refusal.done():
                self._may_start.clear()
                text = self._output.read_bytes()[begin:].decode(errors="replace")
                self._refusal.set_result((code, text.splitlines()))
                continue
            if code == 0:
                self._finish("")
                return
            if code not in self._expected or time.monotonic() > self._expected_until_s:
                words = self._output.read_text(errors="replace").splitlines() or [""]
                self._finish(f"`rlsp run` ended by itself with code {code}: {words[-1]}")
                return
            await asyncio.sleep(RESTART_S)

    def _hub_address(self) -> str | None:
        try:
            return str(msgspec.json.decode((self._cfg.directory / "hub.json").read_bytes())["address"])
        except (OSError, msgspec.DecodeError, KeyError):
            return None

    async def _kill_everything(self) -> None:
        """Kills every process of the run. Raises TimeoutError when one of them does not end."""
        async with asyncio.timeout(GONE_S):
            if self._run is not None and self._run.returncode is None:
                machine.send_signal(self._run.pid, signal.SIGKILL)
                await self._run.wait()
            while left := self._services():
                for pid in left.values():
                    machine.send_signal(pid, signal.SIGKILL)
                await asyncio.sleep(0.02)

    # --- for a damaged journal (`corruption.Line`) -----------------------------------------------------------------

    async def end_everything(self) -> None:
        """Kills every process of the run, and has none started before `start_again`."""
        self._may_start.clear()
        self._expected, self._expected_until_s = (-signal.SIGKILL,), math.inf
        for _ in range(2):  # a start may be under way at this moment
            await self._kill_everything()
            await asyncio.sleep(RESTART_S)

    def start_again(self) -> asyncio.Future[tuple[int, list[str]]]:
        """Lets `rlsp run` start; returns what is set when that start ends, to its exit code and output."""
        self._refusal = asyncio.get_running_loop().create_future()
        self._expected, self._expected_until_s = (), 0.0
        self._may_start.set()
        return self._refusal

    def go_on(self) -> None:
        """Nobody waits for the end of that start any more."""
        self._refusal = None
        self._may_start.set()

    def kill(self, name: str) -> None:
        """Kills one service, if it runs."""
        self._kill(name)

    def excuse(self, code: int, seconds: float) -> None:
        """`rlsp run` may end with this code in the next seconds, and is started again."""
        self._expected = (*self._expected, -signal.SIGKILL, code)
        self._expected_until_s = max(self._expected_until_s, time.monotonic() + seconds)

    # --- the faults ------------------------------------------------------------------------------------------------

    async def _inject(self) -> None:
        """Carries out the schedule, whose clock starts when the first step is trained."""
        deadline = time.monotonic() + START_S
        while self._step() < 1:
            if time.monotonic() > deadline:
                self._finish(f"no step was trained within {START_S:.0f} s of the start")
                return
            await asyncio.sleep(0.1)
        zero = time.monotonic()
        for fault in self._faults:
            await asyncio.sleep(max(0.0, zero + fault.at_s - time.monotonic()))
            injected = InjectedFault(fault=fault, wall_s=time.time(), monotonic_s=time.monotonic())
            self._result.faults.append(injected)
            injected.outcome = await self._carry_out(injected)
        self._injector.end()
        await asyncio.sleep(self._settle_s)
        self._finish(
            f"the run was not finished {self._settle_s:.0f} s after the last fault; it stands at step {self._step()}"
        )

    async def _carry_out(self, injected: InjectedFault) -> str:
        fault = injected.fault
        if fault.kind in WIRE_KINDS:
            self._injector.begin(fault.kind, time.monotonic(), fault.seconds)
            return "done"
        match fault.kind:
            case "kill":
                return self._kill_named(self._rank_of(fault))
            case "stop":
                return self._stop(fault)
            case "transfer":
                return await self._break_transfer(fault)
            case "restart-all":
                for pid in self._services().values():
                    machine.send_signal(pid, signal.SIGKILL)
                return self._kill_run()
            case "clock":
                self._clocks.set(fault.target, OFFSETS_S[fault.what])
                return self._kill_named(fault.target) if fault.is_fatal else "done"
            case "corrupt":
                return await self._corruption.carry_out(injected)
            case "byzantine":
                return await self._lie(injected)
            case _:
                return await self._fill_disk(fault.seconds)

    def _services(self) -> dict[str, int]:
        return machine.find_services(self._cfg.directory / "config.toml")

    def _rank_of(self, fault: ScheduledFault) -> str:
        """The process that a fault meets: one of the ranks when its target is a learner of several."""
        names = machine.ranks_of(fault.target, self._services())
        return names[int(1000 * fault.at_s) % len(names)]

    def _kill_named(self, name: str) -> str:
        return self._kill_run() if name == "supervisor" else self._kill(name)

    async def _lie(self, injected: InjectedFault) -> str:
        address, fault = self._hub_address(), injected.fault
        if address is None:
            return "skipped: there was no hub"
        liar = Liar(self._cfg.name, address, f"{self._seed}/{fault.at_s}", tuple(self._proxy.overheard))
        await liar.lie(fault.what, fault.seconds)
        injected.found = f"it sent {liar.num_sent} and heard {liar.num_heard}"
        return "done"

    def _kill(self, name: str) -> str:
        pid = self._services().get(name)
        return "done" if pid is not None and machine.send_signal(pid, signal.SIGKILL) else "skipped: it was not running"

    def _kill_run(self) -> str:
        if self._run is None or self._run.returncode is not None:
            return "skipped: it was not running"
        self._expected, self._expected_until_s = (-signal.SIGKILL,), time.monotonic() + LATE_S
        return "done" if machine.send_signal(self._run.pid, signal.SIGKILL) else "skipped: it was not running"

    def _stop(self, fault: ScheduledFault) -> str:
        pid = self._services().get(self._rank_of(fault))
        if pid is None or not machine.send_signal(pid, signal.SIGSTOP):
            return "skipped: it was not running"
        asyncio.get_running_loop().call_later(fault.seconds, machine.send_signal, pid, signal.SIGCONT)
        return "done"

    async def _break_transfer(self, fault: ScheduledFault) -> str:
        """Waits until weights are on their way, and kills or stops a process then."""
        path = self._cfg.directory / "logs" / "learner-0.jsonl"
        begin = path.stat().st_size if path.exists() else 0
        deadline = time.monotonic() + TRANSFER_S
        while not (path.exists() and SENDING in path.read_bytes()[begin:]):
            if time.monotonic() > deadline:
                return f"skipped: no weights were sent for {TRANSFER_S:.0f} s"
            await asyncio.sleep(0.02)
        return self._kill(fault.target) if fault.what == "kill" else self._stop(fault)

    async def _fill_disk(self, seconds: float) -> str:
        place = Path(self._cfg.runs_dir)
        self._expected, self._expected_until_s = (-signal.SIGKILL, 2), time.monotonic() + seconds + LATE_S
        ballast = machine.fill_disk(place)
        try:
            await asyncio.sleep(seconds)
        finally:
            ballast.unlink(missing_ok=True)
        return "done"

    # --- for people ------------------------------------------------------------------------------------------------

    def _step(self) -> int:
        """The newest step in the journal; 0 while there is none, or when it cannot be read at this moment."""
        try:
            with contextlib.closing(History(self._cfg.directory, timeout_s=JOURNAL_S)) as history:
                return history.newest_step()
        except DataError:
            return 0  # the hub is making the journal, or was just killed

    async def _show(self) -> None:
        total = sum(stage.steps for stage in self._cfg.stages.values())
        while True:
            await asyncio.sleep(SHOW_EVERY_S)
            kinds = Counter(one.fault.kind for one in self._result.faults if one.outcome == "done")
            text = ", ".join(f"{num} {kind}" for kind, num in kinds.most_common()) or "none yet"
            self._say(
                f"step {self._step():,} of {total:,}; faults: {text}; "
                f"`rlsp run` was started {self._result.starts} times"
            )


def keep_run(from_dir: Path, to_dir: Path) -> None:
    """Copies a run from the small disk, which ends with this process, to its directory."""
    shutil.copytree(from_dir, to_dir, dirs_exist_ok=True)


def run_command(config: str, overrides: list[str]) -> list[str]:
    """The command by which a user starts a run."""
    return [sys.executable, "-m", "rlsp_async.cli", "run", config, *overrides]
