"""Where a run's published weights lie, and how the place is cleaned at the end.

`learner.weights_dir` when set; else /dev/shm/rlsp-NAME-HASH when it has room for four copies of the model (the kept
versions and the one being written); else RUN/weights. HASH is of the run's absolute directory, so two runs of one name
in different places never meet.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from rlsp_async.config import RunConfig
from rlsp_async.weights.file import SHARED_MEMORY, FileTransport, versions

COPIES = 4


def choose_directory(cfg: RunConfig, model_bytes: int, shared_memory: Path = SHARED_MEMORY) -> Path:
    """The directory into which the learner publishes. Deterministic but for the room that is free in memory."""
    if cfg.learner.weights_dir:
        return Path(cfg.learner.weights_dir).resolve()
    in_memory = shared_directory(cfg, shared_memory)
    if in_memory.is_dir() or _free_bytes(shared_memory) >= max(COPIES, cfg.learner.keep_weights + 1) * model_bytes:
        return in_memory
    return cfg.directory.resolve() / "weights"


def shared_directory(cfg: RunConfig, shared_memory: Path = SHARED_MEMORY) -> Path:
    """The run's own directory in shared memory, whether it exists or not."""
    digest = hashlib.sha256(str(cfg.directory.resolve()).encode()).hexdigest()[:8]
    return shared_memory / f"rlsp-{cfg.name}-{digest}"


def clean(cfg: RunConfig, shared_memory: Path = SHARED_MEMORY) -> None:
    """Removes a run's published weights. In a directory that the user chose only our own files go."""
    for directory in (shared_directory(cfg, shared_memory), cfg.directory.resolve() / "weights"):
        if directory.is_dir():
            shutil.rmtree(directory)
    if cfg.learner.weights_dir:
        directory = Path(cfg.learner.weights_dir)
        FileTransport(directory).prune(0)
        if directory.is_dir() and not versions(directory) and not any(directory.iterdir()):
            directory.rmdir()


def _free_bytes(directory: Path) -> int:
    return shutil.disk_usage(directory).free if directory.is_dir() else 0
