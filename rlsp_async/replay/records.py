"""What the hub writes down: the records of the journal, and what a journal gives back after a restart.

A group is a prompt with all its rollouts. Its `GroupRecord` is everything that is known of it except its tokens; the
tokens themselves are its *body*. A group passes through these states (demonstrations skip sampling and verifying,
evaluation groups skip training):

    issued -> sampled -> ready -> training -> trained
                           ^          |           (max_uses > 1: back to ready)
                           +----------+
    from every state -> dropped(reason); an evaluation group ends as evaluated instead of trained

Whether a group is leased to a worker is not part of its state: leases end with the process of the hub, states do not.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import msgspec

from rlsp_async.messages import Prompt, Provenance, Purpose, Rollout, RolloutGroup, StepReport, Verdict

State = Literal["issued", "sampled", "ready", "training", "trained", "evaluated", "dropped"]
Reason = Literal["", "stale", "truncated", "sampler_error", "verifier_error", "quarantined", "stage_end", "no_signal"]

RolloutKey = tuple[int, int]
"""(group, index) of a rollout."""

DEAD: frozenset[State] = frozenset({"trained", "evaluated", "dropped"})
FAILURES: frozenset[Reason] = frozenset({"sampler_error", "verifier_error", "quarantined"})


class GroupRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one group. Example: GroupRecord(group_id=7, stage="rlsp", state="ready", num_tokens=512)."""

    group_id: int
    stage: str
    purpose: Purpose = "train"
    provenance: Provenance = "rollout"
    evaluation: str = ""
    """Key of the evaluation that the group belongs to, e.g. "before rlsp"; empty for training."""
    split: str = "train"
    index: int = 0
    """Position of the prompt in the split; the prompt of an issued group is made again from it."""
    visit: int = 0
    """How often the prompt had been issued before."""
    state: State = "issued"
    reason: Reason = ""
    """Why the group was dropped."""
    num_tokens: int = 0
    """Response tokens of all its rollouts."""
    num_wasted_tokens: int = 0
    """Response tokens of earlier attempts that were discarded."""
    num_rollouts: int = 0
    """Rollouts in its body; 0 while it has none."""
    num_verdicts: int = 0
    """Verdicts on the answer (correct, wrong, unparsable) that it carries."""
    num_correct: int = -1
    """Verdicts `correct`; -1 when nothing was verified."""
    has_signal: bool = False
    """Whether two of its rollouts can have earned different rewards, by outcome or by exploration
    (`verify.has_signal`)."""
    propensity: float = 1.0
    """Probability with which its prompt was drawn, relative to uniform."""
    temperature: float = 0.0
    """Temperature at which its rollouts are drawn; 0: sampling.temperature (evaluations, demonstrations)."""
    parent: str = ""
    """The rollout that the prompt was spawned from (`spawn.py`), as "group/index"; `index` and `visit` are then those
    of the parent. Empty for a group that was not spawned."""
    parent_oldest: int = -1
    """Version of the parent's oldest token."""
    prompt: Prompt | None = None
    """The prompt of a spawned group that is not sampled yet: it cannot be made again once the parent's tokens are
    deleted."""
    num_children: int = 0
    """Groups that were spawned from its rollouts."""
    why: str = ""
    """The last failure of a group that was dropped for failures."""
    oldest: int = -1
    """Version that sampled its oldest token; -1 for a demonstration."""
    newest: int = -1
    """Version that sampled its newest token."""
    uses: int = 0
    """Batches that it is part of, charged when the manifest is written."""
    step: int = 0
    """Newest batch that it is part of."""
    order: int = 0
    """Position in the ready queue; smaller came first."""
    lost: int = 0
    """Leases that ended because a worker or its engine failed."""
    deaths: int = 0
    """Distinct workers that died while they held the group."""
    faults: int = 0
    """Leases that failed because of the group itself, and verdicts that were not verdicts on the answer."""
    issued_s: float = 0.0
    """When it was issued, in seconds of the run."""
    sampled_s: float = 0.0
    """When its rollouts came, in seconds of the run."""
    ready_s: float = 0.0
    """When it became ready, in seconds of the run."""


class Success(msgspec.Struct, frozen=True, kw_only=True):
    """A correct rollout that success replay remembers for its prompt, without its tokens."""

    group_id: int
    rollout: int
    """Index of the rollout in its group."""
    stage: str
    index: int = msgspec.field(name="place")
    """Position of its prompt in the training split."""
    oldest: int
    """Version that sampled its oldest token."""
    since: int
    """Step of the batch that it was learnt from; only later batches may use it."""
    order: int
    """Position among the successes of the same step; smaller came first."""
    uses: int = 0
    """Failed rollouts that it replaced, charged when the manifest is written."""
    step: int = 0
    """Newest batch in which it replaced a rollout."""
    kept: bool = True
    """False: it is not drawn any more; its tokens stay while a learner may be sent that batch again."""

    @property
    def key(self) -> RolloutKey:
        """(group, index) of the rollout."""
        return self.group_id, self.rollout


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout with its verdict."""

    rollout: Rollout
    verdict: Verdict


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """One replacement in a batch: rollout `rollout` of group `group_id` gave its place to a success.

    Example: rollout 0 of group 31 is replaced by rollout 5 of group 12.
    """

    group_id: int
    rollout: int
    source_group: int
    source_rollout: int
    uses: int
    """Uses of the success, this one included."""

    @property
    def source(self) -> RolloutKey:
        """Key of the success."""
        return self.source_group, self.source_rollout


# --- records: what the journal stores, in the order in which it is given ----------------------------------------------


class Put(msgspec.Struct, frozen=True, kw_only=True):
    """The newest state of a group; with its body and its verdicts when they have just come."""

    record: GroupRecord
    body: RolloutGroup | None = None
    verdicts: list[Verdict] | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The groups of one step, in order. Written before the batch is sent; changed by an `Amended` only."""

    step: int
    stage: str
    stage_step: int
    groups: list[int]
    last_of_stage: bool = False
    oldest: list[int] = []
    """For each group, the version of its oldest token when it was chosen; -1 for a demonstration."""
    uses: list[int] = []
    """For each group, its uses, this one included."""
    propensities: list[float] = []
    """For each group, the probability with which it was drawn from those that were ready, relative to uniform."""
    replayed: list[Replayed] = []
    """Rollouts that gave their places to remembered successes of their prompts."""
    incarnation: int = 0
    """Incarnation of the hub that chose the batch."""
    at_s: float = 0.0
    """When it was chosen, in seconds of the run."""


