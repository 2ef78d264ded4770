"""Checkpoints: complete or absent, checked by digest, safetensors and JSON only.

    checkpoints/step-00000012/state.json  tensors.safetensors  DONE      OWNER (fence.py)

A checkpoint is written into a temporary directory, synced, renamed, and its parent directory synced: it survives a
power cut. DONE holds the SHA-256 of each file. A damaged checkpoint is logged and renamed to .step-XXXXXXXX.damaged,
and the one before it is loaded. A kill at any moment leaves the last two complete checkpoints, or the newest and the
one in progress.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlsp_async.errors import DataError, MachineError
from rlsp_async.files import readable, sha256, sync
from rlsp_async.learning.fence import WriteFence

_NAME = re.compile(r"step-(\d{8})")
_DAMAGED = re.compile(r"\.step-\d{8}\.damaged")
_DONE = "DONE"
log = structlog.get_logger()


@dataclass(frozen=True)
class Checkpoint:
    """What is saved: tensors of the host by name (`host_copy`), and a state that JSON can hold."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def host_copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies tensors to memory of the host that nobody else writes to; from a GPU into pinned pages, with one wait.

    Args:
        tensors: by name, on any device.

    Returns:
        the copies, contiguous, by name.
    """
    copies = {}
    for name, tensor in tensors.items():
        source = tensor.detach()
        copies[name] = torch.empty(source.shape, dtype=source.dtype, pin_memory=source.is_cuda)
        copies[name].copy_(source, non_blocking=source.is_cuda)
    if any(tensor.is_cuda for tensor in tensors.values()):
        torch.cuda.current_stream().synchronize()
    return copies


def save(directory: Path, checkpoint: Checkpoint, keep: int, fence: WriteFence | None = None) -> Path:
    """Writes step-XXXXXXXX and removes all but the newest `keep` checkpoints.

    Args:
        directory: RUN/checkpoints.
        checkpoint: what to save.
        keep: number of checkpoints that stay.
        fence: the right to write; None: nothing else writes here.

    Returns:
        the checkpoint's directory.

    Raises:
        MachineError: the disk refuses.
        FencedError: a newer start of the learner has claimed the run.
    """
    target = directory / f"step-{checkpoint.step:08d}"
    fence = fence or WriteFence(directory, 0)
    try:
        replace_directory(target, lambda temporary: _write(temporary, checkpoint), fence)
        _prune(directory, keep, fence)
    except (OSError, SafetensorError) as e:
        fence.check()  # a newer start removes what this one prepares
        raise MachineError(f"{target}: the checkpoint cannot be written: {e}; free some space") from e
    return target


def load_newest(directory: Path) -> Checkpoint | None:
    """Loads the newest checkpoint whose files match their digests.

    Args:
        directory: RUN/checkpoints.

    Returns:
        the checkpoint; None when there is no checkpoint at all.

    Raises:
        DataError: there are checkpoints and all are damaged; to start over silently would lose the run.
    """
    paths, reasons = list_complete(directory), dict[Path, str]()
    for path in paths:
        try:
            checkpoint = _read(path)
        except (OSError, ValueError, KeyError, SafetensorError) as e:
            reasons[path] = str(e)
            log.warning("checkpoint_damaged", path=str(path), error=str(e))
            continue
        for damaged in reasons:
            _set_aside(damaged)
        return checkpoint
    if paths:
        text = "; ".join(f"{path.name}: {reason}" for path, reason in reasons.items())
        raise DataError(
            f"{directory}: no checkpoint can be loaded ({text}); put back a copy of one, or give the run "
            "another name to begin again"
        )
    return None


def read(directory: Path) -> Checkpoint:
    """Reads one checkpoint, which a learner may remove meanwhile.

    Args:
        directory: RUN/checkpoints/step-XXXXXXXX.

    Returns:
        the checkpoint.

    Raises:
        DataError: it is not complete, or damaged.
    """
    if not (directory / _DONE).is_file():
        raise DataError(
            f"{directory}: it has no file DONE, so it is not complete, or was removed just now; choose another step"
        )
    try:
        return _read(directory)
    except (OSError, ValueError, KeyError, SafetensorError) as e:
        raise DataError(f"{directory}: the checkpoint is damaged: {e}; choose another step") from e


def step_of(directory: Path) -> int:
    """The step that the name of a checkpoint says: step-00000012 -> 12."""
    return int(directory.name.removeprefix("step-"))


def list_complete(directory: Path) -> list[Path]:
    """Lists the checkpoints that have their final name, newest first."""
    if not directory.is_dir():
        return []
    return sorted((p for p in directory.iterdir() if _NAME.fullmatch(p.name)), reverse=True)


def replace_directory(target: Path, write: Callable[[Path], None], fence: WriteFence) -> None:
    """Writes a directory whole, durably, in the place of what stood there.

    The older directory is set aside first and comes back if the exchange fails; after a kill between the two renames
    `WriteFence.sweep` finishes the exchange.

    Args:
        target: the directory's final name.
        write: writes the files into the temporary directory that it is given.
        fence: the right to write.

    Raises:
        FencedError: a newer start of the learner has claimed the run meanwhile.
        OSError: the disk refuses.
    """
    temporary, aside = fence.temporary(target), target.with_name(f".{target.name}.old")
    shutil.rmtree(temporary, ignore_errors=True)
    target.parent.mkdir(exist_ok=True)  # never RUN itself: it may have been moved away
    temporary.mkdir()
    write(temporary)
    for path in temporary.iterdir():
        sync(path)
    sync(temporary)
    fence.check()
    if target.exists():
        shutil.rmtree(aside, ignore_errors=True)
        target.replace(aside)
    try:
        temporary.replace(target)
    except OSError:
        if aside.exists() and not target.exists():
            aside.replace(target)
        raise
    sync(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _prune(directory: Path, keep: int, fence: WriteFence) -> None:
    """Removes old checkpoints, each renamed first: no kill leaves a part of a checkpoint under its final name."""
    for old in list_complete(directory)[keep:]:
        fence.check()
        gone = old.with_name(f".{old.name}.gone")
        old.replace(gone)
        shutil.rmtree(gone)
    for damaged in [path for path in directory.iterdir() if _DAMAGED.fullmatch(path.name)]:
        if len(list_complete(directory)) >= keep:
            shutil.rmtree(damaged)


def _set_aside(path: Path) -> None:
    """Renames a damaged checkpoint, so that its step can be saved again and no audit takes it for a checkpoint."""
    aside = path.with_name(f".{path.name}.damaged")
    shutil.rmtree(aside, ignore_errors=True)
    path.replace(aside)


def _write(directory: Path, checkpoint: Checkpoint) -> None:
    """Writes the files of a checkpoint; DONE last, with the digests of the others."""
    save_file(checkpoint.tensors, directory / "tensors.safetensors")
    readable(directory)
    state = {**checkpoint.state, "step": checkpoint.step}
    (directory / "state.json").write_text(json.dumps(state, indent=1, sort_keys=True), encoding="utf-8")
    digests = {p.name: sha256(p) for p in sorted(directory.iterdir())}
    (directory / _DONE).write_text(json.dumps(digests, indent=1), encoding="utf-8")


def _read(directory: Path) -> Checkpoint:
    """Reads a checkpoint. Raises ValueError when a file does not have the digest that was written."""
    digests = json.loads((directory / _DONE).read_text(encoding="utf-8"))
    if not isinstance(digests, dict):
        raise ValueError(f"{_DONE} is not what was written")
    for name in ("state.json", "tensors.safetensors"):
        if sha256(directory / name) != digests.get(name):
            raise ValueError(f"{name} does not have the digest that was written")
    state = json.loads((directory / "state.json").read_text(encoding="utf-8"))
    return Checkpoint(int(state["step"]), load_file(directory / "tensors.safetensors"), state)
