"""Which function the tests of a reference answer are about."""

from __future__ import annotations

import pytest

from rlsp_async.verifying.code.unit_tests import read_tests
from tests.verifying.code.test_verifier import CHECK, HUMANEVAL


def test_the_tested_function_is_found() -> None:
    assert read_tests("assert len(f(1)) == 1\nassert g(f(2))", "").name == "f"
    assert read_tests(CHECK, HUMANEVAL).name == "add"
    assert read_tests(CHECK, f"Complete:\n```python\n{HUMANEVAL}```").name == "add"


@pytest.mark.parametrize(
    "tests",
    [
        "assert list(map(f, [1])) == [2]",
        "assert all(a == b for a, b in zip(map(f, [1]), [2]))",
        "assert sorted([2, 1], key=f) == [1, 2]",
        "from functools import partial\nassert partial(f, 1)() == 2",
        "import functools\nassert functools.reduce(f, [1, 2]) == 3",
        "assert max([1, 2], key=f) == 2",
        "def twice(g, x):\n    return g(g(x))\nassert twice(f, 1) == 3",
        "g = f\nassert g(1) == 2",
        "assert [f][0](1) == 2",
        "assert {'a': f}['a'](1) == 2",
        "for function in (f,):\n    assert function(1) == 2",
        "assert (lambda g: g(1))(f) == 2",
        "import math\nassert math.isclose(sum(map(f, [1])), 2)",
        "assert math.isclose(sum(map(f, [1])), 2)",
        "assert list(filter(f, range(3))) == [1]",
        "import itertools\nassert list(itertools.accumulate([1, 2], f)) == [1, 3]",
        "import unittest\nunittest.TestCase().assertRaises(ValueError, f, 1)\nassert True",
    ],
)
def test_a_function_that_is_passed_on_is_found(tests: str) -> None:
    assert read_tests(tests, "").name == "f"


def test_two_functions_that_are_passed_on_are_both_provided() -> None:
    tests = read_tests("assert list(map(g, map(f, [1]))) == [3]", "")
    assert {tests.name, *tests.called} == {"f", "g"}


def test_a_function_named_as_a_builtin_is_found_by_its_call_or_by_the_prompt() -> None:
    assert read_tests("assert sum(1, 2) == 3", "").name == "sum"
    assert read_tests("assert list(map(sum, [1])) == [1]", "def sum(x):\n    ...\n").name == "sum"


@pytest.mark.parametrize(
    ("tests", "may_handle"),
    [
        ("assert f(1) == 2", False),
        ("assert all(map(f, [1]))", False),
        ("try:\n    f(1)\nexcept ValueError:\n    pass\nassert True", True),
        ("with pytest.raises(ValueError):\n    f(1)\nassert True", True),
        ("import unittest\nunittest.TestCase().assertRaises(ValueError, f, 1)\nassert True", True),
    ],
)
def test_whether_the_tests_may_expect_an_error(tests: str, may_handle: bool) -> None:
    assert read_tests(tests, "").handles_errors == may_handle
