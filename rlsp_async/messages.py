"""Every noun of the line and every message on the wire, in the order in which they travel.

    Prompt -> RolloutGroup -> VerifiedGroup -> Batch -> WeightsRef          nouns
    Hello, Ping, Done, Failed, Loaded, Rejected, Bye                        worker -> hub
    Welcome, Pong, Work, Ack, Revoke, NewWeights, Drain, Refuse, Status     hub -> worker

Maps on the wire (never arrays), so fields may be added with a default and are skipped by older readers; no field
changes its type or meaning. Columns are raw bytes (`columns.py`); T is the number of response tokens, P of prompt
tokens. `proto/README.md` is the same contract for other languages.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

PROTOCOL = 1

IntColumn = Annotated[bytes, msgspec.Meta(extra_json_schema={"x-column": "<i4"})]
FloatColumn = Annotated[bytes, msgspec.Meta(extra_json_schema={"x-column": "<f4"})]

Role = Literal["sampler", "verifier", "learner", "observer"]
Provenance = Literal["rollout", "demonstration"]
Purpose = Literal["train", "evaluate"]
Finish = Literal["stop", "length", "abort"]
VerdictStatus = Literal["correct", "wrong", "unparsable", "timeout", "error"]


class Noun(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every noun: immutable, built by name."""


BY_SPAWN = "spawn"
"""`Prompt.selector` of a prompt that shows the model a response of its own."""


# --- nouns ---------------------------------------------------------------------------------------------------------


class Prompt(Noun, frozen=True, kw_only=True):
    """One question. Example: Prompt(prompt_id="ops/train/17", task="ops", text="1 1 3 4 -> 7 <think>", answer="7")."""

    prompt_id: str
    """Unique in the run; the same question has the same id each time it is visited."""
    task: str
    text: str
    """What the model sees, before the chat template."""
    answer: str
    """The reference answer, as the task's verifier reads it."""
    index: int = 0
    """Position in its split: `task.prompt(split, index)` makes it again."""
    visit: int = 0
    """How often this prompt had been issued before."""
    chat: bool = False
    """True: `text` is a user message and the tokenizer's chat template is applied."""
    system: str = ""
    """System message for the chat template; empty means none."""
    source: str = ""
    """File or generator it came from."""
    selector: str = "uniform"
    """Which prompt selection drew it."""
    propensity: float = 1.0
    """Probability with which that selection drew it, relative to uniform (1.0)."""


class Sampling(Noun, frozen=True, kw_only=True):
    """How rollouts are drawn. Behaviour log-probs are those of the distribution at this temperature."""

    temperature: float = 1.0
    max_new_tokens: int = 256
    rollouts: int = 8
    """Rollouts of one prompt: the group size G."""
    seed: int = 0


class Rollout(Noun, frozen=True, kw_only=True):
    """One completion of T tokens (the end-of-sequence token included when the model produced it)."""

    index: int
    """0..G-1 within its group."""
    token_ids: IntColumn
    """[T] sampled ids; never made again from text."""
    logprobs: FloatColumn
    """[T] behaviour log-probs at the sampling temperature. Zeros for a demonstration (no policy sampled it)."""
    versions: IntColumn
    """[T] policy version that sampled each token; -1 for a demonstration."""
    text: str
    """The response as text, without end-of-sequence and padding; what the verifier reads."""
    finish: Finish = "stop"
    parent: str = ""
    """Rollout it was spawned from ("group/index"); empty for a root."""
    root: str = ""
    """Root of its tree; empty for a root."""
    depth: int = 0
    """Branch depth in its tree."""
    step_offsets: IntColumn = b""
    """Token offsets at which reasoning steps begin; empty when the task has no notion of a step."""
    replayed_from: str = ""
    """In a batch: it stands in for a failed rollout of its group and was drawn for another one, "group/index" (success
    replay). It counts in no accuracy. Empty for all others, and never said by a sampler."""
    sampler: str = ""
    """Worker that sampled it."""
    seconds: float = 0.0
    """Wall seconds from submission to the last token."""


class RolloutGroup(Noun, frozen=True, kw_only=True):
    """The G rollouts of one prompt: the unit that is leased, journalled, verified and trained as a whole."""

    group_id: int
    prompt: Prompt
    prompt_ids: IntColumn
    """[P] prompt tokens after the chat template."""
    sampling: Sampling
    rollouts: list[Rollout]
    provenance: Provenance = "rollout"
    purpose: Purpose = "train"
    stage: str = ""


