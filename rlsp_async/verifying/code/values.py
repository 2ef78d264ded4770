"""Values as data: what crosses between the checker, which knows the tests, and the runner, which runs a model's code.

    pack_value((1, {2}))                            # ["t", 1, ["s", 2]], which msgpack can carry
    unpack_value(pack_value((1, {2}))) == (1, {2})

A value of the standard kinds crosses by value: numbers, texts, bytes, containers, dates, Decimal, Fraction, arrays of
numpy, named tuples, and instances of classes that both sides know. Anything else stays where it is, and a handle of it
crosses (`Held`). Unpacking makes objects of known classes only, so that no method that a model wrote is ever called.

An object that can be changed has a number in its message, in the order in which it was met. A second mention is the
number alone, so an object that occurs twice is one object on the other side, too. The numbers also say, after a call,
which of its arguments have changed: `find_changes` on the side of the callee, `apply_changes` on that of the caller.
"""

from __future__ import annotations

import builtins
import datetime
import sys
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any

MAX_DEPTH = 200
_INT64 = range(-(1 << 63), 1 << 63)
_BASES: dict[type[Any], Callable[[Any], Any]] = {
    int: int.__index__,
    float: float.__float__,
    complex: complex.__pos__,
    str: str.__str__,
    bytes: lambda value: bytes.__getitem__(value, slice(None)),
    **{kind: kind for kind in (dict, list, tuple, set, frozenset)},
}
"""Instances of other subclasses of these cross as instances of the base, which the function makes."""
_SEQUENCES: dict[type[Any], str] = {list: "l", tuple: "t", set: "s", frozenset: "z"}
_MAPPINGS: dict[type[Any], str] = {dict: "d", OrderedDict: "od", Counter: "cn"}
_MAPPING_KINDS = {tag: kind for kind, tag in _MAPPINGS.items()}
_VIEWS: dict[type[Any], str] = {type({}.keys()): "keys", type({}.values()): "values", type({}.items()): "items"}
_ARRAY_KINDS = frozenset("biufcUSMm")
"""Kinds of numpy data types that hold no objects."""
_BUILTIN_NAMES = {
    id(value): name
    for name, value in vars(builtins).items()
    if not name.startswith("_") and isinstance(value, type | types.BuiltinFunctionType)
}
_CLASSES = {kind.__name__: kind for kind in (Decimal, Fraction, Counter, OrderedDict, defaultdict, deque)}
_CLASSES |= {name: getattr(datetime, name) for name in ("date", "datetime", "time", "timedelta", "timezone")}
_CLASS_NAMES = {id(kind): name for name, kind in _CLASSES.items()}
Hold = Callable[[Any], list[Any]]
"""Keeps a value that does not cross, and returns its handle as data."""
Take = Callable[[str, list[Any]], Any]
"""Makes a value of a handle: its tag, and what follows."""


class NamedValues(tuple[Any, ...]):
    """A named tuple of a class that this side does not know: a tuple whose items have names, too."""

    _fields: tuple[str, ...]

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__") and name in self._fields:
            return self[self._fields.index(name)]
        raise AttributeError(name)

    def _asdict(self) -> dict[str, Any]:
        return dict(zip(self._fields, self, strict=True))


class Held:
    """Where values without a form of their own are kept, and the classes that both sides know by name."""

    def __init__(self, hold: Hold, take: Take, classes: Mapping[str, type[Any]] | None = None) -> None:
        self.hold, self.take = hold, take
        self.classes: dict[str, type[Any]] = dict(classes or {})


def _refuse_hold(value: Any) -> list[Any]:
    raise ValueError(f"a value of the type {type(value).__name__}")


def _refuse_take(tag: str, rest: list[Any]) -> Any:
    raise ValueError(f"data with the tag {tag!r}")


NOTHING_HELD = Held(_refuse_hold, _refuse_take)


def pack_value(value: Any) -> Any:
    """Packs a value that is data throughout. Raises ValueError for any other."""
    return Packer(NOTHING_HELD).pack(value)


