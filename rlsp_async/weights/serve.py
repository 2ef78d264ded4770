"""The learner's side of channels: it serves the samplers' requests from published files, and never touches training.

    announce(ref)      a version was published: its file is what is sent from now on; the reference gets its further URI
    heard(message)     Pull: the sampler is invited and sent the version. Abandon: its transfer, or its channel, ends

Up to NUM_AT_ONCE samplers are served at a time, each by a thread of the pool "weights"; the others wait for their turn.
Each sampler has one channel of its own, which stays open until the sampler leaves, asks without it, or an error: a
peer that is dead, frozen or late costs nobody else. A version that was superseded is given up before the next bucket.
What is sent is the file of the version, mapped: as long as it is mapped its pages are not used for another version.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import mmap
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import msgspec
import structlog
import torch

from rlsp_async.config import RunConfig
from rlsp_async.errors import MachineError, WeightsDelayed, WeightsError
from rlsp_async.messages import Abandon, Invite, Pull, Relayed, StepReport, WeightsRef
from rlsp_async.weights import kinds, sums
from rlsp_async.weights.channel import Channel, Stream, StreamEnded, send_version
from rlsp_async.weights.gloo import GlooHost
from rlsp_async.weights.snapshot import read_extents, read_plan
from rlsp_async.wire.codec import MAX_BYTES
from rlsp_async.wire.relayed import RelayedMessages

NUM_AT_ONCE = 4
BUCKET_BYTES = 32 * 2**20
SCHEME = "channel"
SENDING = "weights are being sent"
"""The line of the log when a transfer begins."""
DEADLINE_TIMEOUTS = 3.0
"""The deadline of a channel, in multiples of replay.timeout_s."""

log = structlog.get_logger(__name__)


class MeetingPoint(Protocol):
    """Where the ends of a channel find each other."""

    def where(self) -> bytes:
        """What an end needs to find it; new for each channel."""
        ...

    def close(self) -> None:
        """No new channel is opened."""
        ...


class MappedVersion:
    """The file of a version, mapped for reading."""

    def __init__(self, ref: WeightsRef) -> None:
        """Raises WeightsError when the file is gone or damaged."""
        path = Path(unquote(urlsplit(ref.uri).path))
        self.version, self.made_by = ref.version, ref.incarnation
        try:
            extents, _ = read_extents(path)
            with path.open("rb") as file:
                memory = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
            self.plan = read_plan(path)
        except (OSError, ValueError) as e:
            raise WeightsError(f"version {ref.version}: {path} cannot be read: {e}") from e
        whole = torch.frombuffer(memory, dtype=torch.uint8)
        self.contents = {extent.name: whole[extent.begin : extent.end] for extent in extents}


class OfferSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the learner offers weights."""

    learner: str
    """Its name."""
    incarnation: int
    transport: str
    """learner.transport: auto, file or channel."""
    deadline_s: float
    """Longest time until a channel is open, and between two buckets."""
    bucket_bytes: int = BUCKET_BYTES
    device: str = ""
    """UUID of its card; empty on a CPU."""
    host: str = ""
    """What its machine is called (`kinds.host_id`)."""
    pause_s: float = 0.0
    """A pause before each bucket, of a test harness: transfers of small models are too short to be broken."""


