"""Verifier for multiple choice: the label that the response commits to, or the text of that option.

    score("... A) red  B) blue", "It is blue, so the answer is (B).", "B").status == "correct"

The answer is looked for in a tag, a box, behind ####, and in "the answer is ..."; a place that names no option, such as
a formula in a box, is left out. If there is none, the last sentence that commits itself counts: "(B)", "option B",
"I choose B", "B fits" (`labels`). Several labels are a set: "A and C". An answer in a box that a later sentence
contradicts is two answers, and wrong.
"""

from __future__ import annotations

import re

from rlsp_async.config import Section
from rlsp_async.config.ranges import FieldName
from rlsp_async.errors import DataError
from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import make_unparsable, make_verdict
from rlsp_async.verifying.boxes import last_boxes
from rlsp_async.verifying.extract import TAIL_CHARS, find_spans
from rlsp_async.verifying.labels import LabelReader, plain_label_text
from rlsp_async.verifying.sentences import find_clause
from rlsp_async.verifying.thoughts import check_marks, split_thoughts
from rlsp_async.verifying.words import normalize_words

VERSION = "2"
LANE = "fast"

_LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_FIGURES = tuple(str(number) for number in range(1, 31))
_ROMAN = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X")
FAMILIES: tuple[tuple[str, ...], ...] = (
    ("yes", "no", "maybe"),
    ("true", "false", "unknown", "uncertain", "not given"),
    ("entailment", "neutral", "contradiction"),
    ("positive", "negative", "neutral", "mixed"),
    ("supported", "refuted", "not enough info"),
    ("supports", "refutes", "not enough info"),
    ("valid", "invalid"),
    ("correct", "incorrect"),
    ("acceptable", "unacceptable"),
    ("increase", "decrease"),
    ("left", "right"),
)
"""Words that are labels together, where the reference answer is one of them and no labels are set."""
_AGAIN = re.compile(
    r"\b(?:wait|actually|correction|sorry|on\s+second\s+thought|let\s+me\s+re-?(?:check|consider|think|do)|i\s+made\s+a|scratch\s+that)\b",
    re.IGNORECASE,
)


class ChoiceConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `choice`: what can be chosen."""

    labels: tuple[FieldName, ...] = ()
    """Letters, figures or words; case does not matter for words. Empty: as the reference answer is, see `FAMILIES`."""
    texts: bool = True
    """Whether an option in the prompt ("A) red", "(B) blue", "C. green") may be named by its text."""
    thinking: tuple[tuple[FieldName, FieldName], ...] = ()
    """Opening and closing marks of thoughts, beside those that are known."""

    def __post_init__(self) -> None:
        check_marks(self.thinking)
        if self.labels and (len(self.labels) < 2 or not all(label.strip() for label in self.labels)):
            raise ValueError("labels must be two or more, none of them empty")


Config = ChoiceConfig


class ChoiceVerifier:
    """The verifier `choice`."""

    def __init__(self, cfg: ChoiceConfig) -> None:
        self._cfg = cfg

    def score(self, prompt: str, response: str, answer: str) -> Verdict:
        """Returns the verdict.

        Raises:
            DataError: the reference answer is neither a label nor the text of an option.
        """
        labels = tuple(plain_label_text(label) for label in self._cfg.labels) or _guess_labels(answer)
        options = read_options(prompt, labels) if self._cfg.texts else {}
        reader = LabelReader(labels, options)
        gold = reader.named(answer.strip()) or reader.stated(answer.strip())
        if not gold:
            raise DataError(
                f"the reference answer {answer[:80]!r} is neither a label ({', '.join(labels[:10])}) nor "
                "the text of an option in the prompt"
            )
        spoken = split_thoughts(response, self._cfg.thinking)
        if spoken.is_unfinished:
            return make_unparsable("an unfinished thought")
        extracted = find_choice(spoken.text[-TAIL_CHARS:], reader)
        if not extracted:
            return make_unparsable("no option was chosen")
        return make_verdict(extracted == gold, ", ".join(sorted(extracted)))


def find_choice(text: str, reader: LabelReader) -> frozenset[str]:
    """Returns the labels that a response chooses; empty when it chooses none."""
    tagged = find_spans(text, numbers=False, order=("answer_tag",))
    if tagged.texts and (named := _union(reader, tagged.texts)):
        return named
    boxes = last_boxes(text)
    if boxes.problem:
        return frozenset()
    if boxes.texts and (
        named := frozenset[str]().union(*map(reader.named, boxes.texts)) or _worded(reader, boxes.texts)
    ):
        clause = find_clause(text[boxes.end :])
        return named | (reader.stated(clause.text) if clause else frozenset())
    hashes = find_spans(text, numbers=False, order=("hashes",))
    if hashes.texts and (named := _union(reader, hashes.texts)):
        return named
    clause = find_clause(text)
    if clause is None:
        return reader.committed(text)
    stated = reader.stated(clause.text)
    behind = text[text.find(clause.text, clause.begin) + len(clause.text) :] if clause.text else ""
    if stated and (again := _AGAIN.search(behind)):
        return reader.committed(behind[again.end() :]) or stated
    return stated or reader.committed(text[clause.begin :])


def _union(reader: LabelReader, texts: tuple[str, ...]) -> frozenset[str]:
    return frozenset[str]().union(*map(reader.stated, texts))


def _worded(reader: LabelReader, texts: tuple[str, ...]) -> frozenset[str]:
    """What boxes state that hold no formula."""
    return _union(reader, tuple(text for text in texts if not _FORMULA.search(text)))


_FORMULA = re.compile(r"[=^_<>+*]|\\(?!text|math|quad|[,;!: ])")


def read_options(prompt: str, labels: tuple[str, ...]) -> dict[str, str]:
    """Returns the label of each option in a prompt by its plain text; a text that occurs twice is left out."""
    label = "|".join(sorted(map(re.escape, labels), key=len, reverse=True))
    option = re.compile(rf"(?:^|\n|\s)[(\[]?({label})[).\]:]\s*([^\n]+?)(?=\s+[(\[]?(?:{label})[).\]:]\s|\n|$)")
    pairs = [(normalize_words(text), label) for label, text in option.findall(plain_label_text(prompt))]
    texts = [text for text, _ in pairs]
    return {text: label for text, label in pairs if text and texts.count(text) == 1}


def _guess_labels(answer: str) -> tuple[str, ...]:
    """The labels of the kind of a reference answer: letters, figures, Roman figures, or a family of words."""
    plain = plain_label_text(answer).strip()
    bare = re.sub(r"^(?i:option|choice|answer)s?\s*:?\s*", "", plain).strip("().[]: ")
    for family in FAMILIES:
        if normalize_words(bare) in family:
            return family
    if re.match(r"\d{1,2}(?![\w.]\d|\w)", bare):
        return _FIGURES
    if re.match(r"(?:II|III|IV|VI|VII|VIII|IX)(?!\w)", bare):
        return _ROMAN
    return _LETTERS


def reference_response(answer: str, demonstration: str) -> str:
    """A response that gives a reference answer, for the check before a run."""
    return f"<answer>{answer}</answer>"


def load(cfg: ChoiceConfig) -> ChoiceVerifier:
    """Makes the verifier."""
    return ChoiceVerifier(cfg)
