"""Ranks 1 to N - 1 of a learner: how they start, join, obey rank 0, and how rank 0 sees them die.

    rank 0: start(cfg) -> join(...) -> Learner ... Order("train") ... Order("idle") ... Order("stop")
    rank r: python -m rlsp_async.learning.follower SETTINGS -> join(...) -> Learner -> obeys until "stop"

Rank 0 starts the others as its children, in its own process group, unless RANK and WORLD_SIZE are set: then somebody
else (torchrun, a JobSet of Kubernetes) has started all ranks, on one host or several. A child is killed by the kernel
when rank 0 dies. When a child dies, rank 0 ends with its reason; the supervisor starts all of them again, and they
resume from the newest checkpoint. A rank that hangs lets a collective of the others time out.
"""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Mapping
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import msgspec
import structlog
import torch
from torch import distributed as dist

from rlsp_async.config import RunConfig, load, to_toml
from rlsp_async.errors import ConfigError, ContentError, DivergedError, MachineError, MessageError, RankLost, UserError
from rlsp_async.files import replace_file
from rlsp_async.learning.learner import Learner, Order, find_device
from rlsp_async.learning.outbox import WORK_S
from rlsp_async.learning.ranks import Ranks
from rlsp_async.processes import kill_with_parent
from rlsp_async.tokens import TokenizerCodec

LEADER = "RLSP_RANK_0_PID"
"""Environment variable with the process id of rank 0, which has started this rank."""
STORE = "RLSP_RANKS_FILE"
"""Environment variable with the file by which the ranks of one host find one another; unset: torch's own variables."""
LOST_S = 5.0
"""How long the end of another rank is waited for when this one cannot go on."""
SETTINGS = ".ranks.toml"
"""End of the name of the file with the settings of the other ranks, in the directory of logs."""
ORDER_S = 600.0
"""Longest wait of a rank for an order."""
IDLE_EVERY_S = 60.0
"""While nothing is trained, an order to do nothing is given this often."""

T = TypeVar("T")

log = structlog.get_logger()


class RankPlace(NamedTuple):
    """Which rank of how many a process is."""

    rank: int
    size: int
    is_given: bool
    """Whether RANK and WORLD_SIZE say so; else rank 0 starts the others."""


def place_of(cfg: RunConfig, environment: Mapping[str, str]) -> RankPlace:
    """Which rank this process is.

    Raises:
        ConfigError: RANK or WORLD_SIZE do not fit the settings.
    """
    rank, size = environment.get("RANK"), environment.get("WORLD_SIZE")
    if rank is None and size is None:
        return RankPlace(0, cfg.learner.ranks, False)
    if not (rank or "").isdecimal() or not (size or "").isdecimal() or int(rank or 0) >= int(size or 0):
        raise ConfigError(f"RANK is {rank!r} and WORLD_SIZE is {size!r}: set both, RANK below WORLD_SIZE, or neither")
    if int(size or 0) != cfg.learner.ranks:
        raise ConfigError(f"WORLD_SIZE is {size} and learner.ranks is {cfg.learner.ranks}: make them equal")
    return RankPlace(int(rank or 0), int(size or 0), True)


class Followers:
    """The ranks that rank 0 has started. `lost` is done with an error as soon as one of them has ended."""

    def __init__(self, processes: list[subprocess.Popen[bytes]], logs: list[Path], directory: Path | None) -> None:
        self._processes, self._logs, self._directory = processes, logs, directory
        self.lost: Future[None] = Future()
        if processes:
            threading.Thread(target=self._watch, name="ranks", daemon=True).start()

    def lead(self, cfg: RunConfig, incarnation: int) -> Learner:
        """Joins the other ranks, and builds the learner of rank 0.

        Raises:
            MachineError: they do not come in time.
            UserError: what `Learner` raises.
        """
        try:
            ranks = join(cfg, place_of(cfg, os.environ))
        finally:  # by now they have found one another
            if self._directory is not None:
                shutil.rmtree(self._directory, ignore_errors=True)
        model_dir = cfg.directory / "model"
        encode = TokenizerCodec(model_dir, eos_ids=()).encode
        learner = Learner(
            cfg,
            model_dir=model_dir,
            run_dir=cfg.directory,
            incarnation=incarnation,
            encode=encode,
            claims=False,
            ranks=ranks,
        )
        keep_awake(learner)
        return learner

    async def until_lost(self, work: Awaitable[T]) -> T:
        """The result of a work that cannot go on without the ranks. Raises its error, or that of a rank that has ended.

        When a rank ends, collectives of this process fail as well, at the same time or before it is seen.
        """
        working, losing = asyncio.ensure_future(work), asyncio.wrap_future(self.lost)
        try:
            both: set[asyncio.Future[Any]] = {working, losing}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if self._processes and working.done() and not working.cancelled() and working.exception():
                await asyncio.wait({losing}, timeout=LOST_S)
            if losing.done():
                losing.result()
            return await working
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    def _watch(self) -> None:
        """Waits for the first rank that ends."""
        poll = select.poll()
        ranks = {os.pidfd_open(process.pid): number for number, process in enumerate(self._processes)}
        for descriptor in ranks:
            poll.register(descriptor, select.POLLIN)
        [(descriptor, _), *_] = poll.poll()  # bounded by the life of this process: the thread is a daemon
        number = ranks[descriptor]
        code = self._processes[number].wait(ORDER_S)
        self.lost.set_exception(error_of(number + 1, code, last_line(self._logs[number])))


