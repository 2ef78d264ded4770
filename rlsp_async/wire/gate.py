"""Which messages the hub gets to see: key, pace, greeting, role. Pure: time is an argument.

    frame   --> screen   before it is decoded: is its key allowed, does its routing id belong to the key, is it in pace?
    message --> admit    after it is decoded: has the connection said Hello, and may its role send this message?

               hello ping bye   done        failed   loaded rejected
    sampler      x    x    x    groups        x        x       x
    verifier     x    x    x    verdicts      x
    learner      x    x    x    steps         x
    observer     x    x    x

Without keys the role is that of the Hello; with keys the Hello's role must be that of the key. All tables are bounded.
A worker may ask before its Hello whether the run goes on (`Ping.state` "asking"); the hub itself does not see that.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

import msgspec

from rlsp_async.messages import (
    ASKING,
    Abandon,
    Bye,
    Done,
    Drain,
    Failed,
    FromHub,
    FromWorker,
    Hello,
    Invite,
    Loaded,
    Ping,
    Pong,
    Pull,
    Refuse,
    Rejected,
    Role,
)
from rlsp_async.wire.keyring import AllowedKey

EVERYBODY: frozenset[type] = frozenset({Hello, Ping, Bye})
WORKS = EVERYBODY | {Done, Failed}
MAY_SAY: dict[Role, frozenset[type]] = {
    "sampler": WORKS | {Loaded, Rejected, Pull, Abandon},
    "verifier": WORKS,
    "learner": WORKS | {Invite, Abandon},
    "observer": EVERYBODY,
}
RESULT_FIELD: dict[Role, str] = {"sampler": "groups", "verifier": "verdicts", "learner": "steps"}
"""Role -> the one field of Done that it may fill."""
RESULT_FIELDS = frozenset(RESULT_FIELD.values())


def may_say(role: Role, message: FromWorker) -> bool:
    """Whether a worker of this role may send this message."""
    if type(message) not in MAY_SAY[role]:
        return False
    if isinstance(message, Done):
        return not any(getattr(message, field) for field in RESULT_FIELDS - {RESULT_FIELD[role]})
    return True


T = TypeVar("T")

MAX_PEERS = 4096
MAX_IDS = 65_536
"""Routing ids whose key is remembered; a worker uses a new id for each connection."""
FRAMES_PER_S = 2000.0
FRAMES_PER_CREDIT = 100.0
"""A peer may send FRAMES_PER_S + credit * FRAMES_PER_CREDIT frames a second."""
BURST_S = 5.0
"""Seconds of frames that may arrive at once: frames pile up while the hub is busy, and that is no flood."""
MAX_CREDIT = 10_000
"""Largest credit that counts for the pace; a larger one gains a worker nothing."""


class RefusalCounts(msgspec.Struct):
    """What was refused or lost on the socket since it was bound."""

    malformed: int = 0
    """Frames that are not of the protocol."""
    strangers: int = 0
    """Messages of connections without a Hello."""
    undelivered: int = 0
    """Messages for a peer that is gone or whose queue is full."""
    wrong_role: int = 0
    """Messages that the role may not send, and Hellos in a role or name that the key does not cover."""
    too_long: int = 0
    """Messages with a part above its bound."""
    flooded: int = 0
    """Frames above a peer's pace."""
    refused_keys: int = 0
    """Handshakes of keys that are not allowed; messages of revoked keys, or under another key's routing id."""


class Peer(msgspec.Struct, frozen=True):
    """One connection that said Hello."""

    role: Role
    worker: str