class WeightsServer:
    """Serves channels. `announce` and `heard` are called by the loop's thread and return at once."""

    def __init__(
        self,
        settings: OfferSettings,
        meet: Callable[[], MeetingPoint],
        post: Callable[[Relayed], object],
    ) -> None:
        """Opens nothing yet.

        Args:
            settings: how weights are offered.
            meet: opens the meeting point, when the first sampler asks; raises MachineError.
            post: sends a message through the hub, from any thread.
        """
        self._settings, self._meet, self._post = settings, meet, post
        self.relayed = RelayedMessages(self.heard)
        """For the link of the learner."""
        self._lock = threading.Lock()
        self._newest: WeightsRef | None = None
        self._sent: tuple[WeightsRef, bytes] | None = None
        """The encoded plan of the newest version that was sent."""
        self._peers: dict[str, _Peer] = {}
        self._host: MeetingPoint | None = None
        self._numbers = itertools.count(1)
        self._pool = ThreadPoolExecutor(NUM_AT_ONCE, thread_name_prefix="weights")

    # --- in the loop's thread --------------------------------------------------------------------------------------

    def open(self) -> None:
        """Opens the meeting point now if it is sure to be used: a wrong address ends the learner, by MachineError."""
        if self._settings.transport == "channel":
            self._meeting_point()

    def announce(self, ref: WeightsRef) -> WeightsRef:
        """Takes a version that was published as a file; returns its reference with the ways by which it can be had."""
        if self._settings.transport == "file":
            return ref
        with self._lock:
            self._newest = ref
        settings = self._settings
        own = f"{SCHEME}://{settings.learner}/{settings.incarnation}?host={settings.host}"
        if settings.transport == "channel":
            return msgspec.structs.replace(ref, uri=own, also=[ref.uri])
        return msgspec.structs.replace(ref, also=[own])

    async def announced(self, coming: Awaitable[StepReport]) -> StepReport:
        """Waits for the report of a step; returns it with the ways to the weights that it published."""
        report = await coming
        if report.weights is None:
            return report
        return msgspec.structs.replace(report, weights=self.announce(report.weights))

    def heard(self, message: Relayed) -> None:
        """A sampler asks for a version, gives a transfer up, or is gone."""
        with self._lock:
            peer = self._peers.setdefault(message.worker, _Peer(message.worker))
            match message:
                case Pull() if peer.ticket == message.ticket:
                    repeated = peer.invite
                case Pull():
                    repeated, peer.wanted, peer.is_gone = None, message, False
                    if not peer.is_served:
                        peer.is_served = True
                        self._pool.submit(contextvars.copy_context().run, self._serve, peer)
                case Abandon(ticket=""):
                    repeated, peer.wanted, peer.is_gone = None, None, True
                    peer.stop = message.reason
                    if not peer.is_served:
                        self._forget(peer)
                case Abandon() if peer.ticket == message.ticket:
                    repeated, peer.stop = None, f"given up by {message.worker}: {message.reason}"
                case _:
                    repeated = None
        if repeated is not None:  # the invitation was lost
            self._post(repeated)

    def close(self) -> None:
        """Ends every transfer and every channel. Idempotent; waits for no sampler."""
        with self._lock:
            peers, host = list(self._peers.values()), self._host
            for peer in peers:
                peer.wanted, peer.stop, peer.is_gone = None, "the learner ends", True
            self._host = None
        for peer in peers:
            peer.close()
        if host is not None:
            host.close()
        self._post = _drop
        self._pool.shutdown(wait=False, cancel_futures=True)

    # --- in a thread of the pool -----------------------------------------------------------------------------------

    def _serve(self, peer: _Peer) -> None:
        """Serves what one sampler asks for, until it asks for nothing."""
        while True:
            with self._lock:
                pull, peer.wanted = peer.wanted, None
                peer.ticket, peer.invite, peer.stop = (pull.ticket, None, "") if pull else ("", None, "")
                if pull is None:
                    peer.is_served = False
                    if peer.is_gone:
                        self._forget(peer)
                    return
            try:
                self._answer(peer, pull)
            except StreamEnded as e:
                self._give_up(peer, pull, str(e), closes=bool(peer.stop))
            except (WeightsDelayed, WeightsError, MachineError) as e:
                self._give_up(peer, pull, str(e))
            except Exception as e:  # translated: one sampler's transfer must not end those of the others
                log.exception("a transfer failed", sampler=peer.name)
                self._give_up(peer, pull, f"{type(e).__name__}: {e}")

    def _answer(self, peer: _Peer, pull: Pull) -> None:
        """Invites a sampler and sends it the version. Raises WeightsDelayed, WeightsError, MachineError."""
        ref = self._newest
        if ref is None or (ref.version, ref.incarnation) != (pull.version, pull.made_by):
            what = "no version" if ref is None else f"version {ref.version}"
            raise WeightsDelayed(f"version {pull.version} of start {pull.made_by} was asked for, there is {what}")
        settings = self._settings
        kind, why = kinds.choose_kind(pull, kinds.own_kinds(), settings.device, kinds.own_environment())
        if kind == kinds.FILE:
            self._post(Invite(ticket=pull.ticket, worker=peer.name, kind=kind))
            log.warning("a sampler cannot have a channel", sampler=peer.name, reason=why)
            return
        source = MappedVersion(ref)
        stream = Stream(source.plan, settings.bucket_bytes)
        invite = Invite(
            ticket=pull.ticket,
            worker=peer.name,
            kind=kind,
            channel=pull.channel,
            world=1 + max(1, pull.num_workers),
            plan=self._encoded(ref, source.plan),
            bucket_bytes=settings.bucket_bytes,
            deadline_s=settings.deadline_s,
        )
        if peer.channel is None or not pull.channel or peer.channel_name != pull.channel:
            invite = self._open(peer, invite, why)
        else:
            self._invite(peer, invite)
        channel = peer.channel
        assert channel is not None
        log.info(SENDING, sampler=peer.name, version=ref.version)
        send_version(channel, stream, source.contents, settings.deadline_s, lambda: self._before_bucket(peer, ref))
        log.info("weights sent", sampler=peer.name, version=ref.version, bytes=stream.num_bytes, kind=kind)

    def _open(self, peer: _Peer, invite: Invite, why: str) -> Invite:
        """Opens a new channel while the sampler does the same. Raises WeightsDelayed, MachineError."""
        peer.close()
        name = f"{peer.name}.{self._settings.incarnation}.{next(self._numbers)}"
        invite = msgspec.structs.replace(invite, channel=name, where=self._meeting_point().where())
        log.info("a channel opens", sampler=peer.name, channel=name, kind=invite.kind, reason=why)
        self._invite(peer, invite)
        opened = kinds.open_channel(invite.kind, name, invite.where, 0, invite.world, invite.deadline_s)
        with self._lock:
            peer.channel, peer.channel_name = opened, name
            stop = peer.stop
        if stop:
            raise WeightsDelayed(stop)
        return invite

    def _invite(self, peer: _Peer, invite: Invite) -> None:
        with self._lock:
            peer.invite = invite
        self._post(invite)

    def _meeting_point(self) -> MeetingPoint:
        with self._lock:
            if self._host is None:
                self._host = self._meet()
            return self._host

    def _encoded(self, ref: WeightsRef, plan: sums.Plan) -> bytes:
        """The plan of a version for a message. Raises WeightsError when it is too long for one."""
        sent = self._sent
        if sent is None or sent[0] != ref:
            sent = self._sent = ref, sums.encode(plan)
        if len(sent[1]) > MAX_BYTES["plan"]:
            raise WeightsError(
                f"the plan of {len(plan)} tensors has {len(sent[1]):,} bytes, a message takes {MAX_BYTES['plan']:,}: "
                "give the samplers a disk that both machines see (learner.weights_dir)"
            )
        return sent[1]

    def _before_bucket(self, peer: _Peer, ref: WeightsRef) -> str:
        """Makes the pause of a test harness; says why a transfer is to end before its next bucket, or nothing."""
        if self._settings.pause_s:
            time.sleep(self._settings.pause_s)
        newest = self._newest
        if newest is not None and newest != ref:
            return f"superseded by version {newest.version}"
        return peer.stop

    def _give_up(self, peer: _Peer, pull: Pull, reason: str, closes: bool = True) -> None:
        """Tells the sampler why nothing comes. The channel stays open only where the stream ended in good order."""
        log.warning("weights not sent", sampler=peer.name, version=pull.version, reason=reason)
        if closes:
            peer.close()
        self._post(Abandon(ticket=pull.ticket, worker=peer.name, reason=reason))

    def _forget(self, peer: _Peer) -> None:
        """Closes the channel of a sampler that is gone. The lock is held."""
        self._peers.pop(peer.name, None)
        peer.close()


