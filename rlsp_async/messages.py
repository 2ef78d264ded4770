"""Every noun of the system and every message on the wire, in the order in which they travel.

    Prompt -> RolloutGroup -> VerifiedGroup -> Batch -> WeightsRef          nouns
    Hello, Ping, Done, Failed, Loaded, Rejected, Bye                        worker -> hub
    Welcome, Pong, Work, Ack, Revoke, NewWeights, Drain, Refuse, Status     hub -> worker
    Pull, Invite, Abandon                                                   worker -> hub -> another worker

On the wire a message is a map, never an array, so a field with a default may be added and is skipped by older readers.
No field changes its type or meaning. Columns are raw bytes (`columns.py`). Shapes: T response tokens of a rollout, P
prompt tokens, G rollouts of a group, N tokens of a probe. `proto/README.md` is the same contract for other languages.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

PROTOCOL = 1
ASKING = "asking"
"""Ping.state before any Hello."""

IntColumn = Annotated[bytes, msgspec.Meta(extra_json_schema={"x-column": "<i4"})]
FloatColumn = Annotated[bytes, msgspec.Meta(extra_json_schema={"x-column": "<f4"})]

Role = Literal["sampler", "verifier", "learner", "observer"]
Provenance = Literal["rollout", "demonstration"]
Purpose = Literal["train", "evaluate"]
Finish = Literal["stop", "length", "abort"]
VerdictStatus = Literal["correct", "wrong", "unparsable", "timeout", "error"]
Ended = Literal["", "done", "max_turns", "max_tokens", "timeout", "environment_error"]


class Noun(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every noun and message: immutable, built by keywords."""


BY_SPAWN = "spawn"
"""`Prompt.selector` of a prompt that quotes one of the model's own responses."""


# --- nouns ---------------------------------------------------------------------------------------------------------


class ChatMessage(Noun, frozen=True, kw_only=True):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    text: str


class Prompt(Noun, frozen=True, kw_only=True):
    """One question. Example: Prompt(prompt_id="ops/train/17", task="ops", text="1 1 3 4 -> 7 <think>", answer="7")."""

    prompt_id: str
    """Unique in the run; a question has the same id each time it is visited."""
    task: str
    text: str
    """Text that the model sees, before the chat template."""
    answer: str
    """Reference answer, as the task's verifier reads it."""
    index: int = 0
    """Position in its split: `task.prompt(split, index)` returns the same prompt again."""
    visit: int = 0
    """How often this prompt had been issued before."""
    chat: bool = False
    """True: `text` is a user message and the tokenizer's chat template is applied."""
    system: str = ""
    """System message for the chat template; empty means none."""
    source: str = ""
    """File or generator that the prompt came from."""
    selector: str = "uniform"
    """Name of the prompt selection that drew it."""
    propensity: float = 1.0
    """Probability with which the selection drew it, relative to uniform (1.0)."""
    earlier: list[ChatMessage] = []
    """Messages of the conversation between the system message and `text`, the oldest first; only with `chat`."""


class Sampling(Noun, frozen=True, kw_only=True):
    """How rollouts are sampled. Behaviour log-probs are those of the distribution at this temperature."""

    temperature: float = 1.0
    max_new_tokens: int = 256
    rollouts: int = 8
    """Rollouts of one prompt: the group size G."""
    seed: int = 0


