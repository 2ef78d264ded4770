"""The words and signs that may stand behind a value: units from a table, per cent, scales, ordinal endings, nouns.

    read_unit("\\\\text{ cm}^2").dimension == (("length", 2),)       read_unit(" apples") == Unit()
    read_unit("xy") is None       read_unit(" is not the answer") is None       read_unit(" million").factor == 1000000

What stands in `\\\\text{...}` may be a unit of one letter (`3\\\\text{ m}`). Bare letters are a unit only when the
table has them with more than one letter and marks them as safe. A bare noun needs a blank in front and at least four
letters, or is one of a list. A word that changes a number ("not", "squared", "half") makes the whole reading fail.
"""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction
from typing import NamedTuple

MAX_CHARS = 120
"""A longer text behind a number is not a unit."""


class Unit(NamedTuple):
    """What stands behind a number."""

    dimension: tuple[tuple[str, int], ...] = ()
    """Base dimensions with their powers; empty when no word is in the table."""
    scale: Fraction = Fraction(1)
    """How many base units one unit is."""
    factor: Fraction = Fraction(1)
    """What the number is multiplied by: 1000000 for "million"."""
    percent: bool = False


_INCH, _POUND = Fraction(254, 10000), Fraction(45359237, 100000)
_TABLE: tuple[tuple[str, Fraction | int, str], ...] = (
    ("length", 1, "m meter meters metre metres"),
    ("length", Fraction(1, 10), "dm decimeter decimeters decimetre decimetres"),
    ("length", Fraction(1, 100), "cm cms centimeter centimeters centimetre centimetres"),
    ("length", Fraction(1, 1000), "mm millimeter millimeters millimetre millimetres"),
    ("length", Fraction(1, 10**6), "micrometer micrometers micron microns"),
    ("length", Fraction(1, 10**9), "nm nanometer nanometers nanometre nanometres"),
    ("length", 1000, "km kms kilometer kilometers kilometre kilometres"),
    ("length", _INCH, "in inch inches"),
    ("length", 12 * _INCH, "ft foot feet"),
    ("length", 36 * _INCH, "yd yds yard yards"),
    ("length", 63360 * _INCH, "mi mile miles"),
    ("mass", 1, "g gm gms gram grams gramme grammes"),
    ("mass", Fraction(1, 1000), "mg milligram milligrams"),
    ("mass", 1000, "kg kgs kilo kilos kilogram kilograms"),
    ("mass", 10**6, "t ton tons tonne tonnes"),
    ("mass", _POUND, "lb lbs pound pounds"),
    ("mass", _POUND / 16, "oz ounce ounces"),
    ("time", 1, "s sec secs second seconds"),
    ("time", Fraction(1, 1000), "ms millisecond milliseconds"),
    ("time", 60, "min mins minute minutes"),
    ("time", 3600, "h hr hrs hour hours"),
    ("time", 86400, "d day days"),
    ("time", 604800, "week weeks"),
    ("month", 1, "month months"),
    ("month", 12, "yr yrs year years"),
    ("volume", 1, "L l liter liters litre litres"),
    ("volume", Fraction(1, 1000), "ml mL milliliter milliliters millilitre millilitres cc"),
    ("gallon", 1, "gal gallon gallons"),
    ("gallon", Fraction(1, 4), "qt quart quarts"),
    ("gallon", Fraction(1, 8), "pint pints"),
    ("gallon", Fraction(1, 16), "cup cups"),
    (
        "money",
        1,
        "$ dollar dollars usd USD euro euros eur EUR gbp GBP yen yuan rmb RMB rupee rupees rs Rs inr INR bucks",
    ),
    ("money", Fraction(1, 100), "cent cents penny pennies pence"),
    ("angle", 1, "\\circ degree degrees deg degs"),
    ("celsius", 1, "\\circC celsius Celsius"),
    ("fahrenheit", 1, "\\circF fahrenheit Fahrenheit"),
    ("kelvin", 1, "K kelvin kelvins"),
    ("radian", 1, "rad rads radian radians"),
    ("force", 1, "N newton newtons"),
    ("force", 1000, "kN"),
    ("energy", 1, "J joule joules"),
    ("energy", 1000, "kJ kilojoule kilojoules"),
    ("power", 1, "W watt watts"),
    ("power", 1000, "kW kilowatt kilowatts"),
    ("work", 1, "kWh kwh"),
    ("pressure", 1, "Pa pascal pascals"),
    ("pressure", 1000, "kPa"),
    ("voltage", 1, "V volt volts"),
    ("current", 1, "A amp amps ampere amperes"),
    ("current", Fraction(1, 1000), "mA"),
    ("resistance", 1, "\\Omega ohm ohms"),
    ("resistance", 1000, "k\\Omega"),
    ("charge", 1, "C coulomb coulombs"),
    ("capacity", 1, "F farad farads"),
    ("frequency", 1, "Hz hertz"),
    ("amount", 1, "mol mole moles"),
    ("flux", 1, "T tesla Wb weber"),
    ("bit", 1, "bit bits"),
    ("bit", 8, "B byte bytes"),
    ("speed", 1, "mph"),
    ("speed_metric", 1, "kmh kph kmph"),
    ("acre", 1, "acre acres"),
    ("hectare", 1, "ha hectare hectares"),
)
_UNITS = {name: (dimension, Fraction(scale)) for dimension, scale, names in _TABLE for name in names.split()}
_BARE = frozenset(name for name in _UNITS if len(name) > 2) | frozenset(
    {"$", "cm", "mm", "km", "kg", "ft", "lb", "oz", "yd", "hr", "ml", "mL", "kJ", "kW", "kN", "Hz", "Rs", "\\circ"}
)
"""Units that are read without `\\text`: those of three letters and more, and these of two."""
_SCALES = {
    **{"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12},
    **{"lakh": 10**5, "lakhs": 10**5, "crore": 10**7, "crores": 10**7, "millions": 10**6, "billions": 10**9},
}
_CJK_SCALES = {
    **{"\u5341": 10, "\u767e": 100, "\u5343": 1000, "\u4e07": 10**4, "\u842c": 10**4, "\u4ebf": 10**8, "\u5104": 10**8},
    **{"\uc2ed": 10, "\ubc31": 100, "\ucc9c": 1000, "\ub9cc": 10**4, "\uc5b5": 10**8},
}
_RAISING = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_RAISED = {"squared": 2, "cubed": 3}
_PERCENT = re.compile(r"\s*(?:%|(?:percent(?:age)?|per\s?cent|pct)(?![a-z])(?:\s?points?)?)")
_CHANGING_WORDS = """
    not no isn is are was were wrong incorrect squared cubed factorial half halves third thirds quarter
    quarters fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths tenth tenths hundredth
    hundredths thousandth thousandths times plus minus over under to or and mod modulo pi sqrt log ln sin cos
    tan exp root roots less fewer below above least most than negative except but either neither between point
    if when unless where because since approximately divided multiplied raised power powers choose twice
    double triple base infinity infty max
"""
_CHANGING_ELSEWHERE = """
    oder und nicht ou et pas y o no ni e non \u0438 \u0438\u043b\u0438 \u043d\u0435 mal fois veces
"""
"""The same in German, French, Spanish, Italian and Russian."""
_CHANGING = frozenset(_CHANGING_WORDS.split()) | frozenset(_CHANGING_ELSEWHERE.split())
_SHORT_NOUNS_WORDS = """
    men man boy dog cat cow hen pig egg pen bag box car bus cup day row job toy pie hat key cap jar can bar
    ant bee pea nut fan tip way set lap run win fly tie ace ads pts kid oak art bed cab fox hay ice jet log
    net oil pan pot rat ray sea tea van zoo all now old in of at
"""
_SHORT_NOUNS = frozenset(_SHORT_NOUNS_WORDS.split())
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{1,8}")
_CJK_CHANGING = re.compile(
    # not, un-, times, half, or, and (3), to (2), minus, digits (11), point (2), "of" (fractions), tenths, discount,
    # above, below, about, more (2); "square" and "cube" without a unit behind
    "[\u4e0d\u975e\u500d\u534a\u6216\u548c\u4e0e\u53ca\u5230\u81f3\u8d1f\u8ca0\u96f6\u4e00\u4e8c\u4e24\u4e09\u56db\u4e94\u516d"
    "\u4e03\u516b\u4e5d\u70b9\u53c8\u4e4b\u6210\u6298\u4e0a\u4e0b\u7ea6\u591a\u4f59\u6ca1\u65e0]"
    "|(?:\u5e73\u65b9|\u7acb\u65b9)$"
)
_TOKEN = re.compile(
    r"\s*(?:((?:\\circ|k?\\Omega)(?![A-Za-z])|\\circ[CF](?![A-Za-z])|[^\W\d_]+(?:[-'][^\W\d_]+)*|\\?\$)\.?"
    r"|\^\s?\{?\s?(-?\s?\d)\s?\}?|(/|\\cdot(?![a-z])|\*|,(?=\s)))\s*"
)
_ORDINAL = re.compile(r"\s?\^?\s?\{?\s?(?:\\text\s?\{)?\s?(st|nd|rd|th)\s?\}?\s?\}?(\s.*)?")
_FRACTION = re.compile(r"\s*\\frac\s?\{([^{}]+)\}\s?\{([^{}]+)\}\s*")
_VOWEL = re.compile(r"[aeiouyAEIOUY]|[^\x00-\x7f]")


def read_unit(rest: str) -> Unit | None:
    """Reads what stands behind a number.

    Args:
        rest: the text behind the number, in plain spelling; it begins with the blank, if there is one.

    Returns:
        The unit; None when the text is not completely known as a unit, a per-cent sign or nouns.
    """
    if not rest.strip():
        return Unit()
    if len(rest) > MAX_CHARS:
        return None
    in_text = "\\text" in rest
    flat = _flatten(rest)
    if _CJK.match(flat.strip()):
        return _read_counter(flat.strip())
    if (sign := _PERCENT.match(flat)) is not None:
        behind = flat[sign.end() :]
        unit = read_unit(behind) if not behind or behind[0] in " ." else None
        return None if unit is None or unit.percent or unit.dimension else unit._replace(percent=True)
    if fraction := _FRACTION.fullmatch(flat):
        flat, in_text = f" {fraction[1]}/{fraction[2]}", True
    return _UnitReader(in_text, in_text or rest[:1] == " ").read(flat)


def is_ordinal_ending(rest: str, digits: str) -> bool:
    """Whether `rest` is the right ordinal ending of a whole number: `12th`, `3^{\\text{rd}}`, `21st place`."""
    match = _ORDINAL.fullmatch(rest) if len(rest) <= MAX_CHARS else None
    if match is None or not digits[-1:].isdigit() or (match[2] and read_unit(match[2]) is None):
        return False
    teen = digits[-2:] in ("11", "12", "13")
    return match[1] == ("th" if teen else {"1": "st", "2": "nd", "3": "rd"}.get(digits[-1], "th"))


def is_changing(words: str) -> bool:
    """Whether a text has a word that changes the value beside it: "not", "squared", "half"."""
    return any(word in _CHANGING for word in re.findall(r"(?<![\\A-Za-z])[a-z]+", words.casefold()))


def conversion(left: Unit, right: Unit) -> Fraction | None:
    """What a number with the unit `right` is multiplied by to compare it with one that has the unit `left`.

    1 when a unit is missing or is only nouns, and when the units do not measure the same but may stand for each other
    in a loose answer (`cm` for `cm^2`); None when they measure different things (metres and hours).
    """
    if left.dimension == right.dimension:
        return right.scale / left.scale
    names = [{name for name, _ in unit.dimension} for unit in (left, right)]
    if names[0] == names[1] and len(names[0]) == 1:
        return Fraction(1) if 1 in (left.dimension[0][1], right.dimension[0][1]) else None
    if len(names[0]) != 1 or len(names[1]) != 1 or not names[0].isdisjoint({"angle"}):
        return Fraction(1)
    return None if names[1].isdisjoint({"angle"}) else Fraction(1)


def _flatten(text: str) -> str:
    """Removes `\\text{...}` and joins a degree sign with its letter."""
    for _ in range(2):
        text = re.sub(r"\\text\s?\{((?:[^{}]|\{[^{}]*\})*)\}", r" \1 ", text)
    text = re.sub(r"\(([A-Za-z ]+)\)", r" \1 ", re.sub(r"\\mu\s*(?=[A-Za-z])", "\u03bc", text))
    text = re.sub(r"\^\s?\\circ\s?|\\circ\s", r" \\circ ", text)
    return re.sub(r"\\circ\s*\{?\s*([CF])(?![A-Za-z])\s*\}?", r"\\circ\1 ", text)


def _read_counter(text: str) -> Unit | None:
    """Counters and scales in Chinese, Japanese and Korean: two characters that mean 10,000 and yuan, say."""
    factor = Fraction(1)
    while text[:1] in _CJK_SCALES:
        factor, text = factor * _CJK_SCALES[text[0]], text[1:]
    if text and (not _CJK.fullmatch(text) or _CJK_CHANGING.search(text) or set(text) & set(_CJK_SCALES) - {"\u5343"}):
        return None
    return Unit(factor=factor)


class _UnitReader:
    """Reads units and nouns word by word. Each word must be known to be harmless."""

    def __init__(self, in_text: bool, may_be_noun: bool) -> None:
        self.in_text, self.may_be_noun = in_text, may_be_noun
        self.dimension: Counter[str] = Counter()
        self.scale = self.factor = Fraction(1)
        self.sign, self.raising, self.num_nouns = 1, 1, 0
        self.last: tuple[str, Fraction] | None = None

    def read(self, text: str) -> Unit | None:
        at = 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                return None
            at = match.end()
            word, power, mark = match.groups()
            if mark is not None:
                self.sign, self.last = (-1 if mark == "/" else self.sign), None
            elif word == "times" and not text[at:].strip():
                self.num_nouns += 1
            elif not (self._raise(int(power.replace(" ", ""))) if power is not None else self._word(word)):
                return None
        if not self.dimension and self.num_nouns == 0 and self.factor == 1:
            return None
        dimension = tuple(sorted((k, v) for k, v in self.dimension.items() if v))
        return Unit(dimension, self.scale if dimension else Fraction(1), self.factor)

    def _raise(self, power: int) -> bool:
        """A power behind the last unit; a noun may only be squared or cubed ("units^2")."""
        if self.last is None:
            return self.num_nouns > 0 and power in (2, 3)
        self._count(*self.last, power - 1)
        self.last = None
        return True

    def _count(self, dimension: str, scale: Fraction, power: int) -> None:
        self.dimension[dimension] += self.sign * power
        self.scale *= scale ** (self.sign * power)

    def _word(self, word: str) -> bool:
        lowered = word.casefold()
        if word in ("per", "a", "an", "each", "every"):
            self.sign, self.last = (-1 if lowered in ("per", "a", "an") else self.sign), None
            return self.may_be_noun
        if lowered in _SCALES and not self.dimension and not self.num_nouns:
            self.factor *= _SCALES[lowered]
            return True
        if lowered in _RAISING and self.may_be_noun:
            self.raising, self.num_nouns = _RAISING[lowered], self.num_nouns + 1
            return True
        if lowered in _RAISED and self.last is not None:
            return self._raise(_RAISED[lowered])
        unit = self._find(word)
        if unit is not None:
            self._count(*unit, self.raising)
            self.last, self.raising = unit, 1
            return True
        self.num_nouns, self.last = self.num_nouns + 1, None
        return self._is_noun(word)

    def _find(self, word: str) -> tuple[str, Fraction] | None:
        word = word.removeprefix("\\") if word.endswith("$") else word
        if word[0] == "\u03bc" and word[1:] in _UNITS:
            dimension, scale = _UNITS[word[1:]]
            return dimension, scale / 10**6
        name = word if word in _UNITS else word.casefold()
        if name not in _UNITS or (len(name) < 3 and name != word):
            return None
        is_safe = self.in_text or name in _BARE or "\\Omega" in name or (self.sign < 0 and self.dimension)
        return _UNITS[name] if is_safe else None

    def _is_noun(self, word: str) -> bool:
        lowered = word.casefold()
        if not self.may_be_noun or lowered in _CHANGING:
            return False
        if (
            lowered in _SHORT_NOUNS
            or ((self.in_text or not word.isascii()) and len(word) > 2)
            or "-" in word
            or "'" in word
        ):
            return True
        return len(word) > 3 and _VOWEL.search(word) is not None
