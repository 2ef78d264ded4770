r"""How the reply of a judge is read: a score in JSON or in prose, or nothing. Linear time.

    read_reply('{"score": 8e-1, "reason": "clear"}', rubric) == JudgeReply(0.8, "clear", False)
    read_reply("I give it 7 out of 10.", rubric) == JudgeReply(0.7, "", True)
    read_reply("2 ideas, 0.7", rubric) is None

A reply is read in this order: one JSON object with a score; the last JSON object in other text; the last number behind
a word such as "score" or in a mark such as `[[7]]`; the only number. A number may be a share: "7/10", "7 out of 10",
"70%". Where the rubric takes them, "yes" and "no" are the highest and the lowest score. A score outside of the range,
or two numbers of which neither is called the score, are no score: the judge is asked again, and nothing is guessed.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from typing import Any, NamedTuple

from rlsp_async.verifying.judge.rubric import Rubric
from rlsp_async.verifying.thoughts import split_thoughts

MAX_REPLY_CHARS = 20_000
"""Of a longer reply, only the end is read."""
MAX_TRIES = 64
"""Number of opening braces at which a JSON object is tried, from the last one backwards."""

_KEYS = ("score", "final_score", "overall_score", "total_score", "rating", "grade", "final_rating", "overall", "points")
_YES_KEYS = ("correct", "is_correct", "verdict", "judgement", "judgment", "match", "equivalent", "answer", "result")
_REASONS = ("reason", "reasoning", "explanation", "rationale", "justification", "comment", "feedback")
_AMOUNT = r"[-+]?(?:0,\d{1,9}|\d{1,9}(?:\.\d{0,20})?|\.\d{1,20})(?:[eE][-+]?\d{1,3})?(?!\d)"
_SHARE = (
    rf"(?P<amount>{_AMOUNT})(?:\s?(?P<percent>%|per\s?cent\b)"
    rf"|[\s*\])]{{0,4}}(?:/|out\s+of)\s?[*(\[]{{0,2}}(?P<whole>{_AMOUNT}))?(?!\.?\w)"
)
_WHOLE = re.compile(rf"[\s\"'*_`$(\[]*{_SHARE}[\s\"'*_`$)\].!]*(?:points?|stars?)?[\s.!*]*")
_NUMBER = re.compile(rf"(?<![\w.,]){_SHARE}")
_MARKED = re.compile(
    r"(?:\b(?:score|rating|grade|mark|verdict|rate|result)s?\b[\"'*_`]{0,3}(?:\s+(?:of|is|as|it|this|at|would\s+be|:|=|the\s+response|a|an)){0,3}"
    rf"[\s:=\"'*_`(\[$]{{0,8}}|\[\[\s?|<(?:score|rating|grade)>\s{{0,3}}|\\boxed\{{\s?){_SHARE}",
    re.IGNORECASE,
)
_SCALE = re.compile(
    r"\b(?:scale|range|from|between)\s+(?:(?:of|from|is|between)\s+)?\[?[\d.]{1,9}\s?(?:to|-|\u2013|and|,)\s?[\d.]{1,9}\]?|\b[\d.]{1,9}\s?(?:-|\u2013|to)\s?[\d.]{1,9}\s+scale\b",
    re.IGNORECASE,
)
_YES = re.compile(r"(?:yes|true|correct|right|pass(?:ed)?|equivalent|the\s+same)", re.IGNORECASE)
_NO = re.compile(
    r"(?:no|false|incorrect|wrong|fail(?:ed)?|not\s+(?:correct|equivalent|the\s+same|right))", re.IGNORECASE
)
_SAID = re.compile(
    rf"(?:^|\b(?:verdict|judge?ment|answer|decision|final|conclusion|result|correct)\b[\s:=\"'*_`(\[]{{1,8}}|\[\[\s?|\\boxed\{{(?:\\text\{{)?)"
    rf"[\s*_`\"'(\[]{{0,4}}(?P<word>{_NO.pattern}|{_YES.pattern})(?![\w'\u2019-])(?!\s+(?:and|or|/)\b)",
    re.IGNORECASE,
)
_WORDS = {
    word: number
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
}
_NUMBER_WORD = re.compile(
    rf"(?<![\w-])(?:{'|'.join(_WORDS)})(?=\s+out\s+of\b|\s*(?:points?|[.!*]*$))|(?<=out\sof\s)(?:five|ten)\b",
    re.IGNORECASE,
)
_FENCE = re.compile(r"```(?:json|JSON)?")


class JudgeReply(NamedTuple):
    """A judge's score. `is_fallback`: the reply was more than a JSON object with a number, and was searched for it."""

    score: float
    reason: str
    is_fallback: bool


