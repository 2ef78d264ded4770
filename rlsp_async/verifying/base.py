r"""What a verifier is, how one is loaded by its name, and how verdicts are made.

    verifier = load_verifier("math")
    verifier.score("What is 2 + 2?", "... so \boxed{4}", "4").status == "correct"
    load_verifier("mine/lean.py", {"strict": True})         # a file of the user's own, with options

A verifier is a module that offers `VERSION` and `score(prompt, response, answer) -> Verdict | float`. A verifier with
options offers, instead of `score`, a class `Config` (a `rlsp_async.config.Section`) and `load(cfg)`, which returns an
object with such a `score`. A module may also offer

    LANE          how its checker processes live, see `Lane`; "isolated" when it says nothing
    READS_FILES   False when it opens no file after it has been loaded; the sandbox then forbids opening files

and the object of `load` may offer

    prepare(memory_mb)   called once in each checker process, before the process is confined
    needs_s              the time that one answer may take by design; `check_verifier` compares it with the deadline

`score` is synchronous and runs in a process that may be killed (`pool`), so it does no harm when it loops for ever or
takes all memory on malicious text. It never raises because of a bad response. It raises DataError for a prompt or a
reference answer that it cannot read; that is a fault of the data and becomes the status "error". When `score` returns a
number, 1 or more means `correct` and anything below means `wrong`.

A reference answer may be a list of acceptable ones (`rlsp_async.answers`). A verifier never sees the list: `judge` asks
it about one answer after the other, and the first that is `correct` decides. A module for which the parts of a list
belong together, as tests do, says `JOINS_ANSWERS = True` and is given the whole.

The object of `load`, or the module, may also offer

    reference_response(answer, demonstration)    a response that gives the reference answer, "" where none is known

    check_answer(prompt, answer)                 raises DataError for a reference answer that cannot be used

With the first every reference answer is judged before a run (preflight/references.py): a right response must be
`correct`. A verifier without it has no reference answers that could be judged, and is exempt. `demonstration` is the
response that the task provides for the prompt, else "".
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import msgspec

from rlsp_async.answers import split_answers
from rlsp_async.config import RunConfig
from rlsp_async.errors import ConfigError, DataError
from rlsp_async.messages import Verdict, VerifyItem
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
"""How the checker processes of a verifier live.

fast: one process judges many answers; for code that only reads them.
isolated: a fresh fork for every single answer; for code that may run what a model wrote.
network: as fast, but connections may be opened.
program: as fast, but not confined; for starting programs of the user's own.
"""
MAX_EXTRACTED_CHARS = 500


class Scorer(Protocol):
    """What scores: a verifier's module, or the object that its `load` returns."""

    def score(self, prompt: str, response: str, answer: str) -> Verdict | float:
        """Judges one response."""
        ...


