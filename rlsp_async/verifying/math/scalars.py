"""Two single values: numbers exactly, expressions by their values, words by their letters.

compare_values(read_literal("50\\\\%"), read_literal("0.5"), DEFAULTS) is True
compare_texts("x^2-1", "(x-1)(x+1)", DEFAULTS) is True
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple
from typing import Literal as Choice

from rlsp_async.verifying.math.evaluate import evaluate_expression, find_variables, is_same_value
from rlsp_async.verifying.math.literals import Literal, read_literal
from rlsp_async.verifying.math.parse import Node, TooLarge, UnreadableExpression, parse_expression
from rlsp_async.verifying.math.units import conversion
from rlsp_async.verifying.math.words import compare_words, is_text, read_count

if TYPE_CHECKING:
    from rlsp_async.verifying.math.shapes import AnswerShape

NEAR = Fraction(1, 100)
"""How far, relative to the value, a side behind an approximate sign may be off."""
_SCIENTIFIC = re.compile(r"\d[eE][-+]?\d")
_RATIO = re.compile(r"([^:]+):([^:]+)")


class ScalarRules(NamedTuple):
    """The options that decide about single values."""

    percent: Choice["either", "literal"] = "either"
    places: int = 6
    """From how many decimal places a decimal may stand for a number that no decimal expresses; 0: never."""
    units: Choice["aside", "compare"] = "aside"
    """aside: units of the same kind are converted, a missing one says nothing; compare: both must have one."""


DEFAULTS = ScalarRules()


def compare_scalars(gold: AnswerShape, extracted: AnswerShape, rules: ScalarRules) -> bool | None:
    """Compares two scalars; None when they cannot be read."""
    if gold.literal is not None and extracted.literal is not None:
        if compare_values(gold.literal, extracted.literal, rules):
            return True
        return _compare_other_meaning(gold.text, extracted.text)
    unit = conversion(_unit(gold), _unit(extracted))
    if unit is None or (rules.units == "compare" and bool(_unit(gold).dimension) != bool(_unit(extracted).dimension)):
        return False
    if unit != 1:
        return compare_texts(_value_text(gold), f"({unit})*({_value_text(extracted)})", rules)
    return compare_texts(_value_text(gold), _value_text(extracted), rules)


def compare_values(gold: Literal, extracted: Literal, rules: ScalarRules) -> bool:
    """Compares two numbers that were read completely."""
    factor = conversion(gold.unit, extracted.unit)
    if factor is None or (rules.units == "compare" and bool(gold.unit.dimension) != bool(extracted.unit.dimension)):
        return False
    left, right = gold, extracted._replace(value=extracted.value * factor)
    if rules.percent == "literal" or gold.unit.percent == extracted.unit.percent:
        scale = Fraction(1, 100) if rules.percent == "literal" else Fraction(1)
        return _same_numbers(_scaled(left, scale), _scaled(right, scale), rules.places)
    return _same_numbers(left, right, rules.places) or _same_numbers(
        _scaled(left, Fraction(1, 100)), _scaled(right, Fraction(1, 100)), rules.places
    )


def compare_texts(gold: str, extracted: str, rules: ScalarRules) -> bool | None:
    """Compares two expressions, else two texts of words; None when neither can be decided."""
    words = gold, extracted
    gold, extracted = _spell_ratio(gold), _spell_ratio(extracted)
    try:
        left, right = parse_expression(gold), parse_expression(extracted)
        if is_same_value(left, right, rules.places):
            return True
        if "log" in gold + extracted and is_same_value(_as_base_ten(left), _as_base_ten(right), rules.places):
            return True
        return _compare_other_meaning(gold, extracted)
    except TooLarge:
        raise
    except UnreadableExpression:
        same = _compare_words(*words)
        return False if same is None and ":" in words[0] and ":" in words[1] else same


def is_near(exact: str, decimal: Literal) -> bool | None:
    """Whether a decimal is an approximate value of an expression; None when that has no real value."""
    value = constant_value(exact)
    if value is None:
        return None
    difference = abs(value - decimal.value)
    return bool(difference <= NEAR * abs(value)) or difference < Fraction(1, 10**decimal.places)


def constant_value(text: str) -> Fraction | None:
    """The value of an expression without variables, as a fraction that is exact or has 40 digits; else None."""
    if (literal := read_literal(text)) is not None:
        return literal.value / 100 if literal.unit.percent else literal.value
    try:
        node = parse_expression(_spell_ratio(text))
        value = None if find_variables(node) else evaluate_expression(node)
    except (UnreadableExpression, ZeroDivisionError):
        return None
    if value is None or isinstance(value, Fraction):
        return value
    return Fraction(str(value)) if re.fullmatch(r"-?\d+\.\d*(?:e[-+]?\d{1,3})?", str(value)) else None


def exact_value(shape: AnswerShape) -> Fraction | None:
    """The value of a scalar that is a constant, else None."""
    if shape.kind != "scalar":
        return None
    return shape.literal.value if shape.literal is not None else constant_value(shape.text)


def variables_of(text: str) -> frozenset[str] | None:
    """The variables of an expression; None when it cannot be read."""
    try:
        return find_variables(parse_expression(text))
    except UnreadableExpression:
        return None


def parse_or_none(text: str) -> Node | None:
    """An expression as nested tuples, or None."""
    try:
        return parse_expression(text)
    except UnreadableExpression:
        return None


def _same_numbers(left: Literal, right: Literal, places: int) -> bool:
    if left.value == right.value and not (left.is_cut or right.is_cut):
        return True
    return _stands_for(left, right, places) or _stands_for(right, left, places)


def _stands_for(decimal: Literal, other: Literal, places: int) -> bool:
    """Whether a decimal is the rounded or cut value of a number that no decimal expresses."""
    if not 0 < places <= decimal.places or other.places or terminates(other.value.denominator):
        return False
    return abs(decimal.value - other.value) < Fraction(1, 10**decimal.places)


def terminates(denominator: int) -> bool:
    """Whether a fraction with this denominator has a finite decimal expansion."""
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return denominator == 1


def _scaled(literal: Literal, scale: Fraction) -> Literal:
    """The number with its per-cent sign carried out."""
    if not literal.unit.percent:
        return literal
    places = literal.places + 2 if literal.places and scale != 1 else literal.places
    return literal._replace(value=literal.value * scale, places=places)


def _compare_other_meaning(gold: str, extracted: str) -> bool:
    """Compares the other meaning of `5e-2`, which is 5 e - 2, when only one side has it as a number."""
    if bool(_SCIENTIFIC.search(gold)) == bool(_SCIENTIFIC.search(extracted)):
        return False
    try:
        left, right = (parse_expression(text, scientific=False) for text in (gold, extracted))
        return ("constant", "e") in _leaves(left) and ("constant", "e") in _leaves(right) and is_same_value(left, right)
    except UnreadableExpression:
        return False


def _as_base_ten(node: Node) -> Node:
    """The other meaning of a logarithm without a base: that of base 10."""
    if node[:2] == ("call", "log"):
        return ("call", "log10", _as_base_ten(node[2]))
    return tuple(_as_base_ten(part) if isinstance(part, tuple) else part for part in node)


def _leaves(node: Node) -> set[Node]:
    if node[0] in ("constant", "variable", "number"):
        return {node}
    return set().union(*(_leaves(part) for part in node[1:] if isinstance(part, tuple)))


def _compare_words(gold: str, extracted: str) -> bool | None:
    counts = [read_count(text) for text in (gold, extracted)]
    numbers = [read_literal(text) for text in (gold, extracted)]
    for count, number in ((counts[0], numbers[1]), (counts[1], numbers[0])):
        if count is not None and number is not None:
            return count == number.value
    if numbers[0] is not None and is_text(extracted):
        return False
    return compare_words(gold, extracted)


def _unit(shape: AnswerShape):  # type: ignore[no-untyped-def]
    return shape.literal.unit if shape.literal is not None else shape.unit


def _value_text(shape: AnswerShape) -> str:
    """The value of a scalar without its unit."""
    if shape.literal is None:
        return shape.text
    value = shape.literal.value
    if shape.literal.places and not shape.literal.is_cut:
        whole, decimals = divmod(abs(value) * 10**shape.literal.places, 10**shape.literal.places)
        if decimals.denominator == 1:
            return f"{'-' if value < 0 else ''}{whole}.{int(decimals):0{shape.literal.places}}"
    percent = "/100" if shape.literal.unit.percent else ""
    return f"({value.numerator})/({value.denominator}){percent}" if value.denominator != 1 or percent else str(value)


def _spell_ratio(text: str) -> str:
    ratio = _RATIO.fullmatch(text) if ":" in text else None
    return f"({ratio[1]})/({ratio[2]})" if ratio is not None else text
