"""The channel of kind "gloo": TCP between hosts without shared memory, through torch's ProcessGroupGloo.

    learner   host = GlooHost("10.0.0.5", 0)         one TCPStore, in which the ends of each channel find each other
              where = host.where()                   b"10.0.0.5:40123 TOKEN"
    both      open_channel(name, where, rank, world, deadline_s)

A GPU's tensors go through a buffer of the host. Measured on one machine (torch 2.13): a peer that dies is noticed
within 0.1 s, one that hangs or never comes at the deadline.

Two kinds of ports are open: that of the store at the learner, and one for each end of each channel, which the kernel
chooses, on the interface that leads to the other end. Bytes are not encrypted, and gloo does not ask who connects. The
token, made for each channel and told through the hub alone, is part of the key under which the ends find each other in
the store: nobody joins by accident. Against somebody who listens to the network, or forges packets, only the network
itself helps; docs/operations.md says how.
"""

from __future__ import annotations

import secrets
import socket
import threading
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed

from rlsp_async.errors import MachineError, WeightsDelayed
from rlsp_async.weights.group_channel import GroupChannel, meet, read_where, short

KIND = "gloo"
TOKEN_BYTES = 16
BACKLOG = 1024
_DIST: Any = torch.distributed
"""Its types are not exported."""


class GlooHost:
    """The meeting point of a learner's channels: a store that listens on one address."""

    def __init__(self, address: str, port: int, deadline_s: float) -> None:
        """Listens.

        Args:
            address: a host or IP address of this machine, at which samplers reach it.
            port: 0: a free one.
            deadline_s: longest wait of the store's own requests.

        Raises:
            MachineError: this address cannot be listened on.
        """
        listening: socket.socket | None = None
        try:
            family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
            listening = socket.socket(family)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((address, port))
            listening.listen(BACKLOG)
        except OSError as e:
            if listening is not None:
                listening.close()
            raise MachineError(
                f"weights cannot be offered at {address}:{port} ({e.strerror or e}): set learner.channel_address to an "
                "address of this machine that the samplers reach"
            ) from None
        self.address, self.port = address, int(listening.getsockname()[1])
        limit = timedelta(seconds=deadline_s)
        self._store: Any = _DIST.TCPStore(
            address, self.port, None, True, limit, wait_for_workers=False, master_listen_fd=listening.detach()
        )

    def where(self) -> bytes:
        """Where a new channel is opened; with a new token each time."""
        return f"{self.address}:{self.port} {secrets.token_hex(TOKEN_BYTES)}".encode()

    def close(self) -> None:
        """Stops listening; channels that are open stay."""
        self._store = None


def open_channel(name: str, where: bytes, rank: int, world: int, deadline_s: float) -> GlooChannel:
    """Opens one end of a channel; returns when all ends are there.

    Args:
        name: of the channel.
        where: what `GlooHost.where` returned.
        rank: 0 at the learner.
        world: number of ends.
        deadline_s: longest wait.

    Raises:
        WeightsDelayed: another end did not come in time.
    """
    try:
        host, port, _ = read_where(where)
        begun_s = time.monotonic()
        with socket.create_connection((host, port), timeout=deadline_s) as trial:
            own = trial.getsockname()[0]
        left_s = max(0.1, deadline_s - (time.monotonic() - begun_s))
        store = meet(name, where, left_s)
        options = _DIST.ProcessGroupGloo._Options()
        options._devices = [_DIST.ProcessGroupGloo.create_device(hostname=own)]
        options._timeout = timedelta(seconds=left_s)
        group = _DIST.ProcessGroupGloo(store, rank, world, options)
    except (OSError, RuntimeError, ValueError) as e:
        what = f"rank {rank} of {world} found no peer within {deadline_s:g} s"
        raise WeightsDelayed(f"channel {name} was not opened: {what}: {short(e)}") from None
    return GlooChannel(name, group, store)


class GlooChannel(GroupChannel):
    """Satisfies `channel.Channel`."""

    kind = KIND

    def send(self, bucket: torch.Tensor) -> None:
        """Queues a broadcast from rank 0, which this end is."""
        self._queue(bucket.cpu(), None)

    def recv(self, bucket: torch.Tensor) -> None:
        """Queues a broadcast from rank 0, which the other end is."""
        on_host = bucket.device.type == "cpu"
        self._queue(bucket if on_host else torch.empty_like(bucket, device="cpu"), None if on_host else bucket)

    def _transfer(self, work: Any, tensor: torch.Tensor, target: torch.Tensor | None) -> _GlooTransfer:
        return _GlooTransfer(work, tensor, target)

    def _end(self, group: Any) -> None:
        """The group ends with its last reference, and waits at most its own time-out for what it has begun."""


class _GlooTransfer:
    """One broadcast under way. Satisfies `group_channel.Transfer`."""

    def __init__(self, work: Any, host: torch.Tensor, card: torch.Tensor | None) -> None:
        self._work, self._host, self._card = work, host, card
        self._over = threading.Event()
        work.get_future().add_done_callback(lambda _: self._over.set())

    def wait(self, seconds: float) -> bool:
        """Whether it is over, in good or in bad order, within these seconds."""
        return self._over.wait(seconds)

    def wake(self) -> None:
        """Ends the wait."""
        self._over.set()

    def finish(self) -> None:
        """Puts what came where it belongs. Raises RuntimeError when the broadcast failed."""
        self._work.wait()
        if self._card is not None:
            self._card.copy_(self._host)
