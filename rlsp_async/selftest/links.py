"""Trials of the channels that carry weights: gloo, NCCL between two cards, and a peer that never comes or dies.

Each end is a process of its own. What arrives lies on the device, and its sums are checked there as in a sampler.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from rlsp_async.errors import WeightsDelayed
from rlsp_async.selftest.trials import TrialNote, TrialSite
from rlsp_async.weights import gloo, kinds, nccl
from rlsp_async.weights.channel import Channel, Stream, receive_version, send_version
from rlsp_async.weights.sums import make_plan

JOIN_S = 75.0
"""Longest time of the two ends together, their start included."""
OPEN_S = 45.0
"""Longest time until both ends are there."""
SILENT_S = 5.0
"""Deadline for an end that never comes, or that died."""
End = Callable[..., None]


def gloo_channel(site: TrialSite) -> Iterator[TrialNote]:
    """A version over gloo to the device; a sampler that dies costs its own channel."""
    yield from _version(site, gloo.KIND, 0)
    yield from _lonely(site, gloo.KIND)


def nccl_alone(site: TrialSite) -> Iterator[TrialNote]:
    """NCCL with a peer that never comes: the opening ends at its deadline, and the process goes on."""
    yield TrialNote(text=f"NCCL {nccl.version()}", ok=nccl.is_available())
    yield from _lonely(site, nccl.KIND)


def nccl_pair(site: TrialSite) -> Iterator[TrialNote]:
    """A version from one card to another."""
    yield from _version(site, nccl.KIND, 1)


def contents(num_bytes: int) -> dict[str, torch.Tensor]:
    """Tensors of three types with about this many bytes in all, on the host."""
    each = num_bytes // 8
    made = torch.Generator().manual_seed(0)
    return {
        "half": torch.randn(each * 2, generator=made).to(torch.bfloat16).reshape(2, -1),
        "single": torch.randn(each, generator=made),
        "scalar": torch.tensor(1.5),
    }


def _version(site: TrialSite, kind: str, card: int) -> Iterator[TrialNote]:
    """Sends a version to another process, whose own card is number `card`."""
    host = gloo.GlooHost("127.0.0.1", 0, OPEN_S)
    num_bytes = (1 << 30) if site.is_gpu else (1 << 22)
    written = [site.directory / f"{kind}-{rank}.txt" for rank in range(2)]
    try:
        where, spawn = host.where(), multiprocessing.get_context("spawn")
        ends = [
            spawn.Process(target=target, args=(kind, where, site.device, at, num_bytes, written[rank]), daemon=True)
            for rank, (target, at) in enumerate(((_send, 0), (_receive, card)))
        ]
        yield from _ended(ends, written)
    finally:
        host.close()


def _ended(ends: list[Any], written: list[Path]) -> Iterator[TrialNote]:
    """Starts processes; what the last one has written, or which of them failed."""
    for end in ends:
        end.start()
    until = time.monotonic() + JOIN_S
    for end in ends:
        end.join(max(0.1, until - time.monotonic()))
    failed = [rank for rank, end in enumerate(ends) if end.exitcode != 0]
    for rank in failed:
        said = "did not end in time" if ends[rank].exitcode is None else f"ended with {ends[rank].exitcode}"
        ends[rank].kill()
        yield TrialNote(text=f"end {rank} {said}", ok=False)
    if not failed:
        yield TrialNote(text=written[-1].read_text(encoding="utf-8"))


def _send(kind: str, where: bytes, device: str, card: int, num_bytes: int, written: Path) -> None:
    """The learner's end."""
    _use(device, card)
    channel, tensors = kinds.open_channel(kind, "selftest", where, 0, 2, OPEN_S), contents(num_bytes)
    stream = Stream(make_plan(tensors.items()), 64 << 20)
    flat = {name: tensor.reshape(-1).view(torch.uint8) for name, tensor in tensors.items()}
    send_version(channel, stream, flat, OPEN_S, lambda: "")
    _close(channel)


def _receive(kind: str, where: bytes, device: str, card: int, num_bytes: int, written: Path) -> None:
    """The sampler's end: checks the sums of what arrives. Raises WeightsDelayed."""
    _use(device, card)
    stream = Stream(make_plan(contents(num_bytes).items()), 64 << 20)
    staging = torch.zeros(stream.num_bytes, dtype=torch.uint8, device=device)
    channel = kinds.open_channel(kind, "selftest", where, 1, 2, OPEN_S)
    begun = time.monotonic()
    receive_version(channel, stream, staging, OPEN_S)
    seconds = time.monotonic() - begun
    written.write_text(
        f"{kind}: {stream.num_bytes / 2**20:.0f} MiB to {device} in {seconds:.2f} s, sums right, "
        f"{stream.num_bytes / seconds / 1e9:.2f} GB/s",
        encoding="utf-8",
    )
    _close(channel)


def _close(channel: Channel) -> None:
    """Closes a channel and waits for its threads: a process that ends in the middle of that aborts."""
    channel.close()
    for thread in threading.enumerate():
        if thread.daemon and thread is not threading.current_thread():
            thread.join(SILENT_S)


def _use(device: str, card: int) -> None:
    if device == "cuda":
        torch.cuda.set_device(card)


def _lonely(site: TrialSite, kind: str) -> Iterator[TrialNote]:
    """Opens a channel whose other end never comes."""
    host = gloo.GlooHost("127.0.0.1", 0, SILENT_S)
    begun = time.monotonic()
    try:
        kinds.open_channel(kind, "lonely", host.where(), 0, 2, SILENT_S).close()
        yield TrialNote(text=f"{kind}: a channel to nobody was opened", ok=False)
    except WeightsDelayed as e:
        seconds = time.monotonic() - begun
        yield TrialNote(
            text=f"{kind}: a peer that never came was given up after {seconds:.1f} s ({str(e)[:80]})",
            ok=seconds < 3 * SILENT_S,
            figures={"given_up_seconds": seconds},
        )
    finally:
        host.close()
