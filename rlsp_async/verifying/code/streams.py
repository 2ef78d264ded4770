"""Standard input and output of a program that runs inside the runner, which has neither.

    with ProgramStreams(b"3\\n1 2 3\\n", builtins) as streams:
        ...                                   # input(), sys.stdin.buffer, open(0), os.read(0, n), print, os.write(1, b)
    streams.output                            # bytes

All of them are Python objects: no descriptor of the process changes.
"""

from __future__ import annotations

import io
import os
import sys
import types
from types import TracebackType
from typing import Any, Self

MAX_OUTPUT_BYTES = 2 << 20


class BoundedBytes(io.BytesIO):
    """What a program has written; it may stand for a descriptor."""

    def __init__(self, max_bytes: int, descriptor: int = -1) -> None:
        super().__init__()
        self._max_bytes, self._descriptor = max_bytes, descriptor

    def write(self, data: Any) -> int:
        """Keeps the data as long as there is room; what is beyond it is dropped, and one byte of it shows that."""
        view = memoryview(data).cast("B")
        room = max(0, self._max_bytes + 1 - self.tell())
        super().write(view[:room])
        return len(view)

    def fileno(self) -> int:
        """The descriptor, as which `os.write` and `open` know this stream."""
        return self._descriptor

    def close(self) -> None:
        """Keeps what was written, also after the program has closed its output."""


class InputBytes(io.BytesIO):
    """The standard input of a program."""

    def fileno(self) -> int:
        """The number of standard input."""
        return 0

    def close(self) -> None:
        """Nothing is to be closed."""


class ProgramStreams:
    """Puts streams in the place of standard input, output and error while a program runs."""

    def __init__(self, stdin: bytes, builtins: types.ModuleType) -> None:
        self._builtins = builtins
        self._input = InputBytes(stdin)
        self._files = {1: BoundedBytes(MAX_OUTPUT_BYTES, 1), 2: BoundedBytes(1 << 16, 2)}
        self._kept: list[tuple[Any, str, Any]] = []

    @property
    def output(self) -> bytes:
        """What the program has written to its standard output, at most MAX_OUTPUT_BYTES + 1 bytes."""
        return self._files[1].getvalue()

    def __enter__(self) -> Self:
        stdin = io.TextIOWrapper(self._input, encoding="utf-8", errors="surrogateescape")
        stdout, stderr = (
            io.TextIOWrapper(self._files[n], encoding="utf-8", errors="surrogateescape", write_through=True)
            for n in (1, 2)
        )
        for stream, mode in ((stdin, "r"), (stdout, "w"), (stderr, "w")):
            stream.mode = mode  # type: ignore[misc]
        for module, name, value in (
            (sys, "stdin", stdin),
            (sys, "stdout", stdout),
            (sys, "stderr", stderr),
            (sys, "__stdin__", stdin),
            (sys, "__stdout__", stdout),
            (os, "read", self._read(os.read)),
            (os, "write", self._write(os.write)),
            (os, "fstat", self._status(os.fstat)),
            (os, "fdopen", self._open(os.fdopen)),
            (self._builtins, "open", self._open(self._builtins.open)),
            (io, "open", self._open(io.open)),
        ):
            self._kept.append((module, name, getattr(module, name)))
            setattr(module, name, value)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for module, name, value in reversed(self._kept):
            setattr(module, name, value)

    def _read(self, read: Any) -> Any:
        return lambda descriptor, num: self._input.read(num) if descriptor == 0 else read(descriptor, num)

    def _write(self, write: Any) -> Any:
        def write_to(descriptor: int, data: Any) -> Any:
            return self._files[descriptor].write(data) if descriptor in self._files else write(descriptor, data)

        return write_to

    def _status(self, status: Any) -> Any:
        def status_of(descriptor: int) -> Any:
            if descriptor != 0 and descriptor not in self._files:
                return status(descriptor)
            size = len(self._input.getvalue()) if descriptor == 0 else 0
            return os.stat_result((0o100600, 0, 0, 1, 0, 0, size, 0, 0, 0))

        return status_of

    def _open(self, open_file: Any) -> Any:
        def open_stream(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            file = {"/dev/stdin": 0, "/dev/stdout": 1}.get(file, file) if isinstance(file, str) else file
            if isinstance(file, int) and file in (0, 1, 2):
                stream = self._input if file == 0 else self._files[file]
                return stream if "b" in mode else io.TextIOWrapper(stream, encoding="utf-8", write_through=True)
            return open_file(file, mode, *args, **kwargs)

        return open_stream
