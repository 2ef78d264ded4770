"""The shape of an answer (number, list, tuple, set, interval, matrix, equation, words) and equality shape by shape.

    alike("(-\\\\infty, 2) \\\\cup [3, 4]", "x<2 or 3<=x<=4") is True      alike("1, 2", "2, 1") is True

True or False is a judgement; None means that a part could not be read here (`algebra.py` is asked then). Lists and sets
are equal in any order, tuples, intervals and matrices only in theirs.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from rlsp_async.verifying.math.evaluate import proportional, same
from rlsp_async.verifying.math.parse import Unreadable, read
from rlsp_async.verifying.math.shapes import Shape, shape_of
from rlsp_async.verifying.words import same_words

MAX_PARTS = 40
"""Lists longer than this are compared in order only."""
SEQUENCES = frozenset({"tuple", "list", "set", "matrix"})


def alike(gold: str, found: str, scalars: Callable[[str, str], bool | None]) -> bool | None:
    """Whether two answers in plain spelling are the same. `scalars` compares what has no shape of its own."""
    return _alike(shape_of(gold), shape_of(found), scalars)


def alike_in_order(gold: str, found: str, scalars: Callable[[str, str], bool | None]) -> bool | None:
    """As `alike`, but two lists are equal in one order only; sets, and what a plus-minus sign stands for, have none."""
    if "\\pm" in gold + found or "\\mp" in gold + found:
        return alike(gold, found, scalars)
    one, other = shape_of(gold), shape_of(found)
    if one.kind == other.kind == "list":
        return len(one.parts) == len(other.parts) and _in_order(one.parts, other.parts, scalars)
    return _alike(one, other, scalars)


def _alike(gold: Shape, found: Shape, scalars: Callable[[str, str], bool | None]) -> bool | None:
    if gold.kind == "relation" or found.kind == "relation":
        return _relations(gold, found, scalars)
    if gold.kind == found.kind == "scalar":
        return scalars(gold.text, found.text)
    if "interval" in (gold.kind, found.kind):
        return _intervals(gold, found, scalars)
    if "union" in (gold.kind, found.kind):
        return _any_order(gold.parts, found.parts, scalars) if gold.kind == found.kind else False
    if gold.kind in SEQUENCES and found.kind in SEQUENCES:
        return _sequences(gold, found, scalars)
    return _one_of_one(gold, found, scalars)


def _one_of_one(gold: Shape, found: Shape, scalars: Callable[[str, str], bool | None]) -> bool | None:
    """A single value against a list of one, or (a closed bracket) a product against a tuple."""
    for one, other in ((gold, found), (found, gold)):
        if one.kind in ("set", "list", "tuple") and len(one.parts) == 1 and other.kind == "scalar":
            return _alike(one.parts[0], other, scalars) if one is gold else _alike(other, one.parts[0], scalars)
    return False


def _sequences(gold: Shape, found: Shape, scalars: Callable[[str, str], bool | None]) -> bool | None:
    if len(gold.parts) != len(found.parts):
        return _flattened(gold, found, scalars)
    if {gold.kind, found.kind} <= {"list", "set"}:
        return _any_order(gold.parts, found.parts, scalars)
    if "set" in (gold.kind, found.kind) or (gold.kind == found.kind == "tuple" and gold.text != found.text):
        return False
    answer = _in_order(gold.parts, found.parts, scalars)
    return answer if answer is not False else _flattened(gold, found, scalars)


def _flattened(gold: Shape, found: Shape, scalars: Callable[[str, str], bool | None]) -> bool | None:
    """A column or a row against a tuple."""
    if "matrix" not in (gold.kind, found.kind) or gold.kind == found.kind or "set" in (gold.kind, found.kind):
        return False
    one, other = _vector(gold), _vector(found)
    return len(one) == len(other) and _in_order(one, other, scalars)


def _vector(shape: Shape) -> tuple[Shape, ...]:
    if shape.kind == "matrix" and all(len(row.parts) == 1 for row in shape.parts):
        return tuple(row.parts[0] for row in shape.parts)
    if shape.kind == "matrix" and len(shape.parts) == 1:
        return shape.parts[0].parts
    return shape.parts


def _in_order(
    gold: tuple[Shape, ...], found: tuple[Shape, ...], scalars: Callable[[str, str], bool | None]
) -> bool | None:
    answers = [_alike(one, other, scalars) for one, other in zip(gold, found, strict=True)]
    return False if False in answers else None if None in answers else True


def _any_order(
    gold: tuple[Shape, ...], found: tuple[Shape, ...], scalars: Callable[[str, str], bool | None]
) -> bool | None:
    if len(gold) != len(found):
        return False
    if len(gold) > MAX_PARTS:
        return _in_order(gold, found, scalars)
    left, unsure = list(found), False
    for one in gold:
        answers = [_alike(one, other, scalars) for other in left]
        if True in answers:
            left.pop(answers.index(True))
        elif None in answers:
            unsure = True
        else:
            return False
    return None if unsure else True


def _intervals(gold: Shape, found: Shape, scalars: Callable[[str, str], bool | None]) -> bool | None:
    """An interval is also the pair in the same brackets: `(1, 2)` may be either."""
    if gold.kind == found.kind:
        return gold.text == found.text and _in_order(gold.parts, found.parts, scalars)
    for one, other in ((gold, found), (found, gold)):
        if one.kind == "interval" and other.kind in ("tuple", "list") and one.text in ("()", "[]"):
            return (
                (other.kind == "list" or other.text == one.text)
                and len(other.parts) == 2
                and _in_order(gold.parts, found.parts, scalars)
            )
    return False


# --- equations -----------------------------------------------------------------------------------------------------


def _relations(gold: Shape, found: Shape, scalars: Callable[[str, str], bool | None]) -> bool | None:
    if gold.kind == found.kind:
        if gold.text == found.text == "=":
            return _equations(gold, found, scalars)
        return gold.text == found.text and _in_order(gold.parts, found.parts, scalars)
    relation, other = (gold, found) if gold.kind == "relation" else (found, gold)
    if relation.text not in ("=", "\\approx", "\\in"):
        return False
    value = relation.parts[-1]
    if len(relation.parts) > 2 or _is_name(relation.parts[0]) or _is_constant(relation.parts[0]):
        return _alike(value, other, scalars) if relation is gold else _alike(other, value, scalars)
    return False


def _equations(gold: Shape, found: Shape, scalars: Callable[[str, str], bool | None]) -> bool | None:
    (left, right), (left2, right2) = _sides(gold), _sides(found)
    if left.text == left2.text or (_is_name(left) and _is_name(left2) and len(left.text) > 1 and len(left2.text) > 1):
        return _alike(right, right2, scalars)
    if not all(side.kind == "scalar" for side in (left, right, left2, right2)):
        return False
    try:
        return proportional(("-", read(left.text), read(right.text)), ("-", read(left2.text), read(right2.text)))
    except Unreadable:
        return None


def _sides(relation: Shape) -> tuple[Shape, Shape]:
    return relation.parts[0], relation.parts[-1]


def _is_name(shape: Shape) -> bool:
    """Something that an answer may be assigned to: x, y_1, f(x), \\theta, Area, \\angle ABC."""
    return shape.kind in ("scalar", "tuple") and bool(_NAME.fullmatch(shape.text)) and shape.text not in ("e", "i")


def _is_constant(shape: Shape) -> bool:
    return shape.kind == "scalar" and not re.search(r"(?<![\\A-Za-z])[a-zA-Z](?![A-Za-z])", shape.text)


_NAME = re.compile(
    r"\\?[A-Za-z][A-Za-z ]{0,30}'*(?:_(?:\{\w+\}|\w+))?\s?(?:\(\s?[\w, \\]{1,20}\s?\))?"
    r"|\([A-Za-z], ?[A-Za-z](?:, ?[A-Za-z])?\)"
)


def scalar_values(gold: str, found: str) -> bool | None:
    """Equality of two texts without shape: expressions, else words."""
    try:
        if same(read(gold), read(found)):
            return True
        return _other_readings(gold, found)
    except Unreadable:
        return same_words(gold, found)


def _other_readings(gold: str, found: str) -> bool:
    """`5e-2` may be 5e - 2."""
    if re.search(r"\de[-+]?\d", gold + " " + found):
        return same(read(gold, scientific=False), read(found, scientific=False))
    return False
