"""The process in which a model's code runs (runner), its handle in the checker process, and the data between them.

    checker (knows the tests) --source, names, arguments--> runner (confined; runs the model's code)
                              <--results, as data----------

The runner is forked before the checker has read anything, so it holds no test, no expected value and no file descriptor
but its end of one socket. It cannot open a file, start a process, use the network, or exceed its limits of memory and
CPU time. Whatever it sends is taken for the result of a call, that is for data that the checker compares. When the
runner dies, only the answer that it ran is lost.
"""

from __future__ import annotations

import builtins
import importlib
import os
import socket
import struct
import sys
import time
import types
from collections.abc import Iterable
from itertools import islice
from typing import Any, NoReturn

import msgspec

from rlsp_async.errors import DataError
from rlsp_async.verifying.sandbox import confine, separate_child

MAX_FRAME_BYTES = 4 << 20
_LENGTH = struct.Struct("<I")
_PRELOADED = [
    "__future__",
    "_strptime",
    "abc",
    "array",
    "ast",
    "base64",
    "binascii",
    "bisect",
    "builtins",
    "calendar",
    "cmath",
    "collections",
    "collections.abc",
    "contextlib",
    "copy",
    "csv",
    "dataclasses",
    "datetime",
    "decimal",
    "difflib",
    "encodings.ascii",
    "encodings.idna",
    "encodings.latin_1",
    "enum",
    "fractions",
    "functools",
    "gc",
    "hashlib",
    "heapq",
    "hmac",
    "html",
    "inspect",
    "io",
    "itertools",
    "json",
    "keyword",
    "locale",
    "math",
    "numbers",
    "operator",
    "os",
    "pprint",
    "queue",
    "random",
    "re",
    "secrets",
    "statistics",
    "string",
    "struct",
    "sys",
    "textwrap",
    "time",
    "timeit",
    "traceback",
    "types",
    "typing",
    "unicodedata",
    "unittest",
    "uuid",
    "warnings",
    "weakref",
    "zlib",
]
"""Modules imported before the runner loses its right to open files; code cannot import others."""
_KNOWN_ERRORS = frozenset(
    {
        "ArithmeticError",
        "AssertionError",
        "AttributeError",
        "Exception",
        "IndexError",
        "KeyError",
        "LookupError",
        "NotImplementedError",
        "OverflowError",
        "RecursionError",
        "RuntimeError",
        "TypeError",
        "ValueError",
        "ZeroDivisionError",
    }
)
"""Errors that are raised in the checker under their own names, because a test may expect them. Exceptions that end a
loop or a program (StopIteration, GeneratorExit, SystemExit ...) are not among them: raised inside `map`, `filter` or
`zip`, a StopIteration would end the loop of a test as if it had passed."""


class RunnerLost(BaseException):
    """The runner has ended, or has sent something that is not a reply. A BaseException, so that no test catches it."""


class SolutionError(Exception):
    """The model's code raised an exception of a class that is not among _KNOWN_ERRORS."""


def preload_modules(names: list[str]) -> None:
    """Imports the modules that code may use: common ones of the standard library, and `names`.

    Raises:
        ImportError: a module is missing.
    """
    for name in (*_PRELOADED, *names):
        importlib.import_module(name)
    time.localtime()  # reads the file of the time zone while files may be read


def run_source(source: str, label: str, namespace: dict[str, Any]) -> None:
    """Runs Python source. The only line in this package that does so; called in confined processes only."""
    exec(compile(source, label, "exec", dont_inherit=True, optimize=0), namespace)


