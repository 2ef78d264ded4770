"""Sets of real numbers: intervals, unions, differences and inequalities of one variable, compared point by point.

Two regions whose ends are known numbers are the same when they agree at every end and between every two of them. An
inequality that is not linear is compared with such a region at its ends, close to them, between them and at a grid of
further points. Ends with variables (`(a, b)`) are compared as texts, in their order.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from rlsp_async.verifying.math.evaluate import (
    CONTEXT,
    evaluate_expression,
    find_variables,
    is_close,
    is_proportional,
    sign_of_ratio,
)
from rlsp_async.verifying.math.parse import Node, UnreadableExpression, parse_expression
from rlsp_async.verifying.math.scalars import DEFAULTS, compare_scalars, exact_value, parse_or_none

if TYPE_CHECKING:
    from rlsp_async.verifying.math.shapes import AnswerShape

REGIONS = frozenset({"interval", "union", "intersection", "difference", "inequality"})
MAX_PIECES = 20
_STEP = Fraction(1, 10**6)
_GRID = (*(Fraction(k, 4) + Fraction(1, 97) for k in range(-80, 81, 3)), Fraction(-10007, 3), Fraction(10007, 3))
_LESS = {"<": lambda a, b: a < b, "\\le": lambda a, b: a <= b, ">": lambda a, b: a > b, "\\ge": lambda a, b: a >= b}
_SIMPLE_NAME = re.compile(r"\\?[a-zA-Z]+(?:_\{?\w+\}?)?(?:\s?\([a-z]\))?")


_CALL = re.compile(r"(?<![\\A-Za-z])[A-Za-z]\s?\(\s?[\w-]+\s?\)")


class Region(NamedTuple):
    """A set of real numbers."""

    contains: Callable[[Fraction], bool]
    ends: tuple[Fraction, ...]
    """All finite ends, when `is_explicit`."""
    is_explicit: bool
    """Whether the set changes only at `ends`."""
    name: str
    """The variable, or ""."""


def compare_regions(gold: AnswerShape, extracted: AnswerShape) -> bool | None:
    """Whether two shapes are the same set of real numbers; None when one of them cannot be read as one."""
    try:
        left, right = read_region(gold), read_region(extracted)
    except UnreadableExpression:
        return _compare_symbolic(gold, extracted) if "scalar" not in (gold.kind, extracted.kind) else False
    if left is None or right is None:
        scalars = [shape for shape in (gold, extracted) if shape.kind == "scalar" and shape.literal is None]
        return None if any(parse_or_none(shape.text) is None for shape in scalars) else False
    if left.name and right.name and left.name != right.name:
        return False
    if not left.is_explicit and not right.is_explicit:
        return _compare_symbolic(gold, extracted)
    points = sorted({*left.ends, *right.ends})
    tests = [*points, *_between(points)]
    if not (left.is_explicit and right.is_explicit):
        tests += [point + step for point in points for step in (_STEP, -_STEP)] + list(_GRID)
    try:
        return all(left.contains(point) == right.contains(point) for point in tests)
    except UnreadableExpression:
        return None


def read_region(shape: AnswerShape) -> Region | None:
    """Reads a shape as a set of real numbers; None when it is something else.

    Raises:
        UnreadableExpression: an end is not a known number.
    """
    if shape.kind == "interval" or (shape.kind == "tuple" and len(shape.parts) == 2 and shape.text in ("()", "[]")):
        region = _interval(shape)
        return region if shape.kind == "interval" or region.ends[0] < region.ends[-1] else None
    if shape.kind == "set":
        points = frozenset(_end(part) for part in shape.parts)
        return Region(lambda x: x in points, tuple(points), True, "")
    if shape.kind == "membership":
        inner = read_region(shape.parts[1])
        return inner._replace(name=shape.parts[0].text) if inner is not None else None
    if shape.kind in ("union", "intersection", "difference", "list"):
        return _combine(shape)
    return _inequality(shape) if shape.kind == "inequality" else None


def _combine(shape: AnswerShape) -> Region | None:
    regions = [read_region(part) for part in shape.parts]
    if not 0 < len(regions) <= MAX_PIECES or any(region is None for region in regions):
        return None
    known = [region for region in regions if region is not None]
    names = {region.name for region in known if region.name}
    if len(names) > 1:
        return None
    if shape.kind == "difference":
        first, second = known

        def contains(x: Fraction) -> bool:
            return first.contains(x) and not second.contains(x)
    elif shape.kind == "intersection":

        def contains(x: Fraction) -> bool:
            return all(region.contains(x) for region in known)
    else:

        def contains(x: Fraction) -> bool:
            return any(region.contains(x) for region in known)

    ends = tuple(end for region in known for end in region.ends)
    return Region(contains, ends, all(region.is_explicit for region in known), next(iter(names), ""))


def _interval(shape: AnswerShape) -> Region:
    low, high = shape.parts
    ends = tuple(_end(part) for part in (low, high) if not _infinite(part))
    left, right = (None if _infinite(part) else _end(part) for part in (low, high))
    if (left is None and "-" not in low.text) or (right is None and "-" in high.text):
        raise UnreadableExpression("an interval that begins or ends beyond infinity")
    opening, closing = shape.text[0], shape.text[1]

    def contains(x: Fraction) -> bool:
        above = left is None or (x >= left if opening == "[" else x > left)
        return above and (right is None or (x <= right if closing == "]" else x < right))

    return Region(contains, ends or (Fraction(0),), True, "")


def _infinite(shape: AnswerShape) -> bool:
    return re.fullmatch(r"[-+]?\s?\\infty\s?", shape.text) is not None


def _end(shape: AnswerShape) -> Fraction:
    value = exact_value(shape)
    if value is None:
        raise UnreadableExpression("an end that is not a number")
    return value


def _between(points: list[Fraction]) -> Iterable[Fraction]:
    if not points:
        return [Fraction(0)]
    middles = [(a + b) / 2 for a, b in itertools.pairwise(points)]
    return [points[0] - 1, *middles, points[-1] + 1]


# --- inequalities ----------------------------------------------------------------------------------------------------


def _inequality(shape: AnswerShape) -> Region | None:
    signs = shape.text.split(" ")
    sides = [part.text for part in shape.parts]
    names = [side for side in sides if _SIMPLE_NAME.fullmatch(side) and exact_value(_as_scalar(shape, side)) is None]
    ends = [exact_value(part) for part in shape.parts]
    if len(names) == 1 and all(
        side in names or end is not None or _is_infinity(side) for side, end in zip(sides, ends, strict=True)
    ):
        return _bounds(signs, sides, ends, names[0])
    if any(_CALL.search(side) for side in sides):
        raise UnreadableExpression("an inequality between values of a function")
    nodes = [parse_expression(side) for side in sides]
    variables = frozenset().union(*(find_variables(node) for node in nodes))
    if len(variables) != 1 or "=" in signs:
        raise UnreadableExpression("an inequality of several variables")
    name = next(iter(variables))
    linear = _linear_ends(signs, nodes, name)

    def contains(x: Fraction) -> bool:
        values = [_real(node, name, x) for node in nodes]
        return all(_holds(sign, a, b) for sign, a, b in zip(signs, values, values[1:], strict=False))

    return Region(contains, linear or (), linear is not None, name)


def _as_scalar(shape: AnswerShape, text: str) -> AnswerShape:
    return shape._replace(kind="scalar", text=text, parts=(), literal=None)


def _is_infinity(side: str) -> bool:
    return re.fullmatch(r"[-+]?\s?\\infty\s?", side) is not None


def _bounds(signs: list[str], sides: list[str], ends: list[Fraction | None], name: str) -> Region:
    at = sides.index(name)

    def contains(x: Fraction) -> bool:
        values: list[object] = [x if i == at else end for i, end in enumerate(ends)]
        for sign, a, b in zip(signs, values, values[1:], strict=False):
            if a is not None and b is not None and not _holds(sign, a, b):
                return False
        return True

    finite = tuple(end for i, end in enumerate(ends) if i != at and end is not None)
    return Region(contains, finite or (Fraction(0),), True, name)


def _holds(sign: str, a: object, b: object) -> bool:
    equal = is_close(a, b)
    if sign == "\\ne":
        return not equal
    if equal:
        return sign in ("\\le", "\\ge")
    return bool(_LESS[sign](a, b))


def _real(node: Node, name: str, x: Fraction) -> object:
    try:
        value = evaluate_expression(node, {name: x})
    except ZeroDivisionError:
        return CONTEXT.nan
    if not isinstance(value, Fraction) and abs(CONTEXT.im(value)) > CONTEXT.mpf(10) ** -30:
        return CONTEXT.nan
    return value if isinstance(value, Fraction) else CONTEXT.re(value)


def _linear_ends(signs: list[str], nodes: list[Node], name: str) -> tuple[Fraction, ...] | None:
    """The ends of an inequality whose sides differ by a linear function of the variable; None when they do not."""
    ends = []
    for a, b in itertools.pairwise(nodes):
        values = []
        for x in (0, 1, 2, 5, -3):
            left, right = _real(a, name, Fraction(x)), _real(b, name, Fraction(x))
            if not isinstance(left, Fraction) or not isinstance(right, Fraction):
                return None
            values.append(left - right)
        slope = values[1] - values[0]
        if any(value != values[0] + slope * x for x, value in zip((0, 1, 2, 5, -3), values, strict=True)):
            return None
        if slope:
            ends.append(-values[0] / slope)
    return tuple(ends)


def _compare_symbolic(gold: AnswerShape, extracted: AnswerShape) -> bool | None:
    """Compares ends as expressions: intervals in their order, inequalities up to a factor."""
    if gold.kind == extracted.kind == "inequality":
        return _compare_inequalities(gold, extracted)
    for first, second in ((gold, extracted), (extracted, gold)):
        if first.kind == "inequality" and second.kind in ("interval", "tuple"):
            first = _as_interval(first) or first
            pair = (first, second) if second is extracted else (second, first)
            return _compare_intervals(*pair) if first.kind == "interval" else None
    if {gold.kind, extracted.kind} <= {"interval", "tuple"}:
        return _compare_intervals(gold, extracted)
    if gold.kind == extracted.kind and len(gold.parts) == len(extracted.parts):
        answers = [max((compare_regions(a, b) is True for b in extracted.parts), default=False) for a in gold.parts]
        return True if all(answers) else None
    return False if {gold.kind, extracted.kind} & {"list", "set"} else None


def _compare_intervals(gold: AnswerShape, extracted: AnswerShape) -> bool | None:
    if gold.text != extracted.text or len(gold.parts) != len(extracted.parts):
        return False
    answers = [
        compare_scalars(a, b, DEFAULTS) if a.kind == b.kind == "scalar" else None
        for a, b in zip(gold.parts, extracted.parts, strict=True)
    ]
    return False if False in answers else None if None in answers else True


def _as_interval(shape: AnswerShape) -> AnswerShape | None:
    """`a < x \\le b` and `x > a` as intervals, whatever their ends are."""
    signs, sides = shape.text.split(" "), list(shape.parts)
    if signs[0] in (">", "\\ge"):
        signs = [{">": "<", "\\ge": "\\le"}.get(sign, sign) for sign in reversed(signs)]
        sides.reverse()
    if not set(signs) <= {"<", "\\le"}:
        return None
    infinity = sides[0]._replace(text="\\infty", literal=None)
    opening, closing = ("(" if signs[0] == "<" else "["), (")" if signs[-1] == "<" else "]")
    if len(sides) == 3 and _SIMPLE_NAME.fullmatch(sides[1].text):
        return shape._replace(kind="interval", text=opening + closing, parts=(sides[0], sides[2]))
    if len(sides) == 2 and _SIMPLE_NAME.fullmatch(sides[0].text):
        low = infinity._replace(text="-\\infty")
        return shape._replace(kind="interval", text="(" + closing, parts=(low, sides[1]))
    if len(sides) == 2 and _SIMPLE_NAME.fullmatch(sides[1].text):
        return shape._replace(kind="interval", text=opening + ")", parts=(sides[0], infinity))
    return None


def _compare_inequalities(gold: AnswerShape, extracted: AnswerShape) -> bool | None:
    """Inequalities are the same when their differences have a constant ratio and the signs agree."""
    if len(gold.parts) == len(extracted.parts) > 2 and any(_CALL.search(part.text) for part in gold.parts):
        return _compare_chains(gold, extracted)
    if len(gold.parts) != 2 or len(extracted.parts) != 2:
        intervals = _as_interval(gold), _as_interval(extracted)
        if intervals[0] is None or intervals[1] is None or gold.parts[1].text != extracted.parts[1].text:
            return None
        return _compare_intervals(intervals[0], intervals[1])
    pairs = [_turned(shape) for shape in (gold, extracted)]
    if pairs[0][0] != pairs[1][0]:
        return False
    try:
        left, right = pairs[0][1], pairs[1][1]
        if not is_proportional(left, right):
            return None if len(find_variables(left) | find_variables(right)) == 1 else False
        return pairs[0][0] == "\\ne" or sign_of_ratio(left, right) > 0
    except UnreadableExpression:
        return None


def _compare_chains(gold: AnswerShape, extracted: AnswerShape) -> bool:
    """Compares `f(2) < f(1) < f(4)` side by side, in either direction."""
    signs, sides = extracted.text.split(" "), [part.text.replace(" ", "") for part in extracted.parts]
    golds = [part.text.replace(" ", "") for part in gold.parts]
    turned = [{"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}.get(sign, sign) for sign in reversed(signs)]
    return (gold.text.split(" "), golds) in ((signs, sides), (turned, sides[::-1]))


def _turned(shape: AnswerShape) -> tuple[str, Node]:
    """The sign, one of < \\le \\ne, and the difference of the sides that it compares with zero."""
    left, right = (parse_expression(part.text) for part in shape.parts)
    if shape.text in (">", "\\ge"):
        return {">": "<", "\\ge": "\\le"}[shape.text], ("-", right, left)
    return shape.text, ("-", left, right)
