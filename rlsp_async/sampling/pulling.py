"""How a version reaches a sampler: the ways that its reference names, in their order, and a transfer over a channel.

    file://      the file is read where it lies: this machine, or a disk that both machines see
    channel://   Pull -> (generation goes on) -> Invite -> the engine receives into its staging -> sums checked

The first way that this build knows and that works is taken. A way that fails is noted, and the next one tried. When
only a transfer has failed, WeightsDelayed is raised: nothing was changed, and what is served goes on being served.

A transfer is asked for again every ASK_S under the same ticket until the invitation comes: a message may be lost, and
the answer to a repetition shows whether the learner is still there.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
import structlog

from rlsp_async.errors import WeightsDelayed, WeightsError
from rlsp_async.files import SHARED_MEMORY
from rlsp_async.messages import Abandon, Invite, Pull, Relayed, WeightsRef
from rlsp_async.sampling.engine import Engine, Staged
from rlsp_async.weights import kinds, sums
from rlsp_async.weights.receive import common_channel, state_of
from rlsp_async.weights.transport import transport_for

ASK_S = 2.0
"""Seconds without an invitation after which it is asked for again."""
INVITE_S = 300.0
"""Longest wait for an invitation: a learner serves four samplers at a time."""
POLL_S = 0.05
"""Between two looks at a transfer."""

END_S = 1.0
"""How long the end of a stream is waited for that the learner gave up."""

log = structlog.get_logger(__name__)

Source = Path | Staged
"""What an engine loads: a file, or what it has received."""


class Way(NamedTuple):
    """How a version came, and why so."""

    how: str
    why: str


class Puller:
    """Brings versions to one sampler's engine, one at a time. Used by the loop's thread."""

    def __init__(self, worker: str, engine: Engine, host: str) -> None:
        """Takes the sampler's name, its engine, and what its machine is called (`kinds.host_id`)."""
        self._worker, self._engine, self._host = worker, engine, host
        self._send: Callable[[Relayed], None] | None = None
        self._numbers = itertools.count(1)
        self._ticket = ""
        self._answers: asyncio.Queue[Invite | Abandon] = asyncio.Queue(64)
        self._bringing = asyncio.Lock()
        self._way: Way | None = None

    def connect(self, send: Callable[[Relayed], None]) -> None:
        """Says how a message reaches the learner. Without it channels are skipped."""
        self._send = send

    def heard(self, message: Relayed) -> None:
        """The learner, or the hub for it, answers."""
        if isinstance(message, Invite | Abandon) and message.ticket == self._ticket and not self._answers.full():
            self._answers.put_nowait(message)

    async def bring(self, ref: WeightsRef) -> Source:
        """Brings a version to this machine.

        Args:
            ref: the published version.

        Raises:
            WeightsDelayed: a transfer failed; no other way is left.
            WeightsError: no way was left to try, or what was published is damaged or gone.
            EngineError: the engine died.
        """
        async with self._bringing:
            why_not: list[str] = []
            is_delayed = False
            for uri in (ref.uri, *ref.also):
                try:
                    source, how = await self._by(uri, ref)
                except WeightsDelayed as e:
                    is_delayed = True
                    why_not.append(str(e))
                except WeightsError as e:
                    why_not.append(str(e))
                else:
                    self._tell(Way(how, "; ".join(why_not)), ref)
                    return source
            kind = WeightsDelayed if is_delayed else WeightsError
            raise kind("; ".join(why_not))

    async def _by(self, uri: str, ref: WeightsRef) -> tuple[Source, str]:
        """Tries one way; what it brought, and how that is called."""
        if urlsplit(uri).scheme != "channel":
            if why := self._why_elsewhere(uri, ref):
                raise WeightsError(f"version {ref.version}: {why}")
            here = msgspec.structs.replace(ref, uri=uri)
            path = await asyncio.to_thread(transport_for(here).fetch, here)
            return path, "file"
        if self._send is None:
            raise WeightsError(f"version {ref.version}: no way to the learner for {uri}")
        invite = await self._pull(ref, self._send)
        return Staged(invite.ticket, sums.decode(invite.plan)), f"channel of kind {invite.kind}"

    def _why_elsewhere(self, uri: str, ref: WeightsRef) -> str:
        """Why a file cannot be that of the learner, whatever lies here under its name; empty when it can be."""
        ways = [urlsplit(way) for way in (ref.uri, *ref.also)]
        hosts = {host for way in ways if way.scheme == "channel" for host in parse_qs(way.query).get("host", [])}
        path = Path(unquote(urlsplit(uri).path))
        if path.is_relative_to(SHARED_MEMORY) and hosts and self._host not in hosts:
            return f"{path} lies in the shared memory of another machine"
        return ""

    def _tell(self, way: Way, ref: WeightsRef) -> None:
        """One line when versions come another way than before."""
        way = way._replace(why=way.why.replace(f"version {ref.version}", "a version"))
        if self._way is None or self._way.how != way.how:
            log.info("weights come", how=way.how, reason=way.why or "it is the first way that the learner offers")
        self._way = way

    # --- a transfer ------------------------------------------------------------------------------------------------

    async def _pull(self, ref: WeightsRef, send: Callable[[Relayed], None]) -> Invite:
        """Has the learner send a version into the engine's staging. Raises WeightsDelayed, EngineError."""
        progress = await self._engine.receive_poll()
        devices = kinds.own_devices(len(progress))
        pull = Pull(
            ticket=f"{self._worker}/{next(self._numbers)}",
            version=ref.version,
            made_by=ref.incarnation,
            kinds=kinds.own_kinds(),
            num_workers=len(progress),
            devices=devices if len(devices) == len(progress) else [],
            host=self._host,
            env=kinds.own_environment(),
            channel=common_channel(progress),
        )
        self._ticket, self._answers = pull.ticket, asyncio.Queue(64)
        try:
            invite = await self._invitation(pull, send)
            check_invitation(invite, ref)
            await self._receive(invite)
        except (WeightsDelayed, WeightsError) as e:
            send(Abandon(ticket=pull.ticket, reason=str(e)[:500]))
            raise WeightsDelayed(f"version {ref.version}: {e}") from e
        except asyncio.CancelledError:
            send(Abandon(ticket=pull.ticket, reason="the sampler has no time left for it"))
            raise
        finally:
            self._ticket = ""
        return invite

    async def _invitation(self, pull: Pull, send: Callable[[Relayed], None]) -> Invite:
        """Asks until the learner answers. Raises WeightsDelayed."""
        for _ in range(round(INVITE_S / ASK_S)):
            send(pull)
            try:
                async with asyncio.timeout(ASK_S):
                    answer = await self._answers.get()
            except TimeoutError:
                continue
            if isinstance(answer, Invite):
                return answer
            raise WeightsDelayed(answer.reason)
        raise WeightsDelayed(f"no invitation of the learner within {INVITE_S:.0f} s")

    async def _receive(self, invite: Invite) -> None:
        """Receives while generation goes on. The receiving end keeps the deadlines. Raises WeightsDelayed."""
        await self._engine.receive_begin(invite)
        while True:
            progress = state_of(await self._engine.receive_poll())
            if progress.ticket != invite.ticket or progress.state not in ("running", "done"):
                raise WeightsDelayed(progress.reason or "the transfer was stopped")
            if progress.state == "done":
                return
            try:
                async with asyncio.timeout(POLL_S):
                    answer = await self._answers.get()
            except TimeoutError:
                continue
            if isinstance(answer, Abandon):
                await self._end()
                raise WeightsDelayed(answer.reason)

    async def _end(self) -> None:
        """Ends a transfer that the learner gave up. The stream's own end comes first if it is on its way: the channel
        stays open then."""
        for _ in range(round(END_S / POLL_S)):
            if state_of(await self._engine.receive_poll()).state != "running":
                return
            await asyncio.sleep(POLL_S)
        await self._engine.receive_stop()


def check_invitation(invite: Invite, ref: WeightsRef) -> None:
    """Raises WeightsDelayed, WeightsError when an invitation is not to the published version."""
    if invite.kind == kinds.FILE:
        raise WeightsDelayed("the learner can open no channel to this sampler")
    plan = sums.decode(invite.plan)
    if ref.digest.startswith(sums.PREFIX) and sums.digest(plan) != ref.digest:
        raise WeightsError(f"the learner offers other weights: {sums.digest(plan)}, published were {ref.digest}")
