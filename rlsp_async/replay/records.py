"""What the ledger knows of a group without its tokens, and what it writes down: heads and records.

A group's way (verdicts are skipped by demonstrations, training by evaluation groups):

    issued -> sampled -> ready -> training -> trained
                           ^          |           (max_uses > 1: back to ready)
                           +----------+
    from anywhere -> dropped(reason); an evaluation group ends as evaluated instead of trained

Whether a group is leased is not part of its state: leases die with the hub, states do not.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from rlsp_async.messages import Prompt, Provenance, Purpose, Rollout, RolloutGroup, StepReport, Verdict

State = Literal["issued", "sampled", "ready", "training", "trained", "evaluated", "dropped"]
Reason = Literal["", "stale", "truncated", "sampler_error", "verifier_error", "quarantined", "stage_end", "no_signal"]

DEAD: frozenset[State] = frozenset({"trained", "evaluated", "dropped"})
FAILURES: frozenset[Reason] = frozenset({"sampler_error", "verifier_error", "quarantined"})


class GroupRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One group. Example: Head(group_id=7, stage="rlsp", state="ready", num_tokens=512, oldest=1003)."""

    group_id: int
    stage: str
    purpose: Purpose = "train"
    provenance: Provenance = "rollout"
    evaluation: str = ""
    """Key of the evaluation it belongs to, e.g. "before rlsp"; empty for training."""
    split: str = "train"
    index: int = 0
    """Position of its prompt in the split; the prompt of an issued group is made again from it."""
    visit: int = 0
    state: State = "issued"
    reason: Reason = ""
    """Why it was dropped."""
    num_tokens: int = 0
    """Response tokens of all its rollouts."""
    num_wasted_tokens: int = 0
    """Response tokens of earlier attempts that were thrown away."""
    num_rollouts: int = 0
    """Rollouts in its body; 0 before there is one."""
    num_verdicts: int = 0
    """True verdicts (correct, wrong, unparsable) it carries."""
    num_correct: int = -1
    """Verdicts `correct`; -1: nobody judged it."""
    has_signal: bool = False
    """Two of its rollouts can have earned differently, by outcome or by exploration (`outcomes.has_signal`)."""
    propensity: float = 1.0
    """Probability with which its prompt was drawn, relative to uniform."""
    temperature: float = 0.0
    """At which its rollouts are drawn; 0: sampling.temperature (evaluations, demonstrations)."""
    parent: str = ""
    """Of a child (`spawn.py`): the rollout it was spawned from, "group/index". `index` and `visit` are its parent's."""
    parent_oldest: int = -1
    """Version of its parent's oldest token."""
    prompt: Prompt | None = None
    """Of a child that is not sampled yet: its prompt, which cannot be made again once its parent's tokens are gone."""
    num_children: int = 0
    """Children that were spawned from its rollouts."""
    why: str = ""
    """Of a group dropped for a failure: the last thing that went wrong."""
    oldest: int = -1
    """Version that sampled its oldest token; -1 for a demonstration."""
    newest: int = -1
    uses: int = 0
    """Batches it is part of, charged when the manifest is written."""
    step: int = 0
    """Newest batch it is part of."""
    order: int = 0
    """Place in the ready queue: smaller came first."""
    lost: int = 0
    """Leases lost to infrastructure (a worker that died or failed)."""
    deaths: int = 0
    """Workers that died with it in their hands; three are one too many."""
    faults: int = 0
    """Leases that failed because of the group itself, and verdicts that were no verdicts."""
    issued_s: float = 0.0
    sampled_s: float = 0.0
    ready_s: float = 0.0
    """Seconds of the run."""


