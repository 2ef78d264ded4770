"""The weight transport of `file://`: safetensors files in one directory, on a disk or in shared memory.

    snapshot = transport.take(tensors, version)     one copy, in the thread that trains
    ref = transport.publish(snapshot, probe)        sums or digest, the file, its name: in the thread that delivers
    path = transport.fetch(ref)                     the other end: size and sums, or digest, are checked

In shared memory the snapshot is the file: `take` copies into its mapped pages, and `publish` writes the header and
gives it its name. Its digest is that of its sums ("sums:...", `sums.py`). On a disk the snapshot lies in memory, and
`publish` writes it; its digest is the SHA-256 of the file's bytes, because a disk and a network may damage a file.

A file has its name only when it is complete (temporary file, sync on a real disk, rename), so a reader sees the old
version or the new version and never a part. A reader that has a file open goes on reading the old bytes after the file
was replaced or deleted: a buffer is used again only when nobody else has it open (`snapshot.Buffer.is_alone`).

Example: DIRECTORY/v001001-7.safetensors is version 1001, written by the learner's start number 7. The start number is
part of the name, so that a learner that was suspended and goes on late cannot replace the files of a newer start.

Which directory that is, and whose, is decided by `place.py`.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import torch

from rlsp_async.errors import MachineError, WeightsError
from rlsp_async.files import is_shared_memory, rename, sha256
from rlsp_async.messages import Probe, WeightsRef
from rlsp_async.weights import sums
from rlsp_async.weights.place import choose_directory, make_directory, remove_published, shared_directory
from rlsp_async.weights.snapshot import Buffer, Layout, Snapshot, TensorInfo, check_file, infos_of

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

    Satisfies `transport.WeightTransport`. `take` and the other methods may run in two threads.
    """

    def __init__(self, directory: Path, run: Path | None = None) -> None:
        """Takes the directory, and the run that `take` notes in it as its owner."""
        self.directory, self._run = directory, run
        self._in_memory = is_shared_memory(directory)
        self._lock = threading.Lock()
        self._spare: Buffer | None = None
        """A buffer for the next version, whose pages are there already."""
        self._published: dict[Path, Snapshot] = {}
        """The snapshots whose files are there, by their paths."""
        self._num_buffers = 0

    def prepare(self, infos: Iterable[TensorInfo], incarnation: int = 0) -> None:
        """Brings in the pages of the next version ahead of time, unless they are there already.

        Args:
            infos: the tensors that `take` will be given.
            incarnation: start number of the caller.

        Raises:
            MachineError: there is no room for a version.
        """
        num_bytes = Layout(infos, self._in_memory).num_bytes
        with self._lock:
            if self._spare is not None and self._spare.num_bytes == num_bytes:
                return
        buffer = self._new_buffer(num_bytes, "spare", incarnation)
        buffer.touch()
        self._keep_spare(buffer)

    def take(
        self,
        named_tensors: Iterable[tuple[str, torch.Tensor]],
        version: int,
        incarnation: int = 0,
        infos: Iterable[TensorInfo] | None = None,
    ) -> Snapshot:
        """Copies a version; nothing is visible to others yet.

        Args:
            named_tensors: (checkpoint name, tensor of any shape and device) of every weight of the model.
            version: policy version of these weights.
            incarnation: start number of the learner that made them.
            infos: names, types and shapes of the tensors; None: the tensors are all held at once to find them.

        Returns:
            The snapshot.

        Raises:
            MachineError: there is no room.
        """
        if infos is None:
            named_tensors = list(named_tensors)
            infos = infos_of(named_tensors)
        layout = Layout(infos, self._in_memory)
        with self._lock:
            buffer, self._spare = self._spare, None
        if buffer is None or buffer.num_bytes != layout.num_bytes:
            _remove(buffer)
            buffer = self._new_buffer(layout.num_bytes, f"version {version}", incarnation)
        snapshot = Snapshot(layout, buffer, version, incarnation)
        try:
            snapshot.fill(named_tensors)
        except BaseException:
            _remove(buffer)
            raise
        return snapshot

    def publish(self, snapshot: Snapshot, probe: Probe) -> WeightsRef:
        """Makes a snapshot the file v<version>-<incarnation>.safetensors, whole or not at all.

        Args:
            snapshot: what `take` returned.
            probe: what these weights give for the probe's sequence.

        Returns:
            The reference of the file, with its digest and size.

        Raises:
            MachineError: the file system refuses.
        """
        path = self.directory / f"v{snapshot.version:06d}-{snapshot.incarnation}.safetensors"
        try:
            make_directory(self.directory, self._run)
            digest = self._name_file(snapshot, path) if self._in_memory else self._write_file(snapshot, path)
        except OSError as e:
            _remove(snapshot.buffer)
            raise self._refused(f"version {snapshot.version}", e) from e
        self._supersede(path, snapshot)
        return WeightsRef(
            version=snapshot.version,
            uri=path.resolve().as_uri(),
            digest=digest,
            num_bytes=snapshot.num_bytes,
            probe=probe,
            incarnation=snapshot.incarnation,
        )

    def _name_file(self, snapshot: Snapshot, path: Path) -> str:
        """Completes the file that a snapshot is, and returns its digest."""
        snapshot.write_header()
        snapshot.buffer.rename(path)
        return sums.digest(snapshot.plan)

    def _write_file(self, snapshot: Snapshot, path: Path) -> str:
        """Writes a snapshot to a disk, and returns its digest."""
        temporary, digest = self._temporary(snapshot.version, snapshot.incarnation), hashlib.sha256()
        try:
            with temporary.open("wb") as file:
                for chunk in snapshot.chunks():
                    digest.update(chunk)
                    file.write(chunk)
            rename(temporary, path, durable=True)
        finally:
            temporary.unlink(missing_ok=True)
        return "sha256:" + digest.hexdigest()

    def _supersede(self, path: Path, snapshot: Snapshot) -> None:
        """Keeps the snapshot of a file. On a disk only the newest one stays in memory: the others have their files."""
        with self._lock:
            older = {} if self._in_memory else {p: s for p, s in self._published.items() if not s.is_held}
            for each in older:
                del self._published[each]
            self._published[path] = snapshot
        if older and self._spare is None:
            self._keep_spare(next(iter(older.values())).buffer)

    def _new_buffer(self, num_bytes: int, what: str, incarnation: int) -> Buffer:
        try:
            make_directory(self.directory, self._run)
            return Buffer(num_bytes, self._unused_name(incarnation) if self._in_memory else None)
        except OSError as e:
            raise self._refused(what, e) from e

    def _refused(self, what: str, e: OSError) -> MachineError:
        return MachineError(
            f"{what} cannot be written to {self.directory}: {e}; free some space or set learner.weights_dir"
        )

    def _temporary(self, number: int, incarnation: int) -> Path:
        return self.directory / f".v{number:06d}-{incarnation}.tmp"

    def _unused_name(self, incarnation: int) -> Path:
        """A temporary name that no buffer of this start has."""
        self._num_buffers += 1
        return self._temporary(self._num_buffers, incarnation)

    def _keep_spare(self, buffer: Buffer) -> None:
        with self._lock:
            older, self._spare = self._spare, buffer
        _remove(older)

    def fetch(self, ref: WeightsRef) -> Path:
        """Finds the file of a version and checks its size, and its sums or its digest.

        Args:
            ref: a published version.

        Returns:
            The path of its file.

        Raises:
            WeightsError: the file is gone or its bytes are not the published bytes; the message has both digests, or
                names the tensors.
        """
        path = Path(unquote(urlsplit(ref.uri).path))
        try:
            num_bytes = path.stat().st_size
            if num_bytes == ref.num_bytes and ref.digest.startswith(sums.PREFIX):
                check_file(path, ref.digest)
                return path
            digest = file_digest(path)
        except OSError as e:
            raise WeightsError(f"version {ref.version}: {path} cannot be read: {e.strerror}") from e
        except WeightsError as e:
            raise WeightsError(f"version {ref.version}: {e}") from e
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
                    self._delete(path)
        old = [file for file in files if file[0] not in kept and may_delete(file[1])]
        for _, _, path in old:
            self._delete(path)
        return sorted({version for version, _, _ in old})

    def _delete(self, path: Path) -> None:
        """Removes a version; its buffer may become the spare one."""
        with self._lock:
            snapshot, has_spare = self._published.pop(path, None), self._spare is not None
        buffer = snapshot.buffer if snapshot is not None and not snapshot.is_held else None
        if buffer is None or buffer.path is None or has_spare:
            path.unlink(missing_ok=True)
        elif path.exists():
            # Under its new name nobody finds it any more; then the kernel is asked who has it open.
            buffer.rename(self._unused_name(snapshot.incarnation if snapshot is not None else 0))
            if buffer.is_alone():
                self._keep_spare(buffer)
            else:
                _remove(buffer)

    def close(self) -> None:
        """Gives the spare buffer back; published versions stay. `take` and `prepare` may be called again."""
        with self._lock:
            spare, self._spare = self._spare, None
        _remove(spare)


def list_versions(directory: Path) -> list[int]:
    """Lists the complete versions in a directory, in no particular order; empty when there is no directory."""
    return list({version for version, _, _ in _version_files(directory)})


def file_digest(path: Path) -> str:
    """Returns the digest of a file's bytes as a `WeightsRef` holds it: "sha256:" and 64 hexadecimal digits."""
    return "sha256:" + sha256(path)


def _remove(buffer: Buffer | None) -> None:
    """Takes the name of a buffer away; its memory goes with the last one who uses it."""
    if buffer is not None and buffer.path is not None:
        buffer.path.unlink(missing_ok=True)


def _version_files(directory: Path) -> list[tuple[int, int, Path]]:
    """(version, start number of the learner, path) of every complete file."""
    return [
        (int(match[1]), int(match[2]), entry) for entry in _entries(directory) if (match := _NAME.fullmatch(entry.name))
    ]


def _entries(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.is_dir() else []
