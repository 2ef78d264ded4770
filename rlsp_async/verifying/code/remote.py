"""The answer as the tests see it: objects that stand for those of the runner, and the session that asks for them.

    session = AnswerSession(runner)
    session.start("def add(a, b):\\n    return a + b\\n")
    session.find_name("add")(1, 2) == 3

A stand-in hands on what a test does with it: calls, attributes, items, iteration. The expected value of a test should
never go to the runner, so a stand-in is equal to no value of this process, and does not take part in arithmetic. There
is one exception: instances that the tests themselves make of a class that they name (`Vector(1, 2) * 3`) have the
operators of their class. What such an instance makes of a value of the tests is no number: `abs(Vector(3, 4) - 5)` is
refused, because an answer that has been told 5 could answer what is expected.
"""

from __future__ import annotations

import io
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from rlsp_async.verifying.code.runner import CodeRunner, RunnerLost
from rlsp_async.verifying.code.values import NOTHING_HELD, Held, Packer, Unpacker, apply_changes, unpack_value

MAX_ITEMS = 100_000
"""Largest number of items that a test takes from an iterator of the answer, which may be endless."""
_FORGEABLE_BYTES = 1 << 20
"""More than this must have come from the runner before a message of the tests may be too long by the runner's fault."""
_ERROR_MODULES = frozenset(
    [
        "_queue",
        "binascii",
        "builtins",
        "csv",
        "dataclasses",
        "decimal",
        "ipaddress",
        "json.decoder",
        "queue",
        "re",
        "statistics",
        "struct",
        "zlib",
    ]
)
"""Modules whose errors are raised in the checker as what they are, because a test may expect them."""
_ENDINGS = (StopIteration, StopAsyncIteration)
"""Not among them, nor are BaseExceptions: they would end a loop of a test, or the test, as if it had passed."""
_OPEN_NAMES = frozenset({"__name__", "__qualname__", "__dict__", "__annotations__", "__mro__", "__next__"})
"""Names with two underscores that a test may ask for; others are protocols, which stand-ins do not have."""
_CLASSES_OF_PYTHON: dict[str, type[Any]] = {
    "Match": re.Match,
    "Pattern": re.Pattern,
    "function": types.FunctionType,
    "generator": types.GeneratorType,
    "method": types.MethodType,
    "map": map,
    "zip": zip,
    "filter": filter,
    "enumerate": enumerate,
    "reversed": reversed,
}
_IS_NOT_THERE: dict[str, type[Exception]] = {"get": AttributeError, "len": TypeError}
"""Errors that say that an object lacks something, which Python asks for by itself; they are no outcome of a test."""
_OPERATORS = [
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
]


class SolutionError(Exception):
    """The model's code raised an exception of a class that tests do not know."""


class UncarriedError(BaseException):
    """The tests want to hand the runner what cannot be carried to it. A BaseException, so that no test catches it."""


