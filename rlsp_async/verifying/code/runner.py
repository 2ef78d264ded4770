"""The process in which a model's code runs, and the handle of the process that judges it.

    checker (knows the tests) --source, names, arguments--> runner (confined; runs the model's code)
                              <--results, as data----------

The runner is forked before the checker has read anything, so no test, no expected value and no descriptor but its own
end of one socket is in it. It cannot open a file, start a process, use the network or leave its limits of memory and
CPU time. Whatever it sends is taken as the result of a call: data that the checker compares. The runner that dies ends
its answer, nothing else.
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
from rlsp_async.verifying.sandbox import confine

MAX_FRAME_BYTES = 4 << 20
_LENGTH = struct.Struct("<I")
_MODULES = [
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
"""Loaded before the runner loses its files; others cannot be imported by a model's code."""
_RAISED = frozenset(
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
        "StopIteration",
        "TypeError",
        "ValueError",
        "ZeroDivisionError",
    }
)


class RunnerLost(BaseException):
    """The runner has ended or cannot be understood: no test can catch this."""


class SolutionError(Exception):
    """The model's code raised an error of a kind that the tests need not know."""


def preload(names: list[str]) -> None:
    """Imports what a model's code may want, and the user's own choice. Raises ImportError."""
    for name in (*_MODULES, *names):
        importlib.import_module(name)
    time.localtime()  # reads the time zone's file


def run_source(source: str, label: str, namespace: dict[str, Any]) -> None:
    """Runs Python source. The only place in this package that does; called in confined processes alone."""
    exec(compile(source, label, "exec", dont_inherit=True, optimize=0), namespace)


class Runner:
    """One runner, seen from the checker. Every method may wait until the pool's deadline, which kills both."""

    def __init__(self, memory_mb: int, cpu_s: int) -> None:
        self._channel, theirs = socket.socketpair()
        self._cpu_s = cpu_s
        self._pid = os.fork()
        if self._pid == 0:
            _be_runner(theirs, memory_mb, cpu_s)
        theirs.close()

    def start(self, source: str) -> None:
        """Runs the module's body. Raises what it raised, or RunnerLost."""
        self._ask(source)

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of a function that the source defines, as data. Raises what it raised, or RunnerLost.

        Raises DataError at once for arguments that are not data.
        """
        try:
            message = [name, pack(list(args)), pack(kwargs)]
        except ValueError as e:
            raise DataError(f"the tests call {name!r} with what cannot be sent to it: {e}") from None
        return self._ask(message)

    def close(self) -> None:
        """Ends the runner, if it has not ended, by closing its channel; the pool's kill takes one that goes on."""
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
                    return unpack(data)
                except (ValueError, TypeError, RecursionError):
                    raise RunnerLost("it sent no data") from None
            case ["error", str(kind), str(text)]:
                known = getattr(builtins, kind) if kind in _RAISED else SolutionError
                raise known(text if kind in _RAISED else f"{kind}: {text}")
        raise RunnerLost("it sent no result")

    def _cause(self) -> str:
        """Why the runner has ended; it has, or it has closed its channel and is left to the pool."""
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


# --- the runner's side ---------------------------------------------------------------------------------------------


def _be_runner(channel: socket.socket, memory_mb: int, cpu_s: int) -> NoReturn:
    """The life of a runner."""
    try:
        channel = _alone(channel)
        confine(memory_mb, files=False, cpu_s=cpu_s)
        _serve(channel)
    finally:
        os._exit(0)


def _alone(channel: socket.socket) -> socket.socket:
    """Closes every descriptor but the channel's; standard input, output and error lead nowhere."""
    mine, nowhere = channel.detach(), os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.dup2(mine, 3)
    os.closerange(4, 1 << 16)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode) for n, mode in ((0, "r"), (1, "w"), (2, "w")))
    return socket.socket(fileno=3)


def _serve(channel: socket.socket) -> None:
    """The source, then calls, until the checker has seen enough."""
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    while (message := _receive(channel)) is not None:
        try:
            if isinstance(message, str):
                run_source(message, "solution.py", module.__dict__)
                reply: list[Any] = ["value", None]
            else:
                name, args, kwargs = message
                reply = ["value", pack(getattr(module, name)(*unpack(args), **unpack(kwargs)))]
            _send(channel, reply)
        except BaseException as e:  # noqa: BLE001  SystemExit of a model's code is an error like any other
            _send(channel, ["error", type(e).__name__[:100], _text(e)])


