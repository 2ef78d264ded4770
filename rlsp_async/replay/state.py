"""What the hub knows, in one place, and what one event leads to. Pure: no clock, no socket, no file.

The modules that act on it: sampling_work, verify_work, train_work, evaluations (accept results, hand out work),
setbacks (budgets), watchdog, lines and status (what people see).
"""

from __future__ import annotations

import functools
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from rlsp_async.config import RunConfig, StageConfig, load_success_replay
from rlsp_async.messages import FromHub, NewWeights, Prompt, StepReport, VerifiedGroup, WeightsRef
from rlsp_async.prompts.base import PromptSelector, load_selector
from rlsp_async.replay.disk import MIB, Disk
from rlsp_async.replay.ledger import Ledger
from rlsp_async.replay.plan import Phase, Plan
from rlsp_async.replay.records import JournalContent, Learnt, Manifest, Record
from rlsp_async.replay.selection.base import load_selection
from rlsp_async.replay.spawn import Spawner, load_spawner
from rlsp_async.replay.success.memory import Memory
from rlsp_async.replay.workers import Worker, WorkerTable
from rlsp_async.temperatures.base import TemperatureSchedule, load_schedule

Ending = Literal["", "draining", "finished", "failed"]
MetricFile = Literal["metrics", "rollouts", "timeline", "evaluations"]

OUTCOMES_KEPT = 100
PROMPTS_KEPT = 4096
RESERVED_HEARTBEATS = 2.0
"""Within so many a worker finds out that its hub was restarted, and says what it holds."""


class Prompts(Protocol):
    """The part of a task that the hub needs."""

    name: str

    def size(self, split: Literal["train", "test"]) -> int | None: ...

    def prompt(self, split: Literal["train", "test"], index: int) -> Prompt: ...


class MetricRow(NamedTuple):
    """One row for one of the run's jsonl files; written after the commit."""

    file: MetricFile
    row: dict[str, Any]


@dataclass(slots=True)
class Effects:
    """What the shell does next, in this order: commit `records`, send `sends`, write `lines`, fetch `wants`."""

    records: list[Record] = field(default_factory=list)
    sends: list[tuple[bytes, FromHub]] = field(default_factory=list)
    lines: list[MetricRow] = field(default_factory=list)
    wants: list[int] = field(default_factory=list)
    """Steps whose batches the shell reads from the journal and hands to `Hub.restored`."""

    def extend(self, later: Effects) -> None:
        """What follows from a later event comes after, each kind in order."""
        self.records += later.records
        self.sends += later.sends
        self.lines += later.lines
        self.wants += later.wants


