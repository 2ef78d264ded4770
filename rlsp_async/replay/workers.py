"""Workers, the leases they hold, and who gets the next lease. Pure.

A lease is one piece of work in one worker's hands: a group (sample, verify) or a step (train). The same piece is never
in two leases. Nothing here survives the hub: after a restart every worker says hello again.

`LeastLoaded` is an index of the workers with free credit: `first(role, version)` is the least loaded one, in O(log n).
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeVar

from rlsp_async.messages import Hello, Ping, Role, WorkerStatus

K = TypeVar("K")
V = TypeVar("V")

Kind = Literal["sample", "verify", "train"]

KIND_OF: dict[Role, Kind] = {"sampler": "sample", "verifier": "verify", "learner": "train"}
PINGS_KEPT = 5
REMEMBERED = 8192
"""Number of ended leases, of departed workers and of fenced connections that are remembered."""
RELAYS_PER_S = 8
"""Messages of one worker that are relayed to another one within a second."""
ORIGIN_CHARACTERS = 64
SLACK = 64
"""Outdated entries that `LeastLoaded` keeps, besides three for each worker."""


def identity(role: Role, name: str) -> str:
    """The key of a worker among those of all roles: its name when that begins with its role, like sampler-0.

    Nobody else has such a name (`protocol.py` refuses it), so no role ever meets a name of another one.
    """
    return name if name.startswith(f"{role}-") else f"{role} {name}"


def newest_key(hello: Hello) -> str:
    """The key of a start's number among the newest ones; each process by hand has numbers of its own."""
    key = identity(hello.role, hello.worker)
    return " ".join((key, "by hand", *origin_of(hello))) if hello.yields else key


def origin_of(hello: Hello) -> tuple[str, str]:
    """Host and process id of a Hello."""
    return hello.info.get("host", "")[:ORIGIN_CHARACTERS], hello.info.get("pid", "")[:ORIGIN_CHARACTERS]


class Assignment(NamedTuple):
    """One piece of work and the worker who had or has it."""

    worker: str
    kind: Kind
    key: int
    """Group id, or step when kind is "train"."""


@dataclass(slots=True)
class Lease:
    """One piece of work in one worker's hands."""

    lease: int
    worker: str
    kind: Kind
    key: int
    """Group id, or step when kind is "train"."""
    since_s: float
    incarnation: int = 0
    """Of the worker."""
    owner: str = ""
    """`identity` of the worker."""
    missed: int = 0
    """Consecutive pings that should have named the lease and did not."""
    answer: Literal["", "acknowledged", "refused"] = ""
    """What became of its result; empty while none has come."""

    @property
    def assignment(self) -> Assignment:
        """What is leased, and to whom."""
        return Assignment(self.worker, self.kind, self.key)

    def pinged(self, is_missed: bool) -> int:
        """A ping named the lease, or should have and did not; returns how many in a row did not."""
        self.missed = self.missed + 1 if is_missed else 0
        return self.missed

    def answered(self, answer: Literal["acknowledged", "refused"]) -> None:
        """Its result has come, and was stored or refused."""
        self.answer = answer


