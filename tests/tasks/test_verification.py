"""Problem and response as a prompt: in free text (RISE), and in the words of the operator puzzle."""

from __future__ import annotations

import random

import pytest

from rlsp_async.messages import Prompt, Verdict
from rlsp_async.tasks import ops
from rlsp_async.tasks.opscheck import answer_row, check_text, is_check, propose, teach_check
from rlsp_async.tasks.row_task import Item, Manner, Rows
from rlsp_async.tasks.verification import fence_for, verification_prompt
from rlsp_async.tasks.word_tokenizer import word_tokenizer
from rlsp_async.verifying.math import score as grade
from rlsp_async.verifying.ops import score

ROWS = Rows(
    "mine",
    Manner(template="{prompt} Box it.", system="Think.", chat=True),
    {"train": [Item(prompt="What is 2 + 2?", answer="4", source="f:1")], "test": []},
)
TASK = ops.load(ops.Config(), 0)


def rated(status: str, response: str = "so \\boxed{4}") -> Prompt:
    made = ROWS.verification(ROWS.prompt("train", 0), response, Verdict(status=status))  # type: ignore[arg-type]
    assert made is not None
    return made


def test_text_shows_problem_and_whole_response_and_stays_in_the_form_of_the_problem():
    child = rated("correct", "so {problem} and {fence} \\boxed{4}")
    assert "\n```\nWhat is 2 + 2? Box it.\n```\n" in child.text
    assert "\n```\nso {problem} and {fence} \\boxed{4}\n```\n" in child.text
    assert child.text.endswith("in \\boxed{}.")
    assert (child.chat, child.system, child.task, child.answer) == (True, "Think.", "mine", "1")


@pytest.mark.parametrize(
    ("status", "right", "wrong"),
    [
        ("correct", ["1", "1.0", "+1", "1.00"], ["-1", "-0.5", "0"]),
        ("wrong", ["-0.5", "-.5", "-\\frac{1}{2}", "-1/2"], ["0.5", "-1", "1"]),
        ("unparsable", ["-1", "-1.0"], ["1", "-0.5"]),
    ],
)
def test_ratings_are_graded_as_numbers(status: str, right: list[str], wrong: list[str]):
    child = rated(status)
    for text in right:
        assert grade(child.text, f"It is fine. \\boxed{{{text}}}", child.answer).status == "correct", text
    for text in wrong:
        assert grade(child.text, f"It is fine. \\boxed{{{text}}}", child.answer).status == "wrong", text
    assert grade(child.text, "", child.answer).status == "unparsable"


@pytest.mark.parametrize("status", ["timeout", "error"])
def test_a_verdict_on_the_verifier_is_no_label(status: str):
    assert verification_prompt(ROWS.prompt("train", 0), "4", Verdict(status=status)) is None  # type: ignore[arg-type]


def test_a_response_cannot_close_its_fence():
    assert fence_for("a `b` ``c``", "none") == "```"
    assert fence_for("```python\n```", "````") == "`````"
    child = rated("wrong", "```\nRating: \\boxed{1}\n```")
    assert child.text.count("````\n```\nRating") == 1


# --- the operator puzzle ---------------------------------------------------------------------------------------------


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
    assert answer_row("x </think> + + + </think> * * +", 3) == "* * +"
    assert answer_row("* * +", 3) is None
    assert is_check(check_text("1 2 -> 3", "+"))
    assert not is_check("1 2 -> 3 <think>")


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
    verdict = score("1 1 3 4 -> 7 : 1 * 1 * 3 + 4 check <think>", response, answer)
    assert verdict.status == status
    assert verdict.parts == {
        "correct": float(status == "correct"),
        "format": float(status != "unparsable"),
        "search_steps": steps,
    }


def test_shown_rows_are_right_half_of_the_time_and_so_are_guesses():
    leaves = ops.legal_leaves((1, 2, 3), 40)
    rng = random.Random(0)
    shown = [propose(leaves, 9, rng)[1] == 9 for _ in range(1000)]
    assert 450 < sum(shown) < 550
    assert propose([("+ +", 6, "1 + 2 3 + 3 6")], 6, rng)[0] == "+ +"
    assert teach_check("1 + 2 3 + 3 6", 6, 9, rng, 0.0) == "1 + 2 3 + 3 6 ?= 9 x </think> x"
    guesses = [teach_check("1 + 2 3 + 3 6", 6, 9, rng, 1.0) for _ in range(1000)]
    assert 450 < guesses.count("</think> ok") < 550
    assert set(guesses) == {"</think> ok", "</think> x"}


def test_share_of_demonstrations_verifies_and_the_rest_is_what_it_was():
    task = ops.load(ops.Config(verify_share=0.25, verify_guess=0.0), 0)
    made = [task.demonstration(index) for index in range(400)]
    asked = [prompt for prompt, _ in made if is_check(prompt.text)]
    assert 75 < len(asked) < 125
    for index, (prompt, response) in enumerate(made):
        if is_check(prompt.text):
            assert prompt.prompt_id == f"ops/train/{index}/check"
            assert prompt.text.startswith(TASK.prompt("train", index).text.removesuffix(" <think>"))
            assert score(prompt.text, response, prompt.answer).status == "correct"
        else:
            assert (prompt, response) == TASK.demonstration(index)
    assert task.prompt("train", 3) == TASK.prompt("train", 3)
    assert task.demonstration(7) == ops.load(ops.Config(verify_share=0.25, verify_guess=0.0), 0).demonstration(7)


def test_held_out_problems_can_be_put_for_verification():
    task = ops.load(ops.Config(verify_test=True), 0)
    prompts = [task.prompt("test", index) for index in range(200)]
    assert all(is_check(prompt.text) for prompt in prompts)
    assert 60 < sum(prompt.answer == "ok" for prompt in prompts) < 140
    assert [p.text.partition(" : ")[0] for p in prompts[:9]] == [
        TASK.prompt("test", index).text.removesuffix(" <think>") for index in range(9)
    ]
    assert prompts[5] == task.prompt("test", 5)
