"""Silence and back-off, on literal times."""

import math

import pytest

from rlsp_async.wire.link import Liveness, backoff_s


def test_who_is_silent_since_when():
    live = Liveness(timeout_s=10.0)
    live.heard("a", now=100.0)
    live.heard("b", now=104.0)
    assert live.silent_s("a", now=108.0) == 8.0
    assert live.gone(now=110.0) == []
    assert live.gone(now=110.5) == ["a"]
    assert live.gone(now=115.0) == ["a", "b"]
    live.heard("a", now=114.0)
    live.heard("a", now=1.0)
    assert live.gone(now=115.0) == ["b"]
    live.forget("b")
    assert live.gone(now=115.0) == []
    assert live.silent_s("b", now=115.0) == math.inf
    assert live.is_gone("b", now=115.0)


@pytest.mark.parametrize(("now", "left"), [(0.0, 4), (0.9, 4), (1.0, 3), (3.9, 1), (4.0, 0), (99.0, 0)])
def test_the_countdown_of_heartbeats_that_may_still_be_missed(now, left):
    live = Liveness(timeout_s=4.0)
    live.heard("hub", now=0.0)
    assert live.beats_left("hub", now, heartbeat_s=1.0) == left


def test_back_off_doubles_from_one_to_thirty_two_heartbeats_and_jitter_spreads_it_by_a_quarter():
    assert [backoff_s(n, 0.5, jitter=0.5) for n in range(8)] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 16.0, 16.0]
    assert backoff_s(5, 1.0, jitter=0.0) == 24.0
    assert backoff_s(5000, 1.0, jitter=1.0) == 40.0
