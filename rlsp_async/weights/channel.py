"""A channel: the weights of one version go from the learner to the processes of one sampler, bucket by bucket.

    learner, rank 0                                    each process of the sampler, rank 1, 2 ..
    send_version(channel, source, ...)  ==buckets==>   receive_version(channel, stream, staging, ...)

A kind of channel is one module that satisfies `Channel` and has `host`, `open_channel` (`gloo.py`, `nccl.py`); the two
functions here are all the rest, and the same for every kind. The channel belongs to one sampler and lives as long as it
does: a peer that dies, hangs or comes late costs its own channel. Nothing here waits without a deadline.

A version is a *stream*: its tensors end to end in the order of its plan, each begun at a multiple of ALIGN bytes. It is
cut into buckets of equal size. Before each bucket goes a header of HEADER bytes: magic, index of the bucket, its bytes,
and whether it follows. It does not when the version was superseded meanwhile: then the stream ends in good order, and
the channel stays open for the next version.

Only a snapshot is read while sending, never a parameter, and never a process group of the trainer: gathering and
sending in turns, on two groups, is how others came to deadlocks.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol

import torch

from rlsp_async.errors import WeightsDelayed
from rlsp_async.weights.sums import DTYPES, Plan, differences

ALIGN = 256
MAGIC = b"RLSB"
_HEADER = struct.Struct("<4sIII")
HEADER = _HEADER.size
"""Bytes before each bucket."""


class StreamEnded(WeightsDelayed):
    """A stream was given up between two buckets; the channel is as good as before."""


class Channel(Protocol):
    """An open connection of `world` processes, in which rank 0 sends and the others receive. Used by one thread."""

    def send(self, bucket: torch.Tensor) -> None:
        """Queues flat bytes (uint8) to all others; returns at once. They must not change until `finish`.

        Raises:
            WeightsDelayed: the channel is broken or closed.
        """
        ...

    def recv(self, bucket: torch.Tensor) -> None:
        """Queues the receiving of exactly as many bytes as the bucket has. Raises WeightsDelayed."""
        ...

    def finish(self, deadline_s: float) -> None:
        """Waits until all that is queued is done.

        Args:
            deadline_s: the longest wait, in seconds.

        Raises:
            WeightsDelayed: a peer is gone, or was silent for too long, or `close` was called; the channel is broken.
        """
        ...

    def close(self) -> None:
        """Ends it, from any thread and in any state; a `finish` that waits raises. Idempotent; returns within 5 s."""
        ...


class Segment(NamedTuple):
    """Where a tensor lies in a stream."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