def error_of(rank: int, code: int, said: str) -> Exception:
    """What rank 0 raises when another rank has ended; that rank's own sentence where a user can do something."""
    text = f"rank {rank} of the learner ended with {_exit_text(code)}" + (f": {said}" if said else "")
    kinds: dict[int, type[Exception]] = {UserError.exit_code: MachineError, DivergedError.exit_code: DivergedError}
    return kinds.get(code, RankLost)(text)


def _exit_text(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def last_line(path: Path) -> str:
    """The last line of a rank's output; empty without output."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")[:500]


def start(cfg: RunConfig, worker: str) -> Followers:
    """Starts ranks 1 to N - 1 as children of this process; none where somebody else has started all ranks.

    To be called by the thread that lives as long as this process, because the kernel watches it.

    Args:
        cfg: the run.
        worker: name of the learner, of which the names of their logs are made.

    Raises:
        MachineError: the disk refuses.
    """
    place = place_of(cfg, os.environ)
    if place.size == 1 or place.is_given:
        return Followers([], [], None)
    directory, settings = Path(tempfile.mkdtemp(prefix="rlsp-ranks-")), cfg.directory / "logs" / f"{worker}{SETTINGS}"
    processes, logs = [], []
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # one host: nothing listens to the network
    os.environ[STORE] = str(directory / "store")
    try:
        replace_file(settings, to_toml(cfg), durable=False)
        for rank in range(1, cfg.learner.ranks):
            logs.append(cfg.directory / "logs" / f"{worker}.rank{rank}.out")
            with logs[-1].open("wb") as output:
                processes.append(_start_one(settings, rank, cfg.learner.ranks, output))
    except OSError as e:
        raise MachineError(f"{settings.parent}: the ranks of the learner cannot be started: {e}") from e
    return Followers(processes, logs, directory)


def output_name(settings: Path, rank: int) -> str:
    """The name of a rank's process: logs/learner-0.ranks.toml, 1 -> learner-0.rank1."""
    return settings.name.replace(SETTINGS, f".rank{rank}")


def _start_one(settings: Path, rank: int, size: int, output: IO[bytes]) -> subprocess.Popen[bytes]:
    numbers = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), LEADER: str(os.getpid())}
    return subprocess.Popen(
        [sys.executable, "-m", "rlsp_async.learning.follower", str(settings), "--worker", output_name(settings, rank)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env={**os.environ, **numbers},
    )


def join(cfg: RunConfig, place: RankPlace) -> Ranks:
    """Joins torch's process group as one of the ranks, and makes the groups for orders and for files.

    A collective of a step waits `replay.stall_s` for a rank that hangs.

    Raises:
        MachineError: the others do not come in time.
    """
    device = find_device(cfg.learner.device)
    if place.size == 1:
        return Ranks(device=device)
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", place.rank)) % torch.cuda.device_count())
    bound = timedelta(seconds=cfg.replay.stall_s)
    store = os.environ.get(STORE)
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    try:
        if store and (not place.is_given or LEADER in os.environ):
            shared = torch.distributed.FileStore(store, place.size)  # type: ignore[attr-defined]
            dist.init_process_group(backend, store=shared, rank=place.rank, world_size=place.size, timeout=bound)
        else:
            dist.init_process_group(backend, timeout=bound)
        orders = dist.new_group(backend="gloo", timeout=timedelta(seconds=ORDER_S))
        files = dist.new_group(backend="gloo", timeout=timedelta(seconds=WORK_S))
    except (RuntimeError, ValueError) as e:  # torch's DistError and its kin
        raise MachineError(f"rank {place.rank} of {place.size} of the learner cannot join the others: {e}") from e
    aside = Ranks(place.rank, place.size, device, orders=files, group=files)
    return Ranks(place.rank, place.size, device, orders=orders, aside=aside)


def keep_awake(learner: Learner) -> None:
    """Has a thread of rank 0 give an order to do nothing, every so often, while nothing is trained.

    Nothing is done for a learner of one rank.
    """
    if learner.ranks.size == 1:
        return

    def give() -> None:
        stopped = threading.Event()
        while not stopped.wait(IDLE_EVERY_S):
            learner.order_idle()

    threading.Thread(target=give, name="orders", daemon=True).start()


def follow(cfg: RunConfig) -> None:
    """Computes as a rank above 0 until rank 0 says stop. Raises what the learner raises."""
    ranks = join(cfg, place_of(cfg, os.environ))
    learner = Learner(cfg, cfg.directory / "model", cfg.directory, claims=False, ranks=ranks)
    while True:
        order = msgspec.msgpack.decode(ranks.broadcast_bytes(), type=Order)
        if order.kind == "stop":
            return
        try:
            learner.obey(order)
        except (ContentError, MessageError) as e:  # rank 0 tells the hub, and goes on
            log.warning(str(e))


def main() -> int:
    """Runs one rank as this process; returns its exit code."""
    if LEADER in os.environ:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a person stops rank 0, which stops this one
        if not kill_with_parent(int(os.environ[LEADER])):
            return 0
    try:
        cfg = load(sys.argv[1])  # the name that follows is for those who look for the process
        follow(cfg)
    except (UserError, DivergedError) as e:
        print(f"rlsp learner: {e}", file=sys.stderr, flush=True)
        return e.exit_code
    return 0


if __name__ == "__main__":
    os._exit(main())  # torch's own teardown would wait for the other ranks