class CodeRunner:
    """One runner as seen from the checker. A method may wait until the pool's deadline, which kills both processes."""

    def __init__(self, memory_mb: int, cpu_s: int) -> None:
        self._channel, theirs = socket.socketpair()
        self._cpu_s = cpu_s
        with separate_child():
            self._pid = os.fork()
            if self._pid == 0:
                _become_runner(theirs, memory_mb, cpu_s)
        theirs.close()

    def start(self, source: str) -> None:
        """Runs the body of the source as a module.

        Raises:
            RunnerLost: the runner has ended.
            Exception: whatever the body raised.
        """
        self._ask(source)

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls a function that the source defines, and returns its result as data.

        Raises:
            DataError: an argument is not data; the function is not called.
            RunnerLost: the runner has ended.
            Exception: whatever the function raised.
        """
        try:
            message = [name, pack_value(list(args)), pack_value(kwargs)]
        except ValueError as e:
            raise DataError(f"the tests call {name!r} with what cannot be sent to it: {e}") from None
        return self._ask(message)

    def close(self) -> None:
        """Ends the runner by closing its channel; a runner that goes on is killed with the checker's process group."""
        self._channel.close()

    def _ask(self, message: Any) -> Any:
        try:
            _send(self._channel, message)
            reply = _receive(self._channel)
        except (OSError, ValueError) as e:
            raise RunnerLost(f"its process: {e}") from None
        if reply is None:
            raise RunnerLost(self._cause())
        match reply:
            case ["value", data]:
                try:
                    return unpack_value(data)
                except (ValueError, TypeError, RecursionError):
                    raise RunnerLost("it sent something that is not data") from None
            case ["error", str(kind), str(text)]:
                known = getattr(builtins, kind) if kind in _KNOWN_ERRORS else SolutionError
                raise known(text if kind in _KNOWN_ERRORS else f"{kind}: {text}")
        raise RunnerLost("it sent something that is not a result")

    def _cause(self) -> str:
        """Why the channel has ended: the runner has exited, or it has closed its end and is left to the pool."""
        pid, status, usage = os.wait4(self._pid, os.WNOHANG)
        for _ in range(20):
            if pid:
                break
            time.sleep(0.005)
            pid, status, usage = os.wait4(self._pid, os.WNOHANG)
        if usage.ru_utime + usage.ru_stime > 0.8 * self._cpu_s:
            return f"it took more than {self._cpu_s} s of CPU time"
        signal_number = status & 0x7F
        return f"its process was killed by signal {signal_number}" if signal_number else "it ended its process"


# --- the runner's side -----------------------------------------------------------------------------------------------


def _become_runner(channel: socket.socket, memory_mb: int, cpu_s: int) -> NoReturn:
    """Runs the runner process from its start to its end."""
    try:
        channel = _close_other_files(channel)
        confine(memory_mb, files=False, cpu_s=cpu_s)
        _serve_calls(channel)
    finally:
        os._exit(0)


def _close_other_files(channel: socket.socket) -> socket.socket:
    """Closes every file descriptor but that of the channel; standard input, output and error go to /dev/null."""
    mine, nowhere = channel.detach(), os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.dup2(mine, 3)
    os.closerange(4, 1 << 16)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode) for n, mode in ((0, "r"), (1, "w"), (2, "w")))
    return socket.socket(fileno=3)


def _serve_calls(channel: socket.socket) -> None:
    """Runs the source, then answers calls, until the checker closes the channel."""
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    while (message := _receive(channel)) is not None:
        try:
            if isinstance(message, str):
                run_source(message, "solution.py", module.__dict__)
                reply: list[Any] = ["value", None]
            else:
                name, args, kwargs = message
                reply = ["value", pack_value(getattr(module, name)(*unpack_value(args), **unpack_value(kwargs)))]
            _send(channel, reply)
        except BaseException as e:  # noqa: BLE001  SystemExit, too, is an error of the code
            _send(channel, ["error", type(e).__name__[:100], _error_text(e)])


def _error_text(error: BaseException) -> str:
    try:
        return str(error).encode("utf-8", "replace").decode()[:300]
    except Exception as e:  # noqa: BLE001  __str__ is the code's own
        return f"its text raises {type(e).__name__}"


def _send(channel: socket.socket, message: Any) -> None:
    body = msgspec.msgpack.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError(f"a result of {len(body)} bytes, at most {MAX_FRAME_BYTES}")
    channel.sendall(_LENGTH.pack(len(body)) + body)


