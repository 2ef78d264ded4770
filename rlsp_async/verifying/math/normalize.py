"""One spelling for one thing. Text only, in linear time.

    normalize_spelling("\\uff11\\uff12") == "12"      normalize_spelling("**$x\\\\,\\\\leqslant 2$**") == "x \\\\le 2"

Unicode signs, sizes, spacing and styles become plain LaTeX; marks of Markdown and of LaTeX's math mode are removed. A
currency sign is `\\\\$`, whichever it was.
"""

from __future__ import annotations

import re
import unicodedata

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
    **{chr(code): "\\$" for code in (0xA3, 0xA4, 0xA5, 0xE3F, *range(0x20A0, 0x20C1), 0xFFE1, 0xFFE5, 0xFFE6)},
    "\u00a2": " cents",
    "\u03a9": "\\Omega ",
    "\u2126": "\\Omega ",
    "\u2026": "...",
    "\u2243": "\\approx ",
    "\u2245": "\\approx ",
    "\u2261": "\\equiv ",
    "\u21d2": "\\implies ",
    "\u2211": "\\sum ",
    "\u222b": "\\int ",
    "\u2200": "\\forall ",
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
    (re.compile(r"\\(?:lvert|rvert|vert|lVert|rVert|Vert|mid)(?![a-zA-Z])|\\\|"), "|"),
    (re.compile(r"\\(?:lbrack)(?![a-z])"), "["),
    (re.compile(r"\\(?:rbrack)(?![a-z])"), "]"),
    (re.compile(r"\\var(?=[a-z])"), r"\\"),
    (re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\\degree|\\textdegree"), r"^\\circ "),
    (re.compile(r"\\%|\\percent"), "%"),
    (re.compile(r"\\_"), "_"),
    (re.compile(r"\\#|\\&(?=\s)"), ""),
    (re.compile(r"\\[()](?!\d*\\)"), ""),
    (re.compile(r"\\(?:pounds|euro|yen)(?![a-z])\s*"), r"\\$"),
    (re.compile(r"\\(?:implies|Rightarrow|Longrightarrow|iff|Leftrightarrow)(?![a-z])\s*"), r"\\implies "),
    (re.compile(r"\\therefore(?![a-z])"), " "),
    (re.compile(r"\\(?:rightarrow|longrightarrow)(?![a-z])\s*"), r"\\to "),
    (re.compile(r"\\(?:approxeq|simeq|sim|cong|doteq|thickapprox)(?![a-z])\s*"), r"\\approx "),
    (re.compile(r"\\(?:colon|ratio)(?![a-z])\s*"), ":"),
    (re.compile(r"\\coloneqq(?![a-z])|:="), "="),
    (re.compile(r"\\(?:l|c|v)?dots(?![a-z])"), "..."),
)
_PRICE = re.compile(r"(?<!\\)\$(?=\s?[-+]?\s?\.?\d)")
_MARKS = re.compile(
    r"(?<![\w*)}\]])\*\*([^*]{1,400})\*\*(?![\w*({\[\\])|(?<![\w*])__([^_]{1,400})__(?!\w)|`([^`]{1,400})`"
)
_GROUPS = re.compile(r"[-+]?\d{1,3}(?: \d{3})+(?:\.\d+)?")
_PLAIN_TEXT = re.compile(r"\\text\s?\{\s*([A-Za-z]|and|or|[-+]?\s?\d[\d.,]*)\s*\}")
_VALUE_END = re.compile(r"[\d})\]]\s*$")
_DISPLAY = re.compile(r"\\\[|(?<!\\)\\\](?!\])")


def normalize_spelling(text: str) -> str:
    """Rewrites an answer in plain LaTeX. `\\text{...}` stays; `words.unwrap_text` removes it."""
    text = _ROOT.sub(r"\\sqrt{\1}", text)
    text = unicodedata.normalize("NFKC", _CHARACTERS.sub(_spell_character, text).translate(_TABLE)).translate(_TABLE)
    text = _DIGIT_GAP.sub(lambda gap: "," if "," in gap[0][:2] and gap[0][0] != "\\" else "", text)
    text = _SIZES.sub("", _MARKS.sub(r"\1\2\3", text))
    text = _STYLED.sub(r"\\text", text)
    text = _strip_math_mode(text)
    for pattern, name in _COMMANDS:
        text = pattern.sub(name, text)
    text = _DISPLAY.sub(" ", text) if text.strip().startswith("\\[") else text
    text = _SPACES.sub(" ", text.replace("\\\\", "\x00")).replace("\x00", "\\\\")
    text = _PLAIN_TEXT.sub(_unwrap_plain, text)
    text = re.sub(r"\s+", " ", text).strip()
    text = text.replace(" ", "") if _GROUPS.fullmatch(text) else text
    return text if text.endswith("..") else text.rstrip(".,;:").strip()


def _strip_math_mode(text: str) -> str:
    """Removes the dollar signs of math mode; one alone, or `\\$`, is a currency sign."""
    if "$" not in text:
        return text
    num_plain = text.count("$") - text.count("\\$")
    if num_plain == 1 and _PRICE.search(text):
        return _PRICE.sub(r"\\$", text, count=1)
    return re.sub(r"(?<!\\)\$", "", text)


def _unwrap_plain(match: re.Match[str]) -> str:
    """Unwraps a letter, a number, "and" or "or"; a letter behind a value stays, because it may be a unit."""
    is_unit = match[1].isalpha() and len(match[1]) == 1 and _VALUE_END.search(match.string[: match.start()])
    return match[0] if is_unit else f" {match[1]} "


def _spell_character(match: re.Match[str]) -> str:
    extracted = match[0]
    if extracted[0] in _VULGAR:
        return _VULGAR[extracted[0]]
    if extracted[0] in _SUPER:
        return "^{" + "".join(_SUPER[char] for char in extracted) + "}"
    return "_{" + "".join(_SUB[char] for char in extracted) + "}"