def read_reply(text: str, rubric: Rubric) -> JudgeReply | None:
    """Reads the score in a judge's reply.

    Args:
        text: the reply; what stands in thoughts is not read.
        rubric: gives the range of the score.

    Returns:
        The score with its reason, or None when there is no score or it is outside the range of the rubric.
    """
    spoken = split_thoughts(text[-MAX_REPLY_CHARS:])
    text = spoken.text.strip()
    if spoken.is_unfinished or not text:
        return None
    whole = _parse_object(text)
    if whole is not None and (strict := _read_table(whole, rubric, False)):
        return strict
    for candidate in _find_objects(text):
        if _find_key(candidate, _KEYS + (_YES_KEYS if rubric.takes_yes else ())) is not None:
            return _read_table(candidate, rubric, True)
    score = _read_prose(_FENCE.sub(" ", text), rubric)
    return None if score is None else JudgeReply(score, "", True)


def _find_objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text, the last one first; an inner object comes before the object around it."""
    at, decoder = len(text), json.JSONDecoder()
    for _ in range(MAX_TRIES):
        at = text.rfind("{", 0, at)
        if at < 0:
            return
        try:
            yield decoder.raw_decode(text, at)[0]
        except (ValueError, RecursionError):
            continue  # not the beginning of an object; an earlier brace may be


def _parse_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _find_key(table: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    """The key of a table that is the first of some, whatever its case."""
    known = {str(key).strip().casefold().replace(" ", "_"): key for key in table}
    return next((known[key] for key in keys if key in known), None)


def _read_table(table: dict[str, Any], rubric: Rubric, is_fallback: bool) -> JudgeReply | None:
    """The score of an object; None when it is not a number of the range."""
    key = _find_key(table, _KEYS)
    value = table[key] if key is not None else None
    if key is None and rubric.takes_yes and (key := _find_key(table, _YES_KEYS)) is not None:
        value = table[key] if isinstance(table[key], bool | str) else None
    reason_key = _find_key(table, _REASONS)
    reason = table[reason_key] if reason_key is not None and isinstance(table[reason_key], str) else ""
    if isinstance(value, bool):
        score = _yes_or_no("yes" if value else "no", rubric)
    elif isinstance(value, str):
        score = _read_text(value, rubric)
    else:
        score = float(value) if isinstance(value, int | float) and abs(value) < 1e300 else None
    if score is None or not rubric.lowest <= score <= rubric.highest:
        return None
    return JudgeReply(
        score, reason, is_fallback or key != "score" or not isinstance(value, int | float) or isinstance(value, bool)
    )


def _read_text(text: str, rubric: Rubric) -> float | None:
    """The score that a whole text is."""
    text = _plain(text)
    match = _WHOLE.fullmatch(text)
    return _yes_or_no(text, rubric) if match is None else _scale(match, rubric)


def _read_prose(text: str, rubric: Rubric) -> float | None:
    """The score in a text: marked as such, else the only number, else a yes or no; None when it cannot be told."""
    text = _SCALE.sub(" ", _plain(text))
    marked = list(_MARKED.finditer(text))
    if marked:
        return _scale(marked[-1], rubric)
    numbers = list(_NUMBER.finditer(text))
    if len(numbers) == 1:
        return _scale(numbers[0], rubric)
    said = list(_SAID.finditer(text)) if rubric.takes_yes and (not numbers or _SAID.match(text)) else []
    if len({_NO.fullmatch(match["word"]) is None for match in said}) != 1:
        return None
    return _yes_or_no(said[-1]["word"], rubric)


def _plain(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).replace("\u2044", "/").replace("\u2212", "-")
    return _NUMBER_WORD.sub(lambda match: str(_WORDS[match[0].lower()]), text)


def _scale(match: re.Match[str], rubric: Rubric) -> float | None:
    """The score that a number stands for: as written, or as a share of the range. None when it is outside of it."""
    amount = float(match["amount"].replace(",", "."))
    span = rubric.highest - rubric.lowest
    if match["percent"]:
        score = rubric.lowest + amount / 100 * span
    elif match["whole"] is None:
        score = amount
    else:
        whole = float(match["whole"].replace(",", "."))
        if whole == rubric.highest:
            score = amount
        elif rubric.lowest == 0 and whole > 0 and 0 <= amount <= whole:
            score = amount / whole * rubric.highest
        else:
            return None
    return score if rubric.lowest <= score <= rubric.highest else None


def _yes_or_no(text: str, rubric: Rubric) -> float | None:
    word = text.strip(" \t\n\"'*_`.!()[]")
    if not rubric.takes_yes:
        return None
    if _YES.fullmatch(word):
        return rubric.highest
    return rubric.lowest if _NO.fullmatch(word) else None
