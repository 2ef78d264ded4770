"""Every setting of a run, by section. The string below a field says what the setting means, and its unit.

Sections: model, task, sampling, replay, sampler, verifier, learner, stages.NAME (in order), evaluation. Settings of one
task or one algorithm are decoded by its own module's `Config`; they live in `task.options` and
`stages.NAME.algorithm.options`. `loader.py` reads them from a file.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from rlsp_async.config.ranges import (
    STAGE_NAME,
    FieldName,
    LayerName,
    PathText,
    PluginName,
    Range,
    RunName,
    check_key,
    check_values,
)


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of every section: immutable; unknown keys, and values outside of their range or shape, are refused.

    A field declares them in its annotation (`ranges.py`), which is read before the `__post_init__` of a subclass runs.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__post_init__" in cls.__dict__:
            cls.__post_init__ = _checked(cls.__post_init__)  # type: ignore[method-assign, assignment]

    def __post_init__(self) -> None:
        check_values(self)


def _checked(post_init: Callable[[Any], None]) -> Callable[[Any], None]:
    @functools.wraps(post_init)
    def check_first(self: Any) -> None:
        check_values(self)
        post_init(self)

    return check_first


def _require(ok: bool, text: str) -> None:
    if not ok:
        raise ValueError(text)


class ScratchModelConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Llama-shaped model with random weights, for runs that start from nothing."""

    hidden: Annotated[int, Range(ge=1, le=65_536)] = 64
    """Width of the residual stream."""
    layers: Annotated[int, Range(ge=1, le=1_024)] = 3
    """Number of transformer blocks."""
    heads: Annotated[int, Range(ge=1, le=1_024)] = 4
    """Attention heads of a block."""
    head_dim: Annotated[int, Range(ge=2, le=1_024, multiple_of=2)] = 32
    """Size of one attention head. vLLM on the CPU needs at least 32."""
    intermediate: Annotated[int, Range(ge=1, le=1_048_576)] = 192
    """Width of the feed-forward layer."""
    context: Annotated[int, Range(ge=2, le=2**24)] = 512
    """Longest sequence, in tokens."""


class LoraConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Adapters (LoRA, arXiv:2106.09685): W + (alpha / rank) B A is trained through B and A, and W stays as it is."""

    rank: Annotated[int, Range(ge=1, le=512)]
    """Columns of B and rows of A."""
    alpha: Annotated[float, Range(gt=0, le=65_536)] = 32.0
    """The product B A is multiplied by alpha / rank."""
    targets: list[LayerName] = []
    """Names of the linear layers that get an adapter, e.g. ["q_proj", "v_proj"]. Empty: all linear layers of the
    decoder's blocks. The embedding and the output head never get one."""


class ModelConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which model is trained."""

    path: PathText = ""
    """Local Hugging Face directory (config, safetensors, tokenizer). Empty: the model is built from `scratch`."""
    scratch: ScratchModelConfig = ScratchModelConfig()
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the weights, in the learner and in the samplers."""
    lora: dict[str, Any] = {}
    """Adapters are trained, published and kept instead of all weights, e.g. { rank = 32, alpha = 64 }; docs/lora.md.
    Empty: every weight is trained."""


class EnvironmentConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The environment that answers the policy within a rollout: `task.environment`; docs/environments.md."""

    name: PluginName
    """A module of rlsp_async.environments, a dotted module, or a file ending with .py."""
    options: dict[str, Any] = {}
    """Options of the environment, which its `make` decodes."""
    max_turns: Annotated[int, Range(ge=1, le=10_000)] = 8
    """Most turns of the policy in one rollout. `sampling.max_new_tokens` bounds all its turns together."""
    turn_s: Annotated[float, Range(gt=0, le=86_400)] = 10.0
    """Seconds for one answer of the environment. One that takes longer is killed, and its group is sampled again."""
    episode_s: Annotated[float, Range(gt=0, le=86_400)] = 60.0
    """Seconds that the environment may take in one rollout, all answers together."""


class TaskConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where prompts, reference answers and demonstrations come from."""

    name: PluginName = "ops"
    """A module of rlsp_async.tasks, or a dotted module of your own."""
    options: dict[str, Any] = {}
    """Options of the task, decoded by that module's `Config`."""
    too_long: Literal["refuse", "drop", "cut"] = "refuse"
    """Rows whose prompt and max_new_tokens, or whose demonstration, exceed the model's window. All are measured before
    the run. refuse: the run does not start. drop: they are left out. cut: the beginning of the prompt's text is taken
    off, as little as is needed; demonstrations that are still too long are left out."""
    verifier: PluginName = ""
    """A module of rlsp_async.verifying, a dotted module, or a file ending with .py. Empty: the verifier of the task."""
    verifier_options: dict[str, Any] = {}
    """Options of the verifier, decoded by its `Config`. An option whose name ends with _env holds the name of an
    environment variable that the verifier may read."""
    template_options: dict[str, Any] = {}
    """Variables for the model's chat template, for all prompts with chat, e.g. { enable_thinking = false }."""
    environment: dict[str, Any] = {}
    """An environment answers the policy, in rollouts of several turns, e.g. { name = "calculator", max_turns = 4 }.
    Empty: a rollout is one response."""
    max_unreadable: Annotated[float, Range(ge=0, le=1)] = 0.02
    """Largest share of reference answers that may not be correct against themselves, as the verifier judges. A run with
    more does not start; 1: any share."""


class SamplingConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How rollouts are drawn."""

    temperature: Annotated[float, Range(gt=0, le=100)] = 1.0
    """Softmax temperature of sampling."""
    max_new_tokens: Annotated[int, Range(ge=1, le=2**24)] = 256
    """Longest response, in tokens."""
    rollouts: Annotated[int, Range(ge=1, le=65_536)] = 8
    """Rollouts for each prompt: the group size G."""


class ReplayConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The hub: its address, its journal and its time-outs."""

    address: FieldName = "tcp://127.0.0.1:0"
    """Where the hub listens. Port 0: a free port is taken and written to RUN/hub.json."""
    keys: PathText = ""
    """Directory of this process's keys (`rlsp keys new DIR`). Empty: no keys; the hub listens to this machine only."""
    durability: Literal["power", "process"] = "power"
    """power: each commit is synced to the disk (SQLite FULL). process: survives kill -9, not a power cut (NORMAL)."""
    retention: Literal["checkpoints", "all"] = "checkpoints"
    """checkpoints: tokens of groups that no kept checkpoint can need are deleted. all: every token is kept."""
    disk_reserve_mb: Annotated[int, Range(ge=0, le=2**30)] = 256
    """With less free space for the run directory (MiB), no new work begins until there is room. 0: no limit."""
    commit_groups: Annotated[int, Range(ge=1, le=65_536)] = 128
    """Largest number of messages that share one commit of the journal."""
    lease_s: Annotated[float, Range(gt=0, le=10**9)] = 60.0
    """Seconds without a sign of the worker after which its lease is given to another worker."""
    heartbeat_s: Annotated[float, Range(ge=0.01, le=10**9)] = 1.0
    """Seconds between two heartbeats of a worker."""
    timeout_s: Annotated[float, Range(gt=0, le=10**9)] = 10.0
    """Seconds of silence after which a worker counts as gone."""
    retries: Annotated[int, Range(ge=0, le=1_000)] = 3
    """Number of leases that a group may lose before it is dropped; the reason is recorded."""
    failures_per_100: Annotated[float, Range(ge=0, le=100)] = 20.0
    """The run stops when more than this many of 100 groups fail (after the first 50)."""
    stall_s: Annotated[float, Range(gt=0, le=10**10)] = 300.0
    """Seconds without any progress after which the run is stopped; the message names the stage at fault."""
    max_message_mb: Annotated[int, Range(ge=1, le=4_000)] = 64
    """Largest message between two processes, in MB."""

    def __post_init__(self) -> None:
        _require(self.timeout_s > 2 * self.heartbeat_s, "timeout_s must be above twice heartbeat_s")


class SamplerConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Samplers: the inference engines."""

    count: Annotated[int, Range(ge=0, le=1_024)] = 1
    """Sampler processes that `rlsp run` starts on this machine. 0: as many as its GPUs beside the learner's hold; where
    there are none, none: samplers join from elsewhere."""
    engine: Literal["auto", "vllm", "torch", "scripted"] = "auto"
    """auto: vllm where it is installed (on a CPU for larger models only), else torch. scripted: a stub for tests."""
    groups_in_flight: Annotated[int, Range(ge=1, le=65_536)] = 16
    """Number of prompts that one sampler works on at once (its credit)."""
    threads: Annotated[int, Range(ge=1, le=1_024)] = 1
    """CPU threads of one engine."""
    memory: Annotated[float, Range(gt=0, le=65_536)] = 0.3
    """On a GPU: the share of its memory for vLLM, below 1. On a CPU: GiB for the KV cache."""
    max_sequences: Annotated[int, Range(ge=1, le=65_536)] = 128
    """Number of rollouts that one engine decodes at once."""
    tensor_parallel: Annotated[int, Range(ge=1, le=64)] = 1
    """GPUs that one vLLM engine is spread over."""
    probe_tolerance: Annotated[float, Range(ge=0, le=100)] = 0.0
    """Largest allowed difference of the probe's log-probs after weights were loaded. 0: 1e-3 for float32 on the CPU,
    else three times the engine's own difference on the initial model."""


class VerifierConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Verifiers: the services that check answers."""

    count: Annotated[int, Range(ge=0, le=1_024)] = 1
    """Verifier services that `rlsp run` starts on this machine."""
    processes: Annotated[int, Range(ge=1, le=1_024)] = 1
    """Checker processes of one service; a checker can be killed."""
    groups_in_flight: Annotated[int, Range(ge=1, le=65_536)] = 32
    """Number of groups that one service works on at once (its credit)."""
    deadline_s: Annotated[float, Range(gt=0, le=86_400)] = 5.0
    """Seconds for one answer. A check that takes longer is killed, with the verdict `timeout`."""
    memory_mb: Annotated[int, Range(ge=128, le=2**24)] = 2048
    """Address space of a checker process, in MiB. A check that needs more gets the verdict `error`."""


class LearnerConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The learner: training, checkpoints, published weights."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda where there is a GPU, else cpu."""
    threads: Annotated[int, Range(ge=1, le=1_024)] = 1
    """CPU threads of the learner; each rank has as many."""
    ranks: Annotated[int, Range(ge=1, le=1_024)] = 1
    """Processes that train together, each with a part of weights, gradients and optimizer state; on GPUs one for each
    card. It decides the order of sums, and with it the last digits."""
    other_ranks: bool = False
    """Lets a run that is resumed have another number of ranks than before: from then on its last digits differ from
    those of an undisturbed run."""
    tokens_per_microbatch: Annotated[int, Range(ge=1, le=2**26)] = 8192
    """Packed tokens in one forward and backward pass; a sequence that is longer gets a pass of its own."""
    gradient_checkpointing: bool = False
    """Computes activations a second time in the backward pass, which needs less memory."""
    checkpoint_every: Annotated[int, Range(ge=0, le=10**9)] = 16
    """Steps between two checkpoints; the last step of a stage always makes one. 0: only that one."""
    keep_checkpoints: Annotated[int, Range(ge=2, le=1_000)] = 2
    """Number of checkpoints that stay on the disk; the newest may turn out to be damaged."""
    weights_dir: PathText = ""
    """Directory below which each run publishes weights into its own. Empty: shared memory, else the run directory."""
    keep_weights: Annotated[int, Range(ge=2, le=1_000)] = 3
    """Number of published versions that stay there; a sampler may still be loading one."""
    transport: Literal["auto", "file", "channel"] = "auto"
    """How weights reach a sampler. auto: by the file where it can be read, else over a channel between the processes.
    file: only by the file. channel: over a channel first, also on one machine."""
    channel_address: FieldName = ""
    """Address, or ADDRESS:PORT, of the learner's machine at which samplers on others reach it for channels. Empty: the
    one that leads to the hub, and a free port."""
    deterministic: bool = False
    """On a GPU: computes with deterministic kernels only, which are slower, so that the same batches give the same bits
    on the same card. torch ends the run with the name of an operation that has none. A CPU needs no such setting."""


class OptimizerConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The optimizer of a stage."""

    name: Literal["adamw", "muon"] = "adamw"
    """muon: Muon for the matrices, AdamW for the other parameters."""
    lr: Annotated[float, Range(ge=0, le=10)] = 1e-6
    """Learning rate of AdamW."""
    muon_lr: Annotated[float, Range(ge=0, le=10)] = 0.02
    """Learning rate of Muon."""
    betas: Annotated[tuple[float, float], Range(ge=0, lt=1)] = (0.9, 0.95)
    """Decay rates of AdamW's two moments."""
    weight_decay: Annotated[float, Range(ge=0, le=10)] = 0.0
    """Decoupled weight decay."""
    clip_norm: Annotated[float, Range(ge=0, le=10**9)] = 1.0
    """Gradients are scaled down to this norm; 0: they are left as they are."""
    warmup_steps: Annotated[int, Range(ge=0, le=10**9)] = 0
    """Optimizer updates over which the learning rate rises linearly."""
    schedule: Literal["constant", "cosine"] = "constant"
    """The learning rate after the warm-up."""
    floor: Annotated[float, Range(ge=0, le=1)] = 0.1
    """Share of lr at which the cosine schedule ends."""


class RewardConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """R = alpha * correct + (1 - alpha) * R_explore (RLSP, Eq. 1), computed by the learner from stored parts."""

    alpha: Annotated[float, Range(ge=0, le=1)] = 0.8
    """Weight of correctness."""
    alpha_end: Annotated[float, Range(ge=0, le=1, also=(-1,))] = -1.0
    """Value that alpha reaches linearly at the last step of the stage; -1: alpha stays constant."""
    explore: Literal["none", "len_inv", "len_inv_sqrt", "len_exp", "steps", "judge", "novelty"] = "none"
    """The exploration reward R_explore; docs/rewards.md."""
    scale: Annotated[float, Range(ge=0, le=10**9)] | Literal["auto"] = 1000.0
    """C of the length family, in tokens; for "steps" the decay base is `1 - 1/scale`. auto: half the largest C with
    which a correct answer of at least max_new_tokens / 16 earns more than every wrong one; 20/3 for "steps"."""
    clip: Annotated[float, Range(gt=0, le=10**9)] = 10.0
    """Rewards are clipped to [-clip, clip]."""
    penalties: list[Literal["repetition", "over_long", "garbled"]] = []
    """A rollout with one of these faults earns -1, whatever its answer (T1); docs/rewards.md."""

    def __post_init__(self) -> None:
        least = 1.0 if self.explore == "steps" else 0.0
        _require(
            self.scale == "auto" or least <= float(self.scale),
            f'scale {self.scale} must be at least {least:g} for explore {self.explore!r}, or "auto"',
        )


