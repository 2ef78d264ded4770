"""A hub for the tests: a real Router on loopback that greets, leases and acknowledges as it is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from rlsp_async.messages import (
    Ack,
    Bye,
    Done,
    Failed,
    FromHub,
    FromWorker,
    Hello,
    Prompt,
    RolloutGroup,
    SampleJob,
    Sampling,
    Welcome,
    Work,
)
from rlsp_async.wire.link import LinkSettings, WorkerHooks, WorkerLink
from rlsp_async.wire.router import Router
from rlsp_async.wire.sockets import ConnectionLimits

LIMITS = ConnectionLimits(heartbeat_s=0.05, timeout_s=0.4, max_message_bytes=200_000)
PROMPT = Prompt(prompt_id="ops/train/0", task="ops", text="1 2 3 4 -> 10 <think>", answer="10")


def sample_job(group_id: int) -> SampleJob:
    return SampleJob(group_id=group_id, prompt=PROMPT, sampling=Sampling(rollouts=1))


async def answer(job: SampleJob) -> RolloutGroup:
    """A handler that is ready at once."""
    return RolloutGroup(group_id=job.group_id, prompt=job.prompt, prompt_ids=b"", sampling=job.sampling, rollouts=[])


class Hub:
    """Keeps what it hears; greets with the leases it is told to keep; acknowledges unless `mute`."""

    def __init__(self, mute: bool = False, keep: set[int] | None = None) -> None:
        self.router = Router(LIMITS)
        self.mute, self.keep = mute, keep or set()
        self.welcomes = True
        self.peers: list[bytes] = []
        self.heard: list[FromWorker] = []
        self.address = ""
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None]

    async def start(self, address: str = "tcp://127.0.0.1:0") -> str:
        self.address = await self.router.bind(address)
        self.resume()
        return self.address

    def resume(self) -> None:
        self._task = asyncio.create_task(self._serve())

    async def freeze(self) -> None:
        """The application stops; the port stays bound and ZeroMQ's thread alive."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def stop(self) -> None:
        await self.freeze()
        self.router.close()

    async def __aenter__(self) -> Hub:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    def say(self, message: FromHub) -> bool:
        return self.router.send(self.peers[-1], message)

    def lease(self, lease: int) -> None:
        assert self.say(Work(lease=lease, deadline_s=5.0, job=sample_job(lease)))

    def all(self, kind: type) -> list:
        return [message for message in self.heard if isinstance(message, kind)]

    async def until(self, ok: Callable[[], bool], bound_s: float = 5.0) -> None:
        async with asyncio.timeout(bound_s), self._changed:
            await self._changed.wait_for(ok)

    async def _serve(self) -> None:
        while True:
            for peer, message in await self.router.receive():
                self._hear(peer, message)
            async with self._changed:
                self._changed.notify_all()

    def _hear(self, peer: bytes, message: FromWorker) -> None:
        self.heard.append(message)
        match message:
            case Hello() if self.welcomes:
                self.peers.append(peer)
                kept = sorted(self.keep & set(message.leases))
                self.router.send(
                    peer,
                    Welcome(
                        run="r", incarnation=1, heartbeat_s=LIMITS.heartbeat_s, timeout_s=LIMITS.timeout_s, leases=kept
                    ),
                )
            case Done(lease=lease) if not self.mute:
                self.router.send(peer, Ack(lease=lease))
            case Hello() | Done() | Failed() | Bye():
                pass


def link_to(
    address: Callable[[], str | None] | str,
    handler=answer,
    credit: int = 2,
    give_up_s: float = 5.0,
    drain_s: float = 2.0,
    **more,
) -> WorkerLink:
    settings = LinkSettings(
        run="r",
        role="sampler",
        worker="sampler-0",
        credit=credit,
        yields=more.pop("yields", False),
        limits=LIMITS,
        give_up_s=give_up_s,
        drain_s=drain_s,
    )
    clock, keys = more.pop("clock", time.monotonic), more.pop("keys", None)
    hooks = WorkerHooks(handler=handler, **more)
    return WorkerLink(settings, address if callable(address) else lambda: address, hooks, keys, clock)
