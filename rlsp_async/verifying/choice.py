"""Verifier for multiple choice: the label that the response commits to, or the text of that option.

    score("... A) red  B) blue", "It is blue, so the answer is (B).", "B").status == "correct"

The answer stands where `span.py` finds one (tag, box, ####, "the answer is"); else the last commitment counts: "(B)",
"option B", "**B**", or a line that begins with the label. A bare letter inside a sentence is none: "a" is a word.
Several labels are a set: "A and C". With word labels (`labels = ["yes", "no"]`) the last one in the text counts.
"""

from __future__ import annotations

import re
from collections import deque

from rlsp_async.config import Section
from rlsp_async.errors import DataError
from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import judged, unparsable
from rlsp_async.verifying.extract import find_answer, plain_words, strip_box

VERSION = "1"
LANE = "fast"
TAIL_CHARS = 50_000

_MARKS = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s?\{([^{}]*)\}|[*_$`]")
_SPLIT = re.compile(r"\s*(?:,|;|/|&|\band\b|\s)\s*")


class ChoiceConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What can be chosen."""

    labels: tuple[str, ...] = tuple("ABCDEFGHIJ")
    """Letters or words; case does not matter for words."""
    texts: bool = True
    """Options that stand in the prompt ("A) red", "(B) blue", "C. green") may be named by their text."""

    def __post_init__(self) -> None:
        if len(self.labels) < 2 or not all(label.strip() for label in self.labels):
            raise ValueError("labels must be two or more, none of them empty")


Config = ChoiceConfig


class ChoiceVerifier:
    """A verifier with its options."""

    def __init__(self, cfg: ChoiceConfig) -> None:
        self._texts = cfg.texts
        self._are_letters = all(len(label) == 1 for label in cfg.labels)
        self._labels = {label.casefold(): label for label in cfg.labels}
        one = "|".join(sorted(map(re.escape, cfg.labels), key=len, reverse=True))
        case = re.NOFLAG if self._are_letters else re.I
        self._leads = re.compile(rf"(?:(?i:option|choice|answer)\s+)?(?:\(({one})\)|({one})(?:[.):,]|$))", case)
        self._option = re.compile(rf"(?:^|\n|\s)[(\[]?({one})[).\]:]\s*([^\n]+?)(?=\s+[(\[]?(?:{one})[).\]:]\s|\n|$)")
        committed = (
            rf"\(({one})\)|\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s+({one})\b|\*\*\(?({one})[).:]?\*\*"
            rf"|(?:^|\n)\s*({one})(?:[).:](?=\s)|\s*(?:\n|$))"
        )
        self._committed = re.compile(committed if self._are_letters else rf"\b({one})\b", case)

    def score(self, prompt: str, response: str, answer: str) -> Verdict:
        """The verdict. Raises DataError when the reference answer is no option."""
        options = self._options(prompt) if self._texts else {}
        gold = self._chosen(answer.strip(), options)
        if not gold:
            raise DataError(
                f"the reference answer {answer[:80]!r} is none of {', '.join(self._labels.values())} and "
                "the text of no option in the prompt"
            )
        text = response[-TAIL_CHARS:].rpartition("</think>")[2]
        span = find_answer(response, numbers=False)
        found = self._chosen(span, options) if span else frozenset()
        found = found or self._last(text) or self._chosen(text.strip(), options)
        if not found:
            return unparsable("no option was chosen")
        return judged(found == gold, ", ".join(sorted(found)))

    def _options(self, prompt: str) -> dict[str, str]:
        """Plain text of each option in the prompt -> its label; a text that stands twice is left out."""
        pairs = [(plain_words(text), self._labels[label.casefold()]) for label, text in self._option.findall(prompt)]
        texts = [text for text, _ in pairs]
        return {text: label for text, label in pairs if texts.count(text) == 1}

    def _chosen(self, span: str, options: dict[str, str]) -> frozenset[str]:
        """Labels that a span names: one, several, or the text of one."""
        text = _MARKS.sub(lambda match: match.group(1) or "", strip_box(span)).strip().rstrip(".").strip()
        if label := options.get(plain_words(text)):
            return frozenset({label})
        words = [word.strip("().[]:") for word in _SPLIT.split(text) if word.strip("().[]:")]
        if words and all(word.casefold() in self._labels for word in words):
            return frozenset(self._labels[word.casefold()] for word in words)
        if self._are_letters and text.isupper() and text.isalpha() and all(c.casefold() in self._labels for c in text):
            return frozenset(self._labels[char.casefold()] for char in text)
        return self._labelled(self._leads.match(text))

    def _last(self, text: str) -> frozenset[str]:
        return self._labelled(next(iter(deque(self._committed.finditer(text), maxlen=1)), None))

    def _labelled(self, match: re.Match[str] | None) -> frozenset[str]:
        """The label in the one group that matched."""
        if match is None:
            return frozenset()
        return frozenset({self._labels[next(group for group in match.groups() if group).casefold()]})


def load(cfg: ChoiceConfig) -> ChoiceVerifier:
    """The verifier."""
    return ChoiceVerifier(cfg)
