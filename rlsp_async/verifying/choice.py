"""Verifier for multiple choice: the label that the response commits to, or the text of that option.

    score("... A) red  B) blue", "It is blue, so the answer is (B).", "B").status == "correct"

The answer is looked for where `extract` finds one (tag, box, ####, "the answer is"). If there is none, the last
commitment counts: "(B)", "option B", "**B**", or a line that begins with the label. A bare letter inside a sentence
does not count, because "a" is a word. Several labels are a set: "A and C". With word labels (`labels = ["yes", "no"]`)
the last one in the text counts.
"""

from __future__ import annotations

import re
from collections import deque

from rlsp_async.config import Section
from rlsp_async.config.ranges import FieldName
from rlsp_async.errors import DataError
from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import make_unparsable, make_verdict
from rlsp_async.verifying.extract import find_answer, normalize_words, strip_box

VERSION = "1"
LANE = "fast"
TAIL_CHARS = 50_000

_MARKS = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s?\{([^{}]*)\}|[*_$`]")
_SPLIT = re.compile(r"\s*(?:,|;|/|&|\band\b|\s)\s*")


class ChoiceConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `choice`: what can be chosen."""

    labels: tuple[FieldName, ...] = tuple("ABCDEFGHIJ")
    """Letters or words; case does not matter for words."""
    texts: bool = True
    """Whether an option in the prompt ("A) red", "(B) blue", "C. green") may be named by its text."""

    def __post_init__(self) -> None:
        if len(self.labels) < 2 or not all(label.strip() for label in self.labels):
            raise ValueError("labels must be two or more, none of them empty")


Config = ChoiceConfig


class ChoiceVerifier:
    """The verifier `choice`."""

    def __init__(self, cfg: ChoiceConfig) -> None:
        self._texts = cfg.texts
        self._are_letters = all(len(label) == 1 for label in cfg.labels)
        self._labels = {label.casefold(): label for label in cfg.labels}
        label = "|".join(sorted(map(re.escape, cfg.labels), key=len, reverse=True))
        case = re.NOFLAG if self._are_letters else re.I
        self._leads = re.compile(rf"(?:(?i:option|choice|answer)\s+)?(?:\(({label})\)|({label})(?:[.):,]|$))", case)
        self._option = re.compile(
            rf"(?:^|\n|\s)[(\[]?({label})[).\]:]\s*([^\n]+?)(?=\s+[(\[]?(?:{label})[).\]:]\s|\n|$)"
        )
        committed = (
            rf"\(({label})\)|\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s+({label})\b|\*\*\(?({label})[).:]?\*\*"
            rf"|(?:^|\n)\s*({label})(?:[).:](?=\s)|\s*(?:\n|$))"
        )
        self._committed = re.compile(committed if self._are_letters else rf"\b({label})\b", case)

    def score(self, prompt: str, response: str, answer: str) -> Verdict:
        """Returns the verdict.

        Raises:
            DataError: the reference answer is neither a label nor the text of an option.
        """
        options = self._read_options(prompt) if self._texts else {}
        gold = self._named_labels(answer.strip(), options)
        if not gold:
            raise DataError(
                f"the reference answer {answer[:80]!r} is neither a label ({', '.join(self._labels.values())}) nor "
                "the text of an option in the prompt"
            )
        text = response[-TAIL_CHARS:].rpartition("</think>")[2]
        answered = find_answer(response, numbers=False)
        extracted = self._named_labels(answered, options) if answered else frozenset()
        extracted = extracted or self._last_commitment(text) or self._named_labels(text.strip(), options)
        if not extracted:
            return make_unparsable("no option was chosen")
        return make_verdict(extracted == gold, ", ".join(sorted(extracted)))

    def _read_options(self, prompt: str) -> dict[str, str]:
        """The label of each option in the prompt by its plain text; a text that occurs twice is left out."""
        pairs = [
            (normalize_words(text), self._labels[label.casefold()]) for label, text in self._option.findall(prompt)
        ]
        texts = [text for text, _ in pairs]
        return {text: label for text, label in pairs if texts.count(text) == 1}

    def _named_labels(self, text: str, options: dict[str, str]) -> frozenset[str]:
        """The labels that a text names, directly or by the text of an option."""
        text = _MARKS.sub(lambda match: match.group(1) or "", strip_box(text)).strip().rstrip(".").strip()
        if label := options.get(normalize_words(text)):
            return frozenset({label})
        words = [word.strip("().[]:") for word in _SPLIT.split(text) if word.strip("().[]:")]
        if words and all(word.casefold() in self._labels for word in words):
            return frozenset(self._labels[word.casefold()] for word in words)
        if self._are_letters and text.isupper() and text.isalpha() and all(c.casefold() in self._labels for c in text):
            return frozenset(self._labels[char.casefold()] for char in text)
        return self._label_of(self._leads.match(text))

    def _last_commitment(self, text: str) -> frozenset[str]:
        return self._label_of(next(iter(deque(self._committed.finditer(text), maxlen=1)), None))

    def _label_of(self, match: re.Match[str] | None) -> frozenset[str]:
        """The label in the only group of a pattern that matched."""
        if match is None:
            return frozenset()
        return frozenset({self._labels[next(group for group in match.groups() if group).casefold()]})


def reference_response(answer: str, demonstration: str) -> str:
    """A response that gives a reference answer, for the check before a run."""
    return f"<answer>{answer}</answer>"


def load(cfg: ChoiceConfig) -> ChoiceVerifier:
    """Makes the verifier."""
    return ChoiceVerifier(cfg)
