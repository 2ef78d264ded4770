"""The shape of an answer: number, list, tuple, set, interval, matrix, equation, inequality, congruence or words.

    parse_shape("(1, 2]").kind == "interval"      parse_shape("1 < x").kind == "inequality"
    parse_shape("x = 3").kind == "equation"       parse_shape("12 apples").literal.value == 12

The text is in plain spelling (`normalize`). A text that is a number from end to end is never taken apart. `compare`
compares two shapes.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from rlsp_async.verifying.math.brackets import CLOSING, OPENING, is_one_bracket, match_outside, split_outside
from rlsp_async.verifying.math.literals import Literal, read_decimal_comma, read_literal
from rlsp_async.verifying.math.parse import TooLarge, UnreadableExpression
from rlsp_async.verifying.math.phrases import (
    drop_label,
    read_compound,
    separate_joined_texts,
    spell_relation_words,
    split_conditions,
    split_unit,
)
from rlsp_async.verifying.math.units import Unit
from rlsp_async.verifying.math.words import unwrap_text

MAX_DEPTH = 8
MAX_PARTS = 400
EQUATION_SIGNS = frozenset({"=", "\\approx", "\\to"})


class AnswerShape(NamedTuple):
    """An answer taken apart. `kind`: scalar, list, tuple, set, interval, union, difference, matrix, cases, equation,
    inequality, membership or congruence."""

    kind: str
    text: str
    """The whole text of a scalar; the two brackets of a tuple or interval; the signs of a relation, with blanks; "or"
    for a list whose parts are joined by this word."""
    parts: tuple[AnswerShape, ...] = ()
    literal: Literal | None = None
    """The number, when a scalar is one."""
    unit: Unit = Unit()
    """The unit behind a scalar that is not a number."""
    conditions: str = ""
    """What was said of variables beside the answer ("for all x")."""


_SIGN = re.compile(r"\\(?:le|ge|ne|in|approx|to|equiv)(?![a-zA-Z])|[=<>]")
_ENVIRONMENT = re.compile(
    r"\\begin\s?\{(?P<name>cases|aligned|align\*?|gathered|gather\*?|split|array|eqnarray\*?|[pbBvV]?matrix|smallmatrix)\}"
    r"\s?(?:\[\w\]|\{[lcr|@. ]*\})?(?P<body>.*)\\end\s?\{(?P=name)\}",
    re.DOTALL,
)
_AND = re.compile(
    r"(?:,\s?)?\s(?:and|or|as well as)\s|\\(?:lor|vee)(?![a-z])|(?<=[\d)}\]])\s?(?:and|or)\s?(?=[\d({\[\\-])"
)
_OR = re.compile(r"\sor\s|\\(?:lor|vee)(?![a-z])|(?<=[\d)}\]])\s?or\s?(?=[\d({\[\\-])")
_UNION = re.compile(r"\\cup(?![a-z])|(?<=[)\]}])\s?[uU]\s?(?=[(\[\\])")
_COMMA = re.compile(r"[,;]")
_MODULUS = re.compile(
    r"\s?(?:\(\s?(?:\\(?:mod|bmod|pmod)|\\text\s?\{\s*mod\s*\}|mod)|\\(?:pmod|bmod|mod|pod)(?![a-z])|mod\s)\s?\{?\s?(\w+)\s?\}?\s?\)?$"
)
_REALS = re.compile(r"\\mathbb\s?\{?R\}?|R|(?:the )?(?:set of )?(?:all )?(?:real numbers?|reals?)", re.IGNORECASE)
_SET_RULE = re.compile(r"\s?\\?\w{1,6}\s?(?:\\in\s?\\mathbb\s?\{?R\}?\s?)?(?:\||:)\s?(.*)")
_VARIABLE = re.compile(r"\\?[a-zA-Z]+(?:_\{?\w+\}?)?(?:\([a-z]\))?")
WHOLE_TEXT = re.compile(r"^\\text\s?\{\s*([-+]?[\d.,]*\d)(\s?[^{}\d][^{}]*)\}$")
"""A number and its unit in one text."""
WHOLE_LINE = AnswerShape("interval", "()", (AnswerShape("scalar", "-\\infty"), AnswerShape("scalar", "\\infty")))


def parse_shape(text: str, depth: int = 0) -> AnswerShape:
    """Takes an answer in plain spelling apart.

    Args:
        text: the answer, or a part of it.
        depth: how deep the part lies in the answer.

    Raises:
        UnreadableExpression: the answer is nested too deeply, or is of a kind that is not known.
        TooLarge: the answer has too many parts, or a number is too large to compute.
    """
    if depth > MAX_DEPTH:
        raise UnreadableExpression("nested too deeply")
    text = WHOLE_TEXT.sub(r"\1\\text{\2}", text.strip())
    if (literal := read_literal(text)) is not None:
        return AnswerShape("scalar", text, literal=literal)
    if (compound := read_compound(text)) is not None:
        return AnswerShape("scalar", text, literal=compound)
    if _REALS.fullmatch(unwrap_text(text)) and text != "r":
        return WHOLE_LINE
    if "\\implies" in text:
        return parse_shape(split_outside(re.compile(r"\\implies"), text)[-1] or "0=", depth + 1)
    if (environment := _ENVIRONMENT.fullmatch(text)) is not None:
        return _environment_shape(environment["name"], environment["body"], depth)
    text, conditions = split_conditions(drop_label(text))
    shape = _compound_shape(spell_relation_words(text), depth)
    return shape._replace(conditions=conditions) if conditions else shape


def _compound_shape(text: str, depth: int) -> AnswerShape:
    text = separate_joined_texts(text)
    if (literal := read_literal(text)) is not None:
        return AnswerShape("scalar", text, literal=literal)
    if (congruence := _congruence_shape(text, depth)) is not None:
        return congruence
    if ("\\pm" in text or "\\mp" in text) and not match_outside(_COMMA, text):
        return _signs_shape(text, depth)
    ands = split_outside(_AND, text)
    if len(ands) > 1 and all(part.strip() for part in ands):
        return _joined_shape(ands, "or" if len(ands) == len(split_outside(_OR, text)) else "", depth)
    commas = split_outside(_COMMA, text)
    if len(commas) > 1 and commas[0].strip():
        commas = commas[:-1] if not commas[-1].strip() else commas
        if all(part.strip() for part in commas):
            shape = _list_shape(part_shapes(commas, depth)) if len(commas) > 1 else parse_shape(commas[0], depth + 1)
            number = read_decimal_comma(text)
            return shape if number is None or len(commas) != 2 else shape._replace(literal=number)
    unions = split_outside(_UNION, text)
    if len(unions) > 1:
        return AnswerShape("union", "", part_shapes(unions, depth))
    minus = split_outside(re.compile(r"\\setminus(?![a-z])|\\backslash(?![a-z])"), text)
    if len(minus) == 2:
        return AnswerShape("difference", "", part_shapes(minus, depth))
    if relation := _relation_shape(text, depth):
        return relation
    ratio = split_outside(re.compile(r":"), text)
    if len(ratio) > 2 and all(part.strip() for part in ratio):
        return AnswerShape("ratio", "", part_shapes(ratio, depth))
    return _bracket_shape(text, depth) or _scalar_shape(text)


def part_shapes(parts: list[str], depth: int) -> tuple[AnswerShape, ...]:
    """Takes each part of an answer apart; a part with a plus-minus sign becomes two."""
    if len(parts) > MAX_PARTS:
        raise TooLarge(f"more than {MAX_PARTS} parts")
    shapes: list[AnswerShape] = []
    for part in parts:
        shape = parse_shape(part, depth + 1)
        shapes += shape.parts if shape.kind == "list" and shape.text == "pm" else [shape]
    return tuple(shapes)


def _scalar_shape(text: str) -> AnswerShape:
    value, unit = split_unit(text)
    if value != text and (literal := read_literal(value)) is not None:
        return AnswerShape("scalar", text, literal=literal._replace(unit=unit))
    return AnswerShape("scalar", unwrap_text(value), unit=unit)


def _signs_shape(text: str, depth: int) -> AnswerShape:
    plus = re.sub(r"\\pm(?![a-z])", "+", re.sub(r"\\mp(?![a-z])", "-", text))
    minus = re.sub(r"\\pm(?![a-z])", "-", re.sub(r"\\mp(?![a-z])", "+", text))
    shapes = tuple(parse_shape(part, depth + 1) for part in (plus, minus))
    if all(shape.kind == "equation" for shape in shapes):
        return AnswerShape("list", "pm", drop_common_name(shapes))
    return AnswerShape("list", "pm", shapes)


def _joined_shape(parts: list[str], joint: str, depth: int) -> AnswerShape:
    """Parts joined by "and" or "or", among which commas mean the same; regions make a union."""
    pieces = [piece for part in parts for piece in split_outside(_COMMA, part) if piece.strip()]
    if any(read_literal(part.strip()) is not None for part in parts):
        pieces = [part for part in parts if part.strip()]
        pieces = [
            piece
            for part in pieces
            for piece in ([part] if read_literal(part.strip()) else split_outside(_COMMA, part))
            if piece.strip()
        ]
    shapes = part_shapes(pieces, depth)
    if all(shape.kind in ("interval", "inequality") for shape in shapes):
        kind = "union" if joint == "or" or any(shape.kind == "interval" for shape in shapes) else "intersection"
        return AnswerShape(kind, "", shapes)
    return AnswerShape("list", joint, drop_common_name(shapes))


def _list_shape(shapes: tuple[AnswerShape, ...]) -> AnswerShape:
    """A list; what only says something about the variables of the parts before it is a condition, not a part."""
    last = shapes[-1]
    if last.kind in ("membership", "inequality") and not any(
        s.kind in ("membership", "inequality") for s in shapes[:-1]
    ):
        names = {part.text.strip() for part in last.parts if _VARIABLE.fullmatch(part.text.strip())}
        texts = " ".join(piece.text for shape in shapes[:-1] for piece in (shape, *shape.parts))
        is_used = any(re.search(rf"(?<![A-Za-z]){re.escape(name)}(?![a-z]{{2}})", texts) for name in names)
        if is_used:
            rest = shapes[:-1]
            shape = rest[0] if len(rest) == 1 else AnswerShape("list", "", rest)
            return shape._replace(conditions=f"{last.parts[0].text} {last.text} {last.parts[-1].text}")
    return AnswerShape("list", "", shapes)


def drop_common_name(shapes: tuple[AnswerShape, ...]) -> tuple[AnswerShape, ...]:
    """Drops the variable of `x = 1 or x = 2`, which is the list 1, 2."""
    names = {shape.parts[0].text for shape in shapes if shape.kind == "equation"}
    if len(names) == 1 and all(shape.kind == "scalar" or len(shape.parts) == 2 for shape in shapes):
        return tuple(shape.parts[1] if shape.kind == "equation" else shape for shape in shapes)
    return shapes


# --- environments ----------------------------------------------------------------------------------------------------


def _environment_shape(name: str, body: str, depth: int) -> AnswerShape:
    rows = [row.strip() for row in body.replace("\\hline", "").split("\\\\") if row.strip()]
    if "\\begin" in body or not 0 < len(rows) <= MAX_PARTS:
        raise UnreadableExpression("an environment within another one")
    if name == "matrix" and len(rows) == 1 and "&" not in body:
        return parse_shape(rows[0], depth + 1)
    if "matrix" in name or (name == "array" and "=" not in body):
        shapes = tuple(AnswerShape("tuple", "()", part_shapes(row.split("&"), depth)) for row in rows)
        return AnswerShape("matrix", "determinant" if name[0] in "vV" else "", shapes)
    if name == "cases" and all("&" in row and not re.search(r"&\s?[=<>]", row) for row in rows):
        return AnswerShape("cases", "", tuple(_case_shape(row, depth) for row in rows))
    plain = [row.replace("&", " ").strip().rstrip(",;").strip() for row in rows]
    if len(plain) > 1 and all(re.match(r"=|\\approx(?![a-z])", row) for row in plain[1:]):
        return parse_shape(" ".join(plain), depth + 1)
    return parse_shape(plain[0], depth + 1) if len(plain) == 1 else AnswerShape("list", "", part_shapes(plain, depth))


def _case_shape(row: str, depth: int) -> AnswerShape:
    value, _, condition = row.partition("&")
    condition = re.sub(r"\\text\s?\{\s*(?:if|when|for|where)\s*\}|^\s*(?:if|when|for)\s", " ", condition)
    return AnswerShape("tuple", "()", part_shapes([value.strip().rstrip(",;"), condition.strip().rstrip(",;.")], depth))


# --- brackets --------------------------------------------------------------------------------------------------------


def _bracket_shape(text: str, depth: int) -> AnswerShape | None:
    opening = next((token for token in OPENING if text.startswith(token)), "")
    closing = next((token for token in CLOSING if text.endswith(token)), "")
    if not opening or not closing or not is_one_bracket(text):
        return None
    inner = text[len(opening) : len(text) - len(closing)].strip()
    parts = split_outside(_COMMA, inner)
    brackets = opening + closing
    if brackets == "\\{\\}":
        return _set_shape(inner, parts, depth)
    if len(parts) == 1:
        if brackets in ("()", "{}", "[]") and inner:
            shape = parse_shape(inner, depth + 1)
            return shape if shape.kind != "scalar" or brackets == "{}" or shape.literal else None
        return None
    if brackets in ("{}", "[}", "{]"):
        return _set_shape(inner, parts, depth)
    shapes = part_shapes(parts, depth)
    if brackets in ("(]", "[)") or (brackets in ("()", "[]") and len(parts) == 2 and "\\infty" in inner):
        return AnswerShape("interval", brackets, shapes) if len(parts) == 2 else None
    if all(shape.kind == "tuple" for shape in shapes) and brackets == "[]":
        return AnswerShape("matrix", "", tuple(row._replace(text="()") for row in shapes))
    return AnswerShape("tuple", "()" if brackets == "\\langle\\rangle" else brackets, shapes)


def _set_shape(inner: str, parts: list[str], depth: int) -> AnswerShape:
    if not inner:
        return AnswerShape("set", "")
    rule = _SET_RULE.fullmatch(inner)
    return parse_shape(rule[1], depth + 1) if rule else AnswerShape("set", "", part_shapes(parts, depth))


# --- relations -------------------------------------------------------------------------------------------------------


def _relation_shape(text: str, depth: int) -> AnswerShape | None:
    signs = match_outside(_SIGN, text)
    sides = [side.strip() for side in split_outside(_SIGN, text)]
    if not signs or not all(sides[1:]):
        return None
    names = [sign[0] for sign in signs]
    if not sides[0]:
        if not set(names) <= EQUATION_SIGNS:
            return None
        names, sides = names[1:], sides[1:]
        if not names:
            return parse_shape(sides[0], depth + 1)
    shapes = tuple(parse_shape(side, depth + 1) for side in sides)
    if set(names) <= EQUATION_SIGNS:
        return AnswerShape("equation", " ".join(names), shapes)
    if names == ["\\in"]:
        return AnswerShape("membership", "\\in", shapes)
    if set(names) <= {"<", ">", "\\le", "\\ge", "\\ne", "="}:
        return AnswerShape("inequality", " ".join(names), tuple(AnswerShape("scalar", side) for side in sides))
    return AnswerShape("relation", " ".join(names), shapes)


def _congruence_shape(text: str, depth: int) -> AnswerShape | None:
    """`n \\equiv 1, 3 \\pmod 8`, also without its left side; the parts are left side, residues and modulus."""
    modulus = _MODULUS.search(text)
    if modulus is None:
        return None
    left, sign, right = text[: modulus.start()].rpartition("\\equiv")
    if not sign:
        left, _, right = text[: modulus.start()].rpartition("=")
    residues = part_shapes(split_outside(re.compile(r",|\s(?:and|or)\s"), right.strip()), depth)
    name = AnswerShape("scalar", left.strip())
    return AnswerShape("congruence", "", (name, AnswerShape("set", "", residues), AnswerShape("scalar", modulus[1])))