class Verifier(msgspec.Struct, frozen=True, kw_only=True):
    """A verifier that has been loaded with its options."""

    name: str
    """The name that verdicts carry, with the version: "math/2"."""
    VERSION: str
    """The verifier's version; raised when a verdict may come out differently. Kept with every verdict."""
    lane: Lane
    scorer: Scorer

    reference: Callable[[str, str], str] | None = None
    """`reference_response` of the verifier; None: it has no reference answers that could be judged before a run."""
    joins_answers: bool = False
    """Whether a list of answers is one reference answer for this verifier (`JOINS_ANSWERS` of the module)."""
    reads_files: bool = True
    """False (`READS_FILES` of the module): the verifier opens no file once it is loaded, and the sandbox forbids it."""

    def score(self, prompt: str, response: str, answer: str) -> Verdict | float:
        """Returns what the module or its object returns.

        The parts of a verdict hold "correct" (0 or 1) and "format" (1 when an answer was found).
        """
        return self.scorer.score(prompt, response, answer)

    def judge(self, prompt: str, response: str, answer: str) -> Verdict:
        """Returns the score as a verdict.

        Where several answers are acceptable, the verdict is that of the first which is correct; else one that says
        nothing about the answer (timeout, error); else the best. An acceptable answer that cannot be read is left out
        as long as another one can be read.

        Raises:
            TypeError: `score` returned neither a verdict nor a number.
            ValueError: `score` returned a number that is not finite.
            DataError: the prompt or every acceptable answer cannot be read.
            Exception: whatever else `score` raises.
        """
        acceptable = self.acceptable_answers(answer)
        if len(acceptable) == 1:
            return as_verdict(self.score(prompt, response, answer))
        verdicts: list[Verdict] = []
        unreadable: DataError | None = None
        for one in acceptable:
            try:
                verdicts.append(as_verdict(self.score(prompt, response, one)))
            except DataError as e:
                unreadable = unreadable or e
                continue
            if verdicts[-1].status == "correct":
                return verdicts[-1]
        if not verdicts and unreadable:
            raise unreadable
        return max(verdicts, key=lambda v: (not v.is_true, v.status == "wrong", v.parts.get("score", 0.0)))

    def judge_item(self, item: VerifyItem) -> Verdict:
        """Returns the verdict on a rollout: on its claim, if the verifier reads claims, else on its text.

        The parts that the environment claims stand beside those of a verdict on the text, which come first.

        Raises:
            Exception: as `judge`.
        """
        score_claim = getattr(self.scorer, "score_claim", None)
        if score_claim is not None:
            return as_verdict(score_claim(item.claim, item.ended))
        verdict = self.judge(item.prompt, item.response, item.answer)
        return msgspec.structs.replace(verdict, parts={**item.claim, **verdict.parts}) if item.claim else verdict

    def reference_response(self, answer: str, demonstration: str) -> str:
        """A response that gives a reference answer; "": none is known, or the verifier is exempt.

        Args:
            answer: the reference answer of a prompt, or one of its acceptable answers.
            demonstration: the response that the task provides for it; "": none.
        """
        return self.reference(answer, demonstration) if self.reference else ""

    def acceptable_answers(self, answer: str) -> list[str]:
        """The answers in a reference answer of which any one is right; one, if this verifier takes a list as a whole.

        Args:
            answer: the reference answer of a prompt.
        """
        return [answer] if self.joins_answers else split_answers(answer)

    def can_read(self, prompt: str, answer: str) -> bool:
        """Whether the verifier can use a reference answer, as far as it knows without a response (`check_answer`).

        Args:
            prompt: the text of the prompt.
            answer: its reference answer.
        """
        check = getattr(self.scorer, "check_answer", None)
        try:
            if check is not None:
                check(prompt, answer)
        except DataError:
            return False
        return True

    def prepare(self, memory_mb: int) -> None:
        """Lets the verifier prepare a checker process that has not been confined and has read nothing yet.

        Args:
            memory_mb: the memory limit of the checker, MiB.
        """
        if hasattr(self.scorer, "prepare"):
            self.scorer.prepare(memory_mb)


def load_verifier(name: str, options: dict[str, Any] | None = None) -> Verifier:
    """Loads the verifier that a run names.

    Args:
        name: a short name ("math"), a dotted module, or the path of a file that ends with ".py".
        options: the table `task.verifier_options` of the run.

    Raises:
        ConfigError: there is no such verifier, or it has no such option; the error gives the nearest name.
    """
    module = VERIFIERS.find(name)
    version, short = str(module.VERSION), Path(name).stem if name.endswith(".py") else name.rpartition(".")[2]
    scorer = _load_scorer(module, name, options or {})
    return Verifier(
        name=f"{short}/{version}",
        VERSION=version,
        lane=_read_lane(module, name),
        reads_files=getattr(module, "READS_FILES", True),
        joins_answers=getattr(module, "JOINS_ANSWERS", False),
        reference=getattr(scorer, "reference_response", None) or getattr(module, "reference_response", None),
        scorer=scorer,
    )


def check_verifier(cfg: RunConfig) -> None:
    """Checks that the verifier of a run takes its options, and that its deadline leaves the time that it needs.

    Raises:
        ConfigError: there is no such verifier or option, or `verifier.deadline_s` is not above its `needs_s`.
    """
    verifier = load_verifier(verifier_name(cfg), verifier_options(cfg))
    needs_s = float(getattr(verifier.scorer, "needs_s", 0.0))
    if needs_s >= cfg.verifier.deadline_s:
        raise ConfigError(
            f"verifier.deadline_s = {cfg.verifier.deadline_s:g}: verifier {verifier.name} may take "
            f"{needs_s:g} s and would be killed before it gives up; set it above {needs_s:g}"
        )


