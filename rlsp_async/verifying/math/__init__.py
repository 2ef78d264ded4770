"""Verifier `math`: whether two mathematical answers are equal.

In the order in which an answer passes through them (`rlsp_async.verifying.extract` finds the answer before):

    verifier           the options, the order of the comparisons, the verdict
    normalize          one spelling for one thing
    literals, units    numbers and what stands beside them, read from end to end or not at all
    brackets, phrases  where a text may be split; words around a value that do not change it
    words              answers that are words
    shapes             an answer taken apart: list, tuple, set, interval, matrix, equation, inequality, congruence
    compare            two shapes, by named rules; equations, regions, scalars: the rules of one kind each
    parse, evaluate    an expression as nested tuples, and its values: exact fractions, else 50 digits at several points
    computer_algebra   what is left over, by math-verify; the one file that knows this library

The names of the verifier are loaded when they are first used: it imports sympy, which takes about a second.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlsp_async.verifying.math.verifier import Config, MathConfig, MathVerifier, load, score

__all__ = ["LANE", "VERSION", "Config", "MathConfig", "MathVerifier", "load", "score"]

VERSION = "4"
LANE = "fast"


def reference_response(answer: str, demonstration: str) -> str:
    """A response that gives a reference answer, for the check before a run."""
    return f"\\boxed{{{answer}}}"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.verifier"), name)
