"""Who gets the next lease, and that nobody else is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlsp_async.messages import Ping, Status
from rlsp_async.replay.workers import SLACK, LeastLoaded
from tests.replay.line import Bench, config, hello, new_hub


@dataclass
class One:
    name: str
    role: Any = "sampler"
    version: int = 0
    free: int = 2
    load: float = 0.0
    joined: int = 0


def placed(*workers: One) -> LeastLoaded[One]:
    hungry: LeastLoaded[One] = LeastLoaded()
    for worker in workers:
        hungry.place(worker)
    return hungry


def test_least_busy_comes_first_then_the_one_that_came_first():
    a, b, c = One("a", load=0.5), One("b", load=0.25, joined=1), One("c", load=0.25, joined=2)
    hungry = placed(a, b, c)
    assert hungry.first("sampler", 0) is b
    b.load = 0.75
    hungry.place(b)
    assert hungry.first("sampler", 0) is c
    c.free = 0
    hungry.place(c)
    assert hungry.first("sampler", 0) is a
    hungry.remove(a)
    assert hungry.first("sampler", 0) is b


def test_only_samplers_are_told_apart_by_version():
    old, new, verifier = One("old", version=1), One("new", version=2), One("v", role="verifier", version=-1)
    hungry = placed(old, new, verifier)
    assert hungry.first("sampler", 2) is new
    assert hungry.first("sampler", 3) is None
    assert hungry.first("verifier", 3) is verifier
    old.version = 3
    hungry.place(old)
    assert hungry.first("sampler", 3) is old
    assert hungry.first("sampler", 1) is None


def test_overtaken_entries_do_not_pile_up():
    lazy, busy = One("lazy"), One("busy", load=0.1)
    hungry = placed(lazy, busy)
    for i in range(1000):
        busy.load = 1.0 + i
        hungry.place(busy)
        assert hungry._num_entries <= 4 * 2 + SLACK + 1
    assert hungry.first("sampler", 0) is lazy


def test_an_event_asks_few_workers_however_many_there_are(monkeypatch):
    bench = Bench(new_hub(config()))
    for i in range(300):
        bench.say(b"s%d" % i, hello("sampler", f"sampler-{i}"))
    asked = []
    next_job = bench.hub._next_job
    monkeypatch.setattr(
        bench.hub, "_next_job", lambda out, worker, now: asked.append(worker) or next_job(out, worker, now)
    )
    bench.say(b"s7", Ping(state="waiting_work"))
    assert asked == []  # every slot is taken
    for peer in (b"s0", b"s0", b"s0", b"s1", b"s1", b"s1"):  # Welcome, Work, Work
        bench.step(peer)
    assert bench.hub.state.ledger.by_state["sampled"] == 4
    assert len(asked) == 0
    bench.say(b"v", hello("verifier", credit=4))
    assert len(asked) == 4


def test_sampler_without_a_slot_is_shown_as_waiting_for_credit():
    bench = Bench(new_hub(config()))
    for name in ("sampler-0", "sampler-1", "sampler-2"):
        bench.say(name.encode(), hello("sampler", name))
    bench.say(b"sampler-0", Ping(state="working"))
    (seen,) = (m for m in bench.say(b"o", hello("observer", credit=0)) if isinstance(m, Status))
    assert [worker.state for worker in seen.workers] == ["working", "waiting_credit", "waiting_credit"]
