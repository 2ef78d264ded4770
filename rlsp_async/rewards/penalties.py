"""T1's penalties, arXiv:2501.11651: what high temperatures break earns -1, whatever its answer.

    r' = -1 where a rollout is repetitive, over-long or garbled, else r

The paper names the three faults and gives no rule; the rules are ours. B rollouts.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]

PENALTY = -1.0
NGRAM_TOKENS = 16
"""Longer than an attempt of `ops`, so that a search that meets the same step again is no repetition."""
REPEATED_SHARE = 0.2
"""Of 70 right rollouts of `ops` at temperature 1 none had so many repeated n-grams (largest .19)."""
GARBLED_SHARE = 0.01
_WHITE = frozenset("\n\r\t")
_UNREADABLE = frozenset({"Cc", "Cn", "Co", "Cs"})
"""Unicode categories: control, unassigned, private use, surrogate."""


def repeated_share(ids: npt.NDArray[np.int32], num: int = NGRAM_TOKENS) -> float:
    """Share of the runs of `num` tokens that occurred before. Example: (1, 2, 1, 2, 1), num 2 -> 2 of 4."""
    total = len(ids) - num + 1
    if total < 1:
        return 0.0
    runs = np.lib.stride_tricks.sliding_window_view(ids, num)
    return 1.0 - len({run.tobytes() for run in runs}) / total


def garbled_share(text: str) -> float:
    """Share of characters that nobody can read: U+FFFD, control, unassigned, private use. Example: "a\\ufffd" -> .5."""
    bad = sum(c == "\ufffd" or (c not in _WHITE and unicodedata.category(c) in _UNREADABLE) for c in text)
    return bad / len(text) if text else 0.0


def find(
    names: Sequence[str], responses: Sequence[npt.NDArray[np.int32]], texts: Sequence[str], cut_B: Bools
) -> dict[str, Bools]:
    """Who has each of the named faults."""
    rules: dict[str, Callable[[], Bools]] = {
        "repetition": lambda: np.array([repeated_share(ids) > REPEATED_SHARE for ids in responses], dtype=np.bool_),
        "over_long": lambda: cut_B,
        "garbled": lambda: np.array([garbled_share(text) > GARBLED_SHARE for text in texts], dtype=np.bool_),
    }
    return {name: rules[name]() for name in names}


def hit(faults: dict[str, Bools], num: int) -> Bools:
    """Who has any of the faults. Example: over-long (0, 1, 0), garbled (0, 0, 1) -> (0, 1, 1)."""
    hit_B: Bools = np.logical_or.reduce([np.zeros(num, dtype=np.bool_), *faults.values()])
    return hit_B
