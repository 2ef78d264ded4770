"""Reading JSONL files of a task: every fault of the user's file is one sentence that names file and line.

    for line, row in read_rows(Path("train.jsonl")): ...     # also train.jsonl.gz
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlsp_async.errors import DataError

Row = dict[str, Any]


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """(line number, object) of each line that is not blank. Raises DataError for a file or line that cannot be read."""
    if path.is_dir():
        raise DataError(f"{path}: is a directory, not a JSONL file")
    num_rows = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    num_rows += 1
                    yield number, _row(line, f"{path}:{number}")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, EOFError) as e:
        raise DataError(f"{path}: cannot be read: {e}") from None
    if not num_rows:
        raise DataError(f"{path}: is empty")


def text_field(row: Row, field: str, where: str, empty_ok: bool = False) -> str:
    """A field as text (numbers as written). Raises DataError when it is missing, empty or something else."""
    if field not in row:
        raise DataError(f"{where}: has no field {field!r}; it has {', '.join(map(repr, row)) or 'none'}")
    value = row[field]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"{where}: field {field!r} is {type(value).__name__}, not text or a number")
    text = str(value)
    if not empty_ok and not text.strip():
        raise DataError(f"{where}: field {field!r} is empty")
    return text


def is_heldout(text: str, share: float) -> bool:
    """Whether a prompt belongs to the test split: its md5 as a fraction of 1 lies below `share`."""
    digest = hashlib.md5(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def _row(line: bytes, where: str) -> Row:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as e:
        raise DataError(f"{where}: is not UTF-8 (byte {e.start})") from None
    except (ValueError, RecursionError) as e:
        raise DataError(f"{where}: is not valid JSON: {e}") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: is not a JSON object but {type(row).__name__}")
    return row
