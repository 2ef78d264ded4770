"""Prompts that the two splits of a data set share, found by comparing text.

    find_repeats(train, test)          training rows that equal no test row, and the pairs of equal rows
    find_near_repeats(train, test)     training rows that share no 13 words in sequence with a test row, and the others

Two rows are equal when their words, numbers and signs are equal. Case, blanks and punctuation are ignored; brackets,
decimal points and operators count, so "2 - 3" is not "2 + 3". The search for near repeats compares words and numbers
only, to find contamination as in appendix C of arXiv:2005.14165. Sequences that occur in more than 10 training rows are
ignored, because they are the common wording of the data set.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from rlsp_async.config import Section

NGRAM_WORDS = 13
COMMON = 10
"""A word sequence that occurs in more training rows than this is ignored."""
EXAMPLES = 5
"""Number of pairs of each kind that a report keeps."""
_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+|[^\s\w.,;:!?'\"`]|_")


class ComparedRow(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the comparison needs of a row: its text, and where the row is."""

    text: str
    source: str


class RepeatedRow(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A training row and the test row that it repeats."""

    train: str
    test: str
    text: str
    """The beginning of the training row, or the words that both share."""


class Overlap(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many rows were removed or look alike, with the first few pairs of each kind."""

    train: int
    """Training rows after the removal."""
    test: int
    removed: int = 0
    removed_pairs: list[RepeatedRow] = []
    near: int = 0
    """Training rows that share NGRAM_WORDS words in sequence with a test row."""
    near_pairs: list[RepeatedRow] = []
    near_removed: bool = False
    repeated_train: int = 0
    """Rows that equal an earlier row of the same split; they are kept."""
    repeated_test: int = 0


def comparison_words(text: str) -> list[str]:
    """The words, numbers and signs by which two rows are compared."""
    return _WORD.findall(text.casefold())


def find_repeats(train: Sequence[ComparedRow], test: Sequence[ComparedRow]) -> tuple[list[int], list[RepeatedRow]]:
    """Indices of the training rows that equal no test row, and the pairs that are equal."""
    seen = {tuple(comparison_words(row.text)): row.source for row in reversed(test)}
    kept, pairs = [], []
    for index, row in enumerate(train):
        source = seen.get(tuple(comparison_words(row.text)))
        if source is None:
            kept.append(index)
        else:
            pairs.append(RepeatedRow(train=row.source, test=source, text=_beginning(row.text)))
    return kept, pairs


def find_near_repeats(train: Sequence[ComparedRow], test: Sequence[ComparedRow]) -> tuple[list[int], list[RepeatedRow]]:
    """Indices of the training rows that share no word sequence with a test row, and the pairs that do."""
    known = {gram: row.source for row in reversed(test) for gram in _ngrams(row.text)}
    shared = [[gram for gram in dict.fromkeys(_ngrams(row.text)) if gram in known] for row in train]
    count = Counter(gram for grams in shared for gram in grams)
    kept, pairs = [], []
    for index, grams in enumerate(shared):
        gram = next((gram for gram in grams if count[gram] <= COMMON), None)
        if gram is None:
            kept.append(index)
        else:
            pairs.append(RepeatedRow(train=train[index].source, test=known[gram], text=" ".join(gram)))
    return kept, pairs


def count_repeats(rows: Sequence[ComparedRow]) -> int:
    """Number of rows that equal an earlier row."""
    return len(rows) - len({tuple(comparison_words(row.text)) for row in rows})


def report_lines(overlap: Overlap, name: str) -> list[str]:
    """The report as text, one fact on each line."""
    lines = [
        f"{name}: {overlap.train} training and {overlap.test} test rows",
        f"removed from training because a test row equals them: {overlap.removed}",
        *_pair_lines(overlap.removed_pairs, overlap.removed),
        f"training rows with {NGRAM_WORDS} words in a row of a test row, "
        f"{'removed, too' if overlap.near_removed else 'kept'}: {overlap.near}",
        *_pair_lines(overlap.near_pairs, overlap.near),
        f"rows that an earlier row of their split equals, kept: {overlap.repeated_train} in training, "
        f"{overlap.repeated_test} in test",
    ]
    return lines


def summary(overlap: Overlap) -> tuple[str, str]:
    """The report in two cells: the number of training rows, and what was done with rows that repeat a test row."""
    near = f"{overlap.near} {'removed' if overlap.near_removed else 'kept'} that share {NGRAM_WORDS} words in a row"
    return str(overlap.train), f"{overlap.removed} removed that equal a held-out row, {near} with one"


def _pair_lines(pairs: Sequence[RepeatedRow], num: int) -> Iterator[str]:
    for pair in pairs:
        yield f"  {pair.train} = {pair.test}: {pair.text}"
    if num > len(pairs):
        yield f"  ... and {num - len(pairs)} more"


def _ngrams(text: str) -> Iterator[tuple[str, ...]]:
    words = [word for word in comparison_words(text) if word[0].isalnum()]
    return (tuple(words[at : at + NGRAM_WORDS]) for at in range(len(words) - NGRAM_WORDS + 1))


def _beginning(text: str, width: int = 80) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 4] + " ..."
