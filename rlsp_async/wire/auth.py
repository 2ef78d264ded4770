"""Who may connect: CURVE keys on the sockets, and the hub's authenticator (ZAP, RFC 27) with its list of allowed keys.

    libzmq, on each CURVE handshake --> inproc://zeromq.zap.01 --> Authenticator: is this public key on the list?
                                                           <-- 200 and the key as "User-Id", or 400

A router or a link with `Keys` uses CURVE (curve25519, encrypted and authenticated). Without keys a socket is plain, and
a hub binds to this machine only. ZeroMQ attaches the user id to every message of a connection, so the gate looks the
key up again for each message: a revoked key is refused at once, although its connection is still open.
The files are read by `keyring.py`; `gate.py` decides what a role may send.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import structlog
import zmq
import zmq.asyncio
from zmq.utils import z85

from rlsp_async.errors import MachineError
from rlsp_async.wire.gate import RefusalCounts
from rlsp_async.wire.keyring import AllowedKey, AllowFile, Keys, read_allowed

ZAP_DOMAIN = "rlsp"


def guard_router(socket: zmq.asyncio.Socket, keys: Keys) -> None:
    """Makes a socket, before bind, a CURVE server that asks the authenticator about each client.

    CURVE alone accepts every client that knows the server's public key. With an enforced domain ZeroMQ refuses every
    client when no authenticator answers, so a missing authenticator is a safe failure.
    """
    socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN.encode())
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    socket.curve_server = True
    socket.curve_publickey = keys.public
    socket.curve_secretkey = keys.secret


def guard_dealer(socket: zmq.asyncio.Socket, keys: Keys) -> None:
    """Makes a socket, before connect, a CURVE client. Raises MachineError when the hub's public key is missing."""
    if not keys.server:
        raise MachineError("the hub's public key is missing: a worker with keys needs Keys.server")
    socket.curve_serverkey = keys.server
    socket.curve_publickey = keys.public
    socket.curve_secretkey = keys.secret


def require_private(address: str, has_keys: bool) -> None:
    """Raises MachineError when a hub would listen to other machines without keys."""
    if not has_keys and not is_loopback(address):
        raise MachineError(
            f"replay.address = {address!r} would let anyone on the network command this run: without "
            "keys the hub binds to this machine only, e.g. tcp://127.0.0.1:5700; make keys with "
            '`rlsp keys new keys` and set replay.keys = "keys"'
        )


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach an address. Other names than localhost are not resolved."""
    url = urlsplit(address)
    if url.scheme in ("ipc", "inproc"):
        return True
    host = url.hostname or ""
    if url.scheme != "tcp":
        return False
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


ADDRESS = "inproc://zeromq.zap.01"
VERSION = b"1.0"
RELOAD_S = 1.0
"""A change of the list has an effect after at most this long."""

log = structlog.get_logger("keys")


class AllowList:
    """The current content of allowed.json, checked for changes at most every RELOAD_S.

    A file that cannot be read is logged once, and the former list stays in force.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._listed: AllowFile = read_allowed(path.parent)
        self._stamp = _stamp(path)
        self._checked_at = clock()

    def find(self, key: str) -> AllowedKey | None:
        """The entry of a public key; None when the key is not allowed."""
        now = self._clock()
        if now - self._checked_at >= RELOAD_S:
            self._checked_at = now
            self._reload()
        return self._listed.keys.get(key)

    def _reload(self) -> None:
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            before, self._listed = self._listed, read_allowed(self._path.parent)
        except MachineError as e:
            log.error("the former list of keys holds", reason=str(e))
            return
        log.info("keys read again", before=len(before.keys), now=len(self._listed.keys))


class Authenticator:
    """Answers ZeroMQ's question about each client. Must be open before the router binds; one for each context."""

    def __init__(self, context: zmq.asyncio.Context, allowed: AllowList, counts: RefusalCounts) -> None:
        self._context, self._allowed, self._counts = context, allowed, counts
        self._socket: zmq.asyncio.Socket | None = None
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Listens and starts the task. Raises zmq.ZMQError when this context already has an authenticator."""
        self._socket = self._context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(ADDRESS)
        self._task = asyncio.get_running_loop().create_task(self._serve(self._socket), name="authenticator")

    def close(self) -> None:
        """Ends the task; ZeroMQ refuses every new client from then on. Idempotent."""
        if self._task is not None:
            self._task.cancel()
        if self._socket is not None:
            self._socket.close(linger=0)
        self._task = self._socket = None

    def require_alive(self) -> None:
        """Raises the error that ended the task, if one did: every new client would be refused."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()

    def answer(self, request: list[bytes]) -> list[bytes]:
        """The answer to one request: version, request id, status, reason, user id, metadata."""
        number = request[1] if len(request) > 1 else b""
        key = _key_of(request)
        entry = self._allowed.find(key) if key else None
        if entry is None:
            self._counts.refused_keys += 1
            log.warning("a client was refused", key=key, why="its key is not in allowed.json" if key else "no CURVE")
            return [VERSION, number, b"400", b"not allowed", b"", b""]
        return [VERSION, number, b"200", b"OK", key.encode(), b""]

    async def _serve(self, socket: zmq.asyncio.Socket) -> None:
        """Consumes ZAP requests, produces one answer for each, ends by cancelling."""
        while True:
            await socket.send_multipart(self.answer(await socket.recv_multipart()))


def _key_of(request: list[bytes]) -> str:
    """The public key that a request is about; empty for another domain or mechanism."""
    match request:
        case [version, _, domain, _, _, b"CURVE", key] if version == VERSION and domain == ZAP_DOMAIN.encode():
            return z85.encode(key).decode() if len(key) == 32 else ""
    return ""


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is replaced or written; None when there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
