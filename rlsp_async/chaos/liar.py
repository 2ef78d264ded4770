"""A peer with the right to speak, which lies: what a worker that was taken over, or that is broken, may send.

    work      joins as a sampler and as a verifier, takes leases, and answers with nothing, with rollouts that cannot be
              read, with ids that the model does not have, with numbers that are not finite, with parts of huge names,
              with the group of another lease
    leases    answers leases that it was never given, and those to come, with nothing and with made-up results
    names     comes under the names of the workers of the run: as an observer, by hand, as an older start, and as a
              start whose number nobody has given out
    frames    sends again what it heard others send, as it was and with bytes changed

It runs in the harness beside the honest workers, over a connection of its own to the hub, for some seconds. It never
sends a result that is well-formed and merely false: a worker within its role may do that (docs/guarantees.md).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from random import Random
from typing import cast

import msgspec
import zmq
import zmq.asyncio

from rlsp_async.columns import pack_floats, pack_ints
from rlsp_async.errors import MessageError
from rlsp_async.messages import (
    Abandon,
    Done,
    Failed,
    FromHub,
    FromWorker,
    Hello,
    Loaded,
    NewWeights,
    Ping,
    Pull,
    Rejected,
    Rollout,
    RolloutGroup,
    SampleJob,
    Verdict,
    VerdictSet,
    VerifyJob,
    Welcome,
    Work,
)
from rlsp_async.wire.codec import decode_from_hub, encode

PAUSE_S = 0.05
"""Pause between two lies, so that the liar does not merely flood the hub."""
PING_S = 0.5
UNGIVEN = 2**60
"""A number of a start that no run gives out."""
FRAMES_KEPT = 300


class Liar:
    """One lying peer (`faults.LIES`). `num_sent` and `num_heard` count its messages."""

    def __init__(self, run: str, address: str, seed: str, overheard: Sequence[bytes] = ()) -> None:
        """Makes a peer that is not yet connected.

        Args:
            run: name of the run.
            address: of the hub.
            seed: decides what it says.
            overheard: frames of honest workers.
        """
        self._run, self._address, self._random, self._overheard = run, address, Random(seed), list(overheard)
        self.num_sent = self.num_heard = 0

    async def lie(self, what: str, seconds: float) -> None:
        """Lies in one way (`faults.LIES`) for some seconds."""
        act: Callable[[zmq.asyncio.Context], Awaitable[None]] = {
            "work": self._work,
            "leases": self._leases,
            "names": self._names,
            "frames": self._frames,
        }[what]
        context = zmq.asyncio.Context()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await act(context)
        finally:
            context.destroy(linger=0)

    def _peer(self, context: zmq.asyncio.Context) -> zmq.asyncio.Socket:
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, FRAMES_KEPT)
        socket.connect(self._address)
        return socket

    async def _say(self, socket: zmq.asyncio.Socket, message: FromWorker | bytes) -> None:
        """Sends a message, or any bytes; one that cannot be sent at once is dropped."""
        frame = message if isinstance(message, bytes) else encode(message)
        future = cast("asyncio.Future[object]", socket.send_multipart([frame], flags=zmq.NOBLOCK))
        if future.done() and future.exception() is None:
            self.num_sent += 1
        await asyncio.sleep(PAUSE_S)

    def _hello(self, role: str, worker: str, incarnation: int = 1, **more: object) -> Hello:
        said = {"run": self._run, "role": role, "worker": worker, "credit": 0 if role == "observer" else 4, "seq": 1}
        return msgspec.convert({**said, "incarnation": incarnation, **more}, Hello)

    # --- work ----------------------------------------------------------------------------------------------------

    async def _work(self, context: zmq.asyncio.Context) -> None:
        """Both roles at once; ends by the time-out of `lie`."""
        async with asyncio.TaskGroup() as group:
            for role in ("sampler", "verifier"):
                group.create_task(self._work_as(self._peer(context), role))

    async def _work_as(self, socket: zmq.asyncio.Socket, role: str) -> None:
        await self._say(socket, self._hello(role, f"{role}-liar", yields=True, info={"host": "x", "pid": "1"}))
        pings = 0
        version = 0
        held: list[int] = []
        while True:
            try:
                async with asyncio.timeout(PING_S):
                    message = _decoded((await socket.recv_multipart())[-1])
            except TimeoutError:
                pings += 1
                await self._say(socket, Ping(state="working", seq=pings, leases=held[-4:], version=version))
                continue
            self.num_heard += 1
            match message:
                case Welcome(weights=weights) | NewWeights(weights=weights) if weights is not None:
                    version = weights.version
                    await self._say(socket, Loaded(version=version, seconds=0.0, probe_error=0.0))  # it loaded nothing
                case Work(lease=lease, job=SampleJob() as job):
                    held.append(lease)
                    await self._say(socket, self._random.choice(list(false_groups(lease, job, version))))
                case Work(lease=lease, job=VerifyJob() as job):
                    held.append(lease)
                    await self._say(socket, self._random.choice(list(false_verdicts(lease, job))))

    # --- leases and names ----------------------------------------------------------------------------------------

    async def _leases(self, context: zmq.asyncio.Context) -> None:
        """Answers to the leases of others and to those to come, for every role; ends by the time-out of `lie`."""
        socket = self._peer(context)
        role = self._random.choice(("sampler", "verifier"))
        await self._say(socket, self._hello(role, f"{role}-liar", yields=True, credit=1, info={"pid": "2"}))
        first = 1 << 32
        for number in _numbers(self._random):
            if isinstance(message := await self._newest(socket), Welcome):
                first = message.incarnation << 32
            lease = number if self._random.random() < 0.2 else first + number
            await self._say(socket, self._random.choice(list(answers_without_a_lease(lease, number % 4096))))

    async def _newest(self, socket: zmq.asyncio.Socket) -> FromHub | None:
        """The next message that has come; None when there is none."""
        try:
            async with asyncio.timeout(PAUSE_S):
                frames = await socket.recv_multipart()
        except TimeoutError:
            return None
        self.num_heard += 1
        return _decoded(frames[-1])

    async def _names(self, context: zmq.asyncio.Context) -> None:
        """Hellos under other workers' names, each over a new connection; ends by the time-out of `lie`."""
        while True:
            name = self._random.choice(("learner-0", "sampler-0", "verifier-0"))
            role = name.partition("-")[0]
            hello = self._random.choice(
                [
                    self._hello("observer", name, UNGIVEN),
                    self._hello("verifier" if role == "sampler" else "sampler", name, UNGIVEN),
                    self._hello(role, name, UNGIVEN),
                    self._hello(role, name, 2**63 - 1),
                    self._hello(role, name, UNGIVEN, yields=True, info={"host": "x", "pid": "3"}),
                    self._hello(role, name, 0),
                    self._hello(role, f"{role}-\x1b[2J\n", 1),
                    self._hello(role, "../../etc/passwd", 1),
                ]
            )
            with contextlib.closing(self._peer(context)) as socket:
                await self._say(socket, hello)
                await self._say(socket, Failed(lease=1, kind="data", error="\x1b]0;x\x07" * 50))
                await self._newest(socket)

    # --- frames --------------------------------------------------------------------------------------------------

    async def _frames(self, context: zmq.asyncio.Context) -> None:
        """What others sent, as it was and changed, after a Hello of its own; ends by the time-out of `lie`."""
        socket = self._peer(context)
        await self._say(socket, self._hello("sampler", "sampler-liar", yields=True, credit=1, info={"pid": "4"}))
        while True:
            frame = self._random.choice(self._overheard) if self._overheard else b"\x81\xa4type\xa4ping"
            await self._say(socket, frame if self._random.random() < 0.3 else changed(frame, self._random))
            await self._newest(socket)


