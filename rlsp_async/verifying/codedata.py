"""Values on their way between the process that runs a model's code and the one that judges it: plain data only.

    unpack(pack((1, {2}))) == (1, {2})

`pack` turns a value into what msgpack can carry, with a tag for each container; `unpack` makes builtin types of it and
nothing else, so that no `__eq__` that a model wrote is ever asked. An instance of a subclass arrives as its base.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

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