class HubState:
    """Everything that an event may change."""

    def __init__(self, cfg: RunConfig, task: Prompts, loaded: JournalContent, now: float) -> None:
        self.cfg = cfg
        self.task = task
        self.prompt = functools.lru_cache(PROMPTS_KEPT)(task.prompt)
        """A group's prompt is made when it is issued and again when its answer is checked."""
        self.plan = Plan(cfg)
        self.choices = {name: load_selection(stage, cfg.seed) for name, stage in cfg.stages.items()}
        self.success_replay = {name: load_success_replay(name, stage) for name, stage in cfg.stages.items()}
        self.memory = Memory(loaded.successes)
        """Successes by prompt, of stages with success replay."""
        self.selectors = _selectors(cfg, task, loaded.learnt)
        """Of each stage that samples: which prompt is issued next."""
        self.schedules = _schedules(cfg, loaded.learnt)
        """Of each stage that samples: at which temperature its rollouts are drawn."""
        self.spawners = _spawners(cfg, task)
        """Of each stage that spawns: which finished rollout is put to the model again."""
        self.incarnation = loaded.incarnation
        self.crew = WorkerTable(loaded.incarnation)
        self.disk = Disk(str(cfg.directory), cfg.replay.disk_reserve_mb * MIB, cfg.replay.stall_s)
        self.ledger = Ledger()
        self.ledger.restore(loaded.heads, loaded.totals, loaded.bodies, loaded.verdicts)
        self.cursors = dict(loaded.cursors)
        self.last_group_id = loaded.last_group_id
        self.evaluations = dict(loaded.evaluations)
        self._restore_steps(loaded)
        self.to_sample: deque[int] = deque(self._in_state("issued"))
        self.to_verify: deque[int] = deque(self._in_state("sampled"))
        self.to_train: deque[int] = deque()
        """Steps whose manifest is written and whose batch the learner must (again) be sent."""
        self.restored: dict[int, list[VerifiedGroup]] = {}
        """Batches of reported steps, read from the journal for a learner that was restarted."""
        self.wanted: set[int] = set()
        self.avoid: dict[int, str] = {}
        """Group -> the worker that failed on it: another one is tried, when there is one."""
        self.returns: Counter[int] = Counter()
        """Group -> times its lease was lost on the way or given back."""
        self.reserved: set[int] = set() if self.incarnation == 1 else {*self.to_sample, *self.to_verify}
        """Restored groups that a worker may still have in its hands: not leased anew before `reserved_until_s`."""
        self.reserve_from(now)
        self.killed: dict[int, set[tuple[str, int]]] = {}
        """Group -> (worker, incarnation) of those that died with it: one that freezes twice is one."""
        self.outcomes: deque[bool] = deque(maxlen=OUTCOMES_KEPT)
        """Of the newest groups: True for ready, False for dropped because something failed."""
        self.train_failures = 0
        self.learner_step = 0
        """Newest step in the learner's weights, as far as it has said."""
        self.repeats: Counter[int] = Counter()
        """Step -> times that a restarted learner has trained it again."""
        self.num_duplicates = 0
        self.ending: Ending = ""
        self.stopped = False
        """Somebody stopped the run before it was complete."""
        self.over = False
        self.ending_since_s = now
        self.message = ""
        self.last_error = ""
        self.progress_s = now
        self.progress_what = "the hub started"
        self.stalled: tuple[str, float] | None = None
        """What the watchdog has warned of, and since when that has been so."""
        self.ticked_s: float | None = None
        """Newest tick; None before the first."""
        self.stepped_s = now
        self.step_seconds: deque[float] = deque(maxlen=16)
        self.generated_then = 0
        self.metrics: dict[str, float] = {}
        self.status_s = -1.0
        self.phase: Phase | None = self.plan.at(self.step, self.evaluations)
        self.phase_since_s = now

    def _restore_steps(self, loaded: JournalContent) -> None:
        self.step = loaded.reports[-1].step if loaded.reports else 0
        """Newest reported step."""
        self.reported: dict[int, StepReport] = {report.step: report for report in loaded.reports}
        """First reports of steps that a restarted learner may train again, as far as they are remembered."""
        self.manifests: dict[int, Manifest] = {manifest.step: manifest for manifest in loaded.manifests}
        self.last_manifest = max(self.manifests, default=self.step)
        kept = self.cfg.learner.keep_checkpoints
        self.checkpoints: list[int] = sorted({report.checkpoint for report in loaded.reports})[-kept:]
        self.published: StepReport | None = loaded.published

    def _in_state(self, state: str) -> list[int]:
        return sorted(head.group_id for head in self.ledger.heads.values() if head.state == state)

    # --- small questions -----------------------------------------------------------------------------------------

    @property
    def weights(self) -> WeightsRef | None:
        """The newest published weights; None: samplers serve what they started from, version 0."""
        return self.published.weights if self.published else None

    @property
    def version(self) -> int:
        """Newest published version."""
        return self.weights.version if self.weights else 0

    @property
    def stage(self) -> StageConfig | None:
        """The stage that trains now; None while evaluating or at the end."""
        return self.plan.stages[self.phase.stage] if self.phase and self.phase.kind == "train" else None

    def next_group_id(self) -> int:
        """Ids are given once, in order."""
        self.last_group_id += 1
        return self.last_group_id

    def moved(self, what: str, now: float) -> None:
        """Something moved: the watchdog starts to count again."""
        self.progress_s, self.progress_what = now, what

    def announce(self, out: Effects, now: float) -> None:
        """Tells every sampler of the newest version."""
        for worker in self.crew.of("sampler"):
            worker.rejections = 0
            self.tell(out, worker, now)

    def tell(self, out: Effects, worker: Worker, now: float) -> None:
        """Tells one sampler of the newest version."""
        if self.weights is not None:
            worker.offered_s = now
            out.sends.append((worker.peer, NewWeights(weights=self.weights)))

    def forget(self, group_id: int) -> None:
        """A group has gone on: what went wrong with it before is over."""
        for table in (self.avoid, self.returns, self.killed):
            table.pop(group_id, None)

    def reserve_from(self, now: float) -> None:
        """The hub can be heard from now on."""
        self.reserved_until_s = now + RESERVED_HEARTBEATS * self.cfg.replay.heartbeat_s

    def pop_for(self, queue: deque[int], worker: Worker, state: str) -> int | None:
        """The next group of a queue for this worker: still in `state`, and not one it failed on if others are there."""
        alone = self.crew.num(worker.role) < 2
        for _ in range(len(queue)):
            group_id = queue.popleft()
            head = self.ledger.heads.get(group_id)
            if head is None or head.state != state or self._held(group_id):
                continue
            if (alone or self.avoid.get(group_id) != worker.name) and group_id not in self.reserved:
                return group_id
            queue.append(group_id)
        return None

    def _held(self, group_id: int) -> bool:
        return ("sample", group_id) in self.crew.holders or ("verify", group_id) in self.crew.holders


def _selectors(cfg: RunConfig, task: Prompts, learnt: list[Learnt]) -> dict[str, PromptSelector]:
    """Of each stage that samples, with what it had learnt. Raises ConfigError, DataError."""
    selectors = {
        name: load_selector(stage.prompts, cfg.seed, task.size("train"))
        for name, stage in cfg.stages.items()
        if stage.source == "rollouts"
    }
    for row in learnt:
        if row.what == "prompts":
            selectors[row.stage].restore(row.place, row.row)
    return selectors


def _schedules(cfg: RunConfig, learnt: list[Learnt]) -> dict[str, TemperatureSchedule]:
    """Of each stage that samples, with what it had learnt. Raises ConfigError, DataError."""
    schedules = {
        name: load_schedule(stage.temperature, cfg.seed, cfg.sampling.temperature)
        for name, stage in cfg.stages.items()
        if stage.source == "rollouts"
    }
    for row in learnt:
        if row.what == "temperature":
            schedules[row.stage].restore(row.row)
    return schedules


def _spawners(cfg: RunConfig, task: Prompts) -> dict[str, Spawner]:
    found = {name: load_spawner(stage, task, cfg.seed) for name, stage in cfg.stages.items()}
    return {name: spawner for name, spawner in found.items() if spawner is not None}
