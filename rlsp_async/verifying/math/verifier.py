"""Verifier of mathematical answers: find the answer, compare numbers exactly, then shapes, then by computer algebra.

    score("...", "... so \\boxed{1,234}", "1234").status == "correct"

A fast path decides only what it has read completely. Two answers are compared in this order, and the first comparison
that can decide does: as tidy text; as numbers with units (`literals`); shape by shape and by named rules (`compare`);
and, for what cannot be read there, by math-verify (`computer_algebra`). An answer that was found but cannot be read, or
that could explode in a parser, is unparsable, with the reason. Choices on which reasonable people differ are options.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from rlsp_async.config import Section
from rlsp_async.config.ranges import FieldName, Range
from rlsp_async.errors import DataError
from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import make_unparsable, make_verdict
from rlsp_async.verifying.extract import Place, find_spans, strip_box
from rlsp_async.verifying.math.compare import Comparer
from rlsp_async.verifying.math.computer_algebra import MAX_CHARS, compare_latex, find_refusal
from rlsp_async.verifying.math.literals import read_literal
from rlsp_async.verifying.math.normalize import normalize_spelling
from rlsp_async.verifying.math.parse import TooLarge, UnreadableExpression
from rlsp_async.verifying.math.scalars import ScalarRules, compare_values
from rlsp_async.verifying.math.shapes import AnswerShape, drop_common_name, parse_shape
from rlsp_async.verifying.math.words import compare_words, is_answer_word, is_text

_NOISE = re.compile(r"\\(?:left|right|displaystyle|[,;!: ])|\$|(?<!\w)\s+|\s+(?!\w)|\\text\s?\{([^{}]*)\}")
_PLAIN = re.compile(r"-?\d{1,18}(?:\.\d{1,18})?")


class MathConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `math`: choices on which reasonable people differ."""

    extract: tuple[Place, ...] = ("answer_tag", "boxed", "hashes", "sentence", "expression", "last")
    """Places where the answer may stand. The first one that is present counts; name fewer, or in another order."""
    thinking: tuple[tuple[FieldName, FieldName], ...] = ()
    """Opening and closing marks of thoughts, beside those that are known. What stands in a thought is no answer."""
    percent: Literal["either", "literal"] = "either"
    """How a per-cent sign on one side only is read. either: 50% equals 50 and 0.5; literal: it equals 0.5."""
    ordered: bool = False
    """Whether a list (1, 2) must have the order of the reference answer. A set in braces never has an order."""
    decimal_places: Annotated[int, Range(ge=0, le=100)] = 6
    """From how many decimal places a decimal may stand for a number that no decimal expresses (1/3, pi); 0: never."""
    decimal_comma: Literal["answer", "both", "never"] = "answer"
    """Where 2,5 may be 2.5, beside a list. answer: in responses only; both: in reference answers, too; never."""
    units: Literal["aside", "compare"] = "aside"
    """Units of one kind are converted. aside: a unit missing on one side says nothing; compare: both must have one."""

    def __post_init__(self) -> None:
        if not self.extract or len(set(self.extract)) < len(self.extract):
            raise ValueError("extract must name at least one place, none of them twice")


Config = MathConfig


class MathVerifier:
    """The verifier `math`."""

    def __init__(self, cfg: MathConfig) -> None:
        self._cfg = cfg
        self._rules = ScalarRules(cfg.percent, cfg.decimal_places, cfg.units)
        self._comparer = Comparer(self._rules, cfg.ordered, cfg.decimal_comma)

    def score(self, prompt: str, response: str, answer: str) -> Verdict:
        """Returns the verdict.

        Raises:
            DataError: the reference answer cannot be read.
        """
        gold = strip_box(answer.strip())
        if not gold:
            raise DataError("the reference answer is empty")
        found = find_spans(response, order=self._cfg.extract, thinking=self._cfg.thinking)
        if not found.texts:
            return make_unparsable(found.problem or "no answer found")
        return self._compare(gold, tuple(strip_box(text) for text in found.texts))

    def _compare(self, gold: str, texts: tuple[str, ...]) -> Verdict:
        """Compares the reference answer with the answer; several texts are several boxes side by side."""
        extracted = ", ".join(texts)
        if tidy_text(gold) == tidy_text(extracted):
            return make_verdict(True, extracted)
        if len(extracted) > MAX_CHARS:
            return make_unparsable(f"limit: {find_refusal(extracted)}")
        if len(texts) == 1 and _PLAIN.fullmatch(gold) and _PLAIN.fullmatch(extracted):
            return make_verdict(self._same_numbers(gold, extracted), extracted)
        try:
            same = self._compare_shapes(gold, texts)
        except TooLarge as e:
            return make_unparsable(f"limit: {e}")
        if same is None and self._cfg.ordered and _is_list(gold):
            return make_unparsable("a list with a part that cannot be read")  # math-verify ignores the order
        return _compare_by_algebra(gold, extracted) if same is None else make_verdict(same, extracted)

    def _same_numbers(self, gold: str, extracted: str) -> bool:
        left, right = read_literal(gold), read_literal(extracted)
        return left is not None and right is not None and compare_values(left, right, self._rules)

    def _compare_shapes(self, gold: str, texts: tuple[str, ...]) -> bool | None:
        plain_gold = normalize_spelling(gold)
        plain = [normalize_spelling(text) for text in texts]
        if len(texts) == 1 and ("\\text" in gold or is_answer_word(gold)) and compare_words(gold, texts[0]):
            return True
        try:
            gold_shape, shapes = self._parse_gold(gold, plain_gold), tuple(parse_shape(text) for text in plain)
        except TooLarge:
            raise
        except UnreadableExpression:
            return None
        if len(shapes) == 1:
            return self._comparer.shapes(gold_shape, shapes[0])
        if all(self._comparer.shapes(gold_shape, shape) for shape in shapes):
            return True
        return self._comparer.shapes(gold_shape, AnswerShape("list", "or", drop_common_name(shapes)))

    def _parse_gold(self, gold: str, plain: str) -> AnswerShape:
        try:
            return parse_shape(plain)
        except TooLarge as e:
            raise DataError(f"reference answer {gold[:80]!r} is refused: {e}") from None


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


def tidy_text(text: str) -> str:
    """Removes needless blanks, sizes, dollar signs, text commands and a final full stop."""
    return _NOISE.sub(r"\1", text).replace("dfrac", "frac").replace("tfrac", "frac").rstrip(".")


def _is_list(text: str) -> bool:
    try:
        return parse_shape(normalize_spelling(text)).kind == "list"
    except UnreadableExpression:
        return False


def _find_refusal(text: str) -> str:
    """Why math-verify must not read a text, in plain spelling (else bold marks would be taken for powers)."""
    return find_refusal(normalize_spelling(text) if len(text) <= MAX_CHARS else text)


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
