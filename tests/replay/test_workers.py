"""Who gets the next lease, and that an event does not look at the other workers."""

from __future__ import annotations

from typing import Any

from rlsp_async.messages import Ping, Status
from rlsp_async.replay import sample, verify
from rlsp_async.replay.workers import SLACK, LeastLoaded, Worker, WorkerTable
from tests.replay.line import Bench, config, hello, new_hub


def joined(*names: str, credit: int = 4) -> tuple[WorkerTable, list[Worker]]:
    """A table with these workers, in the order in which they joined; a name begins with the role."""
    table = WorkerTable(incarnation=1)
    return table, [table.join(hello(name.split("-")[0], name, credit), name.encode(), 0.0) for name in names]


def lease(table: WorkerTable, worker: Worker, *keys: int) -> None:
    for key in keys:
        table.lease(worker, key, 0.0)


def test_least_loaded_comes_first_then_the_one_that_joined_first():
    table, (a, b, c) = joined("sampler-a", "sampler-b", "sampler-c")
    for worker in (a, b, c):
        worker.serves(0)
    lease(table, a, 1, 2)
    lease(table, b, 3)
    lease(table, c, 4)
    assert table.index.first("sampler", 0) is b
    lease(table, b, 5, 6)
    assert table.index.first("sampler", 0) is c
    lease(table, c, 7, 8, 9)
    assert table.index.first("sampler", 0) is a
    table.leave(a)
    assert table.index.first("sampler", 0) is b


def test_only_samplers_are_told_apart_by_version():
    table, (old, new, verifier) = joined("sampler-old", "sampler-new", "verifier-0")
    old.serves(1)
    new.serves(2)
    assert table.index.first("sampler", 2) is new
    assert table.index.first("sampler", 3) is None
    assert table.index.first("verifier", 3) is verifier
    old.serves(3)
    assert table.index.first("sampler", 3) is old
    assert table.index.first("sampler", 1) is None


def test_a_worker_that_drains_or_has_no_credit_left_gets_nothing():
    table, (worker,) = joined("verifier-0", credit=1)
    lease(table, worker, 1)
    assert table.index.first("verifier", 0) is None
    table.release(next(iter(worker.leases)))
    assert table.index.first("verifier", 0) is worker
    worker.is_in_state("draining")
    assert table.index.first("verifier", 0) is None


def test_outdated_entries_do_not_pile_up():
    table, (lazy, busy) = joined("verifier-lazy", "verifier-busy", credit=10_000)
    index: LeastLoaded = table.index
    for key in range(1000):
        lease(table, busy, key)
        assert len(index) <= 4 * 2 + SLACK + 1
    assert index.first("verifier", 0) is lazy


def test_an_event_asks_few_workers_however_many_there_are(monkeypatch):
    bench = Bench(new_hub(config()))
    for i in range(300):
        bench.say(b"s%d" % i, hello("sampler", f"sampler-{i}"))
    asked: list[Any] = []
    for post in (sample, verify):
        monkeypatch.setattr(post, "next_job", counted(post.next_job, asked))
    bench.say(b"s7", Ping(state="waiting_work"))
    assert asked == []  # every slot is taken
    for peer in (b"s0", b"s0", b"s0", b"s1", b"s1", b"s1"):  # Welcome, Work, Work
        bench.step(peer)
    assert bench.hub.state.ledger.by_state["sampled"] == 4
    assert asked == []
    bench.say(b"v", hello("verifier", credit=4))
    assert len(asked) == 4


def counted(next_job: Any, asked: list[Any]) -> Any:
    """The same post, which writes down whom it was asked about."""

    def ask(turn: Any, worker: Worker) -> Any:
        asked.append(worker)
        return next_job(turn, worker)

    return ask


def test_sampler_without_a_slot_is_shown_as_waiting_for_credit():
    bench = Bench(new_hub(config()))
    for name in ("sampler-0", "sampler-1", "sampler-2"):
        bench.say(name.encode(), hello("sampler", name))
    bench.say(b"sampler-0", Ping(state="working"))
    (seen,) = (m for m in bench.say(b"o", hello("observer", credit=0)) if isinstance(m, Status))
    assert [worker.state for worker in seen.workers] == ["working", "waiting_credit", "waiting_credit"]
