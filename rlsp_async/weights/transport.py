"""The interface of a weight transport, and the choice of a transport by the scheme of a reference's URI.

    learner                                              sampler
    publish(named tensors) -> WeightsRef --- hub ------> fetch(ref) -> local safetensors file, digest checked
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

NamedTensors = Iterable[tuple[str, torch.Tensor]]


class WeightTransport(Protocol):
    """How the tensors of a version travel."""

    def publish(self, named_tensors: NamedTensors, version: int, probe: Probe, incarnation: int = 0) -> WeightsRef:
        """Makes a version available, completely or not at all.

        Args:
            named_tensors: (checkpoint name, tensor of any shape) of every weight of the model.
            version: policy version of these weights.
            probe: what these weights give for the probe's sequence.
            incarnation: start number of the learner that made them.

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
