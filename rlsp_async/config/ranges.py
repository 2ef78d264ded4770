"""The range of a number and the shape of a text, declared in the annotation of the setting itself.

    lr: Annotated[float, Range(ge=0, le=10)] = 1e-6
    prompt_field: FieldName = "prompt"

`Section` reads the annotations whenever one of its instances is made, from a file or in Python. NaN is refused
everywhere, infinity wherever the field does not name it in `also`. A text without a shape must not contain the
character NUL.
"""

from __future__ import annotations

import functools
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, Union

Number = int | float


class SettingError(ValueError):
    """One setting has a value outside of its range or shape: `KEY = VALUE: what is allowed`."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """The numbers that a setting may have; it holds for each number in a list or tuple."""

    ge: Number | None = None
    """Smallest number."""
    gt: Number | None = None
    """All numbers lie above this."""
    le: Number | None = None
    """Largest number."""
    lt: Number | None = None
    """All numbers lie below this."""
    multiple_of: int = 1
    also: tuple[Number, ...] = ()
    """Numbers outside of the range that mean something of their own, e.g. -1 for "unset"."""

    def allows(self, value: Number) -> bool:
        """Whether a number lies in the range or is one of `also`."""
        if value in self.also:
            return True
        return (
            math.isfinite(value)
            and (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
            and (self.multiple_of == 1 or value % self.multiple_of == 0)
        )

    def text(self) -> str:
        """The range in words: "at least 0 and at most 1, or -1"."""
        bounds = [
            f"{word} {_number_text(bound)}"
            for word, bound in (("at least", self.ge), ("above", self.gt), ("at most", self.le), ("below", self.lt))
            if bound is not None
        ]
        words = " and ".join(bounds) or "any finite number"
        if self.multiple_of != 1:
            words += f", a multiple of {self.multiple_of}"
        return words + "".join(f", or {_number_text(number)}" for number in self.also)


@dataclass(frozen=True)
class Shape:
    """The texts that a setting may have."""

    noun: str
    """What the text is, for the documentation and the error, e.g. "a path"."""
    pattern: str
    """Regular expression of the whole text."""

    def allows(self, value: str) -> bool:
        """Whether the whole text has the shape."""
        return re.fullmatch(self.pattern, value, re.DOTALL) is not None


INFINITY = math.inf
"""For `also` of a range whose field has a meaning for infinity."""

_LINE = r"[^\x00-\x1f\x7f]"
PathText = Annotated[str, Shape("a path in one line of at most 4,000 characters", rf"{_LINE}{{0,4000}}")]
"""A file or directory; empty where the setting says what that means."""
PluginName = Annotated[
    str,
    Shape(
        "a module: at most 200 letters, digits, underscores and dots; or a path that ends with .py",
        rf"(|(?!.{{201}})[^\W\d]\w*(\.[^\W\d]\w*)*|{_LINE}{{1,4000}}\.py)",
    ),
]
"""A module that ships, or a dotted module of the user. Verifiers also take the path of a file."""
FieldName = Annotated[str, Shape("one line of at most 500 characters", rf"{_LINE}{{0,500}}")]
"""The field of a row, or another short text in one line."""
LayerName = Annotated[str, Shape("a name: 1 to 100 letters, digits and underscores", r"[^\W\d]\w{0,99}")]
"""The last part of the name of a layer, as in `model.layers.0.self_attn.q_proj`."""
VariableName = Annotated[str, Shape("the name of an environment variable", r"([A-Za-z_][A-Za-z0-9_]{0,200})?")]
FreeText = Annotated[str, Shape("a text of at most 100,000 characters without NUL", r"[^\x00]{0,100000}")]
"""Text for the model or a regular expression; several lines are fine."""
RunName = Annotated[
    str,
    Shape(
        "a directory name of at most 100 letters, digits, dots, underscores and hyphens",
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}",
    ),
]
STAGE_NAME = Shape("1 to 64 letters, digits, underscores and hyphens", r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
"""The name of a stage: it is a part of settings' keys, and of the names of directories and metrics."""
_ANY_TEXT = Shape("a text without NUL", r"[^\x00]*")
_ANY_NUMBER = Range()


