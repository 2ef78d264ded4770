"""Works are done in order on two threads; one that fails ends what comes after it."""

import threading

import pytest

from rlsp_async.errors import MachineError
from rlsp_async.learning import outbox
from rlsp_async.learning.outbox import Outbox


def fails():
    raise MachineError("disk full")


def test_works_of_a_thread_are_done_in_order_and_the_other_thread_does_not_wait():
    made, done, gate = Outbox(), [], threading.Event()
    made.add("files", lambda: gate.wait(10))
    made.add("files", lambda: done.append("file"))
    for number in range(3):
        made.add("weights", lambda number=number: done.append(number))
    made.settle("weights")
    assert done == [0, 1, 2]
    gate.set()
    made.settle()
    assert done == [0, 1, 2, "file"]
    assert made.put("weights", lambda: threading.current_thread().name).result(10) == "weights_0"


def test_a_work_that_fails_is_the_error_of_all_and_nothing_is_done_after_it():
    made, done = Outbox(), []
    first = made.put("weights", fails)
    with pytest.raises(MachineError, match="disk full"):
        first.result(10)
    assert not made.failed.done(), "whoever waits for the work tells"
    later = made.put("files", lambda: done.append("later"))
    with pytest.raises(MachineError, match="disk full"):
        later.result(10)
    with pytest.raises(MachineError, match="disk full"):
        made.check()
    assert (done, made.has_failed) == ([], True)


def test_a_failure_that_nobody_waits_for_is_told():
    made = Outbox()
    made.check()
    made.add("files", fails)
    with pytest.raises(MachineError, match="disk full"):
        made.failed.result(10)
    made.add("weights", fails)
    made.settle()


def test_a_queue_has_a_size_and_a_wait_has_a_bound(monkeypatch):
    made, gate = Outbox(), threading.Event()
    monkeypatch.setattr(outbox, "WORK_S", 0.01)
    for _ in range(outbox.MOST_WAITING):
        made.put("files", lambda: gate.wait(10))
    with pytest.raises(MachineError, match="not written within 0 s: the disk hangs"):
        made.put("files", lambda: None)
    with pytest.raises(MachineError, match="the disk hangs"):
        made.settle("files", 0.01)
    gate.set()
    made.settle(bound_s=10)
    assert made.put("files", lambda: 7).result(10) == 7