def unpack_value(data: Any) -> Any:
    """Makes the value that `pack_value` has packed. Raises ValueError or TypeError for anything else."""
    return Unpacker(NOTHING_HELD).unpack(data)


class Packer:
    """Packs the values of one message."""

    def __init__(self, held: Held, numbered: Iterable[Any] = ()) -> None:
        self._held = held
        self.numbered: list[Any] = list(numbered)
        """The objects that have a number, by their number; kept, so that their ids stay theirs."""
        self._numbers = {id(value): number for number, value in enumerate(self.numbered)}

    def pack(self, value: Any, depth: int = 0) -> Any:
        """Turns a value into lists, numbers and strings that msgpack can carry.

        Raises:
            ValueError: the value is nested too deeply, or has no form as data and cannot be held.
        """
        kind = type(value)
        if value is None or kind in (bool, float):
            return value
        if kind is str:
            return value if value.isascii() else _pack_text(value)
        if kind is int:
            return value if value in _INT64 else ["i", hex(value)]
        if depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} containers in one another")
        if id(value) in self._numbers:
            return ["R", self._numbers[id(value)]]
        scalar = _pack_scalar(value, kind)
        return self._pack_container(value, kind, depth) if scalar is None else scalar

    def pack_content(self, value: Any, depth: int = 0) -> Any:
        """Packs an object that has a number already, as if it were met for the first time."""
        kind = type(value)
        if kind in _MAPPINGS:
            return [_MAPPINGS[kind], *self._pairs(value.items(), depth)]
        if kind in _SEQUENCES:
            return [_SEQUENCES[kind], *(self.pack(item, depth + 1) for item in value)]
        if kind is deque:
            return ["dq", value.maxlen, *(self.pack(item, depth + 1) for item in value)]
        if kind is bytearray:
            return ["B", bytes(value)]
        if is_array(value):
            return _pack_array(value)
        return ["K", kind.__name__, *self._pairs(_state_of(value).items(), depth)]

    def _pack_container(self, value: Any, kind: type[Any], depth: int) -> Any:
        if kind in (tuple, frozenset):
            return self.pack_content(value, depth)
        if kind in _MAPPINGS or kind in _SEQUENCES or kind in (deque, bytearray) or self._is_known(value):
            self._number(value)
            return self.pack_content(value, depth)
        if kind in _VIEWS:
            items = value.mapping.items() if kind is type({}.items()) else value
            return ["v", _VIEWS[kind], *(self.pack(item, depth + 1) for item in items)]
        if is_array(value) and value.dtype.kind in _ARRAY_KINDS:
            self._number(value)
            return _pack_array(value)
        if isinstance(value, tuple) and isinstance(fields := getattr(kind, "_fields", None), tuple):
            return ["n", kind.__name__, [str(name) for name in fields], *(self.pack(item, depth + 1) for item in value)]
        if isinstance(value, Enum) and self._held.classes.get(kind.__name__) is kind:
            return ["e", kind.__name__, value.name]
        for base, to_base in _BASES.items():
            if isinstance(value, base):
                return self.pack(to_base(value), depth)
        return self._held.hold(value)

    def _is_known(self, value: Any) -> bool:
        kind = type(value)
        return self._held.classes.get(kind.__name__) is kind and has_plain_state(kind)

    def _number(self, value: Any) -> None:
        self._numbers[id(value)] = len(self.numbered)
        self.numbered.append(value)

    def _pairs(self, items: Iterable[tuple[Any, Any]], depth: int) -> Iterator[list[Any]]:
        return ([self.pack(key, depth + 1), self.pack(item, depth + 1)] for key, item in items)


