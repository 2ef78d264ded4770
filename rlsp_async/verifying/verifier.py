"""What a verifier is: a module that offers `VERSION` and `score(prompt, response, answer) -> Verdict`.

    verifier = load_verifier("math")
    verifier.score("What is 2 + 2?", "... so \\boxed{4}", "4").status == "correct"

`score` is pure and synchronous and runs inside a killable process (`pool.py`); it may loop for ever or take all the
memory on bad text without harm. It never raises for a bad response, only (DataError) for a reference answer or a
prompt that it cannot read: that is a fault of the data, and becomes status "error".
"""

from __future__ import annotations

from typing import Protocol, cast

from rlsp_async.config import RunConfig
from rlsp_async.messages import Verdict
from rlsp_async.modules import find_module
from rlsp_async.tasks.base import load_task

PACKAGE = "rlsp_async.verifying"
NEEDS = ("VERSION", "score")


class Verifier(Protocol):
    """A verifier module."""

    VERSION: str
    """Rises when a verdict may come out differently; kept with every verdict."""

    def score(self, prompt: str, response: str, answer: str) -> Verdict:
        """The verdict on one response; parts hold "correct" (0 or 1) and "format" (1 when an answer was found)."""
        ...


def load_verifier(name: str) -> Verifier:
    """The verifier module that a run names. Raises ConfigError with the nearest name when there is none."""
    return cast(Verifier, find_module(name, PACKAGE, "task.verifier", NEEDS))


def lane_of(verifier: Verifier) -> str:
    """`fast`: a process judges many answers, for code that only reads them. `isolated` (the default): a fresh fork for
    every single answer, for code that may run what a model wrote. A verifier module says `LANE = "fast"`."""
    return "fast" if getattr(verifier, "LANE", "isolated") == "fast" else "isolated"


def verifier_name(cfg: RunConfig) -> str:
    """The verifier of a run: the one it names, else its task's own."""
    return cfg.task.verifier or load_task(cfg.task, cfg.seed).verifier


def judged(correct: bool, extracted: str, **parts: float) -> Verdict:
    """A verdict on an answer that was found."""
    return Verdict(status="correct" if correct else "wrong", extracted=extracted[:500],
                   parts={"correct": float(correct), "format": 1.0, **parts})


def unparsable(detail: str, **parts: float) -> Verdict:
    """A verdict on a response in which no usable answer was found."""
    return Verdict(status="unparsable", detail=detail, parts={"correct": 0.0, "format": 0.0, **parts})
