"""Column addition: its text, its teacher, its split, its verifier."""

from __future__ import annotations

import random

import pytest

from rlsp_async.errors import DataError
from rlsp_async.tasks import addition
from rlsp_async.tasks.word_tokenizer import word_tokenizer
from rlsp_async.verifying import addition as verifier

TASK = addition.load(addition.Config(), 0)


def test_columns_of_a_careful_teacher() -> None:
    columns, result = addition.write_columns((347, 109, 995), random.Random(0), p_slip=0.0)
    assert (columns, result) == ("7 9 5 + 0 = 21 ; 4 0 9 + 2 = 15 ; 3 1 9 + 1 = 14 ;", 1451)
    text = addition.write_demonstration((347, 109, 995), random.Random(0), p_slip=0.0, p_check=1.0)
    assert text == f"{columns} check ok </think> 1 4 5 1"


def test_a_teacher_who_always_slips_gives_up_after_three_rounds() -> None:
    text = addition.write_demonstration((111, 111), random.Random(3), p_slip=1.0, p_check=1.0)
    assert (text.count("check x redo"), text.count("check x"), text.count("check ok")) == (2, 3, 0)


def test_a_slip_is_carried_on() -> None:
    rng = random.Random(5)
    columns, result = addition.write_columns((199, 100), rng, p_slip=1.0)
    sums = [int(part.split("=")[1]) for part in columns.split(";")[:-1]]
    assert result == sums[0] % 10 + sums[1] % 10 * 10 + sums[2] * 100 != 299


def test_prompt_demonstration_and_seed() -> None:
    prompt = TASK.prompt("train", 17)
    numbers = [int(part.replace(" ", "")) for part in prompt.text.removesuffix("<think>").split("+")]
    assert len(numbers) == 3 and all(100 <= n <= 999 for n in numbers)
    assert prompt.answer == str(sum(numbers))
    assert TASK.demonstration(17)[0] == prompt == addition.load(addition.Config(), 0).prompt("train", 17)
    assert prompt.text != addition.load(addition.Config(), 1).prompt("train", 17).text


def test_the_test_split_is_distinct_the_same_for_all_seeds_and_never_trained_on() -> None:
    other = addition.load(addition.Config(), 1)
    tests = [TASK.prompt("test", i).text for i in range(addition.TEST_SIZE)]
    assert len(set(tests)) == addition.TEST_SIZE
    assert tests == [other.prompt("test", i).text for i in range(addition.TEST_SIZE)]
    small = addition.load(addition.Config(numbers=2), 0)
    held = {small.prompt("test", i).text for i in range(addition.TEST_SIZE)}
    assert held.isdisjoint(small.prompt("train", i).text for i in range(3000))
    with pytest.raises(DataError, match="there are 1000;"):
        TASK.prompt("test", 1000)


def test_three_quarters_of_the_demonstrations_are_right_and_all_are_words_of_the_tokenizer() -> None:
    tokenizer, right, longest = word_tokenizer(), 0, 0
    for i in range(3000):
        prompt, response = TASK.demonstration(i)
        right += verifier.score(prompt.text, response, prompt.answer).status == "correct"
        longest = max(longest, len(response.split()))
        if i < 100:
            ids = tokenizer(f"{prompt.text} {response}")["input_ids"]
            assert tokenizer.unk_token_id not in ids
    assert 0.72 < right / 3000 < 0.80
    assert longest < 110


@pytest.mark.parametrize(
    ("response", "status", "steps"),
    [
        ("7 9 5 + 0 = 21 ; check x redo 1 ; check ok </think> 1 4 5 1", "correct", 2.0),
        ("</think> 1 4 5 2", "wrong", 0.0),
        ("</think> 1451", "unparsable", 0.0),
        ("1 4 5 1", "unparsable", 0.0),
        ("</think>", "unparsable", 0.0),
        ("</think> \u0661", "unparsable", 0.0),
        ("</think> " + "1 " * 13, "unparsable", 0.0),
        ("</think> 0 1 4 5 1", "wrong", 0.0),
    ],
)
def test_verdicts(response: str, status: str, steps: float) -> None:
    verdict = verifier.score("", response, "1451")
    assert (verdict.status, verdict.parts["search_steps"]) == (status, steps)


@pytest.mark.parametrize("bad", [{"digits": 2}, {"numbers": 6}, {"p_slip": 1.1}, {"heldout_share": 0.0}])
def test_impossible_sums_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"must be a"):
        addition.Config(**bad)
