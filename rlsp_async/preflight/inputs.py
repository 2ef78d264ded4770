"""What the settings name can be loaded and read: modules and their options, keys, data, the tokenizer.

Everything raises a UserError with one sentence that names the setting. Nothing is written.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from rlsp_async import config
from rlsp_async.config import RunConfig, load_lora, load_success_replay
from rlsp_async.cuda import has_cuda
from rlsp_async.errors import ConfigError, MachineError
from rlsp_async.messages import Probe
from rlsp_async.preflight.estimate import ExtraModels, weight_bytes
from rlsp_async.replay.plan import needs_sampler
from rlsp_async.report.text import bytes_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlsp_async.algos.base import Algorithm, AlgorithmConfig
    from rlsp_async.config import StageConfig
    from rlsp_async.model import ModelInfo
    from rlsp_async.preflight.rows import Measured
    from rlsp_async.tasks.base import Task, Verification
    from rlsp_async.tasks.overlap import Overlap


# --- modules -------------------------------------------------------------------------------------------------------


def check_modules(cfg: RunConfig) -> None:
    """Checks that verifier, algorithms and policies exist and accept their options.

    Imports the algorithms' modules, and torch with them; no model is loaded. Raises ConfigError that names the setting.
    """
    from rlsp_async.prompts.base import load_selector
    from rlsp_async.replay.selection.base import load_selection
    from rlsp_async.tasks.base import load_task
    from rlsp_async.temperatures.base import load_schedule
    from rlsp_async.verifying.base import check_verifier

    task = load_task(cfg.task, cfg.seed)
    check_verifier(cfg)
    _check_environment(cfg)
    if cfg.model.lora:
        _check_adapters(cfg)
    for name, stage in cfg.stages.items():
        _load_algorithm(name, stage)
        try:
            load_selection(stage, cfg.seed)
            load_success_replay(name, stage)
            if stage.source == "rollouts":
                load_selector(stage.prompts, cfg.seed, task.size("train"))
                load_schedule(stage.temperature, cfg.seed, cfg.sampling.temperature)
            _check_spawn(cfg, stage, task)
        except ConfigError as e:
            raise ConfigError(f"stages.{name}: {e}") from None


def _check_adapters(cfg: RunConfig) -> None:
    """Raises ConfigError for targets that a model of ours does not have, and for algorithms without adapters.

    The targets of a model directory are checked when it is loaded.
    """
    from rlsp_async.learning import lora
    from rlsp_async.model import TINY_QWEN2
    from rlsp_async.model.adapter import LLAMA_TARGETS, check_targets

    options = load_lora(cfg.model)
    if options and cfg.model.path in ("", TINY_QWEN2):
        check_targets(options.targets, set(LLAMA_TARGETS), cfg.model.path or "model.scratch")
    for name, stage in cfg.stages.items():
        lora.refuse(_load_algorithm(name, stage)[1], f"stages.{name}.algorithm")


def extra_models(cfg: RunConfig) -> ExtraModels:
    """The models that the learner keeps besides the policy, at most at any time.

    Raises ConfigError, as `check_modules`.
    """
    trained = frozen = averaged = False
    for name, stage in cfg.stages.items():
        algorithm, options = _load_algorithm(name, stage)
        reference = "reference" in algorithm.needs(options)
        trained |= options.critic == "separate"
        frozen |= reference
        averaged |= reference and options.reference_ema > 0
    return ExtraModels(trained=int(trained), frozen=int(frozen), averaged=int(averaged))


def _load_algorithm(name: str, stage: StageConfig) -> tuple[Algorithm, AlgorithmConfig]:
    from rlsp_async.algos.base import load_algorithm

    try:
        return load_algorithm(stage.algorithm)
    except ConfigError as e:
        raise ConfigError(f"stages.{name}: {e}") from None


def _check_environment(cfg: RunConfig) -> None:
    """An environment exists and takes its options, and no stage asks the policy something that it would answer."""
    from rlsp_async.environments.base import load_environment

    environment = config.load_environment(cfg.task)
    if environment is None:
        return
    load_environment(environment)
    for name, stage in cfg.stages.items():
        if stage.spawn:
            raise ConfigError(
                f"stages.{name}.spawn asks the policy to verify a response, and the environment {environment.name!r} "
                "would answer instead of the verifier: take one of the two out"
            )


def _check_spawn(cfg: RunConfig, stage: StageConfig, task: Task) -> None:
    """A stage that spawns verifications needs a task that asks for them and the verifier that reads their answers."""
    from rlsp_async.replay.spawn import load_spawner
    from rlsp_async.verifying.base import verifier_name

    verifies = getattr(task, "verified_by", "")
    if load_spawner(stage, task, cfg.seed) and verifier_name(cfg) != verifies:
        raise ConfigError(
            f"spawn: verifications of task {cfg.task.name!r} are answered in a form that the verifier "
            f"{verifies!r} reads, and this run has {verifier_name(cfg)!r}: take spawn out"
        )


# --- keys ----------------------------------------------------------------------------------------------------------


def key_warnings(cfg: RunConfig) -> list[str]:
    """A sentence when the directory of keys is not on this machine. Otherwise as `require_keys`, which may raise."""
    where = cfg.replay.keys
    if where and not Path(where).expanduser().is_dir():
        return [f"replay.keys: {where}: not on this machine, and `rlsp run` refuses to start; `rlsp keys new {where}`"]
    require_keys(cfg)
    return []


def require_keys(cfg: RunConfig) -> None:
    """Raises UserError unless the hub, and every service that `rlsp run` starts here, has the keys that it needs.

    A hub that listens to other machines needs keys in any case.
    """
    from rlsp_async.wire.auth import require_private
    from rlsp_async.wire.keyring import read_hub_keys, read_worker_keys

    where = cfg.replay.keys
    require_private(cfg.replay.address, has_keys=bool(where))
    read_hub_keys(where)
    here = {"observer": 1, "learner": 1, "sampler": cfg.sampler.count, "verifier": cfg.verifier.count}
    for role, count in here.items():
        for index in range(count):
            read_worker_keys(where, role, f"{role}-{index}")


# --- the model -----------------------------------------------------------------------------------------------------


def require_memory(cfg: RunConfig, shape: ModelInfo) -> None:
    """Raises MachineError when the weights alone are larger than the memory of this machine."""
    needed, there = weight_bytes(cfg, shape), _memory_bytes()
    if needed > there:
        raise MachineError(
            f"model.path: {cfg.model.path or 'model.scratch'}: the weights of about {shape.num_parameters:,} "
            f"parameters in {cfg.model.dtype} take {bytes_text(needed)}, and this machine has {bytes_text(there)} of "
            "memory: take a smaller model or a larger machine"
        )


def model_warnings(cfg: RunConfig) -> list[str]:
    """A sentence for each file of the user's model directory that names Python code, which is not run."""
    from rlsp_async.model import TINY_QWEN2, own_code

    directory = Path(cfg.model.path).expanduser()
    is_brought = cfg.model.path not in ("", TINY_QWEN2) and directory.is_dir()
    return [f"model.path: {sentence}" for sentence in own_code(directory)] if is_brought else []


