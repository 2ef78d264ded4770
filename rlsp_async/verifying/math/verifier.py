"""Verifier of mathematical answers: find the answer's span, compare numbers exactly, then shapes, then by algebra.

    score("...", "... so \\boxed{1,234}", "1234").status == "correct"

Order: equal as tidy text; both plain numbers (`number.py`; units, currency and per-cent signs are put aside); equal
shape by shape (`form.py`: lists, tuples, sets, intervals, matrices, equations, expressions, words); and for what is not
read there, math-verify (`algebra.py`). An answer that could explode in a parser is unparsable, with the reason.
Parts: "correct" and "format" (1: an answer was found). What one can argue about is an option (`MathConfig`).
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Literal

from rlsp_async.config import Section
from rlsp_async.errors import DataError
from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import judged, unparsable
from rlsp_async.verifying.extract import Place, find_answer, strip_box
from rlsp_async.verifying.math.computer_algebra import MAX_CHARS, equal, refusal
from rlsp_async.verifying.math.normalize import COUNTS, bare_words, flat, is_text, plain, read_number, same_words
from rlsp_async.verifying.math.parse import Unreadable
from rlsp_async.verifying.math.shapes import alike, alike_in_order, scalar_values, shape_of

_NOISE = re.compile(r"\\(?:left|right|displaystyle|[,;!: ])|\$|(?<!\w)\s+|\s+(?!\w)|\\text\s?\{([^{}]*)\}")
_SAYINGS = frozenset({"yes", "no", "true", "false", "odd", "even", "dne", "none"})
_UNIT = re.compile(r"(?<=[\w})\]|%])\s*\\text\s?\{\s*(?!and\b|or\b)[A-Za-z][^{}]*\}\s*(?:\^\s?\{?[23]\}?)?$")
_UNIT_WORDS = re.compile(
    r"(?<=[\d})\]i])\s*(?:(?:\s|(?<=\d))(?!and\b|or\b|pi\b|sqrt\b|if\b|mod\b)[A-Za-z]{2,}\.?(?:/[a-z]+)?)+(?:\s?\^\s?\{?[23]\}?)?$"
)


class MathConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one can argue about."""

    extract: tuple[Place, ...] = ("answer_tag", "boxed", "hashes", "sentence", "expression", "last")
    """Where the answer may stand, the first place that there is wins; name fewer, or in another order."""
    percent: Literal["either", "literal"] = "either"
    """A per-cent sign on one side only. either: 50% is 50 and 0.5; literal: it is 0.5."""
    ordered: bool = False
    """A list, as 1, 2, is right in the order of the reference answer only. A set in braces has no order."""

    def __post_init__(self) -> None:
        if not self.extract or len(set(self.extract)) < len(self.extract):
            raise ValueError("extract must name at least one place, none of them twice")


Config = MathConfig


class MathVerifier:
    """A verifier with its options."""

    def __init__(self, cfg: MathConfig) -> None:
        self._cfg = cfg

    def score(self, prompt: str, response: str, answer: str) -> Verdict:
        """The verdict. Raises DataError when the reference answer cannot be read."""
        gold = strip_box(answer.strip())
        if not gold:
            raise DataError("the reference answer is empty")
        found = find_answer(response, order=self._cfg.extract)
        if found is None:
            return unparsable("no answer found")
        found = strip_box(found)
        if tidy(gold) == tidy(found):
            return judged(True, found)
        if len(found) > MAX_CHARS:
            return unparsable(f"limit: {refusal(found)}")
        same = _same_number(gold, found, self._cfg.percent == "literal")
        if same is None:
            same = _same_shape(gold, found, self._cfg.ordered)
        if same is None and self._cfg.ordered and _is_list(gold):
            return unparsable("a list with a part that cannot be read")  # math-verify minds no order
        return _by_algebra(gold, found) if same is None else judged(same, found)


def load(cfg: MathConfig) -> MathVerifier:
    """The verifier."""
    return MathVerifier(cfg)


def score(prompt: str, response: str, answer: str) -> Verdict:
    """The verdict with every option as it is by default. Raises DataError when the reference answer cannot be read."""
    return _DEFAULT.score(prompt, response, answer)


_DEFAULT = MathVerifier(MathConfig())


def _refusal(text: str) -> str:
    """Bold marks are no exponents, so the spelling is settled first, when the length allows it."""
    return refusal(plain(text) if len(text) <= MAX_CHARS else text)


def tidy(text: str) -> str:
    """Text without idle blanks, sizes, dollar signs and text commands, and without a full stop at the end."""
    return _NOISE.sub(r"\1", text).replace("dfrac", "frac").replace("tfrac", "frac").rstrip(".")


def _same_number(gold: str, found: str, literal: bool) -> bool | None:
    """Both as plain numbers; a per-cent sign on one side only may be read either way, unless it is taken literally.
    None: not both are numbers."""
    one, other = plain(gold), plain(found)
    left, right = _number(one), _number(other)
    if left is None or right is None:
        return None
    signs = _is_percent(one), _is_percent(other)
    if literal and signs[0] != signs[1]:
        return left == 100 * right if signs[0] else right == 100 * left
    if left == right:
        return True
    if signs == (True, False):
        return left == 100 * right
    if signs == (False, True):
        return right == 100 * left
    return None if re.search(r"\de\d|,|_|!", one + other) else False


def _number(text: str) -> Fraction | None:
    count = COUNTS.get(bare_words(text).split(" ")[0]) if text[:1].isalpha() else None
    return Fraction(count) if count is not None else read_number(flat(text))


def _is_percent(text: str) -> bool:
    return "%" in text or bool(re.search(r"per\s?cent", text))


def _same_shape(gold: str, found: str, ordered: bool) -> bool | None:
    compare = alike_in_order if ordered else alike
    one, other = plain(gold), plain(found)
    if ("\\text" in gold or bare_words(gold) in _SAYINGS) and same_words(gold, found):
        return True
    try:
        if is_text(flat(_without_unit(one))):
            return compare(flat(one), flat(other), scalar_values)
        return compare(_without_unit(one), _without_unit(other), scalar_values)
    except Unreadable:
        return None


def _is_list(text: str) -> bool:
    try:
        return shape_of(plain(text)).kind == "list"
    except Unreadable:
        return False


def _without_unit(text: str) -> str:
    """Without words behind a value; a text that is nothing else stays."""
    bare = _UNIT.sub("", text)
    bare = flat(bare)
    return _UNIT_WORDS.sub("", bare) if "\\begin" not in bare else bare


def _by_algebra(gold: str, found: str) -> Verdict:
    if why := _refusal(found):
        return unparsable(f"limit: {why}")
    if why := _refusal(gold):
        raise DataError(f"reference answer {gold[:80]!r} is refused: {why}")
    try:
        same = equal(_bare(gold), _bare(found))
    except ValueError as e:
        if is_text(gold):
            return judged(False, found)
        raise DataError(f"reference answer {gold[:80]!r} cannot be read: {e}") from None
    return unparsable("not a mathematical expression") if same is None else judged(same, found)


def _bare(text: str) -> str:
    """Without the dollar signs or brackets of LaTeX's math mode around it."""
    inner = text.strip().rstrip(".").strip("*").strip()
    for opening, closing in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if inner.startswith(opening) and inner.endswith(closing) and len(inner) > len(opening + closing):
            return inner[len(opening) : -len(closing)].strip()
    return inner
