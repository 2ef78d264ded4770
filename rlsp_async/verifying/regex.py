"""Verifier by regular expression.

    pattern = "Answer: (\\w+)"     the first group of the last match is the answer; it is compared word for word
    pattern = "\\bdef \\w+"        without a group a match is enough, and the reference answer is not read
    no pattern                     the reference answer is the pattern

Only what follows the last thought is searched (`thoughts`). A pattern that takes too long ends as `timeout`, since the
process may be killed.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Literal

from rlsp_async.config import Section
from rlsp_async.config.ranges import FieldName, FreeText
from rlsp_async.errors import DataError
from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import make_unparsable, make_verdict
from rlsp_async.verifying.thoughts import check_marks, split_thoughts
from rlsp_async.verifying.words import normalize_words

VERSION = "1"
LANE = "fast"


class RegexConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `regex`: how the response is searched."""

    pattern: FreeText = ""
    """The regular expression, in Python's syntax; empty: the reference answer of each prompt."""
    match: Literal["search", "full"] = "search"
    """Whether the pattern must match anywhere in the text, or the whole text without the blanks around it."""
    ignore_case: bool = False
    """Whether small and capital letters count as the same, in the pattern and in the comparison."""
    thinking: tuple[tuple[FieldName, FieldName], ...] = ()
    """Opening and closing marks of thoughts, beside those that are known."""

    def __post_init__(self) -> None:
        check_marks(self.thinking)
        try:
            re.compile(self.pattern)
        except re.error as e:
            raise ValueError(f"pattern {self.pattern!r} is not a regular expression: {e}") from None


Config = RegexConfig


class RegexVerifier:
    """The verifier `regex`."""

    def __init__(self, cfg: RegexConfig) -> None:
        self._cfg = cfg
        self._flags = re.IGNORECASE if cfg.ignore_case else re.NOFLAG

    def score(self, prompt: str, response: str, answer: str) -> Verdict:
        """Returns the verdict.

        Raises:
            DataError: the reference answer is needed and cannot be used.
        """
        text = split_thoughts(response, self._cfg.thinking).text.strip()
        match = self._last_match(self._compiled(answer), text)
        if match is None:
            return make_unparsable("no match")
        if not self._cfg.pattern or not match.re.groups:
            return make_verdict(True, match.group())
        gold = normalize_words(answer)
        if not gold:
            raise DataError("the reference answer is empty")
        extracted = match.group(1) or ""
        return make_verdict(normalize_words(extracted) == gold, extracted)

    def _compiled(self, answer: str) -> re.Pattern[str]:
        if not (self._cfg.pattern or answer):
            raise DataError("the reference answer is empty, and no pattern is set")
        try:
            return re.compile(self._cfg.pattern or answer, self._flags)
        except re.error as e:
            raise DataError(f"the reference answer {answer[:80]!r} is not a regular expression: {e}") from None

    def _last_match(self, pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
        if self._cfg.match == "full":
            return pattern.fullmatch(text)
        return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


def load(cfg: RegexConfig) -> RegexVerifier:
    """Makes the verifier."""
    return RegexVerifier(cfg)
