"""The verifier `length`: bounds, and the part that falls to both sides."""

import pytest

from rlsp_async.errors import ConfigError
from rlsp_async.verifying.base import load_verifier
from rlsp_async.verifying.length import compute_share


@pytest.mark.parametrize(
    ("num", "share"), [(0, 0.0), (50, 0.5), (100, 1.0), (400, 1.0), (600, 0.5), (800, 0.0), (10**9, 0.0)]
)
def test_the_part_falls_to_both_sides(num: int, share: float) -> None:
    assert compute_share(num, 100, 400) == share


def test_one_bound_is_enough() -> None:
    assert [compute_share(num, 0, 10) for num in (0, 10, 15, 20)] == [1.0, 1.0, 0.5, 0.0]
    assert [compute_share(num, 10, 0) for num in (0, 5, 10, 10**6)] == [0.0, 0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    ("options", "share"),
    [
        ({"least": 6}, 1.0),
        ({"least": 12}, 0.5),
        ({"of": "thinking", "least": 6}, 0.5),
        ({"of": "answer", "least": 2}, 1.0),
        ({"of": "answer", "unit": "characters", "least": 8}, 1.0),
        ({"most": 4}, 0.5),
    ],
)
def test_what_is_counted(options: dict[str, object], share: float) -> None:
    verdict = load_verifier("length", options).judge("", "one two three </think> four five", "")
    assert verdict.parts["length"] == share
    assert verdict.status == ("correct" if verdict.parts["length"] == 1.0 else "wrong")


def test_exact_counts() -> None:
    score = load_verifier("length", {"least": 5, "most": 5}).judge
    assert score("", "one two three</think> four five", "").extracted == "5"
    assert score("", " ", "").status == "unparsable"


def test_around_another_verifier() -> None:
    score = load_verifier("length", {"most": 2, "inner": "math"}).judge
    assert score("", "so it is \\boxed{4}", "4").parts == {"correct": 1.0, "format": 1.0, "length": 0.0}
    assert score("", "\\boxed{5}", "4").status == "wrong"


@pytest.mark.parametrize(
    ("options", "sentence"), [({}, "set least or most above 0"), ({"least": 5, "most": 4}, "most 4 is below least 5")]
)
def test_bad_options(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_verifier("length", options)
