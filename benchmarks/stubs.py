"""Stub workers for the benchmarks: many raw DEALER sockets in one process, the real codec, answers at once, no torch.

    python benchmarks/stubs.py '{"address": "tcp://127.0.0.1:5700", "run": "bench", "samplers": 100}'

Reads one `Plan` as JSON, plays the workers for `warm_s + seconds` and prints one `Outcome` as JSON.
"""

from __future__ import annotations

import random
import select
import sys
import time
from collections import deque
from typing import Any

import msgspec
import zmq

from rlsp_async.columns import pack_floats, pack_ints
from rlsp_async.messages import (
    Ack,
    Done,
    Drain,
    Hello,
    Loaded,
    NewWeights,
    Ping,
    Pong,
    Prompt,
    Refuse,
    Revoke,
    Role,
    Rollout,
    RolloutGroup,
    SampleJob,
    Sampling,
    Status,
    StepReport,
    Verdict,
    VerdictSet,
    Welcome,
    Work,
)
from rlsp_async.wire.codec import decode_from_hub, encode

BYTES_PER_TOKEN = 14
"""Id, log-prob, version (4 bytes each) and two characters of text."""
HEADER_BYTES = 250
STEPS_PER_CHECKPOINT = 8
READ = zmq.POLLIN


class Plan(msgspec.Struct, kw_only=True):
    """Whom to play, and for how long."""

    address: str
    run: str
    pid: int = 0
    """Of the hub, whose CPU time is read."""
    samplers: int = 1
    verifiers: int = 1
    learners: int = 1
    observers: int = 0
    sampler_credit: int = 16
    verifier_credit: int = 64
    rollout_bytes: int = 5000
    warm_s: float = 1.0
    seconds: float = 3.0
    rate: float = 0.0
    """Rollout groups answered a second, over all samplers; 0: at once."""
    until_groups: int = 0
    """Ends when so many groups are acknowledged; 0: after `seconds`."""
    heartbeat_s: float = 1.0


class Outcome(msgspec.Struct, kw_only=True):
    """What was measured after the warm-up."""

    seconds: float = 0.0
    hub_cpu_s: float = 0.0
    own_cpu_s: float = 0.0
    sampled: int = 0
    """Groups whose Done was acknowledged."""
    verified: int = 0
    steps: int = 0
    total_sampled: int = 0
    """Of the warm-up, too."""
    ack_s: list[float] = []
    """Done -> Ack of sampled groups."""
    lease_s: list[float] = []
    """Credit freed (Done) -> next Work of the same sampler."""
    hello_s: list[float] = []
    """Hello -> first Work of each sampler."""
    statuses: list[Status] = []


class LeanBatch(msgspec.Struct):
    step: int


class LeanTrain(msgspec.Struct, tag="train"):
    """What a stub learner reads of a TrainJob: the tokens are skipped."""

    batch: LeanBatch


class LeanWork(msgspec.Struct, tag="work"):
    lease: int
    job: LeanTrain


decode_lean = msgspec.msgpack.Decoder(
    Welcome | Pong | LeanWork | Ack | Revoke | NewWeights | Drain | Refuse | Status
).decode


