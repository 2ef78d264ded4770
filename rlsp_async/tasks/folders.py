"""Data-set directories on disk: which files make up a split.

    splits(Path("gsm8k/main"))     {"train": [train-00000-of-00001.parquet], "test": [test-00000-of-00001.parquet]}

Known shapes, with any of the formats that `rows.py` reads:

    DIR/train-00000-of-00002.parquet, DIR/test.jsonl ...     as on the Hugging Face hub; also in DIR/data/
    DIR/train/*.jsonl, DIR/test/*.jsonl ...                  a directory a split, of the usual names
    DIR/NAME/*.arrow and DIR/NAME/state.json                 what `DatasetDict.save_to_disk` writes
    DIR/*.arrow and DIR/state.json                           what `Dataset.save_to_disk` writes: one split, named ""
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from rlsp_async.errors import DataError
from rlsp_async.tasks.readers import suffix_of

_PART = re.compile(r"-\d{5}-of-\d{5}(-[0-9a-f]+)?$")
_SPLITS = frozenset({"train", "test", "validation", "valid", "val", "dev", "eval"})
_NO_ROWS = frozenset({"dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json"})


def files_of(path: Path, split: str) -> list[Path]:
    """The files of a split of a directory, in order; a file is itself. Raises DataError when there are none."""
    if not path.is_dir():
        return [path]
    found = splits(path)
    files = found.get(split) or (found.get("") if len(found) == 1 else None)
    if not files:
        raise DataError(f"{path}: has no split {split!r}; {_there(path, found)}")
    return files


def splits(path: Path) -> dict[str, list[Path]]:
    """The splits of a directory and their files; one that has no name is "". Empty: no known shape."""
    if (path / "state.json").is_file():
        return {"": _saved(path)}
    found: dict[str, list[Path]] = {}
    for folder in (path, path / "data"):
        for file in _rows_in(folder):
            found.setdefault(_PART.sub("", file.name.removesuffix(suffix_of(file))), []).append(file)
    for folder in sorted(path.iterdir()):
        saved = (folder / "state.json").is_file()
        files = _saved(folder) if saved else _rows_in(folder) if folder.name in _SPLITS else []
        if files and folder.name not in found:
            found[folder.name] = files
    return found


def _rows_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.is_file() and suffix_of(file) and file.name not in _NO_ROWS)


def _saved(folder: Path) -> list[Path]:
    """The files that state.json lists: other .arrow files beside them are caches of the datasets library."""
    state = folder / "state.json"
    try:
        names = [entry["filename"] for entry in json.loads(state.read_bytes())["_data_files"]]
        return [folder / Path(name).name for name in names]
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{state}: is not the state.json that save_to_disk writes") from None


def _there(path: Path, found: dict[str, list[Path]]) -> str:
    if found:
        return f"it has {', '.join(map(repr, found))}; name one with split_train and split_test"
    folders = [folder.name for folder in sorted(path.iterdir()) if folder.is_dir() and not folder.name.startswith(".")]
    inside = f"; perhaps in one of its directories: {', '.join(folders[:10])}" if folders else ""
    return f"no file of rows (.jsonl, .json, .csv, .parquet, .arrow) lies in it{inside}"