def _memory_bytes() -> int:
    """Bytes of memory that this machine has, or that its control group may use where that is less."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text(encoding="ascii").strip() if limit.is_file() else ""
    return min(physical, int(text)) if text.isdigit() else physical


# --- data ----------------------------------------------------------------------------------------------------------


def check_data(cfg: RunConfig) -> int:
    """Checks that prompts, held-out prompts and demonstrations can be read.

    Returns: the number of held-out prompts; -1 when the task generates them without end.
    Raises: DataError or ConfigError.
    """
    from rlsp_async.tasks.base import load_task

    task = load_task(cfg.task, cfg.seed)
    size = task.size("test")
    if any(stage.source == "rollouts" for stage in cfg.stages.values()):
        task.prompt("train", 0)
    if cfg.evaluation.is_on:
        if size == 0:
            raise ConfigError(
                f"evaluation.prompts = {cfg.evaluation.prompts}, but task {cfg.task.name!r} has no held-out prompts; "
                "name a file of them (task.options.path_test), or set evaluation.prompts to 0"
            )
        if size is not None and size < cfg.evaluation.prompts:
            raise ConfigError(
                f"evaluation.prompts = {cfg.evaluation.prompts}, but task {cfg.task.name!r} has {size} "
                f"held-out prompts; set it to {size} or less"
            )
        task.prompt("test", cfg.evaluation.prompts - 1)
    if any(stage.source == "demonstrations" for stage in cfg.stages.values()):
        task.demonstration(0)
    return -1 if size is None else size


def find_overlap(cfg: RunConfig) -> Overlap | None:
    """What the training and the test rows of the task have in common; None for a task that reads no rows."""
    from rlsp_async.tasks.base import load_task
    from rlsp_async.tasks.row_task import RowTask

    task = load_task(cfg.task, cfg.seed)
    return task.overlap() if isinstance(task, RowTask) else None


def measure(cfg: RunConfig, model: Path | None, say: Callable[[str], None] = print) -> Measured | None:
    """Measures every row of the task, as task.too_long demands; checks that spawned prompts fit, too.

    Args:
        cfg: the settings.
        model: the model's directory, for its tokenizer; None: a model that the run builds.
        say: shows a line of progress.

    Returns: what was found; None when there is no tokenizer to measure with.
    Raises: ConfigError or DataError.
    """
    from rlsp_async.model import check_planned_vocabulary, planned_tokenizer
    from rlsp_async.preflight.rows import measure_rows
    from rlsp_async.tasks.base import load_task
    from rlsp_async.tasks.fitted import fit_task
    from rlsp_async.tokens import load_tokenizer

    task = load_task(cfg.task, cfg.seed)
    tokenizer = load_tokenizer(model) if model else planned_tokenizer(cfg, task)
    if tokenizer is None:
        return None
    check_planned_vocabulary(cfg, tokenizer)
    measured = measure_rows(cfg, task, tokenizer, say)
    left = fit_task(task, measured.changes).size("test")
    if cfg.evaluation.is_on and left is not None and left < cfg.evaluation.prompts:
        raise ConfigError(
            f"evaluation.prompts = {cfg.evaluation.prompts}, but of the held-out prompts of task {cfg.task.name!r} "
            f"only {left} fit the model's window; set it to {left} or less"
        )
    expected = measured.expected
    for name, stage in cfg.stages.items():
        try:
            expected = max(expected, _check_spawned_prompts(cfg, stage, task, tokenizer))
        except ConfigError as e:
            raise ConfigError(f"stages.{name}: {e}") from None
    return measured._replace(expected=expected)


class LoadedModel(NamedTuple):
    """What is known of a model that was loaded once."""

    engine: str
    """The engine that samples."""
    window: int | None
    """Its window in tokens; None: no sampler starts here, or this machine does not have the engine."""
    probe: Probe
    """The learner's log-probs of a fixed sequence, which the engine must have, too."""


