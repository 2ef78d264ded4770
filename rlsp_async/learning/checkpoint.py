"""Checkpoints: complete or absent, checked by digest, safetensors and JSON only.

    checkpoints/step-00000012/state.json  tensors.safetensors  DONE      OWNER (owner.py)

A checkpoint is written into a temporary directory, synced, renamed, and its parent synced. DONE holds the SHA-256 of
each file. A damaged checkpoint is passed over in favour of the one before it, said, and renamed to
.step-XXXXXXXX.damaged. A kill at any moment leaves the last two complete ones, or the newest and the one being made.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlsp_async.errors import DataError, MachineError
from rlsp_async.learning.owner import Owner

_NAME = re.compile(r"step-(\d{8})")
_DAMAGED = re.compile(r"\.step-\d{8}\.damaged")
_DONE = "DONE"
log = structlog.get_logger()


@dataclass(frozen=True)
class Checkpoint:
    """What was saved: tensors by name and a JSON-able state."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def save(directory: Path, checkpoint: Checkpoint, keep: int, owner: Owner | None = None) -> Path:
    """Writes step-XXXXXXXX and removes all but the newest `keep`.

    Raises MachineError when the disk refuses, FencedError when a newer start of the learner owns the directory.
    """
    target = directory / f"step-{checkpoint.step:08d}"
    owner = owner or Owner(directory, 0)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with_directory(target, lambda place: _write(place, checkpoint), owner)
        _prune(directory, keep, owner)
    except (OSError, SafetensorError) as e:
        owner.check()  # a newer start removes what this one prepares
        raise MachineError(f"{target}: the checkpoint cannot be written: {e}; free some space") from e
    return target


def load_newest(directory: Path) -> Checkpoint | None:
    """The newest checkpoint whose files match their digests; None when there is none.

    Raises DataError when there are checkpoints and every one is damaged: starting over silently would lose the run.
    """
    found, reasons = complete(directory), dict[Path, str]()
    for place in found:
        try:
            checkpoint = _read(place)
        except (OSError, ValueError, KeyError, SafetensorError) as e:
            reasons[place] = str(e)
            log.warning("checkpoint_damaged", path=str(place), error=str(e))
            continue
        for damaged in reasons:
            _set_aside(damaged)
        return checkpoint
    if found:
        text = "; ".join(f"{place.name}: {reason}" for place, reason in reasons.items())
        raise DataError(
            f"{directory}: no checkpoint can be loaded ({text}); put back a copy of one, or give the run "
            "another name to begin again"
        )
    return None


def complete(directory: Path) -> list[Path]:
    """Checkpoints that carry their final name, newest first."""
    if not directory.is_dir():
        return []
    return sorted((p for p in directory.iterdir() if _NAME.fullmatch(p.name)), reverse=True)


def with_directory(target: Path, write: Callable[[Path], None], owner: Owner) -> None:
    """Calls `write(temporary directory)`, then puts the result in the place of `target`, synced.

    What stood there is set aside first and comes back if the exchange fails; `Owner.sweep` finishes what a kill cut
    in two. Raises FencedError when a newer start of the learner has claimed the run meanwhile.
    """
    temporary, aside = owner.temporary(target), target.with_name(f".{target.name}.old")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write(temporary)
    for path in temporary.iterdir():
        _sync(path)
    _sync(temporary)
    owner.check()
    if target.exists():
        shutil.rmtree(aside, ignore_errors=True)
        target.replace(aside)
    try:
        temporary.replace(target)
    except OSError:
        if aside.exists() and not target.exists():
            aside.replace(target)
        raise
    _sync(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _prune(directory: Path, keep: int, owner: Owner) -> None:
    """Renamed before it is removed: no kill leaves a half checkpoint under its final name."""
    for old in complete(directory)[keep:]:
        owner.check()
        gone = old.with_name(f".{old.name}.gone")
        old.replace(gone)
        shutil.rmtree(gone)
    for damaged in [path for path in directory.iterdir() if _DAMAGED.fullmatch(path.name)]:
        if len(complete(directory)) >= keep:
            shutil.rmtree(damaged)


def _set_aside(place: Path) -> None:
    """A damaged checkpoint gives up its name, so that the step can be saved anew and no audit takes it for one."""
    aside = place.with_name(f".{place.name}.damaged")
    shutil.rmtree(aside, ignore_errors=True)
    place.replace(aside)


def _write(place: Path, checkpoint: Checkpoint) -> None:
    tensors = {n: t.detach().to("cpu").contiguous().clone() for n, t in checkpoint.tensors.items()}
    save_file(tensors, place / "tensors.safetensors")
    state = {**checkpoint.state, "step": checkpoint.step}
    (place / "state.json").write_text(json.dumps(state, indent=1, sort_keys=True), encoding="utf-8")
    digests = {p.name: _digest(p) for p in sorted(place.iterdir())}
    (place / _DONE).write_text(json.dumps(digests, indent=1), encoding="utf-8")


def _read(place: Path) -> Checkpoint:
    digests = json.loads((place / _DONE).read_text(encoding="utf-8"))
    if not isinstance(digests, dict):
        raise ValueError(f"{_DONE} is not what was written")
    for name in ("state.json", "tensors.safetensors"):
        if _digest(place / name) != digests.get(name):
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