class Verdict(Noun, frozen=True, kw_only=True):
    """What a verifier says of one rollout. Only correct, wrong and unparsable are verdicts on the *answer*;
    timeout and error are verdicts on the *verifier* and never become reward."""

    status: VerdictStatus
    parts: dict[str, float] = {}
    """Named reward parts, never summed here; "correct" is 0 or 1; e.g. {"correct": 1.0, "search_steps": 3.0}."""
    extracted: str = ""
    """The answer that was found in the response."""
    detail: str = ""
    """Reason of a timeout or an error."""
    milliseconds: float = 0.0
    verifier: str = ""
    """Name and version, e.g. "ops/1"."""

    @property
    def is_true(self) -> bool:
        """Whether it may train."""
        return self.status in ("correct", "wrong", "unparsable")


class VerifiedGroup(Noun, frozen=True, kw_only=True):
    """A group with one verdict a rollout; `verdicts` is empty for demonstrations, which nobody verifies."""

    group: RolloutGroup
    verdicts: list[Verdict] = []


class Batch(Noun, frozen=True, kw_only=True):
    """The groups of one optimizer step, in the order of the manifest. Step s makes version s."""

    stage: str
    step: int
    groups: list[VerifiedGroup]
    last_of_stage: bool = False
    """The learner publishes and checkpoints after this one whatever its rhythm."""
    stage_step: int = 1
    """1-based step within the stage."""


class Probe(Noun, frozen=True, kw_only=True):
    """A fixed sequence and the log-probs (temperature 1) that the published weights give it: [N] ids, [N-1] floats."""

    ids: IntColumn
    logprobs: FloatColumn


class WeightsRef(Noun, frozen=True, kw_only=True):
    """Where the weights of a version are, and how to know that they arrived. Example: version=1001,
    uri="file:///dev/shm/rlsp-demo/v001001.safetensors", digest="sha256:ab12..."."""

    version: int
    uri: str
    digest: str
    num_bytes: int
    probe: Probe
    incarnation: int = 0
    """Of the learner that made it."""


class StepReport(Noun, frozen=True, kw_only=True):
    """What the learner says after a step: figures, and the weights if this step was published."""

    step: int
    metrics: dict[str, float] = {}
    weights: WeightsRef | None = None
    incarnation: int = 0
    """Of the learner that trained it."""
    checkpoint: int = 0
    """Newest step whose checkpoint is complete on disk."""


class VerdictSet(Noun, frozen=True, kw_only=True):
    """Verdicts of one group, in rollout order."""

    group_id: int
    verdicts: list[Verdict]


# --- work ----------------------------------------------------------------------------------------------------------


class SampleJob(Noun, frozen=True, kw_only=True, tag="sample"):
    """Sample `sampling.rollouts` completions of one prompt."""

    group_id: int
    prompt: Prompt
    sampling: Sampling
    purpose: Purpose = "train"
    stage: str = ""


class VerifyItem(Noun, frozen=True, kw_only=True):
    """One response to be judged."""

    prompt: str
    response: str
    answer: str


class VerifyJob(Noun, frozen=True, kw_only=True, tag="verify"):
    """Judge every response of one group."""

    group_id: int
    task: str
    items: list[VerifyItem]


class TrainJob(Noun, frozen=True, kw_only=True, tag="train"):
    """Train one batch; a repeat of a step that is already in the weights is answered, not trained again."""

    batch: Batch


Job = SampleJob | VerifyJob | TrainJob


# --- worker -> hub -------------------------------------------------------------------------------------------------


class Hello(Noun, frozen=True, kw_only=True, tag="hello"):
    """First message of a connection, and again after every reconnect."""

    run: str
    role: Role
    worker: str
    """Name, unique in the run, e.g. "sampler-0"."""
    credit: int
    """How many leases it will hold at once; the hub never exceeds it."""
    proto: int = PROTOCOL
    incarnation: int = 0
    """Rises with each start of this worker; an older one is fenced off."""
    step: int = -1
    """Learner: newest step in its weights (0 = none trained). Others: -1."""
    leases: list[int] = []
    """Leases it still works on after a reconnect."""
    holding: dict[int, int] = {}
    """The same leases, each with its group id (learner: step): a hub that was restarted takes them up again."""
    seq: int = 0
    """Counts the Hellos of this start: an older one that comes late is passed over."""
    info: dict[str, str] = {}
    """For people: engine, device, host, pid."""


class Ping(Noun, frozen=True, kw_only=True, tag="ping"):
    """Application heartbeat, sent by the event loop that does the work."""

    state: str = "working"
    """working | waiting_credit | waiting_work | loading | draining; the hub's Status says waiting_credit, too, of a
    sampler that has nothing to do because every slot is taken."""
    seq: int = 0
    """Counts the Pings of this start."""
    leases: list[int] = []
    """Every lease it holds, running or not yet acknowledged. What the hub gave and it does not name was lost on the
    way; what it names and the hub does not know is void."""
    version: int = -1
    """Sampler: the version it serves. Others, and a sampler that serves none: -1."""
    made_by: int = 0
    """Incarnation of the learner that made that version."""
    busy_s: float = 0.0
    """Seconds busy since the last ping."""
    window_s: float = 0.0
    """Seconds since the last ping."""
    metrics: dict[str, float] = {}
    """Figures since the last ping, e.g. {"tokens": 5120}."""