def check_loading(cfg: RunConfig, model: Path, longest_prompt: int) -> LoadedModel:
    """Loads the model once, as the learner does, and tries its export; checks that the engine computes it.

    Args:
        cfg: the settings.
        model: the model's directory.
        longest_prompt: tokens of the longest prompt.

    Raises: DataError, ConfigError, or MachineError.
    """
    import torch

    from rlsp_async.learning.lora import add_adapters
    from rlsp_async.learning.policy import Policy, load_model
    from rlsp_async.learning.publish import make_probe, probe_ids, text_probe_ids, try_export
    from rlsp_async.model import read_model_info
    from rlsp_async.sampling.engines import check_engine

    samples_here = cfg.sampler.count > 0 and needs_sampler(cfg)
    engine = check_engine(cfg, model, longest_prompt) if samples_here else (cfg.sampler.engine, None)
    device = "cuda" if has_cuda() and cfg.learner.device != "cpu" else "cpu"
    threads = torch.get_num_threads()
    torch.set_num_threads(cfg.learner.threads)
    try:
        loaded = load_model(model, cfg.model.dtype, device, cfg.learner.gradient_checkpointing)
        try_export(loaded, model)
        if options := load_lora(cfg.model):
            add_adapters(loaded, options, cfg.seed, cfg.model.path)
        info = read_model_info(model)
        text = text_probe_ids(_test_prompts(cfg, model), info.vocabulary, info.context)
        ids = probe_ids(cfg.seed, info.vocabulary, info.context) if text is None else text
        probe = make_probe(Policy(loaded), ids)
    finally:
        torch.set_num_threads(threads)
    return LoadedModel(*engine, probe)


def _test_prompts(cfg: RunConfig, model: Path) -> Iterator[list[int]]:
    """The encoded prompts of the task's test split, in order; none where the task has no such split."""
    from rlsp_async.tasks.base import load_task
    from rlsp_async.tokens import TokenizerCodec

    task = load_task(cfg.task, cfg.seed)
    codec = TokenizerCodec(model, (), cfg.task.template_options)
    size = task.size("test")
    for index in itertools.count() if size is None else range(size):
        yield codec.encode(task.prompt("test", index))


def _check_spawned_prompts(cfg: RunConfig, stage: StageConfig, task: Task, tokenizer: PreTrainedTokenizerBase) -> int:
    """The longest prompt that the stage may spawn, in tokens (0: none), must leave room for an answer. Raises
    ConfigError."""
    from rlsp_async.messages import Verdict
    from rlsp_async.model import context_tokens
    from rlsp_async.replay.spawn import load_spawner
    from rlsp_async.tokens import encode_prompt

    spawner = load_spawner(stage, task, cfg.seed)
    if spawner is None:
        return 0
    parent, room = task.prompt("train", 0), cfg.sampling.max_new_tokens
    child = cast("Verification", task).verification(parent, "", Verdict(status="unparsable"))
    lengths = [len(encode_prompt(tokenizer, one, cfg.task.template_options)) for one in (child, parent) if one]
    added = max(0, lengths[0] - lengths[1]) if child else 0
    most = context_tokens(cfg) - added - room
    if spawner.cfg.max_tokens > most:
        raise ConfigError(
            f"spawn.max_tokens = {spawner.cfg.max_tokens}: with {added} tokens of the question and "
            f"sampling.max_new_tokens = {room} such a prompt exceeds the model's window; set it to {most} or less"
        )
    return int(spawner.cfg.max_tokens) + added