class Rollout(Noun, frozen=True, kw_only=True):
    """One completion of T tokens, the end-of-sequence token included when the model produced it."""

    index: int
    """Place within its group, 0..G-1."""
    token_ids: IntColumn
    """[T] sampled ids, and between turns those of what the environment said; never recomputed from the text."""
    logprobs: FloatColumn
    """[T] behaviour log-probs at the sampling temperature. 0 for what was not sampled: demonstrations, observations."""
    versions: IntColumn
    """[T] policy version that sampled each token; -1 for a demonstration, and for an observation of an environment."""
    text: str
    """The response as text, without end-of-sequence token and padding; the verifier reads this. Of several turns, the
    last one."""
    finish: Finish = "stop"
    parent: str = ""
    """Rollout that this one was spawned from, "group/index"; empty for a root."""
    root: str = ""
    """Root of its tree; empty for a root."""
    depth: int = 0
    """Depth in its tree; 0 for a root."""
    step_offsets: IntColumn = b""
    """Token offsets at which reasoning steps begin; empty when the task defines no steps."""
    replayed_from: str = ""
    """The rollout of another group, "group/index", that replaces a failed rollout of this group in a batch.

    Set by success replay. A replayed rollout counts in no accuracy. Empty for all others; a sampler never sets it.
    """
    sampler: str = ""
    """Name of the worker that sampled it."""
    seconds: float = 0.0
    """Wall seconds from submission to the last token."""
    turns: IntColumn = b""
    """Token offsets at which sampled turns begin. Empty: one turn, and all tokens count (`observations.py`)."""
    claim: dict[str, float] = {}
    """Named parts that the environment gave at the end; a verifier decides what they are worth. Empty: none."""
    ended: Ended = ""
    """Why an environment's rollout ended; empty: there was no environment."""
    transcript: bytes = b""
    """What was said turn by turn, for people: a msgpack list of [who, text], texts shortened. Empty: one turn."""


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
    """The judgement of a verifier on one rollout.

    Only correct, wrong and unparsable are judgements on the answer. Timeout and error are faults of the verifier and
    never become reward.
    """

    status: VerdictStatus
    parts: dict[str, float] = {}
    """Named parts of the reward, e.g. {"correct": 1.0, "search_steps": 3.0}; "correct" is 0 or 1. The learner sums."""
    extracted: str = ""
    """Answer that the verifier found in the response."""
    detail: str = ""
    """Reason of a timeout or an error."""
    milliseconds: float = 0.0
    verifier: str = ""
    """Name and version, e.g. "ops/1"."""

    @property
    def is_true(self) -> bool:
        """Whether the verdict is a judgement on the answer, so that the rollout may be trained on."""
        return self.status in ("correct", "wrong", "unparsable")


class VerifiedGroup(Noun, frozen=True, kw_only=True):
    """A group with one verdict for each rollout. Demonstrations are not verified and have no verdicts."""

    group: RolloutGroup
    verdicts: list[Verdict] = []


class Batch(Noun, frozen=True, kw_only=True):
    """The groups of one optimizer step, in the order of the manifest. Step s produces version s."""

    stage: str
    step: int
    groups: list[VerifiedGroup]
    last_of_stage: bool = False
    """The learner publishes and writes a checkpoint after this batch, whatever `publish_every` says."""
    stage_step: int = 1
    """1-based step within the stage."""


class Probe(Noun, frozen=True, kw_only=True):
    """A fixed sequence of [N] ids, and the [N-1] log-probs (temperature 1) that the published weights give it."""

    ids: IntColumn
    logprobs: FloatColumn


class WeightsRef(Noun, frozen=True, kw_only=True):
    """Where the weights of a version are, and how to check that they arrived.

    Example: version=1001, uri="file:///dev/shm/rlsp-demo/v001001.safetensors", digest="sha256:ab12...".
    """

    version: int
    uri: str
    digest: str
    num_bytes: int
    probe: Probe
    incarnation: int = 0
    """Of the learner that made it."""
    also: list[str] = []
    """Further URIs of the same weights, the best first. A reader takes the first one whose scheme it knows, beginning
    with `uri`, and the next one when that fails."""


class StepReport(Noun, frozen=True, kw_only=True):
    """Report of the learner after a step: metrics, and the weights if this step was published."""

    step: int
    metrics: dict[str, float] = {}
    weights: WeightsRef | None = None
    incarnation: int = 0
    """Of the learner that trained it."""
    checkpoint: int = 0
    """Newest step with a complete checkpoint on disk; 0 for none."""


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
    """One response to be verified: what a policy said last, and what its environment claims."""

    prompt: str
    response: str
    answer: str
    claim: dict[str, float] = {}
    """`Rollout.claim`."""
    ended: Ended = ""
    """`Rollout.ended`."""


class VerifyJob(Noun, frozen=True, kw_only=True, tag="verify"):
    """Verify every response of one group."""

    group_id: int
    task: str
    items: list[VerifyItem]