class Gate:
    """What the hub knows of its connections. `find` looks a key up; None means that this hub has no keys."""

    def __init__(self, find: Callable[[str], AllowedKey | None] | None = None, max_peers: int = MAX_PEERS) -> None:
        self.counts = RefusalCounts()
        self.peers: OrderedDict[bytes, Peer] = OrderedDict()
        self.over = ""
        """Why the run is over, for those who ask; empty while it goes on."""
        self._find, self._max_peers = find, max_peers
        self._key_of: OrderedDict[bytes, str] = OrderedDict()
        self._paces: OrderedDict[bytes, _Pace] = OrderedDict()

    def screen(self, peer: bytes, key: str, now: float) -> bool:
        """Whether a frame is to be decoded. `key` is what the authenticator said of its connection."""
        if self._find is not None:
            if self._find(key) is None or self._key_of.setdefault(peer, key) != key:
                self.counts.refused_keys += 1
                return False
            _bound(self._key_of, peer, MAX_IDS)
        pace = self._paces.get(peer)
        if pace is None:
            pace = self._paces[peer] = _Pace(now)
            _bound(self._paces, peer, self._max_peers)
        if not pace.take(now):
            self.counts.flooded += 1
            return False
        return True

    def admit(self, peer: bytes, key: str, message: FromWorker) -> tuple[bool, FromHub | None]:
        """Whether the hub sees a message, and the immediate answer to the connection."""
        if isinstance(message, Hello):
            return self._greet(peer, key, message)
        known = self.peers.get(peer)
        if known is None and isinstance(message, Ping) and message.state == ASKING:
            return False, Drain(reason=self.over) if self.over else Pong(known=False)
        answer = Pong(known=known is not None and not isinstance(message, Bye))
        reply = answer if isinstance(message, Ping | Bye) else None
        if known is None:
            self.counts.strangers += 1
            return False, reply
        if not may_say(known.role, message):
            self.counts.wrong_role += 1
            return False, reply
        if isinstance(message, Bye):
            self.forget(peer)
        return True, reply

    def may_hear(self, peer: bytes) -> bool:
        """Whether the hub may send to a connection: not when its key was revoked."""
        return self._find is None or self._find(self._key_of.get(peer, "")) is not None

    def forget(self, peer: bytes) -> None:
        """Forgets a connection that has ended."""
        self.peers.pop(peer, None)

    def _greet(self, peer: bytes, key: str, hello: Hello) -> tuple[bool, FromHub | None]:
        """Remembers a connection. Above `max_peers` the oldest is forgotten; it will be asked to say Hello again."""
        wrong = self._not_covered(key, hello) or _changed(self.peers.get(peer), hello)
        if wrong:
            self.counts.wrong_role += 1
            return False, Refuse(reason=wrong)
        self.peers[peer] = Peer(hello.role, hello.worker)
        _bound(self.peers, peer, self._max_peers)
        if pace := self._paces.get(peer):
            pace.credit = min(MAX_CREDIT, max(0, hello.credit))
        return True, None

    def _not_covered(self, key: str, hello: Hello) -> str:
        entry = self._find(key) if self._find is not None else None
        if entry is None:  # no keys here; an unknown key was screened
            return ""
        if entry.role != hello.role:
            return f"its key {entry.name!r} is for the role {entry.role}, not {hello.role}"
        if entry.worker and entry.name != hello.worker:
            return f"its key is for the worker {entry.name!r}, not {hello.worker!r}"
        return ""


class _Pace:
    """A token bucket for frames, filled with time."""

    __slots__ = ("_at", "_left", "credit")

    def __init__(self, now: float) -> None:
        self.credit = 0
        self._at, self._left = now, FRAMES_PER_S * BURST_S

    def take(self, now: float) -> bool:
        per_s = FRAMES_PER_S + FRAMES_PER_CREDIT * self.credit
        self._left = min(BURST_S * per_s, self._left + per_s * (now - self._at))
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _changed(known: Peer | None, hello: Hello) -> str:
    """Why a Hello is refused: a connection speaks for one worker as long as it lives."""
    if known is None or (known.role, known.worker) == (hello.role, hello.worker):
        return ""
    return f"this connection said hello as {known.role} {known.worker!r} before"


def _bound(table: OrderedDict[bytes, T], newest: bytes, most: int) -> None:
    table.move_to_end(newest)
    if len(table) > most:
        table.popitem(last=False)