def verifier_name(cfg: RunConfig) -> str:
    """Returns the name of a run's verifier: the one that the run names, else that of its task."""
    return cfg.task.verifier or load_task(cfg.task, cfg.seed).verifier


def verifier_options(cfg: RunConfig) -> dict[str, Any]:
    """Returns the options of a run's verifier; `claim` is told the run's environment, where its options name none."""
    environment = cfg.task.environment.get("name", "")
    if verifier_name(cfg) == "claim" and environment:
        return {"environment": environment, **cfg.task.verifier_options}
    return cfg.task.verifier_options


# --- verdicts --------------------------------------------------------------------------------------------------------


def make_verdict(correct: bool, extracted: str, **parts: float) -> Verdict:
    """Makes the verdict on a response in which an answer was found.

    Args:
        correct: whether the answer is right.
        extracted: the answer as written in the response; cut after MAX_EXTRACTED_CHARS.
        parts: further parts of the score, beside "correct" and "format".
    """
    return Verdict(
        status="correct" if correct else "wrong",
        extracted=extracted[:MAX_EXTRACTED_CHARS],
        parts={"correct": float(correct), "format": 1.0, **parts},
    )


def make_unparsable(detail: str, **parts: float) -> Verdict:
    """Makes the verdict on a response in which no usable answer was found.

    Args:
        detail: why, in a few words.
        parts: further parts of the score, beside "correct" and "format".
    """
    return Verdict(status="unparsable", detail=detail, parts={"correct": 0.0, "format": 0.0, **parts})


def as_verdict(result: object) -> Verdict:
    """Turns what a `score` function returned into a verdict.

    Example: `as_verdict(0.5)` has the status "wrong" and 0.5 as the part "score".

    Raises:
        TypeError: the result is neither a verdict nor a number.
        ValueError: the result is a number that is not finite.
    """
    if isinstance(result, Verdict):
        return result
    if not isinstance(result, int | float):
        raise TypeError(f"score returned {type(result).__name__}, neither Verdict nor float")
    if result != result or abs(result) == float("inf"):
        raise ValueError(f"score returned {result}, not a finite number")
    return make_verdict(result >= 1, "", score=float(result))


# --- verifiers around another one ------------------------------------------------------------------------------------


def load_inner(name: str, options: dict[str, Any]) -> Verifier:
    """Loads the verifier inside another one: `format`, `length`, `abstain` and `judge` add parts to its verdict.

    Args:
        name: the option `inner` of the outer verifier.
        options: its option `inner_options`.

    Raises:
        ConfigError: there is no such verifier or option, or it does not run in the fast lane, as the outer one does.
    """
    inner = load_verifier(name, options)
    if inner.lane != "fast":
        raise ConfigError(
            f"task.verifier_options.inner: {name!r} runs in the {inner.lane} lane; only a verifier of "
            "the fast lane can be inside another one"
        )
    return inner


def add_parts(verdict: Verdict, **parts: float) -> Verdict:
    """Returns the verdict with further parts; a verdict with status timeout or error is returned unchanged."""
    return msgspec.structs.replace(verdict, parts={**verdict.parts, **parts}) if verdict.is_true else verdict


# --- loading ---------------------------------------------------------------------------------------------------------


def _read_lane(module: Any, name: str) -> Lane:
    lane: Lane = getattr(module, "LANE", "isolated")
    if lane not in get_args(Lane):
        raise ConfigError(f"task.verifier: {name!r} has LANE = {lane!r}; the lanes are {', '.join(get_args(Lane))}")
    return lane


def _load_scorer(module: Any, name: str, options: dict[str, Any]) -> Scorer:
    """The object that `load` makes of the options, or the module itself when it takes none."""
    if hasattr(module, "Config") and hasattr(module, "load"):
        scorer: Scorer = module.load(VERIFIERS.decode_options(name, module, options))
        return scorer
    if not hasattr(module, "score"):
        raise ConfigError(f"task.verifier: {name!r} offers neither score nor Config and load")
    if options:
        raise ConfigError(f"task.verifier_options: verifier {name!r} takes no options")
    module_scorer: Scorer = module
    return module_scorer
