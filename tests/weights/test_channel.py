"""A channel, both ends in two processes: what arrives, and what a peer that dies, hangs, or never comes does."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from rlsp_async.errors import MachineError, WeightsDelayed
from rlsp_async.weights import sums
from rlsp_async.weights.channel import Channel, Stream, check_header, make_header, receive_version, send_version
from rlsp_async.weights.gloo import GlooHost, open_channel
from tests.weights.ends import End

TENSORS = {
    "nothing": torch.empty(0, 4),
    "one": torch.tensor([7], dtype=torch.int8),
    "scalar": torch.tensor(-2.5),
    "long": torch.arange(700, dtype=torch.float32).reshape(7, 100),
    "half": torch.linspace(-3, 3, 33).to(torch.bfloat16),
}
PLAN = sums.make_plan(TENSORS.items())
ZEROS = torch.zeros(64 * 2**20, dtype=torch.uint8)
"""More than the buffers of the kernel hold."""
LARGE = sums.make_plan([("large", ZEROS)])


def flat(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.reshape(-1).view(torch.uint8) for name, tensor in tensors.items()}


ENDS_AT_ONCE = """
import threading
from rlsp_async.weights.gloo import GlooHost, open_channel
host = GlooHost("127.0.0.1", 0, 10)
where, ends = host.where(), {}
def come(rank):
    ends[rank] = open_channel("c", where, rank, 2, 10)
