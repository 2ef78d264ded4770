"""The two sockets of the protocol, with every option set here. Times in seconds, sizes in bytes.

High-water marks only protect memory; credit bounds the work. ZMTP heartbeats only find dead machines and cut cables,
because a frozen service still answers them; Ping and Pong show that a service is alive.
"""

from __future__ import annotations

import msgspec
import zmq
import zmq.asyncio

from rlsp_async.wire.auth import guard_dealer, guard_router
from rlsp_async.wire.codec import MAX_TOKENS
from rlsp_async.wire.keyring import Keys

Context = zmq.asyncio.Context
Socket = zmq.asyncio.Socket

HANDSHAKE_S = 5.0
CONNECT_S = 5.0
RECONNECT_MAX_S = 2.0
ROUTER_QUEUE = 2048


class ConnectionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What both ends of a connection agree on; the hub's Welcome replaces the two times of a worker."""

    heartbeat_s: float = 1.0
    timeout_s: float = 10.0
    max_message_bytes: int = 64_000_000
    max_tokens: int = MAX_TOKENS
    """Longest column of a message, in tokens."""


def make_dealer(context: Context, identity: bytes, queue: int, limits: ConnectionLimits, keys: Keys | None) -> Socket:
    """Makes a worker's socket, not yet connected. `queue` bounds the frames that wait in each direction."""
    socket = context.socket(zmq.DEALER)
    _common(socket, limits, queue)
    socket.setsockopt(zmq.ROUTING_ID, identity)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.CONNECT_TIMEOUT, _ms(CONNECT_S))
    socket.setsockopt(zmq.RECONNECT_IVL, max(10, _ms(limits.heartbeat_s / 10)))
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, _ms(RECONNECT_MAX_S))
    if keys is not None:
        guard_dealer(socket, keys)
    return socket


def make_router(context: Context, limits: ConnectionLimits, keys: Keys | None) -> Socket:
    """Makes the hub's socket, not yet bound."""
    socket = context.socket(zmq.ROUTER)
    _common(socket, limits, ROUTER_QUEUE)
    # Without MANDATORY a ROUTER drops what it cannot deliver, without an error.
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    # Routing ids are not authenticated: a new client must not take over a living connection.
    socket.setsockopt(zmq.ROUTER_HANDOVER, 0)
    if keys is not None:
        guard_router(socket, keys)
    return socket


def _common(socket: Socket, limits: ConnectionLimits, queue: int) -> None:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, queue)
    socket.setsockopt(zmq.RCVHWM, queue)
    socket.setsockopt(zmq.MAXMSGSIZE, limits.max_message_bytes)
    socket.setsockopt(zmq.HEARTBEAT_IVL, _ms(limits.timeout_s / 3))
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _ms(limits.timeout_s))
    socket.setsockopt(zmq.HEARTBEAT_TTL, min(6_500_000, _ms(limits.timeout_s)))
    socket.setsockopt(zmq.HANDSHAKE_IVL, _ms(HANDSHAKE_S))


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
