"""Weights as safetensors files in a directory, on a disk or in shared memory.

A file appears under its name only when it is complete (temporary file, sync on a real disk, rename), so a reader sees
the old version or the new one and never a half. The digest is the SHA-256 of the file's bytes. A reader that still has
a replaced or pruned file open keeps reading the old bytes.

Example: DIRECTORY/v001001-7.safetensors is version 1001, written by the learner's start number 7. The start is part of
the name, so that a process that was stopped and wakes up late can never replace what a newer one wrote.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from rlsp_async.errors import MachineError, WeightsError
from rlsp_async.messages import Probe, WeightsRef

SHARED_MEMORY = Path("/dev/shm")

WRITERS_KEPT = 2

_NAME = re.compile(r"v(\d+)-(\d+)\.safetensors")
_TEMPORARY = re.compile(r"\.v\d+-(\d+)\.tmp")


class FileTransport:
    """One directory of versions; written by one learner, read by any number of samplers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def publish(
        self, named_tensors: Iterable[tuple[str, torch.Tensor]], version: int, probe: Probe, incarnation: int = 0
    ) -> WeightsRef:
        """Writes v<version>-<incarnation>.safetensors atomically. Raises MachineError when the file system refuses."""
        tensors = {name: tensor.detach().to("cpu").contiguous() for name, tensor in named_tensors}
        where = self.directory / f"v{version:06d}-{incarnation}.safetensors"
        temporary = self.directory / f".v{version:06d}-{incarnation}.tmp"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            # One entry: safetensors writes several in random order, and equal weights would differ in their digest.
            save_file(tensors, temporary, metadata={"format": "pt"})
            digest, num_bytes = file_digest(temporary), temporary.stat().st_size
            _replace(temporary, where)
        except (OSError, SafetensorError) as e:
            temporary.unlink(missing_ok=True)
            raise MachineError(
                f"version {version} cannot be written to {self.directory}: {e}; free some space "
                "or set learner.weights_dir"
            ) from e
        return WeightsRef(
            version=version,
            uri=where.resolve().as_uri(),
            digest=digest,
            num_bytes=num_bytes,
            probe=probe,
            incarnation=incarnation,
        )

    def fetch(self, ref: WeightsRef) -> Path:
        """The path of the version's file. Raises WeightsError when it is gone or its size or digest differ."""
        where = Path(unquote(urlsplit(ref.uri).path))
        try:
            num_bytes, digest = where.stat().st_size, file_digest(where)
        except OSError as e:
            raise WeightsError(f"version {ref.version}: {where} cannot be read: {e.strerror}") from e
        if num_bytes != ref.num_bytes or digest != ref.digest:
            raise WeightsError(
                f"version {ref.version}: {where} has {num_bytes} bytes with {digest}, "
                f"published were {ref.num_bytes} bytes with {ref.digest}"
            )
        return where

    def prune(self, keep: int, incarnation: int | None = None) -> list[int]:
        """Deletes all but the newest `keep` versions and what a killed writer left behind; returns versions that went.

        Of a version that several starts of the learner wrote, the newest two stay: a sampler may be reading the older.
        Files of a later start than `incarnation` (None: nobody is later) are left alone.
        """

        def may_go(writer: int) -> bool:
            return incarnation is None or writer <= incarnation

        for entry in _entries(self.directory):
            left = _TEMPORARY.fullmatch(entry.name)
            if left and int(left[1]) != incarnation and may_go(int(left[1])):
                entry.unlink(missing_ok=True)
        files = sorted(_versions(self.directory), reverse=True)
        kept = sorted({version for version, _, _ in files}, reverse=True)[:keep]
        for version in kept:
            for _, writer, path in [file for file in files if file[0] == version][WRITERS_KEPT:]:
                if may_go(writer):
                    path.unlink(missing_ok=True)
        gone = [file for file in files if file[0] not in kept and may_go(file[1])]
        for _, _, path in gone:
            path.unlink(missing_ok=True)
        return sorted({version for version, _, _ in gone})


def versions(directory: Path) -> list[int]:
    """The complete versions in a directory, in no particular order; none when there is no directory."""
    return list({version for version, _, _ in _versions(directory)})


def _versions(directory: Path) -> list[tuple[int, int, Path]]:
    """(version, start of the learner, file) of every complete file."""
    return [
        (int(match[1]), int(match[2]), entry) for entry in _entries(directory) if (match := _NAME.fullmatch(entry.name))
    ]


def file_digest(path: Path) -> str:
    """ "sha256:HEX" of a file's bytes."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def is_shared_memory(path: Path) -> bool:
    """Whether a path lies in memory, where syncing means nothing."""
    return path.resolve().is_relative_to(SHARED_MEMORY)


def _entries(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.is_dir() else []


def _replace(temporary: Path, where: Path) -> None:
    """Renames; on a real disk the bytes and then the name are synced, or a power cut could leave an empty file."""
    if is_shared_memory(where.parent):
        temporary.replace(where)
        return
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(where)
    directory = os.open(where.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
