"""MATH, AIME and AMC as their published copies are shaped; the problems here are made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlsp_async import config
from rlsp_async.errors import DataError
from rlsp_async.tasks.base import load_task
from rlsp_async.tasks.competition import last_box


def load(name: str, **options: object) -> Any:
    return load_task(config.TaskConfig(name=name, options=options), 0)


def math_directory(root: Path) -> Path:
    for split, subject, number, level, answer in (
        ("train", "algebra", 2, "Level 1", "\\frac{1}{2}"),
        ("train", "algebra", 10, "Level 5", "10"),
        ("train", "counting_and_probability", 1, "Level 3", "3"),
        ("test", "algebra", 7, "Level 3", "x=4"),
    ):
        kind = {"algebra": "Algebra"}.get(subject, "Counting & Probability")
        folder = root / split / subject
        folder.mkdir(parents=True, exist_ok=True)
        row = {
            "problem": f"{split} {subject} {number}?",
            "level": level,
            "type": kind,
            "solution": f"Not \\boxed{{0}} but \\boxed{{{answer}}}.",
        }
        (folder / f"{number}.json").write_text(json.dumps(row))
    return root


def test_math_as_published(tmp_path: Path) -> None:
    root = math_directory(tmp_path)
    task = load("hendrycks_math", path_train=str(root / "train"), path_test=str(root / "test"))
    assert (task.size("train"), task.size("test"), task.verifier) == (3, 1, "math")
    assert [task.prompt("train", i).source for i in range(3)] == [
        "algebra/2.json",
        "algebra/10.json",
        "counting_and_probability/1.json",
    ]
    assert [task.prompt("train", i).answer for i in range(3)] == ["\\frac{1}{2}", "10", "3"]
    assert task.demonstration(0)[1] == "Not \\boxed{0} but \\boxed{\\frac{1}{2}}."
    assert task.prompt("test", 0).answer == "x=4"


@pytest.mark.parametrize(
    ("options", "num"),
    [
        ({"levels": [1, 5]}, 2),
        ({"subjects": ["Counting & Probability"]}, 1),
        ({"subjects": ["algebra"], "levels": [5]}, 1),
        ({"subjects": ["counting_and_probability"]}, 1),
    ],
)
def test_levels_and_subjects(tmp_path: Path, options: dict[str, object], num: int) -> None:
    train = str(math_directory(tmp_path) / "train")
    assert load("hendrycks_math", path_test=train, **options).size("test") == num


def test_math_as_rows(tmp_path: Path) -> None:
    rows = [
        {"problem": "a?", "solution": "so \\boxed{1}", "answer": "\\frac12", "subject": "Algebra", "level": 2},
        {"problem": "b?", "solution": "so \\fbox{7}", "subject": "Geometry", "level": 3},
    ]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = load("hendrycks_math", path_test=str(tmp_path / "test.jsonl"))
    assert [task.prompt("test", i).answer for i in range(2)] == ["\\frac12", "7"]
    with pytest.raises(DataError, match="there are 0; it is for evaluation only"):
        task.prompt("train", 0)
    assert load("hendrycks_math", path_test=str(tmp_path / "test.jsonl"), levels=[3]).size("test") == 1


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"problem": "a?", "solution": "so it is 7"}, r"test\.jsonl:1: has no field 'answer', and no closed \\boxed{}"),
        ({"problem": "a?", "solution": "so \\boxed{7"}, "no closed"),
        ({"problem": "a?"}, "has none of the fields 'solution', 'Solution'; it has 'problem'"),
        ({"text": "a?", "answer": "1"}, "has none of the fields 'problem', 'Problem', 'question'"),
    ],
)
def test_faults_of_math(tmp_path: Path, row: dict[str, str], sentence: str) -> None:
    (tmp_path / "test.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=sentence):
        load("hendrycks_math", path_test=str(tmp_path / "test.jsonl"))


def test_a_choice_that_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no problem of the levels and subjects asked for"):
        load("hendrycks_math", path_test=str(math_directory(tmp_path) / "test"), levels=[1])


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("\\boxed{\\frac{1}{2}} or \\boxed{\\{1, 2\\}}.", "\\{1, 2\\}"),
        ("\\boxed 7.", "7"),
        ("\\fbox{a}", "a"),
        ("none", ""),
        ("\\boxed{open", ""),
        ("\\boxed{}", ""),
        ("\\boxed{ 5 }", "5"),
        ("\\boxed", ""),
    ],
)
def test_last_box(text: str, inside: str) -> None:
    assert last_box(text) == inside


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"id": 60, "problem": "p", "solution": "s", "answer": "073", "url": "u", "year": "2024"}\n'),
        ("a.csv", "ID,Year,Problem Number,Question,Answer,Part\n2024-I-1,2024,1,p,73,I\n"),
        ("a.json", '[{"ID": "2024-II-4", "Problem": "p", "Solution": "s", "Answer": 73}]'),
        ("test.jsonl", '{"question": "p", "answer": 73.0}\n'),
    ],
)
def test_aime_as_its_copies_are_shaped(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    prompt = load("aime", path_test=str(tmp_path / name)).prompt("test", 0)
    assert (prompt.answer, prompt.text) == ("73", "p\nPut the final answer in \\boxed{}.")


def test_aime_from_a_directory_and_its_own_training_years(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text('{"problem": "p", "answer": "1"}\n')
    (tmp_path / "old.jsonl").write_text('{"problem": "P.", "answer": "1"}\n{"problem": "q", "answer": "2"}\n')
    task = load("aime", path_test=str(tmp_path), path_train=str(tmp_path / "old.jsonl"))
    assert (task.size("train"), task.overlap().removed) == (1, 1)


@pytest.mark.parametrize("answer", ["1000", "-1", "1/2", "B"])
def test_an_aime_answer_that_cannot_be(tmp_path: Path, answer: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"problem": "p", "answer": answer}) + "\n")
    with pytest.raises(DataError, match=r"a\.jsonl:1: the answer .* is not a whole number from 0 to 999"):
        load("aime", path_test=str(tmp_path / "a.jsonl"))


@pytest.mark.parametrize(
    ("answer", "text"),
    [(142.0, "142"), ("-3", "-3"), (2.5, "2.5"), ("\\frac{1}{3}", "\\frac{1}{3}"), ("C", "C"), ("1,024", "1024")],
)
def test_amc_answers(tmp_path: Path, answer: object, text: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"problem": "p", "answer": answer}) + "\n")
    assert load("amc", path_test=str(tmp_path / "a.jsonl")).prompt("test", 0).answer == text


def test_only_rows_with_a_solution_are_shown(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text('{"problem": "t", "answer": "1"}\n')
    rows = [
        {"problem": "a", "answer": "1"},
        {"problem": "b", "answer": "2", "solution": "two"},
        {"problem": "c", "answer": "3"},
    ]
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = load("amc", path_test=str(tmp_path), path_train=str(tmp_path / "old.jsonl"))
    assert [task.demonstration(i)[0].prompt_id for i in range(3)] == ["amc/train/1"] * 3
