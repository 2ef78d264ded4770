"""The interface of a weight transport, and the choice of a transport by the scheme of a reference's URI.

    learner                                              sampler
    take(named tensors) -> Snapshot, in the thread that trains
    publish(snapshot) -> WeightsRef -------- hub ------> fetch(ref) -> local safetensors file, digest or sums checked
    prune(keep): old versions are deleted

Only the reference travels through the hub, never the tensors. Tensors have the names of a Hugging Face checkpoint; an
output head that is tied to the embedding is left out. `file://`, on a disk or in shared memory, is the transport of
`file.py`. A further transport (NCCL, CUDA IPC, a stream) satisfies the same Protocol and adds its scheme to
`transport_for`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import torch

from rlsp_async.errors import WeightsError
from rlsp_async.messages import Probe, WeightsRef
from rlsp_async.weights.file import FileTransport
from rlsp_async.weights.snapshot import Snapshot, TensorInfo

NamedTensors = Iterable[tuple[str, torch.Tensor]]


class WeightTransport(Protocol):
    """How the tensors of a version travel."""

    def prepare(self, infos: Iterable[TensorInfo], incarnation: int = 0) -> None:
        """Makes room for the next version ahead of time, if that makes `take` faster.

        Args:
            infos: the tensors that `take` will be given.
            incarnation: start number of the learner.

        Raises:
            MachineError: there is no room for a version.
        """
        ...

    def take(
        self,
        named_tensors: NamedTensors,
        version: int,
        incarnation: int = 0,
        infos: Iterable[TensorInfo] | None = None,
    ) -> Snapshot:
        """Copies a version, so that training may go on. Nothing is visible to a sampler yet.

        Args:
            named_tensors: (checkpoint name, tensor of any shape) of every weight of the model; read once, in order.
            version: policy version of these weights.
            incarnation: start number of the learner that made them.
            infos: names, types and shapes of the tensors; None: the tensors are all held at once to find them.

        Returns:
            The copy.

        Raises:
            MachineError: there is no room.
        """
        ...

    def publish(self, snapshot: Snapshot, probe: Probe) -> WeightsRef:
        """Makes a version available, completely or not at all. May run while training goes on.

        Args:
            snapshot: what `take` returned.
            probe: what these weights give for the probe's sequence.

        Returns:
            The reference from which `fetch` finds the weights.

        Raises:
            MachineError: the machine refuses, for example because the disk is full.
        """
        ...

    def fetch(self, ref: WeightsRef) -> Path:
        """Brings a version to this machine.

        Args:
            ref: what `publish` returned, possibly on another machine.

        Returns:
            Path of a local safetensors file with exactly the published bytes.

        Raises:
            WeightsError: the version is gone, or its bytes are not the published bytes.
        """
        ...

    def versions(self) -> list[int]:
        """Lists the complete versions that are available now, in no particular order."""
        ...

    def prune(self, keep: int, incarnation: int | None = None) -> list[int]:
        """Deletes old versions.

        Args:
            keep: how many of the newest versions stay.
            incarnation: start number of the caller; versions of a later start of the learner stay. None: no start is
                later.

        Returns:
            The versions that were deleted, in increasing order.
        """
        ...

    def close(self) -> None:
        """Gives back what was prepared; published versions stay."""
        ...


def transport_for(ref: WeightsRef) -> WeightTransport:
    """Chooses the transport that the URI of a reference names.

    Args:
        ref: a published version.

    Returns:
        The transport whose `fetch` reads that version.

    Raises:
        WeightsError: this build knows no transport for the scheme of the URI.
    """
    uri = urlsplit(ref.uri)
    if uri.scheme == "file":
        return FileTransport(Path(uri.path).parent)
    raise WeightsError(f"version {ref.version}: no transport for {ref.uri!r}; this build reads file://")
