"""The operator puzzle: its text, its teacher, its split."""

from __future__ import annotations

import random
import time

import pytest

from rlsp_async.errors import DataError
from rlsp_async.messages import Prompt
from rlsp_async.tasks import ops
from rlsp_async.tasks.word_tokenizer import VOCABULARY, word_tokenizer
from rlsp_async.verifying import ops as verifier

TASK = ops.load(ops.Config(), 0)


def test_leaves_of_a_small_problem() -> None:
    assert ops.legal_leaves((1, 2, 3), 40) == [
        ("+ +", 6, "1 + 2 3 + 3 6"),
        ("+ -", 0, "1 + 2 3 - 3 0"),
        ("+ *", 9, "1 + 2 3 * 3 9"),
        ("* +", 5, "1 * 2 2 + 3 5"),
        ("* *", 6, "1 * 2 2 * 3 6"),
    ]


def test_no_running_value_leaves_the_range() -> None:
    for row, value, way in ops.legal_leaves((6, 6, 6, 6), 40):
        words = way.split()
        assert all(0 <= int(words[i]) <= 40 for i in range(3, len(words), 3)), way
        assert (len(row.split()), int(words[-1])) == (3, value)


def test_teacher_tries_then_answers() -> None:
    leaves = ops.legal_leaves((1, 2, 3), 40)
    right = ops.teach(leaves, 9, random.Random(1), p_stop=0.0, max_attempts=14)
    assert right.endswith("1 + 2 3 * 3 9 ?= 9 ok </think> + *")
    hasty = ops.teach(leaves, 40, random.Random(1), p_stop=1.0, max_attempts=14)
    assert hasty.count("?= 40 x") == 1
    patient = ops.teach(leaves, 40, random.Random(1), p_stop=0.0, max_attempts=3)
    assert patient.count(" x") == 3


def test_prompt_is_made_again_by_its_index() -> None:
    again = ops.load(ops.Config(), 0)
    assert TASK.prompt("train", 17) == again.prompt("train", 17)
    assert TASK.demonstration(17) == again.demonstration(17)
    assert TASK.demonstration(17)[0] == TASK.prompt("train", 17)
    assert TASK.prompt("train", 17).text != ops.load(ops.Config(), 1).prompt("train", 17).text


def test_prompt_text_and_answer() -> None:
    prompt = TASK.prompt("train", 5)
    assert prompt == Prompt(
        prompt_id="ops/train/5", task="ops", text=prompt.text, answer=prompt.answer, index=5, source="ops generator"
    )
    words = prompt.text.split()
    assert words[4] == "->"
    assert words[5] == prompt.answer
    assert words[6] == "<think>"


def test_test_split_is_finite_distinct_and_never_trained_on() -> None:
    size = TASK.size("test")
    assert TASK.size("train") is None
    assert size is not None
    assert size >= 1600
    tests = {TASK.prompt("test", i).text for i in range(size)}
    assert len(tests) == size
    assert tests.isdisjoint(TASK.prompt("train", i).text for i in range(3000))
    with pytest.raises(DataError, match=f"there are {size};"):
        TASK.prompt("test", size)


def test_seed_shuffles_the_test_split_and_changes_nothing_else() -> None:
    other = ops.load(ops.Config(), 1)
    mine, theirs = ([t.prompt("test", i).text for i in range(1600)] for t in (TASK, other))
    assert mine != theirs
    assert other.size("test") == TASK.size("test")


def test_half_of_the_demonstrations_are_right() -> None:
    num, right, attempts, num_tokens = 4000, 0, 0, 0
    for i in range(num):
        prompt, response = TASK.demonstration(i)
        verdict = verifier.score(prompt.text, response, prompt.answer)
        right += verdict.status == "correct"
        attempts += int(verdict.parts["search_steps"])
        num_tokens += len(response.split()) + 1
    assert 0.48 < right / num < 0.53
    assert 3.8 < attempts / num < 4.2
    assert 55 < num_tokens / num < 59


def test_demonstrations_are_fast() -> None:
    start = time.process_time()
    for i in range(2000):
        TASK.demonstration(i)
    assert (time.process_time() - start) / 2000 < 300e-6


def test_tokenizer_has_124_words_and_knows_every_word_of_the_task() -> None:
    tokenizer = word_tokenizer()
    assert len(tokenizer) == len(VOCABULARY) == 124
    for i in range(200):
        prompt, response = TASK.demonstration(i)
        ids = tokenizer(prompt.text + " " + response)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True) == prompt.text + " " + response


@pytest.mark.parametrize("bad", [{"k": 1}, {"largest": 10}, {"limit": 100}, {"p_stop": 1.5}, {"heldout_share": 0.0}])
def test_impossible_puzzles_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"must|lie"):
        ops.Config(**bad)
