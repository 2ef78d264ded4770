"""What the hub knows, by owner. Pure: no clock, no socket, no file.

`HubState` holds the ledger, the worker table and five owners:

    Queues     groups that wait for a sampler or a verifier: one `Post` for each of the two kinds of work
    Retries    what went wrong with which group, and how many groups failed lately
    Training   which steps were chosen, sent, reported and published (`plan.py`)
    Ending     whether, why and since when the run ends
    Pace       when the run last moved, how long its steps take, and the figures that observers see

Everybody may read them; only an owner's own methods change it (tests/replay/test_owners.py reads the source for it).
What follows from one event is collected by a `Turn` (`turn.py`).
"""

from __future__ import annotations

import functools
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from rlsp_async.config import RunConfig, StageConfig, load_environment
from rlsp_async.contents import KNOWN_PARTS, PART_CHARACTERS, PARTS_KEPT
from rlsp_async.messages import Prompt, Role, SampleJob
from rlsp_async.prompts.base import load_selector
from rlsp_async.replay.ledger import Counters, Ledger
from rlsp_async.replay.plan import Phase, Plan, Training
from rlsp_async.replay.policies import load_policies
from rlsp_async.replay.records import JournalContent, Reason, State
from rlsp_async.replay.selection.base import load_selection
from rlsp_async.replay.workers import Worker, WorkerTable
from rlsp_async.temperatures.base import load_schedule

T = TypeVar("T")

LossKind = Literal["died", "failed", "returned"]
"""How a lease ended without an answer: its worker died; its worker or engine failed; it was lost on the way or given
back."""

OUTCOMES_KEPT = 100
RETURNS_TOLERATED = 30
"""Number of times that a lease of one group may be lost on the way or given back before that counts as a failure."""
PROMPTS_KEPT = 4096
JOBS_KEPT = 4096
RESERVED_HEARTBEATS = 2.0
"""Heartbeats in which a worker finds out that its hub was restarted, and says what it holds."""
MIB = 1 << 20
RESUME_AT = 1.25
"""A paused run goes on when this many times the reserve is free, so that it does not flutter around the bound."""


# --- queues ----------------------------------------------------------------------------------------------------------


class Post:
    """One kind of work on groups, sample or verify: the groups that wait for a worker, and when they may have one."""

    def __init__(self, kind: Literal["sample", "verify"], role: Role, open_state: State, error: Reason) -> None:
        self.kind: Literal["sample", "verify"] = kind
        self.role = role
        """Who does the work."""
        self.error = error
        """Reason for which a group is dropped when the work fails for its own fault."""
        self._open_state = open_state
        self.queue: deque[int] = deque()
        """Group ids, next one first. An entry whose group has moved on is skipped."""

    def is_open(self, group_id: int, ledger: Ledger) -> bool:
        """Whether this work on a group is still to be done."""
        record = ledger.records.get(group_id)
        return record is not None and record.state == self._open_state

    def restore(self, ledger: Ledger) -> None:
        """Queues every group on which this work is to be done."""
        self.queue.extend(sorted(group_id for group_id in ledger.records if self.is_open(group_id, ledger)))

    def enqueue(self, group_id: int) -> None:
        """A group has come to this post."""
        self.queue.append(group_id)

    def requeue(self, group_id: int, ledger: Ledger) -> None:
        """A lease of a group has ended without a result: the group is next, unless it has moved on."""
        if self.is_open(group_id, ledger):
            self.queue.appendleft(group_id)


