"""Finding a task by its name, and the sentences for those who misspell it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rlsp_async import config
from rlsp_async.errors import ConfigError, DataError
from rlsp_async.tasks.base import TASKS, load_task


def test_tasks_that_ship() -> None:
    assert TASKS.names() == [
        "addition",
        "aime",
        "amc",
        "countdown",
        "dataset",
        "gsm8k",
        "hendrycks_math",
        "hf",
        "humaneval",
        "jsonl",
        "mbpp",
        "ops",
        "parquet",
        "reasoning_gym",
        "sums",
        "svamp",
    ]


def test_a_module_of_the_users_own() -> None:
    task = load_task(config.TaskConfig(name="tests.tasks.own_task", options={"word": "moo"}), 3)
    assert task.prompt("train", 0).text == "moo 3"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("opz", "task.name: unknown name 'opz'; did you mean 'ops'?"),
        ("zzzzzz", "known: addition, aime, amc, countdown, dataset, gsm8k, hendrycks_math, hf"),
        ("nobody.has.this", "task.name: no module 'nobody.has.this'; is its directory on PYTHONPATH?"),
        ("rlsp_async.tasks.nothing", "no module 'rlsp_async.tasks.nothing'"),
        ("os.path", "module 'os.path' offers no 'Config'"),
    ],
)
def test_unknown_task(name: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_task(config.TaskConfig(name=name), 0)
    assert sentence in str(caught.value)


def test_an_import_error_inside_the_users_module_rises_as_it_is() -> None:
    with pytest.raises(ModuleNotFoundError, match="a_library_nobody_has"):
        load_task(config.TaskConfig(name="tests.tasks.broken_task"), 0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kk": 3}, "unknown key 'task.options.kk'; did you mean 'k'?"),
        ({"k": "four"}, "task.options.k = 'four': Expected `int`, got `str`"),
        ({"k": 9}, "task.options.k = 9: must be a whole number at least 2 and at most 5"),
    ],
)
def test_option_errors_name_the_key(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_task(config.TaskConfig(options=options), 0)
    assert sentence in str(caught.value)


def test_a_task_without_demonstrations_says_so() -> None:
    with pytest.raises(DataError, match="has no demonstrations"):
        load_task(config.TaskConfig(name="humaneval"), 0).demonstration(0)


def test_tasks_load_nothing_heavy() -> None:
    code = (
        "import sys; from rlsp_async import config, tokens, model, evaluate; from rlsp_async.tasks.base import "
        "load_task; load_task(config.TaskConfig(), 0).demonstration(0); "
        "print([m for m in ('torch', 'vllm', 'transformers', 'zmq', 'sympy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"
