"""The shipped data sets prove themselves on their own reference answers."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from rlsp_async import config
from rlsp_async.tasks.base import load_task
from rlsp_async.tasks.rows import read_rows
from rlsp_async.verifying import countdown, math


def test_gsm8k_is_whole_and_its_solutions_are_right() -> None:
    task = load_task(config.Task(name="gsm8k"), 0)
    assert (task.size("train"), task.size("test"), task.verifier) == (7473, 1319, "math")
    for i in range(7473):
        prompt, response = task.demonstration(i)
        assert "<<" not in response
        assert "####" not in response
        assert math.score(prompt.text, response, prompt.answer).status == "correct", prompt.prompt_id


def test_gsm8k_prompt() -> None:
    prompt = load_task(config.Task(name="gsm8k", options={"limit": 3}), 0).prompt("test", 0)
    assert prompt.answer == "18"
    assert prompt.chat
    assert prompt.text.endswith("Put the final answer in \\boxed{}.")


def test_countdown_solutions_are_right_and_the_next_row_is_wrong() -> None:
    task = load_task(config.Task(name="countdown"), 0)
    assert (task.size("train"), task.size("test"), task.verifier) == (1999, 256, "countdown")
    path = Path(str(resources.files("rlsp_async").joinpath("data", "countdown_train.jsonl.gz")))
    for i, (_, row) in enumerate(read_rows(path)):
        response = f"<answer>{row['solution']}</answer>"
        assert countdown.score("", response, task.prompt("train", i).answer).status == "correct", row
        assert countdown.score("", response, task.prompt("train", (i + 1) % 1999).answer).status == "wrong", row
