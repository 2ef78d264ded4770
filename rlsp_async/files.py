"""Writing files and directories whole: a reader sees the old content or the new content, never a part of either.

The content is written beside its final name and renamed into place. Each function states its durability:

    durable=True    the bytes and the new name are flushed to the disk before the function returns (fsync of the file
                    and of its directory): what was written survives a power cut
    durable=False   the file survives the death of the process, but a power cut may lose it or leave the older content

Every function raises the OSError of the machine; callers translate it (`errors.unwritable`) where a person can act.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

SHARED_MEMORY = Path("/dev/shm")


def replace_file(path: Path, content: bytes | str, *, durable: bool, mode: int | None = None) -> None:
    """Writes a file whole.

    Args:
        path: the file's final name; its directory exists.
        content: the bytes, or text that is encoded as UTF-8.
        durable: see the module docstring.
        mode: permission bits that the file has from its first byte on; None: those of the process's umask.
    """
    with being_replaced(path, durable=durable, mode=mode) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def being_replaced(path: Path, *, durable: bool, mode: int | None = None) -> Iterator[BinaryIO]:
    """A binary file to write to, which takes the name `path` when the block ends without an error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else mode)
        with os.fdopen(descriptor, "wb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            yield file
        rename(temporary, path, durable=durable)
    finally:
        temporary.unlink(missing_ok=True)


def rename(temporary: Path, path: Path, *, durable: bool) -> None:
    """Gives a complete file its final name, replacing what stood there. `durable` syncs the file first, then the name.

    Files in shared memory are never synced: they do not outlive a power cut whatever is done.
    """
    durable = durable and not is_shared_memory(path.parent)
    if durable:
        sync(temporary)
    temporary.replace(path)
    if durable:
        sync(path.parent)


@contextlib.contextmanager
def directory_being_made(path: Path) -> Iterator[Path]:
    """An empty directory beside `path`, which takes that name when the block ends without an error. Not durable.

    The parent directory is made when it is missing. On an error nothing is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~umask())  # mkdtemp makes it private
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def readable(path: Path) -> None:
    """Gives a file, or the files in a directory, the mode that `open` gives new files: safetensors makes them 0600."""
    mask = umask()
    for file in path.iterdir() if path.is_dir() else (path,):
        if file.is_file() and not file.is_symlink():
            file.chmod(0o666 & ~mask)


def umask() -> int:
    """The process's umask. On Linux it is read, not set and set back, because other threads may be making files."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def sync(path: Path) -> None:
    """Flushes a file's bytes, or a directory's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_shared_memory(path: Path) -> bool:
    """Whether a path lies in memory, where syncing has no meaning."""
    return path.resolve().is_relative_to(SHARED_MEMORY)


def sha256(path: Path) -> str:
    """The SHA-256 digest of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
