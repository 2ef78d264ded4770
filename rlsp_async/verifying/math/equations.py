"""Equations: chains, names in front of a value, equations up to a factor.

"x = 5" and "5" are the same; "7 = 11a + c" and "11a + c" are not
"\\\\sqrt2 \\\\approx 1.414" is "\\\\sqrt2"; "x = 3 = 5" is nothing
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from rlsp_async.verifying.math.brackets import drop_brackets
from rlsp_async.verifying.math.evaluate import is_proportional
from rlsp_async.verifying.math.parse import UnreadableExpression, parse_expression
from rlsp_async.verifying.math.scalars import constant_value, exact_value, is_near
from rlsp_async.verifying.math.words import normalize_phrase, unwrap_text

if TYPE_CHECKING:
    from rlsp_async.verifying.math.shapes import AnswerShape

Compare = Callable[["AnswerShape", "AnswerShape"], bool | None]
_OPERATOR = re.compile(
    r"\\(?:lim|sum|prod|int|iint|oint|max|min|sup|inf|det|gcd|lcm|deg|dim|arg|Re|Im|angle|triangle|vec|overline|bar|hat|tilde"
    r"|mathbb|mathcal|lfloor|lceil|overrightarrow|binom|Pr|operatorname|frac\s?\{\s?(?:d|\\partial)[^{}]{0,9}\}\s?\{\s?(?:d|\\partial))"
)
_LETTER_NAME = re.compile(
    r"\s?\|?\s?(?:\\[A-Za-z]+|[A-Za-z])[A-Za-z\\ ]*['*]*(?:[_^]?(?:\{\}|[(\[][)\]]|\w|\\?[A-Za-z*+]|\s|'))*\s?\|?\s?"
)


def is_name(text: str) -> bool:
    """Whether a value may be assigned to this: x, y_1, f(x), P(X=2), |AB|, [ABC], Area, \\angle ABC, (x, y), 3:4."""
    text = text.strip()
    bare = unwrap_text(text)
    if re.fullmatch(r"[\[(|]\s?[A-Za-z]+\s?[\])|]", bare):
        return True
    if re.fullmatch(r"\(\s?[A-Za-z]\w*(?:_\{?\w+\}?)?(?:\s?,\s?[A-Za-z]\w*(?:_\{?\w+\}?)?)*\s?\)", bare):
        return True
    if ":" in bare:
        return all(is_name(part) for part in bare.split(":"))
    if _OPERATOR.match(bare):
        return True
    skeleton = drop_brackets(re.sub(r"_(?:\{[^{}]*\}|\w)", "", bare))
    skeleton = re.sub(r"\^\s?\{\}(?=\s?[(\[])|\^\{?\s?[*+]\s?\}?", "", skeleton)
    if re.search(r"[\d+*/^=<>-]|\\(?:frac|sqrt|cdot|pm)", skeleton):
        return re.fullmatch(r"m\s?\\angle.*|[A-Za-z ]{4,40}\d?", skeleton) is not None
    return bool(_LETTER_NAME.fullmatch(skeleton)) or bool(re.fullmatch(r"[A-Za-z%#() ]{2,60}", skeleton))


def compare_with_equation(
    equation: AnswerShape, other: AnswerShape, compare: Compare, gold_is_equation: bool
) -> bool | None:
    """Compares an equation with an answer that is not one: the value behind the name, or a constant side of a chain."""
    sides, signs = equation.parts, equation.text.split(" ")
    constants = [side for side in sides if _is_constant(side)]
    if not _agree(sides, signs):
        return False
    values = _values(equation, constants, gold_is_equation)
    answers = [compare(value, other) if gold_is_equation else compare(other, value) for value in values]
    return True if True in answers else None if None in answers else False


def _values(equation: AnswerShape, constants: list[AnswerShape], gold_is_equation: bool) -> list[AnswerShape]:
    """The sides of an equation that may be meant as its value."""
    first, last = equation.parts[0], equation.parts[-1]
    named = first.kind != "scalar" or is_name(first.text)
    if len(constants) == len(equation.parts):
        return constants
    if constants and (named or len(equation.parts) > 2):
        return constants
    if constants and last is constants[-1] and not gold_is_equation:
        return [] if _is_unsolved(first.text) or exact_value(last) == 0 else [last]
    if named and not constants:
        return [last]
    if constants and is_name(last.text) and first is constants[0]:
        return [first]
    return [last] if named else []


def _is_unsolved(left: str) -> bool:
    """Whether an equation with this left side states a value of its one variable only indirectly: `2x = 6`."""
    if re.fullmatch(r"[A-Za-z]\s?\^\s?\{?\d\}?", left.strip()):
        return False  # the value of a square, "R^2 = 7"
    names = set(re.findall(r"(?<![\\A-Za-z])[a-zA-Z](?![A-Za-z])", left))
    return len(names) == 1 and bool(re.search(r"\d", left)) and "(" not in left and "\\" not in left


def _agree(sides: tuple[AnswerShape, ...], signs: list[str]) -> bool:
    """Whether the constant sides of a chain have the same value, or nearly so behind an approximate sign."""
    known: AnswerShape | None = None
    for at, side in enumerate(sides):
        if not _is_constant(side):
            continue
        if known is not None and not _same_constants(known, side, "\\approx" in signs[:at]):
            return False
        known = known or side
    return True


def _same_constants(left: AnswerShape, right: AnswerShape, is_approximate: bool) -> bool:
    a, b = exact_value(left), exact_value(right)
    if a is None or b is None:
        return True
    values = {a, a / 100 if _is_percent(left) else a}, {b, b / 100 if _is_percent(right) else b}
    if any(abs(x - y) <= abs(x) / 10**30 for x in values[0] for y in values[1]):
        return True
    for first, second in ((left, right), (right, left)):
        literal = second.literal
        if literal is None or (literal.places == 0 and not is_approximate):
            continue
        exact = exact_value(first)
        if exact is not None and literal.places >= 2 and abs(exact - literal.value) * 10**literal.places < 1:
            return True
        if is_approximate and is_near(str(exact), literal):
            return True
    return False


def _is_percent(shape: AnswerShape) -> bool:
    return shape.literal is not None and shape.literal.unit.percent


def _is_constant(shape: AnswerShape) -> bool:
    if shape.kind != "scalar":
        return False
    return shape.literal is not None or (shape.text not in ("e", "i") and constant_value(shape.text) is not None)


# --- two equations ---------------------------------------------------------------------------------------------------


def compare_equations(gold: AnswerShape, extracted: AnswerShape, compare: Compare) -> bool | None:
    """Compares two equations: the same name and value, the same names in another order, or equal up to a factor."""
    if not (_agree(gold.parts, gold.text.split(" ")) and _agree(extracted.parts, extracted.text.split(" "))):
        return False
    left, left2 = gold.parts[0], extracted.parts[0]
    if _same_names(left, left2):
        values = [side for side in extracted.parts[1:] if _is_constant(side)] or [extracted.parts[-1]]
        golds = [side for side in gold.parts[1:] if _is_constant(side)] or [gold.parts[-1]]
        answers = [compare(value, side) for value in golds for side in values]
        return True if True in answers else None if None in answers else False
    if left.kind == left2.kind == "tuple" and gold.parts[-1].kind == extracted.parts[-1].kind == "tuple":
        return _compare_renamed(gold, extracted, compare)
    if not all(side.kind == "scalar" for side in (*gold.parts, *extracted.parts)):
        return False
    if len(gold.parts) > 2 or len(extracted.parts) > 2:
        return False
    try:
        return is_proportional(_difference(gold), _difference(extracted))
    except UnreadableExpression:
        return False if is_name(left.text) and is_name(left2.text) else None


def _difference(equation: AnswerShape) -> tuple[object, ...]:
    left, right = equation.parts
    return ("-", parse_expression(left.text), parse_expression(right.text))


def _same_names(left: AnswerShape, right: AnswerShape) -> bool:
    """Whether two left sides name the same thing: the same text, y for f(x), or a word for a letter."""
    if left.kind != right.kind:
        return False
    if left.kind == "tuple":
        return [part.text for part in left.parts] == [part.text for part in right.parts]
    names = [normalize_phrase(re.sub(r"\s", "", side.text)).replace("{", "").replace("}", "") for side in (left, right)]
    if names[0] == names[1] and left.text.strip("{} ")[:1].isupper() == right.text.strip("{} ")[:1].isupper():
        return True
    if {left.text.strip(), right.text.strip()} == {"y", "f(x)"}:
        return True
    return sum(bool(re.fullmatch(r"[A-Za-z ]{4,}", side.text.strip())) for side in (left, right)) == 1 and all(
        is_name(side.text) for side in (left, right)
    )


def _compare_renamed(gold: AnswerShape, extracted: AnswerShape, compare: Compare) -> bool | None:
    """Compares `(x, y) = (3, 2)` with `(y, x) = (2, 3)`."""
    names, names2 = ([part.text for part in side.parts[0].parts] for side in (gold, extracted))
    values, values2 = gold.parts[-1].parts, extracted.parts[-1].parts
    if sorted(names) != sorted(names2) or len(set(names)) < len(names) or not len(names) == len(values) == len(values2):
        return False
    moved = tuple(values2[names2.index(name)] for name in names)
    return compare(gold.parts[-1], extracted.parts[-1]._replace(parts=moved))
