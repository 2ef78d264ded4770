"""Verifier `math`: whether two mathematical answers are equal.

In the order in which an answer passes through them (`rlsp_async.verifying.extract` finds the answer before):

    verifier           the options, the order of the comparisons, the verdict
    normalize          one spelling for one thing; plain numbers; words
    shapes             lists, tuples, sets, intervals, matrices, equations: taken apart and compared part by part
    parse              an expression, LaTeX or plain, as nested tuples
    evaluate           the values of two expressions: exact fractions, else 50 digits at several points
    computer_algebra   what is left over, by math-verify; the one file that knows this library

The names of the verifier are loaded when they are first used: it imports sympy, which takes about a second.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlsp_async.verifying.math.verifier import Config, MathConfig, MathVerifier, load, score

__all__ = ["LANE", "VERSION", "Config", "MathConfig", "MathVerifier", "load", "score"]

VERSION = "3"
LANE = "fast"


def reference_response(answer: str, demonstration: str) -> str:
    """A response that gives a reference answer, for the check before a run."""
    return f"\\boxed{{{answer}}}"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.verifier"), name)