def _receive(channel: socket.socket) -> Any:
    """Returns the next message, or None when the other side has gone.

    Raises:
        ValueError: the bytes are not a message, or too many.
    """
    head = _receive_exactly(channel, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > MAX_FRAME_BYTES:
        raise ValueError(f"a message of {length} bytes, at most {MAX_FRAME_BYTES}")
    body = _receive_exactly(channel, length)
    try:
        return None if body is None else msgspec.msgpack.decode(body)
    except (msgspec.MsgspecError, RecursionError, TypeError, UnicodeDecodeError) as e:
        raise ValueError(f"not a message: {e}") from None


def _receive_exactly(channel: socket.socket, length: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < length:
        part = channel.recv(min(1 << 16, length - len(parts)))
        if not part:
            return None
        parts += part
    return bytes(parts)


# --- data ------------------------------------------------------------------------------------------------------------


MAX_ITEMS = 100_000
"""Largest number of items that are taken from an iterator, which may be endless."""
MAX_DEPTH = 200

_TAGS: dict[type[Any], str] = {list: "l", tuple: "t", set: "s", frozenset: "z"}
_KINDS = {tag: kind for kind, tag in _TAGS.items()}
_BASES: tuple[type[Any], ...] = (int, float, complex, str, bytes, dict, list, tuple, set, frozenset)
_INT64 = range(-(1 << 63), 1 << 63)


class Opaque:
    """Stands for a value that is not data, e.g. a regex match: true or false, and equal to nothing but itself."""

    def __init__(self, kind: str, *, is_true: bool) -> None:
        self._kind = kind
        self._is_true = is_true

    def __bool__(self) -> bool:
        return self._is_true

    def __repr__(self) -> str:
        return f"<a {self._kind}>"


def pack_value(value: Any, depth: int = 0) -> Any:
    """Turns a value into lists, numbers and strings that msgpack can carry, with a tag for each container.

    An instance of a subclass is packed as its base class.

    Args:
        value: any value.
        depth: number of containers around it.

    Raises:
        ValueError: the value is nested too deeply, or is an iterator with too many items.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"more than {MAX_DEPTH} containers in one another")
    kind = type(value)
    if value is None or kind in (bool, float, str):
        return value
    if kind is int:
        return value if value in _INT64 else ["i", hex(value)]
    if kind is bytes:
        return ["b", value]
    if kind is complex:
        return ["c", value.real, value.imag]
    if kind is range:
        return ["r", *(pack_value(item) for item in (value.start, value.stop, value.step))]
    if kind is dict:
        return ["d", *([pack_value(key, depth + 1), pack_value(item, depth + 1)] for key, item in value.items())]
    if kind in _TAGS:
        return [_TAGS[kind], *(pack_value(item, depth + 1) for item in value)]
    return _pack_other(value, depth)


def _pack_other(value: Any, depth: int) -> Any:
    """Packs an instance of a subclass as its base class, and any other iterable as an iterator."""
    for base in _BASES:
        if isinstance(value, base):
            return pack_value(base(value), depth)
    if isinstance(value, Iterable) and not isinstance(value, type):
        items = list(islice(value, MAX_ITEMS + 1))
        if len(items) > MAX_ITEMS:
            raise ValueError(f"an iterator of more than {MAX_ITEMS} items")
        return ["g", *(pack_value(item, depth + 1) for item in items)]
    return ["o", type(value).__name__, bool(value)]


def unpack_value(data: Any) -> Any:
    """Turns packed data into values again: `unpack_value(pack_value((1, {2}))) == (1, {2})`.

    It makes builtin types and nothing else, so that no `__eq__` that a model wrote is ever called.

    Raises:
        ValueError: `pack_value` never makes this data.
        TypeError: likewise.
    """
    if not isinstance(data, list):
        return data
    if not data or not isinstance(data[0], str):
        raise ValueError("data without a tag")
    tag, *rest = data
    if tag in _KINDS:
        return _KINDS[tag](unpack_value(item) for item in rest)
    if tag == "d":
        return {unpack_value(key): unpack_value(item) for key, item in rest}
    if tag == "g":
        return iter([unpack_value(item) for item in rest])
    return _unpack_scalar(tag, rest)


def _unpack_scalar(tag: str, rest: list[Any]) -> Any:
    match tag, rest:
        case "i", [str(text)]:
            return int(text, 16)
        case "b", [bytes(data)]:
            return data
        case "c", [float(real), float(imag)]:
            return complex(real, imag)
        case "o", [str(kind), bool(is_true)]:
            return Opaque(kind, is_true=is_true)
        case "r", [start, stop, step]:
            return range(unpack_value(start), unpack_value(stop), unpack_value(step))
    raise ValueError(f"data with the tag {tag!r}")
