"""JSON lines: one object in each line, appended as events happen, readable while a run goes on.

    writer = JsonlWriter(run / "metrics.jsonl")
    writer.write({"kind": "step", "step": 3, "reward": 0.41})
    for row in read_jsonl(run / "metrics.jsonl"): ...

A process that is killed can leave half a line at the end. The reader skips that line, and the writer removes it before
it appends, so every line within a file is complete.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import orjson

from rlsp_async.errors import DataError, unwritable

T = TypeVar("T")

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE


class JsonlWriter:
    """Appends objects to a file without buffering: another process can read a line as soon as `write` returns.

    A file has one writer. Raises MachineError when the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file():
                _cut_torn_tail(path)
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115  closed by close()
        except OSError as e:
            raise unwritable(path, e) from None

    def write(self, row: dict[str, Any]) -> None:
        """Appends one line. NaN and infinities become null; numpy values are written as numbers."""
        rest = memoryview(orjson.dumps(row, option=_OPTIONS))
        try:
            while rest:  # a disk that is nearly full accepts a part, and then raises
                rest = rest[self._file.write(rest) :]
        except OSError as e:
            raise unwritable(self.path, e) from None

    def close(self) -> None:
        """Closes the file. Idempotent."""
        self._file.close()

    def __enter__(self) -> JsonlWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of all complete lines; [] for a missing file.

    A last line without its newline is left out: its writer has not finished it, or was killed.
    Raises DataError with file and line when a line is no JSON object.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return []
    lines = raw.split(b"\n")[:-1]
    return [_parse(line, path, number) for number, line in enumerate(lines, start=1) if line.strip()]


def read_whole_lines(path: Path, make: Callable[[dict[str, Any]], T]) -> list[T]:
    """What `make` makes of each line of a file that only people read; a damaged line is left out.

    How many were left out is said on standard error. `make` refuses a line by KeyError, TypeError or ValueError.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    made: list[T] = []
    num_damaged = 0
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                made.append(make(_parse(line, path, number)))
            except (KeyError, TypeError, ValueError):  # DataError is one
                num_damaged += 1
    if num_damaged:
        print(f"{path}: {num_damaged} of {len(lines)} lines are damaged and were left out", file=sys.stderr)
    return made


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as e:
        raise DataError(f"{path}, line {number}: no valid JSON: {e}") from None
    if not isinstance(row, dict):
        raise DataError(f"{path}, line {number}: a JSON object is expected, not {type(row).__name__}")
    return row


def _cut_torn_tail(path: Path, block_bytes: int = 65536) -> None:
    """Removes what follows the last newline, so that the next line does not continue an incomplete one."""
    with open(path, "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        keep = end
        while keep > 0:
            start = max(0, keep - block_bytes)
            file.seek(start)
            at = file.read(keep - start).rfind(b"\n")
            if at >= 0:
                keep = start + at + 1
                break
            keep = start
        if keep < end:
            file.truncate(keep)