def _decoded(frame: bytes) -> FromHub | None:
    try:
        return decode_from_hub(frame)
    except MessageError:
        return None


def _numbers(random: Random) -> Iterator[int]:
    """Small numbers, as leases have, and some that nothing has."""
    while True:
        yield random.choice((random.randrange(1, 5000), random.randrange(1, 50), 2**62, 0))


def changed(frame: bytes, random: Random) -> bytes:
    """A frame with bits flipped, cut, doubled or with random bytes in it."""
    at = random.randrange(max(1, len(frame)))
    match random.randrange(4):
        case 0:
            return frame[:at] + bytes([frame[at] ^ (1 << random.randrange(8))]) + frame[at + 1 :] if frame else b"\xc1"
        case 1:
            return frame[:at]
        case 2:
            return frame + frame
        case _:
            return frame[:at] + random.randbytes(random.randrange(1, 40)) + frame[at:]


# --- false answers ---------------------------------------------------------------------------------------------------


def false_groups(lease: int, job: SampleJob, version: int) -> Iterator[Done]:
    """Answers to a sample job, none of which can be trained on."""
    rollout = Rollout(
        index=0,
        token_ids=pack_ints([1, 2]),
        logprobs=pack_floats([-0.5, -0.5]),
        versions=pack_ints([version, version]),
        text="x",
        finish="stop",
    )
    false = msgspec.structs.replace
    group = RolloutGroup(
        group_id=job.group_id,
        prompt=job.prompt,
        prompt_ids=pack_ints([1]),
        sampling=job.sampling,
        rollouts=[false(rollout, index=index) for index in range(job.sampling.rollouts)],
        provenance="rollout",
        purpose=job.purpose,
        stage=job.stage,
    )

    def with_each(**change: object) -> RolloutGroup:
        return false(group, rollouts=[false(one, **change) for one in group.rollouts])

    wrong = [
        false(group, prompt_ids=b"\1\2\3"),
        false(group, rollouts=group.rollouts[:-1]),
        false(group, rollouts=[]),
        false(group, group_id=job.group_id + 1),
        false(group, prompt=false(job.prompt, prompt_id="ops/none", text="another")),
        false(group, sampling=false(job.sampling, temperature=0.01)),
        false(group, provenance="demonstration"),
        with_each(token_ids=b"\1\2\3\4\5"),
        with_each(token_ids=pack_ints([2**30, 2])),
        with_each(token_ids=pack_ints([-1, 2])),
        with_each(logprobs=pack_floats([float("nan"), 0.0])),
        with_each(logprobs=pack_floats([3e38, 3e38])),
        with_each(logprobs=pack_floats([-0.5])),
        with_each(versions=pack_ints([version + 1000, version])),
        with_each(step_offsets=b"\1\2"),
        with_each(token_ids=b"", logprobs=b"", versions=b""),
    ]
    yield Done(lease=lease)
    yield Done(lease=lease, verdicts=[VerdictSet(group_id=job.group_id, verdicts=[])])
    for one in wrong:
        yield Done(lease=lease, groups=[one])


