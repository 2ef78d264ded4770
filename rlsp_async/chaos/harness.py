"""Runs the line as a user would, by `rlsp run`, and breaks it as the schedule says until the time is up.

keep       starts `rlsp run` again when it was killed on purpose, or stopped because the disk was full
strike     carries out the faults, one after the other
proxy      stands between the workers and the hub the whole time
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from rlsp_async.chaos import disk, processes
from rlsp_async.chaos.faults import WIRE_KINDS, Fault
from rlsp_async.chaos.mischief import Mischief
from rlsp_async.chaos.proxy import Proxy
from rlsp_async.chaos.verdict import Struck
from rlsp_async.config import RunConfig

LATE_S = 20.0
"""A supervisor that ends within this time of a full disk ended because of it."""
START_S = 180.0
GONE_S = 10.0
"""The kernel takes back the last killed process within this time."""
SHOW_S = 5.0
AGAIN_S = 0.3


class End(msgspec.Struct, kw_only=True):
    """How it went."""

    finished: bool
    reason: str = ""
    seconds: float = 0.0
    starts: int = 0
    """Of `rlsp run`."""
    struck: list[Struck] = []
    num_unreached: int = 0
    """Faults of the schedule whose time had not come when the run was over."""
    messages: dict[str, int] = {}
    """Of the proxy: passed, drop, duplicate ..."""


class Harness:
    """`command`: how `rlsp run` is started; `settle_s`: how long it may take to finish after the last fault;
    `output`: where what it says goes."""

    def __init__(
        self,
        cfg: RunConfig,
        command: list[str],
        faults: list[Fault],
        seed: int,
        settle_s: float,
        output: Path,
        say: Callable[[str], None],
    ) -> None:
        self._cfg, self._command, self._faults, self._settle_s, self._say = cfg, command, faults, settle_s, say
        self._mischief = Mischief(seed)
        self._run: asyncio.subprocess.Process | None = None
        self._expected: tuple[int, ...] = ()
        """Exit codes of `rlsp run` that are our own doing: -9 after a kill, 2 after a full disk."""
        self._expected_until_s = 0.0
        self._end = End(finished=False)
        self._over: asyncio.Future[str]
        self._output = output

    async def run(self) -> End:
        """Until everything is trained, or the run ended by itself, or the time is up; nothing is left running."""
        began_s = time.monotonic()
        loop = asyncio.get_running_loop()
        self._over = loop.create_future()
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(signum, self._finish, f"it was told to stop by {signum.name}")
        proxy = Proxy(self._hub_address, self._mischief)
        env = {**os.environ, "RLSP_HUB_ADDRESS": proxy.bind(), "RLSP_LOG_ACKS": "1"}
        tasks = [asyncio.create_task(work) for work in (proxy.run(), self._keep(env), self._strike(), self._show())]
        for task in tasks:
            task.add_done_callback(self._task_ended)
        try:
            self._end.reason = await self._over
            self._end.finished = not self._end.reason
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._kill_everything()
        self._end.num_unreached = len(self._faults) - len(self._end.struck)
        self._end.seconds = time.monotonic() - began_s
        self._end.messages = self._mischief.counts
        return self._end

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """A harness that fails must not wait for ever."""
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._over.done():
            self._over.set_exception(error)

    def _finish(self, reason: str) -> None:
        if not self._over.done():
            self._over.set_result(reason)

    # --- the run ---------------------------------------------------------------------------------------------------

    async def _keep(self, env: dict[str, str]) -> None:
        """`rlsp run` again and again, until it says that the run is finished."""
        while True:
            self._end.starts += 1
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
            if code == 0:
                self._finish("")
                return
            if code not in self._expected or time.monotonic() > self._expected_until_s:
                words = self._output.read_text(errors="replace").splitlines() or [""]
                self._finish(f"`rlsp run` ended by itself with code {code}: {words[-1]}")
                return
            await asyncio.sleep(AGAIN_S)

    def _hub_address(self) -> str | None:
        try:
            return str(msgspec.json.decode((self._cfg.directory / "hub.json").read_bytes())["address"])
        except (OSError, msgspec.DecodeError, KeyError):
            return None

    async def _kill_everything(self) -> None:
        """Returns when nothing of the run is alive. Raises TimeoutError when the kernel does not let go."""
        async with asyncio.timeout(GONE_S):
            if self._run is not None and self._run.returncode is None:
                processes.act(self._run.pid, signal.SIGKILL)
                await self._run.wait()
            while left := self._services():
                for pid in left.values():
                    processes.act(pid, signal.SIGKILL)
                await asyncio.sleep(0.02)

    # --- the faults ------------------------------------------------------------------------------------------------

    async def _strike(self) -> None:
        """Carries out the schedule; its clock starts when the first step is trained."""
        deadline = time.monotonic() + START_S
        while self._step() < 1:
            if time.monotonic() > deadline:
                self._finish(f"no step was trained within {START_S:.0f} s of the start")
                return
            await asyncio.sleep(0.1)
        zero = time.monotonic()
        for fault in self._faults:
            await asyncio.sleep(max(0.0, zero + fault.at_s - time.monotonic()))
            one = Struck(fault=fault, wall_s=time.time())
            self._end.struck.append(one)
            one.outcome = await self._do(fault)
        self._mischief.end()
        await asyncio.sleep(self._settle_s)
        self._finish(
            f"the run was not finished {self._settle_s:.0f} s after the last fault; it stands at step {self._step()}"
        )

    async def _do(self, fault: Fault) -> str:
        if fault.kind in WIRE_KINDS:
            self._mischief.begin(fault.kind, time.monotonic(), fault.seconds)
            return "done"
        match fault.kind:
            case "kill" if fault.target == "supervisor":
                return self._kill_run()
            case "kill":
                return self._kill(fault.target)
            case "stop":
                return self._stop(fault)
            case "restart-all":
                for pid in self._services().values():
                    processes.act(pid, signal.SIGKILL)
                return self._kill_run()
            case _:
                return await self._fill_disk(fault.seconds)

    def _services(self) -> dict[str, int]:
        return processes.services(self._cfg.directory / "config.toml")

    def _kill(self, name: str) -> str:
        pid = self._services().get(name)
        return "done" if pid is not None and processes.act(pid, signal.SIGKILL) else "skipped: it was not running"

    def _kill_run(self) -> str:
        if self._run is None or self._run.returncode is not None:
            return "skipped: it was not running"
        self._expected, self._expected_until_s = (-signal.SIGKILL,), time.monotonic() + LATE_S
        return "done" if processes.act(self._run.pid, signal.SIGKILL) else "skipped: it was not running"

    def _stop(self, fault: Fault) -> str:
        pid = self._services().get(fault.target)
        if pid is None or not processes.act(pid, signal.SIGSTOP):
            return "skipped: it was not running"
        asyncio.get_running_loop().call_later(fault.seconds, processes.act, pid, signal.SIGCONT)
        return "done"

    async def _fill_disk(self, seconds: float) -> str:
        place = Path(self._cfg.runs_dir)
        self._expected, self._expected_until_s = (-signal.SIGKILL, 2), time.monotonic() + seconds + LATE_S
        ballast = disk.fill(place)
        try:
            await asyncio.sleep(seconds)
        finally:
            ballast.unlink(missing_ok=True)
        return "done"

    # --- for people ------------------------------------------------------------------------------------------------

    def _step(self) -> int:
        """Newest step in the journal; 0 before there is one."""
        path = self._cfg.directory / "journal.sqlite"
        if not path.is_file():
            return 0
        try:
            db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=0.2)
            try:
                return int(db.execute("SELECT max(step) FROM steps").fetchone()[0] or 0)
            finally:
                db.close()
        except sqlite3.Error:
            return 0  # it is being made, or the hub is just being killed

    async def _show(self) -> None:
        total = sum(stage.steps for stage in self._cfg.stages.values())
        while True:
            await asyncio.sleep(SHOW_S)
            kinds = Counter(one.fault.kind for one in self._end.struck if one.outcome == "done")
            text = ", ".join(f"{num} {kind}" for kind, num in kinds.most_common()) or "none yet"
            self._say(
                f"step {self._step():,} of {total:,}; faults: {text}; `rlsp run` was started {self._end.starts} times"
            )


def keep_run(from_dir: Path, to_dir: Path) -> None:
    """Copies a run from the small disk, which goes with this process, to where the user wants it."""
    shutil.copytree(from_dir, to_dir, dirs_exist_ok=True)


def run_command(config: str, overrides: list[str]) -> list[str]:
    """How a user starts a run."""
    return [sys.executable, "-m", "rlsp_async.cli", "run", config, *overrides]
