"""Numbers as people write them. A reading consumes the whole text or there is none.

    read_literal("-1{,}234.50").value == Fraction(-2469, 2)       read_literal("1.5e-3").value == Fraction(3, 2000)
    read_literal("2\\\\frac{1}{2}").value == Fraction(5, 2)          read_literal("12.5\\\\%").value == Fraction(25, 2)
    read_literal("18 apples").value == 18                         read_literal("3x") is None

The grammar, on text in plain spelling (`normalize`):

    literal    = [about] [currency] [sign] [currency] magnitude [scale, per cent, unit or nouns, see `units`]
    magnitude  = decimal [power] | power | fraction | [whole] fraction
    decimal    = digits with one consistent grouping, decimals, a repeating part (bar, brackets or dots)
    power      = e3, E-3, x 10^3, \\\\times 10^{3}, \\\\cdot 10^3, * 10**3
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from rlsp_async.verifying.math.parse import TooLarge
from rlsp_async.verifying.math.units import Unit, is_ordinal_ending, read_unit

MAX_CHARS = 200
"""A longer text is not read as a number."""
MAX_EXPONENT = 400
"""A larger power of ten is not computed."""


class Literal(NamedTuple):
    """A number that was read completely."""

    value: Fraction
    unit: Unit = Unit()
    places: int = 0
    """Number of decimal places as written; 0 for a whole number, a fraction or a repeating decimal."""
    is_cut: bool = False
    """Whether dots say that more decimals follow which are not known (`1.414...`)."""


_GROUPED = r"\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d{1,3}(?:'\d{3})+|\d{1,3}(?:\\?_\d{3})+|\d{1,2}(?:,\d{2})+,\d{3}"
_DOTTED = r"\d{1,3}(?:\.\d{3}){2,}(?:,\d+)?|\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?: \d{3})+,(?:\d{4,}|\d{1,2}(?!\d))"
_WHOLE = rf"(?:{_GROUPED}|\d+)"
_DECIMAL = re.compile(
    rf"(?P<dotted>{_DOTTED})(?![\d.,]|\s?\d)"
    rf"|(?P<whole>{_WHOLE})?(?:\.(?P<decimals>\d+)?)?"
    r"(?:\\(?:overline|bar|dot)\s?\{?(?P<bar>\d{1,40})\}?|\((?P<round>\d{1,40})\)"
    r"|\s?(?P<dots>\.{2,3}|\\(?:l|c)?dots|\u2026)\s?)?"
)
_POWER = re.compile(
    r"\s?(?:\\cdot|\\times|\*|x(?=\s?10\s?(?:\^|\*\*)))\s?10\s?(?:\^|\*\*)\s?(?:\{\s?([-+]?\s?\d+)\s?\}|\(\s?([-+]?\d+)\s?\)|([-+]?\d+))"
    r"|(?:\\text\s?\{\s?[eE]\s?\}|[eE])(?:\{\s?([-+]?\d+)\s?\}|([-+]?\d+))(?![\d.]*[A-Za-z(^_]|[.\d])"
)
_TEN = re.compile(r"10\s?(?:\^|\*\*)\s?(?:\{\s?([-+]?\s?\d+)\s?\}|\(\s?([-+]?\d+)\s?\)|([-+]?\d+))(?![\d.])")
_FRACTION = re.compile(
    rf"(?:(?P<mixed>{_WHOLE})(?=\s|\\))?\s?\\frac\s?(?:\{{\s?(?P<topsign>[-+])?\s?(?P<top>{_WHOLE})\s?\}}|(?P<top1>\d))\s?"
    rf"(?:\{{\s?(?P<bottomsign>[-+])?\s?(?P<bottom>{_WHOLE})\s?\}}|(?P<bottom1>\d))"
    rf"|(?:(?P<mixed2>\d+)\s)?(?P<top2>{_WHOLE})\s?/\s?(?P<bottom2>{_WHOLE})(?!\s?[\d/.:])"
)
_CURRENCY = r"(?:US|CA|AU|HK)?\\?\$|USD|EUR|GBP|CNY|RMB|INR|Rs\.?(?=\s?\d)"
_LEAD = re.compile(
    rf"(?:(?:\\approx|about|approximately|roughly|around|approx\.?|exactly|\\text\s?\{{\s?(?:about|approximately|approx\.?)\s?\}})\s?)?"
    rf"(?P<money>{_CURRENCY})?\s?(?P<sign>[-+]|minus\s|negative\s)?\s?(?P<money2>{_CURRENCY})?\s?",
    re.IGNORECASE,
)
_THOUSANDS = re.compile(r"\s?[kK](?=$|\s|\\text)")
_MONEY = Unit((("money", 1),))
_COMMA = re.compile(r"(?P<sign>[-+]?\s?)(?P<whole>\d+),(?P<decimals>\d+)(?P<rest>(?![\d,.]).*)", re.DOTALL)


def read_literal(text: str) -> Literal | None:
    """Reads a number with an optional unit.

    Args:
        text: an answer in plain spelling.

    Returns:
        The number; None when the text is not completely a number and what may stand beside one.

    Raises:
        TooLarge: the text is a number, and too large to compute.
    """
    if len(text) > MAX_CHARS:
        return None
    lead = _LEAD.match(text)
    assert lead is not None  # every part of it is optional
    body = text[lead.end() :]
    negative = (lead["sign"] or "+").strip().casefold() in ("-", "minus", "negative")
    has_money = bool(lead["money"] or lead["money2"])
    for read in (_read_fraction, _read_power_of_ten, _read_decimal):
        found = read(body)
        if found is None:
            continue
        number, rest = found
        literal = _with_unit(number, rest, has_money, body)
        if literal is not None:
            return literal._replace(value=-literal.value if negative else literal.value)
    return None


def read_decimal_comma(text: str) -> Literal | None:
    """Reads `2,5` as 2.5: one comma, with no blank behind it, in a text that is a number otherwise.

    Three digits behind the comma are a thousands group, and the text is not read here, unless the number begins with 0.
    """
    match = _COMMA.fullmatch(text)
    if match is None or (len(match["decimals"]) == 3 and match["whole"].lstrip("0") and len(match["whole"]) <= 3):
        return None
    return read_literal(f"{match['sign']}{match['whole']}.{match['decimals']}{match['rest']}")


def _with_unit(number: Literal, rest: str, has_money: bool, body: str) -> Literal | None:
    if has_money and (thousands := _THOUSANDS.match(rest)) is not None:
        number, rest = number._replace(value=number.value * 1000), rest[thousands.end() :]
    elif (thousands := _THOUSANDS.match(rest)) is not None and rest[thousands.end() :].strip():
        unit = read_unit(rest[thousands.end() :])
        if unit is not None and (unit.dimension or "\\text" not in rest) and rest[thousands.end()] in " \\":
            return number._replace(value=number.value * 1000, unit=unit)
    if is_ordinal_ending(rest, body[: len(body) - len(rest)]):
        return number
    unit = read_unit(rest)
    if unit is None:
        return None
    if has_money:
        unit = unit._replace(dimension=_MONEY.dimension, scale=Fraction(1)) if not unit.percent else unit
    return number._replace(value=number.value * unit.factor, unit=unit, is_cut=number.is_cut)


def _read_fraction(body: str) -> tuple[Literal, str] | None:
    match = _FRACTION.match(body)
    if match is None:
        return None
    part = match.groupdict()
    top = _whole(part["top"] or part["top1"] or part["top2"])
    bottom = _whole(part["bottom"] or part["bottom1"] or part["bottom2"])
    mixed = part["mixed"] or part["mixed2"]
    signs = [sign for sign in (part["topsign"], part["bottomsign"]) if sign == "-"]
    if not bottom or (mixed and (signs or top >= bottom)):
        return None
    value = Fraction(top, bottom) + (_whole(mixed) if mixed else 0)
    return Literal(-value if len(signs) == 1 else value), body[match.end() :]


def _read_power_of_ten(body: str) -> tuple[Literal, str] | None:
    match = _TEN.match(body)
    return (Literal(_ten_to(match)), body[match.end() :]) if match is not None else None


def _read_decimal(body: str) -> tuple[Literal, str] | None:
    match = _DECIMAL.match(body)
    if match is None or not (match["dotted"] or match["whole"] or match["decimals"]):
        return None
    number, rest = _decimal_value(match), body[match.end() :]
    if match["dots"]:
        number = _continue_dots(match)
    elif (match["bar"] or match["round"]) and "." not in match[0]:
        return None
    if (power := _POWER.match(rest)) is not None:
        shift = _ten_to(power)
        return number._replace(value=number.value * shift, places=0), rest[power.end() :]
    return number, rest


def _decimal_value(match: re.Match[str]) -> Literal:
    if match["dotted"]:
        whole, _, decimals = re.sub(r"[. ]", "", match["dotted"]).partition(",")
    else:
        whole, decimals = match["whole"] or "0", match["decimals"] or ""
    value = Fraction(_whole(whole)) + Fraction(int(decimals or "0"), 10 ** len(decimals))
    repeating = match["bar"] or match["round"]
    if not repeating:
        return Literal(value, places=len(decimals))
    return Literal(value + Fraction(int(repeating), (10 ** len(repeating) - 1) * 10 ** len(decimals)))


def _continue_dots(match: re.Match[str]) -> Literal:
    """`0.333...` repeats a block that stands there at least twice, and thrice when it is one digit; else it is cut."""
    decimals = match["decimals"] or ""
    for length in range(1, len(decimals) // 2 + 1):
        block = decimals[-length:]
        times = 3 if length == 1 else 2
        start = len(decimals) - length * times
        if start >= 0 and decimals[start:] == block * times:
            while start >= length and decimals[start - length : start] == block:
                start -= length
            lead = decimals[:start]
            value = Fraction(_whole(match["whole"])) + Fraction(int(lead or "0"), 10 ** len(lead))
            return Literal(value + Fraction(int(block), (10**length - 1) * 10 ** len(lead)))
    return _decimal_value(match)._replace(is_cut=True)


def _ten_to(match: re.Match[str]) -> Fraction:
    exponent = next(group for group in match.groups() if group is not None).replace(" ", "")
    if len(exponent) > 5 or abs(int(exponent)) > MAX_EXPONENT:
        raise TooLarge(f"a power of ten beyond {MAX_EXPONENT}")
    return Fraction(10) ** int(exponent)


def _whole(digits: str | None) -> int:
    return int(re.sub(r"\D", "", digits or "0"))
