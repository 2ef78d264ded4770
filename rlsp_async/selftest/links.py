"""Trials of process groups: gloo, NCCL with one rank, NCCL with a peer that never comes, NCCL in a pair."""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

from rlsp_async.selftest.trials import Observation, TrialSite

JOIN_S = 60.0
"""Longest time of two processes that exchange tensors."""
NO_PEER_S = 5.0
"""Deadline of a group whose other member never comes."""
Member = Callable[[int, int, str, Path], None]


def gloo(site: TrialSite) -> Iterator[Observation]:
    """Two processes: one sends a tensor of the device, the other has it bit for bit."""
    yield from _pair(_gloo_member, site)


def nccl_alone(site: TrialSite) -> Iterator[Observation]:
    """NCCL with one rank computes; with a second that never comes it gives up at its deadline."""
    yield from _together(_nccl_one, site, 1, "NCCL with one rank")
    begun = time.monotonic()
    failed = [finding for finding in _together(_nccl_lonely, site, 1, "a peer that never came") if not finding.ok]
    seconds = time.monotonic() - begun
    yield Observation(
        text=failed[0].text if failed else f"a peer that never came was given up after {seconds:.1f} s, start included",
        ok=not failed,
        figures={"seconds": seconds},
    )


def nccl_pair(site: TrialSite) -> Iterator[Observation]:
    """NCCL between two cards."""
    yield from _pair(_nccl_member, site)


def _pair(member: Member, site: TrialSite) -> Iterator[Observation]:
    yield from _together(member, site, 2, "a pair")


def _together(member: Member, site: TrialSite, world: int, what: str) -> Iterator[Observation]:
    """Runs the members of a group as processes; each writes its sentence into a file of its own."""
    port, spawn = _free_port(), multiprocessing.get_context("spawn")
    written = [site.directory / f"{member.__name__}-{rank}.txt" for rank in range(world)]
    processes = [
        spawn.Process(target=member, args=(rank, port, site.device, written[rank]), daemon=True)
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    end = time.monotonic() + JOIN_S
    for process in processes:
        process.join(max(0.1, end - time.monotonic()))
    for rank, process in enumerate(processes):
        if process.exitcode != 0:
            said = "did not end" if process.exitcode is None else f"ended with {process.exitcode}"
            process.kill()
            yield Observation(text=f"{what}: rank {rank} {said}", ok=False)
        elif written[rank].exists():
            yield Observation(text=written[rank].read_text(encoding="utf-8"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _join(backend: str, rank: int, world: int, port: int, timeout_s: float = JOIN_S / 2) -> None:
    store = TCPStore("127.0.0.1", port, world, rank == 0, timedelta(seconds=timeout_s), wait_for_workers=False)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timedelta(seconds=timeout_s))


def _exchange(rank: int, device: str, num: int) -> str:
    """Broadcasts a tensor from rank 0; returns what was seen. Raises ValueError when it is not what was sent."""
    sent = torch.arange(num, dtype=torch.int32)
    buffer = (sent if rank == 0 else torch.zeros_like(sent)).to(device)
    begun = time.monotonic()
    dist.broadcast(buffer, 0)
    received = buffer.cpu()
    seconds = time.monotonic() - begun
    if not torch.equal(received, sent):
        raise ValueError("the tensor that arrived is not the one that was sent")
    return f"{num * 4 / 2**20:.0f} MiB of {device} in {seconds:.2f} s, {num * 4 / seconds / 1e9:.2f} GB/s"


def _gloo_member(rank: int, port: int, device: str, written: Path) -> None:
    _join("gloo", rank, 2, port)
    text = _exchange(rank, device, 1 << 24 if device == "cuda" else 1 << 20)
    if rank == 1:
        written.write_text(f"gloo: {text}", encoding="utf-8")
    dist.destroy_process_group()


def _nccl_one(rank: int, port: int, device: str, written: Path) -> None:
    torch.cuda.set_device(0)
    _join("nccl", 0, 1, port)
    written.write_text(f"NCCL with one rank: {_exchange(0, 'cuda', 1 << 20)}", encoding="utf-8")
    dist.destroy_process_group()


def _nccl_lonely(rank: int, port: int, device: str, written: Path) -> None:
    """Ends with exit code 0 when the group gives up by itself."""
    torch.cuda.set_device(0)
    begun = time.monotonic()
    try:
        _join("nccl", 0, 2, port, NO_PEER_S)
        dist.broadcast(torch.zeros(1, device="cuda"), 0)
        torch.cuda.synchronize()
    except RuntimeError as e:
        words = f"{time.monotonic() - begun:.1f} s: {str(e)[:120]}"
        written.write_text(words, encoding="utf-8")
        return
    raise ValueError("a broadcast to nobody succeeded")


def _nccl_member(rank: int, port: int, device: str, written: Path) -> None:
    torch.cuda.set_device(rank)
    _join("nccl", rank, 2, port)
    _exchange(rank, f"cuda:{rank}", 1 << 20)  # the first one opens the connection
    text = _exchange(rank, f"cuda:{rank}", 1 << 28)
    if rank == 1:
        written.write_text(f"NCCL: {text}", encoding="utf-8")
    dist.destroy_process_group()
