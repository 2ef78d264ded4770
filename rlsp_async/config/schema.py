"""Every setting of a run, by section; the string below a field says what it means and its unit.

Sections: model, task, sampling, replay, sampler, verifier, learner, stages.NAME (in order), evaluation. Settings of one
task or one algorithm are decoded by its own module's `Config`; they live in `task.options` and
`stages.NAME.algorithm.options`. `config.py` reads them from a file.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Literal

import msgspec


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every section: immutable, unknown keys refused."""


def _require(ok: bool, text: str) -> None:
    if not ok:
        raise ValueError(text)


class ScratchModelConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Llama-shaped model with random weights, for runs that start from nothing."""

    hidden: int = 64
    layers: int = 3
    heads: int = 4
    head_dim: int = 32
    """vLLM on the CPU needs at least 32."""
    intermediate: int = 192
    context: int = 512
    """Longest sequence, tokens."""

    def __post_init__(self) -> None:
        _require(min(self.hidden, self.layers, self.heads, self.head_dim, self.intermediate) > 0, "sizes are positive")


class ModelConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which model is trained."""

    path: str = ""
    """Local Hugging Face directory (config, safetensors, tokenizer). Empty: built from `scratch`."""
    scratch: ScratchModelConfig = ScratchModelConfig()
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the learner's weights and the sampler's."""


class TaskConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where prompts, reference answers and demonstrations come from."""

    name: str = "ops"
    """A module of rlsp_async.tasks, or a dotted module of your own."""
    options: dict[str, Any] = {}
    """Decoded by that module's `Config`."""
    verifier: str = ""
    """A module of rlsp_async.verifying, dotted, or a file ending with .py. Empty: the one the task names."""
    verifier_options: dict[str, Any] = {}
    """Decoded by the verifier's `Config`; one whose name ends with _env names an environment variable it may read."""


class SamplingConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How rollouts are drawn."""

    temperature: float = 1.0
    max_new_tokens: int = 256
    rollouts: int = 8
    """Rollouts of one prompt: the group size G."""

    def __post_init__(self) -> None:
        _require(self.temperature > 0, f"temperature {self.temperature} must be above 0 (use 1e-3 for near-greedy)")
        _require(self.max_new_tokens >= 1, "max_new_tokens must be at least 1")
        _require(self.rollouts >= 1, "rollouts must be at least 1")


class ReplayConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The hub: its address, its journal and its patience."""

    address: str = "tcp://127.0.0.1:0"
    """Port 0: a free port is taken and written to RUN/hub.json."""
    keys: str = ""
    """Directory of this process's keys (`rlsp keys new DIR`). Empty: none, and the hub listens to this machine only."""
    durability: Literal["power", "process"] = "power"
    """power: each commit is synced to the disk (SQLite FULL). process: survives kill -9, not a power cut (NORMAL)."""
    retention: Literal["checkpoints", "all"] = "checkpoints"
    """checkpoints: the tokens of groups that no kept checkpoint can need are deleted. all: every token is kept."""
    disk_reserve_mb: int = 256
    """MiB. With less free for the run directory nothing new begins until there is room; 0: never mind."""
    commit_groups: int = 128
    """At most so many messages share a commit."""
    lease_s: float = 60.0
    """A lease whose worker shows no sign for so long is taken back."""
    heartbeat_s: float = 1.0
    timeout_s: float = 10.0
    """A worker silent for so long is gone."""
    retries: int = 3
    """Leases a group may lose before it is dropped with its reason."""
    failures_per_100: float = 20.0
    """The run stops when more groups than this fail in 100 (after the first 50)."""
    stall_s: float = 300.0
    """A run in which nothing moves for so long is stopped and the stage at fault named."""
    max_message_mb: int = 64

    def __post_init__(self) -> None:
        _require(self.timeout_s > 2 * self.heartbeat_s, "timeout_s must be above twice heartbeat_s")
        _require(self.commit_groups >= 1, "commit_groups must be at least 1")
        _require(self.disk_reserve_mb >= 0, "disk_reserve_mb must be at least 0")


class SamplerConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Inference."""

    count: int = 1
    """Sampler processes that `rlsp run` starts on this machine."""
    engine: Literal["auto", "vllm", "torch", "scripted"] = "auto"
    groups_in_flight: int = 16
    """Credit: prompts one sampler works on at once."""
    threads: int = 1
    """CPU threads of one engine."""
    memory: float = 0.3
    """GPU: share of the card for vLLM. CPU: GiB for the KV cache."""
    max_sequences: int = 128
    """Rollouts that decode at once in one engine."""
    tensor_parallel: int = 1
    probe_tolerance: float = 0.0
    """Largest difference of the probe's log-probs after loading weights. 0: 1e-3 for float32, 0.5 for bfloat16."""


class VerifierConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Checking answers."""

    count: int = 1
    """Verifier services that `rlsp run` starts."""
    processes: int = 1
    """Killable worker processes of one service."""
    groups_in_flight: int = 32
    deadline_s: float = 5.0
    """A check that takes longer is killed; verdict `timeout`."""
    memory_mb: int = 2048
    """Address space of a worker process; more is verdict `error`."""


class LearnerConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Training."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    tokens_per_microbatch: int = 8192
    """Packed tokens of one forward and backward pass."""
    gradient_checkpointing: bool = False
    checkpoint_every: int = 16
    """Optimizer steps between checkpoints; the last step of a stage always makes one."""
    keep_checkpoints: int = 2
    weights_dir: str = ""
    """Where published weights lie. Empty: shared memory (/dev/shm) when there is room, else the run directory."""
    keep_weights: int = 3
    """Published versions that stay on disk."""

    def __post_init__(self) -> None:
        _require(self.keep_checkpoints >= 2, "keep_checkpoints must be at least 2: one may be damaged")
        _require(self.keep_weights >= 2, "keep_weights must be at least 2: a sampler may still be loading one")


class OptimizerConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How gradients become steps."""

    name: Literal["adamw", "muon"] = "adamw"
    """muon: Muon on the matrices, AdamW on the rest."""
    lr: float = 1e-6
    """Of AdamW."""
    muon_lr: float = 0.02
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    warmup_steps: int = 0
    """Optimizer updates."""
    schedule: Literal["constant", "cosine"] = "constant"
    floor: float = 0.1
    """Cosine ends at this share of lr."""


class RewardConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """R = alpha * correct + (1 - alpha) * R_explore (RLSP, Eq. 1), composed at the learner from stored parts."""

    alpha: float = 0.8
    alpha_end: float = -1.0
    """Reached linearly at the last step of the stage; -1: alpha stays."""
    explore: Literal["none", "len_inv", "len_inv_sqrt", "len_exp", "steps", "judge", "novelty"] = "none"
    """What R_explore pays; docs/rewards.md."""
    scale: float | Literal["auto"] = 1000.0
    """C of the length family, in tokens; for "steps" the decay base is `1 - 1/scale`. auto: half the largest C with
    which a right answer of max_new_tokens / 16 and more beats every wrong one; 20/3 for "steps"."""
    clip: float = 10.0
    """Rewards are clipped to [-clip, clip]."""
    penalties: list[Literal["repetition", "over_long", "garbled"]] = []
    """T1: a rollout with one of these faults earns -1 whatever its answer; docs/rewards.md."""

    def __post_init__(self) -> None:
        _require(0.0 <= self.alpha <= 1.0, f"alpha {self.alpha} must lie in 0..1")
        _require(self.alpha_end == -1.0 or 0.0 <= self.alpha_end <= 1.0, "alpha_end must lie in 0..1, or be -1")
        least = 1.0 if self.explore == "steps" else 0.0
        _require(
            self.scale == "auto" or least <= float(self.scale) < float("inf"),
            f'scale {self.scale} must be at least {least:g} for explore {self.explore!r}, or "auto"',
        )


