"""What channels over a process group of torch have in common: a queue of broadcasts, deadlines, and an end.

    gloo.py    a transfer ends when torch calls back
    nccl.py    a transfer is looked at until it is done

Rank 0 of the group sends, the others receive. A kind of channel is a subclass: it says what a transfer is
(`_transfer`), and how a group ends (`_end`).
"""

from __future__ import annotations

import abc
import atexit
import threading
import time
import weakref
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed

from rlsp_async.errors import WeightsDelayed

CLOSE_S = 5.0
"""How long the end of the interpreter waits for groups that end."""
_DIST: Any = torch.distributed
"""Its types are not exported."""
_SHORT = 160
"""Characters of a library's error that are kept."""
_CLOSING: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
"""Threads in which groups end."""


class Transfer(Protocol):
    """One broadcast under way."""

    def wait(self, seconds: float) -> bool:
        """Whether it is over, in good or in bad order, within these seconds; returns early after `wake`."""
        ...

    def wake(self) -> None:
        """Ends the wait."""
        ...

    def finish(self) -> None:
        """Puts what came where it belongs. Raises RuntimeError when the broadcast failed."""
        ...


class GroupChannel(abc.ABC):
    """A channel over a process group. Its subclasses satisfy `channel.Channel`."""

    kind: str

    def __init__(self, name: str, group: Any, store: Any) -> None:
        """Takes a process group, and the store that it was opened with."""
        self.name = name
        self._group, self._store = group, store
        self._queued: list[Transfer] = []
        self._closed = threading.Event()
        self._lock = threading.Lock()

    @abc.abstractmethod
    def _transfer(self, work: Any, tensor: torch.Tensor, target: torch.Tensor | None) -> Transfer:
        """The transfer of a broadcast of torch; `target` is where its tensor is copied at the end, if it is another."""

    @abc.abstractmethod
    def _end(self, group: Any) -> None:
        """Ends a group, in a thread of its own."""

    def _queue(self, tensor: torch.Tensor, target: torch.Tensor | None) -> None:
        """Queues a broadcast from rank 0. Raises WeightsDelayed."""
        options = _DIST.BroadcastOptions()
        options.rootRank = 0
        with self._lock:
            if self._group is None:
                raise WeightsDelayed(f"channel {self.name} is closed")
            try:
                work = self._group.broadcast([tensor], options)
            except RuntimeError as e:
                raise WeightsDelayed(f"channel {self.name} broke: {short(e)}") from None
            self._queued.append(self._transfer(work, tensor, target))

    def finish(self, deadline_s: float) -> None:
        """Waits for each transfer in its order. After an error the channel is closed."""
        until = time.monotonic() + deadline_s
        while True:
            with self._lock:
                transfer = self._queued[0] if self._queued else None
            if transfer is None:
                break
            why = self._finish(transfer, until, deadline_s)
            if why:
                self.close()
                raise WeightsDelayed(f"channel {self.name} {why}")
            with self._lock:
                del self._queued[:1]
        if self._closed.is_set():
            raise WeightsDelayed(f"channel {self.name} was closed")

    def _finish(self, transfer: Transfer, until: float, deadline_s: float) -> str:
        """Ends one transfer; what went wrong, or nothing."""
        try:
            is_over = transfer.wait(max(0.0, until - time.monotonic()))
            if self._closed.is_set():
                return "was closed"
            if not is_over:
                return f"was silent for {deadline_s:g} s"
            transfer.finish()
        except RuntimeError as e:
            return f"broke: {short(e)}"
        return ""

    def close(self) -> None:
        """Ends what waits, then the group, which may wait for what it has begun: in a thread."""
        with self._lock:
            self._closed.set()
            for transfer in self._queued:
                transfer.wake()
            held = [self._group, self._store, self._queued]
            self._group, self._store, self._queued = None, None, []
        if held[0] is not None:
            closing = threading.Thread(target=_let_go, args=(self._end, held), name=f"{self.kind}-close", daemon=True)
            closing.start()
            _CLOSING.add(closing)


def _let_go(end: Callable[[Any], None], held: list[Any]) -> None:
    """Ends the group in `held`. That list alone refers to group and tensors, so this thread is the last to let go."""
    end(held[0])
    held.clear()


@atexit.register
def _await_ends() -> None:
    """An interpreter that ends while a group of gloo does would be aborted."""
    until = time.monotonic() + CLOSE_S
    for thread in list(_CLOSING):
        thread.join(max(0.0, until - time.monotonic()))


def meet(name: str, where: bytes, seconds: float) -> Any:
    """The store in which the ends of a channel find each other, under the channel's name and token.

    Args:
        name: of the channel.
        where: what `gloo.GlooHost.where` returned.
        seconds: longest wait of the store's own requests.

    Raises:
        ValueError: `where` is no such place.
        RuntimeError: nobody listens there.
    """
    host, port, token = read_where(where)
    limit = timedelta(seconds=max(0.1, seconds))
    return _DIST.PrefixStore(f"{name}/{token}", _DIST.TCPStore(host, port, None, False, limit, wait_for_workers=False))


def read_where(where: bytes) -> tuple[str, int, str]:
    """(host, port, token) of what `gloo.GlooHost.where` returned. Raises ValueError."""
    address, token = where.decode().split(" ")
    host, _, port = address.rpartition(":")
    return host, int(port), token


def short(error: BaseException) -> str:
    """The first words of an error of torch."""
    return " ".join(str(error).split())[:_SHORT]