class AlgorithmChoice(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The algorithm of a stage: its advantages and its loss."""

    name: PluginName = "grpo"
    """A module of rlsp_async.algos, or a dotted module of your own."""
    preset: FieldName = ""
    """One of that module's PRESETS; `options` override it."""
    options: dict[str, Any] = {}
    """Options of the algorithm, decoded by that module's `Config`."""


class PromptsConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The selection of the next prompt."""

    name: PluginName = "uniform"
    """A module of rlsp_async.prompts, or a dotted module of your own."""
    options: dict[str, Any] = {}
    """Options of the prompt selection, decoded by that module's `Config`."""


class TemperatureConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The temperature of a stage's rollouts; evaluations always use sampling.temperature."""

    name: PluginName = "constant"
    """A module of rlsp_async.temperatures, or a dotted module of your own."""
    options: dict[str, Any] = {}
    """Options of the temperature schedule, decoded by that module's `Config`."""


class SuccessReplayConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Success replay (ARPO): on when `capacity` is above 0 and the table is not empty."""

    capacity: Annotated[int, Range(ge=0, le=10**6)] = 8
    """Number of successes that are remembered for each prompt; the oldest is forgotten first. 0: no success replay."""
    total: Annotated[int, Range(ge=1, le=10**8)] = 4096
    """The same limit over all prompts together: each success holds the tokens of one rollout in the hub's memory."""
    mean_below: Annotated[float, Range(gt=0, le=1)] = 0.2
    """A group has failed when no rollout is correct, the mean of its part "correct" is below this ..."""
    std_below: Annotated[float, Range(gt=0, le=1)] = 0.05
    """... and the standard deviation of that part is below this."""
    max_age: Annotated[int, Range(ge=0, le=10**9)] = 0
    """How many versions the oldest token of a success may be behind; 0: no bound. `max_lag` does not apply to it."""
    max_uses: Annotated[int, Range(ge=0, le=10**9)] = 0
    """How many failed rollouts one success may replace; 0: no bound."""


class StageConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One stage of the run: what it trains on, with which algorithm, for how many steps."""

    source: Literal["rollouts", "demonstrations", "imported"] = "rollouts"
    """rollouts: sampled by the model. demonstrations: of the task. imported: rows that `rlsp import` put into the run;
    nothing is sampled."""
    start: Literal["previous", "base"] = "previous"
    """Weights that the stage begins with. previous: those that the stage before left. base: those with which the first
    stage that samples (or trains on imported rollouts) began, for rounds that start from the same model."""
    steps: Annotated[int, Range(ge=1, le=10**9)] = 10
    """Number of steps of this stage. One step trains one batch and makes one version."""
    groups_per_step: Annotated[int, Range(ge=1, le=10**6)] = 32
    """Groups in one batch."""
    minibatches: Annotated[int, Range(ge=1, le=10**6)] = 1
    """Optimizer updates of one batch, each on its own part of the batch."""
    epochs: Annotated[int, Range(ge=1, le=10**4)] = 1
    """Passes over the batch within a step."""
    target_lag: Annotated[int, Range(ge=0, le=10**6)] = 1
    """Bounds the groups that are alive to (target_lag + 1) * groups_per_step * oversample slots. 0: synchronous RL."""
    max_lag: Annotated[int, Range(ge=0, le=10**9)] = 4
    """A group whose oldest token is more versions behind than this is dropped as stale."""
    max_uses: Annotated[int, Range(ge=1, le=10**6)] = 1
    """Number of batches that a group may be part of."""
    selection: PluginName = "fifo"
    """Which ready groups make a batch: a module of rlsp_async.replay.selection, or a dotted module of your own."""
    selection_options: dict[str, Any] = {}
    """Options of the selection, decoded by that module's `Config`."""
    success_replay: dict[str, Any] = {}
    """A failed group is trained with a remembered success of its prompt (ARPO), e.g. { capacity = 8 }. Empty: never."""
    prompts: PromptsConfig = PromptsConfig()
    temperature: TemperatureConfig = TemperatureConfig()
    spawn: dict[str, Any] = {}
    """The model is asked to verify finished rollouts, and both are trained (RISE): options of `replay/spawn.py`.
    Example: { share = 0.125 }. Empty: nothing is spawned."""
    drop_no_signal: bool = False
    """Drops groups whose rollouts all earn the same before they are trained (DAPO's dynamic sampling)."""
    oversample: Annotated[float, Range(ge=1, le=8)] = 1.0
    """Factor on the number of slots, so that replacements for groups that `drop_no_signal` drops are sampled ahead."""
    publish_every: Annotated[int, Range(ge=0, le=10**9)] = 1
    """Steps between two published versions; 0: only after the last step."""
    algorithm: AlgorithmChoice = AlgorithmChoice()
    optimizer: OptimizerConfig = OptimizerConfig()
    reward: RewardConfig = RewardConfig()

    def __post_init__(self) -> None:
        _require(
            self.max_lag >= self.target_lag,
            f"max_lag {self.max_lag} is below target_lag {self.target_lag}: "
            "every admitted group would be stale before it is trained",
        )
        _require(
            self.source != "rollouts" or self.publish_every <= max(1, self.max_lag),
            "publish_every above max_lag: every rollout would be stale before a new version comes out",
        )

    @property
    def capacity(self) -> int:
        """Groups alive at once: (target_lag + 1) * groups_per_step * oversample, rounded up."""
        return math.ceil((self.target_lag + 1) * self.groups_per_step * self.oversample)


class EvaluationConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Evaluation on held-out prompts, which are sampled like rollouts and never trained on."""

    prompts: Annotated[int, Range(ge=0, le=10**7)] = 256
    """Number of held-out prompts; 0: no evaluation."""
    rollouts: Annotated[int, Range(ge=1, le=65_536)] = 8
    """Rollouts for each prompt; pass@1 averages over them, pass@k needs k of them."""
    before: list[str] = []
    """Names of the stages before whose first step an evaluation runs."""
    after: list[str] = []
    """Names of the stages after whose last step an evaluation runs."""
    every: Annotated[int, Range(ge=0, le=10**9)] = 0
    """Steps of a stage between two evaluations during it. At such a step the weights are published and no batch is
    chosen until the evaluation is complete. 0: only before and after stages."""

    def steps_of(self, name: str, stage: StageConfig) -> range:
        """The steps of a stage after which an evaluation during it stands, counted from 1 within the stage.

        The last step is among them only when no evaluation follows the stage anyway.
        """
        if not self.prompts or not self.every:
            return range(0)
        return range(self.every, stage.steps + (name not in self.after), self.every)

    @property
    def is_on(self) -> bool:
        """Whether the run evaluates at all."""
        return self.prompts > 0 and bool(self.before or self.after or self.every)


class RunConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a run."""

    name: RunName
    """Name of the run and of its directory."""
    seed: Annotated[int, Range(ge=0, lt=2**63)] = 0
    """Seed of every random choice of the run: prompts, model, batches, and the random numbers of each rollout. Two runs
    with one seed make the same bits on one machine with target_lag = 0 and max_lag = 0 in every stage that samples,
    the torch engine, and selections and schedules that do not learn from verdicts; each group is then decoded by
    itself, which is slower. Otherwise timing decides which version samples what; and with vLLM the logits depend on
    what else is decoded."""
    runs_dir: PathText = "runs"
    """The run's directory is RUNS_DIR/NAME."""
    model: ModelConfig = ModelConfig()
    task: TaskConfig = TaskConfig()
    sampling: SamplingConfig = SamplingConfig()
    replay: ReplayConfig = ReplayConfig()
    sampler: SamplerConfig = SamplerConfig()
    verifier: VerifierConfig = VerifierConfig()
    learner: LearnerConfig = LearnerConfig()
    stages: dict[str, StageConfig]
    evaluation: EvaluationConfig = EvaluationConfig()

    def __post_init__(self) -> None:
        _require(bool(self.stages), "a run needs at least one [stages.NAME]")
        for name in self.stages:
            check_key(name, STAGE_NAME, "stages")
        for which in (*self.evaluation.before, *self.evaluation.after):
            _require(which in self.stages, f"evaluation names stage {which!r}; there is {', '.join(self.stages)}")
        early = list(self.stages)[: list(self.stages).index(self.base_stage)] if self.base_stage else self.stages
        for name in early:
            _require(
                self.stages[name].start == "previous",
                f'stages.{name}.start = "base": no stage that samples '
                "has begun by then, so there is no base yet; take it out",
            )

    @property
    def base_stage(self) -> str:
        """The stage whose first weights are the base of stages with `start = "base"`; empty when there is none."""
        return next((name for name, stage in self.stages.items() if stage.source != "demonstrations"), "")

    @property
    def is_synchronous(self) -> bool:
        """Whether every rollout is of the version that is trained: max_lag = 0 in each stage that samples."""
        lags = [stage.max_lag for stage in self.stages.values() if stage.source == "rollouts"]
        return bool(lags) and not any(lags)

    def publishes_after(self, name: str, stage_step: int) -> bool:
        """Whether the weights are published after a step of a stage, counted from 1 within the stage."""
        stage = self.stages[name]
        is_due = stage.publish_every > 0 and stage_step % stage.publish_every == 0
        return is_due or stage_step == stage.steps or stage_step in self.evaluation.steps_of(name, stage)

    @property
    def directory(self) -> Path:
        """The directory of the run: RUNS_DIR/NAME."""
        return Path(self.runs_dir) / self.name