class Unpacker:
    """Makes the values of one message."""

    def __init__(self, held: Held, numbered: Iterable[Any] = ()) -> None:
        self._held = held
        self.numbered: list[Any] = list(numbered)

    def unpack(self, data: Any) -> Any:
        """Turns packed data into values again.

        Raises:
            ValueError: `Packer` never makes this data.
            TypeError: likewise.
        """
        if not isinstance(data, list):
            return data
        if not data or not isinstance(data[0], str):
            raise ValueError("data without a tag")
        tag, *rest = data
        match tag:
            case "l" | "s" | "d" | "od" | "cn" | "dq" | "B" | "K" | "N":
                value = self._make_empty(tag, rest)
                self.numbered.append(value)
                self.fill(value, data)
                return value
            case "t":
                return tuple(map(self.unpack, rest))
            case "z":
                return frozenset(map(self.unpack, rest))
            case "R":
                return self._numbered(rest)
            case "n":
                return self._named_tuple(*rest)
            case "v":
                return self._view(*rest)
            case "e":
                return self._held.classes[rest[0]][rest[1]]
        return _unpack_scalar(tag, rest, self._held.take)

    def fill(self, value: Any, data: list[Any]) -> None:
        """Gives an object the content in the data, in place of what it holds.

        Raises:
            ValueError: the data are for an object of another kind.
        """
        tag, *rest = data
        match tag:
            case "l" if type(value) is list:
                value[:] = [self.unpack(item) for item in rest]
            case "s" if type(value) is set:
                items = [self.unpack(item) for item in rest]
                value.clear()
                value.update(items)
            case "dq" if type(value) is deque:
                items = [self.unpack(item) for item in rest[1:]]
                value.clear()
                value.extend(items)
            case "B" if type(value) is bytearray and isinstance(rest[0], bytes):
                value[:] = rest[0]
            case "d" | "od" | "cn" if type(value) is _MAPPING_KINDS[tag]:
                pairs = [(self.unpack(key), self.unpack(item)) for key, item in rest]
                value.clear()
                for key, item in pairs:
                    value[key] = item
            case "K" if type(value) is self._held.classes.get(rest[0]):
                state = {str(self.unpack(key)): self.unpack(item) for key, item in rest[1:]}
                _set_state(value, state)
            case "N" if is_array(value):
                value[...] = _unpack_array(rest)
            case _:
                raise ValueError("content of another kind")

    def _make_empty(self, tag: str, rest: list[Any]) -> Any:
        if tag == "K":
            kind = self._held.classes.get(rest[0])
            if kind is None or not has_plain_state(kind):
                raise ValueError(f"an instance of the class {rest[0]!r}, which is unknown here")
            return object.__new__(kind)
        if tag == "dq":
            return deque(maxlen=None if rest[0] is None else int(rest[0]))
        if tag == "N":
            return _unpack_array(rest)
        kinds: dict[str, type[Any]] = {"l": list, "s": set, "B": bytearray, **_MAPPING_KINDS}
        return kinds[tag]()

    def _numbered(self, rest: list[Any]) -> Any:
        match rest:
            case [int(number)] if 0 <= number < len(self.numbered):
                return self.numbered[number]
        raise ValueError("a mention of nothing")

    def _named_tuple(self, name: str, fields: list[str], *items: Any) -> Any:
        values = [self.unpack(item) for item in items]
        kind = self._held.classes.get(name)
        if kind is not None and getattr(kind, "_fields", None) == tuple(fields):
            return tuple.__new__(kind, values)
        if len(fields) != len(values) or not all(isinstance(field, str) for field in fields):
            raise ValueError("a named tuple whose names are not as many as its items")
        named = NamedValues(values)
        named._fields = tuple(fields)
        return named

    def _view(self, kind: str, *items: Any) -> Any:
        values = [self.unpack(item) for item in items]
        if kind == "keys":
            return dict.fromkeys(values).keys()
        return dict(enumerate(values)).values() if kind == "values" else dict(values).items()


# --- changes ---------------------------------------------------------------------------------------------------------


def take_snapshot(numbered: Iterable[Any]) -> list[Any]:
    """What the objects hold now, as deep as identity shows a change."""
    return [_content_of(value) for value in numbered]


def find_changes(numbered: list[Any], before: list[Any], packer: Packer) -> list[Any]:
    """The objects that hold something else than before, as pairs of their number and their content, packed."""
    changes: list[Any] = []
    for number, (value, old) in enumerate(zip(numbered, before, strict=True)):
        if not _is_same(_content_of(value), old):
            changes.append([number, packer.pack_content(value)])
    return changes


