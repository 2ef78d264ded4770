"""The model of a run's checkpoint, or of a stage, as a Hugging Face directory (`rlsp export-model`).

    export_model(run, step=12)              RUN/exported/step-00000012, as RUN/final is written at the end
    export_model(run, stage="sft")          the model as a stage left it

A run that goes on is only read. A checkpoint holds tensors for the learner; the model's configuration, tokenizer and
generation settings come from RUN/model, the directory that the run began with.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from rlsp_async import config
from rlsp_async.config import RunConfig, load_lora
from rlsp_async.errors import DataError, MachineError
from rlsp_async.learning import checkpoint, lora, publish
from rlsp_async.learning.fence import WriteFence
from rlsp_async.learning.policy import Policy, load_model
from rlsp_async.learning.stage import copy_into

MODEL = "model/"
"""How the names of the language model's tensors begin in a checkpoint."""


def export_model(run: Path, step: int | None = None, stage: str = "", out: Path | None = None) -> Path:
    """Writes the model as a directory that `from_pretrained`, vLLM and `model.path` load.

    Args:
        run: the run's directory; the run may go on.
        step: of the checkpoint, counted through all stages; with `stage`, counted within it. None: the newest one.
        stage: without `step`: the model as this stage left it, or its newest checkpoint while it trains.
        out: the directory to write; None: below RUN/exported.

    Returns:
        the directory.

    Raises:
        DataError: there is no such run, stage or step, a checkpoint is not complete or damaged, or `out` is not empty.
        MachineError: the disk refuses.
    """
    cfg = _read_config(run)
    if stage and stage not in cfg.stages:
        raise DataError(f"{run}: there is no stage {stage!r}; there is {', '.join(cfg.stages)}")
    finished = run / "stages" / stage
    if stage and step is None and finished.is_dir():
        return _write(out or run / "exported" / stage, lambda place: _copy(finished, place))
    source = _checkpoint(run, cfg, step, stage)
    target = out or run / "exported" / source.name
    _require_free(target)  # before the model is read
    saved = checkpoint.read(source)
    model, adapters = load_model(run / "model", cfg.model.dtype), load_lora(cfg.model)
    if adapters:
        lora.add_adapters(model, adapters, cfg.seed, str(run / "model"))
        lora.require_base(saved.state.get("base", {}), lora.describe_base(run / "model"), run)
    tensors = checkpoint.Prefixed(saved.tensors, MODEL)
    copy_into(dict(Policy(model).policy_parameters()), tensors, str(source))
    return _write(target, lambda place: publish.write_model(model, run / "model", place, adapters=adapters))


def _read_config(run: Path) -> RunConfig:
    """The settings of a run. Raises DataError when the directory is no run."""
    if not (run / "config.toml").is_file():
        raise DataError(f"{run} is no run: it has no config.toml; name the directory that `rlsp run` made")
    return config.load(run / "config.toml")


def _checkpoint(run: Path, cfg: RunConfig, step: int | None, stage: str) -> Path:
    """The checkpoint that is meant. Raises DataError that lists those there are."""
    there = {checkpoint.step_of(path): path for path in checkpoint.list_complete(run / "checkpoints")}
    first = 1
    for name, section in cfg.stages.items():
        if name == stage:
            there = {n: path for n, path in there.items() if first <= n < first + section.steps}
            break
        first += section.steps
    wanted = max(there, default=0) if step is None else step + (first - 1 if stage else 0)
    if wanted in there:
        return there[wanted]
    of_stage = f" of stage {stage}" if stage else ""
    steps = ", ".join(str(n - (first - 1 if stage else 0)) for n in sorted(there))
    what = "no checkpoint" if step is None else f"no checkpoint of step {step}"
    rest = f"there are those of step {steps}" if there else "there is none yet"
    raise DataError(
        f"{run}: {what}{of_stage}; {rest} (learner.checkpoint_every = {cfg.learner.checkpoint_every}, the newest "
        f"{cfg.learner.keep_checkpoints} are kept)"
    )


def _write(target: Path, write: Callable[[Path], None]) -> Path:
    """Writes a directory whole, under its name at once."""
    _require_free(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.replace_directory(target, write, WriteFence(target.parent, 0))
    except (OSError, SafetensorError) as e:
        raise MachineError(f"{target}: the model cannot be written: {e}; free some space, or give another --out") from e
    return target


def _require_free(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f"{target} is there already, and not an empty directory: give another one with --out")


def _copy(source: Path, place: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file():  # those of adapters lie in a directory of their own
            copy = place / path.relative_to(source)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)