class _Peer:
    """One sampler, as the server knows it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.wanted: Pull | None = None
        """What it asks for next: the newest request replaces an older one."""
        self.ticket = ""
        """Of the transfer that is under way."""
        self.invite: Invite | None = None
        self.stop = ""
        """Why the transfer that is under way is to end."""
        self.is_served = False
        """Whether a thread is at work for it, or will be."""
        self.is_gone = False
        self.channel: Channel | None = None
        self.channel_name = ""

    def close(self) -> None:
        """Ends its channel."""
        channel, self.channel, self.channel_name = self.channel, None, ""
        if channel is not None:
            channel.close()


def meeting_point(address: str, port: int, deadline_s: float) -> MeetingPoint:
    """The meeting point of channels between processes: a store of torch, for every kind of channel."""
    host = GlooHost(address, port, deadline_s)
    log.info("channels meet", address=host.address, port=host.port)
    return host


def _drop(message: Relayed) -> None:
    """Nobody is told any more: the loop ends."""


SLOW = "RLSP_SLOW_CHANNEL"
"""Variable of a test harness, "SECONDS:BYTES": the pause before each bucket, and the size of a bucket."""


def slowed(settings: OfferSettings, slow: str) -> OfferSettings:
    """The settings with the pause and the buckets that `SLOW` says; the same when it says nothing."""
    if not slow:
        return settings
    pause_s, _, num_bytes = slow.partition(":")
    return msgspec.structs.replace(settings, pause_s=float(pause_s), bucket_bytes=int(num_bytes))


def meeting_address(setting: str, hub: str) -> tuple[str, int]:
    """Where channels meet: `learner.channel_address`, or this machine's address on the way to the hub.

    Args:
        setting: ADDRESS, ADDRESS:PORT, or nothing.
        hub: the hub's address, tcp://HOST:PORT.

    Returns:
        An address of this machine, and a port; 0: a free one.

    Raises:
        MachineError: it is no address, or there is no way to the hub.
    """
    if setting:
        host, colon, port = setting.rpartition(":")
        if not colon or setting.endswith("]"):
            return setting.strip("[]"), 0
        if not port.isdigit() or int(port) > 65535 or not host:
            raise MachineError(f"learner.channel_address = {setting!r} is not ADDRESS or ADDRESS:PORT")
        return host.strip("[]"), int(port)
    target = urlsplit(hub)
    try:
        family = socket.getaddrinfo(target.hostname, target.port)[0][0]
        with socket.socket(family, socket.SOCK_DGRAM) as trial:  # nothing is sent: the kernel chooses the way
            trial.connect((target.hostname, target.port))
            return str(trial.getsockname()[0]), 0
    except OSError as e:
        raise MachineError(f"there is no way to the hub at {hub} ({e}): set learner.channel_address") from None


def make_server(
    cfg: RunConfig,
    learner: str,
    incarnation: int,
    hub_address: Callable[[], str | None],
) -> WeightsServer:
    """The server of a run's learner, made in the thread of its loop.

    It opens nothing before a sampler asks, unless `learner.transport` is "channel": a wrong address is noticed then.

    Args:
        cfg: the run.
        learner: name of the learner.
        incarnation: its start.
        hub_address: where the hub listens.

    Raises:
        MachineError: channels cannot meet at the address that is set.
    """
    loop = asyncio.get_running_loop()
    deadline_s = DEADLINE_TIMEOUTS * cfg.replay.timeout_s
    settings = OfferSettings(
        learner=learner,
        incarnation=incarnation,
        transport=cfg.learner.transport,
        deadline_s=deadline_s,
        device="".join(kinds.own_devices(1)),
        host=kinds.host_id(),
    )

    def meet() -> MeetingPoint:
        address, port = meeting_address(cfg.learner.channel_address, hub_address() or cfg.replay.address)
        return meeting_point(address, port, deadline_s)

    def post(message: Relayed) -> None:
        loop.call_soon_threadsafe(server.relayed.send, message)

    server = WeightsServer(slowed(settings, os.environ.get(SLOW, "")), meet, post)
    server.open()
    return server
