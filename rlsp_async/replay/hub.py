"""The hub: one event in, what follows from it out. Pure: `Hub.on(peer, message, now) -> Effects`.

                    Done(groups)               Done(verdicts)
    sampler  ----------------------> ledger <---------------------- verifier
       ^        sampling_work.py       |        verify_work.py          ^
       |                               | select.py                      |
       +--- Work(SampleJob)            v                                +--- Work(VerifyJob)
                                    manifest --Work(TrainJob)--> learner --Done(report)--> new version to all samplers
                                            train_work.py

Nothing is believed to have arrived because it was sent: Pings and Hellos say what a worker holds (reconcile.py,
arrivals.py), and what was lost is said again. After every event, or once for all messages that came together, work is
handed to whoever has credit. The shell commits the records of an event before it sends anything, so whatever a worker
hears is already on disk.
"""

from __future__ import annotations

from collections.abc import Iterable

from rlsp_async.config import RunConfig
from rlsp_async.messages import (
    Bye,
    Done,
    Drain,
    Failed,
    FromWorker,
    Hello,
    Job,
    Loaded,
    Ping,
    Pong,
    Rejected,
    Role,
    TrainJob,
    VerifiedGroup,
    Work,
)
from rlsp_async.replay.arrivals import arrive, gone, heard_fenced, take_back
from rlsp_async.replay.evaluation import finish_evaluation
from rlsp_async.replay.lines import span
from rlsp_async.replay.reconcile import pinged
from rlsp_async.replay.records import Event
from rlsp_async.replay.records import JournalContent as LoadedJournal
from rlsp_async.replay.results import done, failed
from rlsp_async.replay.sampling_work import admit_demonstrations, may_issue, next_sample_job, room
from rlsp_async.replay.setbacks import fail_run
from rlsp_async.replay.state import Effects, HubState, Prompts
from rlsp_async.replay.status import status
from rlsp_async.replay.train_work import may_come_again, next_train_job
from rlsp_async.replay.verify_work import next_verify_job
from rlsp_async.replay.watchdog import watch
from rlsp_async.replay.workers import KIND_OF, Worker

STATUS_S = 1.0
DRAIN_S = 60.0
HANDED_OUT: tuple[Role, ...] = ("learner", "verifier", "sampler")
SLEPT_S = 1.0
"""A tick that comes so late, and later than half of timeout_s, says that the hub was frozen."""


