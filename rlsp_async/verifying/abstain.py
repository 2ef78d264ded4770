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
from rlsp_async.verifying.extract import find_answer, normalize_words

VERSION = "1"
LANE = "fast"
MAX_WORDS = 12
"""An answer with more words does not abstain: it may contain a phrase by chance."""

_APOSTROPHES = str.maketrans("\u2019\u2018\u02bc", "'''")
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
    )
    """The answer abstains when it contains one of these phrases, word for word; case does not matter."""
    value: Annotated[float, Range(ge=0, le=1)] = 0.2
    """Score of an abstention, between 0 for a wrong answer and 1 for a right one."""
    inner: PluginName = "math"
    """Verifier of answers that do not abstain."""
    inner_options: dict[str, Any] = {}
    """Options of the inner verifier, decoded by its `Config`."""

    def __post_init__(self) -> None:
        if not self.phrases or not all(phrase.strip() for phrase in self.phrases):
            raise ValueError("phrases must name at least one, none of them empty")


Config = AbstainConfig


class AbstainVerifier:
    """The verifier `abstain`."""

    def __init__(self, cfg: AbstainConfig) -> None:
        self._value = cfg.value
        self._inner = load_inner(cfg.inner, cfg.inner_options)
        phrases = "|".join(re.escape(_plain_phrase(phrase)) for phrase in cfg.phrases)
        self._pattern = re.compile(rf"(?<!\w)(?:{phrases})(?!\w)")

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
        extracted = find_answer(response, numbers=False)
        if extracted is None:
            lines = response.rpartition("</think>")[2].strip().splitlines()
            extracted = lines[-1] if lines else ""
        return extracted if self._is_abstention(extracted) else None

    def _is_abstention(self, text: str) -> bool:
        return len(text.split()) <= MAX_WORDS and bool(self._pattern.search(_plain_phrase(text)))


def _plain_phrase(text: str) -> str:
    return normalize_words(_COMMAND.sub(r"\1", text).translate(_APOSTROPHES))


def load(cfg: AbstainConfig) -> AbstainVerifier:
    """Makes the verifier."""
    return AbstainVerifier(cfg)
