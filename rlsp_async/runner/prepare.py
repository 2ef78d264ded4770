"""What must be true before a run begins, and the run directory it begins with.

    python -m rlsp_async.runner.prepare RUN < config.toml

`rlsp run` starts this as a process of its own: it loads transformers and torch to try the tokenizer and to build the
model, and takes that memory with it when it ends. RUN is built beside its place and renamed: whole or not at all.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec

from rlsp_async import config
from rlsp_async.config import RunConfig
from rlsp_async.errors import ConfigError, MachineError, UserError
from rlsp_async.preflight.estimate import Beside

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlsp_async.algos.base import Algorithm, AlgorithmConfig
    from rlsp_async.config import StageConfig
    from rlsp_async.tasks.base import Task, Verification
    from rlsp_async.tasks.overlap import Overlap


def check_modules(cfg: RunConfig) -> None:
    """Verifier, algorithms and policies exist and take their options. Raises ConfigError that names the setting.

    Imports the algorithms' modules, and torch with them; no model is loaded.
    """
    from rlsp_async.config import load_success_replay
    from rlsp_async.prompts.base import load_selector
    from rlsp_async.replay.selection.base import load_selection
    from rlsp_async.tasks.base import load_task
    from rlsp_async.temperatures.base import load_schedule
    from rlsp_async.verifying.base import check_verifier

    task = load_task(cfg.task, cfg.seed)
    check_verifier(cfg)
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


def _load_algorithm(name: str, stage: StageConfig) -> tuple[Algorithm, AlgorithmConfig]:
    from rlsp_async.algos.base import load_algorithm

    try:
        return load_algorithm(stage.algorithm)
    except ConfigError as e:
        raise ConfigError(f"stages.{name}: {e}") from None


def models_beside(cfg: RunConfig) -> Beside:
    """What the algorithms keep beside the policy, the most of any stage. Raises ConfigError, as `check_modules`."""
    trained = frozen = averaged = False
    for name, stage in cfg.stages.items():
        algorithm, options = _load_algorithm(name, stage)
        reference = "reference" in algorithm.needs(options)
        trained |= options.critic == "separate"
        frozen |= reference
        averaged |= reference and options.reference_ema > 0
    return Beside(trained=int(trained), frozen=int(frozen), averaged=int(averaged))


def _check_spawn(cfg: RunConfig, stage: StageConfig, task: Task) -> None:
    """A stage that spawns has a task that can, and the verifier that reads the answers. Raises ConfigError."""
    from rlsp_async.replay.spawn import load_spawner
    from rlsp_async.verifying.base import verifier_name

    verifies = getattr(task, "verified_by", "")
    if load_spawner(stage, task, cfg.seed) and verifier_name(cfg) != verifies:
        raise ConfigError(
            f"spawn: verifications of task {cfg.task.name!r} are answered in a form that the verifier "
            f"{verifies!r} reads, and this run has {verifier_name(cfg)!r}: take spawn out"
        )


def check_data(cfg: RunConfig) -> int:
    """Prompts, held-out prompts and demonstrations can be read; returns how many held-out prompts there are.

    Raises DataError or ConfigError. -1: endless.
    """
    from rlsp_async.tasks.base import load_task

    task = load_task(cfg.task, cfg.seed)
    size = task.size("test")
    if any(stage.source == "rollouts" for stage in cfg.stages.values()):
        task.prompt("train", 0)
    if cfg.evaluation.prompts and (cfg.evaluation.before or cfg.evaluation.after):
        if size is not None and size < cfg.evaluation.prompts:
            raise ConfigError(
                f"evaluation.prompts = {cfg.evaluation.prompts}, but task {cfg.task.name!r} has {size} "
                f"held-out prompts; set it to {size} or less"
            )
        task.prompt("test", cfg.evaluation.prompts - 1)
    if any(stage.source == "demonstrations" for stage in cfg.stages.values()):
        task.demonstration(0)
    return -1 if size is None else size


def overlap_of(cfg: RunConfig) -> Overlap | None:
    """What the training and the test rows of the task have in common; None for a task that reads no rows."""
    from rlsp_async.tasks.base import load_task
    from rlsp_async.tasks.row_task import RowTask

    task = load_task(cfg.task, cfg.seed)
    return task.overlap() if isinstance(task, RowTask) else None


def check_window(cfg: RunConfig, model: Path) -> int:
    """Prompts fit into the model with room for an answer; returns the longest of the first prompts, in tokens."""
    from rlsp_async.model import check_window as longest_prompt
    from rlsp_async.tasks.base import load_task
    from rlsp_async.tokens import load_tokenizer

    task, tokenizer = load_task(cfg.task, cfg.seed), load_tokenizer(model)
    longest = longest_prompt(cfg, task, tokenizer)
    for name, stage in cfg.stages.items():
        try:
            _check_children(cfg, stage, task, tokenizer)
        except ConfigError as e:
            raise ConfigError(f"stages.{name}: {e}") from None
    return longest


def _check_children(cfg: RunConfig, stage: StageConfig, task: Task, tokenizer: PreTrainedTokenizerBase) -> None:
    """The longest prompt that the stage may spawn fits with room for an answer. Raises ConfigError."""
    from rlsp_async.messages import Verdict
    from rlsp_async.model import context_tokens
    from rlsp_async.replay.spawn import load_spawner
    from rlsp_async.tokens import encode_prompt

    spawner = load_spawner(stage, task, cfg.seed)
    if spawner is None:
        return
    parent, room = task.prompt("train", 0), cfg.sampling.max_new_tokens
    child = cast("Verification", task).verification(parent, "", Verdict(status="unparsable"))
    added = max(0, len(encode_prompt(tokenizer, child)) - len(encode_prompt(tokenizer, parent))) if child else 0
    most = min(context_tokens(cfg), cfg.learner.tokens_per_microbatch) - added - room
    if spawner.cfg.max_tokens > most:
        raise ConfigError(
            f"spawn.max_tokens = {spawner.cfg.max_tokens}: with {added} tokens of the question and "
            f"sampling.max_new_tokens = {room} such a prompt exceeds the model's window or "
            f"learner.tokens_per_microbatch; set it to {most} or less"
        )


def prepare(cfg: RunConfig, directory: Path) -> None:
    """Checks everything, then writes RUN whole: config.toml, data.json, model/, logs/.

    Raises UserError and leaves nothing.
    """
    from rlsp_async.model import prepare_model
    from rlsp_async.weights.file import remove_published

    check_modules(cfg)
    check_data(cfg)
    made = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        prepare_model(cfg, made / "model")
        check_window(cfg, made / "model")
        (made / "logs").mkdir()
        (made / "config.toml").write_text(config.to_toml(cfg), encoding="utf-8")
        if overlap := overlap_of(cfg):
            (made / "data.json").write_bytes(msgspec.json.format(msgspec.json.encode(overlap)))
        made.chmod(0o755)
        remove_published(cfg)  # versions of a removed run of this name: newer by number, they would outlive ours
        os.rename(made, directory)
    except OSError as e:
        raise MachineError(f"{directory}: cannot be written: {e.strerror or e}") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)


def main() -> int:
    """Settings on stdin, the directory to make as the only argument. Exit code 2 with one line on stderr."""
    try:
        table = tomllib.loads(sys.stdin.read())
        prepare(config.convert(table, RunConfig, "settings"), Path(sys.argv[1]))
    except UserError as e:
        print(f"rlsp: {e}", file=sys.stderr)
        return e.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
