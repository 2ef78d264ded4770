"""The weight transport of `file://`: safetensors files in one directory, on a disk or in shared memory.

A file has its name only when it is complete (temporary file, sync on a real disk, rename), so a reader sees the old
version or the new version and never a part. The digest is the SHA-256 of the file's bytes. A reader that has a file
open goes on reading the old bytes after the file was replaced or deleted.

Example: DIRECTORY/v001001-7.safetensors is version 1001, written by the learner's start number 7. The start number is
part of the name, so that a learner that was suspended and goes on late cannot replace the files of a newer start.

Which directory that is, and whose, is decided by `place.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from rlsp_async.errors import MachineError, WeightsError
from rlsp_async.files import readable, rename, sha256
from rlsp_async.messages import Probe, WeightsRef
from rlsp_async.weights.place import choose_directory, make_directory, remove_published, shared_directory

__all__ = [
    "FileTransport",
    "choose_directory",
    "file_digest",
    "list_versions",
    "remove_published",
    "shared_directory",
]

WRITERS_KEPT = 2

_NAME = re.compile(r"v(\d+)-(\d+)\.safetensors")
_TEMPORARY = re.compile(r"\.v\d+-(\d+)\.tmp")


class FileTransport:
    """One directory of versions, written by one learner and read by any number of samplers.

    Satisfies `transport.WeightTransport`.
    """

    def __init__(self, directory: Path, run: Path | None = None) -> None:
        """Takes the directory, and the run that `publish` notes in it as its owner."""
        self.directory, self._run = directory, run

    def publish(
        self, named_tensors: Iterable[tuple[str, torch.Tensor]], version: int, probe: Probe, incarnation: int = 0
    ) -> WeightsRef:
        """Writes v<version>-<incarnation>.safetensors whole.

        Args:
            named_tensors: (checkpoint name, tensor of any shape and device) of every weight of the model.
            version: policy version of these weights.
            probe: what these weights give for the probe's sequence.
            incarnation: start number of the learner that made them.

        Returns:
            The reference of the file, with its digest and size.

        Raises:
            MachineError: the file system refuses.
        """
        tensors = {name: tensor.detach().to("cpu").contiguous() for name, tensor in named_tensors}
        path = self.directory / f"v{version:06d}-{incarnation}.safetensors"
        temporary = self.directory / f".v{version:06d}-{incarnation}.tmp"
        try:
            make_directory(self.directory, self._run)
            # One entry: safetensors writes several in random order, and equal weights would differ in their digest.
            save_file(tensors, temporary, metadata={"format": "pt"})
            readable(temporary)
            digest, num_bytes = file_digest(temporary), temporary.stat().st_size
            rename(temporary, path, durable=True)
        except (OSError, SafetensorError) as e:
            temporary.unlink(missing_ok=True)
            raise MachineError(
                f"version {version} cannot be written to {self.directory}: {e}; free some space "
                "or set learner.weights_dir"
            ) from e
        return WeightsRef(
            version=version,
            uri=path.resolve().as_uri(),
            digest=digest,
            num_bytes=num_bytes,
            probe=probe,
            incarnation=incarnation,
        )

    def fetch(self, ref: WeightsRef) -> Path:
        """Finds the file of a version and checks its size and digest.

        Args:
            ref: a published version.

        Returns:
            The path of its file.

        Raises:
            WeightsError: the file is gone or its bytes are not the published bytes; the message has both digests.
        """
        path = Path(unquote(urlsplit(ref.uri).path))
        try:
            num_bytes, digest = path.stat().st_size, file_digest(path)
        except OSError as e:
            raise WeightsError(f"version {ref.version}: {path} cannot be read: {e.strerror}") from e
        if num_bytes != ref.num_bytes or digest != ref.digest:
            raise WeightsError(
                f"version {ref.version}: {path} has {num_bytes} bytes with {digest}, "
                f"published were {ref.num_bytes} bytes with {ref.digest}"
            )
        return path

    def versions(self) -> list[int]:
        """Lists the complete versions, in no particular order; empty when there is no directory."""
        return list_versions(self.directory)

    def prune(self, keep: int, incarnation: int | None = None) -> list[int]:
        """Deletes all but the newest `keep` versions, and temporary files that a killed learner left behind.

        Of a version that several starts of the learner wrote, the files of the newest two starts stay: a sampler may be
        reading the older file.

        Args:
            keep: how many of the newest versions stay.
            incarnation: start number of the caller; files of a later start stay. None: no start is later.

        Returns:
            The versions that were deleted, in increasing order.
        """

        def may_delete(writer: int) -> bool:
            return incarnation is None or writer <= incarnation

        for entry in _entries(self.directory):
            left = _TEMPORARY.fullmatch(entry.name)
            if left and int(left[1]) != incarnation and may_delete(int(left[1])):
                entry.unlink(missing_ok=True)
        files = sorted(_version_files(self.directory), reverse=True)
        kept = sorted({version for version, _, _ in files}, reverse=True)[:keep]
        for version in kept:
            for _, writer, path in [file for file in files if file[0] == version][WRITERS_KEPT:]:
                if may_delete(writer):
                    path.unlink(missing_ok=True)
        old = [file for file in files if file[0] not in kept and may_delete(file[1])]
        for _, _, path in old:
            path.unlink(missing_ok=True)
        return sorted({version for version, _, _ in old})


def list_versions(directory: Path) -> list[int]:
    """Lists the complete versions in a directory, in no particular order; empty when there is no directory."""
    return list({version for version, _, _ in _version_files(directory)})


def file_digest(path: Path) -> str:
    """Returns the digest of a file's bytes as a `WeightsRef` holds it: "sha256:" and 64 hexadecimal digits."""
    return "sha256:" + sha256(path)


def _version_files(directory: Path) -> list[tuple[int, int, Path]]:
    """(version, start number of the learner, path) of every complete file."""
    return [
        (int(match[1]), int(match[2]), entry) for entry in _entries(directory) if (match := _NAME.fullmatch(entry.name))
    ]


def _entries(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.is_dir() else []
