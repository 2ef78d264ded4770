"""The shipped data sets prove themselves on their own reference answers."""

from __future__ import annotations

import importlib.util
import json
from importlib import resources
from pathlib import Path

import pytest

from rlsp_async import config
from rlsp_async.errors import DataError
from rlsp_async.tasks import svamp
from rlsp_async.tasks.base import load_task
from rlsp_async.tasks.readers import read_rows
from rlsp_async.verifying import countdown, math


def test_gsm8k_is_whole_and_its_solutions_are_right() -> None:
    task = load_task(config.TaskConfig(name="gsm8k"), 0)
    assert (task.size("train"), task.size("test"), task.verifier) == (7473, 1319, "math")
    for i in range(7473):
        prompt, response = task.demonstration(i)
        assert "<<" not in response
        assert "####" not in response
        assert math.score(prompt.text, response, prompt.answer).status == "correct", prompt.prompt_id


def test_gsm8k_prompt() -> None:
    prompt = load_task(config.TaskConfig(name="gsm8k", options={"limit": 3}), 0).prompt("test", 0)
    assert prompt.answer == "18"
    assert prompt.chat
    assert prompt.text.endswith("Put the final answer in \\boxed{}.")


def test_countdown_solutions_are_right_and_the_next_row_is_wrong() -> None:
    task = load_task(config.TaskConfig(name="countdown"), 0)
    assert (task.size("train"), task.size("test"), task.verifier) == (1999, 256, "countdown")
    path = Path(str(resources.files("rlsp_async").joinpath("data", "countdown_train.jsonl.gz")))
    for i, (_, row) in enumerate(read_rows(path)):
        response = f"<answer>{row['solution']}</answer>"
        assert countdown.score("", response, task.prompt("train", i).answer).status == "correct", row
        assert countdown.score("", response, task.prompt("train", (i + 1) % 1999).answer).status == "wrong", row


def test_svamp_keeps_the_tellings_of_a_story_together() -> None:
    task = load_task(config.TaskConfig(name="svamp"), 0)
    assert (task.size("train"), task.size("test"), task.verifier) == (751, 249, "math")
    stories: dict[str, set[str]] = {"train": set(), "test": set()}
    for split in ("train", "test"):
        for i in range(task.size(split) or 0):
            prompt = task.prompt(split, i)
            stories[split].add(svamp.story_of(prompt.text))
            assert math.score(prompt.text, f"\\boxed{{{prompt.answer}}}", prompt.answer).status == "correct"
    assert not stories["train"] & stories["test"]
    assert load_task(config.TaskConfig(name="svamp", options={"heldout_share": 1.0}), 0).size("test") == 1000


def test_humaneval_is_for_evaluation_and_its_answer_holds_the_tests() -> None:
    task = load_task(config.TaskConfig(name="humaneval"), 0)
    assert (task.size("train"), task.size("test"), task.verifier) == (0, 164, "code")
    prompt = task.prompt("test", 0)
    assert "def has_close_elements(" in prompt.text
    answer = json.loads(prompt.answer)
    assert answer["entry_point"] == "has_close_elements"
    assert "def check(candidate):" in answer["test"]
    with pytest.raises(DataError, match="there are 0; it is for evaluation only"):
        task.prompt("train", 0)


def test_mbpp_has_the_authors_split_and_shows_its_tests() -> None:
    task = load_task(config.TaskConfig(name="mbpp"), 0)
    assert (task.size("train"), task.size("test"), task.verifier) == (169, 257, "code")
    prompt, response = task.demonstration(0)
    assert prompt.text.startswith(
        "Write a function to find the shared elements from the given two lists.\nIt must pass"
    )
    assert prompt.answer.count("assert ") == 3 and prompt.answer in prompt.text
    assert response.startswith("```python\ndef similar_elements(") and response.endswith("\n```")


def test_mbpp_as_published(tmp_path: Path) -> None:
    rows = [
        {
            "task_id": 10,
            "text": "Write {tests}.",
            "code": "x",
            "test_list": ["assert f(1) == 2"],
            "test_setup_code": "",
        },
        {"task_id": 11, "text": "b", "code": "x", "test_list": ["assert g()"], "test_setup_code": "import math"},
    ]
    (tmp_path / "mbpp.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = load_task(config.TaskConfig(name="mbpp", options={"path_all": str(tmp_path / "mbpp.jsonl")}), 0)
    assert (task.size("train"), task.size("test")) == (1, 1)
    assert task.prompt("train", 0).text.startswith("Write {tests}.\nIt must pass these tests:\nassert f(1) == 2\n")
    assert task.prompt("test", 0).answer == "import math\nassert g()"


@pytest.mark.skipif(importlib.util.find_spec("rlsp_async.verifying.code") is None, reason="no verifier `code` here")
@pytest.mark.parametrize(("name", "split", "num"), [("humaneval", "test", 3), ("mbpp", "train", 3)])
def test_the_verifier_reads_the_tests(name: str, split: str, num: int) -> None:
    from rlsp_async.verifying.code.forms import read_reference

    task = load_task(config.TaskConfig(name=name), 0)
    for index in range(num):
        prompt = task.prompt(split, index)
        assert (
            f"def {read_reference(prompt.answer, prompt.text, 0.0).name}(" in prompt.text + task.demonstration(index)[1]
            if name == "mbpp"
            else read_reference(prompt.answer, prompt.text, 0.0).has_check
        )
