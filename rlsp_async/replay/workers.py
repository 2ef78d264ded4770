"""Who gets the next lease: the least busy worker with credit left, found without looking at the others. Pure.

    hungry.place(worker)                  its credit, leases, state or version changed
    hungry.first("sampler", version=3)    the least busy sampler that serves version 3, or None

One heap for each role and version. An entry that was overtaken stays until it comes to the top or the heaps are built
anew, so a change costs O(log workers).

Workers and the leases they hold. Pure; nothing here survives the hub: after a restart every worker says hello again.

A lease is for one group (sample, verify) or one step (train). The same key is never in two leases.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

from rlsp_async.messages import Hello, Role, WorkerStatus

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


K = TypeVar("K")
V = TypeVar("V")

Kind = Literal["sample", "verify", "train"]

KIND_OF: dict[Role, Kind] = {"sampler": "sample", "verifier": "verify", "learner": "train"}
PINGS_KEPT = 5
REMEMBERED = 8192
"""Acknowledged leases, departed workers and fenced connections that are remembered."""


@dataclass(slots=True)
class Lease:
    """One piece of work in one worker's hands."""

    lease: int
    worker: str
    kind: Kind
    key: int
    """Group id, or step when kind is "train"."""
    since_s: float
    missed: int = 0
    """Pings in a row that should have named it and did not."""