class Queues:
    """The two posts, and the groups that are reserved for the workers who held them before a restart of the hub."""

    def __init__(self, ledger: Ledger, table: WorkerTable, retries: Retries) -> None:
        self.sample = Post("sample", "sampler", "issued", "sampler_error")
        self.verify = Post("verify", "verifier", "sampled", "verifier_error")
        self.reserved: set[int] = set()
        """Restored groups that a worker may still hold: they are not leased before `reserved_until_s`."""
        self.reserved_until_s = 0.0
        self._ledger, self._table, self._retries = ledger, table, retries
        for post in (self.sample, self.verify):
            post.restore(ledger)

    def of(self, kind: Literal["sample", "verify"]) -> Post:
        """The post of one kind of work."""
        return self.sample if kind == "sample" else self.verify

    def take(self, post: Post, worker: Worker) -> int | None:
        """Removes and returns the next group for this worker: open, not held and not reserved; None when there is none.

        A group on which the worker failed is left to another worker, if there is any.
        """
        queue, avoid = post.queue, self._retries.avoid if self._table.num(worker.role) > 1 else {}
        for _ in range(len(queue)):
            group_id = queue.popleft()
            if not post.is_open(group_id, self._ledger) or self.is_held(group_id):
                continue
            if avoid.get(group_id) != worker.name and group_id not in self.reserved:
                return group_id
            queue.append(group_id)
        return None

    def is_held(self, group_id: int) -> bool:
        """Whether a worker holds the group, for either kind of work."""
        return ("sample", group_id) in self._table.holders or ("verify", group_id) in self._table.holders

    def reserve(self, until_s: float, everything: bool = False) -> None:
        """Keeps the reserved groups until then; `everything`: all groups that are queued now are reserved."""
        self.reserved_until_s = until_s
        if everything:
            self.reserved.update(self.sample.queue, self.verify.queue)

    def claim(self, group_id: int) -> None:
        """The worker who held the group has said so."""
        self.reserved.discard(group_id)

    def release(self, now: float) -> None:
        """Groups that nobody claimed in time may be leased to anybody."""
        if now >= self.reserved_until_s:
            self.reserved.clear()


# --- retries ---------------------------------------------------------------------------------------------------------


class Retries:
    """What went wrong with which group since it last changed its state, and the outcomes of the newest groups."""

    def __init__(self) -> None:
        self.avoid: dict[int, str] = {}
        """For a group, the worker that failed on it: another one is tried, if there is any."""
        self.returns: Counter[int] = Counter()
        """For a group, how often its lease was lost on the way or given back."""
        self.killed: dict[int, set[tuple[str, int]]] = {}
        """For a group, the (worker, incarnation) pairs that died while they held it."""
        self.outcomes: deque[bool] = deque(maxlen=OUTCOMES_KEPT)
        """Of the newest groups: True for one that became ready, False for one that was dropped for a failure."""
        self.train_failures = 0
        """Failures of the learner since it last reported a step."""
        self.content_failures: Counter[int] = Counter()
        """For a step, how often the learner has named groups of its batch that it cannot train on."""

    def forget(self, group_id: int) -> None:
        """Clears the failure history of a group after it has changed its state."""
        self.avoid.pop(group_id, None)
        self.returns.pop(group_id, None)
        self.killed.pop(group_id, None)

    def tolerates_return(self, group_id: int) -> bool:
        """Counts a lease that was lost on the way or given back; False once there are too many."""
        if self.returns[group_id] >= RETURNS_TOLERATED:
            return False
        self.returns[group_id] += 1
        return True

    def avoid_worker(self, group_id: int, worker: str) -> None:
        """A worker failed on a group: another one is tried next."""
        self.avoid[group_id] = worker

    def is_first_death(self, group_id: int, worker: str, incarnation: int) -> bool:
        """A worker died while it held a group. False when the same process was counted before: one that falls silent
        twice is one death."""
        dead = self.killed.setdefault(group_id, set())
        is_first = (worker, incarnation) not in dead
        dead.add((worker, incarnation))
        return is_first

    def count(self, is_good: bool) -> None:
        """A group became ready (good), or was dropped for a failure."""
        self.outcomes.append(is_good)

    def content_failed(self, step: int) -> int:
        """The learner named groups of a batch that it cannot train on; returns how often it has."""
        self.content_failures[step] += 1
        return self.content_failures[step]

    def content_settled(self, step: int) -> None:
        """A batch has changed, or its step was reported."""
        self.content_failures.pop(step, None)

    def learner_failed(self) -> None:
        """The learner failed on a step."""
        self.train_failures += 1

    def learner_succeeded(self) -> None:
        """The learner reported a step."""
        self.train_failures = 0


# --- ending and pace -------------------------------------------------------------------------------------------------

EndingKind = Literal["", "draining", "finished", "failed"]


