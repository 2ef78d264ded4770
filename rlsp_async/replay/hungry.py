"""Who gets the next lease: the least busy worker with credit left, found without looking at the others. Pure.

    hungry.place(worker)                  its credit, leases, state or version changed
    hungry.first("sampler", version=3)    the least busy sampler that serves version 3, or None

One heap for each role and version. An entry that was overtaken stays until it comes to the top or the heaps are built
anew, so a change costs O(log workers).
"""

from __future__ import annotations

import heapq
from typing import Generic, Protocol, TypeVar

from rlsp_async.messages import Role

Key = tuple[Role, int]

SLACK = 64
"""Overtaken entries that are kept, besides three for each worker."""


class Eater(Protocol):
    """What of a worker matters here."""

    @property
    def name(self) -> str: ...

    @property
    def role(self) -> Role: ...

    @property
    def version(self) -> int: ...

    @property
    def free(self) -> int: ...

    @property
    def load(self) -> float: ...

    @property
    def joined(self) -> int: ...


W = TypeVar("W", bound=Eater)


class LeastLoaded(Generic[W]):
    """The workers with credit left; of equally busy ones, the one that came first."""

    def __init__(self) -> None:
        self._heaps: dict[Key, list[tuple[float, int, int, W]]] = {}
        self._places: dict[str, tuple[Key, float, int]] = {}
        """Worker -> heap, load and ticket of its entry."""
        self._ticket = 0
        self._num_entries = 0

    def place(self, worker: W) -> None:
        """Puts a worker where it belongs now; out, when it has no credit left."""
        if worker.free <= 0:
            self._places.pop(worker.name, None)
            return
        key = _key(worker.role, worker.version)
        old = self._places.get(worker.name)
        if old is not None and old[:2] == (key, worker.load):
            return
        self._ticket += 1
        self._num_entries += 1
        self._places[worker.name] = key, worker.load, self._ticket
        heapq.heappush(self._heaps.setdefault(key, []), (worker.load, worker.joined, self._ticket, worker))
        if self._num_entries > 4 * len(self._places) + SLACK:
            self._rebuild()

    def remove(self, worker: W) -> None:
        """It has gone, or is left out for now. Idempotent."""
        self._places.pop(worker.name, None)

    def first(self, role: Role, version: int) -> W | None:
        """The least busy one; the version matters for samplers only."""
        key = _key(role, version)
        heap = self._heaps.get(key)
        while heap:
            if self._is_valid(heap[0]):
                return heap[0][3]
            heapq.heappop(heap)
            self._num_entries -= 1
        self._heaps.pop(key, None)
        return None

    def _is_valid(self, entry: tuple[float, int, int, W]) -> bool:
        place = self._places.get(entry[3].name)
        return place is not None and place[2] == entry[2]

    def _rebuild(self) -> None:
        kept = {key: [entry for entry in heap if self._is_valid(entry)] for key, heap in self._heaps.items()}
        self._heaps = {key: heap for key, heap in kept.items() if heap}
        for heap in self._heaps.values():
            heapq.heapify(heap)
        self._num_entries = sum(len(heap) for heap in self._heaps.values())


def _key(role: Role, version: int) -> Key:
    return role, version if role == "sampler" else 0