def false_verdicts(lease: int, job: VerifyJob) -> Iterator[Done | Failed]:
    """Answers to a verify job, none of which is a verdict on every rollout."""
    num = len(job.items)
    wrong = [
        [],
        [Verdict(status="correct", parts={"correct": 1.0})] * (num + 1),
        [Verdict(status="correct", parts={"correct": float("nan")})] * num,
        [Verdict(status="correct", parts={"correct": float("inf")})] * num,
        [Verdict(status="correct", parts={"x" * 60_000: 1e300})] * num,
        [Verdict(status="error", detail="\x1b[2J\n" * 1000)] * num,
    ]
    yield Done(lease=lease)
    yield Failed(lease=lease, kind="data", error="\x1b]0;x\x07" * 100)
    for verdicts in wrong:
        yield Done(lease=lease, verdicts=[VerdictSet(group_id=job.group_id, verdicts=verdicts)])
    yield Done(lease=lease, verdicts=[VerdictSet(group_id=job.group_id + 1, verdicts=wrong[1][:num])])


def answers_without_a_lease(lease: int, key: int) -> Iterator[FromWorker]:
    """Answers to a lease that somebody else has, or nobody."""
    yield Done(lease=lease)
    yield Done(lease=lease, verdicts=[VerdictSet(group_id=key, verdicts=[Verdict(status="correct")] * 2)])
    yield Failed(lease=lease, kind="data", error="no", groups=[key])
    yield Failed(lease=lease, kind="returned", error="no")
    yield Loaded(version=key + 10_000, seconds=0.0, probe_error=0.0)
    yield Rejected(version=key, reason="no")
    yield Pull(ticket="sampler-0/1", version=key, made_by=1, worker="sampler-0", kinds=["gloo", "x" * 900])
    yield Abandon(ticket="sampler-0/1", worker="sampler-0", reason="\x1b[2J")
