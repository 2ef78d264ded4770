"""The shape of an answer in plain spelling, as a tree of `Shape`. Text work only; values are not looked at.

shape_of("(1, 2]").kind == "interval"    shape_of("x = 3").text == "="    shape_of("1 < x").kind == "interval"
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from rlsp_async.verifying.math.evaluate import proportional, same
from rlsp_async.verifying.math.normalize import same_words
from rlsp_async.verifying.math.parse import Unreadable, read

MAX_DEPTH = 8
MAX_PARTS = 400


class Shape(NamedTuple):
    """`kind`: scalar, list, tuple, set, interval, union, matrix or relation."""

    kind: str
    text: str
    """Of a scalar, all of it; of a tuple or interval, its two brackets; of a relation, its sign."""
    parts: tuple[Shape, ...] = ()


_RELATION = re.compile(r"\\(?:le|ge|ne|in|approx)(?![a-zA-Z])|[=<>]")
_OPENING = ("\\{", "(", "[", "{", "\\langle")
_CLOSING = ("\\}", ")", "]", "}", "\\rangle")
_MATRIX = re.compile(r"\\begin\s?\{([pbBvV]?matrix|array)\}\s?(?:\{[lcr| ]*\})?(.*)\\end\s?\{\1\}", re.DOTALL)
_AND = re.compile(r"\s(?:and|or)\s|\\(?:lor|vee)(?![a-z])")
_UNION = re.compile(r"\\cup(?![a-z])|(?<=[)\]}])\s?[uU]\s?(?=[(\[\\])")
_VARIABLE = re.compile(r"\\?[a-zA-Z]\w?(?:\([a-z]\))?")
_REALS = re.compile(r"\\mathbb\s?\{?R\}?|(?:all )?real numbers?|all reals?|reals?|R", re.IGNORECASE)
_WHOLE = Shape("interval", "()", (Shape("scalar", "-\\infty"), Shape("scalar", "\\infty")))


def shape_of(text: str, depth: int = 0) -> Shape:
    """Raises Unreadable when it is nested too deeply or has too many parts."""
    if depth > MAX_DEPTH:
        raise Unreadable("nested too deeply")
    text = text.strip()
    if _REALS.fullmatch(text):
        return _WHOLE
    if (matrix := _MATRIX.fullmatch(text)) is not None:
        return _matrix(matrix, depth)
    signs = "\\pm" in text or "\\mp" in text
    if signs and not _top(text, re.compile(",")):
        return Shape("list", "", tuple(shape_of(part, depth + 1) for part in _both_signs(text)))
    ands = _parts(_AND, text)
    if len(ands) > 1:
        return _joined(ands, depth)
    commas = _parts(re.compile(r"[,;]"), _number_commas(text))
    if len(commas) > 1 and all(part.strip() for part in commas):
        return Shape("list", "", _shapes(commas, depth))
    unions = _parts(_UNION, text)
    if len(unions) > 1:
        return Shape("union", "", _shapes(unions, depth))
    if relation := _relation(text, depth):
        return relation
    return _bracketed(text, depth) or Shape("scalar", text)


def _shapes(parts: list[str], depth: int) -> tuple[Shape, ...]:
    if len(parts) > MAX_PARTS:
        raise Unreadable(f"more than {MAX_PARTS} parts")
    shapes: list[Shape] = []
    for part in parts:
        shape = shape_of(part, depth + 1)
        shapes += shape.parts if shape.kind == "list" and ("\\pm" in part or "\\mp" in part) else [shape]
    return tuple(shapes)


def _joined(parts: list[str], depth: int) -> Shape:
    """Joined by "and" or "or": intervals make a union, the rest a list; the commas between are of the same kind."""
    pieces = [piece for part in parts for piece in _parts(re.compile(r",(?!\d{3}(?!\d))"), part) if piece.strip()]
    shapes = _shapes(pieces, depth)
    return Shape("union" if all(shape.kind == "interval" for shape in shapes) else "list", "", _unassigned(shapes))


def _unassigned(shapes: tuple[Shape, ...]) -> tuple[Shape, ...]:
    """`x = 1 or x = 2` is the list 1, 2."""
    names = {shape.parts[0].text for shape in shapes if shape.kind == "relation" and shape.text == "="}
    if len(names) == 1 and all(shape.kind == "scalar" or len(shape.parts) == 2 for shape in shapes):
        return tuple(shape.parts[1] if shape.kind == "relation" else shape for shape in shapes)
    return shapes


def _both_signs(text: str) -> tuple[str, str]:
    plus = re.sub(r"\\pm(?![a-z])", "+", re.sub(r"\\mp(?![a-z])", "-", text))
    minus = re.sub(r"\\pm(?![a-z])", "-", re.sub(r"\\mp(?![a-z])", "+", text))
    return plus, minus


def _number_commas(text: str) -> str:
    """Without the thousands marks of a text that is one number."""
    bare = re.fullmatch(r"[-+]?\s?\d{1,3}(?:,\d{3})+(?:\.\d+)?.{0,60}", text)
    return re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text) if bare and ", " not in text else text


def _matrix(match: re.Match[str], depth: int) -> Shape:
    rows = [row for row in match[2].replace("\\hline", "").split("\\\\") if row.strip()]
    if "\\begin" in match[2] or len(rows) > MAX_PARTS:
        raise Unreadable("a matrix within a matrix")
    shapes = tuple(Shape("tuple", "()", _shapes(row.split("&"), depth)) for row in rows)
    return Shape("matrix", "determinant" if match[1][0] in "vV" else "", shapes)


# --- brackets ------------------------------------------------------------------------------------------------------


def _bracketed(text: str, depth: int) -> Shape | None:
    opening = next((token for token in _OPENING if text.startswith(token)), "")
    closing = next((token for token in _CLOSING if text.endswith(token)), "")
    if not opening or not closing or not _is_one_bracket(text):
        return None
    inner = text[len(opening) : len(text) - len(closing)].strip()
    parts = _parts(re.compile(r"[,;]"), inner)
    if opening == "\\{" and closing == "\\}":
        return _set(inner, parts, depth)
    if len(parts) == 1:
        if opening + closing in ("()", "{}", "[]") and inner:
            shape = shape_of(inner, depth + 1)
            return shape if shape.kind != "scalar" else None
        return None
    if opening == "{":
        return _set(inner, parts, depth)
    shapes, brackets = _shapes(parts, depth), opening + closing
    if brackets in ("(]", "[)") or (brackets in ("()", "[]") and len(parts) == 2 and "\\infty" in inner):
        return Shape("interval", brackets, shapes) if len(parts) == 2 else None
    if all(shape.kind == "tuple" for shape in shapes) and brackets == "[]":
        return Shape("matrix", "", tuple(row._replace(text="()") for row in shapes))
    return Shape("tuple", "()" if brackets == "\\langle\\rangle" else brackets, shapes)


def _set(inner: str, parts: list[str], depth: int) -> Shape:
    if not inner:
        return Shape("set", "")
    rule = re.fullmatch(r"\s?\w\s?(?:\\in\s?\\mathbb\s?\{?R\}?\s?)?(?:\||:)\s?(.*)", inner)
    return shape_of(rule[1], depth + 1) if rule else Shape("set", "", _shapes(parts, depth))


def _is_one_bracket(text: str) -> bool:
    """Whether the first bracket closes at the very end."""
    depth = 0
    for at, step in _steps(text):
        depth += step
        if depth == 0:
            return at >= len(text)
    return False


def _steps(text: str) -> list[tuple[int, int]]:
    """(position after it, +1 or -1) of every bracket."""
    found = []
    for match in re.finditer(r"\\[{}]|\\langle|\\rangle|[()\[\]{}]", text):
        found.append((match.end(), 1 if match[0] in _OPENING else -1))
    return found


def _parts(pattern: re.Pattern[str], text: str) -> list[str]:
    """The text split where `pattern` stands outside all brackets."""
    parts, start = [], 0
    for match in _top(text, pattern):
        parts.append(text[start : match.start()])
        start = match.end()
    return [*parts, text[start:]]


def _top(text: str, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    steps, depth, found = _steps(text), 0, []
    at = 0
    for match in pattern.finditer(text):
        while at < len(steps) and steps[at][0] <= match.start():
            depth += steps[at][1]
            at += 1
        if depth == 0:
            found.append(match)
    return found


# --- relations -----------------------------------------------------------------------------------------------------


def _relation(text: str, depth: int) -> Shape | None:
    signs = _top(text, _RELATION)
    sides = _parts(_RELATION, text)
    if not signs or not all(side.strip() for side in sides[1:]):
        return None
    if not sides[0].strip():
        return shape_of(sides[1], depth + 1) if len(sides) == 2 and signs[0][0] in ("=", "\\approx") else None
    names = [sign[0] for sign in signs]
    if "\\in" in names or set(names) <= {"=", "\\approx"}:
        last = len(sides) - 1
        return Shape(
            "relation",
            "=" if "=" in names else names[0],
            tuple(shape_of(side, depth + 1) for side in (sides[0], *sides[1:last], sides[last])),
        )
    return _inequality(names, [side.strip() for side in sides])


def _inequality(names: list[str], sides: list[str]) -> Shape:
    """As an interval when one variable stands between or beside bounds; turned to "less than" otherwise."""
    if names[0] in (">", "\\ge"):
        names, sides = [{">": "<", "\\ge": "\\le"}.get(name, name) for name in reversed(names)], sides[::-1]
    scalars = [Shape("scalar", side) for side in sides]
    is_less = set(names) <= {"<", "\\le"}
    if is_less and len(sides) == 3 and _VARIABLE.fullmatch(sides[1]):
        brackets = ("(" if names[0] == "<" else "[") + (")" if names[1] == "<" else "]")
        return Shape("interval", brackets, (scalars[0], scalars[2]))
    if is_less and len(sides) == 2 and _VARIABLE.fullmatch(sides[0]) and not _VARIABLE.fullmatch(sides[1]):
        return Shape("interval", "(" + (")" if names[0] == "<" else "]"), (Shape("scalar", "-\\infty"), scalars[1]))
    if is_less and len(sides) == 2 and _VARIABLE.fullmatch(sides[1]) and not _VARIABLE.fullmatch(sides[0]):
        return Shape("interval", ("(" if names[0] == "<" else "[") + ")", (scalars[0], Shape("scalar", "\\infty")))
    if names == ["\\ne"] and _VARIABLE.fullmatch(sides[0]):
        return Shape(
            "union",
            "",
            (
                Shape("interval", "()", (Shape("scalar", "-\\infty"), scalars[1])),
                Shape("interval", "()", (scalars[1], Shape("scalar", "\\infty"))),
            ),
        )
    return Shape("relation", " ".join(names), tuple(scalars))


# --- comparing --------------------------------------------------------------------------------------------------------


MAX_UNORDERED_PARTS = 40
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
    if len(gold) > MAX_UNORDERED_PARTS:
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
