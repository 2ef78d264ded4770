"""One spelling for one thing, and the readers of plain numbers and of words. Text only, in linear time.

    normalize_spelling("\\uff11\\uff12") == "12"      normalize_spelling("**$x\\\\,\\\\leqslant 2$**") == "x \\\\le 2"
    read_number("$1,234.50") == Fraction(2469, 2)     read_number("**18** apples") == 18     read_number("3x") is None
    compare_words("(D)", "D) 42") is True             compare_words("\\\\text{4:30 p.m.}", "4:30 PM") is True

Spelling: Unicode signs, sizes, spacing and styles become plain LaTeX. Numbers are read exactly, without a computer
algebra system; a currency sign, a unit in words, a per-cent sign, thousands separators, bold marks, dollar signs and
a final full stop are put aside, so that "50%" is 50; "3 million" is 3000000; fractions are `a/b`, `\\\\frac{a}{b}` and
mixed `2 1/2`. Words are compared without case, blanks, marks and articles.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

_SUPER = {
    chr(code): char
    for code, char in zip(
        (0x2070, 0xB9, 0xB2, 0xB3, *range(0x2074, 0x207A), 0x207A, 0x207B, 0x207F, 0x2071),
        "0123456789+-ni",
        strict=True,
    )
}
_SUB = {chr(0x2080 + digit): str(digit) for digit in range(10)}
_GREEK = {
    chr(code): f"\\{unicodedata.name(chr(code)).rpartition(' ')[2].lower()} "
    for code in (*range(0x3B1, 0x3C2), *range(0x3C3, 0x3CA))
    if code not in (0x3BF, 0x3BB)
}
_GREEK["\u03bb"] = "\\lambda "
_SIGNS = {
    **{chr(code): "-" for code in (0x2212, 0x2010, 0x2011, 0x2012, 0x2013, 0x2014, 0xFE63, 0xFF0D)},
    "\u00d7": "\\cdot ",
    "\u22c5": "\\cdot ",
    "\u00b7": "\\cdot ",
    "\u2217": "*",
    "\u00f7": "/",
    "\u2044": "/",
    "\u2215": "/",
    "\u2264": "\\le ",
    "\u2a7d": "\\le ",
    "\u2265": "\\ge ",
    "\u2a7e": "\\ge ",
    "\u2260": "\\ne ",
    "\u2248": "\\approx ",
    "\u221e": "\\infty ",
    "\u222a": "\\cup ",
    "\u2229": "\\cap ",
    "\u2208": "\\in ",
    "\u2205": "\\{\\}",
    "\u00b1": "\\pm ",
    "\u2213": "\\mp ",
    "\u00b0": "^\\circ ",
    "\u221a": "\\sqrt ",
    "\u211d": "\\mathbb{R}",
    "\u2102": "\\mathbb{C}",
    "\u2124": "\\mathbb{Z}",
    "\u2115": "\\mathbb{N}",
    "\u211a": "\\mathbb{Q}",
    "\u2192": "\\to ",
    "\u2220": "\\angle ",
    "\u2216": "\\setminus ",
    "\u2329": "\\langle ",
    "\u232a": "\\rangle ",
    "\u27e8": "\\langle ",
    "\u27e9": "\\rangle ",
    "\u2018": "'",
    "\u2019": "'",
    "\u201c": '"',
    "\u201d": '"',
    "\u3001": ",",
    "\u3002": ".",
    "\u2032": "'",
    "\u2033": "''",
    "\u3010": "[",
    "\u3011": "]",
    "\u2503": "|",
    "\u221b": "\\sqrt[3]",
    "\u00a0": " ",
    "\u2009": " ",
    "\u202f": " ",
    **{chr(code): "" for code in (0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0x2061, 0x2062, 0x2063, 0xAD)},
    "\u20ac": "$",
    "\u00a3": "$",
    "\u00a5": "$",
    "\u20b9": "$",
}
_TABLE = str.maketrans({**_SIGNS, **_GREEK})
_VULGAR = {
    chr(code): "\\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", chr(code)).split("\u2044"))
    for code in (*range(0xBC, 0xBF), *range(0x2150, 0x215F), 0x2189)
}
_CHARACTERS = re.compile("[" + "".join(_VULGAR) + "]|[" + re.escape("".join(_SUPER)) + "]+|[" + "".join(_SUB) + "]+")
_ROOT = re.compile("\u221a\\s*([0-9.]+|[a-z])")

_SIZES = re.compile(r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|mathstrut|hfill|,?!)(?![a-zA-Z])\.?")
_SPACES = re.compile(
    r"\\(?:[,;:> ]|quad|qquad|enspace|thinspace|hspace\{[^{}]*\}|phantom\{[^{}]*\}|n(?![a-zA-Z]))|~|\s+"
)
_DIGIT_GAP = re.compile(r"(?<=\d)\\[,;:> ](?=\d{3}(?!\d))|(?<=\d)\{,\}\s*(?=\d)|(?<=\d),\\!\s?(?=\d)")
_STYLED = re.compile(
    r"\\(?:mathrm|mathbf|mathit|mathsf|mathtt|textbf|textit|textrm|textsf|texttt|textnormal|mbox|hbox"
    r"|operatorname\*?|emph|underline|bm|boldsymbol|pmb|rm|bf|it)(?![a-zA-Z])\s*"
)
_COMMANDS = (
    (re.compile(r"\\[dtc]frac(?![a-z])"), r"\\frac"),
    (re.compile(r"\\[dt]binom(?![a-z])"), r"\\binom"),
    (re.compile(r"\\(?:leqslant|leqq|leq|le)(?![a-z])\s*|<="), r"\\le "),
    (re.compile(r"\\(?:geqslant|geqq|geq|ge)(?![a-z])\s*|>="), r"\\ge "),
    (re.compile(r"\\(?:neq|ne)(?![a-z])\s*|!="), r"\\ne "),
    (re.compile(r"\\lt(?![a-z])"), "<"),
    (re.compile(r"\\gt(?![a-z])"), ">"),
    (re.compile(r"\\(?:times|cdot|ast)(?![a-z])\s*"), r"\\cdot "),
    (re.compile(r"\\div(?![a-z])"), "/"),
    (re.compile(r"\\lbrace(?![a-z])"), r"\\{"),
    (re.compile(r"\\rbrace(?![a-z])"), r"\\}"),
    (re.compile(r"\\(?:emptyset|varnothing)(?![a-z])"), r"\\{\\}"),
    (re.compile(r"\\(?:lvert|rvert|vert|mid)(?![a-zA-Z])"), "|"),
    (re.compile(r"\\(?:lbrack)(?![a-z])"), "["),
    (re.compile(r"\\(?:rbrack)(?![a-z])"), "]"),
    (re.compile(r"\\var(?=[a-z])"), r"\\"),
    (re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\\degree|\\textdegree"), r"^\\circ "),
    (re.compile(r"\\%|\\percent"), "%"),
    (re.compile(r"\\_"), "_"),
    (re.compile(r"\\#|\\&(?=\s)"), ""),
    (re.compile(r"\\[$]|[$]|\\[()](?!\d*\\)|\\pounds|\\euro"), ""),
    (re.compile(r"\\(?:implies|Rightarrow|Longrightarrow|therefore|iff)(?![a-z])"), " "),
)
_MARKS = re.compile(r"\*\*([^*]{1,400})\*\*|(?<![\w*])__([^_]{1,400})__(?!\w)|`([^`]{1,400})`")
_GROUPS = re.compile(r"[-+]?\d{1,3}(?: \d{3})+(?:\.\d+)?")
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")


def normalize_spelling(text: str) -> str:
    """Rewrites an answer in plain LaTeX. `\\text{...}` stays; `unwrap_text` removes it."""
    text = _ROOT.sub(r"\\sqrt{\1}", text)
    text = unicodedata.normalize("NFKC", _CHARACTERS.sub(_spell_character, text).translate(_TABLE)).translate(_TABLE)
    text = _DIGIT_GAP.sub(lambda gap: "," if "," in gap[0][:2] and gap[0][0] != "\\" else "", text)
    text = _SIZES.sub("", _MARKS.sub(r"\1\2\3", text))
    text = _STYLED.sub(r"\\text", text)
    for pattern, name in _COMMANDS:
        text = pattern.sub(name, text)
    text = re.sub(r"\\\[|(?<!\\)\\\](?!\])", " ", text) if text.strip().startswith("\\[") else text
    text = _SPACES.sub(" ", text.replace("\\\\", "\x00")).replace("\x00", "\\\\")
    text = re.sub(r"\\text\{\s*([A-Za-z]|and|or|\d[\d.,]*)\s*\}", r" \1 ", text)
    text = re.sub(r"\s+", " ", text).strip()
    text = text.replace(" ", "") if _GROUPS.fullmatch(text) else text
    return text.rstrip(".,;:").strip()


def unwrap_text(text: str) -> str:
    """Replaces each `\\text{...}` by the words in it."""
    return re.sub(r"\s+", " ", _TEXT.sub(r" \1 ", text)).strip()


def _spell_character(match: re.Match[str]) -> str:
    extracted = match[0]
    if extracted[0] in _VULGAR:
        return _VULGAR[extracted[0]]
    if extracted[0] in _SUPER:
        return "^{" + "".join(_SUPER[char] for char in extracted) + "}"
    return "_{" + "".join(_SUB[char] for char in extracted) + "}"


# --- numbers ---------------------------------------------------------------------------------------------------------


MAX_NUMBER_CHARS = 200
"""A longer text is not a plain number."""

_INT = r"\d{1,3}(?:,\d{3})+|\d+"
_VALUE = re.compile(
    rf"(?P<sign>[-+])?\s?(?:(?P<whole>{_INT})\s)?(?P<top>{_INT})\s?/\s?(?P<bottom>{_INT})"
    rf"|(?P<sign2>[-+])?\s?(?P<int>{_INT})?(?:\.(?P<decimals>\d*))?"
)
_FRAC = re.compile(r"\\[dt]?frac\s?(?:\{\s?([-+]?\d+)\s?\}\s?\{\s?(\d+)\s?\}|(\d)(\d))")
_DROP = re.compile(
    r"(?<=,)\\!\s?|\\(?:[,;!: ]|left|right|displaystyle|quad)|[~]|\\?\$|[\u20ac\u00a3\u00a5]|US\$|\u00a0"
)
_MARK = re.compile(r"(?<![\w*])(\*{1,2}|_{1,2}|`)([^*_`]+)\1(?![\w*])")
_NUMBER_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf|operatorname)\s?\{([^{}]*)\}")
_UNIT = re.compile(
    r"\s?(?:\\?%|\^?\\circ|\u00b0|per\s?cent)?\s?"
    r"(?:((?:(?:[A-Za-z][A-Za-z.'/-]+|an?(?=\s))\s?){1,5})(?:\^?\{?[23]\}?)?)?\s?"
)
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_MATHS = frozenset(
    {
        "pi",
        "sqrt",
        "log",
        "ln",
        "sin",
        "cos",
        "tan",
        "exp",
        "or",
        "and",
        "to",
        "mod",
        "plus",
        "minus",
        "times",
        "over",
        "squared",
        "cubed",
        "i",
        "e",
        "x",
        "half",
        "halves",
        "third",
        "thirds",
        "quarter",
    }
)


def read_number(text: str) -> Fraction | None:
    """Returns the value of a plain number with an optional unit, or None for anything else."""
    if len(text) > MAX_NUMBER_CHARS:
        return None
    tidy = _FRAC.sub(
        r" \1\3/\2\4", _NUMBER_TEXT.sub(r" \1 ", _MARK.sub(r"\2", _DROP.sub("", text))).replace("{,}", ",")
    )
    tidy = " ".join(tidy.split()).removeprefix("= ").rstrip(".")
    match = _VALUE.match(tidy)
    if match is None:
        return None
    value, scale = _number_value(match), _unit_scale(tidy[match.end() :])
    return None if value is None or scale is None else value * scale


def _number_value(match: re.Match[str]) -> Fraction | None:
    part = match.groupdict()
    sign = -1 if "-" in (part["sign"] or part["sign2"] or "") else 1
    if part["bottom"]:
        bottom = _whole_number(part["bottom"])
        return sign * (_whole_number(part["whole"]) + Fraction(_whole_number(part["top"]), bottom)) if bottom else None
    decimals = part["decimals"] or ""
    if part["int"] is None and not decimals:
        return None
    return sign * (_whole_number(part["int"]) + Fraction(int(decimals or "0"), 10 ** len(decimals)))


def _whole_number(digits: str | None) -> int:
    return int((digits or "0").replace(",", ""))


def _unit_scale(rest: str) -> int | None:
    """The factor in the words after a number ("million"; 1 for a unit); None when the words are not a unit."""
    unit = _UNIT.fullmatch(rest)
    if unit is None:
        return None
    words = (unit[1] or "").casefold().split()
    if _MATHS.intersection(words):
        return None
    return _SCALES.get(words[0], 1) if words else 1


# --- words -----------------------------------------------------------------------------------------------------------


_WORD_MARKS = re.compile(r"\\(?:text|mathrm)(?![a-z])|[{}$*`\"'\\]|\s+")
_ARTICLE = re.compile(r"^(?:the|an?|on|at|in|is|are|option|choice|answer)\s+")
_CHOICE = re.compile(r"(?:option|choice|answer)?\s?\(?([A-Za-z])\)?(?:\s?[).:,-]\s?.*|\s?)", re.IGNORECASE | re.DOTALL)
_LETTER = re.compile(r"\(?([A-Za-z])\)?\.?")
_BLANK = re.compile(r"(?<!\d) | (?!\d)")
_WORDY = re.compile(r"[A-Za-z]{2}")
COUNTS = {
    word: number
    for number, word in enumerate(
        (
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
            "twenty",
        )
    )
}


def compare_words(gold: str, extracted: str) -> bool | None:
    """Whether two texts have the same words, or name the same choice; None when `gold` is not words."""
    gold_phrase, phrase = normalize_phrase(gold), normalize_phrase(extracted)
    if gold_phrase and _BLANK.sub("", gold_phrase) == _BLANK.sub("", phrase):
        return True
    letter = _LETTER.fullmatch(gold_phrase)
    if letter is not None:
        choice = _CHOICE.fullmatch(phrase)
        return choice is not None and choice[1] == letter[1]
    return False if _WORDY.search(gold_phrase) and is_text(gold) else None


def is_text(text: str) -> bool:
    """Whether an answer is words rather than an expression."""
    without = re.sub(r"\\[a-zA-Z]+", " ", text)
    return re.search(r"[A-Za-z]{4}|[A-Za-z] [A-Za-z]{2}|:", without) is not None


def normalize_phrase(text: str) -> str:
    """Makes a phrase comparable: lower case, single blanks, no marks, no leading article, no final full stop."""
    words = " ".join(_WORD_MARKS.sub(" ", text).casefold().split())
    words = re.sub(r"\b([ap])\.\s?m\.?", r"\1m", words).replace(" ,", ",")
    return _ARTICLE.sub("", words).rstrip(".").strip()
