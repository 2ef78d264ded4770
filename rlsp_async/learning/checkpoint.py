"""Checkpoints: complete or absent, checked by digest, safetensors and JSON only.

    checkpoints/step-00000012/state.json  tensors.safetensors  DONE

A checkpoint is written into a temporary directory, synced, renamed, and its parent synced. DONE holds the SHA-256 of
each file. A damaged checkpoint is passed over in favour of the one before it, and said.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlsp_async.errors import DataError, MachineError

_NAME = re.compile(r"step-(\d{8})")
_DONE = "DONE"
log = structlog.get_logger()


@dataclass(frozen=True)
class Checkpoint:
    """What was saved: tensors by name and a JSON-able state."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def save(directory: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Writes step-XXXXXXXX and removes all but the newest `keep`. Raises MachineError when the disk refuses."""
    target = directory / f"step-{checkpoint.step:08d}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with_directory(target, lambda place: _write(place, checkpoint))
        for old in complete(directory)[keep:]:
            shutil.rmtree(old)
    except (OSError, SafetensorError) as e:
        raise MachineError(f"{target}: the checkpoint cannot be written: {e}; free some space") from e
    return target


def load_newest(directory: Path) -> Checkpoint | None:
    """The newest checkpoint whose files match their digests; None when there is none.

    Raises DataError when there are checkpoints and every one is damaged: starting over silently would lose the run.
    """
    found = complete(directory)
    for place in found:
        try:
            return _read(place)
        except (OSError, ValueError, KeyError, SafetensorError) as e:
            log.warning("checkpoint_damaged", path=str(place), error=str(e))
    if found:
        raise DataError(f"{directory}: all {len(found)} checkpoints are damaged; remove them to begin again")
    return None


def complete(directory: Path) -> list[Path]:
    """Checkpoints that carry their final name, newest first."""
    if not directory.is_dir():
        return []
    return sorted((p for p in directory.iterdir() if _NAME.fullmatch(p.name)), reverse=True)


def with_directory(target: Path, write: Any) -> None:
    """Calls `write(temporary directory)`, then puts the result in the place of `target`, synced."""
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write(temporary)
    for path in temporary.iterdir():
        _sync(path)
    _sync(temporary)
    if target.exists():
        shutil.rmtree(target)
    temporary.replace(target)
    _sync(target.parent)


def _write(place: Path, checkpoint: Checkpoint) -> None:
    tensors = {n: t.detach().to("cpu").contiguous().clone() for n, t in checkpoint.tensors.items()}
    save_file(tensors, place / "tensors.safetensors")
    state = {**checkpoint.state, "step": checkpoint.step}
    (place / "state.json").write_text(json.dumps(state, indent=1, sort_keys=True), encoding="utf-8")
    digests = {p.name: _digest(p) for p in sorted(place.iterdir())}
    (place / _DONE).write_text(json.dumps(digests, indent=1), encoding="utf-8")


def _read(place: Path) -> Checkpoint:
    digests = json.loads((place / _DONE).read_text(encoding="utf-8"))
    for name in ("state.json", "tensors.safetensors"):
        if _digest(place / name) != digests[name]:
            raise ValueError(f"{name} does not have the digest that was written")
    state = json.loads((place / "state.json").read_text(encoding="utf-8"))
    return Checkpoint(int(state["step"]), load_file(place / "tensors.safetensors"), state)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