class AnswerSession:
    """One answer in its runner."""

    def __init__(
        self,
        runner: CodeRunner,
        *,
        named: frozenset[str] = frozenset(),
        errors: Mapping[str, type[Exception]] | None = None,
        awaits: bool = False,
    ) -> None:
        """Takes a runner.

        Args:
            runner: a runner that has not been used.
            named: classes of the answer that the tests name.
            errors: stand-ins for classes of errors that the answer defines, by their name.
            awaits: whether the tests await what coroutines of the answer return.
        """
        self._runner = runner
        self._named, self._errors, self._awaits = named, dict(errors or {}), awaits
        self._held = Held(self._hold, self._take)
        self._expected_classes: list[str] = []
        self._functions: list[Callable[..., Any]] = []
        self._objects: dict[int, RemoteObject] = {}
        self._stand_ins: dict[tuple[str, bool], type[RemoteObject]] = {}
        self._bytes_received = 0
        self.outcomes: list[BaseException | None] = []
        """For each operation on the answer: the error that it has raised, or None."""
        self.num_calls = 0
        self.end: BaseException | None = None
        """Why the session cannot go on: RunnerLost or UncarriedError."""

    def share_class(self, name: str, kind: type[Any]) -> None:
        """Has instances of a class cross by value; before `start`, or after `expect_classes`."""
        self._held.classes[name] = kind

    def expect_classes(self, names: list[str]) -> None:
        """Announces classes that will be shared after `start`; where the answer has none of the name, one is made."""
        self._expected_classes += names

    def find_or_missing(self, name: str, *, is_called: bool) -> tuple[Any] | None:
        """What a name stands for in the answer. Where it is nothing: a function that fails if it is called, or None."""
        try:
            return (self.find_name(name),)
        except (Exception, RunnerLost):  # noqa: BLE001  a name of the answer may be anything

            def missing(*args: Any, **kwargs: Any) -> Any:
                self.num_calls += 1
                self.outcomes.append(SolutionError(f"the code does not define {name!r}"))
                raise self.end or self.outcomes[-1]  # type: ignore[misc]

            return (missing,) if is_called else None

    def has_raised(self, error: BaseException) -> bool:
        """Whether this very error comes from the answer."""
        return any(one is error for one in self.outcomes)

    def start(self, source: str) -> None:
        """Runs the source as a module.

        Raises:
            RunnerLost: the runner has ended.
            Exception: whatever the source raises.
        """
        try:
            self._exchange(["start", source, [*self._held.classes, *self._expected_classes]], Packer(self._held))
        except BaseException as e:
            self.outcomes.append(e)
            raise

    def run_program(self, source: str, stdin: str) -> str:
        """Runs the source as a program, and returns what it writes to standard output.

        Raises:
            RunnerLost: the runner has ended.
            Exception: whatever ends the program, but for a regular exit.
        """
        self.num_calls += 1
        output = self._exchange(["program", source, stdin.encode()], Packer(NOTHING_HELD))
        if not isinstance(output, bytes):
            raise RunnerLost("it sent something that is not an output")
        return output.decode("utf-8", "replace")

    def find_name(self, name: str) -> Any:
        """What a name stands for in the answer. Raises AttributeError when it stands for nothing."""
        packer = Packer(self._held)
        return self._exchange(["do", "name", packer.pack([name]), packer.pack({})], packer)

    def ask(self, operation: str, *operands: Any, **keywords: Any) -> Any:
        """Has the runner carry out an operation, and gives operands that it changes their new content.

        Raises:
            RunnerLost: the runner has ended.
            UncarriedError: an operand cannot be carried.
            Exception: whatever the operation raises.
        """
        if operation.startswith("call"):
            self.num_calls += 1
        place = len(self.outcomes)
        self.outcomes.append(None)
        try:
            value = self._ask(operation, operands, keywords)
            return _as_made(value) if operation == "call" and _is_instance_of(value, operands[0]) else value
        except BaseException as e:
            if operation not in _IS_NOT_THERE or not isinstance(e, _IS_NOT_THERE[operation]):
                self.outcomes[place] = e
            raise

    def _ask(self, operation: str, operands: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if self.end is not None:
            raise self.end
        packer = Packer(self._held)
        try:
            message = ["do", operation, packer.pack(list(operands)), packer.pack(keywords)]
        except (ValueError, TypeError, AttributeError, RecursionError) as e:
            raise self.refuse(str(e)) from None
        return self._exchange(message, packer)

    def refuse(self, why: str) -> UncarriedError:
        """Ends the session because the tests want what cannot be carried; returns the error to raise."""
        self.end = UncarriedError(f"the tests pass what cannot be sent to the answer: {why}")
        return self.end

    def _exchange(self, message: list[Any], packer: Packer) -> Any:
        try:
            self._send(message)
            while True:
                reply = self._runner.receive()
                if reply[:1] != ["callback"]:
                    return self._read(reply, packer)
                self._answer_callback(reply)
        except RunnerLost as e:
            self.end = e
            raise

    def _send(self, message: list[Any]) -> None:
        try:
            self._runner.send(message)
        except ValueError as e:
            if self._bytes_received > _FORGEABLE_BYTES:
                raise RunnerLost(f"its results are too large to be passed on: {e}") from None
            raise self.refuse(str(e)) from None

    def _read(self, reply: list[Any], packer: Packer) -> Any:
        """The value of a reply; raises the error that it reports."""
        unpacker = Unpacker(self._held, packer.numbered)
        num_known = len(packer.numbered)
        error: Exception | None = None
        value: Any = None
        try:
            match reply:
                case ["value" | "awaited" as kind, data, changes, str(printed)]:
                    apply_changes(changes, unpacker, num_known)
                    value = unpacker.unpack(data)
                    if kind == "awaited" and self._awaits:
                        value = _return_later(value)
                case ["error", list(names), args, str(text), changes, str(printed)]:
                    apply_changes(changes, unpacker, num_known)
                    error = self._make_error(names, args, text)
                case _:
                    raise RunnerLost("it sent something that is not a result")
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError):
            raise RunnerLost("it sent something that is not data") from None
        self._bytes_received += len(str(reply)) if self._bytes_received <= _FORGEABLE_BYTES else 0
        if printed and sys.stdout is not sys.__stdout__:
            sys.stdout.write(printed)
        if error is not None:
            raise error
        return value

    def _answer_callback(self, request: list[Any]) -> None:
        """Calls the function of the test that the answer was given."""
        match request:
            case [_, int(number), args, kwargs] if 0 <= number < len(self._functions):
                unpacker = Unpacker(self._held)
                try:
                    operands, keywords = unpacker.unpack(args), unpacker.unpack(kwargs)
                except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError):
                    raise RunnerLost("it sent something that is not data") from None
                packer = Packer(self._held, unpacker.numbered)
                try:
                    reply = ["returned", packer.pack(self._functions[number](*operands, **keywords))]
                except Exception as e:  # noqa: BLE001  the answer may catch it, as if it had called the function itself
                    reply = ["raised", type(e).__name__, str(e)[:300]]
                self._send(reply)
            case _:
                raise RunnerLost("it sent something that is not a call")

    def _make_error(self, names: list[Any], args: Any, text: str) -> Exception:
        """The error of the answer, as an instance of the first class among its own and their bases that tests know."""
        arguments: tuple[Any, ...]
        attributes: dict[str, Any]
        last = str(names[0]).rpartition(".")[2]
        arguments, attributes = (text,), {}
        match unpack_value(args):
            case (tuple(found), dict(values)):
                arguments, attributes = found, {str(name): value for name, value in values.items()}
        for position, name in enumerate(map(str, names)):
            module, _, short = name.rpartition(".")
            kind = self._errors.get(short) if module == "solution" else _find_error(module, short)
            if kind is not None and (kind is not Exception or position == 0):
                error: Exception = kind.__new__(kind, *arguments)
                error.args = arguments
                vars(error).update(attributes)
                return error
        return SolutionError(f"{last}: {text}")

    # --- handles -----------------------------------------------------------------------------------------------------

    def _hold(self, value: Any) -> list[Any]:
        if isinstance(value, RemoteObject):
            return ["H", value._rlsp_number]
        if isinstance(value, io.StringIO | io.BytesIO) and type(value) in (io.StringIO, io.BytesIO):
            return ["io", value.getvalue(), value.tell()]
        if isinstance(value, Iterator):
            self._functions.append(_ReadAhead(value))
            return ["LI", len(self._functions) - 1]
        if callable(value):
            self._functions.append(value)
            return ["L", len(self._functions) - 1]
        raise ValueError(f"an object of the type {type(value).__name__}")

    def _take(self, tag: str, rest: list[Any]) -> Any:
        match tag, rest:
            case "H", [int(number), str(kind), bool(is_iterator)]:
                if number not in self._objects:
                    stand_in = self._stand_in(kind, is_iterator=is_iterator)
                    self._objects[number] = stand_in(self, number, kind, kind in self._named)
                return self._objects[number]
            case "L", [int(number)] if 0 <= number < len(self._functions):
                return self._functions[number]
        raise ValueError(f"data with the tag {tag!r}")

    def _stand_in(self, kind: str, *, is_iterator: bool) -> type[RemoteObject]:
        """A class of the name that the object's class has in the answer: tests may ask for `type(x).__name__`."""
        key = (kind[:100], is_iterator)
        if key not in self._stand_ins:
            base = RemoteIterator if is_iterator else RemoteObject
            self._stand_ins[key] = type(key[0], (base,), {"__slots__": ()})
        return self._stand_ins[key]