def _text(error: BaseException) -> str:
    try:
        return str(error).encode("utf-8", "replace").decode()[:300]
    except Exception as e:  # noqa: BLE001  a model's own __str__
        return f"its text raises {type(e).__name__}"


def _send(channel: socket.socket, message: Any) -> None:
    body = msgspec.msgpack.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError(f"a result of {len(body)} bytes, at most {MAX_FRAME_BYTES}")
    channel.sendall(_LENGTH.pack(len(body)) + body)


def _receive(channel: socket.socket) -> Any:
    """The next message; None when the other side has gone. Raises ValueError for what is no message."""
    head = _exactly(channel, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > MAX_FRAME_BYTES:
        raise ValueError(f"a message of {length} bytes, at most {MAX_FRAME_BYTES}")
    body = _exactly(channel, length)
    try:
        return None if body is None else msgspec.msgpack.decode(body)
    except (msgspec.MsgspecError, RecursionError, TypeError, UnicodeDecodeError) as e:
        raise ValueError(f"no message: {e}") from None


def _exactly(channel: socket.socket, length: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < length:
        part = channel.recv(min(1 << 16, length - len(parts)))
        if not part:
            return None
        parts += part
    return bytes(parts)


# --- data -------------------------------------------------------------------------------------------------------------


MAX_ITEMS = 100_000
"""Of an iterator: it may be endless."""
MAX_DEPTH = 200

_TAGS: dict[type[Any], str] = {list: "l", tuple: "t", set: "s", frozenset: "z"}
_KINDS = {tag: kind for kind, tag in _TAGS.items()}
_BASES: tuple[type[Any], ...] = (int, float, complex, str, bytes, dict, list, tuple, set, frozenset)
_INT64 = range(-(1 << 63), 1 << 63)


class Opaque:
    """Stands for a value that is no data, a match say: known to be true or false, equal to nothing but itself."""

    def __init__(self, kind: str, *, is_true: bool) -> None:
        self._kind = kind
        self._is_true = is_true

    def __bool__(self) -> bool:
        return self._is_true

    def __repr__(self) -> str:
        return f"<a {self._kind}>"


def pack(value: Any, depth: int = 0) -> Any:
    """The value in lists, numbers and strings. Raises ValueError when it is too deep or too long."""
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
        return ["r", *(pack(one) for one in (value.start, value.stop, value.step))]
    if kind is dict:
        return ["d", *([pack(key, depth + 1), pack(one, depth + 1)] for key, one in value.items())]
    if kind in _TAGS:
        return [_TAGS[kind], *(pack(one, depth + 1) for one in value)]
    return _pack_other(value, depth)


def _pack_other(value: Any, depth: int) -> Any:
    """A subclass as its base; anything else that can be gone through as an iterator."""
    for base in _BASES:
        if isinstance(value, base):
            return pack(base(value), depth)
    if isinstance(value, Iterable) and not isinstance(value, type):
        items = list(islice(value, MAX_ITEMS + 1))
        if len(items) > MAX_ITEMS:
            raise ValueError(f"an iterator of more than {MAX_ITEMS} items")
        return ["g", *(pack(one, depth + 1) for one in items)]
    return ["o", type(value).__name__, bool(value)]


def unpack(data: Any) -> Any:
    """The value again. Raises ValueError or TypeError for what `pack` never makes."""
    if not isinstance(data, list):
        return data
    if not data or not isinstance(data[0], str):
        raise ValueError("data without a tag")
    tag, *rest = data
    if tag in _KINDS:
        return _KINDS[tag](unpack(one) for one in rest)
    if tag == "d":
        return {unpack(key): unpack(one) for key, one in rest}
    if tag == "g":
        return iter([unpack(one) for one in rest])
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
            return range(unpack(start), unpack(stop), unpack(step))
    raise ValueError(f"data with the tag {tag!r}")
