"""What becomes of a message."""

from rlsp_async.chaos.mischief import LATE_S, SLOW_S, Mischief

MANY = 20_000


def test_without_a_window_every_message_arrives_once_and_at_once():
    mischief = Mischief(1)
    assert [mischief.fate(float(i)) for i in range(100)] == [[0.0]] * 100
    assert mischief.counts == {"passed": 100, "drop": 0, "duplicate": 0, "reorder": 0, "slow": 0}


def fates(kind: str) -> tuple[Mischief, list[list[float]]]:
    mischief = Mischief(1)
    mischief.begin(kind, now=0.0, seconds=1.0)
    return mischief, [mischief.fate(0.5) for _ in range(MANY)]


def test_a_tenth_is_dropped():
    mischief, found = fates("drop")
    assert set(map(tuple, found)) == {(), (0.0,)}
    assert found.count([]) == mischief.counts["drop"]
    assert 1_800 < found.count([]) < 2_200


def test_a_tenth_arrives_twice():
    mischief, found = fates("duplicate")
    twice = [fate for fate in found if len(fate) == 2]
    assert len(twice) == mischief.counts["duplicate"] and 1_800 < len(twice) < 2_200
    assert all(first == 0.0 and 0.0 <= second <= LATE_S for first, second in twice)


def test_a_tenth_is_overtaken():
    _, found = fates("reorder")
    late = [fate for fate in found if fate[0] > 0.0]
    assert 1_800 < len(late) < 2_200 and max(fate[0] for fate in late) <= LATE_S


def test_slow_keeps_the_order():
    _, found = fates("slow")
    assert len({tuple(fate) for fate in found}) == 1
    assert SLOW_S[0] <= found[0][0] <= SLOW_S[1]


def test_windows_close_by_themselves_or_all_at_once():
    mischief = Mischief(1)
    mischief.begin("drop", now=0.0, seconds=1.0)
    assert all(mischief.fate(1.0) == [0.0] for _ in range(100))
    mischief.begin("drop", now=2.0, seconds=9.0)
    mischief.begin("drop", now=2.0, seconds=1.0)  # a shorter one does not cut the longer short
    assert [] in [mischief.fate(8.0) for _ in range(100)]
    mischief.end()
    assert all(mischief.fate(8.0) == [0.0] for _ in range(100))
