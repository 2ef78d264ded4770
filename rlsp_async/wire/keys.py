"""The seam for keys: who may speak on a socket.

`Keys` given to a router or a link turns CURVE on (curve25519, encrypted and authenticated). Without keys a socket is
plain and binds to this machine only. Making, storing and revoking keys is not done here; nor is the list of clients
that a router lets in (CURVE without a ZAP authenticator accepts every client that knows the server's public key).
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

import msgspec
import zmq.asyncio

from rlsp_async.errors import MachineError


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """A CURVE key pair in Z85 (40 bytes each), and for a worker the public key of its hub."""

    public: bytes
    secret: bytes
    server: bytes = b""
    """Empty at the hub itself."""

    def __repr__(self) -> str:
        return f"Keys(public={self.public!r}, secret=..., server={self.server!r})"


def guard_router(socket: zmq.asyncio.Socket, keys: Keys) -> None:
    """Makes a socket, before bind, speak CURVE as the server."""
    socket.curve_server = True
    socket.curve_publickey = keys.public
    socket.curve_secretkey = keys.secret


def guard_dealer(socket: zmq.asyncio.Socket, keys: Keys) -> None:
    """Makes a socket, before connect, speak CURVE as a client. Raises MachineError when the hub's key is missing."""
    if not keys.server:
        raise MachineError("the hub's public key is missing: a worker with keys needs Keys.server")
    socket.curve_serverkey = keys.server
    socket.curve_publickey = keys.public
    socket.curve_secretkey = keys.secret


def require_private(address: str, keys: Keys | None) -> None:
    """Raises MachineError when a hub would listen to other machines without keys."""
    if keys is None and not is_loopback(address):
        raise MachineError(f"replay.address = {address!r} would let anyone on the network command this run: without "
                           "keys the hub binds to this machine only, e.g. tcp://127.0.0.1:5700")


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach it. Names other than localhost are not looked up: they count as outside."""
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
