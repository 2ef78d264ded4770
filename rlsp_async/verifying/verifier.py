"""What a verifier is: a module that offers `VERSION`, and one of

    score(prompt, response, answer) -> Verdict | float          without options
    Config, load(cfg) -> something with such a `score`          with options, those of `task.verifier_options`

    verifier = load_verifier("math")
    verifier.score("What is 2 + 2?", "... so \\boxed{4}", "4").status == "correct"

`score` is pure and synchronous and runs inside a killable process (`pool.py`); it may loop for ever or take all the
memory on bad text without harm. It never raises for a bad response, only (DataError) for a reference answer or a
prompt that it cannot read: that is a fault of the data, and becomes status "error".
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, cast

import msgspec

from rlsp_async import config
from rlsp_async.config import RunConfig
from rlsp_async.errors import ConfigError
from rlsp_async.messages import Verdict
from rlsp_async.modules import find_module
from rlsp_async.tasks.base import load_task

PACKAGE = "rlsp_async.verifying"
NEEDS = ("VERSION",)
Lane = Literal["fast", "isolated", "network", "trusted"]
"""Where a verifier's checkers run; a module says `LANE = "fast"`.

fast      one process judges many answers: for code that only reads them
isolated  a fresh fork for every single answer: for code that may run what a model wrote (the default)
network   as fast, but it may open connections: for a judge behind an address
trusted   as fast, and not confined at all: for a program of the user's that has to be started
"""
LANES: tuple[Lane, ...] = ("fast", "isolated", "network", "trusted")


@dataclass(frozen=True)
class Verifier:
    """A verifier that is ready to judge."""

    name: str
    """As verdicts name it, with its version: "math/2"."""
    score: Callable[[str, str, str], Verdict | float]
    """(prompt, response, answer) -> verdict; parts hold "correct" (0 or 1) and "format" (1: an answer was found)."""
    lane: Lane = "isolated"
    VERSION: str = ""
    """Rises when a verdict may come out differently; kept with every verdict."""

    def judge(self, prompt: str, response: str, answer: str) -> Verdict:
        """The verdict, also of a `score` that answers with a number: 1 or more is correct.

        Raises TypeError or ValueError for what is neither a Verdict nor a finite number, and whatever `score` raises.
        """
        result = self.score(prompt, response, answer)
        if isinstance(result, Verdict):
            return result
        if not isinstance(result, int | float):
            raise TypeError(f"score returned {type(result).__name__}, not Verdict or a number")
        if not math.isfinite(result):
            raise ValueError(f"score returned {result}")
        return Verdict(status="correct" if result >= 1 else "wrong",
                       parts={"correct": float(result >= 1), "score": float(result), "format": 1.0})


def load_verifier(name: str, options: dict[str, Any] | None = None) -> Verifier:
    """The verifier that a run names: one of ours, a dotted module, or a file whose name ends with .py.

    Raises ConfigError with the nearest name when there is none, or for an option that it does not take.
    """
    module = _file(Path(name)) if name.endswith(".py") else find_module(name, PACKAGE, "task.verifier", NEEDS)
    lane = getattr(module, "LANE", "isolated")
    if lane not in LANES:
        raise ConfigError(f"task.verifier: {name!r} says LANE = {lane!r}; there are {', '.join(LANES)}")
    version = str(module.VERSION)
    return Verifier(f"{Path(name).stem if name.endswith('.py') else name.rpartition('.')[2]}/{version}",
                    _scorer(module, name, options or {}), lane, version)


def _scorer(module: ModuleType, name: str, options: dict[str, Any]) -> Callable[[str, str, str], Verdict | float]:
    if hasattr(module, "load") and hasattr(module, "Config"):
        scorer = module.load(_options(module.Config, name, options))
        return cast(Callable[[str, str, str], Verdict | float], scorer.score)
    if not hasattr(module, "score"):
        raise ConfigError(f"task.verifier: module {name!r} offers neither score nor Config and load")
    if options:
        raise ConfigError(f"task.verifier_options: verifier {name!r} takes no options")
    return cast(Callable[[str, str, str], Verdict | float], module.score)


def _options(kind: type[Any], name: str, options: dict[str, Any]) -> Any:
    """The options as the module's Config; the error names `task.verifier_options.KEY`."""
    inner = msgspec.defstruct("_Options", [("verifier_options", kind)], bases=(config.Section,), frozen=True,
                              kw_only=True)
    outer = msgspec.defstruct("_Task", [("task", inner)], bases=(config.Section,), frozen=True, kw_only=True)
    table = {"task": {"verifier_options": options}}
    return config.convert(table, outer, f"verifier {name!r}").task.verifier_options  # type: ignore[attr-defined]


def _file(path: Path) -> ModuleType:
    """A verifier of the user's that is a file. An error inside it rises as it is: its traceback says what is wrong."""
    if not path.is_file():
        raise ConfigError(f"task.verifier: {path}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "VERSION"):
        raise ConfigError(f"task.verifier: {path}: offers no VERSION; add VERSION = \"1\"")
    return module


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
