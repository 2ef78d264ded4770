"""Where a run publishes its weights: which directory, may it be used, whose is it, and how it is removed.

    learner.weights_dir is set     WEIGHTS_DIR/rlsp-NAME-HASH
    else, where memory can be used /dev/shm/rlsp-NAME-HASH     room for four copies, writable, not of another user
    else                           RUN/weights

HASH is made of the run's absolute directory, so two runs of one name in different places never meet, and two runs with
one `learner.weights_dir` never touch each other's files. The file RUN in the directory names its run. A directory in
shared memory is for its user alone (0700), and one that belongs to somebody else is neither used nor removed: its name
can be foreseen, and /dev/shm is open to every user.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import NamedTuple

from rlsp_async.config import RunConfig
from rlsp_async.errors import MachineError
from rlsp_async.files import SHARED_MEMORY
from rlsp_async.report.text import bytes_text
from rlsp_async.weights import leftovers

COPIES = 4
PRIVATE_MODE = 0o700


class Place(NamedTuple):
    """The directory into which a run publishes."""

    directory: Path
    """Absolute; it need not exist."""
    why: str = ""
    """Why it does not lie in shared memory although nobody chose another place; empty otherwise."""


def find_place(cfg: RunConfig, model_bytes: int, shared_memory: Path = SHARED_MEMORY) -> Place:
    """Chooses the directory of a run; see the module docstring. Nothing is made.

    Args:
        cfg: the run.
        model_bytes: size of one version.
        shared_memory: where shared memory is mounted.

    Returns:
        The directory.

    Raises:
        MachineError: `learner.weights_dir` cannot be written, or has no room.
    """
    if cfg.learner.weights_dir:
        parent = Path(cfg.learner.weights_dir).expanduser().resolve()
        directory = parent / leftovers.shared_name(cfg.name, cfg.directory)
        _require_usable(parent, directory, (cfg.learner.keep_weights + 1) * model_bytes)
        return Place(directory)
    directory = shared_directory(cfg, shared_memory)
    why = _why_not(directory, max(COPIES, cfg.learner.keep_weights + 1) * model_bytes)
    return Place(cfg.directory.resolve() / "weights", why) if why else Place(directory)


def choose_directory(cfg: RunConfig, model_bytes: int, shared_memory: Path = SHARED_MEMORY) -> Path:
    """Returns the directory of `find_place`. Raises MachineError."""
    return find_place(cfg, model_bytes, shared_memory).directory


def shared_directory(cfg: RunConfig, shared_memory: Path = SHARED_MEMORY) -> Path:
    """Returns the run's own directory in shared memory, whether it exists or not."""
    return shared_memory / leftovers.shared_name(cfg.name, cfg.directory)


def make_directory(directory: Path, run: Path | None, shared_memory: Path = SHARED_MEMORY) -> None:
    """Makes the directory of published versions and marks it as the run's own. Idempotent.

    Args:
        directory: as `find_place` chose it.
        run: the run's directory; None: no mark is written.
        shared_memory: where shared memory is mounted.

    Raises:
        MachineError: the directory belongs to another user or to another run.
        OSError: the file system refuses.
    """
    is_private = directory.parent == shared_memory
    directory.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, PRIVATE_MODE if is_private else 0o777)
    if is_private:
        if owner := _other_owner(directory):
            raise MachineError(f"{directory} {owner}: set learner.weights_dir to another place")
        directory.chmod(PRIVATE_MODE)
    if run is None or directory == run.resolve() / "weights":
        return
    marked = leftovers.owner_of(directory)
    if marked not in (None, run.resolve()):
        raise MachineError(
            f"{directory} holds the weights of the run {marked}: set learner.weights_dir to another place"
        )
    if marked is None:
        (directory / leftovers.OWNER).write_text(f"{run.resolve()}\n", encoding="utf-8")


def remove_published(cfg: RunConfig, shared_memory: Path = SHARED_MEMORY) -> None:
    """Deletes a run's published weights, and nothing of another run or of another user."""
    shared = shared_directory(cfg, shared_memory)
    if not _other_owner(shared):
        shutil.rmtree(shared, ignore_errors=True)
    shutil.rmtree(cfg.directory.resolve() / "weights", ignore_errors=True)
    if cfg.learner.weights_dir:
        parent = Path(cfg.learner.weights_dir).expanduser().resolve()
        own = parent / leftovers.shared_name(cfg.name, cfg.directory)
        if leftovers.owner_of(own) in (None, cfg.directory.resolve()):
            shutil.rmtree(own, ignore_errors=True)


def _why_not(directory: Path, needed: int) -> str:
    """Why a directory in shared memory cannot be used; empty when it can. Tries nothing, so nothing is left."""
    memory = directory.parent
    if not memory.is_dir():
        return f"{memory} is not there"
    if not os.access(memory, os.W_OK | os.X_OK):
        return f"{memory} cannot be written"
    if owner := _other_owner(directory):
        return f"{directory} {owner}"
    has = _free_bytes(memory) + _held_bytes(directory)
    if has < needed:
        return f"{memory} has room for {bytes_text(has)}, and the published versions may need {bytes_text(needed)}"
    return ""


def _other_owner(directory: Path) -> str:
    """What is wrong with a directory that is not this user's own; empty when it is, or is not there."""
    try:
        info = os.lstat(directory)
    except OSError:
        return ""
    if not stat.S_ISDIR(info.st_mode):
        return "is no directory"
    return "" if info.st_uid == os.geteuid() else f"belongs to another user (uid {info.st_uid})"


def _require_usable(parent: Path, directory: Path, needed: int) -> None:
    """Raises MachineError when versions cannot be written below `learner.weights_dir`, or do not fit."""
    where = f"learner.weights_dir = {str(parent)!r}"
    there = next(path for path in (directory, *directory.parents) if os.path.lexists(path))
    try:
        with tempfile.TemporaryFile(
            dir=there
        ):  # leaves nothing; asking for permissions says nothing of a read-only disk
            pass
        has = _free_bytes(there) + _held_bytes(directory)
    except OSError as e:
        raise MachineError(
            f"{where} cannot be written ({there}: {e.strerror}): make it writable, or choose another directory"
        ) from None
    if has < needed:
        raise MachineError(
            f"{where} has room for {bytes_text(has)}, and the published versions may need {bytes_text(needed)}: "
            "free some space, choose another directory, or lower learner.keep_weights"
        )


def _held_bytes(directory: Path) -> int:
    """Bytes of the versions that a directory holds already: they are replaced, not added to."""
    try:
        return sum(entry.stat().st_size for entry in os.scandir(directory) if entry.is_file(follow_symlinks=False))
    except OSError:
        return 0


def _free_bytes(directory: Path) -> int:
    return shutil.disk_usage(directory).free if directory.is_dir() else 0
