"""Verifier of mathematical answers: find the answer, compare numbers exactly, then shapes, then by computer algebra.

    score("...", "... so \\boxed{1,234}", "1234").status == "correct"

Two answers are compared in this order, and the first comparison that can decide does: as tidy text; as plain numbers
(units, currency and per-cent signs are put aside); shape by shape (`shapes`: lists, tuples, sets, intervals, matrices,
equations, expressions, words); and, for what cannot be read there, by math-verify (`computer_algebra`). An answer that
could explode in a parser is unparsable, with the reason. Choices on which reasonable people differ are options.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Literal

from rlsp_async.config import Section
from rlsp_async.errors import DataError
from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import make_unparsable, make_verdict
from rlsp_async.verifying.extract import Place, find_answer, strip_box
from rlsp_async.verifying.math.computer_algebra import MAX_CHARS, compare_latex, find_refusal
from rlsp_async.verifying.math.normalize import (
    COUNTS,
    compare_words,
    is_text,
    normalize_phrase,
    normalize_spelling,
    read_number,
    unwrap_text,
)
from rlsp_async.verifying.math.parse import UnreadableExpression
from rlsp_async.verifying.math.shapes import compare_answers, compare_in_order, parse_shape

_NOISE = re.compile(r"\\(?:left|right|displaystyle|[,;!: ])|\$|(?<!\w)\s+|\s+(?!\w)|\\text\s?\{([^{}]*)\}")
_ANSWER_WORDS = frozenset({"yes", "no", "true", "false", "odd", "even", "dne", "none"})
_UNIT = re.compile(r"(?<=[\w})\]|%])\s*\\text\s?\{\s*(?!and\b|or\b)[A-Za-z][^{}]*\}\s*(?:\^\s?\{?[23]\}?)?$")
_UNIT_WORDS = re.compile(
    r"(?<=[\d})\]i])\s*(?:(?:\s|(?<=\d))(?!and\b|or\b|pi\b|sqrt\b|if\b|mod\b)[A-Za-z]{2,}\.?(?:/[a-z]+)?)+(?:\s?\^\s?\{?[23]\}?)?$"
)


class MathConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `math`: choices on which reasonable people differ."""

    extract: tuple[Place, ...] = ("answer_tag", "boxed", "hashes", "sentence", "expression", "last")
    """Places where the answer may stand. The first one that is present counts; name fewer, or in another order."""
    percent: Literal["either", "literal"] = "either"
    """How a per-cent sign on one side only is read. either: 50% equals 50 and 0.5; literal: it equals 0.5."""
    ordered: bool = False
    """Whether a list (1, 2) must have the order of the reference answer. A set in braces never has an order."""

    def __post_init__(self) -> None:
        if not self.extract or len(set(self.extract)) < len(self.extract):
            raise ValueError("extract must name at least one place, none of them twice")


Config = MathConfig


class MathVerifier:
    """The verifier `math`."""

    def __init__(self, cfg: MathConfig) -> None:
        self._cfg = cfg

    def score(self, prompt: str, response: str, answer: str) -> Verdict:
        """Returns the verdict.

        Raises:
            DataError: the reference answer cannot be read.
        """
        gold = strip_box(answer.strip())
        if not gold:
            raise DataError("the reference answer is empty")
        extracted = find_answer(response, order=self._cfg.extract)
        if extracted is None:
            return make_unparsable("no answer found")
        extracted = strip_box(extracted)
        if tidy_text(gold) == tidy_text(extracted):
            return make_verdict(True, extracted)
        if len(extracted) > MAX_CHARS:
            return make_unparsable(f"limit: {find_refusal(extracted)}")
        same = _compare_numbers(gold, extracted, self._cfg.percent == "literal")
        if same is None:
            same = _compare_shapes(gold, extracted, self._cfg.ordered)
        if same is None and self._cfg.ordered and _is_list(gold):
            return make_unparsable("a list with a part that cannot be read")  # math-verify ignores the order
        return _compare_by_algebra(gold, extracted) if same is None else make_verdict(same, extracted)


def load(cfg: MathConfig) -> MathVerifier:
    """Makes the verifier."""
    return MathVerifier(cfg)


