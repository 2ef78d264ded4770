"""Verifier that gives partial credit for saying "I don't know".

    score("...", "<answer>I don't know</answer>", "42")      wrong, parts: correct 0, abstained 1, score 0.2

The part "score" is 1 for a right answer, `value` for an honest abstention, and 0 for a wrong answer. Where the
reference answer itself abstains (a question without an answer), abstaining is `correct`. Only the answer that the
response commits to counts, not doubts on the way there.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from rlsp_async.config import Section
from rlsp_async.config.ranges import FieldName, PluginName, Range
from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import add_parts, load_inner, make_verdict
from rlsp_async.verifying.extract import find_spans
from rlsp_async.verifying.thoughts import check_marks, split_thoughts
from rlsp_async.verifying.words import normalize_words

VERSION = "2"
LANE = "fast"
MAX_WORDS = 12
"""An answer with more words does not abstain: it may contain a phrase by chance."""

_COMMAND = re.compile(r"\\(?:text|mathrm)\s?\{([^{}]*)\}")


class AbstainConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `abstain`: what counts as an abstention, and its score."""

    phrases: tuple[FieldName, ...] = (
        "i don't know",
        "i do not know",
        "don't know",
        "i'm not sure",
        "i am not sure",
        "unknown",
        "no answer",
        "idk",
        "cannot be determined",
        "can't be determined",
        "cannot determine",
        "not enough information",
        "unanswerable",
        "je ne sais pas",
        "no lo s\u00e9",
        "ich wei\u00df es nicht",
        "\u4e0d\u77e5\u9053",
        "\u65e0\u6cd5\u786e\u5b9a",
    )
    """The answer abstains when it says one of these and gives no number; case does not matter. One word: only alone."""
    value: Annotated[float, Range(ge=0, le=1)] = 0.2
    """Score of an abstention, between 0 for a wrong answer and 1 for a right one."""
    inner: PluginName = "math"
    """Verifier of answers that do not abstain."""
    inner_options: dict[str, Any] = {}
    """Options of the inner verifier, decoded by its `Config`."""
    thinking: tuple[tuple[FieldName, FieldName], ...] = ()
    """Opening and closing marks of thoughts, beside those that are known; `inner_options` has its own."""

    def __post_init__(self) -> None:
        check_marks(self.thinking)
        if not self.phrases or not all(phrase.strip() for phrase in self.phrases):
            raise ValueError("phrases must name at least one, none of them empty")


Config = AbstainConfig


class AbstainVerifier:
    """The verifier `abstain`."""

    def __init__(self, cfg: AbstainConfig) -> None:
        self._value = cfg.value
        self._inner = load_inner(cfg.inner, cfg.inner_options)
        self._thinking = cfg.thinking
        phrases = [_plain_phrase(phrase) for phrase in cfg.phrases]
        words = "|".join(re.escape(phrase) for phrase in phrases if " " not in phrase) or "(?!)"
        sayings = "|".join(re.escape(phrase) for phrase in phrases if " " in phrase) or "(?!)"
        self._pattern = re.compile(
            rf"(?:.*\b(?:is|are|be|remains?|answer)\W+|\W*)(?:{words})\W*|.*(?<!\w)(?:{sayings})(?!\w).*", re.DOTALL
        )

    def score(self, prompt: str, response: str, answer: str) -> Verdict:
        """Returns the verdict."""
        abstention = self._abstention(response)
        if self._is_abstention(answer):
            return make_verdict(
                abstention is not None,
                abstention or "",
                abstained=float(abstention is not None),
                score=float(abstention is not None),
            )
        if abstention is not None:
            return make_verdict(False, abstention, abstained=1.0, score=self._value)
        verdict = self._inner.judge(prompt, response, answer)
        return add_parts(verdict, abstained=0.0, score=verdict.parts.get("correct", 0.0))

    def _abstention(self, response: str) -> str | None:
        """The answer of the response if it abstains, else None."""
        found = find_spans(response, numbers=False, thinking=self._thinking)
        extracted = found.text
        if not extracted and not found.problem:
            lines = split_thoughts(response, self._thinking).text.strip().splitlines()
            extracted = lines[-1] if lines else ""
        return extracted if self._is_abstention(extracted) else None

    def _is_abstention(self, text: str) -> bool:
        """Whether a text says that it knows no answer: in few words, without a number and without denying it."""
        plain = _plain_phrase(text)
        if len(text.split()) > MAX_WORDS or any(char.isdigit() for char in plain):
            return False
        return self._pattern.fullmatch(plain) is not None and not _DENIED.search(plain)


_DENIED = re.compile(r"\b(?:not|never|no longer)\s+(?:an?\s+)?(?:unknown|unanswerable|undetermined)\b")


def _plain_phrase(text: str) -> str:
    return normalize_words(_COMMAND.sub(r"\1", text))


def load(cfg: AbstainConfig) -> AbstainVerifier:
    """Makes the verifier."""
    return AbstainVerifier(cfg)
