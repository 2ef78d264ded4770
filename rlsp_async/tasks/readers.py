"""Reading files of rows and the splits of data-set directories. A fault is one sentence with the file and the line.

    for line, row in read_rows(Path("train.jsonl")): ...     # also .json, .csv, .tsv, packed or not, .parquet, .arrow
    text_field(row, "reward_model.ground_truth", where)      # also a field inside a field, and "prompt.0.content"
    list_splits(Path("gsm8k/main"))                          # {"train": [train-00000-of-00001.parquet], "test": [...]}

Directories of these shapes are read, with files of any of the formats above:

    DIR/train-00000-of-00002.parquet, DIR/test.jsonl ...     as on the Hugging Face hub; also in DIR/data/
    DIR/train/*.jsonl, DIR/test/*.jsonl ...                  one directory for each split, with one of the usual names
    DIR/NAME/*.arrow and DIR/NAME/state.json                 what `DatasetDict.save_to_disk` writes
    DIR/*.arrow and DIR/state.json                           what `Dataset.save_to_disk` writes: one split, named ""

A selection that was saved with its file of indices (`state.json` names one) is read in the order of the indices.
Whether a text file holds JSON lines or one JSON value is read from its content, whatever its suffix says.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import itertools
import json
import lzma
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import IO, Any, cast

from rlsp_async.errors import DataError, MachineError

Row = dict[str, Any]
PACKED = (".gz", ".bz2", ".xz", ".zst")
"""Suffixes of compressed files; zst needs pyarrow."""
TEXTS = (".jsonl", ".json", ".ndjson", ".csv", ".tsv")
SUFFIXES = (*TEXTS, *(text + packed for text in TEXTS for packed in PACKED), ".parquet", ".arrow")
BATCH_ROWS = 1024
"""Rows of a Parquet or Arrow file in memory at once, in addition to those that the task keeps."""
CELL_CHARACTERS = 1 << 24
"""Longest cell of a table of text."""

_PART = re.compile(r"-\d{5}-of-\d{5}(-[0-9a-f]+)?$")
_SPLITS = frozenset({"train", "test", "validation", "valid", "val", "dev", "eval"})
_NO_ROWS = frozenset({"dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json"})
_SURROGATE = re.compile("[\ud800-\udfff]")


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
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as e:
        raise DataError(f"{path}: cannot be read: {e}") from None
    if not num_rows:
        raise DataError(f"{path}: is empty")


def text_field(row: Row, field: str, where: str, empty_ok: bool = False) -> str:
    """A field as text (numbers as written). Raises DataError when it is missing, empty or of another type.

    A dot in `field` descends one level, into an object by name and into a list by number. A field whose own name
    contains the dot takes precedence.
    """
    text = as_text(value_field(row, field, where), field, where)
    if not empty_ok and not text.strip():
        raise DataError(f"{where}: field {field!r} is empty")
    return text


def text_fields(row: Row, field: str, where: str) -> list[str]:
    """The texts of a field that holds one text, or a list of them. Raises DataError, as `text_field`."""
    value = value_field(row, field, where)
    if not isinstance(value, list):
        return [text_field(row, field, where)]
    texts = [as_text(one, f"{field}.{number}", where) for number, one in enumerate(value)]
    if not texts or not all(text.strip() for text in texts):
        raise DataError(f"{where}: field {field!r} is {'an empty list' if not texts else 'a list with an empty text'}")
    return texts


def has_field(row: Row, field: str) -> bool:
    """Whether a row has a value other than null there."""
    try:
        return value_field(row, field, "") is not None
    except DataError:
        return False


def as_text(value: Any, field: str, where: str) -> str:
    """A value as text. Raises DataError for NaN, for text that is no Unicode, and for other types.

    Args:
        value: what was read from the field.
        field: its name, for the error.
        where: FILE:LINE, for the error.
    """
    if isinstance(value, dict) and value:
        inside = ", ".join(repr(f"{field}.{name}") for name in itertools.islice(value, 5))
        raise DataError(
            f"{where}: field {field!r} is an object, not text or a number; name one of its fields: {inside}"
        )
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        kind = "null" if value is None else type(value).__name__
        raise DataError(f"{where}: field {field!r} is {kind}, not text or a number")
    if not isinstance(value, str) and not math.isfinite(value):
        raise DataError(f"{where}: field {field!r} is {value}, not a number; give it a value or leave the row out")
    text = str(value)
    if found := _SURROGATE.search(text):
        raise DataError(
            f"{where}: field {field!r} has half of a surrogate pair (\\u{ord(found[0]):04x}) at character "
            f"{found.start()}, which is no Unicode text: replace the character or leave the row out"
        )
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
    if suffix == ".parquet" or suffix == ".arrow":
        return _arrow_rows(path)
    return _table_rows(path) if suffix.startswith((".csv", ".tsv")) else _json_rows(path)


def _opened(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked. Raises MachineError when the library for its compression is missing."""
    if path.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path))
    if path.suffix == ".bz2":
        return bz2.open(path)
    if path.suffix == ".xz":
        return lzma.open(path)
    if path.suffix == ".zst":
        try:
            import pyarrow
        except ModuleNotFoundError:
            raise MachineError(f"{path}: reading .zst needs pyarrow; pip install 'rlsp_async[parquet]'") from None
        return io.BytesIO(pyarrow.input_stream(str(path), compression="zstd").read())
    return path.open("rb")


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """JSON lines, or one JSON value: a list of objects, or a single object, which is the only row.

    The content decides, and an unknown suffix means JSON, too: a file that begins with "[" is one list; another one
    holds JSON lines, unless its first line is only the beginning of an object. Lines are numbered as in the file, the
    objects of a list from 1.
    """
    with _opened(path) as file:
        blank, first = _first_line(file)
        lines = enumerate(itertools.chain([first], file), start=blank + 1)
        if not first.lstrip(b"\xef\xbb\xbf \t").startswith(b"[") and _is_whole(first):
            for number, line in lines:
                if line.strip():
                    yield number, _object(_parsed(line.strip(), f"{path}:{number}"), f"{path}:{number}")
            return
        if not first:
            return
        value = _parsed(first + file.read(), str(path), blank + 1)
    for number, row in enumerate(value if isinstance(value, list) else [value], start=1):
        yield number, _object(row, f"{path}:{number}")