@dataclass
class Worker:
    """One worker that said hello. What decides on its next lease is told to `hungry` as it changes."""

    name: str
    role: Role
    peer: bytes
    incarnation: int
    credit: int
    seen_s: float
    hungry: LeastLoaded[Worker]
    joined: int
    """Rises with each worker that comes."""
    rejections: int = 0
    """Times it refused the newest version."""
    made_by: int = 0
    """Incarnation of the learner that made that version."""
    offered_s: float = 0.0
    """When it was last told of the newest version."""
    hello_seq: int = 0
    ping_seq: int = 0
    """Newest of each that was heard: what comes later with a smaller number is out of date."""
    leases: dict[int, Lease] = field(default_factory=dict)
    windows: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=PINGS_KEPT))
    """(busy_s, window_s) of the last pings."""
    _version: int = -1
    _state: str = "waiting_work"

    @property
    def version(self) -> int:
        """Sampler: the version it serves; -1 while it serves none."""
        return self._version

    @version.setter
    def version(self, version: int) -> None:
        if version != self._version:
            self._version = version
            self.hungry.place(self)

    @property
    def state(self) -> str:
        """As its last Ping said."""
        return self._state

    @state.setter
    def state(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self.hungry.place(self)

    @property
    def load(self) -> float:
        """Share of its credit that is taken."""
        return len(self.leases) / self.credit

    @property
    def free(self) -> int:
        """Credit left; none while it drains."""
        return 0 if self.state == "draining" else self.credit - len(self.leases)

    @property
    def idle_share(self) -> float:
        """0..1 over the last pings; 1 before the first."""
        window_s = sum(window for _, window in self.windows)
        busy_s = sum(busy for busy, _ in self.windows)
        return min(1.0, max(0.0, 1.0 - busy_s / window_s)) if window_s > 0 else 1.0

    def status(self, now: float) -> WorkerStatus:
        """As an observer sees it."""
        return WorkerStatus(
            worker=self.name,
            role=self.role,
            state=self.state,
            leases=len(self.leases),
            credit=self.credit,
            idle_share=self.idle_share,
            version=self.version,
            silent_s=max(0.0, now - self.seen_s),
        )


class WorkerTable:
    """All workers by name and by connection, all leases by number and by key."""

    def __init__(self, incarnation: int) -> None:
        self.workers: dict[str, Worker] = {}
        self.hungry: LeastLoaded[Worker] = LeastLoaded()
        self._by_role: dict[Role, dict[str, Worker]] = defaultdict(dict)
        self.peers: dict[bytes, Worker] = {}
        self.leases: dict[int, Lease] = {}
        self.holders: dict[tuple[Kind, int], Lease] = {}
        self.newest: OrderedDict[str, tuple[int, int]] = OrderedDict()
        """(incarnation, number of its newest Hello) of each name, of those that have left, too."""
        self.acked: OrderedDict[int, None] = OrderedDict()
        """Leases whose result is in."""
        self.fenced: OrderedDict[bytes, str] = OrderedDict()
        """Connections of older starts, and what they are told."""
        self._num_joined = 0
        self._next = (incarnation << 32) + 1  # a lease of an earlier hub is never mistaken for one of ours

    def join(self, hello: Hello, peer: bytes, now: float) -> Worker:
        """A new worker, or a known one on a new connection (its leases stay)."""
        worker = self.workers.get(hello.worker)
        if worker is None:
            worker = Worker(
                hello.worker, hello.role, peer, hello.incarnation, hello.credit, now, self.hungry, self._num_joined
            )
            self._num_joined += 1
            self.workers[hello.worker] = self._by_role[worker.role][worker.name] = worker
        self.peers.pop(worker.peer, None)
        self.peers[peer] = worker
        worker.peer, worker.credit, worker.seen_s, worker.state = peer, hello.credit, now, "waiting_work"
        worker.hello_seq = hello.seq
        self.hungry.place(worker)
        self.newest[worker.name] = worker.incarnation, worker.hello_seq
        _trim(self.newest, worker.name)
        return worker

    def acknowledge(self, number: int) -> None:
        """The result of a lease is in."""
        self.acked[number] = None
        _trim(self.acked, number)

    def fence(self, peer: bytes, why: str) -> None:
        """What comes over this connection from now on is refused."""
        self.fenced[peer] = why
        _trim(self.fenced, peer)

    def leave(self, worker: Worker) -> list[Lease]:
        """It is gone; returns the leases that are void now."""
        self.workers.pop(worker.name, None)
        self._by_role[worker.role].pop(worker.name, None)
        self.hungry.remove(worker)
        self.peers.pop(worker.peer, None)
        return [lease for lease in list(worker.leases.values()) if self.release(lease.lease)]

    def lease(self, worker: Worker, kind: Kind, key: int, now: float, number: int = 0) -> Lease:
        """Puts a piece of work into a worker's hands, under a new number unless it has one. The caller has checked
        credit and key."""
        assert worker.free > 0, worker
        assert (kind, key) not in self.holders, (kind, key)
        lease = Lease(number or self._next, worker.name, kind, key, now)
        self._next += not number
        self.leases[lease.lease] = worker.leases[lease.lease] = self.holders[kind, key] = lease
        self.hungry.place(worker)
        return lease

    def release(self, number: int) -> Lease | None:
        """The lease ends, whatever the reason; None when there is no such lease (any more)."""
        lease = self.leases.pop(number, None)
        if lease is not None:
            del self.holders[lease.kind, lease.key]
            worker = self.workers.get(lease.worker)
            if worker is not None:
                worker.leases.pop(number, None)
                self.hungry.place(worker)
        return lease

    def of(self, role: Role) -> list[Worker]:
        """Workers of a role."""
        return list(self._by_role[role].values())

    def num(self, role: Role) -> int:
        """How many there are of a role."""
        return len(self._by_role[role])

    @property
    def num_working(self) -> int:
        """All but the observers."""
        return len(self.workers) - self.num("observer")

    def learner(self) -> Worker | None:
        """The learner, when it is there."""
        return next(iter(self._by_role["learner"].values()), None)

    def silent(self, now: float, timeout_s: float) -> list[Worker]:
        """Workers that gave no sign of life for too long."""
        return [worker for worker in self.workers.values() if now - worker.seen_s > timeout_s]

    def expired(self, now: float, lease_s: float) -> list[Lease]:
        """Leases whose worker gave no sign of life for so long; any sign extends all leases of a worker."""
        return [
            lease
            for worker in self.workers.values()
            for lease in worker.leases.values()
            if now - max(worker.seen_s, lease.since_s) > lease_s
        ]


def _trim(table: OrderedDict[K, V], key: K) -> None:
    """`key` is the newest; the oldest goes when there are too many."""
    table.move_to_end(key)
    if len(table) > REMEMBERED:
        table.popitem(last=False)