class Stub:
    """One worker: a socket and the leases it holds."""

    def __init__(self, fleet: Fleet, role: Role, index: int, credit: int) -> None:
        self.fleet, self.role, self.name, self.credit = fleet, role, f"{role}-{index}", credit
        self.socket = fleet.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.setsockopt(zmq.ROUTING_ID, f"{self.name}/1/1".encode())
        self.socket.connect(fleet.plan.address)
        self.held: dict[int, float] = {}
        """Lease -> when its Done was sent; 0.0 before."""
        self.freed: deque[float] = deque()
        self.hello_s, self.num_works, self.seq, self.version, self.made_by = 0.0, 0, 0, 0, 0

    def hello(self) -> None:
        self.hello_s = time.perf_counter()
        self.seq += 1
        self.send(
            Hello(
                run=self.fleet.plan.run,
                role=self.role,
                worker=self.name,
                credit=self.credit,
                incarnation=1,
                step=0 if self.role == "learner" else -1,
                leases=list(self.held),
                seq=self.seq,
            )
        )

    def ping(self) -> None:
        self.seq += 1
        state = "working" if self.held else "waiting_credit"
        self.send(
            Ping(
                state=state,
                busy_s=1.0,
                window_s=1.0,
                leases=list(self.held),
                version=self.version,
                seq=self.seq,
                made_by=self.made_by,
            )
        )

    def send(self, message: Any) -> None:
        self.socket.send(encode(message), flags=zmq.NOBLOCK)

    def drain(self) -> None:
        """Reads until the edge-triggered descriptor will speak again."""
        decode = decode_lean if self.role == "learner" else decode_from_hub
        while self.socket.getsockopt(zmq.EVENTS) & READ:
            for _ in range(1000):
                try:
                    frame = self.socket.recv(zmq.NOBLOCK)
                except zmq.Again:
                    break
                self.on(decode(frame))

    def on(self, message: Any) -> None:
        match message:
            case Ack(lease=lease):
                if lease in self.held:  # else it was said twice
                    self.fleet.acked(self, self.held.pop(lease))
            case Work() | LeanWork():
                self._work(message)
            case Revoke(lease=lease):
                self.held.pop(lease, None)
            case NewWeights(weights=weights):
                self.version, self.made_by = weights.version, weights.incarnation
                self.send(Loaded(version=weights.version, seconds=0.0, probe_error=0.0))
            case Pong(known=False):
                self.hello()
            case Status():
                self.fleet.told(message)
            case Refuse(reason=reason):
                raise SystemExit(f"{self.name} was refused: {reason}")

    def _work(self, work: Any) -> None:
        now = time.perf_counter()
        if self.role == "sampler":
            self.num_works += 1
            if self.num_works == 1:
                self.fleet.outcome.hello_s.append(now - self.hello_s)
            elif self.num_works > self.credit and self.freed:
                self.fleet.leased(now - self.freed.popleft())
        self.held[work.lease] = 0.0
        if self.role == "sampler" and self.fleet.plan.rate:
            self.fleet.later.append((self, work))
        else:
            self.answer(work)

    def answer(self, work: Any) -> None:
        done = self.fleet.done_of(work)
        self.held[work.lease] = time.perf_counter()
        if self.role == "sampler":
            self.freed.append(self.held[work.lease])
        self.send(done)


