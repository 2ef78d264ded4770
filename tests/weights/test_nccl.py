"""The channel of kind nccl against a group object of our own: what torch's own would do with cards is not run here."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest
import torch

from rlsp_async.errors import WeightsDelayed
from rlsp_async.weights import nccl
from rlsp_async.weights.channel import Stream, receive_version, send_version
from rlsp_async.weights.nccl import NcclChannel, changed_environment
from tests.weights.test_channel import PLAN, TENSORS, flat

CPU = torch.device("cpu")


class FakeWork:
    """A broadcast that is done at the `looks`-th look, or never; `error` is what it ends with."""

    def __init__(self, looks: float, error: str) -> None:
        self.looks, self.error, self.waited = looks, error, 0

    def is_completed(self) -> bool:
        self.looks -= 1
        return self.looks <= 0

    def wait(self) -> None:
        self.waited += 1
        if self.error:
            raise RuntimeError(self.error)


class FakeGroup:
    """Rank 0 keeps what it broadcasts; the others are given it."""

    def __init__(self, sent: list[torch.Tensor], rank: int, looks: float = 3, error: str = "", opens: bool = True):
        self.sent, self.rank, self.looks, self.error, self.opens = sent, rank, looks, error, opens
        self.num_aborts = 0
        self.aborted = threading.Event()

    def eager_connect_single_device(self, device: torch.device) -> None:
        if not self.opens:
            self.aborted.wait(20.0)
            raise RuntimeError("aborted")

    def broadcast(self, tensors: list[torch.Tensor], options: Any) -> FakeWork:
        assert options.rootRank == 0
        if self.rank == 0:
            self.sent.append(tensors[0].clone())
        elif self.sent:
            tensors[0].copy_(self.sent.pop(0))
        return FakeWork(self.looks, self.error)

    def abort(self) -> None:
        self.num_aborts += 1
        self.aborted.set()


def channel(group: FakeGroup) -> NcclChannel:
    return NcclChannel("c", group, CPU)


def test_a_version_goes_through_and_the_works_are_waited_for_in_order():
    sent: list[torch.Tensor] = []
    one, other = channel(FakeGroup(sent, 0)), channel(FakeGroup(sent, 1))
    one.connect(5.0)
    stream = Stream(PLAN, 1000)
    send_version(one, stream, flat(TENSORS), 5.0, str)
    staging = torch.empty(stream.num_bytes, dtype=torch.uint8)
    receive_version(other, stream, staging, 5.0)
    assert all(torch.equal(tensor, TENSORS[name]) for name, tensor in stream.tensors(staging))


@pytest.mark.parametrize(
    ("looks", "error", "words"), [(2, "NCCL error 6", "broke: NCCL error 6"), (float("inf"), "", r"silent for 0\.1 s")]
)
def test_an_error_and_a_deadline_abort_the_communicator_once(looks: float, error: str, words: str):
    group = FakeGroup([], 0, looks, error)
    broken = channel(group)
    broken.send(torch.zeros(4, dtype=torch.uint8))
    with pytest.raises(WeightsDelayed, match=words):
        broken.finish(0.1)
    assert group.aborted.wait(5.0)
    broken.close()
    with pytest.raises(WeightsDelayed, match="closed"):
        broken.recv(torch.zeros(4, dtype=torch.uint8))
    assert group.num_aborts == 1


def test_an_opening_to_which_nobody_comes_is_aborted_at_its_deadline():
    group = FakeGroup([], 0, opens=False)
    with pytest.raises(WeightsDelayed, match=r"not opened: no peer came within 0\.2 s"):
        channel(group).connect(0.2)
    assert group.aborted.wait(5.0) and group.num_aborts == 1


def test_a_close_from_another_thread_ends_a_wait():
    waiting = channel(FakeGroup([], 0, float("inf")))
    waiting.send(torch.zeros(4, dtype=torch.uint8))
    begun = time.monotonic()
    threading.Timer(0.2, waiting.close).start()
    with pytest.raises(WeightsDelayed, match="was closed"):
        waiting.finish(60.0)
    assert time.monotonic() - begun < 30.0


def test_what_would_end_the_process_is_off_for_this_group_alone(monkeypatch: pytest.MonkeyPatch):
    seen: dict[str, Any] = {}

    class Options:
        class Config:
            blocking = 1
            max_ctas = 0

        config = Config()

    class Group:
        def __init__(self, store: object, rank: int, world: int, options: Any) -> None:
            seen.update({name: os.environ.get(name) for name in nccl.MUST_NOT_END_THE_PROCESS})
            seen["blocking"], seen["max_ctas"], seen["seconds"] = (
                options.config.blocking,
                options.config.max_ctas,
                options._timeout.total_seconds(),
            )

    Group.Options = Options  # type: ignore[attr-defined]
    monkeypatch.setattr(nccl, "_DIST", type("Dist", (), {"ProcessGroupNCCL": Group}))
    monkeypatch.setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "3")
    nccl.make_group(None, 0, 2, 7.0)
    assert seen == {
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0",
        "TORCH_NCCL_RETHROW_CUDA_ERRORS": "0",
        "TORCH_NCCL_ENABLE_MONITORING": "0",
        "blocking": 0,
        "max_ctas": 8,
        "seconds": 7.0,
    }
    assert os.environ["TORCH_NCCL_ASYNC_ERROR_HANDLING"] == "3"
    assert "TORCH_NCCL_RETHROW_CUDA_ERRORS" not in os.environ
    with pytest.raises(KeyError), changed_environment({"A_VARIABLE": "1"}):
        raise KeyError
    assert "A_VARIABLE" not in os.environ


def test_this_build_says_whether_it_has_nccl():
    assert nccl.is_available() is torch.distributed.is_nccl_available()
