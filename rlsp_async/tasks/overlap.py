"""Do the splits of a data set share prompts? Pure text work.

    remove_repeats(train, test)      the training rows that no test prompt equals, and the pairs that were taken apart
    near_repeats(train, test)        training rows that share 13 words in a row with a test prompt

Two prompts are equal when their words, numbers and signs are: case, blanks and punctuation are put aside, but brackets,
decimal points and operators stay, "2 - 3" is not "2 + 3". The second looks at words and numbers only, to find
contamination, as in appendix C of arXiv:2005.14165: sequences that stand in more than 10 training rows are left out,
they are the wording of the data set.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from rlsp_async.config import Section

NGRAM_WORDS = 13
COMMON = 10
"""A word sequence in more training rows than this says nothing."""
EXAMPLES = 5
"""Pairs of each kind that a report keeps."""
_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+|[^\s\w.,;:!?'\"`]|_")


class Place(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row as far as overlap goes: its text, and where it stands."""

    text: str
    source: str


class Pair(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A training row and the test row that it repeats."""

    train: str
    test: str
    text: str
    """The beginning of the training row, or the words that both share."""


class Overlap(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was removed, and what else looks alike; of each the first few pairs."""

    train: int
    """Training rows that are left."""
    test: int
    removed: int = 0
    removed_pairs: list[Pair] = []
    near: int = 0
    """Training rows that share NGRAM_WORDS words in a row with a test row."""
    near_pairs: list[Pair] = []
    near_removed: bool = False
    repeated_train: int = 0
    """Rows that an earlier row of the same split equals; they stay."""
    repeated_test: int = 0


def words(text: str) -> list[str]:
    """What two prompts are compared by."""
    return _WORD.findall(text.casefold())


def remove_repeats(train: Sequence[Place], test: Sequence[Place]) -> tuple[list[int], list[Pair]]:
    """Indices of the training rows that stay, and the pairs that equal each other."""
    seen = {tuple(words(row.text)): row.source for row in reversed(test)}
    kept, pairs = [], []
    for index, row in enumerate(train):
        source = seen.get(tuple(words(row.text)))
        if source is None:
            kept.append(index)
        else:
            pairs.append(Pair(train=row.source, test=source, text=_beginning(row.text)))
    return kept, pairs


def near_repeats(train: Sequence[Place], test: Sequence[Place]) -> tuple[list[int], list[Pair]]:
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
            pairs.append(Pair(train=train[index].source, test=known[gram], text=" ".join(gram)))
    return kept, pairs


def num_repeated(rows: Sequence[Place]) -> int:
    """Rows that an earlier one equals."""
    return len(rows) - len({tuple(words(row.text)) for row in rows})


def report_lines(overlap: Overlap, name: str) -> list[str]:
    """The report as text, one fact a line."""
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
    """The report in two cells: training rows, and what became of those that repeat a test row."""
    near = f"{overlap.near} {'removed' if overlap.near_removed else 'kept'} that share {NGRAM_WORDS} words in a row"
    return str(overlap.train), f"{overlap.removed} removed that equal a held-out row, {near} with one"


def _pair_lines(pairs: Sequence[Pair], num: int) -> Iterator[str]:
    for pair in pairs:
        yield f"  {pair.train} = {pair.test}: {pair.text}"
    if num > len(pairs):
        yield f"  ... and {num - len(pairs)} more"


def _ngrams(text: str) -> Iterator[tuple[str, ...]]:
    found = [word for word in words(text) if word[0].isalnum()]
    return (tuple(found[at : at + NGRAM_WORDS]) for at in range(len(found) - NGRAM_WORDS + 1))


def _beginning(text: str, width: int = 80) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 4] + " ..."
