"""A whole run without sockets: a small task, honest answers to jobs, and a bench that plays the workers of a Hub."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from rlsp_async.columns import pack_floats, pack_ints
from rlsp_async.config import EvaluationConfig, ReplayConfig, RunConfig, SamplingConfig, StageConfig
from rlsp_async.messages import (
    Bye,
    Done,
    FromWorker,
    Hello,
    Loaded,
    NewWeights,
    Probe,
    Prompt,
    Rollout,
    RolloutGroup,
    SampleJob,
    StepReport,
    TrainJob,
    Verdict,
    VerdictSet,
    VerifyJob,
    WeightsRef,
    Welcome,
    Work,
)
from rlsp_async.replay.hub import Hub
from rlsp_async.replay.records import JournalContent as LoadedJournal
from rlsp_async.replay.turn import Effects


def rows(journal: Path, query: str) -> list[tuple[Any, ...]]:
    """What a statement finds, or changes, in a journal that may be open elsewhere."""
    with closing(sqlite3.connect(journal)) as db, db:
        return db.execute(query).fetchall()


class SmallTask:
    """Five held-out prompts, endless training prompts."""

    name = "small"
    verifier = "small"

    def size(self, split: str) -> int | None:
        return 5 if split == "test" else None

    def prompt(self, split: str, index: int) -> Prompt:
        return Prompt(
            prompt_id=f"small/{split}/{index}", task="small", text=f"{index} + 1 =", answer=str(index + 1), index=index
        )

    def demonstration(self, index: int) -> tuple[Prompt, str]:
        return self.prompt("train", index), str(index + 1)

    def tokenizer(self) -> None:
        return None


class VerifyingTask(SmallTask):
    """One whose responses can be put to the model again."""

    verified_by = "small"

    def verification(self, prompt: Prompt, response: str, verdict: Verdict) -> Prompt | None:
        if verdict.status == "unparsable":
            return None
        return msgspec.structs.replace(
            prompt, text=f"{prompt.text} {response} check", answer="ok" if verdict.status == "correct" else "x"
        )


def config(**changes: Any) -> RunConfig:
    """Two rollouts a group, two groups a step, three steps."""
    stage = StageConfig(steps=3, groups_per_step=2, **changes.pop("stage", {}))
    settings: dict[str, Any] = {
        "name": "test",
        "sampling": SamplingConfig(rollouts=2, max_new_tokens=8),
        "stages": {"rlsp": stage},
        "evaluation": EvaluationConfig(prompts=0),
        "replay": ReplayConfig(),
    }
    return RunConfig(**{**settings, **changes})


def new_hub(cfg: RunConfig, loaded: LoadedJournal | None = None) -> Hub:
    return Hub(cfg, SmallTask(), loaded or LoadedJournal(incarnation=1), 0.0)


def hello(role: Any, worker: str = "", credit: int = 2, **fields: Any) -> Hello:
    return Hello(
        run="test", role=role, worker=worker or f"{role}-0", credit=credit, incarnation=fields.pop("start", 1), **fields
    )


def rollouts_of(job: SampleJob, version: int = 0, length: int = 3, finish: Any = "stop") -> RolloutGroup:
    column = pack_ints([version] * length)
    return RolloutGroup(
        group_id=job.group_id,
        prompt=job.prompt,
        prompt_ids=pack_ints([1, 2]),
        sampling=job.sampling,
        purpose=job.purpose,
        stage=job.stage,
        rollouts=[
            Rollout(
                index=i,
                token_ids=pack_ints([7] * length),
                logprobs=pack_floats([-1.0] * length),
                versions=column,
                text="2",
                finish=finish,
            )
            for i in range(job.sampling.rollouts)
        ],
    )


def verdicts_of(job: VerifyJob, status: Any = "correct") -> VerdictSet:
    parts = {"correct": float(status == "correct"), "search_steps": 2.0}
    return VerdictSet(group_id=job.group_id, verdicts=[Verdict(status=status, parts=parts) for _ in job.items])


def weights(version: int, incarnation: int = 1) -> WeightsRef:
    return WeightsRef(
        version=version,
        uri=f"file:///w{version}",
        digest=f"sha256:{version}",
        num_bytes=8,
        probe=Probe(ids=b"", logprobs=b""),
        incarnation=incarnation,
    )


def report_of(job: TrainJob, publish: bool = True, checkpoint: int = 0) -> StepReport:
    step = job.batch.step
    return StepReport(
        step=step, metrics={"loss": 1.0 / step}, weights=weights(step) if publish else None, checkpoint=checkpoint
    )


def answer(work: Work, version: int = 0) -> Done:
    """What an honest worker says."""
    match work.job:
        case SampleJob():
            return Done(lease=work.lease, groups=[rollouts_of(work.job, version)])
        case VerifyJob():
            return Done(lease=work.lease, verdicts=[verdicts_of(work.job)])
        case TrainJob():
            return Done(lease=work.lease, steps=[report_of(work.job)])


class Bench:
    """Delivers messages, keeps what each peer was sent, and lets honest workers run until nothing is left."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.now = 0.0
        self.inbox: dict[bytes, list[Any]] = {}
        self.versions: dict[bytes, int] = {}
        self.records: list[Any] = []
        self.lines: list[Any] = []
        self.wants: list[int] = []

    def say(self, peer: bytes, message: FromWorker) -> list[Any]:
        """Delivers one message; returns what this peer was sent because of it."""
        return self.take(self.hub.on(peer, message, self.now), peer)

    def tick(self, now: float) -> None:
        self.now = now
        self.take(self.hub.tick(now), b"")

    def take(self, effects: Effects, peer: bytes) -> list[Any]:
        self.records += effects.records
        self.lines += effects.rows
        self.wants += effects.wants
        for to, message in effects.sends:
            self.inbox.setdefault(to, []).append(message)
        return [message for to, message in effects.sends if to == peer]

    def got(self, peer: bytes, kind: type) -> list[Any]:
        """All messages of one kind that a peer was ever sent, handled or not."""
        return [message for message in self.inbox.get(peer, []) if isinstance(message, kind)]

    def step(self, peer: bytes) -> bool:
        """Lets one peer handle its oldest message. False: it has none."""
        if not self.inbox.get(peer):
            return False
        message = self.inbox[peer].pop(0)
        match message:
            case Work():
                self.say(peer, answer(message, self.versions.get(peer, 0)))
            case NewWeights(weights=ref) | Welcome(weights=WeightsRef() as ref) if peer.startswith(b"s"):
                self.versions[peer] = ref.version
                self.say(peer, Loaded(version=ref.version, seconds=0.0, probe_error=0.0))
            case _ if message.__class__.__name__ == "Drain":
                self.say(peer, Bye())
        return True

    def until(self, done: Callable[[], object], *peers: bytes) -> None:
        """Round robin among these peers until something is so."""
        for _ in range(300):
            if done():
                return
            for peer in peers:
                self.step(peer)
        raise AssertionError("it never comes to that")

    def run(self, *peers: bytes, most: int = 5000) -> None:
        """Round robin until nobody has anything to do."""
        for _ in range(most):
            busy = [self.step(peer) for peer in peers]  # all of them, not only the first that is busy
            if not any(busy):
                return
        raise AssertionError("the line never comes to rest")
