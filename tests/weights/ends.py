"""The receiving end of a channel, in a process of its own that a test starts, stops and kills."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from multiprocessing.connection import Connection

import torch

from rlsp_async.errors import WeightsDelayed
from rlsp_async.weights import sums
from rlsp_async.weights.channel import HEADER, Channel, Stream, receive_version
from rlsp_async.weights.gloo import GlooHost, open_channel

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.weights.ends"])  # torch is imported once for all of them


def run_end(pipe: Connection, where: bytes, plan: bytes, bucket_bytes: int, deadline_s: float, behaviour: str) -> None:
    """Opens its end. all: receives a version at each word; die, stop: ends, or waits, after one bucket."""
    torch.set_num_threads(1)
    stream = Stream(sums.decode(plan), bucket_bytes)
    channel = open_channel("c", where, 1, 2, deadline_s)
    pipe.send("open")
    if behaviour != "all":
        for num_bytes in (HEADER, min(stream.num_bytes, bucket_bytes)):
            channel.recv(torch.empty(num_bytes, dtype=torch.uint8))
            channel.finish(deadline_s)
        pipe.send("one bucket")
        if behaviour == "die":
            os._exit(9)
    while pipe.recv():
        staging = torch.empty(stream.num_bytes, dtype=torch.uint8)
        try:
            receive_version(channel, stream, staging, deadline_s)
        except WeightsDelayed as e:
            pipe.send(f"delayed: {e}")
        else:
            whole = b"".join(t.reshape(-1).view(torch.uint8).numpy().tobytes() for _, t in stream.tensors(staging))
            pipe.send(hashlib.sha256(whole).hexdigest())


class End:
    """The other process, seen from the test."""

    def __init__(self, host: GlooHost, plan: sums.Plan, bucket_bytes: int, behaviour: str = "all") -> None:
        self.where = host.where()
        self._pipe, other = CONTEXT.Pipe()
        arguments = (other, self.where, sums.encode(plan), bucket_bytes, 20.0, behaviour)
        self.process = CONTEXT.Process(target=run_end, args=arguments, daemon=True)
        self.process.start()
        other.close()

    def open(self, deadline_s: float = 20.0) -> Channel:
        """The end of the test, rank 0."""
        return open_channel("c", self.where, 0, 2, deadline_s)

    def receive(self) -> None:
        """Has it receive one version."""
        self._pipe.send("receive")

    def word(self) -> str:
        """What it says next."""
        assert self._pipe.poll(30.0), "the other end says nothing"
        return str(self._pipe.recv())

    def end(self) -> None:
        """Kills it."""
        self.process.kill()
        self.process.join(10)
        self._pipe.close()
