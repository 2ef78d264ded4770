"""Who may speak on a socket: the keys of one end, and which addresses need them.

`Keys` given to a router or a link turns CURVE on (curve25519, encrypted and authenticated). Without keys a socket is
plain and binds to this machine only. Files: `keyring.py`. Who is let in: `zap.py`. What they may say: `gate.py`.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

import msgspec
import zmq.asyncio

from rlsp_async.errors import MachineError

ZAP_DOMAIN = "rlsp"


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """A CURVE key pair in Z85 (40 bytes each), and for a worker the public key of its hub."""

    public: bytes
    secret: bytes
    server: bytes = b""
    """Empty at the hub itself."""

    def __repr__(self) -> str:
        return f"Keys(public={self.public!r}, secret=..., server={self.server!r})"


def guard_router(socket: zmq.asyncio.Socket, keys: Keys) -> None:
    """Makes a socket, before bind, speak CURVE as the server, and ask the authenticator about each client.

    CURVE alone lets in every client that knows the server's public key. With a domain and its enforcement ZeroMQ
    refuses everybody when no authenticator answers: the failure is on the safe side.
    """
    socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN.encode())
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
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


def require_private(address: str, has_keys: bool) -> None:
    """Raises MachineError when a hub would listen to other machines without keys."""
    if not has_keys and not is_loopback(address):
        raise MachineError(
            f"replay.address = {address!r} would let anyone on the network command this run: without "
            "keys the hub binds to this machine only, e.g. tcp://127.0.0.1:5700; make keys with "
            '`rlsp keys new keys` and set replay.keys = "keys"'
        )


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
