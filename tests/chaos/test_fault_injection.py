"""What becomes of a message."""

from rlsp_async.chaos.fault_injection import LATE_S, SLOW_S, FaultInjector

MANY = 20_000


def test_without_a_window_every_message_arrives_once_and_at_once():
    injector = FaultInjector(1)
    assert [injector.delays(float(i)) for i in range(100)] == [[0.0]] * 100
    assert injector.counts == {"passed": 100, "drop": 0, "duplicate": 0, "reorder": 0, "slow": 0}


def delays_in_window(kind: str) -> tuple[FaultInjector, list[list[float]]]:
    injector = FaultInjector(1)
    injector.begin(kind, now=0.0, seconds=1.0)
    return injector, [injector.delays(0.5) for _ in range(MANY)]


def test_a_tenth_is_dropped():
    injector, found = delays_in_window("drop")
    assert set(map(tuple, found)) == {(), (0.0,)}
    assert found.count([]) == injector.counts["drop"]
    assert 1_800 < found.count([]) < 2_200


def test_a_tenth_arrives_twice():
    injector, found = delays_in_window("duplicate")
    twice = [delays for delays in found if len(delays) == 2]
    assert len(twice) == injector.counts["duplicate"] and 1_800 < len(twice) < 2_200
    assert all(first == 0.0 and 0.0 <= second <= LATE_S for first, second in twice)


def test_a_tenth_is_overtaken():
    _, found = delays_in_window("reorder")
    late = [delays for delays in found if delays[0] > 0.0]
    assert 1_800 < len(late) < 2_200 and max(delays[0] for delays in late) <= LATE_S


def test_slow_keeps_the_order():
    _, found = delays_in_window("slow")
    assert len({tuple(delays) for delays in found}) == 1
    assert SLOW_S[0] <= found[0][0] <= SLOW_S[1]


def test_windows_close_by_themselves_or_all_at_once():
    injector = FaultInjector(1)
    injector.begin("drop", now=0.0, seconds=1.0)
    assert all(injector.delays(1.0) == [0.0] for _ in range(100))
    injector.begin("drop", now=2.0, seconds=9.0)
    injector.begin("drop", now=2.0, seconds=1.0)  # a shorter one does not cut the longer short
    assert [] in [injector.delays(8.0) for _ in range(100)]
    injector.end()
    assert all(injector.delays(8.0) == [0.0] for _ in range(100))
