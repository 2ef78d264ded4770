"""Verifier that lets a model say that it does not know: the part "score" is 1 for a right answer, `value` for an honest
abstention, 0 for a wrong answer.

    score("...", "<answer>I don't know</answer>", "42")      wrong, parts: correct 0, abstained 1, score .2

Where the reference answer itself abstains (a question without an answer), abstaining is `correct`. What counts is the
answer that the response commits to, not doubts on the way there.
"""

from __future__ import annotations

import re
from typing import Any

from rlsp_async.config import Section
from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import judged, load_inner, with_parts
from rlsp_async.verifying.extract import find_answer, plain_words

VERSION = "1"
LANE = "fast"
MAX_WORDS = 12
"""An answer that abstains is short: a sentence, not an essay with the words in it."""

_APOSTROPHES = str.maketrans("\u2019\u2018\u02bc", "'''")
_COMMAND = re.compile(r"\\(?:text|mathrm)\s?\{([^{}]*)\}")


class AbstainConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What abstaining is, and what it is worth."""

    phrases: tuple[str, ...] = (
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
    """The answer abstains when it contains one of these, word for word; case does not matter."""
    value: float = 0.2
    """Score of an abstention, between a wrong answer's 0 and a right one's 1."""
    inner: str = "math"
    """Verifier of the other answers."""
    inner_options: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if not 0.0 <= self.value <= 1.0:
            raise ValueError(f"value {self.value} must lie between 0 and 1")
        if not self.phrases or not all(phrase.strip() for phrase in self.phrases):
            raise ValueError("phrases must name at least one, none of them empty")


Config = AbstainConfig


class AbstainVerifier:
    """A verifier with its options."""

    def __init__(self, cfg: AbstainConfig) -> None:
        self._value = cfg.value
        self._inner = load_inner(cfg.inner, cfg.inner_options)
        phrases = "|".join(re.escape(_plain(phrase)) for phrase in cfg.phrases)
        self._abstains = re.compile(rf"(?<!\w)(?:{phrases})(?!\w)")

    def score(self, prompt: str, response: str, answer: str) -> Verdict:
        """The verdict."""
        said = self._abstention(response)
        if self._says_so(answer):
            return judged(
                said is not None, said or "", abstained=float(said is not None), score=float(said is not None)
            )
        if said is not None:
            return judged(False, said, abstained=1.0, score=self._value)
        verdict = self._inner.judge(prompt, response, answer)
        return with_parts(verdict, abstained=0.0, score=verdict.parts.get("correct", 0.0))

    def _abstention(self, response: str) -> str | None:
        """The answer, if it abstains."""
        found = find_answer(response, numbers=False)
        if found is None:
            lines = response.rpartition("</think>")[2].strip().splitlines()
            found = lines[-1] if lines else ""
        return found if self._says_so(found) else None

    def _says_so(self, text: str) -> bool:
        return len(text.split()) <= MAX_WORDS and bool(self._abstains.search(_plain(text)))


def _plain(text: str) -> str:
    return plain_words(_COMMAND.sub(r"\1", text).translate(_APOSTROPHES))


def load(cfg: AbstainConfig) -> AbstainVerifier:
    """The verifier."""
    return AbstainVerifier(cfg)
