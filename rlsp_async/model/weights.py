"""The safetensors files of a model directory: which of them are its weights, and whether they are whole.

Only headers are read here. A header is 8 bytes of length, then JSON: {name: {dtype, shape, data_offsets}}.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any, NamedTuple

from rlsp_async.errors import DataError
from rlsp_async.model_files import require_regular

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_MAX_HEADER_BYTES = 100_000_000
"""What the format allows."""
_LFS = b"version https://git-lfs"
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
    **{"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6},
}
"""Bits of one value, by the format's names of number formats."""
_TRAINABLE = ("F16", "BF16", "F32", "F64")


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
    else:
        raise DataError(f"{directory}: {_other_weights(directory)}")
    for path in files:
        if not path.exists() and not path.is_symlink():
            raise DataError(f"{index}: names {path.name}, which is not there; fetch the model again")
        require_regular(path)
    return files


class TensorHeader(NamedTuple):
    """What a file says of one tensor."""

    dtype: str
    """Number format, by the name that safetensors has for it, e.g. "BF16"."""
    shape: tuple[int, ...]
    begin: int
    """Where its bytes begin, counted from the end of the header."""
    end: int

    @property
    def num_values(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def read_headers(directory: Path) -> dict[str, TensorHeader]:
    """The tensors of a model directory by name. Raises DataError unless every file is whole."""
    tensors: dict[str, TensorHeader] = {}
    for path in weight_files(directory):
        tensors |= _read_header(path)
    return tensors


def count_parameters(directory: Path) -> int:
    """Values in the weights of a model directory, by the headers of the files. Raises DataError."""
    return sum(tensor.num_values for tensor in read_headers(directory).values())


def check_weights(directory: Path, config: dict[str, Any]) -> None:
    """Refuses weights that cannot be loaded, or not trained, by what headers and config.json say.

    Args:
        directory: a Hugging Face model directory.
        config: the content of its config.json.

    Raises:
        DataError: a file is a git-lfs pointer, damaged or cut off, or the weights are quantised.
    """
    needed = "only weights in float32, bfloat16 or float16 can be trained: take the model that they were made from"
    if quantised := config.get("quantization_config") or config.get("compression_config"):
        method = quantised.get("quant_method") if isinstance(quantised, dict) else None
        raise DataError(
            f"{directory}: its weights are quantised ({method or 'quantization_config'} in config.json); {needed}"
        )
    tensors = read_headers(directory)
    if not tensors:
        raise DataError(f"{directory}: its safetensors files hold no tensor; fetch the model again")
    for name, tensor in tensors.items():
        if name.endswith("weight") and tensor.dtype not in _TRAINABLE:
            raise DataError(f"{directory}: its weights are quantised ({name} holds {tensor.dtype}); {needed}")


def _other_weights(directory: Path) -> str:
    """What a directory without weights in the expected files has instead."""
    names = sorted(path.name for path in directory.iterdir())
    if any(name == "adapter_model.safetensors" for name in names):
        return "holds an adapter (LoRA), not a model: merge it into its base model first"
    if any(name.endswith(".safetensors") for name in names):
        return f"has safetensors files and neither {SINGLE} nor {INDEX}: one of them is needed"
    other = next((name for name in names if name.endswith((".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack"))), "")
    found = f" (its weights are in {other}, a form that is not read here)" if other else ""
    return f"has no *.safetensors{found}; save the weights with safe_serialization=True"


def _weight_map(index: Path) -> dict[str, str]:
    """Which file holds each tensor."""
    try:
        require_regular(index)
        names = json.loads(index.read_bytes())["weight_map"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise DataError(f"{index}: no index of safetensors files: {e!r}") from None
    if not isinstance(names, dict) or not names or not all(_is_plain(name) for name in names.values()):
        raise DataError(f"{index}: its weight_map must name files of this directory")
    return names


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and name == Path(name).name and name.endswith(".safetensors")


def _read_header(path: Path) -> dict[str, TensorHeader]:
    """The tensors of one file by name. Raises DataError unless the file is what its header says, byte for byte."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            begin = file.read(8)
            if begin == _LFS[:8]:
                raise DataError(f"{path}: is a git-lfs pointer, not the weights; fetch them with `git lfs pull`")
            if len(begin) < 8:
                raise ValueError(f"it has {size} bytes")
            (num_bytes,) = struct.unpack("<Q", begin)
            if num_bytes > min(_MAX_HEADER_BYTES, size):
                raise ValueError(f"a header of {num_bytes} bytes in a file of {size}")
            header = json.loads(file.read(num_bytes))
        tensors = _tensors(header)
    except DataError:
        raise
    except RecursionError:
        raise DataError(f"{path}: no valid safetensors file: its header is nested too deep") from None
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DataError(f"{path}: no valid safetensors file: {e}; fetch the model again") from None
    end = 8 + num_bytes + max((tensor.end for tensor in tensors.values()), default=0)
    if size != end:
        what = "it was cut off" if size < end else "more was written behind it"
        raise DataError(f"{path}: has {size} bytes and its header says {end}: {what}; fetch the model again")
    return tensors


def _tensors(header: Any) -> dict[str, TensorHeader]:
    """The tensors of a header. Raises ValueError, KeyError or TypeError unless they follow each other without a gap."""
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__", {}), dict):
        raise TypeError("its header is no table of tensors")
    tensors: dict[str, TensorHeader] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if not isinstance(entry, dict) or str(entry.get("dtype")) not in _BITS:
            raise ValueError(f"tensor {name} has no number format that the form knows")
        shape, offsets = entry["shape"], entry["data_offsets"]
        if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
            raise ValueError(f"tensor {name} has no valid shape or offsets")
        tensors[name] = TensorHeader(entry["dtype"], tuple(shape), *offsets)
    at = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != at or (tensor.end - tensor.begin) * 8 != tensor.num_values * _BITS[tensor.dtype]:
            raise ValueError(
                f"tensor {name} of shape {list(tensor.shape)} in {tensor.dtype} does not lie in the bytes "
                f"{tensor.begin} to {tensor.end}, behind the tensor that ends at {at}"
            )
        at = tensor.end
    return tensors


def _are_counts(values: Any) -> bool:
    """Whether a value is a list of whole numbers, none of them negative."""
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)
