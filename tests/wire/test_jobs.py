"""The lease book and the busy meter."""

from hypothesis import given
from hypothesis import strategies as st

from rlsp_async.wire.jobs import BusyMeter, LeaseBook


def test_the_life_of_a_lease():
    book = LeaseBook(credit=1)
    assert book.take(1) == "run"
    assert book.take(1) == "running"
    assert book.take(2) == "over"
    assert book.finish(1, b"done")
    assert book.take(1) == "finished"
    assert book.held() == [1]
    assert book.take(2) == "run"
    book.void(1)
    assert book.held() == [2]
    assert book.fail(2)
    assert not book.fail(2)
    assert not book.finish(2, b"late")
    assert book.held() == []


def test_after_a_reconnect_only_what_the_hub_keeps_is_left():
    book = LeaseBook(credit=4)
    for lease in (1, 2, 3, 4):
        book.take(lease)
    book.finish(1, b"one")
    book.finish(2, b"two")
    assert book.reconcile([2, 3, 77]) == [4]
    assert book.held() == [1, 2, 3]
    assert book.unacked == {1: b"one", 2: b"two"}  # said until its Ack: the hub may want it all the same


@given(st.lists(st.tuples(st.sampled_from(["take", "finish", "fail", "void", "keep"]), st.integers(0, 5)), max_size=60))
def test_never_more_than_the_credit_runs_and_no_lease_is_in_two_places(steps):
    book = LeaseBook(credit=2)
    for what, lease in steps:
        match what:
            case "take":
                book.take(lease)
            case "finish":
                book.finish(lease, b"x")
            case "fail":
                book.fail(lease)
            case "void":
                book.void(lease)
            case "keep":
                assert set(book.held()) >= set(book.reconcile(range(lease)))
        assert len(book.running) <= 2
        assert not book.running & book.unacked.keys()


def test_busy_seconds_count_while_at_least_one_lease_runs():
    meter = BusyMeter(now=10.0)
    meter.running(1, now=11.0)
    meter.running(2, now=12.0)
    assert meter.take(now=14.0) == (3.0, 4.0)
    meter.running(0, now=14.5)
    assert meter.take(now=16.0) == (0.5, 2.0)
    assert meter.take(now=17.0) == (0.0, 1.0)
