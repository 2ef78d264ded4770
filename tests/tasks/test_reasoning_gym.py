"""reasoning-gym's tasks as prompts; skipped without the package, but for what is said then."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from rlsp_async import config
from rlsp_async.errors import ConfigError, DataError, MachineError
from rlsp_async.tasks import reasoning_gym as module
from rlsp_async.tasks.base import load_task


@pytest.fixture
def gym() -> None:
    pytest.importorskip(
        "reasoning_gym", reason="reasoning-gym is not installed: pip install 'rlsp_async[reasoning-gym]'"
    )


def load(seed: int = 0, **options: object) -> Any:
    return load_task(config.TaskConfig(name="reasoning_gym", options={"dataset": "chain_sum", **options}), seed)


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(MachineError) as caught:
        load()
    assert str(caught.value) == (
        "task reasoning_gym: the package is not installed; pip install 'rlsp_async[reasoning-gym]'"
    )


def test_metadata_comes_back_as_it_was() -> None:
    metadata = {
        "difficulty": {"terms": (2, 4)},
        "grid": [[1, 2], (3,)],
        "seen": {1, 2},
        "by_place": {(0, 1): "a", 2: None},
    }
    text = module.answer_text("x", {"a": 1}, {"question": "q", "answer": "7", "metadata": metadata})
    assert module.answer_item(text) == ("x", {"a": 1}, {"question": "", "answer": "7", "metadata": metadata})


@pytest.mark.parametrize("text", ["", "7", "{}", '{"dataset": "x", "params": 3, "answer": "1", "metadata": {}}', "[1]"])
def test_an_answer_that_is_no_item(text: str) -> None:
    with pytest.raises(DataError, match="is not an item of reasoning-gym as JSON"):
        module.answer_item(text)


def test_prompts_depend_on_the_options_and_not_on_the_runs_seed(gym: None) -> None:
    task, again = load(0, size=50, test_size=5), load(7, size=50, test_size=5)
    assert (task.size("train"), task.size("test"), task.verifier) == (50, 5, "reasoning_gym")
    assert [task.prompt("train", i) for i in range(50)] == [again.prompt("train", 49 - i) for i in range(50)][::-1]
    prompt = task.prompt("test", 4)
    assert prompt.prompt_id == "reasoning_gym/chain_sum/test/4" and prompt.chat
    assert prompt.text.endswith("\nWrite the final answer between <answer> and </answer>.")
    with pytest.raises(DataError, match="test prompt 5 asked for, there are 5"):
        task.prompt("test", 5)
    with pytest.raises(DataError, match="reasoning_gym/chain_sum' has no demonstrations"):
        task.demonstration(0)


def test_params_reach_the_generator(gym: None) -> None:
    task = load(params={"min_terms": 6, "max_terms": 6, "min_digits": 1, "max_digits": 1})
    assert all(sum(task.prompt("train", i).text.count(sign) for sign in " +-"[1:]) >= 5 for i in range(10))


def test_held_out_questions_are_not_trained_on(gym: None) -> None:
    """Sums of two digits: 200 pairs or so, so that the two splits would meet often."""
    narrow = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1, "allow_negation": False}
    task = load(size=300, test_size=30, params=narrow)
    tests = {task.prompt("test", i).text for i in range(30)}
    assert not tests & {task.prompt("train", i).text for i in range(300)}


def test_a_data_set_that_is_too_narrow_says_so(gym: None) -> None:
    narrow = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1, "allow_negation": False}
    task = load(size=20, test_size=4000, params=narrow)
    with pytest.raises(DataError, match="nearly all training items of 'chain_sum' stand in the test split"):
        task.prompt("train", 0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"dataset": "chain_some"},
            "task.options.dataset: reasoning-gym has no task 'chain_some'; did you mean 'chain_sum'?",
        ),
        ({"dataset": "composite"}, "reasoning-gym has no task 'composite'"),
        (
            {"dataset": "chain_sum", "params": {"terms": 3}},
            "task.options.params: reasoning-gym refuses them for 'chain_sum'",
        ),
        ({"dataset": "chain_sum", "params": {"min_terms": 0}}, "task.options.params: reasoning-gym refuses them"),
        ({"dataset": "chain_sum", "size": 0}, "size and test_size must be at least 1"),
    ],
)
def test_wrong_options(gym: None, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(**options)
    assert sentence in str(caught.value)


def test_a_generator_that_prints_does_not(gym: None, capsys: pytest.CaptureFixture[str]) -> None:
    load(dataset="bf", size=3, test_size=1).prompt("train", 0)
    assert capsys.readouterr().out == ""
