"""T1's penalties (arXiv:2501.11651): a rollout with a fault of high temperatures earns -1, whatever its answer.

    r' = -1 where a rollout is repetitive, over-long or garbled, else r

The paper names the three faults and gives no rule; the rules are ours.

Shapes: B rollouts.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]

PENALTY = -1.0
NGRAM_TOKENS = 16
"""Longer than an attempt of the task `ops`, so that a search that takes the same step twice is no repetition."""
REPEATED_SHARE = 0.2
"""Above the largest share that 70 right rollouts of `ops` at temperature 1 had, .19."""
GARBLED_SHARE = 0.01
"""Share of unreadable characters above which a response is garbled."""
_WHITE = frozenset("\n\r\t")
_UNREADABLE = frozenset({"Cc", "Cn", "Co", "Cs"})
"""Unicode categories: control, unassigned, private use, surrogate."""


def repeated_share(ids: npt.NDArray[np.int32], num: int = NGRAM_TOKENS) -> float:
    """Share of the runs of `num` tokens that occurred earlier in the response.

    Example: (1, 2, 1, 2, 1), num 2 -> 2 of 4 runs, .5.

    Args:
        ids: token ids of the response.
        num: length of a run, in tokens.

    Returns:
        0 to 1; 0 for a response shorter than a run.
    """
    total = len(ids) - num + 1
    if total < 1:
        return 0.0
    runs = np.lib.stride_tricks.sliding_window_view(ids, num)
    return 1.0 - len({run.tobytes() for run in runs}) / total


def garbled_share(text: str) -> float:
    """Share of unreadable characters: U+FFFD, control, unassigned, private use.

    Example: "a" and U+FFFD -> .5.

    Args:
        text: the response.

    Returns:
        0 to 1; 0 for an empty response.
    """
    bad = sum(c == "\ufffd" or (c not in _WHITE and unicodedata.category(c) in _UNREADABLE) for c in text)
    return bad / len(text) if text else 0.0


def find_faults(
    names: Sequence[str], responses: Sequence[npt.NDArray[np.int32]], texts: Sequence[str], cut_B: Bools
) -> dict[str, Bools]:
    """The rollouts that have each of the named faults.

    Args:
        names: faults to look for: "repetition", "over_long", "garbled".
        responses: B responses, token ids.
        texts: B responses, as text.
        cut_B: whether the limit of tokens ended the response.

    Returns:
        bool [B] for each name.

    Raises:
        KeyError: another name.
    """
    rules: dict[str, Callable[[], Bools]] = {
        "repetition": lambda: np.array([repeated_share(ids) > REPEATED_SHARE for ids in responses], dtype=np.bool_),
        "over_long": lambda: cut_B,
        "garbled": lambda: np.array([garbled_share(text) > GARBLED_SHARE for text in texts], dtype=np.bool_),
    }
    return {name: rules[name]() for name in names}


def has_fault(faults: dict[str, Bools], num: int) -> Bools:
    """The rollouts that have any of the faults.

    Example: over-long (0, 1, 0), garbled (0, 0, 1) -> (0, 1, 1).

    Args:
        faults: bool [B] by name, from `find_faults`.
        num: B.

    Returns:
        bool [B].
    """
    fault_B: Bools = np.logical_or.reduce([np.zeros(num, dtype=np.bool_), *faults.values()])
    return fault_B
