"""Verifier for answers that are words: equal apart from blanks, case, Unicode spelling, quotes and closing marks.

score("Is it?", "<answer> Yes! </answer>", "yes").status == "correct"

Of "yes, because it rains" only what stands before the reason is compared; of "yes or no" all.
"""

from __future__ import annotations

import re

from rlsp_async.config import Section
from rlsp_async.config.ranges import FieldName
from rlsp_async.errors import DataError
from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import make_unparsable, make_verdict
from rlsp_async.verifying.extract import find_spans
from rlsp_async.verifying.sentences import strip_math_mode
from rlsp_async.verifying.thoughts import check_marks, split_thoughts
from rlsp_async.verifying.words import UnicodeForm, normalize_words

VERSION = "2"
LANE = "fast"
EXTRA_CHARS = 20
"""The last line is the answer when it is at most this much longer than the reference answer, in characters."""

_COMMAND = re.compile(r"\\(?:text\w*|mathrm|mbox|operatorname)\s?\{([^{}]*)\}")
_REASON = re.compile(
    r",?\s+(?:because|since|as|due\s+to|which|so\s+that)\b|,\s+(?:so|not|and\s+not|rather)\b", re.IGNORECASE
)


class ExactConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `exact`: what counts as the same."""

    ignore_case: bool = True
    """Whether upper and lower case are the same."""
    unicode: UnicodeForm = "NFKC"
    """NFKC: full-width letters and ligatures are as plain ones, raised figures are not; NFC: composed letters only."""
    thinking: tuple[tuple[FieldName, FieldName], ...] = ()
    """Opening and closing marks of thoughts, beside those that are known."""

    def __post_init__(self) -> None:
        check_marks(self.thinking)


Config = ExactConfig


class ExactVerifier:
    """The verifier `exact`."""

    def __init__(self, cfg: ExactConfig) -> None:
        self._cfg = cfg

    def score(self, prompt: str, response: str, answer: str) -> Verdict:
        """Returns the verdict.

        Raises:
            DataError: the reference answer is empty.
        """
        gold = self._plain(answer)
        if not gold:
            raise DataError("the reference answer is empty")
        found = find_spans(response, numbers=False, thinking=self._cfg.thinking)
        if found.problem:
            return make_unparsable(found.problem)
        extracted = found.text
        if not extracted:
            lines = split_thoughts(response, self._cfg.thinking).text.strip().splitlines()
            extracted = lines[-1] if lines and len(lines[-1]) <= len(answer) + EXTRA_CHARS else ""
        if not extracted:
            return make_unparsable("no answer found")
        return make_verdict(
            gold in (self._plain(extracted), self._plain(_REASON.split(extracted, maxsplit=1)[0])), extracted
        )

    def _plain(self, text: str) -> str:
        text = _COMMAND.sub(r"\1", strip_math_mode(text.strip()))
        return normalize_words(text, self._cfg.unicode, self._cfg.ignore_case)


def reference_response(answer: str, demonstration: str) -> str:
    """A response that gives a reference answer, for the check before a run."""
    return f"<answer>{answer}</answer>"


def load(cfg: ExactConfig) -> ExactVerifier:
    """Makes the verifier."""
    return ExactVerifier(cfg)


def score(prompt: str, response: str, answer: str) -> Verdict:
    """Returns the verdict with the default options.

    Raises:
        DataError: the reference answer is empty.
    """
    return _DEFAULT.score(prompt, response, answer)


_DEFAULT = ExactVerifier(ExactConfig())