def apply_changes(changes: Any, unpacker: Unpacker, num_known: int) -> None:
    """Gives the first `num_known` numbered objects of an unpacker what they hold now on the other side.

    Raises:
        ValueError: the changes name another object, or hold what is not data.
    """
    for number, data in changes:
        if not isinstance(number, int) or not 0 <= number < num_known or not isinstance(data, list):
            raise ValueError("a change of nothing")
        unpacker.fill(unpacker.numbered[number], data)


def _content_of(value: Any) -> Any:
    if isinstance(value, dict):
        return [part for item in list(value.items()) for part in item]
    if isinstance(value, list | set | deque):
        return list(value)
    if isinstance(value, bytearray):
        return bytes(value)
    if is_array(value):
        return value.tobytes()
    return [part for item in _state_of(value).items() for part in item]


def _is_same(now: Any, before: Any) -> bool:
    if isinstance(now, bytes) or isinstance(before, bytes):
        return bool(now == before)
    return len(now) == len(before) and all(a is b for a, b in zip(now, before, strict=True))


# --- instances -------------------------------------------------------------------------------------------------------


def has_plain_state(kind: type[Any]) -> bool:
    """Whether instances of a class are nothing but their attributes, so that they can cross by value."""
    new: Any = kind.__new__
    return new is object.__new__ and not issubclass(kind, (*_BASES, BaseException, Enum, type, deque))


def _state_of(value: Any) -> dict[str, Any]:
    slots = [name for kind in type(value).__mro__ for name in _slots_of(kind)]
    state = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    return {**getattr(value, "__dict__", {}), **state}


def _slots_of(kind: type[Any]) -> list[str]:
    slots = kind.__dict__.get("__slots__", ())
    names = [slots] if isinstance(slots, str) else list(slots)
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def _set_state(value: Any, state: dict[str, Any]) -> None:
    for name in _state_of(value).keys() - state.keys():
        object.__delattr__(value, name)
    for name, item in state.items():
        object.__setattr__(value, name, item)


# --- scalars ---------------------------------------------------------------------------------------------------------


def _pack_text(value: str) -> Any:
    try:
        value.encode()
    except UnicodeEncodeError:
        return ["u", value.encode("utf-8", "surrogatepass")]
    return value


def _pack_scalar(value: Any, kind: type[Any]) -> Any:
    """A value without items as data, or None."""
    if kind is bytes:
        return ["b", value]
    if kind is complex:
        return ["c", value.real, value.imag]
    if kind in (range, slice):
        packed = [Packer(NOTHING_HELD).pack(item) for item in (value.start, value.stop, value.step)]
        return ["r" if kind is range else "sl", *packed]
    if kind is Decimal:
        return ["D", str(value)]
    if kind is Fraction:
        return ["F", hex(value.numerator), hex(value.denominator)]
    if kind in (datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone):
        return _pack_date(value)
    if value is Ellipsis or value is NotImplemented:
        return ["C", "Ellipsis" if value is Ellipsis else "NotImplemented"]
    if isinstance(value, type | types.BuiltinFunctionType):
        name = _BUILTIN_NAMES.get(id(value)) or _CLASS_NAMES.get(id(value))
        return None if name is None else ["C", name]
    if (
        is_known_class(kind, "numpy")
        and hasattr(value, "dtype")
        and value.dtype.kind in _ARRAY_KINDS
        and not value.shape
    ):
        return None if is_array(value) else ["ns", value.dtype.str, value.tobytes()]
    return None