class Stream:
    """The bytes of a version in their order."""

    def __init__(self, plan: Plan, bucket_bytes: int) -> None:
        """Raises WeightsDelayed for buckets of no byte."""
        if bucket_bytes < 1:
            raise WeightsDelayed(f"buckets of {bucket_bytes} bytes hold nothing")
        self.plan, self.bucket_bytes = plan, bucket_bytes
        self.segments: list[Segment] = []
        self.num_bytes = 0
        for entry in plan:
            begin = -(-self.num_bytes // ALIGN) * ALIGN
            dtype = DTYPES[entry.dtype]
            self.num_bytes = begin + math.prod(entry.shape) * dtype.itemsize
            self.segments.append(Segment(entry.name, dtype, entry.shape, begin, self.num_bytes))

    @property
    def num_buckets(self) -> int:
        """Number of buckets; 0 when there is not one byte."""
        return -(-self.num_bytes // self.bucket_bytes)

    def spans(self) -> Iterator[tuple[int, int]]:
        """(begin, end) of each bucket within the stream."""
        for begin in range(0, self.num_bytes, self.bucket_bytes):
            yield begin, min(begin + self.bucket_bytes, self.num_bytes)

    def tensors(self, staging: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """(name, view) of each tensor in the flat bytes [num_bytes] of a whole stream."""
        for segment in self.segments:
            yield segment.name, staging[segment.begin : segment.end].view(segment.dtype).reshape(segment.shape)


def make_header(index: int, num_bytes: int, goes_on: bool) -> torch.Tensor:
    """The header of a bucket as flat bytes; without `goes_on`, the end of a stream that was given up."""
    return torch.frombuffer(bytearray(_HEADER.pack(MAGIC, index, num_bytes, int(goes_on))), dtype=torch.uint8)


def check_header(header: torch.Tensor, index: int, num_bytes: int) -> None:
    """Raises WeightsDelayed when a header does not announce the bucket that is expected."""
    magic, got_index, got_bytes, goes_on = _HEADER.unpack(bytes(header.cpu().numpy()))
    if magic != MAGIC:
        raise WeightsDelayed(f"no header before bucket {index}, but {magic.hex()}: the two ends are out of step")
    if not goes_on:
        raise StreamEnded(f"the version was superseded before bucket {index}")
    if (got_index, got_bytes) != (index, num_bytes):
        raise WeightsDelayed(
            f"bucket {got_index} of {got_bytes} bytes came in the place of bucket {index} of {num_bytes} bytes"
        )


def send_version(
    channel: Channel,
    stream: Stream,
    contents: Mapping[str, torch.Tensor],
    deadline_s: float,
    why_stop: Callable[[], str],
) -> None:
    """Sends a version. While one bucket travels, the next one is filled.

    Args:
        channel: open, with nothing queued.
        stream: the version.
        contents: the bytes of each tensor, flat uint8 on the host, by name.
        deadline_s: longest time between two buckets.
        why_stop: asked before each bucket; a reason ends the stream in good order.

    Raises:
        StreamEnded: for the reason of `why_stop`.
        WeightsDelayed: the channel broke.
    """
    size = min(stream.bucket_bytes, stream.num_bytes)
    buffers = [torch.zeros(size, dtype=torch.uint8) for _ in range(min(2, stream.num_buckets))]
    for index, (begin, end) in enumerate(stream.spans()):
        bucket = buffers[index % 2][: end - begin]
        reason = why_stop()
        if not reason:
            _fill(bucket, begin, stream, contents)
        channel.finish(deadline_s)
        channel.send(make_header(index, end - begin, not reason))
        if reason:
            channel.finish(deadline_s)
            raise StreamEnded(reason)
        channel.send(bucket)
    channel.finish(deadline_s)


def _fill(bucket: torch.Tensor, begin: int, stream: Stream, contents: Mapping[str, torch.Tensor]) -> None:
    """Copies into a bucket what the stream has from `begin` on."""
    end, at = begin + len(bucket), begin
    for segment in stream.segments:
        if segment.end <= begin or segment.begin >= end:
            continue
        first, last = max(segment.begin, begin), min(segment.end, end)
        bucket[at - begin : first - begin].zero_()  # what stands between two tensors
        bucket[first - begin : last - begin].copy_(contents[segment.name][first - segment.begin : last - segment.begin])
        at = last
    bucket[at - begin :].zero_()


def receive_version(channel: Channel, stream: Stream, staging: torch.Tensor, deadline_s: float) -> None:
    """Receives a version and checks its sums. The staging may lie on the host or on a card.

    Args:
        channel: open, with nothing queued.
        stream: the version.
        staging: flat uint8 of `stream.num_bytes`, to be filled.
        deadline_s: longest time between two buckets.

    Raises:
        StreamEnded: the sender gave it up in good order.
        WeightsDelayed: it did not arrive; what is in the staging is of no use.
    """
    header = torch.zeros(HEADER, dtype=torch.uint8, device=staging.device)
    for index, (begin, end) in enumerate(stream.spans()):
        channel.recv(header)
        channel.finish(deadline_s)
        check_header(header, index, end - begin)
        channel.recv(staging[begin:end])
        channel.finish(deadline_s)
    if wrong := differences(stream.plan, stream.tensors(staging)):
        raise WeightsDelayed(f"what arrived differs from what was sent: {'; '.join(wrong)}")
