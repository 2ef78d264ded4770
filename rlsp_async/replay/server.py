"""The hub's shell: a router, the pure hub, the journal, and the files that people read. It decides nothing.

    router.receive --> Hub.hear --> CommitQueue --> commit records --> send --> write rows
    ticker ----------> Hub.tick --^                (in the order of the decisions, one commit at a time)
    feeder ----------> Hub.admit -^  demonstrations and imported rollouts, made ahead on a helper thread
    disk ------------> Hub.disk --^  the room that is left

The hub goes on deciding while a commit is under way. No worker hears of a decision before its own commit, and commits
are in the order of the decisions, so a crash loses only decisions of which nobody has heard.

Two threads besides the loop: `journal` (SQLite and jsonl files), `demonstrations` (tokenizer). One hub holds a run
directory at a time (`RunLock`).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Protocol, TypeVar

import structlog

from rlsp_async.config import RunConfig
from rlsp_async.errors import DivergedError, MachineError, unwritable
from rlsp_async.messages import Bye, FromHub, FromWorker, Hello, Status, VerifiedGroup
from rlsp_async.model.info import read_config
from rlsp_async.pulse import watched
from rlsp_async.replay.health import status
from rlsp_async.replay.hub import Hub
from rlsp_async.replay.journal import Journal
from rlsp_async.replay.metrics import MetricLog
from rlsp_async.replay.records import JournalContent
from rlsp_async.replay.sources import Demonstrations, Imported
from rlsp_async.replay.turn import Effects
from rlsp_async.starts import newest_start
from rlsp_async.tasks.base import Task, load_task
from rlsp_async.tasks.fitted import RowChanges, fit_task
from rlsp_async.wire.address import former_address, write_hub_file

T = TypeVar("T")

TICK_S = 0.25
DISK_S = 2.0
"""Seconds between two measurements of the room that is left on the disk."""
REBIND_S = 5.0
"""How long a restarted hub waits for its old port."""
FAREWELL_S = 0.5
"""How long the socket stays open for the last messages."""
CHUNK = 32
"""Demonstrations that the helper thread makes at a time."""
LOCK = "hub.lock"

log = structlog.get_logger("replay")


class RouterLike(Protocol):
    """What the shell needs of `wire.router.Router`."""

    async def bind(self, address: str) -> str: ...

    async def receive(self) -> list[tuple[bytes, FromWorker]]: ...

    def send(self, peer: bytes, message: FromHub) -> bool: ...

    def refusals(self) -> dict[str, float]: ...

    def run_over(self, reason: str) -> None: ...

    def close(self) -> None: ...


class GroupMaker(Protocol):
    """Makes groups that nobody samples. Blocking."""

    def make(self, first: int, num: int) -> list[tuple[int, VerifiedGroup]]: ...


class ReplayServer:
    """One run's hub. `stop` may be called from the loop at any time; `run` returns when the run is over or stopped."""

    def __init__(
        self,
        cfg: RunConfig,
        task: Task | None = None,
        demonstrations: Demonstrations | None = None,
        *,
        on_finished: Callable[[Status], None] | None = None,
        stays: bool = False,
    ) -> None:
        """Takes the settings of the run, and for tests its task and demonstrations.

        Args:
            cfg: the run.
            task: None: that of the settings.
            demonstrations: None: those of the task.
            on_finished: is called once when the run is complete, on the thread that writes files.
            stays: go on after a run that is complete, and tell everyone who comes, until `stop` is called.
        """
        self._cfg, self._on_finished, self._stays = cfg, on_finished, stays
        self._is_told = False
        """Whether `on_finished` was called."""
        self._task = task or fit_task(load_task(cfg.task, cfg.seed), RowChanges.read(cfg.directory))
        self._makers: dict[str, GroupMaker] = {
            "demonstrations": demonstrations or Demonstrations(cfg, self._task),
            "imported": Imported(cfg),
        }
        """For each source that is not sampled, the maker of its groups."""
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="demonstrations")
        self._queue = CommitQueue(cfg.replay.commit_groups)
        self._over = asyncio.Event()
        self._moved = asyncio.Event()
        self._stop_reason = ""
        self._logged: tuple[str, str, str] = ("", "", "")
        self._hub: Hub
        self._router: RouterLike
        self._journal: Journal
        self._metric_log: MetricLog
        self._files = ExitStack()
        """The run lock, the journal and the metric log, as far as they are open."""
        self._is_open = False
        self._zero = time.monotonic()

    @property
    def hub(self) -> Hub:
        """The hub, from the moment `is_open`."""
        return self._hub

    @property
    def is_open(self) -> bool:
        """Whether the journal was read and the hub exists."""
        return self._is_open

    async def run(self, make_router: Callable[[], RouterLike]) -> None:
        """Serves until the run is finished, stopped or failed.

        Raises DivergedError with the hub's message when it failed, MachineError (disk, port, another hub at work),
        ConfigError (a journal of another run), DataError (no demonstrations).
        """
        try:
            await self._open()
            self._router = await self._bind(make_router)
            try:
                await self._serve()
            finally:
                self._router.close()
        finally:
            await self._close()
        if self._hub.state.ending.kind == "failed":
            raise DivergedError(self._hub.state.ending.message)
        if self._hub.state.disk.is_given_up:
            raise MachineError(self._hub.state.ending.message)

    def stop(self, reason: str) -> None:
        """Drains the workers and ends `run`; the run can be resumed. Idempotent."""
        self._stop_reason = self._stop_reason or reason

    # --- opening and closing -------------------------------------------------------------------------------------

    async def _open(self) -> None:
        content = await self._on_disk(self._open_files)
        self._zero = content.zero_s  # a run's clock goes on after a restart
        self._hub = Hub(self._cfg, self._task, content, self._now(), read_vocabulary(self._cfg.directory / "model"))
        self._is_open = True
        counts = self._hub.state.ledger.counts()
        log.info("journal open", incarnation=content.incarnation, step=self._hub.state.step, **counts)

    def _open_files(self) -> JournalContent:
        self._files.enter_context(closing(RunLock(self._cfg.directory)))
        self._journal = Journal(self._cfg.directory / "journal.sqlite", self._cfg)
        self._files.enter_context(closing(self._journal))
        self._metric_log = self._files.enter_context(closing(MetricLog(self._cfg.directory)))
        return self._journal.load()

    async def _bind(self, make_router: Callable[[], RouterLike]) -> RouterLike:
        """Binds the configured port, or the port that this run had before, because its workers know no other."""
        path, wanted = self._cfg.directory / "hub.json", self._cfg.replay.address
        former = former_address(path) if wanted.endswith(":0") else None
        router = make_router()
        address = await self._rebind(router, former) if former else None
        if address is None:
            router = make_router()
            address = await router.bind(wanted)
        await self._on_disk(write_hub_file, path, address, self._hub.state.incarnation)
        log.info("listening", address=address)
        return router

    async def _rebind(self, router: RouterLike, former: str) -> str | None:
        deadline = self._now() + REBIND_S
        while True:
            try:
                return await router.bind(former)
            except MachineError as e:
                if self._now() > deadline:
                    log.warning("the former address is taken, another port is used", reason=str(e))
                    return None
            await asyncio.sleep(TICK_S)

    async def _close(self) -> None:
        """Waits for the work of both threads, so that a commit that has begun is finished; then closes all files."""
        self._helper.shutdown(wait=True, cancel_futures=True)
        self._disk.shutdown(wait=True)
        self._files.close()

    # --- serving -------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        await self._measure_disk()  # before the first work is handed out
        try:
            async with asyncio.TaskGroup() as group:
                loops = (self._carry_out, self._receive, self._tick, self._feed, self._watch_disk)
                tasks = [group.create_task(loop(), name=loop.__name__) for loop in loops]
                await self._over.wait()
                for task in tasks:
                    task.cancel()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None  # the first to fail cancelled the others
        await asyncio.sleep(FAREWELL_S)

    def _decide(self, effects: Effects, num_messages: int = 0) -> None:
        """The hub has decided, with these effects."""
        self._queue.add(effects, num_messages)
        self._moved.set()

    async def _receive(self) -> None:
        """Consumes the router; unblocked by any message; ends by cancelling."""
        while True:
            arrived = await self._router.receive()
            if any(isinstance(message, Hello) for _, message in arrived):
                self._hub.numbered(newest_start(self._cfg.directory))
            while arrived:
                num = await self._queue.room()
                some, arrived = arrived[:num], arrived[num:]
                self._decide(self._hub.hear(some, self._now()), len(some))

    async def _tick(self) -> None:
        """Time passes for the hub: liveness, watchdog, observers, a stop; ends by cancelling."""
        while True:
            await asyncio.sleep(TICK_S)
            self._hub.note_figures(self._router.refusals())
            self._decide(self._hub.tick(self._now()))
            if self._stop_reason:
                self._decide(self._hub.stop(self._stop_reason, self._now()))

    async def _watch_disk(self) -> None:
        """Measures the room that is left every DISK_S; ends by cancelling."""
        while True:
            await asyncio.sleep(DISK_S)
            await self._measure_disk()

    async def _measure_disk(self) -> None:
        free_bytes, journal_bytes = await self._on_disk(measure, self._cfg.directory)
        self._decide(self._hub.disk(free_bytes, self._now(), journal_bytes))

    async def _feed(self) -> None:
        """Keeps one chunk of demonstrations ready and admits them as slots become free; waits for a change of the
        hub."""
        ahead: list[tuple[int, VerifiedGroup]] = []
        source = ""
        while True:
            self._moved.clear()
            stage = self._hub.state.stage
            if stage is not None and stage.source != source:
                ahead, source = [], stage.source
            if stage is not None and source in self._makers and len(ahead) < stage.groups_per_step:
                first = self._hub.state.counters[source] + len(ahead)
                ahead += await self._in(self._helper, self._makers[source].make, first, CHUNK)
            if ahead and self._hub.demonstrations_wanted():
                num = await self._queue.room()
                if self._hub.state.stage is stage:  # else they are for a stage that has ended meanwhile
                    self._decide(self._hub.admit(ahead[:num], self._now()), min(num, len(ahead)))
                next_cursor = self._hub.state.counters[source]
                ahead = [item for item in ahead if item[0] >= next_cursor]
            else:
                await self._moved.wait()

    async def _carry_out(self) -> None:
        """Commits, then sends, then writes rows, then fetches what a restarted learner needs, in the order of the
        decisions. Unblocked by any decision; ends by cancelling."""
        while True:
            effects = await self._queue.take()
            if effects.records:
                await self._on_disk(self._journal.commit, effects.records)
            deaf = {peer for peer, message in effects.sends if not self._router.send(peer, message)}
            if effects.rows:
                await self._on_disk(self._metric_log.write, effects.rows)
            self._log_phase()
            for peer in deaf & self._hub.state.table.peers.keys():  # a worker that lives says hello again
                self._decide(self._hub.on(peer, Bye(reason="it takes no messages"), self._now()))
            for step in effects.wants:
                groups = await self._on_disk(self._journal.batch, step)
                self._decide(self._hub.restored(step, groups, self._now()))
            if self._hub.is_over and self._queue.is_empty:
                await self._conclude()

    async def _conclude(self) -> None:
        """The run is over and everything is sent. A hub that stays goes on after a run that is complete, until it is
        stopped."""
        ending = self._hub.state.ending
        is_complete = ending.kind == "finished"
        if is_complete and not self._is_told:
            self._is_told = True
            if self._on_finished is not None:
                await self._on_disk(self._on_finished, status(self._hub.state, self._now()))
            if self._stays:
                self._router.run_over(ending.message)
                log.info("the run is complete; this hub stays until it is stopped")
        if self._stop_reason or not (self._stays and is_complete):
            self._over.set()

    def _log_phase(self) -> None:
        """One log line when the phase, the ending or the message has changed."""
        state, ending = self._hub.state, self._hub.state.ending
        newest = (str(state.phase.key or state.phase.stage) if state.phase else "", ending.kind, ending.message)
        if newest != self._logged:
            self._logged = newest
            phase, kind, message = newest
            log.info("phase", phase=phase, ending=kind, message=message, step=state.step, version=state.version)

    # --- small helpers -------------------------------------------------------------------------------------------

    def _now(self) -> float:
        """Seconds of the run."""
        return time.monotonic() - self._zero

    async def _on_disk(self, function: Callable[..., T], *arguments: Any) -> T:
        return await self._in(self._disk, function, *arguments)

    async def _in(self, pool: ThreadPoolExecutor, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, watched, function, *arguments)


