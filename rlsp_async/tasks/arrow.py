"""Rows of Parquet and Arrow files, with pyarrow: an optional library, loaded only when such a file is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlsp_async.errors import DataError, MachineError

BATCH_ROWS = 1024
"""Rows in memory at once, beside those that the task keeps."""


def read(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row number from 1, row). Raises DataError for a broken file, MachineError without pyarrow."""
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
    """Record batches; `save_to_disk` of the datasets library writes Arrow streams, other programs Arrow files."""
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