class Ending:
    """Whether the run ends, why, and since when; and what people are told about it."""

    def __init__(self, now: float) -> None:
        self.kind: EndingKind = ""
        """Empty while the run goes on. A run that was stopped stays "draining"."""
        self.since_s = now
        self.is_stopped = False
        """Somebody stopped the run before it was complete."""
        self.is_over = False
        """Everybody has left, or nobody is waited for any longer."""
        self.message = ""
        """What observers read: why the run ends or pauses, or what it waits for."""
        self.last_error = ""
        """The last failure of any group, step or version, in words."""

    @property
    def has_begun(self) -> bool:
        """Whether nothing new is started any more."""
        return bool(self.kind)

    def fail(self, message: str, now: float) -> bool:
        """The run cannot succeed. The first message stays: False when the run has failed or finished before."""
        if self.kind in ("failed", "finished"):
            return False
        self.kind, self.since_s, self.message = "failed", now, message
        return True

    def drain(self, reason: str, now: float) -> None:
        """Workers are asked to finish or return what they hold."""
        self.kind, self.since_s, self.message = "draining", now, reason

    def stop(self) -> None:
        """Somebody stops the run: it can be resumed."""
        self.is_stopped = True

    def close(self) -> bool:
        """The run is over. True when a drained run is closed for the first time, so that it is recorded."""
        is_first = self.kind == "draining" and not self.is_over
        if self.kind == "draining" and not self.is_stopped:
            self.kind = "finished"
        self.is_over = True
        return is_first

    def say(self, message: str) -> None:
        """Replaces what observers read; empty: nothing is wrong any more."""
        self.message = message

    def note(self, error: str) -> None:
        """Something failed; the run may go on."""
        self.last_error = error


class Pace:
    """When the run last moved, how long its steps take, and the newest figures. Times are seconds of the run."""

    def __init__(self, now: float) -> None:
        self.progress_s = now
        """When something last moved."""
        self.progress_what = "the hub started"
        """What moved then."""
        self.stalled: tuple[str, float] | None = None
        """What the watchdog has warned of, and since when that has been so."""
        self.ticked_s: float | None = None
        """Newest tick; None before the first."""
        self.stepped_s = now
        """When the newest step was reported, or the phase began."""
        self.step_seconds: deque[float] = deque(maxlen=16)
        """Durations of the newest steps of this phase."""
        self.generated: deque[tuple[float, int]] = deque([(now, 0)], maxlen=8)
        """For the newest steps: when each was reported, and the tokens that had been generated by then."""
        self.figures: dict[str, float] = {}
        """The newest figures by name, as observers see them."""
        self.status_s = -1.0
        """When observers were last told."""

    def moved(self, what: str, now: float) -> None:
        """Something moved: the watchdog starts to count again."""
        self.progress_s, self.progress_what = now, what

    def took_s(self, now: float) -> float:
        """Duration of a step that is reported now."""
        return max(1e-9, now - self.stepped_s)

    def stepped(self, generated: int, now: float) -> None:
        """A step was reported; `generated`: tokens that were generated until now."""
        self.step_seconds.append(self.took_s(now))
        self.stepped_s = now
        self.generated.append((now, generated))

    def tokens_per_s(self, generated: int, now: float) -> float:
        """Tokens that the samplers generated in a second, over the newest steps: two steps may share one round.

        `generated`: tokens that were generated until now, of the whole run.
        """
        then_s, then = self.generated[0]
        return (generated - then) / max(1e-9, now - then_s)

    def phase_began(self, now: float) -> None:
        """A phase began: durations are counted from here."""
        self.stepped_s = now
        self.step_seconds.clear()

    def ticked(self, now: float) -> float | None:
        """Time passed; returns the seconds since the last tick, None for the first."""
        before, self.ticked_s = self.ticked_s, now
        return None if before is None else now - before

    def slept(self, seconds: float) -> None:
        """The hub itself was frozen: that time does not count."""
        self.progress_s += seconds
        self.stepped_s += seconds

    def warned(self, of: tuple[str, float] | None) -> None:
        """The watchdog has warned of this; None: of nothing any more."""
        self.stalled = of

    def show(self, figures: dict[str, float]) -> None:
        """Replaces figures by name."""
        self.figures.update(figures)

    def told_observers(self, now: float) -> None:
        """Observers were told."""
        self.status_s = now