@dataclass
class Worker:
    """One worker that said hello. Changes that decide on its next lease are passed on to `index` at once."""

    name: str
    role: Role
    peer: bytes
    incarnation: int
    credit: int
    seen_s: float
    index: LeastLoaded
    joined: int
    """Number of workers that came before it."""
    rejections: int = 0
    """Times it refused the newest version."""
    offered_s: float = 0.0
    """When it was last told of the newest version."""
    hello_seq: int = 0
    ping_seq: int = 0
    """Newest Hello and Ping that was heard: one with a smaller number is out of date."""
    leases: dict[int, Lease] = field(default_factory=dict)
    windows: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=PINGS_KEPT))
    """(busy_s, window_s) of the last pings."""
    version: int = -1
    """Sampler: the version it serves; -1 while it serves none."""
    state: str = "waiting_work"
    """As its last Ping said."""
    yields: bool = False
    """Nobody numbers its starts: it was started by hand, and a numbered start replaces it."""
    origin: tuple[str, str] = ("", "")
    """Host and process id, as it said."""
    num_refused: int = 0
    """Results of this start that were refused."""
    num_relayed: int = 0
    """Messages of this start that were relayed to another worker."""
    relayed_s: deque[float] = field(default_factory=lambda: deque(maxlen=RELAYS_PER_S))
    """When the newest of them were relayed."""
    id: str = field(init=False)
    """Its key in the table of workers (`identity`)."""

    def __post_init__(self) -> None:
        self.id = identity(self.role, self.name)

    def is_start_of(self, hello: Hello) -> bool:
        """Whether a Hello is of this very start of the worker."""
        is_same = (self.incarnation, self.yields) == (hello.incarnation, hello.yields)
        return is_same and (not self.yields or self.origin == origin_of(hello))

    @property
    def load(self) -> float:
        """Share of its credit that is taken."""
        return len(self.leases) / self.credit

    @property
    def free(self) -> int:
        """Credit that is left; none while it drains."""
        return 0 if self.state == "draining" else self.credit - len(self.leases)

    @property
    def idle_share(self) -> float:
        """Share of time without work over the last pings, 0..1; 1 before the first."""
        window_s = sum(window for _, window in self.windows)
        busy_s = sum(busy for busy, _ in self.windows)
        return min(1.0, max(0.0, 1.0 - busy_s / window_s)) if window_s > 0 else 1.0

    def status(self, now: float) -> WorkerStatus:
        """What observers are told of it."""
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

    # --- what it said, and what it was told ----------------------------------------------------------------------

    def heard(self, now: float) -> None:
        """It gave a sign of life."""
        self.seen_s = now

    def pinged(self, ping: Ping) -> None:
        """A Ping said what it does."""
        self.is_in_state(ping.state)
        self.windows.append((ping.busy_s, ping.window_s))
        if ping.seq:
            self.ping_seq = ping.seq

    def is_in_state(self, state: str) -> None:
        """It is in this state from now on."""
        if state != self.state:
            self.state = state
            self.index.place(self)

    def serves(self, version: int) -> None:
        """It serves this version from now on; -1: none."""
        if version != self.version:
            self.version = version
            self.index.place(self)

    def loaded(self, version: int) -> None:
        """It loaded a version successfully."""
        self.rejections = 0
        self.serves(version)

    def rejected(self) -> int:
        """It refused the newest version; returns how often it has."""
        self.rejections += 1
        return self.rejections

    def refused(self) -> int:
        """A result of it was refused; returns how many were."""
        self.num_refused += 1
        return self.num_refused

    def may_relay(self, now: float) -> bool:
        """Whether one more message of it may be relayed now; counts it. At most RELAYS_PER_S in a second."""
        if len(self.relayed_s) == RELAYS_PER_S and now - self.relayed_s[0] < 1.0:
            return False
        self.relayed_s.append(now)
        self.num_relayed += 1
        return True

    def offered(self, now: float, is_new: bool = False) -> None:
        """It was told of the newest version; `is_new`: for the first time, so earlier refusals do not count."""
        self.offered_s = now
        if is_new:
            self.rejections = 0


