"""Reading files of rows and the splits of data-set directories. A fault is one sentence with the file and the line.

    for line, row in read_rows(Path("train.jsonl")): ...     # also .jsonl.gz, .json, .json.gz, .csv, .parquet, .arrow
    text_field(row, "reward_model.ground_truth", where)      # also a field inside a field, and "prompt.0.content"
    list_splits(Path("gsm8k/main"))                          # {"train": [train-00000-of-00001.parquet], "test": [...]}

Directories of these shapes are read, with files of any of the formats above:

    DIR/train-00000-of-00002.parquet, DIR/test.jsonl ...     as on the Hugging Face hub; also in DIR/data/
    DIR/train/*.jsonl, DIR/test/*.jsonl ...                  one directory for each split, with one of the usual names
    DIR/NAME/*.arrow and DIR/NAME/state.json                 what `DatasetDict.save_to_disk` writes
    DIR/*.arrow and DIR/state.json                           what `Dataset.save_to_disk` writes: one split, named ""
"""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from rlsp_async.errors import DataError, MachineError

Row = dict[str, Any]
SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".parquet", ".arrow")
BATCH_ROWS = 1024
"""Rows of a Parquet or Arrow file in memory at once, in addition to those that the task keeps."""

_PART = re.compile(r"-\d{5}-of-\d{5}(-[0-9a-f]+)?$")
_SPLITS = frozenset({"train", "test", "validation", "valid", "val", "dev", "eval"})
_NO_ROWS = frozenset({"dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json"})


def shipped_file(name: str) -> Path:
    """The path of a file in rlsp_async/data."""
    return Path(str(resources.files("rlsp_async").joinpath("data", name)))


def suffix_of(path: Path) -> str:
    """The member of SUFFIXES that the name ends with; "" for any other file."""
    return next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), "")


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """The rows of a file as (number, row): the line number in a text file, else the number of the row, from 1.

    Raises DataError for a file or row that cannot be read, MachineError when the library for its format is missing.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a directory, not a file of rows")
    if not path.exists():
        raise DataError(f"{path}: no such file")
    num_rows = 0
    try:
        for number, row in _choose_reader(path):
            num_rows += 1
            yield number, row
    except (OSError, EOFError, csv.Error) as e:
        raise DataError(f"{path}: cannot be read: {e}") from None
    if not num_rows:
        raise DataError(f"{path}: is empty")


def text_field(row: Row, field: str, where: str, empty_ok: bool = False) -> str:
    """A field as text (numbers as written). Raises DataError when it is missing, empty or of another type.

    A dot in `field` descends one level, into an object by name and into a list by number. A field whose own name
    contains the dot takes precedence.
    """
    value = value_field(row, field, where)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"{where}: field {field!r} is {type(value).__name__}, not text or a number")
    text = str(value)
    if not empty_ok and not text.strip():
        raise DataError(f"{where}: field {field!r} is empty")
    return text


def value_field(row: Row, field: str, where: str) -> Any:
    """The value of a field, unconverted. Raises DataError when the row has no such field."""
    if field in row:
        return row[field]
    value: Any = row
    for name in field.split("."):
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            raise DataError(f"{where}: has no field {field!r}; it has {', '.join(map(repr, row)) or 'none'}")
    return value


# --- the formats ------------------------------------------------------------------------------------------------------


def _choose_reader(path: Path) -> Iterator[tuple[int, Row]]:
    suffix = suffix_of(path)
    if suffix in (".parquet", ".arrow"):
        return _arrow_rows(path)
    if suffix in (".json", ".json.gz"):
        return _json_rows(path)
    return _csv_rows(path) if suffix == ".csv" else _json_lines(path)


def _json_lines(path: Path) -> Iterator[tuple[int, Row]]:
    """JSON lines; also the format of a file with an unknown suffix."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, _object(_parsed(line, f"{path}:{number}"), f"{path}:{number}")


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """One JSON value: a list of objects, or a single object, which is the only row. Rows are counted, not lines."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        value = _parsed(file.read(), str(path))
    for number, row in enumerate(value if isinstance(value, list) else [value], start=1):
        yield number, _object(row, f"{path}:{number}")


def _csv_rows(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            for row in table:
                if None in row or None in row.values():
                    raise DataError(f"{path}:{table.line_num}: has not as many cells as the first line names")
                yield table.line_num, dict(row)
    except UnicodeDecodeError as e:
        raise DataError(f"{path}: is not UTF-8 (byte {e.start})") from None


def _parsed(text: bytes, where: str) -> Any:
    try:
        return json.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError as e:
        raise DataError(f"{where}: is not UTF-8 (byte {e.start})") from None
    except (ValueError, RecursionError) as e:
        raise DataError(f"{where}: is not valid JSON: {e}") from None


def _object(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{where}: is not a JSON object but {type(row).__name__}")
    return row


def _arrow_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Parquet and Arrow rows, numbered from 1. Raises DataError for a broken file, MachineError without pyarrow."""
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise MachineError(f"{path}: reading {path.suffix} needs pyarrow; pip install 'rlsp_async[parquet]'") from None
    number = 0
    try:
        with path.open("rb") as file:
            for batch in _batches(pyarrow, path, file):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except pyarrow.ArrowException as e:
        raise DataError(f"{path}: cannot be read: {' '.join(str(e).split())[:200]}") from None