class Fleet:
    """All stubs of a plan, served by one loop."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.outcome = plan, Outcome()
        self.context = zmq.Context()
        self.context.set(zmq.MAX_SOCKETS, 8192)
        self.epoll = select.epoll()
        self.later: deque[tuple[Stub, Any]] = deque()
        self.is_warm = False
        self._rollouts: dict[int, list[Rollout]] = {}
        roles: list[tuple[Role, int, int]] = [
            ("observer", plan.observers, 1),
            ("learner", plan.learners, 2),
            ("verifier", plan.verifiers, plan.verifier_credit),
            ("sampler", plan.samplers, plan.sampler_credit),
        ]
        self.stubs = [Stub(self, role, i, credit) for role, num, credit in roles for i in range(num)]
        self.by_fd: dict[int, Stub] = {}
        for stub in self.stubs:
            fd = stub.socket.getsockopt(zmq.FD)
            self.by_fd[fd] = stub
            self.epoll.register(fd, select.EPOLLIN)

    def run(self) -> Outcome:
        """Serves until the plan is over."""
        for stub in self.stubs:
            stub.hello()
        start = time.perf_counter()
        begin = start + self.plan.warm_s
        end, next_ping, at = begin + self.plan.seconds, start, 0
        cpu = own = answered = 0.0
        while (now := time.perf_counter()) < end and not self._is_enough():
            if not self.is_warm and now >= begin:
                self.is_warm, begin = True, now
                cpu, own = cpu_s(self.plan.pid), time.process_time()
            while next_ping <= now:  # spread over the heartbeat
                self.stubs[at % len(self.stubs)].ping()
                self.stubs[at % len(self.stubs)].drain()
                at, next_ping = at + 1, next_ping + self.plan.heartbeat_s / len(self.stubs)
            answered = self._pace(now - start, answered)
            for fd, _ in self.epoll.poll(min(0.002, max(0.0, next_ping - now)), 256):
                self.by_fd[fd].drain()
        self.outcome.seconds = time.perf_counter() - begin
        self.outcome.hub_cpu_s, self.outcome.own_cpu_s = cpu_s(self.plan.pid) - cpu, time.process_time() - own
        self.context.destroy(linger=0)
        return self.outcome

    def _is_enough(self) -> bool:
        return 0 < self.plan.until_groups <= self.outcome.total_sampled

    def _pace(self, elapsed_s: float, answered: float) -> float:
        while self.later and answered < elapsed_s * self.plan.rate:
            stub, work = self.later.popleft()
            if work.lease in stub.held:
                stub.answer(work)
                stub.drain()
            answered += 1
        return answered if self.later else max(answered, elapsed_s * self.plan.rate - 1)

    def acked(self, stub: Stub, sent_s: float) -> None:
        """One Ack came."""
        self.outcome.total_sampled += stub.role == "sampler"
        if not self.is_warm:
            return
        match stub.role:
            case "sampler":
                self.outcome.sampled += 1
                self.outcome.ack_s.append(time.perf_counter() - sent_s)
            case "verifier":
                self.outcome.verified += 1
            case "learner":
                self.outcome.steps += 1

    def told(self, status: Status) -> None:
        """Only the newest keeps its list of workers: a thousand of them a second would be what grows here."""
        statuses = self.outcome.statuses
        if statuses:
            statuses[-1] = msgspec.structs.replace(statuses[-1], workers=[])
        statuses.append(status)

    def leased(self, seconds: float) -> None:
        """A Work came for credit that was freed so long ago."""
        if self.is_warm:
            self.outcome.lease_s.append(seconds)

    def done_of(self, work: Any) -> Done:
        """The answer to a lease."""
        job = work.job
        if isinstance(job, SampleJob):
            return Done(lease=work.lease, groups=[self.group_of(job)])
        if isinstance(job, LeanTrain):
            step = job.batch.step
            report = StepReport(
                step=step, metrics={"loss": 0.1, "reward": 0.5}, checkpoint=step - step % STEPS_PER_CHECKPOINT
            )
            return Done(lease=work.lease, steps=[report])
        verdicts = [Verdict(status="correct", parts={"correct": 1.0}, verifier="stub/1") for _ in job.items]
        return Done(lease=work.lease, verdicts=[VerdictSet(group_id=job.group_id, verdicts=verdicts)])

    def group_of(self, job: SampleJob) -> RolloutGroup:
        """Random bytes that do not compress, the same in every group."""
        num = job.sampling.rollouts
        if num not in self._rollouts:
            self._rollouts[num] = rollouts(num, self.plan.rollout_bytes)
        return RolloutGroup(
            group_id=job.group_id,
            prompt=job.prompt,
            prompt_ids=b"\1\0\0\0" * 10,
            sampling=job.sampling,
            rollouts=self._rollouts[num],
            purpose=job.purpose,
            stage=job.stage,
        )


def rollouts(num: int, num_bytes: int) -> list[Rollout]:
    """Rollouts of about so many bytes each on the wire."""
    rng = random.Random(0)
    length = max(1, (num_bytes - HEADER_BYTES) // BYTES_PER_TOKEN)
    return [
        Rollout(
            index=i,
            token_ids=pack_ints([rng.randrange(30_000) for _ in range(length)]),
            logprobs=pack_floats([-rng.random() for _ in range(length)]),
            versions=b"\0\0\0\0" * length,
            text="".join(rng.choice("abcdefgh ") for _ in range(2 * length)),
            sampler="stub",
        )
        for i in range(num)
    ]


def frame_bytes(num_rollouts: int, rollout_bytes: int) -> bytes:
    """One Done of a sampler as it travels, for the floors."""
    prompt = Prompt(prompt_id="ops/train/0", task="ops", text="1 2 3 4 -> 10 <think>", answer="10")
    group = RolloutGroup(
        group_id=1,
        prompt=prompt,
        prompt_ids=b"\1\0\0\0" * 10,
        sampling=Sampling(rollouts=num_rollouts),
        rollouts=rollouts(num_rollouts, rollout_bytes),
    )
    return encode(Done(lease=1, groups=[group]))


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far; 0 without one."""
    if not pid:
        return 0.0
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(Fleet(msgspec.json.decode(sys.argv[1], type=Plan)).run()))
