"""The process in which a model's code runs (runner), and its handle in the checker process.

    checker (knows the tests) --source, names, arguments--> runner (confined; runs the model's code)
                              <--results, as data----------

The runner is forked before the checker has read anything, so it holds no test, no expected value and no file descriptor
but its end of one socket. It cannot open a file, start a process, use the network, or exceed its limits of memory and
CPU time. Whatever it sends is taken for the result of a call, that is for data that the checker compares. When the
runner dies, only the answer that it ran is lost.

Messages are msgpack lists. The checker sends ["start", source, names of classes], ["program", source, input] and
["do", operation, operands, keywords]. The runner answers ["value", data, changes of the operands, printed text] or
["error", names of the class and its bases, arguments and attributes, text, changes, printed text]. Before it answers,
it may send ["callback", number, arguments, keywords], which asks for a function of the test; the answer is
["returned", data] or ["raised", name, text]. The data are those of `values`. A handle of an object of the runner is
["H", number, name of the class, whether it is an iterator]; one of a function of the test is ["L", number], and of an
iterator ["LI", number].
"""

from __future__ import annotations

import _thread
import ast
import asyncio
import builtins
import inspect
import io
import operator
import os
import random
import socket
import struct
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, NoReturn

import msgspec

from rlsp_async.verifying.code.library import close_imports
from rlsp_async.verifying.code.preamble import preamble_names
from rlsp_async.verifying.code.streams import MAX_OUTPUT_BYTES, ProgramStreams
from rlsp_async.verifying.code.values import (
    NOTHING_HELD,
    Held,
    Packer,
    Unpacker,
    find_changes,
    take_snapshot,
)
from rlsp_async.verifying.sandbox import confine, separate_child

MAX_FRAME_BYTES = 4 << 20
_LENGTH = struct.Struct("<I")
RECURSION_LIMIT = 50_000
"""For programs and cases, as in LiveCodeBench; a unit test calls with Python's own limit."""
_MAX_PRINTED_CHARS = 100_000
_MAX_ARGUMENTS_BYTES = 10_000
"""Of the arguments and attributes of an error."""


class RunnerLost(BaseException):
    """The runner has ended, or has sent something that is not a reply. A BaseException, so that no test catches it."""


def run_source(source: str | ast.Module, label: str, namespace: dict[str, Any]) -> None:
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

    def send(self, message: list[Any]) -> None:
        """Sends a message.

        Raises:
            RunnerLost: the runner has ended.
            ValueError: the message is too long, or msgpack cannot carry it.
        """
        try:
            _send(self._channel, message)
        except OSError as e:
            raise RunnerLost(f"its process: {e}") from None

    def receive(self) -> list[Any]:
        """Returns the next message.

        Raises:
            RunnerLost: the runner has ended, or has sent something that is not a message.
        """
        try:
            reply = _receive(self._channel)
        except (OSError, ValueError) as e:
            raise RunnerLost(f"its process: {e}") from None
        if reply is None:
            raise RunnerLost(self._cause())
        if not isinstance(reply, list):
            raise RunnerLost("it sent something that is not a result")
        return reply

    def close(self) -> None:
        """Ends the runner by closing its channel; a runner that goes on is killed with the checker's process group."""
        self._channel.close()

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
        close_imports()
        _replace_what_is_refused()
        CallServer(channel).serve()
    finally:
        _exit_process(0)


_exit_process = os._exit


def _close_other_files(channel: socket.socket) -> socket.socket:
    """Closes every file descriptor but that of the channel; standard input, output and error go to /dev/null."""
    mine, nowhere = channel.detach(), os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.dup2(mine, 3)
    os.closerange(4, 1 << 16)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode) for n, mode in ((0, "r"), (1, "w"), (2, "w")))
    return socket.socket(fileno=3)


def _replace_what_is_refused() -> None:
    """Lets code that asks for threads, an event loop or the end of its process go on where the kernel refuses them.

    A thread runs at its start, to its end; an event loop has no socket to be woken through; an exit is an exception.
    """
    os._exit = _raise_exit
    threading.Thread.start = _run_thread  # type: ignore[method-assign, assignment]
    _thread.start_new_thread = _run_function
    futures.ThreadPoolExecutor.submit = _run_task  # type: ignore[method-assign]
    allow_event_loops()


def allow_event_loops() -> None:
    """Lets asyncio make its event loops without the pair of sockets that is refused here."""
    loop = asyncio.SelectorEventLoop
    loop._make_self_pipe = loop._close_self_pipe = lambda self: None  # type: ignore[attr-defined]


def _raise_exit(status: int = 0) -> NoReturn:
    raise SystemExit(status)