class CommitQueue:
    """Decisions of the hub that are not on disk yet, in order. Filled by everyone who asks the hub, emptied by one
    task.

    At most `most` messages wait, so that a slow disk makes commits larger and not the hub's memory.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting = Effects()
        self._num_messages = 0
        self._added = asyncio.Event()
        self._taken = asyncio.Event()

    def add(self, effects: Effects, num_messages: int = 0) -> None:
        """Appends what followed from `num_messages` messages; 0: from something else, which is always taken."""
        self._waiting.extend(effects)
        self._num_messages += num_messages
        self._added.set()

    @property
    def is_empty(self) -> bool:
        """Whether everything has been taken."""
        return not self._added.is_set()

    async def room(self) -> int:
        """Number of messages that may be decided now, at least one; unblocked by `take`."""
        while self._num_messages >= self._most:
            self._taken.clear()
            await self._taken.wait()
        return self._most - self._num_messages

    async def take(self) -> Effects:
        """Removes and returns everything that waits; unblocked by `add`."""
        await self._added.wait()
        self._added.clear()
        taken, self._waiting, self._num_messages = self._waiting, Effects(), 0
        self._taken.set()
        return taken


class RunLock:
    """The lock of a run directory, held from construction to `close`.

    It is a lock of the kernel (flock), which ends with the process that holds it, however that process ends. Raises
    MachineError that names the hub which holds it.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / LOCK
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a+", encoding="ascii")  # noqa: SIM115  closed by close()
        except OSError as e:
            raise unwritable(path, e) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.truncate(0)
            self._file.write(f"pid {os.getpid()} on {socket.gethostname()}")
            self._file.flush()
        except BlockingIOError:
            holder = self._holder()
            self._file.close()
            raise MachineError(
                f"{directory}: a hub is at work on this run already ({holder}): stop it first, or give "
                "this run another name"
            ) from None
        except OSError as e:
            self._file.close()
            raise unwritable(path, e) from None

    def _holder(self) -> str:
        self._file.seek(0)
        return self._file.read() or "it has not said its pid yet"

    def close(self) -> None:
        """Idempotent. Also unlocks the copy that a process has which is being started at this moment."""
        if not self._file.closed:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self._file.close()


def read_vocabulary(model: Path) -> int:
    """Number of token ids of the run's model, by its config.json; 0 when that is not there or does not say.

    Raises DataError when the file is damaged.
    """
    size = read_config(model).get("vocab_size") if (model / "config.json").is_file() else None
    return size if isinstance(size, int) else 0


def measure(directory: Path) -> tuple[int, int]:
    """(bytes that are free for this user, bytes of the journal) of a run directory. Raises MachineError when it is
    gone."""
    try:
        disk = os.statvfs(directory)
        num_bytes = sum(path.stat().st_size for path in directory.glob("journal.sqlite*"))
    except OSError as e:
        raise unwritable(directory, e) from None
    return disk.f_bavail * disk.f_frsize, num_bytes
