"""The values in running text, and the one that a sentence or the end of a text means."""

from __future__ import annotations

import random

import pytest

from rlsp_async.verifying.extract import find_answer
from rlsp_async.verifying.values import find_values


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("5+8, the area is 5 cm^2.", ["5+8", "5 \\text{ cm}^{2}"]),
        ("the point is (3, 4).", ["(3, 4)"]),
        ("it is x-2", ["x-2"]),
        ("the length is 2\u221a3", ["2\u221a3"]),
        ("29 dollars and 0 cents.", ["29.00"]),
        ("70k dollars", ["70 thousand"]),
        ("minus 3", ["-3"]),
        ("1 000", ["1 000"]),
        ("fell to \u22123.", ["\u22123"]),
        ("\u517113\u4e2a", ["13"]),
        ("1\u00bd hours", ["1\u00bd"]),
        ("2 1/2 hours", ["2 1/2"]),
        ("3:2 or 5:30", ["3:2 or 5:30"]),
        ("41, 42 and 43.", ["41, 42 and 43"]),
        ("5 hours 30 minutes", ["5 hours 30 minutes"]),
        ("9 chickens and 10 rabbits", ["9 chickens and 10 rabbits"]),
        ("9 chickens, 10 rabbits.", ["9 chickens, 10 rabbits"]),
        ("9 hens, 10 rabbits, and 2 cows", ["9 hens, 10 rabbits, and 2 cows"]),
        ("9 hens and 10 rabbits and 2 cows", ["9 hens and 10 rabbits and 2 cows"]),
        ("9 hens, 3 each.", ["9", "3"]),
        ("3 out of 5", ["3 out of 5"]),
        ("first 7, then 8", ["7", "8"]),
        ("$3 and then $5.", ["3", "5"]),
        ("2024-05-06", ["2024-05-06"]),
        ("COVID-19", []),
        ("5-3=2 (two)", ["2"]),
        ("12 squared", ["(12)^2"]),
        ("42j", ["42j"]),
    ],
)
def test_values_stand_whole(text: str, found: list[str]) -> None:
    assert [value.text for value in find_values(text)] == found


@pytest.mark.parametrize(
    ("response", "found"),
    [
        ("The answer is the largest $n$, which is 34.", "34"),
        ("The answer is 17 times 2, that is 34.", "34"),
        ("The answer is 34, not 35.", "34"),
        ("The answer is not 12 but 13.", "13"),
        ("The answer is 34 $\\checkmark$", "34"),
        ("Answer: the number of solutions with $x>0$ is 7", "7"),
        ("The answer to this question is 34.", "34"),
        ("The answer is 34. I hope the answer is correct.", "34"),
        ("The answer is 4 or 5", "4 or 5"),
        ("12 is not the answer", None),
        ("It took 10 days (not 12).", "10"),
        ("1. First, 5\n2. Then 6\n3. Done", "6"),
    ],
)
def test_the_value_that_is_meant(response: str, found: str | None) -> None:
    assert find_answer(response) == found


WRAPPERS = (
    "#### {}",
    "<answer>{}</answer>",
    "\\boxed{{{}}}",
    "The answer is {}.",
    "so it is {}.",
    "Final Answer: **{}**",
    "We get {} apples.",
)


def test_a_generated_number_is_found_in_every_wrapper() -> None:
    draw = random.Random(0)
    for _ in range(300):
        number = draw.choice(
            [str(draw.randrange(10**6)), f"-{draw.randrange(1, 999)}", f"{draw.randrange(99)}.{draw.randrange(1, 99)}"]
        )
        for wrapper in WRAPPERS:
            found = find_answer(wrapper.format(number))
            assert found is not None
            assert found.removesuffix(" apples") == number, wrapper
