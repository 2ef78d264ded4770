"""The model checker of the hub: random interleavings of everything that may happen to a run, and what must hold then.

The model is a hub with a real journal, two samplers, two verifiers and a learner, all in one thread. The checker talks to
the hub through `Hub.on`, `Hub.tick` and `Hub.restored` alone, and carries its effects out as the shell does: it commits
the records, then puts the messages into the workers' inboxes. Time is a number that the checker moves on.

What is random, all of it from one seed (`event` draws one of these):

    messages     each message, in either direction, may be lost, come twice, come late or overtake others
    workers      handle their oldest message, answer any of their leases, repeat an answer, ping, reconnect, are killed and
                 restarted, leave and come back, or freeze for longer than `timeout_s`
    answers      are correct if they are answers; but a lease may fail, rollouts may be aborted, verdicts may be timeouts
    the hub      is killed while workers hold leases, and started again from its journal

The learner trains steps in order only, as the real one does: its weights are the list of the batches that it has trained.
A checkpoint keeps a prefix of that list, and a restart goes back to it. It remembers its newest report only.

What must hold, after every effect of the hub (`check_invariants`, `check_manifests`, `check_batch`, `check_repeat`):

    the slot law and the token account (ledger.py); no work in two leases; no worker above its credit
    every manifest within max_lag and max_uses, never changed; a batch that is sent again is the same to the byte
    a killed hub chooses what it would have chosen, and its policies know what they knew (`kill_hub`)

and at the end (`settle`, `violations`): with everybody honest and alive, on the same bad wire, the run finishes, and the
learner's weights are exactly the batches of the manifests.

This is used by test_invariants.py (any settings), test_invariants_of_policies.py (every policy), test_rounds.py and
test_replay_policies.py. test_control.py proves that the checker can fail.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from rlsp_async.config import RunConfig
from rlsp_async.messages import (
    Ack,
    Batch,
    Bye,
    Done,
    Drain,
    Failed,
    Loaded,
    NewWeights,
    Ping,
    Pong,
    Refuse,
    Revoke,
    SampleJob,
    StepReport,
    TrainJob,
    Verdict,
    VerdictSet,
    VerifyJob,
    Welcome,
    Work,
)
from rlsp_async.replay.hub import DRAIN_S, Hub
from rlsp_async.replay.journal import Journal
from rlsp_async.replay.ledger import SINKS, fresh, lag
from rlsp_async.replay.records import Manifest
from rlsp_async.replay.spawn import Spawning
from tests.replay.line import VerifyingTask, hello, rollouts_of, verdicts_of, weights

pack = msgspec.msgpack.encode
CHECKPOINT_EVERY = 2
LOST, TWICE, LATE, OVERTAKEN = 0.06, 0.05, 0.05, 0.1
FROZEN_S = 14.0
"""Longer than `timeout_s`."""
STILL_S = 60.0
"""Something moves at least this often, whatever is lost: six times the longest time-out."""


class FakeWorker:
    """One worker: its inbox, the Works and Dones that it holds, and a learner's weights as a list of batches."""

    def __init__(self, name: str, credit: int) -> None:
        self.name, self.role, self.credit = name, name.split("-")[0], credit
        self.start = 1
        self.connection = 0
        self.inbox: list[Any] = []
        self.works: dict[int, Work] = {}
        self.unacked: dict[int, Done] = {}
        self.ended: set[int] = set()
        self.version = 0
        self.keys: dict[int, int] = {}
        self.weights: list[list[int]] = []
        self.reports: dict[int, StepReport] = {}
        self.saved: dict[int, StepReport] = {}
        self.last_steps: set[int] = set()
        self.thaws_s = 0.0
        self.left = False
        self.welcomed = False
        self.num_hellos, self.num_pings = 0, 0

    @property
    def peer(self) -> bytes:
        return f"{self.name}/{self.start}/{self.connection}".encode()

    @property
    def checkpoint(self) -> int:
        """Newest step on disk: every second one, and the last of a stage."""
        num = len(self.weights)
        return max([num // CHECKPOINT_EVERY * CHECKPOINT_EVERY, *(step for step in self.last_steps if step <= num)])

    def restart(self) -> None:
        """kill -9 and a new start: everything in memory is gone, checkpoints stay."""
        self.weights = self.weights[: self.checkpoint]
        self.reports = {step: report for step, report in self.saved.items() if step == self.checkpoint}
        self.start += 1
        self.inbox, self.works, self.unacked, self.version, self.left = [], {}, {}, 0, False
        self.keys, self.ended, self.thaws_s = {}, set(), 0.0

    def hello(self, again: bool = False) -> Any:
        """On a new connection, or once more on this one because nobody answered."""
        if not again:
            self.connection += 1
            self.inbox = []
        self.welcomed = False
        self.num_hellos += 1
        held = [*self.works, *self.unacked]
        return hello(
            self.role,
            self.name,
            self.credit,
            start=self.start,
            step=len(self.weights),
            leases=held,
            holding={lease: self.keys[lease] for lease in held},
            seq=self.num_hellos,
        )

    def ping(self) -> Ping:
        self.num_pings += 1
        return Ping(
            seq=self.num_pings,
            leases=[*self.works, *self.unacked],
            version=self.version or -1,
            state="draining" if self.left else "working",
        )

    def forget(self, kept: set[int]) -> None:
        self.works = {k: v for k, v in self.works.items() if k in kept}

    def void(self, lease: int) -> None:
        self.works.pop(lease, None)
        self.unacked.pop(lease, None)
        self.ended.add(lease)


class Chaos:
    """A hub with its journal, its workers, and the invariants that must hold after every event."""

    def __init__(self, cfg: RunConfig, path: Path, random: Random, hub_dies: bool = True) -> None:
        self.cfg, self.path, self.random, self.hub_dies = cfg, path, random, hub_dies
        self.now = 0.0
        self.late: list[tuple[bytes, Any]] = []
        self.open_hub()
        self.workers = [FakeWorker(f"sampler-{i}", 3) for i in range(2)] + [
            FakeWorker("verifier-0", 2),
            FakeWorker("verifier-1", 4),
            FakeWorker("learner-0", 2),
        ]
        self.manifests: dict[int, list[int]] = {}
        self.batches: dict[int, bytes] = {}
        for worker in self.workers:
            self.deliver(worker, worker.hello())

    def open_hub(self) -> None:
        self.journal = Journal(self.path, self.cfg)
        self.hub = Hub(self.cfg, VerifyingTask(), self.journal.load(), self.now)

    # --- the wire ------------------------------------------------------------------------------------------------

    def deliver(self, worker: FakeWorker, message: Any) -> None:
        for _ in range(self.copies()):
            if self.random.random() < LATE:
                self.late.append((worker.peer, message))  # it may arrive after its connection, or its worker, is gone
            else:
                self.carry_out(self.hub.on(worker.peer, message, self.now))

    def deliver_late(self) -> None:
        if self.late:
            peer, message = self.late.pop(self.random.randrange(len(self.late)))
            self.carry_out(self.hub.on(peer, message, self.now))

    def copies(self) -> int:
        """How often a message arrives."""
        draw = self.random.random()
        return 0 if draw < LOST else 2 if draw < LOST + TWICE else 1

    def put(self, inbox: list[Any], message: Any) -> None:
        for _ in range(self.copies()):
            overtakes = inbox and self.random.random() < OVERTAKEN
            inbox.insert(self.random.randrange(len(inbox)) if overtakes else len(inbox), message)

    def carry_out(self, effects: Any) -> None:
        self.journal.commit(effects.records)
        self.check_manifests(effects.records)
        by_peer = {worker.peer: worker for worker in self.workers}
        for peer, message in effects.sends:
            if peer in by_peer:
                self.put(by_peer[peer].inbox, message)
        self.check_invariants()
        for step in effects.wants:
            self.carry_out(self.hub.restored(step, self.journal.batch(step), self.now))

    # --- random events -------------------------------------------------------------------------------------------

    def event(self) -> None:
        worker = self.random.choice(self.workers)
        draw = self.random.random()
        self.deliver_late()
        if worker.thaws_s > self.now:
            self.pass_time(0.5)
        elif draw < 0.80:
            self.handle(worker)
        elif draw < 0.86 and worker.unacked:
            self.deliver(worker, self.random.choice(list(worker.unacked.values())))  # sent twice
        elif draw < 0.89:
            self.deliver(worker, worker.ping())
        elif draw < 0.91:
            self.deliver(worker, worker.hello())  # reconnect; what was on its way is lost
        elif draw < 0.93:
            worker.restart()
            self.deliver(worker, worker.hello())
        elif draw < 0.935:
            self.leave(worker)
        elif draw < 0.945:
            worker.thaws_s = self.now + FROZEN_S
        elif draw < 0.955:
            if self.hub_dies:
                self.kill_hub()
        else:
            self.pass_time(self.random.choice((0.1, 1.0, 6.0)))

    def pass_time(self, seconds: float) -> None:
        """Workers that are not frozen ping meanwhile; the messages to a frozen worker stay in its inbox."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + 1.0)
            for worker in self.workers:
                if worker.thaws_s <= self.now and worker.welcomed:
                    self.deliver(worker, worker.ping())
            self.carry_out(self.hub.tick(self.now))

    def kill_hub(self) -> None:
        before = self.policies()
        self.journal.close()
        self.open_hub()
        assert self.policies() == before

    def policies(self) -> list[Any]:
        """What the hub would choose next, and what its policies have learnt: the journal must give it all back."""
        state = self.hub.state
        step, cursor = state.training.last_manifest + 1, state.counters["train"]
        known: list[Any] = []
        for name, stage in self.cfg.stages.items():
            fit = fresh(state.ledger.ready.values(), step, stage.max_lag)
            ready = [record for record in fit if record.stage == name]
            known.append(state.selections[name].batch(ready, step, stage.groups_per_step))
            table = getattr(state.selectors.get(name), "table", None)
            known.append([table.row(index) for index in range(len(table))] if table else [])
            schedule = state.schedules.get(name)
            known.append([schedule.draw(cursor + ahead) for ahead in range(4)] if schedule else [])
            for policy in state.policies:
                if isinstance(policy, Spawning) and name in policy.spawners:
                    spawner = policy.spawners[name]
                    known.append(spawner.choose(state.ledger, name, cursor, state.counters))
        known.append(state.policies.remembered(state.step))
        return [*known, dict(state.ledger.pending), dict(state.counters)]

    def leave(self, worker: FakeWorker) -> None:
        """SIGTERM: gives its leases back, says Bye; then somebody starts it again."""
        for lease in list(worker.works):
            self.deliver(worker, Failed(lease=lease, kind="returned", error="it leaves"))
        self.deliver(worker, Bye(reason="SIGTERM"))
        worker.restart()
        self.deliver(worker, worker.hello())

    def handle(self, worker: FakeWorker, honest: bool = False) -> None:
        while honest and len(worker.inbox) > 1:
            self.receive(worker, worker.inbox.pop(0))  # a living worker reads faster than it works
        if worker.inbox:
            self.receive(worker, worker.inbox.pop(0))  # a connection keeps its order
        elif works := list(worker.works.values()):
            self.work(worker, works[0] if worker.role == "learner" else self.random.choice(works), honest)
        elif worker.unacked and honest:
            self.deliver(worker, next(iter(worker.unacked.values())))
        elif not worker.welcomed and self.random.random() < 0.3:
            self.deliver(worker, worker.hello(again=True))
        elif not worker.left or honest:
            self.deliver(worker, worker.ping())

    def receive(self, worker: FakeWorker, message: Any) -> None:
        match message:
            case Work(lease=lease) if lease in worker.unacked or lease in worker.ended:
                pass
            case Work(lease=lease) if lease not in worker.works and len(worker.works) >= worker.credit:
                worker.ended.add(lease)
                self.deliver(worker, Failed(lease=lease, kind="returned", error="no room"))
            case Work(lease=lease):
                worker.works[lease] = message
                worker.keys[lease] = key_of(message)
            case Ack(lease=lease):
                worker.void(lease)
            case Revoke(lease=lease) if message.refused or lease not in worker.unacked:
                worker.void(lease)
            case Welcome(leases=kept) if not worker.welcomed and message.seq == worker.num_hellos:
                worker.welcomed = True
                worker.forget(set(kept))
                if message.weights is not None:
                    self.load(worker, message.weights.version)
            case NewWeights(weights=ref):
                self.load(worker, ref.version)
            case Pong(known=False):
                self.deliver(worker, worker.hello(again=True))
            case Drain():
                worker.left = True
            case Refuse():
                raise AssertionError((worker.name, message.reason))

    def load(self, worker: FakeWorker, version: int) -> None:
        if worker.role == "sampler" and version > worker.version:
            worker.version = version
            self.deliver(worker, Loaded(version=version, seconds=0.0, probe_error=0.0))
        elif worker.role == "sampler":
            self.deliver(worker, Loaded(version=worker.version, seconds=0.0, probe_error=0.0))

    def work(self, worker: FakeWorker, work: Work, honest: bool) -> None:
        del worker.works[work.lease]
        if isinstance(work.job, TrainJob) and not self.can_train(worker, work.job.batch.step):
            worker.ended.add(work.lease)
            self.deliver(worker, Failed(lease=work.lease, kind="returned", error="another step comes first"))
            return
        if not honest and worker.role != "learner" and self.random.random() < 0.05:
            kind: Any = self.random.choice(("infrastructure", "data"))
            worker.ended.add(work.lease)
            self.deliver(worker, Failed(lease=work.lease, kind=kind, error="chaos"))
            return
        done = self.answer(worker, work, honest)
        worker.unacked[work.lease] = done
        if honest or self.random.random() < 0.9:  # else it is lost until it is sent again
            self.deliver(worker, done)

    def can_train(self, worker: FakeWorker, step: int) -> bool:
        return step in worker.reports or step == len(worker.weights) + 1

    def check_batch(self, batch: Batch) -> None:
        """A step that is sent again is the same to the byte."""
        assert self.batches.setdefault(batch.step, pack(batch)) == pack(batch), batch.step

    def answer(self, worker: FakeWorker, work: Work, honest: bool) -> Done:
        bad = not honest and self.random.random() < 0.08
        match work.job:
            case SampleJob():
                group = rollouts_of(work.job, worker.version, self.random.randint(1, 5), "abort" if bad else "stop")
                return Done(lease=work.lease, groups=[group])
            case VerifyJob():
                failed = self.random.choice(("timeout", "error")) if bad else ""
                verdicts = verdicts_of(work.job, failed) if failed else mixed_verdicts(work.job)
                return Done(lease=work.lease, verdicts=[verdicts])
            case TrainJob(batch=batch):
                self.check_batch(batch)
                ids = [verified.group.group_id for verified in batch.groups]
                if batch.step == len(worker.weights) + 1:
                    worker.weights.append(ids)
                    if batch.last_of_stage:
                        worker.last_steps.add(batch.step)
                    publish = self.cfg.publishes_after(batch.stage, batch.stage_step)
                    ref = weights(batch.step, worker.start) if publish else None
                    worker.reports[batch.step] = StepReport(
                        step=batch.step, weights=ref, checkpoint=worker.checkpoint, incarnation=worker.start
                    )
                    worker.saved |= {batch.step: worker.reports[batch.step]}
                    worker.reports = {batch.step: worker.reports[batch.step]}
                self.check_repeat(worker, batch.step, ids)
                return Done(lease=work.lease, steps=[worker.reports[batch.step]])

    def settle(self) -> None:
        """From here on everybody is honest and alive, on the same bad wire: the run must end."""
        for worker in self.workers:
            worker.thaws_s = 0.0
        since, step = self.now, -1
        while not self.hub.is_over:
            self.deliver_late()
            for worker in self.workers:
                self.handle(worker, honest=True)
            self.pass_time(0.2)
            state = self.hub.state
            if (state.step, state.phase) != step:
                since, step = self.now, (state.step, state.phase)
            patience_s = STILL_S + (DRAIN_S if state.ending.has_begun else 0.0)  # these workers say no Bye
            assert self.now - state.pace.progress_s < patience_s, ("nothing moves", state.phase, state.ledger.counts())
            assert self.now - since < 10 * STILL_S, ("no step comes", state.phase, state.ledger.counts())

    # --- invariants ----------------------------------------------------------------------------------------------------

    def violations(self) -> list[str]:
        """Sentences about what a finished run did wrong."""
        state, learner = self.hub.state, self.workers[-1]
        uses = Counter(group_id for batch in learner.weights for group_id in batch)
        most = max(stage.max_uses for stage in self.cfg.stages.values())
        found = []
        if learner.weights != [self.manifests.get(step) for step in range(1, state.step + 1)]:
            found.append("the weights are not those of the first batches that were chosen")
        if any(num > most for num in uses.values()):
            found.append("a group is in the surviving weights more often than it may be")
        if state.ledger.trained != len(uses):
            found.append(f"{state.ledger.trained} groups were charged, {len(uses)} are in the surviving weights")
        return found

    def check_repeat(self, worker: FakeWorker, step: int, ids: list[int]) -> None:
        assert worker.weights[step - 1] == ids, (step, len(worker.weights))

    def check_manifests(self, records: list[Any]) -> None:
        """Lag and reuse are within bounds when a manifest is written, and a step has one manifest for ever."""
        records_of = {
            r.record.group_id: r.record for r in records if hasattr(r, "record") and r.record.state == "training"
        }
        for manifest in (r for r in records if isinstance(r, Manifest)):
            stage = self.cfg.stages[manifest.stage]
            assert manifest.step not in self.manifests
            self.manifests[manifest.step] = manifest.groups
            assert len(set(manifest.groups)) == stage.groups_per_step
            assert all(0 <= lag(records_of[i], manifest.step) <= stage.max_lag for i in manifest.groups)
            assert all(records_of[i].uses <= stage.max_uses for i in manifest.groups)
            carries = stage.selection_options.get("carry", 0)
            assert sum(records_of[i].stage != manifest.stage for i in manifest.groups) <= carries

    def most_carried(self) -> int:
        """Groups that may stay alive during an evaluation: those of a stage that goes on after it, or those that the
        next stage to train carries over."""
        state = self.hub.state
        if (
            state.phase
            and state.phase.key.startswith("during")
            and state.step < state.plan.last_step[state.phase.stage]
        ):
            return state.plan.stages[state.phase.stage].capacity
        names = list(self.cfg.stages)
        left = [name for name in names if state.plan.last_step[name] > state.step]
        return (
            min(self.cfg.stages[left[0]].selection_options.get("carry", 0), self.cfg.stages[left[0]].capacity)
            if left
            else 0
        )

    def check_invariants(self) -> None:
        state = self.hub.state
        counts, account = state.ledger.counts(), state.ledger.tokens()
        assert counts["issued"] == counts["trained"] + counts["dropped"] + counts["alive"]
        assert counts["alive"] == sum(h.purpose == "train" for h in state.ledger.records.values())
        assert counts["alive"] <= (state.stage.capacity if state.stage else self.most_carried())
        assert account["generated"] == sum(account[name] for name in SINKS)
        assert min(account.values()) >= 0
        assert account["generated"] == state.counters.get("generated", 0)
        live = [h for h in state.ledger.records.values() if h.state in ("sampled", "ready")]
        assert account["waiting"] == sum(h.num_tokens for h in live)
        assert set(state.ledger.bodies) == {h.group_id for h in state.ledger.records.values() if h.state != "issued"}
        leases = state.table.leases.values()
        assert len({(lease.kind, lease.key) for lease in leases}) == len(leases)
        groups = [lease.key for lease in leases if lease.kind != "train"]
        assert len(groups) == len(set(groups))
        for worker in state.table.workers.values():
            assert len(worker.leases) <= worker.credit


def mixed_verdicts(job: VerifyJob) -> VerdictSet:
    """Every third group is all correct or all wrong; of the others only the first rollout is correct."""
    right = [job.group_id % 2 == 0 if job.group_id % 3 == 0 else place == 0 for place in range(len(job.items))]
    return VerdictSet(
        group_id=job.group_id,
        verdicts=[Verdict(status="correct" if one else "wrong", parts={"correct": float(one)}) for one in right],
    )


def key_of(work: Work) -> int:
    """Group id, or step."""
    return work.job.batch.step if isinstance(work.job, TrainJob) else work.job.group_id
