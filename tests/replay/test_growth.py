"""No table of the hub grows with the groups that have passed through it."""

from __future__ import annotations

import gc
from collections import deque
from typing import Any

import msgspec

from rlsp_async.config import StageConfig
from rlsp_async.messages import Bye, Done, Failed, Ping, Work
from tests.replay.line import Bench, config, hello, new_hub, report_of

SAMPLERS = 6


def sizes(thing: Any, path: str = "", seen: set[int] | None = None) -> dict[str, int]:
    """Path -> length of every table that is reached from an object."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, type | msgspec.Struct):
        return {}
    seen.add(id(thing))
    found: dict[str, int] = {}
    if isinstance(thing, dict | list | set | deque):
        found[path] = len(thing)
    if hasattr(thing, "cache_info"):
        found[path] = thing.cache_info().currsize
    slots = {name: getattr(thing, name) for name in getattr(type(thing), "__slots__", ()) if hasattr(thing, name)}
    for name, value in {**getattr(thing, "__dict__", {}), **slots}.items():
        found |= sizes(value, f"{path}.{name}", seen)
    return found


def work(bench: Bench, upto: int) -> None:
    """Rounds of honest work in which leases are returned, workers leave and come again, and pings are said."""
    peers = [f"s{i}".encode() for i in range(SAMPLERS)]
    while bench.hub.state.step < upto:
        bench.now += 0.1
        for i, peer in enumerate(peers):
            bench.say(peer, Ping(state="working"))
            if (bench.hub.state.step + i) % 7 == 3 and bench.inbox.get(peer):
                message = bench.inbox[peer].pop(0)
                if isinstance(message, Work):
                    kind = ("infrastructure", "data", "returned")[i % 3]
                    bench.say(peer, Failed(lease=message.lease, kind=kind, error="on purpose"))  # type: ignore[arg-type]
                    bench.say(peer, Ping(state="working"))
            bench.step(peer)
        for peer in (b"v", b"v", b"v"):
            bench.step(peer)
        train(bench)
        if bench.hub.state.step % 5 == 1:
            bench.say(peers[0], Bye())
            bench.inbox.pop(peers[0], None)
            bench.say(peers[0], hello("sampler", worker="s0", credit=2))
        bench.tick(bench.now)
        bench.records.clear()
        bench.lines.clear()
        assert not bench.hub.state.ending.kind, bench.hub.state.ending.message


def train(bench: Bench) -> None:
    """The learner writes a checkpoint every eight steps: what no checkpoint can need is forgotten."""
    if bench.inbox.get(b"l"):
        message = bench.inbox[b"l"].pop(0)
        if isinstance(message, Work):
            step = message.job.batch.step
            report = report_of(message.job, checkpoint=step - step % 8)
            bench.say(b"l", Done(lease=message.lease, steps=[report]))


def test_no_table_of_the_hub_grows_with_the_groups_that_went_through_it(monkeypatch):
    monkeypatch.setattr("rlsp_async.replay.workers.REMEMBERED", 64)
    monkeypatch.setattr("rlsp_async.replay.state.PROMPTS_KEPT", 64)
    bench = Bench(
        new_hub(config(stages={"rlsp": StageConfig(steps=10_000, groups_per_step=4, max_lag=50, target_lag=3)}))
    )
    bench.say(b"v", hello("verifier", credit=8))
    bench.say(b"l", hello("learner", step=0))
    for i in range(SAMPLERS):
        bench.say(f"s{i}".encode(), hello("sampler", worker=f"s{i}"))
    work(bench, 40)
    gc.collect()
    before = sizes(bench.hub.state)
    work(bench, 160)
    after = sizes(bench.hub.state)
    grown = {path: (before.get(path, 0), num) for path, num in after.items() if num > 1.5 * before.get(path, 0) + 24}
    assert len(after) > 30
    assert grown == {}