class Success(msgspec.Struct, frozen=True, kw_only=True):
    """A correct rollout that is remembered for its prompt, without its tokens."""

    group_id: int
    rollout: int
    """Its index in its group."""
    stage: str
    place: int
    """Position of its prompt in the training split."""
    oldest: int
    """Version that sampled its oldest token."""
    since: int
    """Step of the batch it was learnt from; later batches may hold it again."""
    order: int
    """Among those of the same step: smaller came first."""
    uses: int = 0
    """Failed rollouts it stood in for, charged when the manifest is written."""
    step: int = 0
    """Newest batch in which it did."""
    kept: bool = True
    """False: it is drawn no more; its tokens stay while a learner may be sent that batch again."""

    @property
    def key(self) -> tuple[int, int]:
        """(group, index) of the rollout."""
        return self.group_id, self.rollout


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout with its verdict."""

    rollout: Rollout
    verdict: Verdict


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """In a batch: rollout `rollout` of group `group_id` gave its place to a success. Example: 0 of 31 to 5 of 12."""

    group_id: int
    rollout: int
    source_group: int
    source_rollout: int
    uses: int
    """Of the success, with this one charged."""

    @property
    def source(self) -> tuple[int, int]:
        """Key of the success."""
        return self.source_group, self.source_rollout


# --- records: what the journal stores, in the order it is given ------------------------------------------------------


class Put(msgspec.Struct, frozen=True, kw_only=True):
    """The head of a group as it is now; body and verdicts when they have just come."""

    head: GroupRecord
    body: RolloutGroup | None = None
    verdicts: list[Verdict] | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The groups of one step, in order. Written before the batch leaves; never changed."""

    step: int
    stage: str
    stage_step: int
    groups: list[int]
    last_of_stage: bool = False
    oldest: list[int] = []
    """Of each group, the version of its oldest token when it was chosen; -1 for a demonstration."""
    uses: list[int] = []
    """Of each group, its uses with this one charged."""
    propensities: list[float] = []
    """Of each group, the probability with which it was drawn from those that were ready, relative to uniform."""
    replayed: list[Replayed] = []
    """Rollouts that gave their places to remembered successes of their prompts."""
    incarnation: int = 0
    """Of the hub that chose."""
    at_s: float = 0.0
    """Seconds of the run."""


class Remember(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a success now; its body when it has just become one."""

    success: Success
    body: Judged | None = None


class Stepped(msgspec.Struct, frozen=True, kw_only=True):
    """The learner reported a step."""

    report: StepReport
    stage: str
    at_s: float = 0.0
    forget_to: int = 0
    """No kept checkpoint needs the bodies of groups that were last trained at this step or before."""


class Repeated(msgspec.Struct, frozen=True, kw_only=True):
    """A step that had been reported before was trained again, by a learner that was restarted."""

    report: StepReport
    at_s: float = 0.0


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """The learner made the weights of an old step again (it was restarted): this reference replaces the old one."""

    report: StepReport


class Evaluated(msgspec.Struct, frozen=True, kw_only=True):
    """An evaluation is complete."""

    key: str
    result: dict[str, Any]


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """A counter that must not start again, e.g. "train": prompts issued; "learner": its incarnation."""

    name: str
    value: int


class Learnt(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy of a stage knows now: its prompt selection of one prompt, or its schedule of temperatures."""

    stage: str
    place: int
    """Of the prompt in its split; 0 for temperatures."""
    row: bytes
    what: Literal["prompts", "temperature"] = "prompts"


EventKind = Literal[
    "hub_start",
    "joined",
    "gone",
    "lease_lost",
    "fenced",
    "quarantined",
    "dropped_late",
    "paused",
    "unpaused",
    "stalled",
    "failed",
    "stopped",
    "finished",
]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to the run: history, from which nothing is rebuilt."""

    kind: EventKind
    at_s: float
    worker: str = ""
    key: int = 0
    """Group id, step or incarnation: what the kind is about."""
    detail: str = ""


Record = Put | Manifest | Remember | Stepped | Repeated | Published | Evaluated | Cursor | Learnt | Event


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """Dead groups of one kind, added up: all that is kept of them in memory."""

    purpose: Purpose
    provenance: Provenance
    state: State
    reason: Reason
    num_groups: int
    num_tokens: int
    num_wasted_tokens: int


class JournalContent(msgspec.Struct, kw_only=True):
    """What a journal gives back after a restart."""

    incarnation: int
    """Of this start of the hub: 1, 2, ..."""
    created: float = 0.0
    """Wall time (seconds since 1970) at which the run began."""
    heads: list[GroupRecord] = []
    """Live groups."""
    bodies: dict[int, RolloutGroup] = {}
    verdicts: dict[int, list[Verdict]] = {}
    totals: list[Total] = []
    manifests: list[Manifest] = []
    """Those that a restarted learner may need again, and all that are not reported."""
    reports: list[StepReport] = []
    """Newest last: the last step, and the checkpoints that may still be kept."""
    published: StepReport | None = None
    """Newest one with weights."""
    evaluations: dict[str, dict[str, Any]] = {}
    cursors: dict[str, int] = {}
    learnt: list[Learnt] = []
    successes: list[Remember] = []
    """Those that are kept, and those that stand in a batch which is not reported."""
    last_group_id: int = 0
