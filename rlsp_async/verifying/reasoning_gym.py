"""Verifier of reasoning-gym's tasks: the answer that stands in the response, scored by the task's own scorer.

    score("...", "... <answer>41</answer>", answer).status == "correct"        # answer: an item as JSON, from the task

`correct` from a score of 1 on; less is `wrong` and stands in the part "score". What its scorers get wrong is put right
here: nine of them run the text of the answer as Python. Two of those (countdown, puzzle24) are replaced by our own
reader of expressions, the other seven see only text that cannot call, name or fetch anything. Where a scorer is known
to accept what is wrong (game_of_life_halting: everything; coin_flip: the first digits; spell_backward: letters behind
the word), the answer is compared with the reference instead.
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
from rlsp_async.errors import DataError
from rlsp_async.messages import Verdict
from rlsp_async.tasks.reasoning_gym import answer_item, import_gym, make_dataset
from rlsp_async.verifying import countdown
from rlsp_async.verifying.base import judged, unparsable
from rlsp_async.verifying.extract import find_answer

VERSION = "1"
LANE = "isolated"

_LISTS = frozenset({"binary_matrix", "spiral_matrix", "string_insertion", "n_queens"})
_LIST = re.compile(r"(?!.*\bfor\b)[\w\s,\[\]'\"-]*", re.DOTALL | re.ASCII)
_FORMULAS = frozenset({"polynomial_multiplication", "simple_integration", "intermediate_integration"})
_FORMULA = re.compile(
    r"(?:[\d\s+\-*/().,]|(?<![A-Za-z])(?:[A-Za-z]|sin|cos|tan|exp|log|ln|sqrt|pi)(?![A-Za-z]))*", re.ASCII
)
_TOWER = re.compile(r"\*\*[(-]{0,4}(?:\d{4}|[\w.]{1,9}\){0,2}\*\*)")
_EXACT = frozenset({"game_of_life_halting", "spell_backward"})
_NUMBER = re.compile(r"\d{1,9}/\d{1,9}|\d{0,9}\.?\d{1,18}|\d{1,9}\.", re.ASCII)
_TOLERANCE = Fraction(1, 10_000)
_UNREADABLE = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, SyntaxError)


class ReasoningGymConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `reasoning_gym`."""

    dataset: str = ""
    """One that is made in advance, for those that take seconds to begin (arc_agi); empty: none."""


Config = ReasoningGymConfig


class ReasoningGymVerifier:
    """Scores items of any of the data sets."""

    def score(self, prompt: str, response: str, answer: str) -> Verdict:
        """The verdict. Raises DataError when the reference answer is no item."""
        name, params, item = answer_item(answer)
        if name in ("countdown", "puzzle24"):
            return _expression(prompt, response, item["metadata"])
        found = find_answer(response, numbers=False)
        if found is None:
            return unparsable("no answer found", score=0.0)
        if not is_harmless(name, found):
            return unparsable(f"not an answer to {name}: {found[:80]!r}", score=0.0)
        if name in _EXACT:
            return _compared(found.casefold() == str(item["answer"]).casefold(), found)
        if name == "coin_flip":
            return _compared(is_same_number(found, str(item["answer"])), found)
        return _verdict(name, _dataset(name, json.dumps(params)), item, found)


def load(cfg: ReasoningGymConfig) -> ReasoningGymVerifier:
    """Loads reasoning-gym. Raises MachineError when it is not installed."""
    import_gym()
    if cfg.dataset:
        _dataset(cfg.dataset, "{}")
    return ReasoningGymVerifier()


def is_harmless(name: str, text: str) -> bool:
    """Whether a scorer that runs the text as Python may see it."""
    if name in _LISTS:
        return bool(_LIST.fullmatch(text)) and "__" not in text.replace("_ _", "")
    if name in _FORMULAS:
        return bool(_FORMULA.fullmatch(text)) and not _TOWER.search("".join(text.split()))
    return True


def is_same_number(found: str, reference: str) -> bool:
    """Whether two probabilities, decimal or as a fraction, are the same within 0.0001, the scorer's own tolerance."""
    if not _NUMBER.fullmatch(found):
        return False
    try:
        return abs(Fraction(found) - Fraction(reference)) <= _TOLERANCE
    except ZeroDivisionError:
        return False


def _compared(correct: bool, found: str) -> Verdict:
    return judged(correct, found, score=float(correct))


def _verdict(name: str, dataset: Any, item: dict[str, Any], found: str) -> Verdict:
    """What its scorer says. A scorer that raises cannot read the text, if it can read the reference answer."""
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            value = float(dataset.score_answer(found, item))
        except _UNREADABLE as e:
            try:
                dataset.score_answer(item["answer"], item)
            except _UNREADABLE as worse:
                raise DataError(f"the scorer of {name} raises for its own reference answer: {worse!r}") from None
            return unparsable(f"{name} cannot read it: {type(e).__name__}", score=0.0)
    return judged(value >= 1, found, score=value)


@functools.lru_cache(maxsize=16)
def _dataset(name: str, params: str) -> Any:
    """The data set for its scorer; of one item, because some make all items at once."""
    return make_dataset(name, json.loads(params), 0, 1)


def _expression(prompt: str, response: str, metadata: dict[str, Any]) -> Verdict:
    """Each number once, as the question says; the scorer of puzzle24 takes any four numbers."""
    numbers = " ".join(str(number) for number in metadata["numbers"])
    verdict = countdown.score(prompt, response, f"{numbers} -> {metadata.get('target', 24)}")
    verdict.parts["score"] = verdict.parts["correct"]
    return verdict