@dataclass(slots=True)
class Disk:
    """The room on the run's disk as it was last measured. A disk that runs full pauses the run before anything breaks.

    free < reserve           paused: no new prompt is issued, no demonstration admitted; live groups go on
    free >= 1.25 * reserve   the run goes on
    paused for `patience_s`  the run stops, and can be resumed when there is room
    """

    directory: str
    reserve_bytes: int
    patience_s: float
    free_bytes: int = -1
    """-1 before the first measurement."""
    journal_bytes: int = 0
    paused_since_s: float | None = None
    is_given_up: bool = False
    """The disk stayed full for longer than `patience_s`: the run stops for this reason."""

    @property
    def is_paused(self) -> bool:
        """Whether nothing new may begin."""
        return self.paused_since_s is not None

    def measured(self, free_bytes: int, journal_bytes: int, now: float) -> Literal["", "paused", "unpaused", "full"]:
        """Takes in a measurement; returns what changed with it."""
        self.free_bytes, self.journal_bytes = free_bytes, journal_bytes
        if self.paused_since_s is None:
            if free_bytes >= self.reserve_bytes:
                return ""
            self.paused_since_s = now
            return "paused"
        if free_bytes >= RESUME_AT * self.reserve_bytes:
            self.paused_since_s = None
            return "unpaused"
        self.is_given_up = now - self.paused_since_s > self.patience_s
        return "full" if self.is_given_up else ""

    def sentence(self) -> str:
        """What is wrong and what to do, with figures, in one sentence."""
        what = (
            f"{self.free_bytes / MIB:.0f} MiB are free for {self.directory}, less than replay.disk_reserve_mb = "
            f"{self.reserve_bytes // MIB}"
        )
        if self.is_given_up:
            return (
                f"{what}, for more than replay.stall_s = {self.patience_s:g} s: free some space, then the run goes "
                f"on: rlsp run --resume {self.directory}"
            )
        return (
            f"paused: {what}; free some space: at {RESUME_AT * self.reserve_bytes / MIB:.0f} MiB the run goes on, "
            f"after {self.patience_s:g} s it stops"
        )

    def figures(self) -> dict[str, float]:
        """Figures for a metrics row; empty before the first measurement."""
        if self.free_bytes < 0:
            return {}
        return {"disk_free_mb": round(self.free_bytes / MIB, 1), "journal_mb": round(self.journal_bytes / MIB, 2)}


# --- all of it -------------------------------------------------------------------------------------------------------


class Prompts(Protocol):
    """The part of a task that the hub needs."""

    name: str

    def size(self, split: Literal["train", "test"]) -> int | None:
        """Number of prompts of a split; None: endless."""

    def prompt(self, split: Literal["train", "test"], index: int) -> Prompt:
        """The prompt at a position of a split."""


