"""The hub: one event in, what follows from it out. Pure: `Hub.on(peer, message, now) -> Effects`.

                    Done(groups)               Done(verdicts)
    sampler  ----------------------> ledger <---------------------- verifier
       ^        sampling_work.py       |        verify_work.py          ^
       |                               | select.py                      |
       +--- Work(SampleJob)            v                                +--- Work(VerifyJob)
                                    manifest --Work(TrainJob)--> learner --Done(report)--> new version to all samplers
                                            train_work.py

After every event, work is handed to whoever has credit. The shell commits the records of an event before it sends
anything, so whatever a worker hears is already on disk.
"""

from __future__ import annotations

from rlsp_async.config import RunConfig
from rlsp_async.messages import (
    Ack,
    Bye,
    Done,
    Drain,
    Failed,
    FromWorker,
    Hello,
    Job,
    Loaded,
    NewWeights,
    Ping,
    Pong,
    Rejected,
    Revoke,
    RolloutGroup,
    TrainJob,
    VerifiedGroup,
    Work,
)
from rlsp_async.replay.arrivals import arrive, gone, take_back
from rlsp_async.replay.crew import KIND_OF, Lease, Worker
from rlsp_async.replay.evaluations import finish_evaluation
from rlsp_async.replay.heads import Loaded as LoadedJournal
from rlsp_async.replay.lines import lease_span, span
from rlsp_async.replay.reconcile import pinged
from rlsp_async.replay.sampling_work import accept_group, admit_demonstrations, next_sample_job, room
from rlsp_async.replay.setbacks import charge, fail_run, lose_lease, requeue_step
from rlsp_async.replay.state import Effects, HubState, Prompts
from rlsp_async.replay.status import status
from rlsp_async.replay.train_work import accept_report, next_train_job
from rlsp_async.replay.verify_work import accept_verdicts, next_verify_job
from rlsp_async.replay.watchdog import watch

STATUS_S = 1.0
DRAIN_S = 60.0