class AlgorithmChoice(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The loss."""

    name: str = "grpo"
    """A module of rlsp_async.algos, or a dotted module of your own."""
    preset: str = ""
    """One of that module's PRESETS; `options` go on top."""
    options: dict[str, Any] = {}
    """Decoded by that module's `Config`."""


class PromptsConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which prompt is issued next."""

    name: str = "uniform"
    """A module of rlsp_async.prompts, or a dotted module of your own."""
    options: dict[str, Any] = {}
    """Decoded by that module's `Config`."""


class TemperatureConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """At which temperature the rollouts of a stage are drawn; evaluations stay at sampling.temperature."""

    name: str = "constant"
    """A module of rlsp_async.temperatures, or a dotted module of your own."""
    options: dict[str, Any] = {}
    """Decoded by that module's `Config`."""


class SuccessReplayConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Success replay (ARPO): on when `capacity` is above 0 and the table is not empty."""

    capacity: int = 8
    """Number of successes that are remembered for each prompt; the oldest is forgotten first. 0: no success replay."""
    total: int = 4096
    """The same limit over all prompts together: each success holds the tokens of one rollout in the hub's memory."""
    mean_below: float = 0.2
    """A group has failed when no rollout is correct, the mean of its part "correct" is below this ..."""
    std_below: float = 0.05
    """... and the standard deviation of that part is below this."""
    max_age: int = 0
    """How many versions the oldest token of a success may be behind; 0: no bound. `max_lag` does not apply to it."""
    max_uses: int = 0
    """How many failed rollouts one success may replace; 0: no bound."""

    def __post_init__(self) -> None:
        if min(self.capacity, self.max_age, self.max_uses) < 0 or self.total < 1:
            raise ValueError("capacity, max_age and max_uses must be at least 0, total at least 1")
        if self.mean_below <= 0 or self.std_below <= 0:
            raise ValueError("mean_below and std_below must be above 0: else no group has ever failed")


class StageConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which groups a stage trains on, with which algorithm, until when."""

    source: Literal["rollouts", "demonstrations", "imported"] = "rollouts"
    """demonstrations: of the task. imported: what `rlsp import` put into the run; nothing is sampled."""
    start: Literal["previous", "base"] = "previous"
    """Weights it begins with: as the stage before left them, or, for rounds that train anew, those with which the first
    stage that samples (or trains on imported rollouts) began."""
    steps: int = 10
    """Steps (batches, versions) of this stage."""
    groups_per_step: int = 32
    minibatches: int = 1
    """Optimizer updates that share one batch, each on its own part of it."""
    epochs: int = 1
    """Passes over the batch within a step."""
    target_lag: int = 1
    """Slots: at most (target_lag + 1) * groups_per_step * oversample groups are alive. 0 is synchronous RL."""
    max_lag: int = 4
    """A group whose oldest token is more versions behind is dropped as stale."""
    max_uses: int = 1
    """Batches a group may be part of."""
    selection: str = "fifo"
    """Which ready groups make a batch: a module of rlsp_async.replay.selection, or a dotted module of your own."""
    selection_options: dict[str, Any] = {}
    """Decoded by that module's `Config`."""
    success_replay: dict[str, Any] = {}
    """A failed group is trained with a remembered success of its prompt (ARPO), e.g. { capacity = 8 }; empty: never."""
    prompts: PromptsConfig = PromptsConfig()
    temperature: TemperatureConfig = TemperatureConfig()
    spawn: dict[str, Any] = {}
    """Finished rollouts are put to the model again, to be verified, and both are trained (RISE): options of
    `replay/spawn.py`, e.g. { share = 0.125 }; empty: nothing is."""
    drop_no_signal: bool = False
    """Drop groups whose rollouts all earn the same before they are trained (DAPO's dynamic sampling)."""
    oversample: float = 1.0
    """So many times the slots: groups for those that `drop_no_signal` drops are sampled ahead."""
    publish_every: int = 1
    """Steps between published versions; 0: only after the last."""
    algorithm: AlgorithmChoice = AlgorithmChoice()
    optimizer: OptimizerConfig = OptimizerConfig()
    reward: RewardConfig = RewardConfig()

    def __post_init__(self) -> None:
        _require(self.steps >= 1, "steps must be at least 1")
        _require(self.groups_per_step >= 1, "groups_per_step must be at least 1")
        _require(self.target_lag >= 0, "target_lag must be at least 0")
        _require(
            self.max_lag >= self.target_lag,
            f"max_lag {self.max_lag} is below target_lag {self.target_lag}: "
            "every admitted group would be stale before it is trained",
        )
        _require(self.max_uses >= 1, "max_uses must be at least 1")
        _require(self.minibatches >= 1 and self.epochs >= 1, "minibatches and epochs must be at least 1")
        _require(1.0 <= self.oversample <= 8.0, "oversample must lie in 1..8")
        _require(
            self.source != "rollouts" or self.publish_every <= max(1, self.max_lag),
            "publish_every above max_lag: every rollout would be stale before a new version comes out",
        )

    @property
    def capacity(self) -> int:
        """Groups alive at once: (target_lag + 1) * groups_per_step * oversample, rounded up."""
        return math.ceil((self.target_lag + 1) * self.groups_per_step * self.oversample)


class EvaluationConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Held-out prompts, sampled like rollouts and never trained on."""

    prompts: int = 256
    """How many held-out prompts; 0: no evaluation."""
    rollouts: int = 8
    """Per prompt; pass@1 averages over them, pass@k needs k of them."""
    before: list[str] = []
    """Stages before whose first step an evaluation runs."""
    after: list[str] = []
    """Stages after whose last step an evaluation runs."""


class RunConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run."""

    name: str
    seed: int = 0
    runs_dir: str = "runs"
    """The run lives in RUNS_DIR/NAME."""
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
        _require(
            re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name) is not None,
            f"name {self.name!r} is a directory name: letters, digits, dot, underscore, hyphen",
        )
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
        """The stage whose first weights are the base of stages that `start` there; empty when there is none."""
        return next((name for name, stage in self.stages.items() if stage.source != "demonstrations"), "")

    @property
    def directory(self) -> Path:
        return Path(self.runs_dir) / self.name