def _batches(pyarrow: Any, path: Path, file: Any) -> Iterator[Any]:
    """Record batches. `save_to_disk` of the datasets library writes Arrow streams, other programs write Arrow files."""
    if path.suffix == ".parquet":
        yield from pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=BATCH_ROWS)
        return
    is_file = file.read(6) == b"ARROW1"
    file.seek(0)
    if is_file:
        reader = pyarrow.ipc.open_file(file)
        yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
    else:
        yield from pyarrow.ipc.open_stream(file)


# --- the splits of a directory ----------------------------------------------------------------------------------------


def list_files(path: Path, split: str) -> list[Path]:
    """The files of a split, in order; the path of a file is its own only file. Raises DataError when there are none."""
    if not path.is_dir():
        return [path]
    splits = list_splits(path)
    files = splits.get(split) or (splits.get("") if len(splits) == 1 else None)
    if not files:
        raise DataError(f"{path}: has no split {split!r}; {_describe_splits(path, splits)}")
    return files


def list_splits(path: Path) -> dict[str, list[Path]]:
    """The splits of a directory and their files; "" is a split without a name. Empty when the shape is unknown."""
    if (path / "state.json").is_file():
        return {"": _saved_files(path)}
    splits: dict[str, list[Path]] = {}
    for folder in (path, path / "data"):
        for file in _rows_in(folder):
            splits.setdefault(_PART.sub("", file.name.removesuffix(suffix_of(file))), []).append(file)
    for folder in sorted(path.iterdir()):
        is_saved = (folder / "state.json").is_file()
        files = _saved_files(folder) if is_saved else _rows_in(folder) if folder.name in _SPLITS else []
        if files and folder.name not in splits:
            splits[folder.name] = files
    return splits


def _rows_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.is_file() and suffix_of(file) and file.name not in _NO_ROWS)


def _saved_files(folder: Path) -> list[Path]:
    """The files that state.json lists; other .arrow files in the folder are caches of the datasets library."""
    state = folder / "state.json"
    try:
        names = [entry["filename"] for entry in json.loads(state.read_bytes())["_data_files"]]
        return [folder / Path(name).name for name in names]
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{state}: is not the state.json that save_to_disk writes") from None


def _describe_splits(path: Path, splits: dict[str, list[Path]]) -> str:
    if splits:
        return f"it has {', '.join(map(repr, splits))}; name one with split_train and split_test"
    folders = [folder.name for folder in sorted(path.iterdir()) if folder.is_dir() and not folder.name.startswith(".")]
    inside = f"; perhaps in one of its directories: {', '.join(folders[:10])}" if folders else ""
    return f"no file of rows (.jsonl, .json, .csv, .parquet, .arrow) lies in it{inside}"