class HubState:
    """Everything that an event may change."""

    def __init__(self, cfg: RunConfig, task: Prompts, content: JournalContent, now: float, vocabulary: int = 0) -> None:
        self.cfg, self.task = cfg, task
        self.vocabulary = vocabulary
        """Number of token ids of the run's model; 0: unknown."""
        environment = load_environment(cfg.task)
        self.max_turns = environment.max_turns if environment else 0
        """Most turns of a rollout; 0: the run has no environment."""
        self.jobs: dict[int, SampleJob] = {}
        """The newest jobs of issued groups, against which their rollouts are checked."""
        self.part_names: set[str] = set(KNOWN_PARTS)
        """Names of reward parts that verdicts keep."""
        self.prompt = functools.lru_cache(PROMPTS_KEPT)(task.prompt)
        """A group's prompt is made when it is issued, and again when its answer is checked."""
        self.plan = Plan(cfg)
        self.selections = {name: load_selection(stage, cfg.seed) for name, stage in cfg.stages.items()}
        """For each stage, which ready groups make the next batch."""
        self.policies = load_policies(cfg, task, content.policies)
        """The replay policies of the run."""
        self.selectors = _load_for_samplers(
            cfg, lambda stage: load_selector(stage.prompts, cfg.seed, task.size("train"))
        )
        """For each stage that samples, which prompt is issued next."""
        self.schedules = _load_for_samplers(
            cfg, lambda stage: load_schedule(stage.temperature, cfg.seed, cfg.sampling.temperature)
        )
        """For each stage that samples, at which temperature its rollouts are drawn."""
        for row in content.learnt:
            if row.what == "prompts":
                self.selectors[row.stage].restore(row.index, row.row)
            else:
                self.schedules[row.stage].restore(row.row)
        self.incarnation = content.incarnation
        self.table = WorkerTable(content.incarnation)
        self.disk = Disk(str(cfg.directory), cfg.replay.disk_reserve_mb * MIB, cfg.replay.stall_s)
        self.ledger = Ledger()
        self.ledger.restore(content.groups, content.totals, content.bodies, content.verdicts)
        self.counters = Counters(content.cursors)
        self.retries = Retries()
        self.queues = Queues(self.ledger, self.table, self.retries)
        self.training = Training(content, cfg.learner.keep_checkpoints)
        self.ending = Ending(now)
        self.pace = Pace(now)
        self.last_group_id = content.last_group_id
        self.evaluations = dict(content.evaluations)
        """Results of the finished evaluations by key."""
        self.num_starts = 0
        """The newest number of a start that was given out; 0: unknown."""
        self.num_duplicates = 0
        """Results that came again or too late."""
        self.refusals: Counter[str] = Counter()
        """What was refused, by kind."""
        self.phase: Phase | None = self.plan.at(self.training.step, self.evaluations)
        """What the run does now; None when it is complete."""
        self.phase_since_s = now
        self.reserve(now, everything=self.incarnation > 1)

    def numbered(self, num_starts: int) -> None:
        """The newest number that a start of this run has was read; 0: unknown. Larger ones are made up."""
        self.num_starts = num_starts

    # --- questions -----------------------------------------------------------------------------------------------

    @property
    def step(self) -> int:
        """Newest reported step."""
        return self.training.step

    @property
    def version(self) -> int:
        """Newest published version."""
        return self.training.version

    @property
    def stage(self) -> StageConfig | None:
        """The stage that trains now; None while evaluating or at the end."""
        return self.plan.stages[self.phase.stage] if self.phase and self.phase.kind == "train" else None

    # --- changes that belong to no owner -------------------------------------------------------------------------

    def next_group_id(self) -> int:
        """Ids are given once, in order."""
        self.last_group_id += 1
        return self.last_group_id

    def reserve(self, now: float, everything: bool = False) -> None:
        """Starts the grace period in which restored groups are not leased, so that the workers who held them before a
        restart of the hub can reclaim them."""
        self.queues.reserve(now + RESERVED_HEARTBEATS * self.cfg.replay.heartbeat_s, everything)

    def enter(self, phase: Phase | None, now: float) -> None:
        """The next phase begins; None: the run is complete."""
        self.phase, self.phase_since_s = phase, now
        self.pace.phase_began(now)
        self.pace.moved(f"{phase.key or phase.stage} began" if phase else "the last stage ended", now)

    def finish_evaluation(self, key: str, result: dict[str, Any]) -> None:
        """An evaluation is complete."""
        self.evaluations[key] = result

    def count_duplicate(self) -> None:
        """A result came again, or too late."""
        self.num_duplicates += 1

    def issued_job(self, job: SampleJob) -> None:
        """A job was made; the oldest one is forgotten when there are too many."""
        self.jobs[job.group_id] = job
        if len(self.jobs) > JOBS_KEPT:
            del self.jobs[next(iter(self.jobs))]

    def forget_job(self, group_id: int) -> None:
        """The rollouts of a group are stored."""
        self.jobs.pop(group_id, None)

    def knows_part(self, name: str) -> bool:
        """Whether verdicts keep the part of this name; a new name is taken in while there are few."""
        if name in self.part_names:
            return True
        is_fit = 0 < len(name) <= PART_CHARACTERS and name.isprintable()
        if is_fit and len(self.part_names) < PARTS_KEPT:
            self.part_names.add(name)
            return True
        return False

    def count_refusal(self, kind: str, num: int = 1) -> None:
        """Something of a message was refused: observers and the metrics rows see it as `refused.KIND`."""
        self.refusals[kind] += num
        self.pace.show({f"refused.{kind}": float(self.refusals[kind])})


def _load_for_samplers(cfg: RunConfig, load: Callable[[StageConfig], T]) -> dict[str, T]:
    """One object for each stage that samples. Raises what `load` raises: ConfigError, DataError."""
    return {name: load(stage) for name, stage in cfg.stages.items() if stage.source == "rollouts"}
