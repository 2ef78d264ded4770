"""Reading files of rows: every fault of the user's file is one sentence that names file and line.

    for line, row in read_rows(Path("train.jsonl")): ...     # also .jsonl.gz, .json, .json.gz, .csv, .parquet, .arrow
    text_field(row, "reward_model.ground_truth", where)      # also a field inside a field, and "prompt.0.content"

Which files make up a split of a directory: `folders.py`.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from rlsp_async.errors import DataError
from rlsp_async.tasks import arrow

Row = dict[str, Any]
SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".parquet", ".arrow")


def shipped_file(name: str) -> Path:
    """A file of rlsp_async/data."""
    return Path(str(resources.files("rlsp_async").joinpath("data", name)))


def suffix_of(path: Path) -> str:
    """The one of SUFFIXES that the name ends with; empty for any other file."""
    return next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), "")


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """(number, row) of each row, 1 being the first; of a text file the number of its line.

    Raises DataError for a file or row that cannot be read, MachineError when the library for its format is missing.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a directory, not a file of rows")
    if not path.exists():
        raise DataError(f"{path}: no such file")
    num_rows = 0
    try:
        for number, row in _reader(path):
            num_rows += 1
            yield number, row
    except (OSError, EOFError, csv.Error) as e:
        raise DataError(f"{path}: cannot be read: {e}") from None
    if not num_rows:
        raise DataError(f"{path}: is empty")


def text_field(row: Row, field: str, where: str, empty_ok: bool = False) -> str:
    """A field as text (numbers as written). Raises DataError when it is missing, empty or something else.

    A dot goes one level down, into an object by name and into a list by number; a field whose own name has the dot
    comes first.
    """
    value = value_field(row, field, where)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"{where}: field {field!r} is {type(value).__name__}, not text or a number")
    text = str(value)
    if not empty_ok and not text.strip():
        raise DataError(f"{where}: field {field!r} is empty")
    return text


def value_field(row: Row, field: str, where: str) -> Any:
    """A field as it is. Raises DataError when the row has none of that name."""
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


def is_heldout(text: str, share: float) -> bool:
    """Whether a prompt belongs to the test split: its md5 as a fraction of 1 lies below `share`."""
    digest = hashlib.md5(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def _reader(path: Path) -> Iterator[tuple[int, Row]]:
    suffix = suffix_of(path)
    if suffix in (".parquet", ".arrow"):
        return arrow.read(path)
    if suffix in (".json", ".json.gz"):
        return _json_rows(path)
    return _csv_rows(path) if suffix == ".csv" else _lines(path)


def _lines(path: Path) -> Iterator[tuple[int, Row]]:
    """JSON lines; also the format of a file whose name says nothing."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, _object(_parsed(line, f"{path}:{number}"), f"{path}:{number}")


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """One JSON value: a list of objects, or an object that is a row itself. Rows are counted, not lines."""
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