class Done(Noun, frozen=True, kw_only=True, tag="done"):
    """Result of a lease. Sent again after a reconnect until the Ack arrives."""

    lease: int
    groups: list[RolloutGroup] = []
    verdicts: list[VerdictSet] = []
    steps: list[StepReport] = []


class Failed(Noun, frozen=True, kw_only=True, tag="failed"):
    """A lease that was not worked: `infrastructure` is tried elsewhere, `data` counts against the group, `returned`
    against nothing (its worker leaves, or holds enough)."""

    lease: int
    kind: Literal["infrastructure", "data", "returned"]
    error: str


class Loaded(Noun, frozen=True, kw_only=True, tag="loaded"):
    """A sampler serves this version: digest right, probe within tolerance."""

    version: int
    seconds: float
    probe_error: float
    """Largest absolute difference of the probe's log-probs."""


class Rejected(Noun, frozen=True, kw_only=True, tag="rejected"):
    """A sampler refuses a version and serves nothing until a good one comes."""

    version: int
    reason: str


class Bye(Noun, frozen=True, kw_only=True, tag="bye"):
    """Drained: it holds no lease and goes."""

    reason: str = ""


FromWorker = Hello | Ping | Done | Failed | Loaded | Rejected | Bye


# --- hub -> worker -------------------------------------------------------------------------------------------------


class Welcome(Noun, frozen=True, kw_only=True, tag="welcome"):
    """Answer to Hello. A worker stops working on the leases that are not in `leases`."""

    run: str
    incarnation: int
    """Of the hub; rises with each start."""
    heartbeat_s: float
    timeout_s: float
    weights: WeightsRef | None = None
    leases: list[int] = []
    seq: int = 0
    """Of the Hello that it answers: another one's answer comes late and is passed over."""


class Pong(Noun, frozen=True, kw_only=True, tag="pong"):
    """Answer to Ping and Bye, given by the loop that runs the hub: the sign by which a worker knows that it lives."""

    known: bool = True
    """False: this hub has no Hello of this connection. After a Bye: heard, go. Else: restarted, say Hello."""


class Work(Noun, frozen=True, kw_only=True, tag="work"):
    """A lease. Without a Done or Ping from the worker for `deadline_s` it is taken back."""

    lease: int
    deadline_s: float
    job: Job


class Ack(Noun, frozen=True, kw_only=True, tag="ack"):
    """The result of this lease is committed; the worker forgets it."""

    lease: int


class Revoke(Noun, frozen=True, kw_only=True, tag="revoke"):
    """The lease is void: stop working on it. A result that is ready is said until its Ack all the same."""

    lease: int
    reason: str


class NewWeights(Noun, frozen=True, kw_only=True, tag="weights"):
    """A version is out."""

    weights: WeightsRef


class Drain(Noun, frozen=True, kw_only=True, tag="drain"):
    """Finish or return what you hold, say Bye, leave with exit code 0."""

    reason: str


class Refuse(Noun, frozen=True, kw_only=True, tag="refuse"):
    """This connection is not wanted (wrong run, protocol or role); the worker stops with this sentence."""

    reason: str


class WorkerStatus(Noun, frozen=True, kw_only=True):
    """One worker as the hub sees it."""

    worker: str
    role: Role
    state: str
    leases: int
    credit: int
    idle_share: float
    """0..1 over the last few pings."""
    version: int
    silent_s: float


class Status(Noun, frozen=True, kw_only=True, tag="status"):
    """What an observer sees, once a second."""

    run: str
    stage: str
    phase: str
    """running | evaluating | draining | finished | failed"""
    stage_step: int
    stage_steps: int
    step: int
    version: int
    seconds: float
    counts: dict[str, int]
    """Groups by state (issued, sampled, verifying, ready, training, trained, dropped) and queue depths."""
    tokens: dict[str, int]
    """The token account: generated, trained, stale, ..."""
    metrics: dict[str, float]
    """Newest figures, e.g. reward, lag_mean, tokens_per_s, pass_at_1."""
    workers: list[WorkerStatus]
    seconds_left: float = -1.0
    """Estimate; -1 when unknown."""
    message: str = ""
    """Last thing worth saying, e.g. the reason of a failure."""


FromHub = Welcome | Pong | Work | Ack | Revoke | NewWeights | Drain | Refuse | Status
