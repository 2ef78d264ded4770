"""The safetensors files of a model directory: which of them are its weights, and whether they are whole.

Only headers are read here. A header is 8 bytes of length, then JSON: {name: {dtype, shape, data_offsets}}.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from rlsp_async.errors import DataError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_MAX_HEADER_BYTES = 100_000_000
"""What the format allows."""
_LFS = b"version https://git-lfs"


def weight_files(directory: Path) -> list[Path]:
    """The files that hold the weights of a model directory, in the order of their names.

    The index decides when there is one, else model.safetensors alone: other safetensors files that lie beside them
    (adapters, "consolidated", an older export) are not read. This is what transformers reads too.

    Args:
        directory: a Hugging Face model directory.

    Returns:
        their paths, at least one.

    Raises:
        DataError: there are none, or the index is damaged or names a file that is not there.
    """
    index = directory / INDEX
    if index.is_file():
        files = [directory / name for name in sorted(set(_weight_map(index).values()))]
    elif (directory / SINGLE).is_file():
        files = [directory / SINGLE]
    elif any(directory.glob("*.safetensors")):
        raise DataError(f"{directory}: has safetensors files and neither {SINGLE} nor {INDEX}: one of them is needed")
    else:
        raise DataError(f"{directory}: has no *.safetensors; save the weights with safe_serialization=True")
    for path in files:
        if not path.is_file():
            raise DataError(f"{index}: names {path.name}, which is not there; fetch the model again")
    return files


def read_headers(directory: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors of a model directory. Raises DataError unless every file is whole."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(directory):
        shapes |= _read_header(path)
    return shapes


def count_parameters(directory: Path) -> int:
    """Values in the weights of a model directory, by the headers of the files. Raises DataError."""
    return sum(math.prod(shape) for shape in read_headers(directory).values())


def check_weights(directory: Path, config: dict[str, Any]) -> None:
    """Refuses weights that cannot be loaded, or not trained, by what headers and config.json say.

    Args:
        directory: a Hugging Face model directory.
        config: the content of its config.json.

    Raises:
        DataError: a file is a git-lfs pointer, damaged or cut off, or the weights are quantised.
    """
    if quantised := config.get("quantization_config") or config.get("compression_config"):
        method = quantised.get("quant_method") if isinstance(quantised, dict) else None
        raise DataError(
            f"{directory}: its weights are quantised ({method or 'quantization_config'} in config.json); only weights "
            "in float32, bfloat16 or float16 can be trained: take the model that they were made from"
        )
    if not read_headers(directory):
        raise DataError(f"{directory}: its safetensors files hold no tensor; fetch the model again")


def _weight_map(index: Path) -> dict[str, str]:
    """Which file holds each tensor."""
    try:
        names = json.loads(index.read_bytes())["weight_map"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DataError(f"{index}: no index of safetensors files: {e!r}") from None
    if not isinstance(names, dict) or not names or not all(_is_plain(name) for name in names.values()):
        raise DataError(f"{index}: its weight_map must name files of this directory")
    return names


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and name == Path(name).name and name.endswith(".safetensors")


def _read_header(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of one file. Raises DataError unless the file is as long as its header says."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            begin = file.read(8)
            if begin == _LFS[:8]:
                raise DataError(f"{path}: is a git-lfs pointer, not the weights; fetch them with `git lfs pull`")
            (num_bytes,) = struct.unpack("<Q", begin)
            if num_bytes > min(_MAX_HEADER_BYTES, size):
                raise ValueError(f"a header of {num_bytes} bytes in a file of {size}")
            header = json.loads(file.read(num_bytes))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        end = 8 + num_bytes + max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
        shapes = {name: tuple(int(n) for n in entry["shape"]) for name, entry in tensors.items()}
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, struct.error) as e:
        raise DataError(f"{path}: no valid safetensors file: {e}; fetch the model again") from None
    if size != end:
        raise DataError(f"{path}: has {size} bytes and its header says {end}: it was cut off; fetch the model again")
    return shapes
