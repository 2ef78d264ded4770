"""Checkpoints: complete or absent, checked by digest, safetensors and JSON only.

    checkpoints/step-00000012/state.json  tensors.safetensors  DONE      OWNER (fence.py)
                              tensors-00000-of-00002.safetensors ...     of a learner of two ranks

Of a tensor that is sharded each rank's file has its rows, in the order of the ranks; the others are in the first file
alone. Any number of ranks reads them (`SavedTensors`).

A checkpoint is written into a temporary directory, synced, renamed, and its parent directory synced: it survives a
power cut. DONE holds the SHA-256 of each file. A damaged checkpoint is logged and renamed to .step-XXXXXXXX.damaged,
and the one before it is loaded. A kill at any moment leaves the last two complete checkpoints, or the newest and the
one in progress.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlsp_async.errors import DataError, MachineError
from rlsp_async.files import readable, sha256, sync
from rlsp_async.learning.fence import WriteFence
from rlsp_async.learning.ranks import Ranks

_NAME = re.compile(r"step-(\d{8})")
_DAMAGED = re.compile(r"\.step-\d{8}\.damaged")
_DONE = "DONE"
WHOLE = "tensors.safetensors"
"""The file of a learner of one rank."""
log = structlog.get_logger()


@dataclass(frozen=True)
class Checkpoint:
    """What is saved: tensors of the host by name (`host_copy`), and a state that JSON can hold."""

    step: int
    tensors: Mapping[str, Tensor]
    state: dict[str, Any]


class SavedTensors(Mapping[str, Tensor]):
    """The tensors of several files, whole: each is read when it is asked for, the rows of all ranks put together."""

    def __init__(self, paths: list[Path]) -> None:
        self._files = [safe_open(path, "pt") for path in paths]
        self._holders: dict[str, list[Any]] = {}
        for file in self._files:
            for name in file.keys():  # type: ignore[no-untyped-call]  # noqa: SIM118
                self._holders.setdefault(name, []).append(file)

    def __getitem__(self, name: str) -> Tensor:
        parts = [file.get_tensor(name) for file in self._holders[name]]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._holders)

    def __len__(self) -> int:
        return len(self._holders)


class Prefixed(Mapping[str, Tensor]):
    """The tensors whose names begin with a prefix, without it; each is read when it is asked for."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        self._tensors, self._prefix = tensors, prefix

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[self._prefix + name]

    def __iter__(self) -> Iterator[str]:
        return (name.removeprefix(self._prefix) for name in self._tensors if name.startswith(self._prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)


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


def save(
    directory: Path,
    checkpoint: Checkpoint,
    keep: int,
    fence: WriteFence | None = None,
    ranks: Ranks = Ranks.single(),  # noqa: B008
) -> Path:
    """Writes step-XXXXXXXX and removes all but the newest `keep` checkpoints. All ranks call it.

    Args:
        directory: RUN/checkpoints.
        checkpoint: what to save.
        keep: number of checkpoints that stay.
        fence: the right to write; None: nothing else writes here.
        ranks: who saves together; rank 0 does all but the files of the others.

    Returns:
        the checkpoint's directory.

    Raises:
        MachineError: the disk refuses.
        FencedError: a newer start of the learner has claimed the run.
    """
    target = directory / f"step-{checkpoint.step:08d}"
    if not ranks.is_first:
        _write_part(Path(ranks.broadcast_bytes().decode()), checkpoint.tensors, ranks)
        return target
    fence = fence or WriteFence(directory, 0)
    try:
        replace_directory(target, lambda temporary: _write(temporary, checkpoint, ranks), fence)
        _prune(directory, keep, fence)
    except (OSError, SafetensorError) as e:
        fence.check()  # a newer start removes what this one prepares
        raise MachineError(f"{target}: the checkpoint cannot be written: {e}; free some space") from e
    return target


def load_newest(directory: Path, ranks: Ranks = Ranks.single()) -> Checkpoint | None:  # noqa: B008
    """Loads the newest checkpoint whose files match their digests. All ranks call it, and each checks some files.

    Args:
        directory: RUN/checkpoints.
        ranks: who loads together; the checkpoint may be of another number of ranks.

    Returns:
        the checkpoint; None when there is no checkpoint at all.

    Raises:
        DataError: there are checkpoints and all are damaged; to start over silently would lose the run.
    """
    names = ranks.broadcast_bytes("/".join(path.name for path in list_complete(directory)).encode()).decode()
    paths, reasons = [directory / name for name in names.split("/") if name], dict[Path, str]()
    for path in paths:
        checkpoint, reason = None, ""
        try:
            checkpoint = _read(path, ranks)
        except (OSError, ValueError, KeyError, SafetensorError) as e:
            reason = str(e) or type(e).__name__
        told = [part.decode() for part in ranks.gather_bytes(reason.encode())]
        if any(told):
            reasons[path] = next(filter(None, told))
            log.warning("checkpoint_damaged", path=str(path), error=reasons[path])
            continue
        for damaged in reasons if ranks.is_first else ():
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


def _write(directory: Path, checkpoint: Checkpoint, ranks: Ranks) -> None:
    """Writes the files of a checkpoint; DONE last, with the digests of the others."""
    parts = dict[str, str]()
    if ranks.size == 1:
        save_file(dict(checkpoint.tensors), directory / WHOLE)
    else:
        ranks.broadcast_bytes(str(directory).encode())
        parts = _write_part(directory, checkpoint.tensors, ranks)
    readable(directory)
    state = {**checkpoint.state, "step": checkpoint.step}
    (directory / "state.json").write_text(json.dumps(state, indent=1, sort_keys=True), encoding="utf-8")
    digests = {p.name: parts.get(p.name) or sha256(p) for p in sorted(directory.iterdir())}
    (directory / _DONE).write_text(json.dumps(digests, indent=1), encoding="utf-8")


def _write_part(directory: Path, tensors: Mapping[str, Tensor], ranks: Ranks) -> dict[str, str]:
    """Writes the file of this rank; returns the digests of the files of all ranks, by name.

    Raises:
        MachineError: the disk of one of them refuses.
    """
    names = [f"tensors-{rank:05d}-of-{ranks.size:05d}.safetensors" for rank in range(ranks.size)]
    path, trouble, digest = directory / names[ranks.rank], "", ""
    try:
        save_file(dict(tensors), path)
        sync(path)
        digest = sha256(path)
    except (OSError, SafetensorError) as e:
        trouble = f"{path}: the checkpoint cannot be written: {e}; free some space"
    ranks.agree(trouble)
    return {name: part.decode() for name, part in zip(names, ranks.gather_bytes(digest.encode()), strict=True)}


def _read(directory: Path, ranks: Ranks = Ranks.single()) -> Checkpoint:  # noqa: B008
    """Reads a checkpoint. Raises ValueError when a file that is this rank's to check does not have its digest."""
    digests = json.loads((directory / _DONE).read_text(encoding="utf-8"))
    if not isinstance(digests, dict):
        raise ValueError(f"{_DONE} is not what was written")
    parts = sorted(name for name in digests if name.startswith("tensors-")) or [WHOLE]
    for name in ("state.json", *parts[ranks.rank :: ranks.size]):
        if sha256(directory / name) != digests.get(name):
            raise ValueError(f"{name} does not have the digest that was written")
    state = json.loads((directory / "state.json").read_text(encoding="utf-8"))
    if ranks.size == 1 and parts == [WHOLE]:
        return Checkpoint(int(state["step"]), load_file(directory / WHOLE), state)
    return Checkpoint(int(state["step"]), SavedTensors([directory / name for name in parts]), state)
