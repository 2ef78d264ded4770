"""The schedule: seeded, Poisson, independent by kind."""

import pytest

from rlsp_async.chaos.faults import (
    ALWAYS,
    CORRUPTED,
    HOW,
    KINDS,
    LIES,
    OFFSETS_S,
    TARGETS,
    TRANSFERS,
    parse_kinds,
    schedule,
)
from rlsp_async.errors import ConfigError


def make(seed: int = 1, minutes: float = 60.0, kinds: tuple[str, ...] = KINDS, per_minute: float = 20.0):
    return schedule(seed, minutes, kinds, per_minute, timeout_s=3.0)


def test_a_seed_is_a_schedule():
    assert make(seed=5) == make(seed=5)
    assert make(seed=5) != make(seed=6)


def test_times_rise_and_end_with_the_minutes():
    times = [fault.at_s for fault in make()]
    assert times == sorted(times)
    assert times[0] > 0.0 and times[-1] < 3600.0


def test_the_rate_is_met_and_gaps_are_those_of_a_poisson_process():
    times = [fault.at_s for fault in make(minutes=600.0, per_minute=30.0)]
    assert 17_400 < len(times) < 18_600  # 18,000 expected, standard deviation 134
    gaps = [later - earlier for earlier, later in zip(times[:-1], times[1:], strict=True)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert 0.9 < variance / mean**2 < 1.1  # exponential: 1; regular: 0


def test_kinds_and_targets_come_in_their_proportions():
    kills = [fault for fault in make(minutes=600.0, per_minute=30.0, kinds=("kill", "stop")) if fault.kind == "kill"]
    assert 12_500 < len(kills) < 13_700  # 8 / 11 of 18,000
    assert {fault.target for fault in kills} == set(TARGETS)
    share = sum(fault.target == "sampler-0" for fault in kills) / len(kills)
    assert abs(share - 3.0 / 10.5) < 0.02


def test_another_kind_does_not_move_the_others():
    rate = {"kill": 8.0, "stop": 3.0}
    alone = schedule(1, 60.0, ("kill",), rate["kill"], 3.0)
    both = schedule(1, 60.0, ("kill", "stop"), sum(rate.values()), 3.0)
    assert alone == [fault for fault in both if fault.kind == "kill"]


def test_only_what_was_asked_for_and_the_supervisor_is_never_frozen():
    assert {fault.kind for fault in make(kinds=("drop", "stop"))} == {"drop", "stop"}
    stops = [fault for fault in make(kinds=("stop",)) if fault.kind == "stop"]
    assert "supervisor" not in {fault.target for fault in stops}
    assert any(fault.seconds > 3.0 for fault in stops) and any(fault.seconds < 3.0 for fault in stops)


def test_kinds_are_read_from_text():
    assert parse_kinds("kill, drop,kill") == ("kill", "drop")


@pytest.mark.parametrize("text", ["", " , ", "kill,burn"])
def test_an_unknown_kind_is_named(text: str):
    with pytest.raises(ConfigError, match="burn|nothing") as e:
        parse_kinds(text)
    assert "restart-all" in str(e.value)


def test_clocks_damage_and_lies_come_in_all_their_forms():
    clocks = make(minutes=600.0, kinds=("clock",))
    assert {fault.what for fault in clocks} == set(OFFSETS_S)
    assert {fault.target for fault in clocks} == {"", *TARGETS}
    killed = [fault for fault in clocks if fault.is_fatal]
    assert 0.35 < len(killed) / len(clocks) < 0.5 and all(fault.target for fault in killed)
    damaged = {fault.what for fault in make(minutes=600.0, kinds=("corrupt",))}
    assert damaged == {f"{what} {how}" for what in CORRUPTED for how in HOW}
    lies = make(minutes=600.0, kinds=("byzantine",))
    assert {fault.what for fault in lies} == set(LIES) and all(2.0 <= fault.seconds <= 8.0 for fault in lies)


def test_transfers_are_broken_only_where_weights_go_over_channels():
    assert "transfer" not in ALWAYS
    faults = schedule(1, 20.0, ("transfer",), 12.0, 10.0)
    assert {fault.target for fault in faults} == set(TRANSFERS) == {"learner-0", "sampler-0", "replay-0"}
    assert {(fault.what, fault.seconds > 0) for fault in faults} == {("kill", False), ("stop", True)}
    assert max(fault.seconds for fault in faults) <= 25.0