class Amended(msgspec.Struct, frozen=True, kw_only=True):
    """A decision about a batch that the learner cannot train: it goes on without some of its groups.

    The batch as it was first chosen stays in the journal beside the new one.
    """

    manifest: Manifest
    """The batch without those groups, in the same order."""
    groups: list[int]
    """The groups that were taken out."""
    why: str
    at_s: float = 0.0


class Remember(msgspec.Struct, frozen=True, kw_only=True):
    """The newest state of a success; with its body when it has just become one."""

    success: Success
    body: Judged | None = None


class Stepped(msgspec.Struct, frozen=True, kw_only=True):
    """The learner reported a step for the first time."""

    report: StepReport
    stage: str
    at_s: float = 0.0
    forget_to: int = 0
    """No kept checkpoint needs the bodies of groups that were last trained at this step or before."""


class Repeated(msgspec.Struct, frozen=True, kw_only=True):
    """A restarted learner trained a step again that had been reported before."""

    report: StepReport
    at_s: float = 0.0


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """A restarted learner published the weights of an old step again: this reference replaces the old one."""

    report: StepReport


class Evaluated(msgspec.Struct, frozen=True, kw_only=True):
    """An evaluation is complete."""

    key: str
    result: dict[str, Any]


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """A counter that must not start again, e.g. "train": prompts issued; "learner": newest incarnation of the
    learner."""

    name: str
    value: int


class Learnt(msgspec.Struct, frozen=True, kw_only=True):
    """What a stage's prompt selection has learnt about one prompt, or what its temperature schedule has learnt."""

    stage: str
    index: int
    """Position of the prompt in its split; 0 for temperatures."""
    row: bytes
    what: Literal["prompts", "temperature"] = "prompts"


EventKind = Literal[
    "hub_start",
    "joined",
    "gone",
    "lease_lost",
    "fenced",
    "refused",
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
    """Something that happened to the run. Events are history; no state is rebuilt from them."""

    kind: EventKind
    at_s: float
    worker: str = ""
    key: int = 0
    """Group id, step or incarnation, depending on the kind."""
    detail: str = ""


Record = Put | Manifest | Amended | Remember | Stepped | Repeated | Published | Evaluated | Cursor | Learnt | Event


def without_groups(manifest: Manifest, groups: Collection[int]) -> Manifest:
    """A batch without some of its groups; what is known of the others stays."""
    kept = [place for place, group_id in enumerate(manifest.groups) if group_id not in groups]

    def some(column: list[Any]) -> list[Any]:
        return [column[place] for place in kept if place < len(column)]

    return msgspec.structs.replace(
        manifest,
        groups=some(manifest.groups),
        oldest=some(manifest.oldest),
        uses=some(manifest.uses),
        propensities=some(manifest.propensities),
        replayed=[one for one in manifest.replayed if one.group_id not in groups],
    )


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """The sums over the dead groups of one kind: all that stays of them in memory."""

    purpose: Purpose
    provenance: Provenance
    state: State
    reason: Reason
    num_groups: int
    num_tokens: int
    num_wasted_tokens: int


class JournalContent(msgspec.Struct, kw_only=True):
    """What a journal gives back after a restart of the hub."""

    incarnation: int
    """Incarnation of this start of the hub: 1, 2, ..."""
    created: float = 0.0
    """Wall time (seconds since 1970) at which the run began; for people."""
    zero_s: float = 0.0
    """What the machine's monotonic clock showed, or would have shown, when the run's own clock was at 0."""
    groups: list[GroupRecord] = []
    """Live groups."""
    bodies: dict[int, RolloutGroup] = {}
    verdicts: dict[int, list[Verdict]] = {}
    totals: list[Total] = []
    manifests: list[Manifest] = []
    """Those that a restarted learner may need again, and all that are not reported."""
    reports: list[StepReport] = []
    """The newest step and the checkpoints that may still be kept, newest last."""
    published: StepReport | None = None
    """Newest report with weights."""
    evaluations: dict[str, dict[str, Any]] = {}
    cursors: dict[str, int] = {}
    learnt: list[Learnt] = []
    policies: dict[str, list[Any]] = {}
    """For each replay policy that stores records of its own, the records that it needs after a restart."""
    last_group_id: int = 0
