"""The hub's shell: a router, the pure hub, the journal, and what people read. It obeys; it decides nothing.

    router.receive --> Hub.hear --> decided --> commit records --> send --> write lines
    ticker ----------> Hub.tick --^            (in the order of the decisions, one commit at a time)
    feeder ----------> Hub.admit -^  demonstrations and imported rollouts, made ahead on a helper thread
    disk ------------> Hub.disk --^  the room that is left

Two threads besides the loop: `journal` (SQLite and jsonl files), `demonstrations` (tokenizer).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import structlog

from rlsp_async.config import RunConfig
from rlsp_async.errors import DivergedError, MachineError
from rlsp_async.messages import Bye, FromHub, FromWorker, VerifiedGroup
from rlsp_async.replay.decided import CommitQueue
from rlsp_async.replay.hub import Hub
from rlsp_async.replay.journal import Journal
from rlsp_async.replay.recorder import MetricLog
from rlsp_async.replay.records import JournalContent
from rlsp_async.replay.rundir import RunLock, measure
from rlsp_async.replay.sources import Demonstrations, Imported
from rlsp_async.replay.state import Effects
from rlsp_async.tasks.base import Task, load_task
from rlsp_async.wire.address import former_address, write_hub_file

T = TypeVar("T")

TICK_S = 0.25
DISK_S = 2.0
"""Between two looks at the room that is left on the disk."""
REBIND_S = 5.0
"""How long a restarted hub waits for its old port."""
FAREWELL_S = 0.5
"""How long the last messages have to leave before the socket is closed."""
CHUNK = 32
"""Demonstrations made in one go on the helper thread."""

log = structlog.get_logger("replay")


class RouterLike(Protocol):
    """What the shell needs of `wire.router.Router`."""

    async def bind(self, address: str) -> str: ...

    async def receive(self) -> list[tuple[bytes, FromWorker]]: ...

    def send(self, peer: bytes, message: FromHub) -> bool: ...

    def refusals(self) -> dict[str, float]: ...

    def close(self) -> None: ...


class GroupMaker(Protocol):
    """Makes groups that nobody samples. Blocking."""

    def make(self, first: int, num: int) -> list[tuple[int, VerifiedGroup]]: ...


class ReplayServer:
    """One run's hub. `stop` may be called from the loop at any time; `run` returns when the run is over or stopped."""

    def __init__(self, cfg: RunConfig, task: Task | None = None, demonstrations: Demonstrations | None = None) -> None:
        self._cfg = cfg
        self._task = task or load_task(cfg.task, cfg.seed)
        self._makers: dict[str, GroupMaker] = {
            "demonstrations": demonstrations or Demonstrations(cfg, self._task),
            "imported": Imported(cfg),
        }
        """Of each source that is not sampled: who makes its groups."""
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="demonstrations")
        self._decided = CommitQueue(cfg.replay.commit_groups)
        self._over = asyncio.Event()
        self._moved = asyncio.Event()
        self._stop_reason = ""
        self._said: tuple[str, str, str] = ("", "", "")
        self._hub: Hub
        self._router: RouterLike
        self._journal: Journal
        self._recorder: MetricLog
        self._zero = time.monotonic()

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
        if self._hub.state.ending == "failed":
            raise DivergedError(self._hub.state.message)
        if self._hub.state.disk.is_given_up:
            raise MachineError(self._hub.state.message)

    def stop(self, reason: str) -> None:
        """Drains the line and ends `run`; the journal can be taken up again. Idempotent."""
        self._stop_reason = self._stop_reason or reason

    # --- opening and closing -------------------------------------------------------------------------------------

    async def _open(self) -> None:
        loaded = await self._on_disk(self._open_files)
        self._zero = time.monotonic() - max(0.0, time.time() - loaded.created)  # a run's clock goes on after a restart
        self._hub = Hub(self._cfg, self._task, loaded, self._now())
        log.info(
            "journal open", incarnation=loaded.incarnation, step=self._hub.state.step, **self._hub.state.ledger.counts()
        )

    def _open_files(self) -> JournalContent:
        self._run_lock = RunLock(self._cfg.directory)
        self._journal = Journal(self._cfg.directory / "journal.sqlite", self._cfg)
        self._recorder = MetricLog(self._cfg.directory)
        return self._journal.load()

    async def _bind(self, make_router: Callable[[], RouterLike]) -> RouterLike:
        """Binds the configured port, or the one this run had before: its workers know no other."""
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
        """Waits for what the disk still does; a commit that has begun is finished."""
        self._helper.shutdown(wait=True, cancel_futures=True)
        self._disk.shutdown(wait=True)
        for name in ("_journal", "_recorder", "_run_lock"):
            if hasattr(self, name):
                getattr(self, name).close()

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
        self._decided.add(effects, num_messages)
        self._moved.set()

    async def _receive(self) -> None:
        """Consumes the router; unblocked by any message; ends by cancelling."""
        while True:
            arrived = await self._router.receive()
            while arrived:
                num = await self._decided.room()
                some, arrived = arrived[:num], arrived[num:]
                self._decide(self._hub.hear(some, self._now()), len(some))

    async def _tick(self) -> None:
        """Time passes for the hub: liveness, watchdog, observers, a stop; ends by cancelling."""
        while True:
            await asyncio.sleep(TICK_S)
            self._hub.state.metrics.update(self._router.refusals())
            self._decide(self._hub.tick(self._now()))
            if self._stop_reason:
                self._decide(self._hub.stop(self._stop_reason, self._now()))

    async def _watch_disk(self) -> None:
        """Looks at the room that is left every DISK_S; ends by cancelling."""
        while True:
            await asyncio.sleep(DISK_S)
            await self._measure_disk()

    async def _measure_disk(self) -> None:
        free_bytes, journal_bytes = await self._on_disk(measure, self._cfg.directory)
        self._decide(self._hub.disk(free_bytes, self._now(), journal_bytes))

    async def _feed(self) -> None:
        """Keeps one chunk of demonstrations ready and admits them as slots come free; waits for a change of the hub."""
        ahead: list[tuple[int, VerifiedGroup]] = []
        source = ""
        while True:
            self._moved.clear()
            stage = self._hub.state.stage
            if stage is not None and stage.source != source:
                ahead, source = [], stage.source
            if stage is not None and source in self._makers and len(ahead) < stage.groups_per_step:
                first = self._hub.state.cursors.get(source, 0) + len(ahead)
                ahead += await self._in(self._helper, self._makers[source].make, first, CHUNK)
            if ahead and self._hub.demonstrations_wanted():
                num = await self._decided.room()
                if self._hub.state.stage is stage:  # else they are for a stage that has ended meanwhile
                    self._decide(self._hub.admit(ahead[:num], self._now()), min(num, len(ahead)))
                next_cursor = self._hub.state.cursors.get(source, 0)
                ahead = [item for item in ahead if item[0] >= next_cursor]
            else:
                await self._moved.wait()

    async def _carry_out(self) -> None:
        """One decision after the other: commits, then sends, then writes lines; then fetches what a restarted learner
        needs. Unblocked by any decision; ends by cancelling."""
        while True:
            todo = await self._decided.take()
            if todo.records:
                await self._on_disk(self._journal.commit, todo.records)
            deaf = {peer for peer, message in todo.sends if not self._router.send(peer, message)}
            if todo.lines:
                await self._on_disk(self._recorder.write, todo.lines)
            self._say()
            for peer in deaf & self._hub.state.crew.peers.keys():  # if it lives it says hello again
                self._decide(self._hub.on(peer, Bye(reason="it takes no messages"), self._now()))
            for step in todo.wants:
                groups = await self._on_disk(self._journal.batch, step)
                self._decide(self._hub.restored(step, groups, self._now()))
            if self._hub.is_over and self._decided.is_empty:
                self._over.set()

    def _say(self) -> None:
        """One log line when the phase or the message changed."""
        state = self._hub.state
        now = (str(state.phase.key or state.phase.stage) if state.phase else "", state.ending, state.message)
        if now != self._said:
            self._said = now
            log.info("phase", phase=now[0], ending=now[1], message=now[2], step=state.step, version=state.version)

    # --- small helpers -------------------------------------------------------------------------------------------

    def _now(self) -> float:
        """Seconds of the run."""
        return time.monotonic() - self._zero

    async def _on_disk(self, function: Callable[..., T], *arguments: Any) -> T:
        return await self._in(self._disk, function, *arguments)

    async def _in(self, pool: ThreadPoolExecutor, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)