class TrainJob(Noun, frozen=True, kw_only=True, tag="train"):
    """Train one batch. A step that is in the weights already is answered from memory and not trained again."""

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
    """Most leases that the worker holds at once; the hub never exceeds it."""
    proto: int = PROTOCOL
    incarnation: int = 0
    """Larger at each start of this worker, and not taken from a clock; messages of an older start are refused."""
    step: int = -1
    """Of a learner: newest step in its weights, 0 when none was trained. Of others: -1."""
    leases: list[int] = []
    """Leases that the worker still holds after a reconnect."""
    holding: dict[int, int] = {}
    """The same leases, each with its group id (learner: step), from which a restarted hub restores them."""
    seq: int = 0
    """Counts the Hellos of this start; the hub ignores an older Hello that arrives late."""
    info: dict[str, str] = {}
    """For people: engine, device, host, pid."""
    yields: bool = False
    """This start has no supervisor that numbers it: it is refused while another start of its name is at work."""


class Ping(Noun, frozen=True, kw_only=True, tag="ping"):
    """Heartbeat of the application, sent by the event loop that does the work."""

    state: str = "working"
    """working | waiting_credit | waiting_work | loading | draining | asking.

    "asking" comes before any Hello, from a worker that asks whether the run goes on; the answer is Pong(known=False),
    or Drain when it is over. The hub's Status also says waiting_credit for a sampler that has nothing to do because
    every slot is taken.
    """
    seq: int = 0
    """Counts the Pings of this start."""
    leases: list[int] = []
    """Every lease that the worker holds, running or not yet acknowledged.

    A lease that the hub granted and the worker does not name was lost on the way. A lease that the hub does not know is
    void.
    """
    version: int = -1
    """Of a sampler: the version that it serves. Of others, and of a sampler that serves none: -1."""
    made_by: int = 0
    """Incarnation of the learner that made this version."""
    busy_s: float = 0.0
    """Seconds busy since the last ping."""
    window_s: float = 0.0
    """Seconds since the last ping."""
    metrics: dict[str, float] = {}
    """Metrics since the last ping, e.g. {"tokens": 5120}."""


class Done(Noun, frozen=True, kw_only=True, tag="done"):
    """Result of a lease. Sent again until its Ack, or a Revoke that refuses it. Exactly one list has one entry."""

    lease: int
    groups: list[RolloutGroup] = []
    verdicts: list[VerdictSet] = []
    steps: list[StepReport] = []


class Failed(Noun, frozen=True, kw_only=True, tag="failed"):
    """End of a lease without a result.

    The kind decides what follows: `infrastructure` is tried again elsewhere, `data` counts against the group,
    `returned` counts against nothing (the worker leaves, or holds enough leases).
    """

    lease: int
    kind: Literal["infrastructure", "data", "returned"]
    error: str
    groups: list[int] = []
    """Of a learner: the groups of the batch that it cannot train on, whatever it tries."""


class Loaded(Noun, frozen=True, kw_only=True, tag="loaded"):
    """A sampler serves this version: the digest is right and the probe is within its tolerance."""

    version: int
    seconds: float
    probe_error: float
    """Largest absolute difference of the probe's log-probs."""


class Rejected(Noun, frozen=True, kw_only=True, tag="rejected"):
    """A sampler refuses a version, and serves nothing until a good version comes."""

    version: int
    reason: str


class Bye(Noun, frozen=True, kw_only=True, tag="bye"):
    """The worker holds no lease and leaves."""

    reason: str = ""


# --- a sampler and the learner, through the hub ----------------------------------------------------------------------


class Pull(Noun, frozen=True, kw_only=True, tag="pull"):
    """A sampler asks the learner for a version over a channel. The hub relays it."""

    ticket: str
    """Name of this request, made by the sampler, once. Example: "sampler-3/7"."""
    version: int
    made_by: int
    """Incarnation of the learner that made the version."""
    worker: str = ""
    """The sampler. Stamped by the hub; what a worker writes here is not believed."""
    kinds: list[str] = []
    """Kinds of channels that it can open. Example: ["nccl", "gloo"]."""
    num_workers: int = 1
    """Processes of its engine that receive, each with a rank of its own."""
    devices: list[str] = []
    """UUIDs of the GPUs of these processes, in the order of their ranks; empty on a CPU."""
    host: str = ""
    """Boot id of its machine."""
    env: dict[str, str] = {}
    """Versions and environment variables of the library that must be the same at both ends."""
    channel: str = ""
    """The channel that it still has open; empty for none."""


