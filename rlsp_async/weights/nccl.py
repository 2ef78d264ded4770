"""The channel of kind "nccl": from card to card, through torch's ProcessGroupNCCL.

The group is made like that of `gloo.py`, over the same store and with the same token, and belongs to one sampler. Its
communicator does not block (config.blocking = 0) and takes few multiprocessors (config.max_ctas). Three things of the
group would end the process when a peer dies, and are turned off for this group alone, by the variables that its
constructor reads: the watchdog's handling of errors (TORCH_NCCL_ASYNC_ERROR_HANDLING), its throwing of CUDA errors
(TORCH_NCCL_RETHROW_CUDA_ERRORS), and the monitor of the watchdog (TORCH_NCCL_ENABLE_MONITORING). A process group of the
trainer in the same process keeps its own. Deadlines are kept here: an opening or a transfer that is late is aborted.

The two ends must load the same NCCL and agree in NCCL_CUMEM_ENABLE and its kin, or the handshake hangs: `kinds.py`
compares them before. Two ranks on one card are refused by NCCL, and `kinds.py` takes gloo then. Bytes are in the clear.

What was run: the logic, against a group object of the tests (opening, transfers, deadlines, aborts), on a CPU. That
build of torch has no NCCL, so ProcessGroupNCCL itself was read (its options, bindings and documented variables, torch
2.13) and not run.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed

from rlsp_async.errors import WeightsDelayed
from rlsp_async.weights.group_channel import GroupChannel, meet, short

KIND = "nccl"
POLL_S = 0.001
"""Between two looks at a transfer: NCCL offers nothing to wait for with a deadline."""
MAX_CTAS = 8
"""Multiprocessors that a transfer may take from what else the card computes."""
MUST_NOT_END_THE_PROCESS = {
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0",
    "TORCH_NCCL_RETHROW_CUDA_ERRORS": "0",
    "TORCH_NCCL_ENABLE_MONITORING": "0",
}
_DIST: Any = torch.distributed
"""Its types are not exported."""
_making = threading.Lock()


def is_available() -> bool:
    """Whether this build of torch has NCCL."""
    return bool(_DIST.is_nccl_available())


def version() -> str:
    """The version of NCCL that torch has loaded. Example: "2.29.7"."""
    return ".".join(str(part) for part in torch.cuda.nccl.version())  # type: ignore[no-untyped-call]


def open_channel(name: str, where: bytes, rank: int, world: int, deadline_s: float) -> NcclChannel:
    """Opens one end of a channel on the present card; returns when all ends are there.

    Args:
        name: of the channel.
        where: what `gloo.GlooHost.where` returned.
        rank: 0 at the learner.
        world: number of ends.
        deadline_s: longest wait.

    Raises:
        WeightsDelayed: another end did not come in time.
    """
    until = time.monotonic() + deadline_s
    try:
        store = meet(name, where, deadline_s)
        group = make_group(store, rank, world, deadline_s)
    except (OSError, RuntimeError, ValueError) as e:
        raise WeightsDelayed(f"channel {name} was not opened: {short(e)}") from None
    channel = NcclChannel(name, group, torch.device("cuda", torch.cuda.current_device()), store)
    channel.connect(until - time.monotonic())
    return channel


def make_group(store: Any, rank: int, world: int, deadline_s: float) -> Any:
    """A process group that never ends the process. Raises RuntimeError."""
    options = _DIST.ProcessGroupNCCL.Options()
    options.config.blocking = 0
    options.config.max_ctas = MAX_CTAS
    options._timeout = timedelta(seconds=deadline_s)
    with _making, changed_environment(MUST_NOT_END_THE_PROCESS):
        return _DIST.ProcessGroupNCCL(store, rank, world, options)


@contextlib.contextmanager
def changed_environment(changes: dict[str, str]) -> Iterator[None]:
    """A block in which some environment variables have other values."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class NcclChannel(GroupChannel):
    """Satisfies `channel.Channel`."""

    kind = KIND

    def __init__(self, name: str, group: Any, device: torch.device, store: Any = None) -> None:
        """Takes a process group, the card, and what the group was opened with."""
        super().__init__(name, group, store)
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def connect(self, seconds: float) -> None:
        """Makes the communicator, which meets the other ends, within a time. Raises WeightsDelayed."""
        errors: list[BaseException] = []
        connected = threading.Event()

        def act() -> None:
            try:
                self._group.eager_connect_single_device(self._device)
            except RuntimeError as e:
                errors.append(e)
            finally:
                connected.set()

        threading.Thread(target=act, name="nccl-open", daemon=True).start()
        if not connected.wait(max(0.0, seconds)) or errors:
            why = short(errors[0]) if errors else f"no peer came within {max(0.0, seconds):.1f} s"
            self.close()
            raise WeightsDelayed(f"channel {self.name} was not opened: {why}")

    def send(self, bucket: torch.Tensor) -> None:
        """Copies the bucket to the card and queues a broadcast from rank 0, which this end is."""
        with self._on_stream():
            self._queue(bucket.to(self._device), None)

    def recv(self, bucket: torch.Tensor) -> None:
        """Queues a broadcast from rank 0, which the other end is."""
        on_card = bucket.device.type == self._device.type
        with self._on_stream():
            self._queue(
                bucket if on_card else torch.empty_like(bucket, device=self._device), None if on_card else bucket
            )

    def _on_stream(self) -> contextlib.AbstractContextManager[object]:
        return torch.cuda.stream(self._stream) if self._stream is not None else contextlib.nullcontext()

    def _transfer(self, work: Any, tensor: torch.Tensor, target: torch.Tensor | None) -> _NcclTransfer:
        return _NcclTransfer(work, tensor, target, self._on_stream)

    def _end(self, group: Any) -> None:
        """Aborts the communicator: an abort may wait for the card."""
        with contextlib.suppress(RuntimeError):  # it is broken already
            group.abort()


class _NcclTransfer:
    """One broadcast under way, which is looked at until it is done. Satisfies `group_channel.Transfer`."""

    def __init__(
        self,
        work: Any,
        card: torch.Tensor,
        host: torch.Tensor | None,
        on_stream: Callable[[], contextlib.AbstractContextManager[object]],
    ) -> None:
        self._work, self._card, self._host, self._on_stream = work, card, host, on_stream
        self._woken = threading.Event()

    def wait(self, seconds: float) -> bool:
        """Whether it is over, in good or in bad order, within these seconds."""
        until = time.monotonic() + seconds
        while not self._work.is_completed():
            if self._woken.wait(POLL_S) or time.monotonic() > until:
                return False
        return True

    def wake(self) -> None:
        """Ends the wait."""
        self._woken.set()

    def finish(self) -> None:
        """Puts what came where it belongs. Raises RuntimeError when the broadcast failed."""
        self._work.wait()
        if self._host is not None:
            with self._on_stream():
                self._host.copy_(self._card)
