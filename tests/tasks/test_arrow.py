"""Parquet and Arrow files, and what the datasets library leaves on a disk. Skipped without pyarrow but for its absence."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from rlsp_async import config
from rlsp_async.errors import DataError, MachineError
from rlsp_async.tasks.base import load_task
from rlsp_async.tasks.readers import read_rows

ROWS = [{"prompt": [{"content": f"What is {n} + {n}?"}], "answer": 2 * n} for n in range(2500)]


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
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "train.parquet")
    task = load("parquet", tmp_path / "train.parquet", path_test=str(tmp_path / "train.parquet"), deduplicate="off")
    assert task.size("train") == 2500
    prompt = task.prompt("train", 2000)
    assert prompt.text.startswith("What is 2000 + 2000?")
    assert (prompt.answer, prompt.source, prompt.task) == ("4000", "train.parquet:2001", "parquet")


def test_a_saved_data_set(pyarrow: Any, tmp_path: Path) -> None:
    """DatasetDict.save_to_disk: Arrow streams, and caches beside them that are not part of it."""
    for split, rows in (("train", ROWS[:1200]), ("test", ROWS[1200:1300])):
        names = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
        half = len(rows) // 2
        stream(pyarrow, tmp_path / split / names[0], rows[:half])
        stream(pyarrow, tmp_path / split / names[1], rows[half:])
        stream(pyarrow, tmp_path / split / "cache-0123.arrow", ROWS[:7])
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
    table = pyarrow.Table.from_pylist(ROWS[:3])
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
