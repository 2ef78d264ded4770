"""The laws that every schedule keeps, and the schedules that learn nothing."""

import pytest

from rlsp_async.config import TemperatureConfig
from rlsp_async.errors import ConfigError, DataError
from rlsp_async.temperatures.base import TEMPERATURE_SCHEDULES, load_schedule
from tests.temperatures.given import judged

NAMES = TEMPERATURE_SCHEDULES.names()
LEARNING = ["bstar", "entropy"]


def load(name, seed=3, **options):
    return load_schedule(TemperatureConfig(name=name, options=options), seed, 1.0)


def test_what_ships():
    assert NAMES == ["bstar", "constant", "entropy", "linear", "random"]


@pytest.mark.parametrize("name", NAMES)
def test_draws_are_a_function_of_seed_cursor_and_what_was_learnt(name):
    first, second = load(name), load(name)
    row = b""
    for at in range(40):
        temperature = first.draw(at)
        assert temperature > 0
        row = first.observe(*judged(temperature, [at % 3 == 0, at % 2 == 0], logprob=-0.5 - at % 3)) or row
    if row:
        second.restore(row)
    assert [first.draw(at) for at in range(40, 90)] == [second.draw(at) for at in range(40, 90)]
    assert first.figures() == second.figures()
    assert bool(row) == (name in LEARNING)


@pytest.mark.parametrize("name", LEARNING)
def test_a_row_of_something_else_is_refused(name):
    with pytest.raises(DataError, match="since the run began"):
        load(name).restore(b"12345")


def test_constant_is_the_runs_temperature_or_its_own():
    assert load("constant").draw(7) == 1.0
    assert load("constant", temperature=1.2).draw(7) == 1.2


def test_linear_by_hand():
    made = load("linear", start=1.2, end=0.8, ramp=10)
    assert [made.draw(at) for at in (0, 5, 10, 99)] == pytest.approx([1.2, 1.0, 0.8, 0.8])


def test_random_meets_every_temperature_and_depends_on_the_seed():
    grid = [0.5, 1.0, 1.5]
    draws = [load("random", grid=grid).draw(at) for at in range(300)]
    assert all(80 < draws.count(temperature) < 120 for temperature in grid)
    assert draws != [load("random", seed=4, grid=grid).draw(at) for at in range(300)]


@pytest.mark.parametrize(
    ("name", "options", "what"),
    [
        ("bstra", {}, "did you mean 'bstar'"),
        ("bstar", {"grid": []}, "grid must hold"),
        ("random", {"grid": [1.0, 1.0]}, "grid must hold"),
        ("bstar", {"discount": 0.0}, "discount = 0.0: must be a number above 0"),
        ("linear", {"ramp": 0}, "ramp = 0: must be a whole number at least 1"),
        ("entropy", {"low": 2.0}, "at most high"),
        ("constant", {"temperature": -1.0}, "at least 0"),
        ("bstar", {"arms": [1.0]}, "unknown key 'temperature.options.arms'"),
    ],
)
def test_what_cannot_be_is_refused(name, options, what):
    with pytest.raises(ConfigError, match=what):
        load(name, **options)
