"""A user's own rows: what is read, and one sentence for every fault."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from rlsp_async import config
from rlsp_async.errors import ConfigError, DataError
from rlsp_async.tasks.base import load_task
from rlsp_async.tasks.row_task import RowTask

ROWS = [{"prompt": f"What is {n} + {n}?", "answer": 2 * n, "solution": f"it is {2 * n}"} for n in range(200)]


def write(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def load(**options: object) -> RowTask:
    task = load_task(config.TaskConfig(name="jsonl", options=options), 0)
    assert isinstance(task, RowTask)
    return task


def test_two_files(tmp_path: Path) -> None:
    train, test = write(tmp_path / "a.jsonl", ROWS[:3]), write(tmp_path / "b.jsonl", ROWS[3:5])
    task = load(path_train=train, path_test=test, chat=True, system="Be brief.")
    assert (task.size("train"), task.size("test"), task.verifier) == (3, 2, "math")
    prompt = task.prompt("test", 1)
    assert prompt.text == "What is 4 + 4?\nPut the final answer in \\boxed{}."
    assert (prompt.prompt_id, prompt.answer, prompt.chat, prompt.system) == ("jsonl/test/1", "8", True, "Be brief.")
    assert prompt.source == "b.jsonl:2"
    with pytest.raises(DataError, match="there are 2"):
        task.prompt("test", 2)


def test_one_file_is_split_by_hash(tmp_path: Path) -> None:
    task = load(path_train=write(tmp_path / "a.jsonl", ROWS))
    train, test = ({task.prompt(s, i).text for i in range(task.size(s) or 0)} for s in ("train", "test"))
    assert len(train) + len(test) == 200
    assert not train & test
    assert 8 <= len(test) <= 35


def test_template_fields_limit_and_gzip(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps({"q": "{x}?", "a": "7"}).encode() + b"\n\n" + b"broken"))
    task = load(
        path_train=str(path),
        path_test=str(path),
        prompt_field="q",
        answer_field="a",
        template="Q: {prompt} A:",
        limit=1,
        verifier="exact",
        deduplicate="off",
    )
    assert (task.prompt("train", 0).text, task.size("train"), task.verifier) == ("Q: {x}? A:", 1, "exact")


def test_demonstrations_come_from_a_field_and_start_again(tmp_path: Path) -> None:
    path, test = write(tmp_path / "a.jsonl", ROWS[:3]), write(tmp_path / "b.jsonl", ROWS[3:4])
    task = load(path_train=path, path_test=test, response_field="solution")
    assert task.demonstration(4)[1] == "it is 2"
    with pytest.raises(DataError, match="no demonstrations"):
        load(path_train=path, path_test=test).demonstration(0)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"prompt": "a", "answer": "1"}\n{"prompt": "b", \n', "bad.jsonl:2: is not valid JSON"),
        ('{"prompt": "a", "answer": "1"}\n[1]\n', "bad.jsonl:2: is not a JSON object but list"),
        ('{"prompt": "a", "anwser": "1"}\n', "bad.jsonl:1: has no field 'answer'; it has 'prompt', 'anwser'"),
        ('{"prompt": "a", "answer": null}\n', "bad.jsonl:1: field 'answer' is null"),
        ('\n{"prompt": "  ", "answer": "1"}\n', "bad.jsonl:2: field 'prompt' is empty"),
        ("", "bad.jsonl: is empty"),
        ("\n\n", "bad.jsonl: is empty"),
        ("[" * 100_000 + "\n", "bad.jsonl:1: is not valid JSON"),
    ],
)
def test_faults_of_a_file(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load(path_train=str(path), path_test=str(path))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_faults_outside_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        load(path_train=str(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match=r"has no split .train.; no file of rows .* lies in it"):
        load(path_train=str(tmp_path))
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9"}\n')
    with pytest.raises(DataError, match=r"latin\.jsonl:1: is not UTF-8"):
        load(path_train=str(tmp_path / "latin.jsonl"))
    (tmp_path / "torn.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "a", "answer": "1"}\n' * 999)[:40])
    with pytest.raises(DataError, match="cannot be read"):
        load(path_train=str(tmp_path / "torn.jsonl.gz"))
    with pytest.raises(DataError, match="no row is left for the train split"):
        load(path_train=write(tmp_path / "one.jsonl", ROWS[:1]), heldout_share=0.999999)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "missing required field `path_train`"),
        ({"path_train": "x", "template": "no place"}, "template must contain {prompt}"),
        ({"path_train": "x", "system": "s"}, "system needs chat = true"),
        ({"path_trian": "x"}, "did you mean 'path_train'?"),
    ],
)
def test_wrong_options(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(**options)
    assert sentence in str(caught.value)


def test_nobody_imitates_held_out_rows_and_a_tiny_file_may_have_none(tmp_path: Path) -> None:
    train = write(tmp_path / "a.jsonl", [{"prompt": f"{i}", "answer": "1", "response": "r"} for i in range(3)])
    test = write(tmp_path / "b.jsonl", [{"prompt": "held out", "answer": "1"}])
    assert load(path_train=train, path_test=test, response_field="response").size("test") == 1
    tiny = load(path_train=train, heldout_share=1e-9, response_field="response")
    assert (tiny.size("train"), tiny.size("test")) == (3, 0)
    assert tiny.demonstration(0)[1] == "r"


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (["1/2", "0.5", "1/2"], "1/2\x1e0.5"),
        ([7], "7"),
        ("[1, 2]", "[1, 2]"),
        ("{1, 2}", "{1, 2}"),
    ],
)
def test_a_list_holds_acceptable_answers_and_a_text_is_one(tmp_path: Path, answer: object, found: str) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": "p", "gold": {"target": answer}}])
    assert (
        load(path_train=path, path_test=path, answer_field="gold.target", deduplicate="off").prompt("train", 0).answer
        == found
    )


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ([], "a.jsonl:1: field 'answer' is an empty list"),
        (["1", " "], "a.jsonl:1: field 'answer' is a list with an empty text"),
        (["1", None], "a.jsonl:1: field 'answer.1' is null"),
        (["1", ["2"]], "a.jsonl:1: field 'answer.1' is list"),
        (list(range(65)), "a.jsonl:1: field 'answer': 65 acceptable answers; 1 to 64 can be judged"),
        (["a\x1eb"], "a.jsonl:1: field 'answer': an answer contains the control character U+001E"),
        ({"target": ["1"]}, "a.jsonl:1: field 'answer' is an object, not text or a number; name one of its fields: "),
    ],
)
def test_lists_of_answers_that_cannot_be_meant(tmp_path: Path, answer: object, sentence: str) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": "p", "answer": answer}])
    with pytest.raises(DataError) as caught:
        load(path_train=path, path_test=path)
    assert sentence in str(caught.value)


def test_rows_to_imitate_need_no_answer(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"prompt": "p", "completion": "c"},
        {"prompt": "q", "completion": "d", "answer": 1},
    ]
    path = write(tmp_path / "a.jsonl", rows)
    other = write(tmp_path / "b.jsonl", [{"prompt": "r"}])
    task = load(path_train=path, path_test=other, response_field="completion")
    assert [task.demonstration(i)[1] for i in range(2)] == ["c", "d"]
    assert [task.prompt("train", i).answer for i in range(2)] == ["", "1"]
    assert task.prompt("test", 0).answer == ""
    with pytest.raises(DataError, match=r"a\.jsonl:1: has no field 'answer'; it has 'prompt', 'completion'"):
        load(path_train=path, path_test=other)