def score(prompt: str, response: str, answer: str) -> Verdict:
    """Returns the verdict with the default options.

    Raises:
        DataError: the reference answer cannot be read.
    """
    return _DEFAULT.score(prompt, response, answer)


_DEFAULT = MathVerifier(MathConfig())


def _find_refusal(text: str) -> str:
    """Why math-verify must not read a text, in plain spelling (else bold marks would be taken for powers)."""
    return find_refusal(normalize_spelling(text) if len(text) <= MAX_CHARS else text)


def tidy_text(text: str) -> str:
    """Removes needless blanks, sizes, dollar signs, text commands and a final full stop."""
    return _NOISE.sub(r"\1", text).replace("dfrac", "frac").replace("tfrac", "frac").rstrip(".")


def _compare_numbers(gold: str, extracted: str, literal: bool) -> bool | None:
    """Whether two plain numbers are equal; None when not both are numbers, or one of them may mean something else.

    A per-cent sign on one side only may be read either way, unless it is taken literally.
    """
    plain_gold, plain_extracted = normalize_spelling(gold), normalize_spelling(extracted)
    left, right = _read_count_or_number(plain_gold), _read_count_or_number(plain_extracted)
    if left is None or right is None:
        return None
    signs = _is_percent(plain_gold), _is_percent(plain_extracted)
    if literal and signs[0] != signs[1]:
        return left == 100 * right if signs[0] else right == 100 * left
    if left == right:
        return True
    if signs == (True, False):
        return left == 100 * right
    if signs == (False, True):
        return right == 100 * left
    return None if re.search(r"\de\d|,|_|!", plain_gold + plain_extracted) else False


def _read_count_or_number(text: str) -> Fraction | None:
    count = COUNTS.get(normalize_phrase(text).split(" ")[0]) if text[:1].isalpha() else None
    return Fraction(count) if count is not None else read_number(unwrap_text(text))


def _is_percent(text: str) -> bool:
    return "%" in text or bool(re.search(r"per\s?cent", text))


def _compare_shapes(gold: str, extracted: str, ordered: bool) -> bool | None:
    compare = compare_in_order if ordered else compare_answers
    plain_gold, plain_extracted = normalize_spelling(gold), normalize_spelling(extracted)
    if ("\\text" in gold or normalize_phrase(gold) in _ANSWER_WORDS) and compare_words(gold, extracted):
        return True
    try:
        if is_text(unwrap_text(_without_unit(plain_gold))):
            return compare(unwrap_text(plain_gold), unwrap_text(plain_extracted))
        return compare(_without_unit(plain_gold), _without_unit(plain_extracted))
    except UnreadableExpression:
        return None


def _is_list(text: str) -> bool:
    try:
        return parse_shape(normalize_spelling(text)).kind == "list"
    except UnreadableExpression:
        return False


def _without_unit(text: str) -> str:
    """Removes words behind a value; a text that is only words is not changed."""
    bare = _UNIT.sub("", text)
    bare = unwrap_text(bare)
    return _UNIT_WORDS.sub("", bare) if "\\begin" not in bare else bare


def _compare_by_algebra(gold: str, extracted: str) -> Verdict:
    if why := _find_refusal(extracted):
        return make_unparsable(f"limit: {why}")
    if why := _find_refusal(gold):
        raise DataError(f"reference answer {gold[:80]!r} is refused: {why}")
    try:
        same = compare_latex(_strip_math_mode(gold), _strip_math_mode(extracted))
    except ValueError as e:
        if is_text(gold):
            return make_verdict(False, extracted)
        raise DataError(f"reference answer {gold[:80]!r} cannot be read: {e}") from None
    return make_unparsable("not a mathematical expression") if same is None else make_verdict(same, extracted)


def _strip_math_mode(text: str) -> str:
    """Removes the dollar signs or brackets of LaTeX's math mode around a text."""
    inner = text.strip().rstrip(".").strip("*").strip()
    for opening, closing in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if inner.startswith(opening) and inner.endswith(closing) and len(inner) > len(opening + closing):
            return inner[len(opening) : -len(closing)].strip()
    return inner
