"""Verifier of the tasks of reasoning-gym: finds the answer in the response and has the task's own scorer score it.

    score("...", "... <answer>41</answer>", answer).status == "correct"        # answer: an item as JSON, from the task

A score of 1 or more is `correct`, less is `wrong`; the part "score" holds it. Known faults of the scorers are corrected
here. Nine of them run the text of the answer as Python: two (countdown, puzzle24) are replaced by our own reader of
expressions, and the other seven see only text that cannot call, name or fetch anything. Some accept wrong answers
(game_of_life_halting accepts everything, coin_flip the first digits, spell_backward letters behind the word); there the
answer is compared with the reference instead.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import re
from fractions import Fraction
from typing import Any

from rlsp_async.config import Section
from rlsp_async.config.ranges import FieldName
from rlsp_async.errors import DataError
from rlsp_async.messages import Verdict
from rlsp_async.tasks.reasoning_gym import answer_item, import_gym, make_dataset
from rlsp_async.verifying import countdown
from rlsp_async.verifying.base import make_unparsable, make_verdict
from rlsp_async.verifying.extract import find_answer

VERSION = "1"
LANE = "isolated"

LISTS_RUN_AS_PYTHON = frozenset({"binary_matrix", "spiral_matrix", "string_insertion", "n_queens"})
_LIST = re.compile(r"(?!.*\bfor\b)[\w\s,\[\]'\"-]*", re.DOTALL | re.ASCII)
FORMULAS_RUN_AS_PYTHON = frozenset({"polynomial_multiplication", "simple_integration", "intermediate_integration"})
_FORMULA = re.compile(
    r"(?:[\d\s+\-*/().,]|(?<![A-Za-z])(?:[A-Za-z]|sin|cos|tan|exp|log|ln|sqrt|pi)(?![A-Za-z]))*", re.ASCII
)
_TOWER = re.compile(r"\*\*[(-]{0,4}(?:\d{4}|[\w.]{1,9}\){0,2}\*\*)")
_EXACT = frozenset({"game_of_life_halting", "spell_backward"})
_NUMBER = re.compile(r"\d{1,9}/\d{1,9}|\d{0,9}\.?\d{1,18}|\d{1,9}\.", re.ASCII)
_TOLERANCE = Fraction(1, 10_000)
_UNREADABLE = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, SyntaxError)


class ReasoningGymVerifierConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `reasoning_gym`."""

    dataset: FieldName = ""
    """Data set to make in advance, for those that take seconds to make (arc_agi); empty: none."""


Config = ReasoningGymVerifierConfig


class ReasoningGymVerifier:
    """The verifier `reasoning_gym`, for items of any data set."""

    def score(self, prompt: str, response: str, answer: str) -> Verdict:
        """Returns the verdict.

        Raises:
            DataError: the reference answer is not an item of a data set.
        """
        name, params, item = answer_item(answer)
        if name in ("countdown", "puzzle24"):
            return _judge_expression(prompt, response, item["metadata"])
        extracted = find_answer(response, numbers=False)
        if extracted is None:
            return make_unparsable("no answer found", score=0.0)
        if not is_harmless(name, extracted):
            return make_unparsable(f"not an answer to {name}: {extracted[:80]!r}", score=0.0)
        if name in _EXACT:
            return _comparison_verdict(extracted.casefold() == str(item["answer"]).casefold(), extracted)
        if name == "coin_flip":
            return _comparison_verdict(is_same_number(extracted, str(item["answer"])), extracted)
        return score_by_dataset(name, load_dataset(name, json.dumps(params)), item, extracted)


def load(cfg: ReasoningGymVerifierConfig) -> ReasoningGymVerifier:
    """Imports reasoning-gym and makes the verifier.

    Raises:
        MachineError: reasoning-gym is not installed.
    """
    import_gym()
    if cfg.dataset:
        load_dataset(cfg.dataset, "{}")
    return ReasoningGymVerifier()


def is_harmless(name: str, text: str) -> bool:
    """Whether the text may be shown to the scorer of data set `name`, which may run it as Python."""
    if name in LISTS_RUN_AS_PYTHON:
        return bool(_LIST.fullmatch(text)) and "__" not in text.replace("_ _", "")
    if name in FORMULAS_RUN_AS_PYTHON:
        return bool(_FORMULA.fullmatch(text)) and not _TOWER.search("".join(text.split()))
    return True


def is_same_number(extracted: str, reference: str) -> bool:
    """Whether two probabilities, as decimals or fractions, agree within 0.0001, the tolerance of the scorer."""
    if not _NUMBER.fullmatch(extracted):
        return False
    try:
        return abs(Fraction(extracted) - Fraction(reference)) <= _TOLERANCE
    except ZeroDivisionError:
        return False


def _comparison_verdict(correct: bool, extracted: str) -> Verdict:
    return make_verdict(correct, extracted, score=float(correct))


def score_by_dataset(name: str, dataset: Any, item: dict[str, Any], extracted: str) -> Verdict:
    """The verdict of the data set's scorer. A scorer that raises cannot read the text if it can read the reference."""
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            value = float(dataset.score_answer(extracted, item))
        except _UNREADABLE as e:
            try:
                dataset.score_answer(item["answer"], item)
            except _UNREADABLE as worse:
                raise DataError(f"the scorer of {name} raises for its own reference answer: {worse!r}") from None
            return make_unparsable(f"{name} cannot read it: {type(e).__name__}", score=0.0)
    return make_verdict(value >= 1, extracted, score=value)


@functools.lru_cache(maxsize=16)
def load_dataset(name: str, params: str) -> Any:
    """The data set, made for its scorer only; it has one item, because some data sets make all items at once."""
    return make_dataset(name, json.loads(params), 0, 1)


def _judge_expression(prompt: str, response: str, metadata: dict[str, Any]) -> Verdict:
    """Judges by `countdown`: each number once, as the question says. The scorer of puzzle24 takes any four numbers."""
    numbers = " ".join(str(number) for number in metadata["numbers"])
    verdict = countdown.score(prompt, response, f"{numbers} -> {metadata.get('target', 24)}")
    verdict.parts["score"] = verdict.parts["correct"]
    return verdict