class _ReadAhead:
    """Hands out the next items of an iterator of the test: one by one first, then many at once."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator, self._num_taken = iterator, 0

    def __call__(self) -> list[Any]:
        items = list(islice(self._iterator, 1 if self._num_taken < 32 else 64))
        self._num_taken += len(items)
        return items


async def _return_later(value: Any) -> Any:
    return value


def _find_error(module: str, name: str) -> type[Exception] | None:
    kind = getattr(sys.modules.get(module), name, None) if module in _ERROR_MODULES else None
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, _ENDINGS):
        return kind
    return None


# --- stand-ins -------------------------------------------------------------------------------------------------------


class RemoteObject:
    """Stands for an object of the runner: a function, a class, an instance."""

    __slots__ = (
        "__weakref__",
        "_rlsp_is_made",
        "_rlsp_is_named",
        "_rlsp_is_told",
        "_rlsp_kind",
        "_rlsp_number",
        "_rlsp_session",
    )

    _rlsp_session: AnswerSession
    _rlsp_number: int
    _rlsp_kind: str
    _rlsp_is_named: bool
    """Whether the tests name its class."""
    _rlsp_is_made: bool
    """Whether the tests have made it, by a call of its class or by operators on such instances."""
    _rlsp_is_told: bool
    """Whether it comes from an operator that a value of the tests was told to."""

    def __init__(self, session: AnswerSession, number: int, kind: str, is_named: bool) -> None:
        _set(self, session=session, number=number, kind=kind, is_named=is_named, is_made=False, is_told=False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._rlsp_session.ask("call", self, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_rlsp_") or (name.startswith("__") and name.endswith("__") and name not in _OPEN_NAMES):
            raise AttributeError(name)
        return self._rlsp_session.ask("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._rlsp_session.ask("set", self, name, value)

    def __delattr__(self, name: str) -> None:
        self._rlsp_session.ask("del", self, name)

    def __dir__(self) -> list[str]:
        return list(self._rlsp_session.ask("dir", self))

    def __eq__(self, other: object) -> Any:
        if isinstance(other, RemoteObject) and self._rlsp_number == other._rlsp_number:
            return True
        return _compare("eq", self, other)

    def __ne__(self, other: object) -> Any:
        if isinstance(other, RemoteObject) and self._rlsp_number == other._rlsp_number:
            return False
        return _compare("ne", self, other)

    def __hash__(self) -> int:
        return int(self._rlsp_session.ask("hash", self)) if self._rlsp_is_named else self._rlsp_number

    def __bool__(self) -> bool:
        return bool(self._rlsp_session.ask("bool", self))

    def __len__(self) -> int:
        return int(self._rlsp_session.ask("len", self))

    def __iter__(self) -> Iterator[Any]:
        found = self._rlsp_session.ask("iter", self)
        return iter(found if isinstance(found, RemoteIterator | Iterator) else ())

    def __contains__(self, item: Any) -> bool:
        if self._rlsp_is_made:
            return bool(self._rlsp_session.ask("contains", self, item))
        return any(item == own for own in self)

    def __getitem__(self, key: Any) -> Any:
        return self._rlsp_session.ask("getitem", self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._rlsp_session.ask("setitem", self, key, value)

    def __delitem__(self, key: Any) -> None:
        self._rlsp_session.ask("delitem", self, key)

    def __enter__(self) -> Any:
        return self._rlsp_session.ask("enter", self)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._rlsp_session.ask("exit", self, None, None, None)

    def __str__(self) -> str:
        return str(self._rlsp_session.ask("str", self))

    def __repr__(self) -> str:
        return str(self._rlsp_session.ask("repr", self))

    def __format__(self, form: str) -> str:
        return str(self._rlsp_session.ask("format", self, form))

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """What isinstance sees: a class of Python where the object is of one, e.g. a generator."""
        return _CLASSES_OF_PYTHON.get(self._rlsp_kind, type(self))

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        raise self._rlsp_session.refuse("a class that is derived from one of the answer")

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, RemoteObject) and bool(self._rlsp_session.ask("isinstance", instance, self))

    def __int__(self) -> int:
        return int(_operate("int", self))

    def __float__(self) -> float:
        return float(_operate("float", self))


class RemoteIterator(RemoteObject):
    """Stands for an iterator of the runner, whose items are fetched when they are asked for."""

    __slots__ = ("_rlsp_ahead", "_rlsp_ended", "_rlsp_taken")

    _rlsp_ahead: list[Any]
    _rlsp_ended: bool
    _rlsp_taken: int

    def __init__(self, session: AnswerSession, number: int, kind: str, is_named: bool) -> None:
        super().__init__(session, number, kind, is_named)
        _set(self, ahead=[], ended=False, taken=0)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if not self._rlsp_ahead and not self._rlsp_ended:
            items, has_ended = self._rlsp_session.ask("next", self, max(1, min(256, self._rlsp_taken // 8)))
            self._rlsp_ahead.extend(items)
            _set(self, ended=bool(has_ended))
        if not self._rlsp_ahead:
            raise StopIteration
        _set(self, taken=self._rlsp_taken + 1)
        if self._rlsp_taken > MAX_ITEMS:
            error = SolutionError(f"an iterator of more than {MAX_ITEMS} items")
            self._rlsp_session.outcomes.append(error)
            raise error
        return self._rlsp_ahead.pop(0)

    def __bool__(self) -> bool:
        return True


def _set(stand_in: RemoteObject, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(stand_in, f"_rlsp_{name}", value)


def _is_instance_of(value: Any, kind: Any) -> bool:
    """Whether a call of a class that the tests name has made the value."""
    return (
        isinstance(value, RemoteObject)
        and value._rlsp_is_named
        and isinstance(kind, RemoteObject)
        and kind._rlsp_kind == value._rlsp_kind
    )


def _as_made(value: RemoteObject, *, is_told: bool = False) -> RemoteObject:
    made = type(value)(value._rlsp_session, value._rlsp_number, value._rlsp_kind, True)
    _set(made, is_made=True, is_told=is_told)
    return made


def _compare(operation: str, one: RemoteObject, other: object) -> Any:
    """Compares an instance that the tests have made with another of a class that they name, by the answer's own method.

    Other pairs do not compare.
    """
    is_own = isinstance(other, RemoteObject) and one._rlsp_is_named and other._rlsp_is_named
    if is_own and (one._rlsp_is_made or other._rlsp_is_made):  # type: ignore[attr-defined]
        return bool(one._rlsp_session.ask(operation, one, other))
    return NotImplemented


def _operate(operation: str, *operands: Any) -> Any:
    """An operator on instances that the tests have made.

    Raises:
        TypeError: no operand is one, or a value of the tests that was told to it would come back as a number.
    """
    own = [operand for operand in operands if isinstance(operand, RemoteObject)]
    if not any(operand._rlsp_is_made for operand in own):
        raise TypeError(f"{operation}: not for a {own[0]._rlsp_kind} of the answer, which the tests have not made")
    is_told = len(own) < len(operands) or any(operand._rlsp_is_told for operand in own)
    value = own[0]._rlsp_session.ask(operation, *operands)
    if isinstance(value, RemoteObject) and value._rlsp_is_named:
        return _as_made(value, is_told=is_told)
    if is_told:
        raise TypeError(f"{operation}: would tell the answer a value of the tests, and take its word for the result")
    return value


def _add_operators() -> None:
    def binary(operation: str, *, is_swapped: bool) -> Callable[[Any, Any], Any]:
        if is_swapped:
            return lambda self, other: _operate(operation, other, self)
        return lambda self, other: _operate(operation, self, other)

    def compare(operation: str) -> Callable[[Any, Any], Any]:
        return lambda self, other: _compare(operation, self, other)

    for name in _OPERATORS:
        operation = f"{name}_" if name in ("and", "or") else name
        setattr(RemoteObject, f"__{name}__", binary(operation, is_swapped=False))
        setattr(RemoteObject, f"__r{name}__", binary(operation, is_swapped=True))
    for name in ("lt", "le", "gt", "ge"):
        setattr(RemoteObject, f"__{name}__", compare(name))
    for name in ("neg", "pos", "abs", "invert"):
        setattr(RemoteObject, f"__{name}__", lambda self, operation=name: _operate(operation, self))


_add_operators()