class WorkerTable:
    """All workers by name and by connection, all leases by number and by key."""

    def __init__(self, incarnation: int) -> None:
        self.workers: dict[str, Worker] = {}
        """By `identity`: each role has names of its own."""
        self.index = LeastLoaded()
        self._by_role: dict[Role, dict[str, Worker]] = defaultdict(dict)
        self.peers: dict[bytes, Worker] = {}
        self.leases: dict[int, Lease] = {}
        self.holders: dict[tuple[Kind, int], Lease] = {}
        """The lease of each piece of work that is leased."""
        self.newest: OrderedDict[str, tuple[int, int]] = OrderedDict()
        """(incarnation, number of the newest Hello) of each `identity`, including those that have left."""
        self.ended: OrderedDict[int, Lease] = OrderedDict()
        """The newest leases that have ended, each with the worker who held it."""
        self.fenced: OrderedDict[bytes, str] = OrderedDict()
        """Connections of older incarnations, and what they are told."""
        self._num_joined = 0
        self._incarnation = incarnation
        self._next = (incarnation << 32) + 1  # a lease of an earlier hub is never mistaken for one of this hub

    def join(self, hello: Hello, peer: bytes, now: float) -> Worker:
        """Adds a new worker, or takes a known one over to a new connection (its leases stay)."""
        worker = self.named(hello)
        if worker is None:
            worker = Worker(
                hello.worker, hello.role, peer, hello.incarnation, hello.credit, now, self.index, self._num_joined
            )
            worker.yields, worker.origin = hello.yields, origin_of(hello)
            self._num_joined += 1
            self.workers[worker.id] = self._by_role[worker.role][worker.name] = worker
        self.peers.pop(worker.peer, None)
        self.peers[peer] = worker
        worker.peer, worker.credit, worker.seen_s, worker.state = peer, hello.credit, now, "waiting_work"
        worker.hello_seq = hello.seq
        self.index.place(worker)
        newest = newest_key(hello)
        self.newest[newest] = worker.incarnation, worker.hello_seq
        _trim(self.newest, newest)
        return worker

    def named(self, hello: Hello) -> Worker | None:
        """The worker of the name and role of a Hello, when there is one."""
        return self.workers.get(identity(hello.role, hello.worker))

    def holder(self, lease: Lease) -> Worker | None:
        """The worker who holds a lease, as long as it is there."""
        return self.workers.get(lease.owner)

    def past(self, worker: Worker, number: int) -> Lease | None:
        """A lease that this start of a worker held and that has ended, as far as it is remembered."""
        lease = self.ended.get(number)
        return lease if lease is not None and _held_by(lease, worker) else None

    def may_answer(self, worker: Worker, number: int) -> bool:
        """Whether a lease can be one that this worker was given: its own, or one of an earlier hub.

        A lease of this hub that has ended so long ago that it is forgotten counts as one of an earlier hub.
        """
        lease = self.leases.get(number) or self.ended.get(number)
        return 0 < number < self._next if lease is None else _held_by(lease, worker)

    def may_adopt(self, worker: Worker, number: int, key: int) -> bool:
        """Whether a worker may keep a lease that it says it holds: it was its own, or it is of an earlier hub."""
        lease = self.ended.get(number)
        if number in self.leases or (KIND_OF[worker.role], key) in self.holders:
            return False
        if lease is None:
            return number > 0 and number >> 32 < self._incarnation
        return _held_by(lease, worker) and lease.key == key and not lease.answer

    def fence(self, peer: bytes, why: str) -> None:
        """Everything that comes over this connection from now on is refused."""
        self.fenced[peer] = why
        _trim(self.fenced, peer)

    def leave(self, worker: Worker) -> list[Lease]:
        """Removes a worker; returns its leases, which have ended."""
        self.workers.pop(worker.id, None)
        self._by_role[worker.role].pop(worker.name, None)
        self.index.leave_out(worker)
        self.peers.pop(worker.peer, None)
        return [lease for lease in list(worker.leases.values()) if self.release(lease.lease)]

    def lease(self, worker: Worker, key: int, now: float, number: int = 0) -> Lease:
        """Puts a piece of work of the worker's kind into its hands, under a new number unless one is given.

        The caller has checked that the worker has credit and that nobody holds the work.
        """
        kind = KIND_OF[worker.role]
        assert worker.free > 0, worker
        assert (kind, key) not in self.holders, (kind, key)
        lease = Lease(number or self._next, worker.name, kind, key, now, worker.incarnation, worker.id)
        if number:
            self.ended.pop(number, None)
        else:
            self._next += 1
        self.leases[lease.lease] = worker.leases[lease.lease] = self.holders[kind, key] = lease
        self.index.place(worker)
        return lease

    def release(self, number: int) -> Lease | None:
        """Ends a lease, whatever the reason; None when there is no such lease any more."""
        lease = self.leases.pop(number, None)
        if lease is not None:
            self.ended[number] = lease
            if len(self.ended) > REMEMBERED:
                self.ended.popitem(last=False)
            del self.holders[lease.kind, lease.key]
            worker = self.workers.get(lease.owner)
            if worker is not None:
                worker.leases.pop(number, None)
                self.index.place(worker)
        return lease

    def woke(self, now: float, slept_s: float) -> None:
        """The hub itself was frozen for `slept_s` seconds: no worker counts as silent in that time."""
        for worker in self.workers.values():
            worker.seen_s = now
        for lease in self.leases.values():
            lease.since_s += slept_s

    # --- questions -----------------------------------------------------------------------------------------------

    def with_role(self, role: Role) -> list[Worker]:
        """The workers of a role."""
        return list(self._by_role[role].values())

    def num(self, role: Role) -> int:
        """The number of workers of a role."""
        return len(self._by_role[role])

    @property
    def num_working(self) -> int:
        """The number of workers that are not observers."""
        return len(self.workers) - self.num("observer")

    def learner(self) -> Worker | None:
        """The learner, when it is connected."""
        return next(iter(self._by_role["learner"].values()), None)

    def sampler(self, name: str) -> Worker | None:
        """The sampler of this name, when it is connected."""
        return self._by_role["sampler"].get(name)

    def leased_steps(self) -> set[int]:
        """The steps that the learner holds."""
        return {lease.key for lease in self.leases.values() if lease.kind == "train"}

    def silent(self, now: float, timeout_s: float) -> list[Worker]:
        """Workers that gave no sign of life for longer than `timeout_s`."""
        return [worker for worker in self.workers.values() if now - worker.seen_s > timeout_s]

    def expired(self, now: float, lease_s: float) -> list[Lease]:
        """Leases whose worker gave no sign of life for longer than `lease_s`; any sign extends all its leases."""
        return [
            lease
            for worker in self.workers.values()
            for lease in worker.leases.values()
            if now - max(worker.seen_s, lease.since_s) > lease_s
        ]


