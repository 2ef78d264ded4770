"""What a verifier is: a module that offers `VERSION` and `score(prompt, response, answer) -> Verdict | float`.

    verifier = load_verifier("math")
    verifier.score("What is 2 + 2?", "... so \\boxed{4}", "4").status == "correct"
    load_verifier("mine/lean.py", {"strict": True})         # a file of the user's own, with options

A verifier with options offers `Config` (a `rlsp_async.config.Section`) and `load(cfg) -> object with score` instead.
`score` is synchronous and runs inside a killable process (`pool.py`); it may loop for ever or take all the memory on
bad text without harm. It never raises for a bad response, only (DataError) for a reference answer or a prompt that it
cannot read: that is a fault of the data, and becomes status "error". A float x stands for `correct` from 1 on.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from rlsp_async.config import RunConfig
from rlsp_async.errors import ConfigError
from rlsp_async.messages import Verdict
from rlsp_async.plugins import PluginFamily
from rlsp_async.tasks.base import load_task

VERIFIERS = PluginFamily(
    noun="verifier",
    package="rlsp_async.verifying",
    setting="task.verifier",
    options="task.verifier_options",
    needs=("VERSION",),
    files=True,
    advice='add VERSION = "1"',
)
Lane = Literal["fast", "isolated", "network", "program"]
Score = Callable[[str, str, str], Verdict | float]


class Verifier(msgspec.Struct, frozen=True, kw_only=True):
    """A verifier, its options settled."""

    name: str
    """As verdicts name it, with its version: "math/2"."""
    VERSION: str
    """Rises when a verdict may come out differently; kept with every verdict."""
    lane: Lane
    scorer: Any
    """The module, or what its `load` has made."""

    reads_files: bool = True
    """False (`READS_FILES` of the module): once loaded it opens no file, and is confined so."""

    def score(self, prompt: str, response: str, answer: str) -> Verdict | float:
        """What the module or its object says; parts hold "correct" (0 or 1) and "format" (1: an answer was found)."""
        result: Verdict | float = self.scorer.score(prompt, response, answer)
        return result

    def judge(self, prompt: str, response: str, answer: str) -> Verdict:
        """The same as a verdict. Raises TypeError or ValueError for what is none, and whatever `score` raises."""
        return as_verdict(self.score(prompt, response, answer))

    def prepare(self, memory_mb: int) -> None:
        """Called once in a checker before it is confined and has read anything, if the verifier offers it."""
        if hasattr(self.scorer, "prepare"):
            self.scorer.prepare(memory_mb)


def load_verifier(name: str, options: dict[str, Any] | None = None) -> Verifier:
    """The verifier that a run names, with the run's options. Raises ConfigError with the nearest name when there is
    none, or the nearest option."""
    module = VERIFIERS.find(name)
    version, short = str(module.VERSION), Path(name).stem if name.endswith(".py") else name.rpartition(".")[2]
    return Verifier(
        name=f"{short}/{version}",
        VERSION=version,
        lane=_lane(module, name),
        reads_files=getattr(module, "READS_FILES", True),
        scorer=_scorer(module, name, options or {}),
    )


def check_verifier(cfg: RunConfig) -> None:
    """The verifier of a run takes its options, and the time it says that it may need (`needs_s`) is there.

    Raises ConfigError.
    """
    verifier = load_verifier(verifier_name(cfg), cfg.task.verifier_options)
    needs_s = float(getattr(verifier.scorer, "needs_s", 0.0))
    if needs_s >= cfg.verifier.deadline_s:
        raise ConfigError(
            f"verifier.deadline_s = {cfg.verifier.deadline_s:g}: verifier {verifier.name} may take "
            f"{needs_s:g} s and would be killed before it gives up; set it above {needs_s:g}"
        )


def as_verdict(result: object) -> Verdict:
    """What a score function returned. Example: as_verdict(0.5) is wrong, with 0.5 as the part "score"."""
    if isinstance(result, Verdict):
        return result
    if not isinstance(result, int | float):
        raise TypeError(f"score returned {type(result).__name__}, neither Verdict nor float")
    if result != result or abs(result) == float("inf"):
        raise ValueError(f"score returned {result}, not a finite number")
    return judged(result >= 1, "", score=float(result))


def verifier_name(cfg: RunConfig) -> str:
    """The verifier of a run: the one it names, else its task's own."""
    return cfg.task.verifier or load_task(cfg.task, cfg.seed).verifier


def judged(correct: bool, extracted: str, **parts: float) -> Verdict:
    """A verdict on an answer that was found."""
    return Verdict(
        status="correct" if correct else "wrong",
        extracted=extracted[:500],
        parts={"correct": float(correct), "format": 1.0, **parts},
    )


def unparsable(detail: str, **parts: float) -> Verdict:
    """A verdict on a response in which no usable answer was found."""
    return Verdict(status="unparsable", detail=detail, parts={"correct": 0.0, "format": 0.0, **parts})


# --- finding and loading -------------------------------------------------------------------------------------------


def _lane(module: Any, name: str) -> Lane:
    """`fast`: a process judges many answers, for code that only reads them. `isolated` (the default): a fresh fork for
    every single answer, for code that may run what a model wrote. `network`: as fast, but sockets are allowed.
    `program`: not confined at all, for starting programs of the user's own."""
    lane: Lane = getattr(module, "LANE", "isolated")
    if lane not in get_args(Lane):
        raise ConfigError(f"task.verifier: {name!r} says LANE = {lane!r}; there is {', '.join(get_args(Lane))}")
    return lane


def _scorer(module: Any, name: str, options: dict[str, Any]) -> Any:
    """What scores: the object that `load` makes of the options, or the module itself."""
    if hasattr(module, "Config") and hasattr(module, "load"):
        return module.load(VERIFIERS.decode_options(name, module, options))
    if not hasattr(module, "score"):
        raise ConfigError(f"task.verifier: {name!r} offers neither score nor Config and load")
    if options:
        raise ConfigError(f"task.verifier_options: verifier {name!r} takes no options")
    return module


# --- verifiers around another one -------------------------------------------------------------------------------------


def load_inner(name: str, options: dict[str, Any]) -> Verifier:
    """The inner verifier. Raises ConfigError for one that does not run in the fast lane: the outer one does."""
    inner = load_verifier(name, options)
    if inner.lane != "fast":
        raise ConfigError(
            f"task.verifier_options.inner: {name!r} runs in the {inner.lane} lane, and only one of the "
            "fast lane can stand inside another verifier"
        )
    return inner


def with_parts(verdict: Verdict, **parts: float) -> Verdict:
    """The verdict with more parts; one on the verifier (timeout, error) stays as it is."""
    return msgspec.structs.replace(verdict, parts={**verdict.parts, **parts}) if verdict.is_true else verdict