class Hub:
    """All decisions of a run. `now` is in seconds of the run and never runs backwards."""

    def __init__(self, cfg: RunConfig, task: Prompts, loaded: LoadedJournal, now: float = 0.0) -> None:
        self.state = HubState(cfg, task, loaded, now)

    # --- events --------------------------------------------------------------------------------------------------

    def on(self, peer: bytes, message: FromWorker, now: float) -> Effects:
        """A worker said something."""
        return self.hear([(peer, message)], now)

    def hear(self, arrived: Iterable[tuple[bytes, FromWorker]], now: float) -> Effects:
        """Workers said something, in this order; work is handed out once for all of it."""
        out = Effects()
        for peer, message in arrived:
            self._heard(out, peer, message, now)
            self._advance(out, now)
            self._end(out, now)
        if not self.state.ending:
            self._hand_out(out, now)
        return out

    def _heard(self, out: Effects, peer: bytes, message: FromWorker, now: float) -> None:
        if isinstance(message, Hello):
            return arrive(self.state, out, peer, message, now)
        worker = self.state.crew.peers.get(peer)
        if peer in self.state.crew.fenced:
            return heard_fenced(self.state, out, peer, message, now)
        if worker is None:
            return out.sends.append((peer, Pong(known=False)))  # it must say hello (again) before it is heard
        worker.seen_s = now
        match message:
            case Ping():
                pinged(self.state, out, worker, message, now)
            case Done():
                done(self.state, out, worker, message, now)
            case Failed():
                failed(self.state, out, worker, message, now)
            case Loaded():
                self._loaded(out, worker, message, now)
            case Rejected():
                self._rejected(out, worker, message, now)
            case Bye():
                gone(self.state, out, worker, f"said goodbye {message.reason}".strip(), now, "returned")

    def tick(self, now: float) -> Effects:
        """Time passed: silent workers are gone, observers are told, a stalled or finished run ends."""
        out = Effects()
        state, cfg = self.state, self.state.cfg.replay
        self._woke(out, now)
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

    def admit(self, groups: list[tuple[int, VerifiedGroup]], now: float) -> Effects:
        """Demonstrations or imported rollouts that the shell has prepared, as (cursor, group)."""
        out = Effects()
        admit_demonstrations(self.state, out, groups, now)
        return self._settle(out, now)

    def restored(self, step: int, groups: list[VerifiedGroup], now: float) -> Effects:
        """The batch of an old step, read from the journal for a restarted learner."""
        out = Effects()
        self.state.wanted.discard(step)
        if step in self.state.to_train:  # else its learner was replaced while the disk was read
            self.state.restored[step] = groups
        return self._settle(out, now)

    def disk(self, free_bytes: int, now: float, journal_bytes: int = 0) -> Effects:
        """The room that is left was measured: too little pauses the run, and stops it after `replay.stall_s`."""
        out, state = Effects(), self.state
        change = state.disk.measured(free_bytes, journal_bytes, now)
        if change == "full":
            return self.stop(state.disk.sentence(), now)
        if change:
            state.message = state.disk.sentence() if change == "paused" else ""
            state.moved("there was room on the disk", now)
            out.records.append(Event(kind=change, at_s=now, key=state.step, detail=state.message))
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
        return room(self.state) if stage is not None and stage.source != "rollouts" else 0

    @property
    def is_over(self) -> bool:
        """Finished, stopped or failed: the shell stops when what it holds is sent."""
        return self.state.over

    # --- weights -------------------------------------------------------------------------------------------------

    def _loaded(self, out: Effects, worker: Worker, loaded: Loaded, now: float) -> None:
        if loaded.version < worker.version:
            return  # it was overtaken
        worker.version, worker.rejections = loaded.version, 0
        out.lines.append(span(now - loaded.seconds, now, worker.name, "load", f"version {loaded.version}"))
        self.state.moved(f"{worker.name} loaded version {loaded.version}", now)

    def _rejected(self, out: Effects, worker: Worker, rejected: Rejected, now: float) -> None:
        state = self.state
        worker.version = -1
        state.last_error = f"{worker.name} refuses version {rejected.version}: {rejected.reason}"
        if may_come_again(state):
            return  # files in memory are gone after a reboot; whoever makes them again is announced
        worker.rejections += 1
        if worker.rejections <= state.cfg.replay.retries and state.weights is not None:
            state.tell(out, worker, now)
        elif all(other.rejections > state.cfg.replay.retries for other in state.crew.of("sampler")):
            fail_run(state, out, f"no sampler serves any version: {state.last_error}", now)

    def _woke(self, out: Effects, now: float) -> None:
        """The first tick, or the hub itself was frozen: then nobody's silence in that time means anything."""
        state = self.state
        if state.ticked_s is None:
            out.records.append(Event(kind="hub_start", at_s=now, key=state.incarnation))
            state.reserve_from(now)
        elif now - state.ticked_s > max(SLEPT_S, state.cfg.replay.timeout_s / 2):
            slept_s = now - state.ticked_s
            state.progress_s += slept_s
            state.stepped_s += slept_s
            for worker in state.crew.workers.values():
                worker.seen_s = now
            for lease in state.crew.leases.values():
                lease.since_s += slept_s
        state.ticked_s = now

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
        if state.phase is None and not state.ending:
            self._drain(out, "the run is complete", now)
        if state.ending == "draining" and (not state.crew.num_working or now - state.ending_since_s > DRAIN_S):
            state.ending = "draining" if state.stopped else "finished"
            if not state.over:
                out.records.append(
                    Event(
                        kind="stopped" if state.stopped else "finished", at_s=now, key=state.step, detail=state.message
                    )
                )
            state.over = True
        if state.ending == "failed":
            state.over = True
        if state.over:
            self._tell_observers(out, now)

    def _drain(self, out: Effects, reason: str, now: float) -> None:
        state = self.state
        state.ending, state.ending_since_s, state.message = "draining", now, reason
        out.sends.extend(
            (worker.peer, Drain(reason=reason)) for worker in state.crew.workers.values() if worker.role != "observer"
        )

    def _hand_out(self, out: Effects, now: float) -> None:
        """Lease after lease, each to the least busy of its role. A chosen batch or a group that is too old makes room
        for samplers, so they come last."""
        for role in HANDED_OUT:
            self._hand_out_to(role, out, now)

    def _hand_out_to(self, role: Role, out: Effects, now: float) -> None:
        """Until nobody takes one. A group is avoided by one worker only: what two refuse, nobody takes."""
        hungry, version = self.state.crew.hungry, self.state.version
        without: list[Worker] = []
        while len(without) < 2 and self._has_work(role) and (worker := hungry.first(role, version)) is not None:
            if not self._give(out, worker, now):
                hungry.remove(worker)
                without.append(worker)
        for worker in without:
            hungry.place(worker)

    def _has_work(self, role: Role) -> bool:
        """False: there is certainly nothing for this role."""
        if role == "verifier":
            return bool(self.state.to_verify)
        return role == "learner" or bool(self.state.to_sample) or may_issue(self.state)

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
