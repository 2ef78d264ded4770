"""Training rows that stand in the test split: found, removed, reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlsp_async import config
from rlsp_async.errors import DataError
from rlsp_async.tasks.base import load_task
from rlsp_async.tasks.overlap import (
    COMMON,
    ComparedRow,
    RepeatedRow,
    comparison_words,
    find_near_repeats,
    find_repeats,
    report_lines,
    summary,
)

LONG = "a train leaves the station at noon and goes north with sixty miles an hour until it stops"


def rows_of(*texts: str) -> list[ComparedRow]:
    return [ComparedRow(text=text, source=f"row {n}") for n, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("How many apples?", "how many  apples"),
        ("Tom's 3 apples, please.", "tom s 3 apples\nplease"),
        ("\u00c4pfel", "\u00e4pfel"),
    ],
)
def test_equal_but_for_case_blanks_and_punctuation(a: str, b: str) -> None:
    assert comparison_words(a) == comparison_words(b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("2 + 3", "2 - 3"),
        ("2.5", "25"),
        ("2.5", "2 5"),
        ("(1 + 2) * 3", "1 + (2 * 3)"),
        ("12 apples", "1 2 apples"),
        ("x^2", "x2"),
        ("f(x) = {1}", "f(x) = [1]"),
        ("x_1", "x1"),
        ("a \u2264 b", "a \u2265 b"),
    ],
)
def test_not_equal_when_it_means_something_else(a: str, b: str) -> None:
    assert comparison_words(a) != comparison_words(b)


def test_a_test_row_leaves_the_training_split() -> None:
    kept, pairs = find_repeats(rows_of("one", "Two?", "three", "two"), rows_of("two!", "four", "TWO"))
    assert kept == [0, 2]
    assert pairs == [
        RepeatedRow(train="row 1", test="row 0", text="Two?"),
        RepeatedRow(train="row 3", test="row 0", text="two"),
    ]


def test_thirteen_shared_words_are_near_and_twelve_are_not() -> None:
    twelve, thirteen = (" ".join(LONG.split()[:n]) for n in (12, 13))
    kept, pairs = find_near_repeats(rows_of(f"So {twelve}", f"So {thirteen} then", LONG), rows_of(LONG))
    assert kept == [0]
    assert [(pair.train, pair.text) for pair in pairs] == [("row 1", thirteen), ("row 2", thirteen)]


def test_wording_that_all_rows_share_is_no_sign() -> None:
    rows = rows_of(*(f"{LONG} {n}" for n in range(COMMON + 1)))
    assert find_near_repeats(rows, rows_of(LONG))[1] == []
    assert len(find_near_repeats(rows[:COMMON], rows_of(LONG))[1]) == COMMON


def load(tmp_path: Path, train: list[str], test: list[str], **options: object) -> Any:
    for name, prompts in (("train", train), ("test", test)):
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(json.dumps({"prompt": p, "answer": "1"}) + "\n" for p in prompts)
        )
    return load_task(
        config.TaskConfig(
            name="jsonl",
            options={"path_train": str(tmp_path / "train.jsonl"), "path_test": str(tmp_path / "test.jsonl"), **options},
        ),
        0,
    )


def test_a_task_removes_and_reports(tmp_path: Path) -> None:
    train, test = ["one", "Two?", LONG + " again", "one"], ["two", LONG]
    task = load(tmp_path, train, test)
    assert [task.prompt("train", i).source for i in range(3)] == ["train.jsonl:1", "train.jsonl:3", "train.jsonl:4"]
    lines = report_lines(task.overlap(), "jsonl")
    assert lines == [
        "jsonl: 3 training and 2 test rows",
        "removed from training because a test row equals them: 1",
        "  train.jsonl:2 = test.jsonl:1: Two?",
        "training rows with 13 words in a row of a test row, kept: 1",
        "  train.jsonl:3 = test.jsonl:2: " + " ".join(LONG.split()[:13]),
        "rows that an earlier row of their split equals, kept: 1 in training, 0 in test",
    ]
    assert summary(task.overlap()) == (
        "3",
        "1 removed that equal a held-out row, 1 kept that share 13 words in a row with one",
    )
    assert load(tmp_path, train, test, deduplicate="off").size("train") == 4
    near = load(tmp_path, train, test, deduplicate="near")
    assert (near.size("train"), near.overlap().near, near.overlap().removed) == (2, 1, 1)
    with pytest.raises(DataError, match="each of the 2 training rows stands in the test split"):
        load(tmp_path, ["Two?", "two"], test)


def test_countdown_compares_puzzles_and_not_their_wording(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"numbers": [3, 1, 2], "target": 6}\n{"numbers": [3, 1, 2], "target": 7}\n')
    (tmp_path / "b.jsonl").write_text('{"numbers": [1, 2, 3], "target": 6}\n')
    task = load_task(
        config.TaskConfig(
            name="countdown", options={"path_train": str(tmp_path / "a.jsonl"), "path_test": str(tmp_path / "b.jsonl")}
        ),
        0,
    )
    assert (task.size("train"), task.prompt("train", 0).answer) == (1, "3 1 2 -> 7")


@pytest.mark.parametrize(
    ("name", "sizes", "removed", "near"),
    [
        ("gsm8k", (7473, 1319), 0, 4),
        ("countdown", (1999, 256), 0, 0),
        ("mbpp", (169, 257), 1, 3),
        ("svamp", (751, 249), 0, 38),
    ],
)
def test_the_shipped_splits(name: str, sizes: tuple[int, int], removed: int, near: int) -> None:
    overlap = load_task(config.TaskConfig(name=name), 0).overlap()  # type: ignore[attr-defined]
    assert (overlap.train, overlap.test) == sizes
    assert (overlap.removed, overlap.near) == (removed, near)