def _first_line(file: IO[bytes]) -> tuple[int, bytes]:
    """The number of blank lines at the beginning of a file, and the first line that is not blank."""
    blank = 0
    for line in file:
        if line.removeprefix(b"\xef\xbb\xbf").strip():
            return blank, line
        blank += 1
    return blank, b""


def _is_whole(line: bytes) -> bool:
    """Whether a line is a JSON value or damaged; False: the value goes on in the next line, so far without a fault."""
    try:
        json.loads(line.decode("utf-8-sig"))
    except json.JSONDecodeError as e:
        return bool(e.doc[e.pos :].strip())
    except (ValueError, RecursionError):
        return True
    return True


def _table_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Rows below a line of names, separated by commas, or by tabs in a .tsv."""
    csv.field_size_limit(CELL_CHARACTERS)
    with _opened(path) as file:
        data = file.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise _not_utf8(str(path), e, 1) from None
    separator = "\t" if suffix_of(path).startswith(".tsv") else ","
    table = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        _require_different(table.fieldnames or (), f"{path}:1")
        for row in table:
            if None in row or None in row.values():
                raise DataError(f"{path}:{table.line_num}: has not as many cells as the first line names")
            yield table.line_num, dict(row)
    except csv.Error as e:
        raise DataError(f"{path}:{table.line_num}: cannot be read: {e}") from None


def _require_different(names: Iterable[str], where: str) -> None:
    """Raises DataError when two columns have one name."""
    twice = [name for name, num in Counter(names).items() if num > 1]
    if twice:
        raise DataError(f"{where}: two columns are named {twice[0]!r}; rename one of them")


def _parsed(text: bytes, where: str, line: int = 0) -> Any:
    """One JSON value. `line` is the number of its first line where `where` names only the file, and 0 otherwise."""
    try:
        return json.loads(text.decode("utf-8-sig"), object_pairs_hook=_once)
    except UnicodeDecodeError as e:
        raise _not_utf8(where, e, line) from None
    except json.JSONDecodeError as e:
        at = f"{where}:{line + e.lineno - 1}" if line else where
        raise DataError(f"{at}: is not valid JSON: {e.msg} at character {e.colno}") from None
    except (ValueError, RecursionError) as e:
        raise DataError(
            f"{where}:{line}: is not valid JSON: {e}" if line else f"{where}: is not valid JSON: {e}"
        ) from None


def _not_utf8(where: str, error: UnicodeDecodeError, line: int) -> DataError:
    text, start = error.object, error.start
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return DataError(f"{where}: is not UTF-8 but UTF-16: save it as UTF-8, e.g. with iconv -f UTF-16 -t UTF-8")
    at = f"{where}:{line + text.count(bytes([10]), 0, start)}" if line else where
    byte = start - (text.rfind(b"\n", 0, start) + 1)
    return DataError(f"{at}: is not UTF-8 (byte {byte}): save it as UTF-8, e.g. with iconv -f LATIN1 -t UTF-8")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises ValueError when it has a key twice: which of the values is meant cannot be known."""
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = next(name for name, num in Counter(name for name, _ in pairs).items() if num > 1)
        raise ValueError(f"the key {twice!r} stands in one object twice")
    return made