threads = [threading.Thread(target=come, args=(rank,)) for rank in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(30)
for end in ends.values():
    end.close()
"""


def test_an_interpreter_may_end_right_after_a_channel() -> None:
    found = subprocess.run([sys.executable, "-c", ENDS_AT_ONCE], capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stderr) == (0, "")


class Recorded:
    """A channel whose one end hands its buckets to the other one at once."""

    def __init__(self) -> None:
        self.queue: list[torch.Tensor] = []

    def send(self, bucket: torch.Tensor) -> None:
        self.queue.append(bucket.clone())

    def recv(self, bucket: torch.Tensor) -> None:
        bucket.copy_(self.queue.pop(0))

    def finish(self, deadline_s: float) -> None:
        pass

    def close(self) -> None:
        pass


def test_a_stream_is_aligned_cut_and_put_together_again():
    for bucket_bytes in (1, 100, 256, 1000, 4096, 10**6):
        stream = Stream(PLAN, bucket_bytes)
        assert [segment.begin for segment in stream.segments] == [0, 0, 256, 512, 3328]
        assert stream.num_bytes == 3394 and stream.num_buckets == -(-3394 // bucket_bytes)
        channel: Channel = Recorded()
        send_version(channel, stream, flat(TENSORS), 1.0, str)
        staging = torch.full((stream.num_bytes,), 255, dtype=torch.uint8)
        receive_version(channel, stream, staging, 1.0)
        for name, tensor in stream.tensors(staging):
            assert tensor.dtype == TENSORS[name].dtype and torch.equal(tensor, TENSORS[name])
        assert not staging[1:256].any(), "zeros stand between the tensors"
    assert Stream((), 10).num_buckets == 0
    with pytest.raises(WeightsDelayed, match="0 bytes"):
        Stream(PLAN, 0)


def test_a_header_that_is_not_the_expected_one_is_named():
    check_header(make_header(3, 100, True), 3, 100)
    for header, words in (
        (torch.zeros(16, dtype=torch.uint8), "out of step"),
        (make_header(3, 100, False), "superseded before bucket 3"),
        (make_header(4, 100, True), "bucket 4 of 100 bytes came in the place of bucket 3 of 100"),
        (make_header(3, 90, True), "bucket 3 of 90 bytes came"),
    ):
        with pytest.raises(WeightsDelayed, match=words):
            check_header(header, 3, 100)


def test_values_that_changed_on_the_way_are_found_by_their_sums():
    stream, channel = Stream(PLAN, 1000), Recorded()
    send_version(channel, stream, flat(TENSORS), 1.0, str)
    channel.queue[3][100] ^= 1
    with pytest.raises(WeightsDelayed, match="differs from what was sent: long has other values"):
        receive_version(channel, stream, torch.empty(stream.num_bytes, dtype=torch.uint8), 1.0)


# --- two processes ---------------------------------------------------------------------------------------------------


@pytest.fixture
def host() -> Iterator[GlooHost]:
    host = GlooHost("127.0.0.1", 0, 20.0)
    yield host
    host.close()


@pytest.mark.timeout(90)
def test_versions_go_one_after_the_other_over_one_channel_and_a_superseded_one_ends_in_good_order(host: GlooHost):
    end = End(host, PLAN, 1000)
    try:
        channel, stream = end.open(), Stream(PLAN, 1000)
        assert end.word() == "open"
        whole = b"".join(tensor.numpy().tobytes() for tensor in flat(TENSORS).values())
        for _ in range(2):
            end.receive()
            send_version(channel, stream, flat(TENSORS), 20.0, str)
            assert end.word() == hashlib.sha256(whole).hexdigest()
            asked = iter(["", "", "version 9 is there"])
            end.receive()
            with pytest.raises(WeightsDelayed, match="^version 9 is there$"):
                send_version(channel, stream, flat(TENSORS), 20.0, lambda asked=asked: next(asked))
            assert end.word() == "delayed: the version was superseded before bucket 2"
        channel.close()
        channel.close()
        with pytest.raises(WeightsDelayed, match="closed"):
            channel.send(torch.zeros(1, dtype=torch.uint8))
    finally:
        end.end()


@pytest.mark.timeout(90)
@pytest.mark.parametrize(("behaviour", "words"), [("die", "broke"), ("stop", r"silent for 1\.5 s")])
def test_a_peer_that_dies_or_hangs_costs_its_deadline_and_its_channel(host: GlooHost, behaviour: str, words: str):
    end = End(host, PLAN, 1000, behaviour)
    try:
        channel = end.open()
        send_one_bucket(channel)
        assert [end.word(), end.word()] == ["open", "one bucket"]
        if behaviour == "stop":
            os.kill(end.process.pid or 0, signal.SIGSTOP)
        else:
            end.process.join(20)
        with pytest.raises(WeightsDelayed, match=words):
            send_version(channel, Stream(LARGE, 32 * 2**20), {"large": ZEROS}, 1.5, str)
        with pytest.raises(WeightsDelayed, match="closed"):
            channel.send(ZEROS)
    finally:
        end.end()


def send_one_bucket(channel: Channel) -> None:
    for bucket in (make_header(0, 1000, True), ZEROS[:1000]):
        channel.send(bucket)
    channel.finish(20.0)


def test_a_peer_that_never_comes_costs_the_deadline(host: GlooHost):
    with pytest.raises(WeightsDelayed, match=r"rank 0 of 2 found no peer within 0\.4 s"):
        open_channel("c", host.where(), 0, 2, 0.4)
    with pytest.raises(WeightsDelayed, match="channel c was not opened"):
        open_channel("c", b"nonsense", 1, 2, 0.4)
    address = f"127.0.0.1:{host.port}"
    with pytest.raises(MachineError, match=f"offered at {address} .*learner.channel_address"):
        GlooHost("127.0.0.1", host.port, 1.0)


@pytest.mark.timeout(90)
def test_somebody_with_another_token_does_not_meet_the_ends(host: GlooHost):
    end = End(host, PLAN, 1000)
    try:
        with pytest.raises(WeightsDelayed, match="found no peer"):
            open_channel("c", end.where[:-4] + b"beef", 0, 2, 0.5)
        end.open().close()
        assert end.word() == "open"
    finally:
        end.end()


@pytest.mark.timeout(90)
def test_a_close_from_another_thread_ends_a_wait_at_once(host: GlooHost):
    end = End(host, PLAN, 1000, "stop")
    try:
        channel = end.open()
        send_one_bucket(channel)
        closed: list[float] = []

        def close() -> None:
            channel.close()
            closed.append(time.monotonic())

        channel.send(ZEROS)  # nobody takes it
        closing = threading.Timer(0.3, close)
        closing.start()
        with pytest.raises(WeightsDelayed, match="channel c was closed"):
            channel.finish(60.0)
        closing.join()
        assert closed and time.monotonic() - closed[0] < 5.0
    finally:
        end.end()