def _unpack_scalar(tag: str, rest: list[Any], take: Take) -> Any:
    match tag, rest:
        case "i", [str(text)]:
            return int(text, 16)
        case "u", [bytes(data)]:
            return data.decode("utf-8", "surrogatepass")
        case "b", [bytes(data)]:
            return data
        case "c", [float(real), float(imag)]:
            return complex(real, imag)
        case "D", [str(text)]:
            return Decimal(text)
        case "F", [str(above), str(below)]:
            return Fraction(int(above, 16), int(below, 16))
        case "r", [start, stop, step]:
            return range(unpack_value(start), unpack_value(stop), unpack_value(step))
        case "sl", [start, stop, step]:
            return slice(unpack_value(start), unpack_value(stop), unpack_value(step))
        case "C", [str(name)]:
            return _find_constant(name)
        case "ns", [str(dtype), bytes(data)]:
            return _unpack_array([dtype, [], data])[()]
        case (("dt" | "da" | "ti" | "td" | "tz"), _):
            return _unpack_date(tag, rest)
    return take(tag, rest)


def _find_constant(name: str) -> Any:
    if name in ("Ellipsis", "NotImplemented"):
        return Ellipsis if name == "Ellipsis" else NotImplemented
    value = _CLASSES.get(name) or getattr(builtins, name)
    if id(value) not in _BUILTIN_NAMES and id(value) not in _CLASS_NAMES:
        raise ValueError("a constant that is none")
    return value


def _pack_date(value: Any) -> Any:
    """A date or time with its offset from UTC; other facts about a time zone do not cross."""
    if isinstance(value, datetime.timedelta):
        return ["td", value.days, value.seconds, value.microseconds]
    if isinstance(value, datetime.timezone):
        return ["tz", _pack_date(value.utcoffset(None)), value.tzname(None)]
    if not isinstance(value, datetime.datetime | datetime.time):
        return ["da", value.year, value.month, value.day]
    offset = value.utcoffset()
    zone = None if offset is None else _pack_date(offset)
    clock = [value.hour, value.minute, value.second, value.microsecond, value.fold]
    return (
        ["ti", *clock, zone]
        if isinstance(value, datetime.time)
        else [
            "dt",
            value.year,
            value.month,
            value.day,
            *clock,
            zone,
        ]
    )


def _unpack_date(tag: str, rest: list[Any]) -> Any:
    match tag, rest:
        case "td", [days, seconds, microseconds]:
            return datetime.timedelta(days, seconds, microseconds)
        case "tz", [list(offset), str(name)]:
            delta = _unpack_date("td", offset[1:])
            plain = datetime.timezone(delta)
            return (
                datetime.UTC
                if plain == datetime.UTC
                else plain
                if plain.tzname(None) == name
                else datetime.timezone(delta, name)
            )
        case "da", [year, month, day]:
            return datetime.date(year, month, day)
        case "ti", [hour, minute, second, microsecond, fold, zone]:
            return datetime.time(hour, minute, second, microsecond, _zone(zone), fold=fold)
        case "dt", [year, month, day, hour, minute, second, microsecond, fold, zone]:
            return datetime.datetime(year, month, day, hour, minute, second, microsecond, _zone(zone), fold=fold)
    raise ValueError(f"data with the tag {tag!r}")


def _zone(offset: Any) -> datetime.timezone | None:
    if offset is None:
        return None
    delta = _unpack_date("td", offset[1:])
    return datetime.timezone(delta) if delta else datetime.UTC


# --- numpy, where it is loaded ---------------------------------------------------------------------------------------


def is_known_class(kind: type[Any], module: str) -> bool:
    """Whether a class says that it comes from a module that is loaded."""
    return module in sys.modules and str(getattr(kind, "__module__", "")).partition(".")[0] == module


def is_array(value: Any) -> bool:
    """Whether a value is an array of numpy, and no instance of a subclass."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value) is numpy.ndarray


def _pack_array(value: Any) -> Any:
    return ["N", value.dtype.str, list(value.shape), value.tobytes()]


def _unpack_array(rest: list[Any]) -> Any:
    numpy = sys.modules.get("numpy")
    match rest:
        case [str(dtype), list(shape), bytes(data)] if numpy is not None and numpy.dtype(dtype).kind in _ARRAY_KINDS:
            return numpy.frombuffer(data, dtype).reshape(shape).copy()
    raise ValueError("an array that is none")
