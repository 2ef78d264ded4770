"""Formats of text and of tables, fields inside fields, and directories with splits."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import sys
from pathlib import Path
from typing import Any

import pytest

from rlsp_async import config
from rlsp_async.errors import DataError, MachineError
from rlsp_async.tasks.base import load_task
from rlsp_async.tasks.readers import list_files, list_splits, read_rows, text_field

ROWS = [{"prompt": "a?", "answer": 1}, {"prompt": "b?", "answer": 2}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps(ROWS, indent=1).encode()),
        ("a.json.gz", gzip.compress(json.dumps(ROWS).encode(), mtime=0)),
        ("a.jsonl", b'{"prompt": "a?", "answer": 1}\n{"prompt": "b?", "answer": 2}\n'),
        ("a.txt", b'{"prompt": "a?", "answer": 1}\n{"prompt": "b?", "answer": 2}'),
    ],
)
def test_formats_of_json(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert list(read_rows(tmp_path / name)) == [(1, ROWS[0]), (2, ROWS[1])]


def test_one_object_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text(json.dumps(ROWS[0], indent=4))
    assert list(read_rows(tmp_path / "1.json")) == [(1, ROWS[0])]


def test_csv_counts_lines_and_reads_quotes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbfID,Question\r\n1,"two\nlines, here"\r\n2,short\r\n')
    assert list(read_rows(tmp_path / "a.csv")) == [
        (3, {"ID": "1", "Question": "two\nlines, here"}),
        (4, {"ID": "2", "Question": "short"}),
    ]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("bad.csv", b"a,b\n1\n", "bad.csv:2: has not as many cells as the first line names"),
        ("bad.csv", b"a,b\n1,2,3\n", "bad.csv:2: has not as many cells"),
        ("bad.csv", b"a,b\n\xff,2\n", "bad.csv:2: is not UTF-8 (byte 0)"),
        ("bad.csv", b"a,b\n", "bad.csv: is empty"),
        ("bad.json", b"[1]", "bad.json:1: is not a JSON object but int"),
        ("bad.json", b"[{}", "bad.json:1: is not valid JSON"),
        ("bad.json", b"[]", "bad.json: is empty"),
        ("bad.json.gz", b"nothing", "bad.json.gz: cannot be read"),
    ],
)
def test_faults_name_the_place(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read_rows(tmp_path / name))
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("prompt.0.content", "2 + 2?"),
        ("reward.truth", "4"),
        ("a.b", "own name"),
        ("a.c", "inside"),
    ],
)
def test_a_dot_goes_one_level_down(field: str, text: str) -> None:
    row = {
        "prompt": [{"role": "user", "content": "2 + 2?"}],
        "reward": {"truth": 4},
        "a.b": "own name",
        "a": {"b": "not this", "c": "inside"},
    }
    assert text_field(row, field, "x") == text


@pytest.mark.parametrize("field", ["prompt.1.content", "prompt.-1", "prompt.0.text", "reward.truth.x", "none"])
def test_a_field_that_is_not_there(field: str) -> None:
    with pytest.raises(DataError, match=r"x: has no field .* it has 'prompt', 'reward'"):
        text_field({"prompt": [{"content": "a"}], "reward": {"truth": 4}}, field, "x")


def make(path: Path, *names: str) -> None:
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(json.dumps({"prompt": name, "answer": "1"}) + "\n")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "test.jsonl"], {"train": 2, "test": 1}),
        (["data/train-00000-of-00001-abc0123.jsonl", "README.md", "dataset_infos.json"], {"train": 1}),
        (["train/a.jsonl", "train/b.jsonl", "validation/a.json"], {"train": 2, "validation": 1}),
        (["main/train.jsonl", "main/test.jsonl"], {}),
    ],
)
def test_splits_of_a_directory(tmp_path: Path, names: list[str], found: dict[str, int]) -> None:
    make(tmp_path, *names)
    assert {split: len(files) for split, files in list_splits(tmp_path).items()} == found


def test_a_directory_without_the_split_says_what_it_has(tmp_path: Path) -> None:
    make(tmp_path, "train.jsonl", "validation.jsonl")
    with pytest.raises(DataError, match="has no split 'test'; it has 'train', 'validation'; name one with split_train"):
        list_files(tmp_path, "test")
    make(tmp_path / "up", "main/train.jsonl", "socratic/train.jsonl")
    with pytest.raises(DataError, match="perhaps in one of its directories: main, socratic"):
        list_files(tmp_path / "up", "train")


def test_hf_takes_the_test_split_of_the_directory(tmp_path: Path) -> None:
    make(tmp_path, "train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "test.jsonl")
    task = load_task(config.TaskConfig(name="hf", options={"path_train": str(tmp_path)}), 0)
    assert (task.size("train"), task.size("test")) == (2, 1)
    assert task.prompt("test", 0).prompt_id == "hf/test/0"
    assert task.prompt("train", 1).source == "train-00001-of-00002.jsonl:1"


def test_answer_after_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    (tmp_path / "b.jsonl").write_text('{"prompt": "r", "answer": "#### 1"}\n')
    path.write_text('{"prompt": "q", "answer": "1 #### 2 #### 72 "}\n')
    options = {"path_train": str(path), "path_test": str(tmp_path / "b.jsonl"), "answer_after": "####"}
    assert load_task(config.TaskConfig(name="jsonl", options=options), 0).prompt("train", 0).answer == "72"
    path.write_text('{"prompt": "q", "answer": "72"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:1: nothing follows '####' in field 'answer'"):
        load_task(config.TaskConfig(name="jsonl", options=options), 0)


# --- Parquet and Arrow; skipped without pyarrow ------------------------------------------------------------------------

TABLE = [{"prompt": [{"content": f"What is {n} + {n}?"}], "answer": 2 * n} for n in range(2500)]


def load(name: str, path: Path, **options: object) -> Any:
    return load_task(
        config.TaskConfig(name=name, options={"path_train": str(path), "prompt_field": "prompt.0.content", **options}),
        0,
    )


def stream(pyarrow: Any, path: Path, rows: list[dict[str, Any]]) -> None:
    table = pyarrow.Table.from_pylist(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=500)


@pytest.fixture
def pyarrow() -> Any:
    pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: pip install 'rlsp_async[parquet]'")
    import pyarrow.ipc

    return pyarrow


def test_parquet(pyarrow: Any, tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(TABLE), tmp_path / "train.parquet")
    task = load("parquet", tmp_path / "train.parquet", path_test=str(tmp_path / "train.parquet"), deduplicate="off")
    assert task.size("train") == 2500
    prompt = task.prompt("train", 2000)
    assert prompt.text.startswith("What is 2000 + 2000?")
    assert (prompt.answer, prompt.source, prompt.task) == ("4000", "train.parquet:2001", "parquet")


def test_a_saved_data_set(pyarrow: Any, tmp_path: Path) -> None:
    """DatasetDict.save_to_disk: Arrow streams, and caches beside them that are not part of it."""
    for split, rows in (("train", TABLE[:1200]), ("test", TABLE[1200:1300])):
        names = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
        half = len(rows) // 2
        stream(pyarrow, tmp_path / split / names[0], rows[:half])
        stream(pyarrow, tmp_path / split / names[1], rows[half:])
        stream(pyarrow, tmp_path / split / "cache-0123.arrow", TABLE[:7])
        state = {"_data_files": [{"filename": name} for name in names], "_split": split}
        (tmp_path / split / "state.json").write_text(json.dumps(state))
        (tmp_path / split / "dataset_info.json").write_text("{}")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    task = load("hf", tmp_path)
    assert (task.size("train"), task.size("test")) == (1200, 100)
    assert task.prompt("train", 1199).answer == "2398"
    one = load("hf", tmp_path / "test")
    assert (one.size("train") or 0) + (one.size("test") or 0) == 100
    (tmp_path / "train" / "state.json").write_text("{}")
    with pytest.raises(DataError, match=r"state\.json: is not the state\.json that save_to_disk writes"):
        load("hf", tmp_path)


def test_an_arrow_file_is_no_stream(pyarrow: Any, tmp_path: Path) -> None:
    table = pyarrow.Table.from_pylist(TABLE[:3])
    with pyarrow.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    assert [row["answer"] for _, row in read_rows(tmp_path / "a.arrow")] == [0, 2, 4]


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_broken_files(pyarrow: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not of this format at all")
    with pytest.raises(DataError, match=rf"{name}: cannot be read: "):
        list(read_rows(tmp_path / name))


def test_a_missing_library_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(MachineError) as caught:
        list(read_rows(tmp_path / "a.parquet"))
    assert str(caught.value).endswith("reading .parquet needs pyarrow; pip install 'rlsp_async[parquet]'")


# --- files as people bring them ----------------------------------------------------------------------------------------

LINES = b'{"prompt": "a?", "answer": 1}\n{"prompt": "b?", "answer": 2}\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("lines.json", LINES),
        ("lines.json.gz", gzip.compress(LINES, mtime=0)),
        ("list.jsonl", json.dumps(ROWS).encode()),
        ("list.jsonl", b"\xef\xbb\xbf\r\n" + json.dumps(ROWS, indent=1).replace("\n", "\r\n").encode()),
        ("bom.jsonl", b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n")),
        ("a.jsonl.bz2", bz2.compress(LINES)),
        ("a.ndjson.xz", lzma.compress(LINES)),
    ],
)
def test_the_content_and_not_the_suffix_says_whether_lines_or_a_list(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert list(read_rows(tmp_path / name)) == [(1, ROWS[0]), (2, ROWS[1])]


def test_blank_lines_count_as_lines(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\n \r\n" + LINES.replace(b"\n", b"\n\n"))
    assert [number for number, _ in read_rows(tmp_path / "a.json")] == [3, 5]


def test_zst_is_read_with_pyarrow(pyarrow: Any, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.zst").write_bytes(pyarrow.compress(LINES, codec="zstd", asbytes=True))
    assert list(read_rows(tmp_path / "a.jsonl.zst")) == [(1, ROWS[0]), (2, ROWS[1])]


def test_a_long_cell_tabs_and_packed_tables(tmp_path: Path) -> None:
    long = "x" * 200_000
    (tmp_path / "a.csv").write_text(f"prompt,answer\n{long},1\n")
    assert list(read_rows(tmp_path / "a.csv")) == [(2, {"prompt": long, "answer": "1"})]
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(b"prompt\tanswer\r\na, b\t1\r\n"))
    assert list(read_rows(tmp_path / "a.tsv.gz")) == [(2, {"prompt": "a, b", "answer": "1"})]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (
            "a.jsonl",
            LINES + b'{"prompt": "caf\xe9", "answer": 3}\n',
            "a.jsonl:3: is not UTF-8 (byte 15): save it as UTF-8",
        ),
        ("a.json", b'[\n{"prompt": "\xe9"}]', "a.json:2: is not UTF-8 (byte 12)"),
        ("a.csv", b"p,a\n" + b"x,1\n" * 5000 + b"\xe9,1\n", "a.csv:5002: is not UTF-8 (byte 0)"),
        ("a.jsonl", LINES.decode().encode("utf-16"), "a.jsonl:1: is not UTF-8 but UTF-16"),
        (
            "a.jsonl",
            b'{"answer": 1, "prompt": "a", "answer": 2}',
            "a.jsonl:1: is not valid JSON: the key 'answer' stands",
        ),
        ("a.csv", b"p,a,a\n1,2,3\n", "a.csv:1: two columns are named 'a'; rename one of them"),
        ("a.json", b'{"prompt": "a",\n "answer": 1\n', "a.json:3: is not valid JSON"),
        ("a.jsonl", LINES + b'{"prompt": "a"', "a.jsonl:3: is not valid JSON"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read_rows(tmp_path / name))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ('"a\\ud835"', r"x: field 'f' has half of a surrogate pair (\ud835) at character 1"),
        ("NaN", "x: field 'f' is nan, not a number; give it a value or leave the row out"),
        ("-Infinity", "x: field 'f' is -inf, not a number"),
        ("1e999", "x: field 'f' is inf, not a number"),
        ("null", "x: field 'f' is null, not text or a number"),
        ("true", "x: field 'f' is bool, not text or a number"),
        ('{"target": [1]}', "x: field 'f' is an object, not text or a number; name one of its fields: 'f.target'"),
    ],
)
def test_values_that_are_no_text(value: str, sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        text_field({"f": json.loads(value)}, "f", "x")
    assert str(caught.value).startswith(sentence)
    assert text_field({"f": json.loads(value), "g": "\U0001d54f"}, "g", "x") == "\U0001d54f"


def test_a_selection_that_was_saved_with_its_indices(pyarrow: Any, tmp_path: Path) -> None:
    stream(pyarrow, tmp_path / "data-00000-of-00001.arrow", TABLE[:1200])
    stream(pyarrow, tmp_path / "indices.arrow", [{"indices": index} for index in (1100, 3, 3, 700)])
    state: dict[str, object] = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
    (tmp_path / "state.json").write_text(json.dumps({**state, "_indices_files": [{"filename": "indices.arrow"}]}))
    rows = [row for file in list_files(tmp_path, "train") for row in read_rows(file)]
    assert [(number, row["answer"]) for number, row in rows] == [(1, 2200), (2, 6), (3, 6), (4, 1400)]
    stream(pyarrow, tmp_path / "indices.arrow", [{"indices": 1200}])
    with pytest.raises(DataError, match=r"indices\.arrow: its indices do not fit the 1200 rows beside it"):
        list(read_rows(tmp_path / "data-00000-of-00001.arrow"))
    (tmp_path / "state.json").write_text(json.dumps({**state, "_indices_files": None}))
    assert len(list(read_rows(tmp_path / "data-00000-of-00001.arrow"))) == 1200
