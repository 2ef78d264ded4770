"""The shape of an answer (number, list, tuple, set, interval, matrix, equation, words), and equality part by part.

    parse_shape("(1, 2]").kind == "interval"      parse_shape("1 < x").kind == "interval"
    parse_shape("x = 3").text == "="
    compare_answers("(-\\\\infty, 2) \\\\cup [3, 4]", "x<2 or 3<=x<=4") is True
    compare_answers("1, 2", "2, 1") is True

Both answers are in plain spelling (`normalize`). A comparison returns True or False when it can decide, and None when a
part could not be read here; `computer_algebra` is asked then. Lists and sets are equal in any order; tuples, intervals
and matrices only in their own.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from rlsp_async.verifying.math.evaluate import is_proportional, is_same_value
from rlsp_async.verifying.math.normalize import compare_words
from rlsp_async.verifying.math.parse import UnreadableExpression, parse_expression

MAX_DEPTH = 8
MAX_PARTS = 400
MAX_UNORDERED_PARTS = 40
"""Longer lists are compared in order only."""
SEQUENCES = frozenset({"tuple", "list", "set", "matrix"})


class AnswerShape(NamedTuple):
    """An answer taken apart. `kind`: scalar, list, tuple, set, interval, union, matrix or relation."""

    kind: str
    text: str
    """The whole text of a scalar; the two brackets of a tuple or interval; the sign of a relation."""
    parts: tuple[AnswerShape, ...] = ()


_RELATION = re.compile(r"\\(?:le|ge|ne|in|approx)(?![a-zA-Z])|[=<>]")
_OPENING = ("\\{", "(", "[", "{", "\\langle")
_CLOSING = ("\\}", ")", "]", "}", "\\rangle")
_MATRIX = re.compile(r"\\begin\s?\{([pbBvV]?matrix|array)\}\s?(?:\{[lcr| ]*\})?(.*)\\end\s?\{\1\}", re.DOTALL)
_AND = re.compile(r"\s(?:and|or)\s|\\(?:lor|vee)(?![a-z])")
_UNION = re.compile(r"\\cup(?![a-z])|(?<=[)\]}])\s?[uU]\s?(?=[(\[\\])")
_VARIABLE = re.compile(r"\\?[a-zA-Z]\w?(?:\([a-z]\))?")
_NAME = re.compile(
    r"\\?[A-Za-z][A-Za-z ]{0,30}'*(?:_(?:\{\w+\}|\w+))?\s?(?:\(\s?[\w, \\]{1,20}\s?\))?"
    r"|\([A-Za-z], ?[A-Za-z](?:, ?[A-Za-z])?\)"
)
"""What an answer may be assigned to."""
_REALS = re.compile(r"\\mathbb\s?\{?R\}?|(?:all )?real numbers?|all reals?|reals?|R", re.IGNORECASE)
_WHOLE = AnswerShape("interval", "()", (AnswerShape("scalar", "-\\infty"), AnswerShape("scalar", "\\infty")))


def parse_shape(text: str, depth: int = 0) -> AnswerShape:
    """Takes an answer in plain spelling apart.

    Args:
        text: the answer, or a part of it.
        depth: how deep the part lies in the answer.

    Raises:
        UnreadableExpression: the answer is nested too deeply or has too many parts.
    """
    if depth > MAX_DEPTH:
        raise UnreadableExpression("nested too deeply")
    text = text.strip()
    if _REALS.fullmatch(text):
        return _WHOLE
    if (matrix := _MATRIX.fullmatch(text)) is not None:
        return _matrix_shape(matrix, depth)
    signs = "\\pm" in text or "\\mp" in text
    if signs and not _match_outside(text, re.compile(",")):
        return AnswerShape("list", "", tuple(parse_shape(part, depth + 1) for part in _expand_signs(text)))
    ands = _split_outside(_AND, text)
    if len(ands) > 1:
        return _joined_shape(ands, depth)
    commas = _split_outside(re.compile(r"[,;]"), _drop_number_commas(text))
    if len(commas) > 1 and all(part.strip() for part in commas):
        return AnswerShape("list", "", _part_shapes(commas, depth))
    unions = _split_outside(_UNION, text)
    if len(unions) > 1:
        return AnswerShape("union", "", _part_shapes(unions, depth))
    if relation := _relation_shape(text, depth):
        return relation
    return _bracket_shape(text, depth) or AnswerShape("scalar", text)


def _part_shapes(parts: list[str], depth: int) -> tuple[AnswerShape, ...]:
    if len(parts) > MAX_PARTS:
        raise UnreadableExpression(f"more than {MAX_PARTS} parts")
    shapes: list[AnswerShape] = []
    for part in parts:
        shape = parse_shape(part, depth + 1)
        shapes += shape.parts if shape.kind == "list" and ("\\pm" in part or "\\mp" in part) else [shape]
    return tuple(shapes)


def _joined_shape(parts: list[str], depth: int) -> AnswerShape:
    """Parts joined by "and" or "or", among which commas mean the same: intervals make a union, anything else a list."""
    pieces = [
        piece for part in parts for piece in _split_outside(re.compile(r",(?!\d{3}(?!\d))"), part) if piece.strip()
    ]
    shapes = _part_shapes(pieces, depth)
    return AnswerShape(
        "union" if all(shape.kind == "interval" for shape in shapes) else "list", "", _drop_variable(shapes)
    )


def _drop_variable(shapes: tuple[AnswerShape, ...]) -> tuple[AnswerShape, ...]:
    """Drops the variable of `x = 1 or x = 2`, which is the list 1, 2."""
    names = {shape.parts[0].text for shape in shapes if shape.kind == "relation" and shape.text == "="}
    if len(names) == 1 and all(shape.kind == "scalar" or len(shape.parts) == 2 for shape in shapes):
        return tuple(shape.parts[1] if shape.kind == "relation" else shape for shape in shapes)
    return shapes


def _expand_signs(text: str) -> tuple[str, str]:
    plus = re.sub(r"\\pm(?![a-z])", "+", re.sub(r"\\mp(?![a-z])", "-", text))
    minus = re.sub(r"\\pm(?![a-z])", "-", re.sub(r"\\mp(?![a-z])", "+", text))
    return plus, minus


def _drop_number_commas(text: str) -> str:
    """Removes the thousands separators of a text that is one number."""
    bare = re.fullmatch(r"[-+]?\s?\d{1,3}(?:,\d{3})+(?:\.\d+)?.{0,60}", text)
    return re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text) if bare and ", " not in text else text


def _matrix_shape(match: re.Match[str], depth: int) -> AnswerShape:
    rows = [row for row in match[2].replace("\\hline", "").split("\\\\") if row.strip()]
    if "\\begin" in match[2] or len(rows) > MAX_PARTS:
        raise UnreadableExpression("a matrix within a matrix")
    shapes = tuple(AnswerShape("tuple", "()", _part_shapes(row.split("&"), depth)) for row in rows)
    return AnswerShape("matrix", "determinant" if match[1][0] in "vV" else "", shapes)


# --- brackets --------------------------------------------------------------------------------------------------------


def _bracket_shape(text: str, depth: int) -> AnswerShape | None:
    opening = next((token for token in _OPENING if text.startswith(token)), "")
    closing = next((token for token in _CLOSING if text.endswith(token)), "")
    if not opening or not closing or not _is_one_bracket(text):
        return None
    inner = text[len(opening) : len(text) - len(closing)].strip()
    parts = _split_outside(re.compile(r"[,;]"), inner)
    if opening == "\\{" and closing == "\\}":
        return _set_shape(inner, parts, depth)
    if len(parts) == 1:
        if opening + closing in ("()", "{}", "[]") and inner:
            shape = parse_shape(inner, depth + 1)
            return shape if shape.kind != "scalar" else None
        return None
    if opening == "{":
        return _set_shape(inner, parts, depth)
    shapes, brackets = _part_shapes(parts, depth), opening + closing
    if brackets in ("(]", "[)") or (brackets in ("()", "[]") and len(parts) == 2 and "\\infty" in inner):
        return AnswerShape("interval", brackets, shapes) if len(parts) == 2 else None
    if all(shape.kind == "tuple" for shape in shapes) and brackets == "[]":
        return AnswerShape("matrix", "", tuple(row._replace(text="()") for row in shapes))
    return AnswerShape("tuple", "()" if brackets == "\\langle\\rangle" else brackets, shapes)


def _set_shape(inner: str, parts: list[str], depth: int) -> AnswerShape:
    if not inner:
        return AnswerShape("set", "")
    rule = re.fullmatch(r"\s?\w\s?(?:\\in\s?\\mathbb\s?\{?R\}?\s?)?(?:\||:)\s?(.*)", inner)
    return parse_shape(rule[1], depth + 1) if rule else AnswerShape("set", "", _part_shapes(parts, depth))


def _is_one_bracket(text: str) -> bool:
    """Whether the first bracket closes at the very end of the text."""
    depth = 0
    for at, step in _bracket_steps(text):
        depth += step
        if depth == 0:
            return at >= len(text)
    return False


def _bracket_steps(text: str) -> list[tuple[int, int]]:
    """For every bracket the position behind it, and +1 when it opens or -1 when it closes."""
    steps = []
    for match in re.finditer(r"\\[{}]|\\langle|\\rangle|[()\[\]{}]", text):
        steps.append((match.end(), 1 if match[0] in _OPENING else -1))
    return steps


def _split_outside(pattern: re.Pattern[str], text: str) -> list[str]:
    """Splits the text where `pattern` matches outside all brackets."""
    parts, start = [], 0
    for match in _match_outside(text, pattern):
        parts.append(text[start : match.start()])
        start = match.end()
    return [*parts, text[start:]]


def _match_outside(text: str, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    steps, depth, matches = _bracket_steps(text), 0, []
    at = 0
    for match in pattern.finditer(text):
        while at < len(steps) and steps[at][0] <= match.start():
            depth += steps[at][1]
            at += 1
        if depth == 0:
            matches.append(match)
    return matches


# --- relations -------------------------------------------------------------------------------------------------------


def _relation_shape(text: str, depth: int) -> AnswerShape | None:
    signs = _match_outside(text, _RELATION)
    sides = _split_outside(_RELATION, text)
    if not signs or not all(side.strip() for side in sides[1:]):
        return None
    if not sides[0].strip():
        return parse_shape(sides[1], depth + 1) if len(sides) == 2 and signs[0][0] in ("=", "\\approx") else None
    names = [sign[0] for sign in signs]
    if "\\in" in names or set(names) <= {"=", "\\approx"}:
        last = len(sides) - 1
        return AnswerShape(
            "relation",
            "=" if "=" in names else names[0],
            tuple(parse_shape(side, depth + 1) for side in (sides[0], *sides[1:last], sides[last])),
        )
    return _inequality_shape(names, [side.strip() for side in sides])


def _inequality_shape(names: list[str], sides: list[str]) -> AnswerShape:
    """An interval when one variable stands between or beside bounds, else the relation, written with "less than"."""
    if names[0] in (">", "\\ge"):
        names, sides = [{">": "<", "\\ge": "\\le"}.get(name, name) for name in reversed(names)], sides[::-1]
    scalars = [AnswerShape("scalar", side) for side in sides]
    is_less = set(names) <= {"<", "\\le"}
    if is_less and len(sides) == 3 and _VARIABLE.fullmatch(sides[1]):
        brackets = ("(" if names[0] == "<" else "[") + (")" if names[1] == "<" else "]")
        return AnswerShape("interval", brackets, (scalars[0], scalars[2]))
    if is_less and len(sides) == 2 and _VARIABLE.fullmatch(sides[0]) and not _VARIABLE.fullmatch(sides[1]):
        return AnswerShape(
            "interval", "(" + (")" if names[0] == "<" else "]"), (AnswerShape("scalar", "-\\infty"), scalars[1])
        )
    if is_less and len(sides) == 2 and _VARIABLE.fullmatch(sides[1]) and not _VARIABLE.fullmatch(sides[0]):
        return AnswerShape(
            "interval", ("(" if names[0] == "<" else "[") + ")", (scalars[0], AnswerShape("scalar", "\\infty"))
        )
    if names == ["\\ne"] and _VARIABLE.fullmatch(sides[0]):
        return AnswerShape(
            "union",
            "",
            (
                AnswerShape("interval", "()", (AnswerShape("scalar", "-\\infty"), scalars[1])),
                AnswerShape("interval", "()", (scalars[1], AnswerShape("scalar", "\\infty"))),
            ),
        )
    return AnswerShape("relation", " ".join(names), tuple(scalars))


# --- comparing -------------------------------------------------------------------------------------------------------


def compare_answers(gold: str, extracted: str) -> bool | None:
    """Compares two answers in plain spelling.

    Args:
        gold: the reference answer.
        extracted: the answer of the response.

    Returns:
        Whether they are equal; None when a part could not be read.

    Raises:
        UnreadableExpression: an answer is nested too deeply or has too many parts.
    """
    return _compare(parse_shape(gold), parse_shape(extracted))


def compare_in_order(gold: str, extracted: str) -> bool | None:
    """As `compare_answers`, but two lists are equal only in the same order.

    Sets have no order, nor do the two values of a plus-minus sign.
    """
    if "\\pm" in gold + extracted or "\\mp" in gold + extracted:
        return compare_answers(gold, extracted)
    gold_shape, extracted_shape = parse_shape(gold), parse_shape(extracted)
    if gold_shape.kind == extracted_shape.kind == "list":
        return len(gold_shape.parts) == len(extracted_shape.parts) and _compare_in_their_order(
            gold_shape.parts, extracted_shape.parts
        )
    return _compare(gold_shape, extracted_shape)


def _compare(gold: AnswerShape, extracted: AnswerShape) -> bool | None:
    if gold.kind == "relation" or extracted.kind == "relation":
        return _compare_relations(gold, extracted)
    if gold.kind == extracted.kind == "scalar":
        return compare_scalars(gold.text, extracted.text)
    if "interval" in (gold.kind, extracted.kind):
        return _compare_intervals(gold, extracted)
    if "union" in (gold.kind, extracted.kind):
        return _compare_in_any_order(gold.parts, extracted.parts) if gold.kind == extracted.kind else False
    if gold.kind in SEQUENCES and extracted.kind in SEQUENCES:
        return _compare_sequences(gold, extracted)
    return _compare_single(gold, extracted)


def _compare_single(gold: AnswerShape, extracted: AnswerShape) -> bool | None:
    """Compares a single value with a list, set or tuple of one part."""
    for first, second in ((gold, extracted), (extracted, gold)):
        if first.kind in ("set", "list", "tuple") and len(first.parts) == 1 and second.kind == "scalar":
            return _compare(first.parts[0], second) if first is gold else _compare(second, first.parts[0])
    return False


def _compare_sequences(gold: AnswerShape, extracted: AnswerShape) -> bool | None:
    if len(gold.parts) != len(extracted.parts):
        return _compare_vectors(gold, extracted)
    if {gold.kind, extracted.kind} <= {"list", "set"}:
        return _compare_in_any_order(gold.parts, extracted.parts)
    if "set" in (gold.kind, extracted.kind) or (gold.kind == extracted.kind == "tuple" and gold.text != extracted.text):
        return False
    answer = _compare_in_their_order(gold.parts, extracted.parts)
    return answer if answer is not False else _compare_vectors(gold, extracted)


def _compare_vectors(gold: AnswerShape, extracted: AnswerShape) -> bool | None:
    """Compares a matrix of one column or one row with a tuple or list."""
    if (
        "matrix" not in (gold.kind, extracted.kind)
        or gold.kind == extracted.kind
        or "set" in (gold.kind, extracted.kind)
    ):
        return False
    gold_parts, parts = _vector_parts(gold), _vector_parts(extracted)
    return len(gold_parts) == len(parts) and _compare_in_their_order(gold_parts, parts)


def _vector_parts(shape: AnswerShape) -> tuple[AnswerShape, ...]:
    if shape.kind == "matrix" and all(len(row.parts) == 1 for row in shape.parts):
        return tuple(row.parts[0] for row in shape.parts)
    if shape.kind == "matrix" and len(shape.parts) == 1:
        return shape.parts[0].parts
    return shape.parts


def _compare_in_their_order(gold: tuple[AnswerShape, ...], extracted: tuple[AnswerShape, ...]) -> bool | None:
    answers = [_compare(gold_part, part) for gold_part, part in zip(gold, extracted, strict=True)]
    return False if False in answers else None if None in answers else True


def _compare_in_any_order(gold: tuple[AnswerShape, ...], extracted: tuple[AnswerShape, ...]) -> bool | None:
    if len(gold) != len(extracted):
        return False
    if len(gold) > MAX_UNORDERED_PARTS:
        return _compare_in_their_order(gold, extracted)
    left, unsure = list(extracted), False
    for gold_part in gold:
        answers = [_compare(gold_part, part) for part in left]
        if True in answers:
            left.pop(answers.index(True))
        elif None in answers:
            unsure = True
        else:
            return False
    return None if unsure else True


def _compare_intervals(gold: AnswerShape, extracted: AnswerShape) -> bool | None:
    """Compares an interval with an interval, or with the pair in the same brackets: `(1, 2)` may be either."""
    if gold.kind == extracted.kind:
        return gold.text == extracted.text and _compare_in_their_order(gold.parts, extracted.parts)
    for first, second in ((gold, extracted), (extracted, gold)):
        if first.kind == "interval" and second.kind in ("tuple", "list") and first.text in ("()", "[]"):
            return (
                (second.kind == "list" or second.text == first.text)
                and len(second.parts) == 2
                and _compare_in_their_order(gold.parts, extracted.parts)
            )
    return False


# --- equations -------------------------------------------------------------------------------------------------------


def _compare_relations(gold: AnswerShape, extracted: AnswerShape) -> bool | None:
    if gold.kind == extracted.kind:
        if gold.text == extracted.text == "=":
            return _compare_equations(gold, extracted)
        return gold.text == extracted.text and _compare_in_their_order(gold.parts, extracted.parts)
    relation, other = (gold, extracted) if gold.kind == "relation" else (extracted, gold)
    if relation.text not in ("=", "\\approx", "\\in"):
        return False
    value = relation.parts[-1]
    if len(relation.parts) > 2 or _is_name(relation.parts[0]) or _is_constant(relation.parts[0]):
        return _compare(value, other) if relation is gold else _compare(other, value)
    return False


def _compare_equations(gold: AnswerShape, extracted: AnswerShape) -> bool | None:
    (left, right), (left2, right2) = _relation_sides(gold), _relation_sides(extracted)
    if left.text == left2.text or (_is_name(left) and _is_name(left2) and len(left.text) > 1 and len(left2.text) > 1):
        return _compare(right, right2)
    if not all(side.kind == "scalar" for side in (left, right, left2, right2)):
        return False
    try:
        return is_proportional(
            ("-", parse_expression(left.text), parse_expression(right.text)),
            ("-", parse_expression(left2.text), parse_expression(right2.text)),
        )
    except UnreadableExpression:
        return None


def _relation_sides(relation: AnswerShape) -> tuple[AnswerShape, AnswerShape]:
    return relation.parts[0], relation.parts[-1]


def _is_name(shape: AnswerShape) -> bool:
    """Whether a value may be assigned to this: x, y_1, f(x), \\theta, Area, \\angle ABC."""
    return shape.kind in ("scalar", "tuple") and bool(_NAME.fullmatch(shape.text)) and shape.text not in ("e", "i")


def _is_constant(shape: AnswerShape) -> bool:
    return shape.kind == "scalar" and not re.search(r"(?<![\\A-Za-z])[a-zA-Z](?![A-Za-z])", shape.text)


def compare_scalars(gold: str, extracted: str) -> bool | None:
    """Compares two texts without shape: as expressions, else as words; None when neither can be decided."""
    try:
        if is_same_value(parse_expression(gold), parse_expression(extracted)):
            return True
        return _compare_other_meaning(gold, extracted)
    except UnreadableExpression:
        return compare_words(gold, extracted)


def _compare_other_meaning(gold: str, extracted: str) -> bool:
    """Compares the other meaning of `5e-2`, which is 5 e - 2."""
    if re.search(r"\de[-+]?\d", gold + " " + extracted):
        return is_same_value(parse_expression(gold, scientific=False), parse_expression(extracted, scientific=False))
    return False
