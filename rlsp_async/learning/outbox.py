"""What leaves the learner while it trains on: two named threads that work in order, with bounds.

    weights    sums and names of versions, then the reports: short, because samplers wait for it
    files      exports and checkpoints: long, nobody waits for them but the end of a stage

An error on either thread is the error of the learner: nothing that was put after it is done, and `check` raises it in
the thread that trains. `failed` is done with it when nobody waits for the work itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Literal, TypeVar

from rlsp_async.errors import MachineError
from rlsp_async.pulse import watched

T = TypeVar("T")

Lane = Literal["weights", "files"]
LANES: tuple[Lane, ...] = ("weights", "files")
MOST_WAITING = 4
"""Works of one thread that are not done; one more waits for room."""
WORK_S = 1800.0
"""A version, an export or a checkpoint that takes longer hangs."""


class Outbox:
    """Two threads and their works. `put` and `add` are called by the thread that trains."""

    def __init__(self) -> None:
        self._threads = {lane: ThreadPoolExecutor(1, thread_name_prefix=lane) for lane in LANES}
        self._works: dict[Lane, list[Future[Any]]] = {lane: [] for lane in LANES}
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self.failed: Future[None] = Future()
        """Done with the error of a work that nobody waits for."""

    def put(self, lane: Lane, work: Callable[[], T]) -> Future[T]:
        """Gives a work to a thread; the caller waits for the result, or hands it to somebody who does.

        Raises:
            MachineError: the works before it hang.
        """
        waiting = [each for each in self._works[lane] if not each.done()]
        if len(waiting) >= MOST_WAITING:
            _wait(waiting[:1], WORK_S)
        future = self._threads[lane].submit(watched, self._done_whole, work)
        self._works[lane] = [*waiting, future]
        return future

    def add(self, lane: Lane, work: Callable[[], object]) -> None:
        """Gives a work to a thread; nobody waits for it, so that its error is everybody's (`failed`)."""
        self.put(lane, work).add_done_callback(self._tell)

    def check(self) -> None:
        """Raises the first error of a work."""
        if self._error is not None:
            raise self._error

    @property
    def has_failed(self) -> bool:
        """Whether a work has raised an error."""
        return self._error is not None

    def settle(self, lane: Lane | None = None, bound_s: float = WORK_S) -> None:
        """Waits until all that was put is done, on one thread or on both.

        Raises:
            MachineError: it takes longer than `bound_s`.
        """
        lanes = LANES if lane is None else (lane,)
        _wait([each for name in lanes for each in self._works[name]], bound_s)

    def _done_whole(self, work: Callable[[], T]) -> T:
        """Does a work, unless one before it failed."""
        self.check()
        try:
            return work()
        except BaseException as e:
            with self._lock:
                self._error = self._error or e
            raise

    def _tell(self, done: Future[Any]) -> None:
        error = done.exception()
        with self._lock:
            if error is not None and not self.failed.done():
                self.failed.set_exception(error)


def _wait(works: list[Future[Any]], bound_s: float) -> None:
    """Waits for works, whatever becomes of them. Raises MachineError when they take longer than `bound_s`."""
    if wait(works, bound_s).not_done:
        raise MachineError(
            f"weights or a checkpoint were not written within {bound_s:.0f} s: the disk hangs; see to it, then the run "
            "goes on from its newest checkpoint"
        )