class LeastLoaded:
    """Index of the workers with free credit; among equally loaded ones, the worker that joined first comes first.

    There is one heap for each role and version. An outdated entry stays in its heap until it comes to the top or the
    heaps are rebuilt, so a change costs O(log workers).
    """

    def __init__(self) -> None:
        self._heaps: dict[tuple[Role, int], list[tuple[float, int, int, Worker]]] = {}
        self._entries: dict[str, tuple[tuple[Role, int], float, int]] = {}
        """For each worker, the heap, the load and the ticket of its valid entry."""
        self._ticket = 0
        self._num_entries = 0

    def __len__(self) -> int:
        """Number of entries, outdated ones included."""
        return self._num_entries

    def place(self, worker: Worker) -> None:
        """Files a worker by its present credit, leases and version; removes it when it has no credit left."""
        num_held = len(worker.leases)  # `free` and `load`, asked for at every change of a lease
        if num_held >= worker.credit or worker.state == "draining":
            self._entries.pop(worker.id, None)
            return
        key, load = _heap_of(worker.role, worker.version), num_held / worker.credit
        old = self._entries.get(worker.id)
        if old is not None and old[1] == load and old[0] == key:
            return
        self._ticket += 1
        self._num_entries += 1
        self._entries[worker.id] = key, load, self._ticket
        heap = self._heaps.get(key)
        if heap is None:
            heap = self._heaps[key] = []
        heapq.heappush(heap, (load, worker.joined, self._ticket, worker))
        if self._num_entries > 4 * len(self._entries) + SLACK:
            self._rebuild()

    def leave_out(self, worker: Worker) -> None:
        """Removes a worker, for good or until the next `place`. Idempotent."""
        self._entries.pop(worker.id, None)

    def first(self, role: Role, version: int) -> Worker | None:
        """The least loaded worker of a role; of the samplers, among those that serve `version`."""
        key = _heap_of(role, version)
        heap = self._heaps.get(key)
        while heap:
            if self._is_valid(heap[0]):
                return heap[0][3]
            heapq.heappop(heap)
            self._num_entries -= 1
        self._heaps.pop(key, None)
        return None

    def _is_valid(self, entry: tuple[float, int, int, Worker]) -> bool:
        newest = self._entries.get(entry[3].id)
        return newest is not None and newest[2] == entry[2]

    def _rebuild(self) -> None:
        valid = {key: [entry for entry in heap if self._is_valid(entry)] for key, heap in self._heaps.items()}
        self._heaps = {key: heap for key, heap in valid.items() if heap}
        for heap in self._heaps.values():
            heapq.heapify(heap)
        self._num_entries = sum(len(heap) for heap in self._heaps.values())


def _heap_of(role: Role, version: int) -> tuple[Role, int]:
    """Only samplers are told apart by version."""
    return role, version if role == "sampler" else 0


def _held_by(lease: Lease, worker: Worker) -> bool:
    """Whether it was this start of this worker that held a lease."""
    return lease.owner == worker.id and lease.incarnation == worker.incarnation


def _trim(table: OrderedDict[K, V], key: K) -> None:
    """Makes `key` the newest; the oldest entry goes when there are more than REMEMBERED."""
    table.move_to_end(key)
    if len(table) > REMEMBERED:
        table.popitem(last=False)