class Hub:
    """All decisions of a run. `now` is in seconds of the run and never runs backwards."""

    def __init__(self, cfg: RunConfig, task: Prompts, loaded: LoadedJournal, now: float = 0.0) -> None:
        self.state = HubState(cfg, task, loaded, now)

    # --- events --------------------------------------------------------------------------------------------------

    def on(self, peer: bytes, message: FromWorker, now: float) -> Effects:
        """A worker said something."""
        out = Effects()
        if isinstance(message, Hello):
            arrive(self.state, out, peer, message, now)
            return self._settle(out, now)
        worker = self.state.crew.peers.get(peer)
        if worker is None:
            out.sends.append((peer, Pong(known=False)))  # it must say hello (again) before it is heard
            return out
        worker.seen_s = now
        match message:
            case Ping():
                pinged(self.state, out, worker, message, now)
            case Done():
                self._done(out, worker, message, now)
            case Failed():
                self._failed(out, worker, message, now)
            case Loaded():
                self._loaded(out, worker, message, now)
            case Rejected():
                self._rejected(out, worker, message, now)
            case Bye():
                gone(self.state, out, worker, f"said goodbye {message.reason}".strip(), now, "returned")
        return self._settle(out, now)

    def tick(self, now: float) -> Effects:
        """Time passed: silent workers are gone, observers are told, a stalled or finished run ends."""
        out = Effects()
        state, cfg = self.state, self.state.cfg.replay
        for worker in state.crew.silent(now, cfg.timeout_s):
            gone(self.state, out, worker, f"was silent for {now - worker.seen_s:.1f} s", now)
        for lease in state.crew.expired(now, cfg.lease_s):
            take_back(self.state, out, lease, now)
        if now >= state.reserved_until_s:
            state.reserved.clear()
        watch(state, out, now)
        self._settle(out, now)
        if now - state.status_s >= STATUS_S:
            self._tell_observers(out, now)
        return out

    def admit(self, groups: list[tuple[int, RolloutGroup]], now: float) -> Effects:
        """Demonstrations that the shell has prepared, as (cursor, group)."""
        out = Effects()
        admit_demonstrations(self.state, out, groups, now)
        return self._settle(out, now)

    def restored(self, step: int, groups: list[VerifiedGroup], now: float) -> Effects:
        """The batch of an old step, read from the journal for a restarted learner."""
        out = Effects()
        self.state.restored[step] = groups
        self.state.wanted.discard(step)
        return self._settle(out, now)

    def stop(self, reason: str, now: float) -> Effects:
        """Somebody stops the run: workers finish or return what they hold; the journal can be taken up again."""
        out = Effects()
        if not self.state.ending:
            self.state.stopped = True
            self._drain(out, reason, now)
        return self._settle(out, now)

    # --- what the shell asks -------------------------------------------------------------------------------------

    def demonstrations_wanted(self) -> int:
        """How many may be admitted now."""
        stage = self.state.stage
        return room(self.state) if stage is not None and stage.source == "demonstrations" else 0

    @property
    def is_over(self) -> bool:
        """Finished, stopped or failed: the shell stops when what it holds is sent."""
        return self.state.over

    # --- results -------------------------------------------------------------------------------------------------

    def _done(self, out: Effects, worker: Worker, done: Done, now: float) -> None:
        state = self.state
        lease = state.crew.release(done.lease)  # none: a repeat, or taken back; its results may still be the first
        for group in done.groups if worker.role == "sampler" else ():
            accept_group(state, out, group, now)
        for verdicts in done.verdicts if worker.role == "verifier" else ():
            accept_verdicts(state, out, verdicts, now)
        for report in done.steps if worker.role == "learner" else ():
            accept_report(state, out, report, now)
        if lease is not None:
            out.lines.append(lease_span(lease, now))
            self._unanswered(out, lease, now)
        out.sends.append((worker.peer, Ack(lease=done.lease)))

    def _unanswered(self, out: Effects, lease: Lease, now: float) -> None:
        """A Done that did not hold what its lease was for: the work is not done."""
        state, queue = self.state, {"sample": self.state.to_sample, "verify": self.state.to_verify}.get(lease.kind)
        if queue is None:
            if lease.key > state.step and lease.key not in state.early:
                requeue_step(state, lease.key)
            return
        head = state.ledger.heads.get(lease.key)
        waits = head is not None and head.state == ("issued" if lease.kind == "sample" else "sampled")
        if waits and lease.key not in queue and (lease.kind, lease.key) not in state.crew.holders:
            charge(state, out, lease.key, "sample" if lease.kind == "sample" else "verify", "faults",
                   f"{lease.worker} answered without the result", now)

    def _failed(self, out: Effects, worker: Worker, failed: Failed, now: float) -> None:
        state = self.state
        lease = state.crew.release(failed.lease)
        if lease is None:
            return
        if failed.kind == "returned":
            lose_lease(state, out, lease, failed.error, now, "returned")
        elif lease.kind == "train":
            self._failed_step(out, worker, lease, failed, now)
        elif failed.kind == "infrastructure":
            lose_lease(state, out, lease, failed.error, now)
        else:
            charge(state, out, lease.key, lease.kind, "faults", f"{lease.worker}: {failed.error}", now)

    def _failed_step(self, out: Effects, worker: Worker, lease: Lease, failed: Failed, now: float) -> None:
        state = self.state
        state.train_failures += 1
        if failed.kind == "data" or state.train_failures > state.cfg.replay.retries:
            fail_run(state, out, f"{worker.name} cannot train step {lease.key}: {failed.error}", now)
            return
        for other in list(worker.leases.values()):  # what was sent after it must not be trained before it
            state.crew.release(other.lease)
            out.sends.append((worker.peer, Revoke(lease=other.lease, reason=f"step {lease.key} comes first")))
            requeue_step(state, other.key)
        requeue_step(state, lease.key)

    # --- weights -------------------------------------------------------------------------------------------------

    def _loaded(self, out: Effects, worker: Worker, loaded: Loaded, now: float) -> None:
        worker.version, worker.rejections = loaded.version, 0
        out.lines.append(span(now - loaded.seconds, now, worker.name, "load", f"version {loaded.version}"))
        self.state.moved(f"{worker.name} loaded version {loaded.version}", now)

    def _rejected(self, out: Effects, worker: Worker, rejected: Rejected, now: float) -> None:
        state = self.state
        worker.version = -1
        worker.rejections += 1
        state.last_error = f"{worker.name} refuses version {rejected.version}: {rejected.reason}"
        if worker.rejections <= state.cfg.replay.retries and state.weights is not None:
            out.sends.append((worker.peer, NewWeights(weights=state.weights)))
        elif all(other.rejections > state.cfg.replay.retries for other in state.crew.of("sampler")):
            fail_run(state, out, f"no sampler serves any version: {state.last_error}", now)

    # --- after every event ---------------------------------------------------------------------------------------

    def _settle(self, out: Effects, now: float) -> Effects:
        self._advance(out, now)
        self._end(out, now)
        if not self.state.ending:
            self._hand_out(out, now)
        return out

    def _advance(self, out: Effects, now: float) -> None:
        state = self.state
        while True:
            finish_evaluation(state, out, now)
            phase = state.plan.at(state.step, state.evaluations)
            if phase == state.phase:
                return
            state.phase, state.phase_since_s, state.stepped_s = phase, now, now
            state.step_seconds.clear()
            state.moved(f"{phase.key or phase.stage} began" if phase else "the last stage ended", now)

    def _end(self, out: Effects, now: float) -> None:
        state = self.state
        workers = [worker for worker in state.crew.workers.values() if worker.role != "observer"]
        if state.phase is None and not state.ending:
            self._drain(out, "the run is complete", now)
        if state.ending == "draining" and (not workers or now - state.ending_since_s > DRAIN_S):
            state.ending = "draining" if state.stopped else "finished"
            state.over = True
        if state.ending == "failed":
            state.over = True
        if state.over:
            self._tell_observers(out, now)

    def _drain(self, out: Effects, reason: str, now: float) -> None:
        state = self.state
        state.ending, state.ending_since_s, state.message = "draining", now, reason
        out.sends.extend((worker.peer, Drain(reason=reason)) for worker in state.crew.workers.values()
                         if worker.role != "observer")

    def _hand_out(self, out: Effects, now: float) -> None:
        """One lease a worker and round, the least busy first, until nobody takes one."""
        given = True
        while given:
            given = False
            for worker in self.state.crew.hungry(("learner", "verifier", "sampler")):
                given |= self._give(out, worker, now)

    def _give(self, out: Effects, worker: Worker, now: float) -> bool:
        job = self._next_job(out, worker, now)
        if job is None:
            return False
        key = job.batch.step if isinstance(job, TrainJob) else job.group_id
        lease = self.state.crew.lease(worker, KIND_OF[worker.role], key, now)
        out.sends.append((worker.peer, Work(lease=lease.lease, deadline_s=self.state.cfg.replay.lease_s, job=job)))
        return True

    def _next_job(self, out: Effects, worker: Worker, now: float) -> Job | None:
        match worker.role:
            case "learner":
                return next_train_job(self.state, out, now)
            case "verifier":
                return next_verify_job(self.state, out, worker, now)
            case "sampler":
                return next_sample_job(self.state, out, worker, now)
        return None

    def _tell_observers(self, out: Effects, now: float) -> None:
        self.state.status_s = now
        observers = self.state.crew.of("observer")
        if observers:
            report = status(self.state, now)
            out.sends.extend((worker.peer, report) for worker in observers)
