"""The ranks of one learner: processes that hold parts of one model and train it in lock-step.

    Ranks.single()     one process: nothing is sharded and nothing is sent, and every method returns what it is given
    Ranks(r, N, ...)   process r of N, which have joined torch's process group before (follower.py)

A sharded tensor is cut along its first dimension as `torch.chunk` cuts it: rank r holds rows r c to (r + 1) c with
c = ceil(rows / N), and the last ranks may hold fewer rows or none. Every method but `rows` is a collective: all ranks
call it, in the same order. Sums are made in the order of the ranks or by gloo's fixed schedule, so that N ranks on CPUs
make the same bits again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from rlsp_async.errors import MachineError


@dataclass(frozen=True)
class Ranks:
    """One of the ranks."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"
    """Where this rank computes: "cpu" or "cuda"."""
    orders: Any = None
    """The group over which rank 0 tells the others what to do; it is waited for longer than a collective of a step."""
    group: Any = None
    """The group of all other collectives; None: torch's default group."""
    aside: Ranks | None = None
    """The same ranks over a group of their own, for a thread that writes beside the one that trains."""

    @staticmethod
    def single() -> Ranks:
        """The only rank of a learner without others."""
        return Ranks()

    @property
    def is_first(self) -> bool:
        """Whether this rank talks to the hub, and writes what is written once."""
        return self.rank == 0

    def broadcast_bytes(self, data: bytes = b"") -> bytes:
        """Sends bytes of rank 0 to all ranks, over the group of orders.

        Args:
            data: what to send; of no meaning on other ranks than 0.

        Returns:
            the bytes of rank 0.
        """
        if self.size == 1:
            return data
        length = torch.tensor([len(data)], dtype=torch.int64)
        dist.broadcast(length, 0, group=self.orders)
        content = torch.frombuffer(bytearray(data), dtype=torch.uint8) if self.is_first and data else None
        if content is None:
            content = torch.empty(int(length), dtype=torch.uint8)
        if int(length):
            dist.broadcast(content, 0, group=self.orders)
        return content.numpy().tobytes()

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """Collects bytes of every rank on every rank.

        Args:
            data: what this rank sends.

        Returns:
            the bytes of each rank, in their order.
        """
        if self.size == 1:
            return [data]
        lengths = [torch.empty(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(data)], dtype=torch.int64), group=self.group)
        longest = max(1, *(int(length) for length in lengths))
        padded = torch.frombuffer(bytearray(data.ljust(longest, b"\0")), dtype=torch.uint8)
        parts = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.size)]
        dist.all_gather(parts, padded, group=self.group)
        return [part[: int(length)].numpy().tobytes() for part, length in zip(parts, lengths, strict=True)]

    def agree(self, trouble: str) -> None:
        """Raises MachineError on every rank when one of them has trouble.

        Args:
            trouble: what this rank could not do, in a sentence; empty when all is well.
        """
        told = [part.decode() for part in self.gather_bytes(trouble.encode())]
        for rank, text in enumerate(told):
            if text:
                raise MachineError(text if self.size == 1 else f"rank {rank} of the learner: {text}")

    @torch.no_grad()
    def sum(self, tensor: Tensor) -> Tensor:
        """Adds a tensor up over the ranks, in place, and returns it."""
        if self.size > 1:
            dist.all_reduce(tensor, group=self.group)
        return tensor

    def rows(self, num: int) -> tuple[int, int]:
        """The rows of a sharded tensor with `num` rows that this rank holds, as (begin, end)."""
        each = -(-num // self.size)
        return min(num, self.rank * each), min(num, (self.rank + 1) * each)

    @torch.no_grad()
    def whole(self, shard: Tensor, num: int) -> Tensor:
        """Puts the rows of all ranks together.

        Args:
            shard: the rows of this rank.
            num: rows of the whole tensor.

        Returns:
            the whole tensor, on every rank.
        """
        if self.size == 1:
            return shard
        each = -(-num // self.size)
        padded = shard.new_zeros((each, *shard.shape[1:]))
        padded[: len(shard)] = shard
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded, group=self.group)
        return torch.cat(parts)[:num]

    def shard(self, module: nn.Module, layers: Any, dtype: torch.dtype) -> None:
        """Shards the parameters of a module over the ranks: those of each layer, and the rest, in a group of their own.

        Gradients are added up, not averaged: a token's share is its part of the whole update. Parameters that are added
        to the module later are not sharded.

        Args:
            module: a module with float32 parameters; changed in place.
            layers: its layers, each gathered when it computes; empty: the module is gathered as one.
            dtype: type in which the module computes; gradients are reduced in float32.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        mesh = init_device_mesh(self.device, (self.size,))
        narrow = None if dtype == torch.float32 else dtype
        precision = MixedPrecisionPolicy(param_dtype=narrow, reduce_dtype=torch.float32)
        for part in (*layers, module):
            made = fully_shard(part, mesh=mesh, mp_policy=precision)
            made.set_gradient_divide_factor(1.0)
            made.set_force_sum_reduction_for_comms(True)  # gloo has no reduction with a factor


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds only some rows of a tensor."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


@torch.no_grad()
def local(tensor: Tensor) -> Tensor:
    """The rows of a tensor that this process holds, in the same memory; all of them when it is not sharded."""
    if not is_sharded(tensor):
        return tensor.detach()
    held: Tensor = tensor.to_local()  # type: ignore[attr-defined]
    return held


def rows_of(value: Tensor, tensor: Tensor) -> Tensor:
    """The rows of a whole value that this process holds of a tensor of the same shape."""
    if not is_sharded(tensor):
        return value
    mesh = tensor.device_mesh  # type: ignore[attr-defined]
    begin, end = Ranks(mesh.get_local_rank(), mesh.size()).rows(len(value))
    return value[begin:end]


@torch.no_grad()
def fill(tensor: Tensor, value: Tensor) -> None:
    """Copies a whole value into a tensor, of which this process may hold only some rows."""
    local(tensor).copy_(rows_of(value, tensor))


def release(module: nn.Module) -> None:
    """Lets go of the parameters of other ranks that a pass has gathered; sharded ones are registered again."""
    from torch.distributed.fsdp import FSDPModule

    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()