def _object(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{where}: is not a JSON object but {type(row).__name__}")
    return row


def _arrow_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Parquet and Arrow rows, numbered from 1. Raises DataError for a broken file, MachineError without pyarrow."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.ipc
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise MachineError(f"{path}: reading {path.suffix} needs pyarrow; pip install 'rlsp_async[parquet]'") from None
    number = 0
    try:
        with path.open("rb") as file:
            batches = _batches(pyarrow, path, file)
            if indices := _index_files(path):
                batches = _selected(pyarrow, batches, indices)
            for batch in batches:
                if not number:
                    _require_different(batch.schema.names, str(path))
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


def _selected(pyarrow: Any, batches: Iterator[Any], indices: list[Path]) -> Iterator[Any]:
    """The rows of a selection, in the order of its indices. The whole table is in memory meanwhile."""
    table = pyarrow.Table.from_batches(list(batches))
    for path in indices:
        with path.open("rb") as file:
            for batch in _batches(pyarrow, path, file):
                if batch.num_columns != 1 or (batch.num_rows and pyarrow.compute.max(batch[0]).as_py() >= len(table)):
                    raise DataError(
                        f"{path}: its indices do not fit the {len(table)} rows beside it; save the set again"
                    )
                yield from table.take(batch[0]).to_batches(BATCH_ROWS)


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
    return _listed(folder, "_data_files")


def _index_files(path: Path) -> list[Path]:
    """The files of indices of a selection that `save_to_disk` wrote, whose rows `path` holds; else none.

    Raises DataError for a selection of several files, whose rows have no common numbers here.
    """
    folder = path.parent
    if path.suffix != ".arrow" or not (folder / "state.json").is_file():
        return []
    data = _listed(folder, "_data_files")
    indices = [*_listed(folder, "_indices_files"), *_listed(folder, "_indices_data_files")]
    if indices and path in data and len(data) > 1:
        raise DataError(f"{folder}: a selection of {len(data)} files; save it again after flatten_indices()")
    return indices if path in data else []


def _listed(folder: Path, key: str) -> list[Path]:
    """The files of one list of state.json."""
    state = folder / "state.json"
    try:
        entries = json.loads(state.read_bytes())
        names = [entry["filename"] for entry in (entries[key] if key == "_data_files" else entries.get(key) or ())]
        return [folder / Path(name).name for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{state}: is not the state.json that save_to_disk writes") from None


def _describe_splits(path: Path, splits: dict[str, list[Path]]) -> str:
    if splits:
        return f"it has {', '.join(map(repr, splits))}; name one with split_train and split_test"
    folders = [folder.name for folder in sorted(path.iterdir()) if folder.is_dir() and not folder.name.startswith(".")]
    inside = f"; perhaps in one of its directories: {', '.join(folders[:10])}" if folders else ""
    return f"no file of rows (.jsonl, .json, .csv, .tsv, .parquet, .arrow) lies in it{inside}"
