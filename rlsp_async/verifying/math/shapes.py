"""The shape of an answer in plain spelling, as a tree of `Shape`. Text work only; values are not looked at.

shape_of("(1, 2]").kind == "interval"    shape_of("x = 3").text == "="    shape_of("1 < x").kind == "interval"
"""

from __future__ import annotations

import re
from typing import NamedTuple

from rlsp_async.verifying.math.parse import Unreadable

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
