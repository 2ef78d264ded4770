"""Weights leave the learner and arrive at the samplers: one Protocol, transports chosen by the scheme of the URI.

    learner                                              sampler
    publish(named tensors) -> WeightsRef --- hub ------> fetch(ref) -> local safetensors file, digest checked
    prune(keep): old versions go

Only the reference travels through the hub; the bytes never do. Named tensors carry Hugging Face checkpoint names; a
head that is tied to the embedding is left out. `file://` (a disk or shared memory) is the transport of `file.py`; what
comes next (NCCL, CUDA IPC, a chunked stream) satisfies the same Protocol and adds its scheme to `transport_for`.
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
    """How the bytes of a version travel."""

    def publish(self, named_tensors: NamedTensors, version: int, probe: Probe, incarnation: int = 0) -> WeightsRef:
        """Makes a version available and says where. Complete or not at all. Raises MachineError (disk full)."""
        ...

    def fetch(self, ref: WeightsRef) -> Path:
        """A local safetensors file with exactly the published bytes. Raises WeightsError when it is not that."""
        ...

    def prune(self, keep: int, incarnation: int | None = None) -> list[int]:
        """Forgets all versions but the newest `keep`, none by a later start of the learner; returns those that went."""
        ...


def publish(
    named_tensors: NamedTensors, directory: Path, version: int, probe: Probe, incarnation: int = 0
) -> WeightsRef:
    """Writes a version into `directory`, atomically. Raises MachineError when the disk says no."""
    return FileTransport(directory).publish(named_tensors, version, probe, incarnation)


def fetch(ref: WeightsRef) -> Path:
    """The local file of a version, size and digest checked. Raises WeightsError with the version and both digests."""
    return transport_for(ref).fetch(ref)


def prune(directory: Path, keep: int, incarnation: int | None = None) -> list[int]:
    """Deletes all versions in `directory` but the newest `keep`, and nothing that a later start of the learner than
    `incarnation` wrote; returns the versions that went."""
    return FileTransport(directory).prune(keep, incarnation)


def transport_for(ref: WeightsRef) -> WeightTransport:
    """The transport that the reference's URI names. Raises WeightsError for a scheme that this build does not know."""
    uri = urlsplit(ref.uri)
    if uri.scheme == "file":
        return FileTransport(Path(uri.path).parent)
    raise WeightsError(f"version {ref.version}: no transport for {ref.uri!r}; this build reads file://")
