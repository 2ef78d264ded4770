"""The receiving side of a channel, in the process that has the model: staging, progress, and what is loaded from it.

    begin(invite)     starts a thread that opens the channel, receives into the staging and checks the sums
    poll()            how far that is; never waits
    take(ticket)      the tensors of a version that has arrived whole; the staging is given up
    stop(), close()   ends the transfer; ends the channel too

Generation goes on meanwhile. A process serves one sampler, so it has at most one channel and one transfer: a new one
ends the one before. The engines of this package use it in their own process (torch) and in vLLM's workers alike.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import NamedTuple

import structlog
import torch

from rlsp_async.errors import RlspError, WeightsDelayed
from rlsp_async.messages import Invite
from rlsp_async.weights import sums
from rlsp_async.weights.channel import Channel, Stream, StreamEnded, receive_version
from rlsp_async.weights.kinds import open_channel

JOIN_S = 5.0
"""How long the end of a transfer is waited for; a channel that was closed ends it sooner."""
SPARE = 1.2
"""A card must have this many times the bytes of a version free; otherwise the staging lies on the host."""


log = structlog.get_logger(__name__)


class Progress(NamedTuple):
    """How far a transfer is."""

    state: str
    """idle, running, done or failed."""
    ticket: str = ""
    reason: str = ""
    """Why it failed."""
    channel: str = ""
    """The channel that is open."""


class Receiver:
    """One end of a channel, and the staging of one version."""

    def __init__(self, rank: int = 1, device: str = "cpu") -> None:
        """`rank` is that of this process at the channel, `device` where its model is."""
        self._rank, self._device = rank, device
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._channel: Channel | None = None
        self._name = ""
        self._progress = Progress("idle")
        self._arrived: tuple[str, Stream, torch.Tensor] | None = None

    def begin(self, invite: Invite) -> None:
        """Starts a transfer. One that runs is ended, and its channel closed."""
        self.stop()
        with self._lock:
            self._arrived = None
            self._progress = Progress("running", invite.ticket, channel=self._name)
            self._thread = threading.Thread(target=self._run, args=(invite,), name="weights", daemon=True)
            self._thread.start()

    def poll(self) -> Progress:
        """How far the newest transfer is."""
        with self._lock:
            return self._progress._replace(channel=self._name)

    def take(self, ticket: str) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors of a version, by name, each to be read before the next one is asked for.

        Args:
            ticket: of the invitation with which it came.

        Raises:
            WeightsDelayed: no such version has arrived.
        """
        with self._lock:
            arrived, self._arrived = self._arrived, None
        if arrived is None or arrived[0] != ticket:
            raise WeightsDelayed(f"nothing has arrived with the ticket {ticket}")
        return arrived[1].tensors(arrived[2])

    def stop(self) -> None:
        """Ends a transfer that runs, with its channel, and gives the staging up. A channel at rest stays open."""
        with self._lock:
            thread, channel = self._thread, self._channel
            self._thread = self._arrived = None
        if thread is not None and thread.is_alive():
            if channel is not None:
                channel.close()
            thread.join(JOIN_S)

    def close(self) -> None:
        """Ends everything. Idempotent."""
        self.stop()
        self._let_go()

    # --- in the thread ---------------------------------------------------------------------------------------------

    def _run(self, invite: Invite) -> None:
        if self._device != "cpu":
            torch.cuda.set_device(self._device)  # a new thread begins on the first card
        try:
            arrived = self._receive(invite)
        except StreamEnded as e:  # in good order: the channel serves the next version
            self._end(invite, Progress("failed", invite.ticket, str(e)))
        except RlspError as e:
            self._let_go()
            self._end(invite, Progress("failed", invite.ticket, str(e)))
        except Exception as e:  # translated: whatever it is, it must be told and must not end the engine
            log.exception("a transfer failed", ticket=invite.ticket)
            self._let_go()
            self._end(invite, Progress("failed", invite.ticket, f"{type(e).__name__}: {e}"))
        else:
            self._end(invite, Progress("done", invite.ticket), arrived)

    def _receive(self, invite: Invite) -> tuple[str, Stream, torch.Tensor]:
        """Opens the channel if it is a new one, and receives. Raises WeightsDelayed, WeightsError."""
        stream = Stream(sums.decode(invite.plan), invite.bucket_bytes)
        if self._name != invite.channel or self._channel is None:
            self._let_go()
            opened = open_channel(
                invite.kind, invite.channel, invite.where, self._rank, invite.world, invite.deadline_s
            )
            with self._lock:
                self._channel, self._name = opened, invite.channel
        channel = self._channel
        assert channel is not None
        staging = torch.empty(stream.num_bytes, dtype=torch.uint8, device=self._staging_device(stream.num_bytes))
        receive_version(channel, stream, staging, invite.deadline_s)
        return invite.ticket, stream, staging

    def _staging_device(self, num_bytes: int) -> str:
        if self._device == "cpu":
            return "cpu"
        free_bytes, _ = torch.cuda.mem_get_info(self._device)
        return self._device if free_bytes > SPARE * num_bytes else "cpu"

    def _end(self, invite: Invite, progress: Progress, arrived: tuple[str, Stream, torch.Tensor] | None = None) -> None:
        """Notes how a transfer ended, unless another one has begun meanwhile."""
        with self._lock:
            if self._progress.ticket == invite.ticket and self._thread is threading.current_thread():
                self._progress, self._arrived = progress, arrived

    def _let_go(self) -> None:
        with self._lock:
            channel, self._channel, self._name = self._channel, None, ""
        if channel is not None:
            channel.close()


def state_of(all_workers: list[Progress]) -> Progress:
    """The progress of a sampler from that of its processes: failed when one has, done when all are."""
    failed = [one for one in all_workers if one.state not in ("running", "done")]
    if failed:
        return failed[0]
    running = [one for one in all_workers if one.state == "running"]
    return running[0] if running else all_workers[0]


def common_channel(all_workers: list[Progress]) -> str:
    """The channel that all processes of a sampler have open; empty for none."""
    names = {one.channel for one in all_workers}
    return names.pop() if len(names) == 1 else ""
