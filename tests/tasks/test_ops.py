"""The operator puzzle: its text, its teacher, its split."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from rlsp_async.errors import DataError
from rlsp_async.messages import Prompt, Verdict
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
    right = ops.write_demonstration(leaves, 9, random.Random(1), p_stop=0.0, max_attempts=14)
    assert right.endswith("1 + 2 3 * 3 9 ?= 9 ok </think> + *")
    hasty = ops.write_demonstration(leaves, 40, random.Random(1), p_stop=1.0, max_attempts=14)
    assert hasty.count("?= 40 x") == 1
    patient = ops.write_demonstration(leaves, 40, random.Random(1), p_stop=0.0, max_attempts=3)
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


def test_the_rows_of_a_problem_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: Counter[tuple[int, ...]] = Counter()

    def counted(numbers: tuple[int, ...], limit: int) -> list[ops.Leaf]:
        computed[numbers] += 1
        return ops_legal_leaves(numbers, limit)

    ops_legal_leaves = ops.legal_leaves
    monkeypatch.setattr(ops, "legal_leaves", counted)
    task = ops.load(ops.Config(), 0)
    for i in range(2000):
        task.demonstration(i)
    assert set(computed.values()) == {1} and len(computed) <= 6**4


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


# --- verifying a proposed row -----------------------------------------------------------------------------------------


def test_row_of_a_response_is_put_in_words_of_the_vocabulary():
    prompt = Prompt(prompt_id="ops/train/3", task="ops", text="1 1 3 4 -> 7 <think>", answer="7", index=3)
    right = TASK.verification(prompt, "1 * 1 1 * 3 3 + 4 7 ?= 7 ok </think> * * +", Verdict(status="correct"))
    assert right is not None
    assert (right.text, right.answer) == ("1 1 3 4 -> 7 : 1 * 1 * 3 + 4 check <think>", "ok")
    wrong = TASK.verification(prompt, "</think> + + +", Verdict(status="wrong"))
    assert wrong is not None
    assert (wrong.text, wrong.answer) == ("1 1 3 4 -> 7 : 1 + 1 + 3 + 4 check <think>", "x")
    tokenizer = word_tokenizer()
    assert tokenizer.unk_token_id not in tokenizer(right.text)["input_ids"]
    for response in ("", "+ + +", "</think> + +", "</think> + + 3"):
        assert TASK.verification(prompt, response, Verdict(status="unparsable")) is None
    assert TASK.verification(prompt, "</think> + + +", Verdict(status="unparsable")) is None


def test_row_is_read_where_the_verifier_reads_it():
    assert ops.answer_row("x </think> + + + </think> * * +", 3) == "* * +"
    assert ops.answer_row("* * +", 3) is None
    assert ops.is_check(ops.check_text("1 2 -> 3", "+"))
    assert not ops.is_check("1 2 -> 3 <think>")


@pytest.mark.parametrize(
    ("response", "answer", "status", "steps"),
    [
        ("1 * 1 1 * 3 3 + 4 7 ?= 7 ok </think> ok", "ok", "correct", 1),
        ("</think> x", "ok", "wrong", 0),
        ("</think> x", "x", "correct", 0),
        ("</think> * * +", "ok", "unparsable", 0),
        ("ok", "ok", "unparsable", 1),
        ("</think> ok x", "ok", "unparsable", 0),
        ("</think>", "x", "unparsable", 0),
    ],
)
def test_verdicts_on_verifications(response: str, answer: str, status: str, steps: float):
    verdict = verifier.score("1 1 3 4 -> 7 : 1 * 1 * 3 + 4 check <think>", response, answer)
    assert verdict.status == status
    assert verdict.parts == {
        "correct": float(status == "correct"),
        "format": float(status != "unparsable"),
        "search_steps": steps,
    }


def test_shown_rows_are_right_half_of_the_time_and_so_are_guesses():
    leaves = ops.legal_leaves((1, 2, 3), 40)
    rng = random.Random(0)
    shown = [ops.propose_row(leaves, 9, rng)[1] == 9 for _ in range(1000)]
    assert 450 < sum(shown) < 550
    assert ops.propose_row([("+ +", 6, "1 + 2 3 + 3 6")], 6, rng)[0] == "+ +"
    assert ops.write_verification("1 + 2 3 + 3 6", 6, 9, rng, 0.0) == "1 + 2 3 + 3 6 ?= 9 x </think> x"
    guesses = [ops.write_verification("1 + 2 3 + 3 6", 6, 9, rng, 1.0) for _ in range(1000)]
    assert 450 < guesses.count("</think> ok") < 550
    assert set(guesses) == {"</think> ok", "</think> x"}


def test_share_of_demonstrations_verifies_and_the_rest_is_what_it_was():
    task = ops.load(ops.Config(verify_share=0.25, verify_guess=0.0), 0)
    made = [task.demonstration(index) for index in range(400)]
    asked = [prompt for prompt, _ in made if ops.is_check(prompt.text)]
    assert 75 < len(asked) < 125
    for index, (prompt, response) in enumerate(made):
        if ops.is_check(prompt.text):
            assert prompt.prompt_id == f"ops/train/{index}/check"
            assert prompt.text.startswith(TASK.prompt("train", index).text.removesuffix(" <think>"))
            assert verifier.score(prompt.text, response, prompt.answer).status == "correct"
        else:
            assert (prompt, response) == TASK.demonstration(index)
    assert task.prompt("train", 3) == TASK.prompt("train", 3)
    assert task.demonstration(7) == ops.load(ops.Config(verify_share=0.25, verify_guess=0.0), 0).demonstration(7)


def test_held_out_problems_can_be_put_for_verification():
    task = ops.load(ops.Config(verify_test=True), 0)
    prompts = [task.prompt("test", index) for index in range(200)]
    assert all(ops.is_check(prompt.text) for prompt in prompts)
    assert 60 < sum(prompt.answer == "ok" for prompt in prompts) < 140
    assert [p.text.partition(" : ")[0] for p in prompts[:9]] == [
        TASK.prompt("test", index).text.removesuffix(" <think>") for index in range(9)
    ]
    assert prompts[5] == task.prompt("test", 5)