class Invite(Noun, frozen=True, kw_only=True, tag="invite"):
    """The learner's answer to a Pull: the version is sent over this channel now. The hub relays it."""

    ticket: str
    worker: str
    """The sampler that is invited."""
    kind: str
    """Kind of the channel. "file": no channel can be opened, another URI of the version is to be taken."""
    channel: str = ""
    """Name of the channel; a name that the sampler does not have open is opened first."""
    where: bytes = b""
    """What the kind needs to open it: an address and a token."""
    world: int = 2
    """Processes at the channel: the learner, which has rank 0, and those of the sampler."""
    plan: bytes = b""
    """The tensors in their order, as a msgpack array of [name, dtype, shape, s, w] (proto/README.md)."""
    bucket_bytes: int = 0
    deadline_s: float = 60.0
    """Longest time until the channel is open, and between two buckets."""


class Abandon(Noun, frozen=True, kw_only=True, tag="abandon"):
    """A request is void. From the learner or the hub to a sampler, or from a sampler to the learner."""

    ticket: str
    """Empty, from the hub to the learner: the sampler is gone, and its channel with it."""
    worker: str = ""
    """The sampler. Stamped by the hub when a sampler says it."""
    reason: str = ""


Relayed = Pull | Invite | Abandon

FromWorker = Hello | Ping | Done | Failed | Loaded | Rejected | Bye | Pull | Invite | Abandon


# --- hub -> worker -------------------------------------------------------------------------------------------------


class Welcome(Noun, frozen=True, kw_only=True, tag="welcome"):
    """Answer to Hello. A worker stops working on the leases that are not in `leases`."""

    run: str
    incarnation: int
    """Of the hub; larger at each start."""
    heartbeat_s: float
    timeout_s: float
    weights: WeightsRef | None = None
    leases: list[int] = []
    seq: int = 0
    """Number of the Hello that this answers; the worker ignores the answer to another Hello."""


class Pong(Noun, frozen=True, kw_only=True, tag="pong"):
    """Answer to Ping and Bye by the event loop that runs the hub: it shows a worker that the hub is alive."""

    known: bool = True
    """False: this hub has no Hello of this connection. After a Bye: the worker may go. Else: it says Hello again."""


class Work(Noun, frozen=True, kw_only=True, tag="work"):
    """A lease. The hub takes it back when the worker sends no Done and no Ping for `deadline_s`."""

    lease: int
    deadline_s: float
    job: Job


class Ack(Noun, frozen=True, kw_only=True, tag="ack"):
    """The result of this lease is committed to disk; the worker forgets it."""

    lease: int


class Revoke(Noun, frozen=True, kw_only=True, tag="revoke"):
    """The lease is void: the worker stops working on it. A result that is ready is still sent until its Ack."""

    lease: int
    reason: str
    refused: bool = False
    """The result of this lease was looked at and is not taken: the worker forgets it and does not send it again."""


class NewWeights(Noun, frozen=True, kw_only=True, tag="weights"):
    """A version was published."""

    weights: WeightsRef


class Drain(Noun, frozen=True, kw_only=True, tag="drain"):
    """The worker finishes or returns its leases, says Bye and ends with exit code 0."""

    reason: str


class Refuse(Noun, frozen=True, kw_only=True, tag="refuse"):
    """The hub refuses this connection (wrong run, protocol or role); the worker ends with this reason."""

    reason: str
    fenced: bool = False
    """Another start of this worker, or another learner, is at work: nothing is wrong with this one."""
    retry_s: float = 0.0
    """The worker goes on saying Hello for this long before it ends: the other start may be gone."""


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
    """State of the run, sent to observers once a second."""

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
    """Newest metrics, e.g. reward, lag_mean, tokens_per_s, pass_at_1."""
    workers: list[WorkerStatus]
    seconds_left: float = -1.0
    """Estimated seconds to the end; -1 when unknown."""
    message: str = ""
    """Newest message for people, e.g. the reason of a failure."""
    evaluated: int = 0
    """Prompts of the current evaluation that are done."""
    to_evaluate: int = 0
    """All prompts of the current evaluation; 0 outside of one."""


FromHub = Welcome | Pong | Work | Ack | Revoke | NewWeights | Drain | Refuse | Status | Pull | Invite | Abandon
