"""The hub: one event in, what follows from it out. Pure: `Hub.on(peer, message, now) -> Effects`.

                    Done(groups)               Done(verdicts)
    sampler  ----------------------> ledger <---------------------- verifier
       ^          sample.py            |          verify.py             ^
       |                               | selection/                     |
       +--- Work(SampleJob)            v                                +--- Work(VerifyJob)
                                    manifest --Work(TrainJob)--> learner --Done(report)--> new version to all samplers
                                              train.py

    post      consumes                         waits for                          unblocked by
    sample    a free slot: a group to sample   a sampler with credit that serves  Hello, Loaded, Ack; a group that is
              again, a spawned group, or the   the newest version                 trained or dropped
              next prompt
    verify    a sampled group, oldest first    a verifier with credit             Done(groups), Hello, Ack
    train     a manifest to send again, or     the learner with credit            Done(verdicts), admitted
              enough ready groups                                                 demonstrations, Hello, Done(report)
    evaluate  every held-out prompt, verified  samplers that serve the version    the Done of its last group
              or dropped                       of the phase
    admit     demonstrations, made ahead       a free slot                        a step that was reported
    end       nothing                          all workers to leave, DRAIN_S      Bye, silence, time

Every wait has a bound: a worker that is silent for `replay.timeout_s` is gone, and a run in which nothing moves for
`replay.stall_s` fails (`health.py`).

The hub never assumes that a message arrived because it was sent: Pings and Hellos say what a worker holds, and what was
lost is sent again (`protocol.py`). Each event is one `Turn`. After every event, or once for all messages that came
together, work is handed out to whoever has credit. The shell (`server.py`) commits the records of an event before it
sends anything, so whatever a worker hears is on disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from rlsp_async.config import RunConfig
from rlsp_async.messages import FromWorker, Job, Role, TrainJob, VerifiedGroup, Work
from rlsp_async.replay import evaluation, sample, train, verify
from rlsp_async.replay.health import status, watch
from rlsp_async.replay.protocol import gone, receive, take_back
from rlsp_async.replay.records import JournalContent
from rlsp_async.replay.state import HubState, Prompts
from rlsp_async.replay.turn import Effects, Turn, settle
from rlsp_async.replay.workers import Worker

STATUS_S = 1.0
DRAIN_S = 60.0
SLEPT_S = 1.0
"""A tick that comes later than this, and later than half of timeout_s, says that the hub itself was frozen."""


class PostModule(Protocol):
    """The grammar of `sample`, `verify` and `train` as far as work is handed out; results are taken by `accept`."""

    def has_work(self, state: HubState) -> bool:
        """False when there is certainly nothing to do."""

    def next_job(self, turn: Turn, worker: Worker) -> Job | None:
        """Work for this worker; None when there is none."""


POSTS: tuple[tuple[Role, PostModule], ...] = (("learner", train), ("verifier", verify), ("sampler", sample))
"""In the order in which work is handed out: a batch that is chosen, or a group that is dropped as too old, makes room
for new prompts, so samplers come last."""


class Hub:
    """All decisions of a run. `now` is in seconds of the run and never runs backwards."""

    def __init__(
        self, cfg: RunConfig, task: Prompts, content: JournalContent, now: float = 0.0, vocabulary: int = 0
    ) -> None:
        """`vocabulary`: number of token ids of the run's model; 0: unknown."""
        self.state = HubState(cfg, task, content, now, vocabulary)

    # --- events --------------------------------------------------------------------------------------------------

    def on(self, peer: bytes, message: FromWorker, now: float) -> Effects:
        """A worker sent a message."""
        return self.hear([(peer, message)], now)

    def hear(self, arrived: Iterable[tuple[bytes, FromWorker]], now: float) -> Effects:
        """Workers sent messages, in this order; work is handed out once for all of them."""
        turn = Turn(self.state, now)
        for peer, message in arrived:
            settle(turn, receive(turn, peer, message))
            self._move_on(turn)
        self._hand_out(turn)
        return turn.commit()

    def numbered(self, num_starts: int) -> None:
        """The shell has read the newest number that a start of this run has; 0: unknown. Larger ones are made up."""
        self.state.numbered(num_starts)

    def tick(self, now: float) -> Effects:
        """Time passed: silent workers are gone, observers are told, a stalled or finished run ends."""
        turn, state, cfg = Turn(self.state, now), self.state, self.state.cfg.replay
        self._check_sleep(turn)
        for worker in state.table.silent(now, cfg.timeout_s):
            settle(turn, gone(turn, worker, f"was silent for {now - worker.seen_s:.1f} s"))
        for lease in state.table.expired(now, cfg.lease_s):
            settle(turn, take_back(turn, lease))
        state.queues.release(now)
        watch(turn)
        self._move_on(turn)
        self._hand_out(turn)
        if now - state.pace.status_s >= STATUS_S:
            self._tell_observers(turn)
        return turn.commit()

    def admit(self, groups: list[tuple[int, VerifiedGroup]], now: float) -> Effects:
        """The shell has prepared demonstrations or imported rollouts, as (cursor, group)."""
        turn = Turn(self.state, now)
        sample.admit(turn, groups)
        return self._settle(turn)

    def restored(self, step: int, groups: list[VerifiedGroup], now: float) -> Effects:
        """The shell has read the batch of an old step from the journal, for a restarted learner."""
        self.state.training.restore(step, groups)
        return self._settle(Turn(self.state, now))

    def disk(self, free_bytes: int, now: float, journal_bytes: int = 0) -> Effects:
        """The room on the disk was measured: too little pauses the run, and stops it after `replay.stall_s`."""
        turn, state = Turn(self.state, now), self.state
        change = state.disk.measured(free_bytes, journal_bytes, now)
        if change == "full":
            return self.stop(state.disk.sentence(), now)
        if change:
            state.ending.say(state.disk.sentence() if change == "paused" else "")
            turn.moved("there was room on the disk")
            turn.event(change, key=state.step, detail=state.ending.message)
        return self._settle(turn)

    def stop(self, reason: str, now: float) -> Effects:
        """Somebody stops the run: workers finish or return what they hold; the run can be resumed."""
        turn = Turn(self.state, now)
        if not self.state.ending.has_begun:
            self.state.ending.stop()
            turn.drain(reason)
        return self._settle(turn)

    # --- what the shell asks and says ----------------------------------------------------------------------------

    def demonstrations_wanted(self) -> int:
        """Number of demonstrations or imported groups that may be admitted now."""
        stage = self.state.stage
        return sample.room(self.state) if stage is not None and stage.source != "rollouts" else 0

    @property
    def is_over(self) -> bool:
        """Finished, stopped or failed: the shell stops once everything that it holds is sent."""
        return self.state.ending.is_over

    def note_figures(self, figures: dict[str, float]) -> None:
        """Figures of the shell for observers and for the rows of the next steps."""
        self.state.pace.show(figures)

    # --- after every event ---------------------------------------------------------------------------------------

    def _settle(self, turn: Turn) -> Effects:
        self._move_on(turn)
        self._hand_out(turn)
        return turn.commit()

    def _move_on(self, turn: Turn) -> None:
        """Enters the phase that the run has reached, and ends the run when there is none left."""
        state = self.state
        while True:
            evaluation.accept(turn)
            phase = state.plan.at(state.step, state.evaluations)
            if phase == state.phase:
                break
            state.enter(phase, turn.now)
        self._end(turn)

    def _end(self, turn: Turn) -> None:
        state, ending = self.state, self.state.ending
        if state.phase is None and not ending.has_begun:
            turn.drain("the run is complete")
        if not ending.has_begun:
            return
        is_drained = not state.table.num_working or turn.now - ending.since_s > DRAIN_S
        has_ended = ending.kind == "failed" or (ending.kind == "draining" and is_drained)
        if has_ended and ending.close():
            turn.event("stopped" if ending.is_stopped else "finished", key=state.step, detail=ending.message)
        if ending.is_over:
            self._tell_observers(turn)

    def _hand_out(self, turn: Turn) -> None:
        """Hands out work, one lease after the other, each to the least loaded worker of its role."""
        if not self.state.ending.has_begun:
            for role, post in POSTS:
                self._hand_out_to(turn, role, post)

    def _hand_out_to(self, turn: Turn, role: Role, post: PostModule) -> None:
        """Until no worker takes work. A group is avoided by one worker only: what two workers refuse, nobody takes."""
        index, version = self.state.table.index, self.state.version
        refused: list[Worker] = []
        while len(refused) < 2 and post.has_work(self.state) and (worker := index.first(role, version)) is not None:
            job = post.next_job(turn, worker)
            if job is None:
                index.leave_out(worker)
                refused.append(worker)
            else:
                self._lease(turn, worker, job)
        for worker in refused:
            index.place(worker)

    def _lease(self, turn: Turn, worker: Worker, job: Job) -> None:
        key = job.batch.step if isinstance(job, TrainJob) else job.group_id
        lease = self.state.table.lease(worker, key, turn.now)
        turn.send(worker.peer, Work(lease=lease.lease, deadline_s=self.state.cfg.replay.lease_s, job=job))

    # --- time ----------------------------------------------------------------------------------------------------

    def _check_sleep(self, turn: Turn) -> None:
        """The first tick, or a tick after the hub itself was frozen: the silence of that time means nothing."""
        state = self.state
        slept_s = state.pace.ticked(turn.now)
        if slept_s is None:
            turn.event("hub_start", key=state.incarnation)
            state.reserve(turn.now)
        elif slept_s > max(SLEPT_S, state.cfg.replay.timeout_s / 2):
            state.pace.slept(slept_s)
            state.table.woke(turn.now, slept_s)

    def _tell_observers(self, turn: Turn) -> None:
        self.state.pace.told_observers(turn.now)
        observers = self.state.table.with_role("observer")
        if observers:
            report = status(self.state, turn.now)
            for worker in observers:
                turn.send(worker.peer, report)