class FieldRule(NamedTuple):
    """What one field may hold."""

    bound: Range | Shape | None
    """The declared range or shape; None: any finite number, any text without NUL."""
    kinds: frozenset[type]
    """The simple types; empty: Any, as in the options of a plugin, which are checked where they are decoded."""
    choices: tuple[object, ...] = ()
    """The values of a Literal; other texts are refused where there is one."""

    def allows(self, value: object) -> bool:
        """Whether one text or number may stand in the field."""
        if not self.kinds:
            return not (isinstance(value, float) and math.isnan(value))
        if isinstance(value, bool):
            return bool in self.kinds
        if value in self.choices:
            return True
        if isinstance(value, str):
            return (
                not self.choices
                and str in self.kinds
                and (self.bound if isinstance(self.bound, Shape) else _ANY_TEXT).allows(value)
            )
        assert isinstance(value, int | float)
        if float not in self.kinds and not (int in self.kinds and isinstance(value, int)):
            return False
        return (self.bound if isinstance(self.bound, Range) else _ANY_NUMBER).allows(value)

    def text(self) -> str:
        """What the field may hold, in words: "a number above 0 and at most 1"."""
        if self.choices:
            names = " or ".join(repr(choice) for choice in self.choices)
            return f"{FieldRule(self.bound, self.kinds - {str}).text()}, or {names}" if self.bound else names
        noun = "a number" if float in self.kinds else "a whole number" if int in self.kinds else ""
        if isinstance(self.bound, Shape):
            return self.bound.noun
        if not noun:
            return "true or false" if bool in self.kinds else _ANY_TEXT.noun if str in self.kinds else "a number"
        return f"{noun} {(self.bound or _ANY_NUMBER).text()}"


def check_values(section: Any) -> None:
    """Checks every field of a struct against its annotation. Raises SettingError for the first that does not fit."""
    kind: Any = type(section)
    for name, rule in rules_of(kind).items():
        for value in _values(getattr(section, name)):
            if not rule.allows(value):
                raise SettingError(f"{name} = {short(value)}: must be {rule.text()}")


def check_key(key: str, shape: Shape, where: str) -> None:
    """Checks the name of an entry, for example of a stage. Raises SettingError."""
    if not shape.allows(key):
        raise SettingError(f"{where}.{short(key)}: a name must be {shape.noun}")


@functools.cache
def rules_of(kind: Any) -> dict[str, FieldRule]:
    """For each field of a struct: its range or shape, and its simple types."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {
        name: FieldRule(_bound(hints[name]), frozenset(_simple(hints[name])), tuple(_choices(hints[name])))
        for name in kind.__struct_fields__
    }


def short(value: object) -> str:
    """A value as Python writes it, in at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _values(value: object) -> Iterator[object]:
    """The texts and numbers in a value, within lists and tables; structs check themselves."""
    if isinstance(value, str | int | float):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _values(one)
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _values(one)


def _bound(annotation: Any) -> Range | Shape | None:
    """The first range or shape in an annotation, wherever in it."""
    if typing.get_origin(annotation) is Annotated:
        for extra in annotation.__metadata__:
            if isinstance(extra, Range | Shape):
                return extra
    return next((bound for inner in typing.get_args(annotation) if (bound := _bound(inner)) is not None), None)


def _simple(annotation: Any) -> Iterator[type]:
    """The simple types in an annotation, those of a Literal's values among them; nothing where Any is allowed."""
    origin = typing.get_origin(annotation)
    if annotation in (str, int, float, bool):
        yield annotation
    elif origin is Annotated:
        yield from _simple(annotation.__origin__)
    elif origin is typing.Literal:
        yield from {type(value) for value in typing.get_args(annotation)}
    elif origin is dict:
        yield from _simple(typing.get_args(annotation)[1])
    elif origin in (Union, types.UnionType, list, tuple):
        for inner in typing.get_args(annotation):
            yield from _simple(inner)


def _choices(annotation: Any) -> Iterator[object]:
    """The values of the Literal in an annotation."""
    if typing.get_origin(annotation) is typing.Literal:
        yield from typing.get_args(annotation)
    elif typing.get_origin(annotation) is not Annotated:
        for inner in typing.get_args(annotation):
            yield from _choices(inner)


def _number_text(number: Number) -> str:
    if isinstance(number, int):
        return f"{number:,}"
    return f"{number:g}"