def _run_thread(thread: threading.Thread) -> None:
    if thread._started.is_set():  # type: ignore[attr-defined]
        raise RuntimeError("threads can only be started once")
    thread._started.set()  # type: ignore[attr-defined]
    try:
        thread.run()
    except SystemExit:
        return  # ends the thread alone
    finally:
        thread._is_stopped = True  # type: ignore[attr-defined]
        thread._tstate_lock = None  # type: ignore[attr-defined]


def _run_function(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> int:
    function(*args, **(kwargs or {}))
    return 1


def _run_task(executor: Any, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
    future: futures.Future[Any] = futures.Future()
    try:
        future.set_result(function(*args, **kwargs))
    except Exception as e:  # noqa: BLE001  the error of a task is its future's
        future.set_exception(e)
    return future


class CheckerFunction:
    """A function of the test that was passed to the model's code."""

    def __init__(self, server: CallServer, number: int) -> None:
        self._server = server
        self.number = number

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._server.call_back(self.number, args, kwargs)


class CallServer:
    """Runs the source, then does what it is asked to do with it, until the checker closes the channel."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._module = types.ModuleType("solution")
        self._builtins = types.ModuleType("builtins")
        self._builtins.__dict__.update(vars(builtins))  # what the code does to them leaves this module's alone
        sys.modules["builtins"] = self._builtins
        self._objects: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._functions: dict[int, CheckerFunction] = {}
        self._held = Held(self._hold, self._take)
        self._streams = ProgramStreams(b"", self._builtins)
        self._num_printed = 0

    def serve(self) -> list[Any]:
        """Answers messages; returns one that answers a callback. Ends the process when the checker has gone."""
        while (message := _receive(self._channel)) is not None:
            if message[0] in ("returned", "raised"):
                return list(message)
            self._answer(message)
        _exit_process(0)

    def call_back(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Has the checker call a function of the test."""
        packer = Packer(self._held)
        _send(self._channel, ["callback", number, packer.pack(list(args)), packer.pack(kwargs)])
        match self.serve():
            case ["returned", data]:
                return Unpacker(self._held, packer.numbered).unpack(data)
            case ["raised", name, text]:
                raise getattr(builtins, name, Exception)(text)
        raise ValueError("not an answer to a callback")

    def _answer(self, message: list[Any]) -> None:
        match message:
            case ["start", source, classes]:
                self._reply(lambda: self._start(source, classes), [])
            case ["program", source, data]:
                self._reply(lambda: self._run_program(source, data), [])
            case ["do", operation, operands, keywords]:
                unpacker = Unpacker(self._held)
                try:
                    args, kwargs = unpacker.unpack(operands), unpacker.unpack(keywords)
                except Exception as e:  # noqa: BLE001  a class of the answer may refuse its attributes
                    self._reply_error(e, [], [])
                    return
                self._reply(lambda: self._do(operation, args, kwargs), unpacker.numbered)

    def _reply(self, act: Callable[[], Any], numbered: list[Any]) -> None:
        """Acts, and sends the result or the error, with the changes of the operands."""
        before = take_snapshot(numbered)
        try:
            value = act()
            packer = Packer(self._held, numbered)
            changes = find_changes(numbered, before, packer)
            is_awaited = inspect.iscoroutine(value)
            data = packer.pack(asyncio.run(value) if is_awaited else value)
            kind = "awaited" if is_awaited else "value"
            _send(self._channel, [kind, data, changes, self._take_printed()])
        except BaseException as e:  # noqa: BLE001  SystemExit, too, is an error of the code
            self._reply_error(e, numbered, before)

    def _reply_error(self, error: BaseException, numbered: list[Any], before: list[Any]) -> None:
        names = [f"{kind.__module__}.{kind.__name__}"[:200] for kind in type(error).__mro__]
        packer = Packer(self._held, numbered)
        try:
            changes = find_changes(numbered, before, packer)
        except Exception:  # noqa: BLE001  what the code has put there may be anything
            changes, packer = [], Packer(self._held, numbered)
        reply = ["error", names[:20], _pack_arguments(error), _error_text(error), changes, self._take_printed()]
        _send(self._channel, reply)

    # --- what can be asked for ---------------------------------------------------------------------------------------

    def _start(self, source: str, classes: list[str]) -> None:
        """Runs the source as a module. A SystemExit ends it as the end of its text does."""
        sys.modules["solution"] = self._module
        self._module.__dict__.update(preamble_names(), __builtins__=self._builtins)
        self._streams.__enter__()
        try:
            run_source(source, "solution.py", self._module.__dict__)
        except SystemExit:
            return
        finally:
            found = {name: getattr(self._module, name, None) for name in classes}
            for name, kind in found.items():
                self._held.classes[name] = kind if isinstance(kind, type) else type(name, (), {})

    def _run_program(self, source: str, data: bytes) -> bytes:
        """Runs the source as a program with a standard input, and returns what it has written to standard output."""
        sys.setrecursionlimit(RECURSION_LIMIT)
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        main.__dict__.update(preamble_names(), __builtins__=self._builtins)
        with ProgramStreams(data, self._builtins) as streams:
            try:
                run_source(source, "solution.py", main.__dict__)
            except SystemExit as e:
                if e.code not in (None, 0) and not streams.output:
                    raise
            output = streams.output
        main.__dict__.clear()
        if len(output) > MAX_OUTPUT_BYTES:
            raise ValueError(f"more than {MAX_OUTPUT_BYTES} bytes of output")
        return output

    def _do(self, operation: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        match operation:
            case "name":
                return getattr(self._module, args[0])
            case "call":
                return args[0](*args[1:], **kwargs)
            case "call_deep":
                sys.setrecursionlimit(RECURSION_LIMIT)
                return args[0](*args[1:], **kwargs)
            case "next":
                return self._next(args[0], args[1])
            case "isinstance":
                return isinstance(args[0], args[1])
        return OPERATIONS[operation](*args)

    def _next(self, iterator: Iterator[Any], num: int) -> tuple[list[Any], bool]:
        """Up to `num` items, and whether the iterator has ended."""
        items: list[Any] = []
        for _ in range(num):
            try:
                items.append(next(iterator))
            except StopIteration:
                return items, True
        return items, False

    def _take_printed(self) -> str:
        output = self._streams.output
        new, self._num_printed = output[self._num_printed :], len(output)
        return new.decode("utf-8", "replace")[:_MAX_PRINTED_CHARS]

    # --- handles -----------------------------------------------------------------------------------------------------

    def _hold(self, value: Any) -> list[Any]:
        if isinstance(value, CheckerFunction):
            return ["L", value.number]
        number = self._numbers.setdefault(id(value), len(self._objects))
        if number == len(self._objects):
            self._objects.append(value)
        kind = value if isinstance(value, type) else type(value)
        return ["H", number, kind.__name__, isinstance(value, Iterator)]

    def _take(self, tag: str, rest: list[Any]) -> Any:
        match tag, rest:
            case "H", [number, *_]:
                return self._objects[number]
            case "L", [number]:
                return self._functions.setdefault(number, CheckerFunction(self, number))
            case "LI", [number]:
                return _read_on(CheckerFunction(self, number))
            case "io", [str() | bytes() as content, place]:
                stream = io.StringIO(content) if isinstance(content, str) else io.BytesIO(content)
                stream.seek(place)
                return stream
        raise ValueError(f"data with the tag {tag!r}")


def _read_on(take: CheckerFunction) -> Iterator[Any]:
    """An iterator of the test."""
    while items := take():
        yield from items


def _contains(container: Any, item: Any) -> bool:
    return item in container


OPERATIONS: dict[str, Callable[..., Any]] = {
    **{
        name: getattr(operator, name)
        for name in [
            "eq",
            "ne",
            "lt",
            "le",
            "gt",
            "ge",
            "add",
            "sub",
            "mul",
            "truediv",
            "floordiv",
            "mod",
            "pow",
            "matmul",
            "and_",
            "or_",
            "xor",
            "lshift",
            "rshift",
            "neg",
            "pos",
            "abs",
            "invert",
            "getitem",
            "setitem",
            "delitem",
        ]
    },
    **{
        "get": getattr,
        "set": setattr,
        "del": delattr,
        "iter": iter,
        "len": len,
        "bool": bool,
        "str": str,
        "repr": repr,
    },
    **{"hash": hash, "format": format, "int": int, "float": float, "contains": _contains, "dir": dir},
    "seed": random.seed,
    "enter": lambda value: type(value).__enter__(value),
    "exit": lambda value, *error: type(value).__exit__(value, *error),
}
"""Operations on objects of the answer, with their operands in order."""


def _pack_arguments(error: BaseException) -> Any:
    """The arguments and attributes of an error, as far as they are data; None: they are not."""
    for attributes in (vars(error), {}):
        try:
            packed = Packer(NOTHING_HELD).pack((error.args, attributes))
            if len(msgspec.msgpack.encode(packed)) < _MAX_ARGUMENTS_BYTES:
                return packed
        except Exception:  # noqa: BLE001  what is no data is left out
            continue
    return None


def _error_text(error: BaseException) -> str:
    try:
        return str(error).encode("utf-8", "replace").decode()[:300]
    except Exception as e:  # noqa: BLE001  __str__ is the code's own
        return f"its text raises {type(e).__name__}"


def _send(channel: socket.socket, message: Any) -> None:
    body = msgspec.msgpack.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError(f"a message of {len(body)} bytes, at most {MAX_FRAME_BYTES}")
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
