"""What may lie in a model directory: regular files of bounded size. Nothing is opened here.

    require_model_files(directory)    # before a library opens the files that it finds there

A named pipe would block whoever opens it, a device would never end, and a file of any size would be read whole. Links
are followed; one that leads nowhere is named, because libraries take it for a file that is not there.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from rlsp_async.errors import DataError

MAX_JSON_BYTES = 16_000_000
"""Largest configuration or template; released ones have some thousand bytes."""
MAX_TABLE_BYTES = 128_000_000
"""Largest vocabulary, tokenizer or index of weights; released ones have up to 35 million bytes."""

_TABLES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model", "model.safetensors.index.json")
_READ = (
    *_TABLES,
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "processor_config.json",
    "model.safetensors",
)
"""Names that transformers or vLLM open by themselves."""
_SUFFIXES = (".json", ".jinja", ".model", ".txt", ".safetensors")
"""Endings of files that are copied, linked or found by a library."""
_COPIED = (".json", ".jinja", ".model", ".txt")
"""Endings of files that a run copies into its own directory and into the models that it writes."""


def require_model_files(directory: Path) -> None:
    """Raises DataError, with the file's name, unless everything that could be opened is a regular file."""
    try:
        entries = sorted(directory.iterdir())
    except OSError as e:
        raise DataError(
            f"{directory}: cannot be read: {e.strerror}; a Hugging Face model directory is needed"
        ) from None
    for path in entries:
        if path.name in _READ or (path.suffix in _SUFFIXES and _is_odd(path)):
            require_regular(path)
        if path.suffix in _COPIED and path.is_symlink():
            _require_own(path)


def require_regular(path: Path) -> None:
    """Raises DataError unless a file is there, is a regular one, and is not larger than files of its name are."""
    try:
        found = path.stat()
    except OSError as e:
        if path.is_symlink():
            raise DataError(
                f"{path}: is a link to {os.readlink(path)}, where no file is ({e.strerror}); fetch the model again"
            ) from None
        raise DataError(f"{path}: cannot be read: {e.strerror}; a Hugging Face model directory is needed") from None
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path}: is {_kind(found.st_mode)}, not a file; a Hugging Face model directory is needed")
    most = MAX_TABLE_BYTES if path.name in _TABLES else MAX_JSON_BYTES
    if path.suffix != ".safetensors" and found.st_size > most:
        raise DataError(f"{path}: {found.st_size:,} bytes; a file of this name has at most {most:,}")


def _require_own(path: Path) -> None:
    """Raises DataError for a link whose target is no file of a model, so that a run copies nothing else.

    A model may consist of links: into its own directory, to files of the same names in another one, or to the
    content-addressed `blobs` of the cache of Hugging Face. A link to a file of another name elsewhere would put a file
    of the machine into a model that somebody publishes.
    """
    target = path.resolve()
    if not target.is_file():
        return  # a link that leads nowhere, and that nobody opens
    own = target.is_relative_to(path.parent.resolve())
    if not own and target.name != path.name and target.parent.name != "blobs":
        raise DataError(
            f"{path}: is a link to {target}, a file of another name outside of the model directory, which a run would "
            "copy into its models; put a copy of the file in its place, or remove the link"
        )


def _is_odd(path: Path) -> bool:
    """Whether a file is there and is neither a regular one nor a directory."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False  # a link that leads nowhere, and that nobody opens
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")
