r"""The sentence that gives the answer: "the answer is ...", and which value of a sentence is meant.

    find_clause("So the answer is the largest $n$, which is 34. Done.").text == "the largest $n$, which is 34"
    choose_value("the largest $n$, which is 34") == "34"           choose_value("34, not 35") == "34"
    choose_value("17 times 2, that is 34") == "34"                 choose_value("4 or 5") == "4 or 5"

Of several values in a sentence the one is meant that the sentence begins with, unless it is said again ("17 times 2,
that is 34"), else the last one behind a verb ("the value of $x+y$ is 34"). What follows "because", "for" or "when"
does not count, and a value that is denied never does.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rlsp_async.verifying.atoms import has_prose, remove_marks
from rlsp_async.verifying.values import Value, find_values

MAX_TRIES = 8
"""Number of sentences that speak of the answer and are tried, from the last one backwards."""

MIN_SENTENCE_WORDS = 3
"""Out of fewer words a value is taken only where a verb or the begin of the clause points to it; `June 5` stays."""

_ENGLISH = (
    r"(?:answers?|ans|solution\sset)\b(?:\s(?:to|of|for|in)\s[^.\n:=]{1,80}?)?[*_]{0,3}\s{0,3}"
    r"(?:(?:\b(?:is|are|was|would\sbe|will\sbe|should\sbe|must\sbe|has\sto\sbe|can\sbe|equals?|becomes|comes\sout\sto(?:\sbe)?"
    r"|turns\sout\sto\sbe)\b(?!\s(?:not|n't)\b(?!\s\S+\sbut))|:|=|\uff1a|\))[*_:\s]{0,6}){1,3}"
)
_CJK = (
    r"(?:\u7b54\u6848|\u7b54|\u7ed3\u679c|\u6700\u7ec8\u7b54\u6848|\u6b63\u786e\u7b54\u6848|\u7b54\u3048|\u6b63\u89e3)"
    r"[\u3011\]*_\s]{0,4}(?:\u662f|\u4e3a|\u70ba|\u7b49\u4e8e|\u306f|[:\uff1a]|(?<=[\u3011\]]))[*_:\uff1a\s]{0,6}"
    r"|(?:\uc815\ub2f5|\ub2f5)(?:\uc740|:|\s:)\s{0,3}"
)
_OTHER = (
    r"(?:antwort(?:\s(?:ist|lautet|w\u00e4re)|:)|l\u00f6sung(?:\s(?:ist|lautet)|:)|r\u00e9ponse(?:\sfinale)?(?:\sest|\s?:)"
    r"|respuesta(?:\s(?:correcta|final))?(?:\ses|:)|risposta(?:\s(?:corretta|finale))?(?:\s\u00e8|:)"
    r"|resposta(?:\s(?:correta|final))?(?:\s\u00e9|:)|antwoord(?:\sis|:)|svaret\s(?:\u00e4r|er)|svar:"
    r"|odpowied\u017a(?:\sto|\sbrzmi|:)|cevap(?::|\s)|jawaban(?:nya)?(?:\s(?:akhir|yang\sbenar))?(?:\sadalah|:)"
    r"|vastaus(?:\son|:)|r\u0103spuns(?:ul)?(?:\s(?:corect|final))?(?:\seste|:)|odpov\u011b\u010f(?:\sje|:)"
    r"|\u0111\u00e1p\s\u00e1n(?:\s(?:\u0111\u00fang|cu\u1ed1i\sc\u00f9ng))?(?:\sl\u00e0|:)|c\u00e2u\str\u1ea3\sl\u1eddi(?:\sl\u00e0|:))\s{0,3}"
    r"|(?:\u043e\u0442\u0432\u0435\u0442|\u0432\u0456\u0434\u043f\u043e\u0432\u0456\u0434\u044c)\s{0,2}(?::|-|\u2013|\u2014|\u0440\u0430\u0432\u0435\u043d)?\s{0,3}"
    r"|(?:\u0627\u0644\u0625\u062c\u0627\u0628\u0629|\u0627\u0644\u062c\u0648\u0627\u0628)\s{0,2}(?:\u0647\u064a|\u0647\u0648|:)\s{0,3}"
    r"|(?:\u0909\u0924\u094d\u0924\u0930)\s{0,2}(?:\u0939\u0948|:)\s{0,3}"
)
_ANSWER_IS = re.compile(f"{_ENGLISH}|{_CJK}|{_OTHER}", re.IGNORECASE)
_STEM = re.compile(
    "ans|soluti|l\u00f6s|antw|r\u00e9p|resp|risp|svar|odpo|ceva|jawa|vast|r\u0103sp|\u0111\u00e1|c\u00e2u|\u043e\u0442\u0432|\u0432\u0456\u0434"
    "|[\u7b54\u7ed3\u6700\u6b63\ub2f5\uc815\u0627\u0909]"
)
"""How the words begin that `_ANSWER_IS` may match; in lower case."""
_HEADING = re.compile(
    r"(?:^|\n)[ \t#*_>]{0,12}(?:the\s)?(?:final\s)?answers?[ \t*_:]{0,8}\n+(?=[ \t]*\S)", re.IGNORECASE
)
_FINAL = re.compile(
    r"final\s{1,3}(?:answer|result)|(?:\u6700\u7ec8|\u6700\u5f8c\u306e|\u6700\u7d42)\u7b54", re.IGNORECASE
)
_DISPLAY = re.compile(r"(?:\$\$(?:[^$\\]|\\.){1,2000}\$\$|\\\[(?:(?!\\[\[\]]).){1,2000}\\\])(?=[\s.,;*]|$)", re.DOTALL)
_SEVERAL_LINES = re.compile(r"\$(?!\$)(?:[^$\\\n]|\\.){0,500}\n(?:[^$\\]|\\.){0,500}\$")
_STOP = re.compile(
    r"(?<!\\)(?<!\b(?:sq|ca|cf|vs|St|Mr|Dr|ft|in|cu))(?<!\bapprox)(?<!\bresp)(?<!\b[ei]\.[eg])[.!?;](?=[\s*_\"')\]]|$)|[\u3002\uff01\uff1f\uff1b]"
)
_POINTS_BACK = re.compile(
    r"(?:(?:indeed|also|therefore|thus|now|then)\s)?(?:correct|right|verified|confirmed|consistent|reasonable|above|below|clear|valid"
    r"|as\s(?:above|stated|shown)|shown|given|given\sabove|in\sthe\sbox|boxed|complete|found|obtained|done|stated|now)\b|$",
    re.IGNORECASE,
)


class Clause(NamedTuple):
    """What a response says the answer is. `begin`: where it stands; `is_final`: it is called the final answer."""

    text: str
    begin: int
    is_final: bool


def find_clause(text: str) -> Clause | None:
    """Returns the last clause that says what the answer is, up to the end of its sentence or line.

    A clause that only points back ("the answer is correct", "the answer is above") does not count.
    """
    marks = sorted(_find_marks(text))[-MAX_TRIES:]
    for begin, end in reversed(marks):
        shown = _read_clause(text[end:])
        if not _POINTS_BACK.match(shown.strip("*_ .")):
            return Clause(shown, begin, _FINAL.search(text, max(0, begin - 12), end) is not None)
    return None


def _find_marks(text: str) -> Iterator[tuple[int, int]]:
    at = 0
    for stem in _STEM.finditer(text.lower() if len(text.lower()) == len(text) else text):
        begin = stem.start()
        if begin < at or (
            text[begin - 1 : begin].isalpha() and begin and text[begin - 1].isascii() and stem[0].isascii()
        ):
            continue
        if match := _ANSWER_IS.match(text, begin):
            at = match.end()
            yield begin, at
    for match in _HEADING.finditer(text) if "nswer" in text or "NSWER" in text else ():
        yield match.start(), match.end()


def _read_clause(rest: str) -> str:
    rest = re.sub(r"^(?:[:\s>]|[*_]{1,3}(?=[\s:\n])|#{1,6}\s){1,12}", "", rest)
    display = _DISPLAY.match(rest) or _SEVERAL_LINES.match(rest)
    if display is not None and not has_prose(display[0]):
        return display[0]
    line = rest.partition("\n")[0]
    return _STOP.split(line, maxsplit=1)[0].strip()


# --- which value is meant --------------------------------------------------------------------------------------------

_LEAD = re.compile(
    r"[\W_]*(?:(?:that|about|approximately|approx\.?|roughly|around|exactly|just|only|simply|then|thus|therefore|of\s+course|indeed"
    r"|equal\s+to|equals|obviously|clearly|it\s+is|it's|is|the\s+number|the\s+value|a\s+total\s+of|in\s+fact|again|surely|namely)"
    r"[\W_]*){0,3}",
    re.IGNORECASE,
)
_AGAIN = re.compile(
    r"(?:\bthat\s+is(?:\s+to\s+say)?|\bi\.e\.|\bnamely|\bin\s+other\s+words|\bor\s+(?:simply|just|equivalently)"
    r"|\bwhich\s+(?:equals|gives|makes|simplifies\s+to|reduces\s+to|is\s+equal\s+to|evaluates\s+to)|\bgiving|\byielding"
    r"|=|\bequals)[\s,:*$(]*$",
    re.IGNORECASE,
)
_VERB = re.compile(
    r"(?:\b(?:is|are|was|were|be|been|equals?|to|gives?|gets?|got|have|has|had|need|needs|makes?|made|becomes?|find|pays?|costs?|takes?"
    r"|earns?|there\s+are|total(?:s|ing)?|of|only|exactly|about|approximately|remains?|left\s+with|contains?|spends?|saves?|but)"
    r"|[:=\u2248]|\u662f|\u4e3a|\u306f|\uc740|\uc774)[\s,*$(]*$",
    re.IGNORECASE,
)
_QUALIFIER = re.compile(
    r"[\s,;(]\b(?:because|since|as|for|when|whenever|where|if|with|while|given|after|before|by|from|using|considering|due|assuming|provided"
    r"|such\s+that|so\s+that|but|although|though|however|whereas|which\s+is\s+(?:the|why|because)|instead|compared|out\s+of|per|than|not)\b",
    re.IGNORECASE,
)
_PROSE_WORD = re.compile(
    r"(?<![^\W\d_])(?:[^\W\d_]{3,}|(?i:is|it|of|we|he|so|if|be|to|in|or|at|by|an|as|no|us|my|do|up|on|am|me)"
    r"|[^\W\d_A-Za-z]{2})(?![^\W\d_])|[\u0e00-\u20ff\u2c00-\u9fff\uac00-\ud7af]"
)
_TEXT_COMMAND = re.compile(r"\\(?:text\w*|mathrm|mbox|operatorname)\s?\{[^{}]*\}|\\[A-Za-z]+")


def choose_value(clause: str) -> str:
    """Returns the value that a clause gives, or the whole clause when it is only a value or holds none."""
    clause = strip_decoration(remove_marks(clause))
    words = _PROSE_WORD.findall(_TEXT_COMMAND.sub(" ", clause))
    if not words:
        return clause
    values = [value for value in find_values(clause) if not (value.is_name or value.is_label)]
    if not values:
        return clause
    if len(values) == 1 and not values[0].is_negated and _is_with_unit(clause, values[0]):
        return clause
    spoken = [value for value in _before_qualifier(clause, values) if not value.is_negated]
    if not spoken:
        return clause
    value, is_said = _choose(clause, spoken)
    return value.text if is_said or len(words) >= MIN_SENTENCE_WORDS else clause


def _is_with_unit(clause: str, value: Value) -> bool:
    """Whether a clause is a value with at most two words behind it, as in "5 apples", which the comparison reads."""
    behind = clause[value.end :]
    if not behind.isascii() and _PROSE_WORD.search(behind):
        return False
    return not clause[: value.begin].strip(" $-") and len(behind.split()) <= 2 and not has_prose(value.text)


def _before_qualifier(clause: str, values: list[Value]) -> list[Value]:
    """The values before the first "because" and the like that has a value before it."""
    for match in _QUALIFIER.finditer(clause):
        before = [value for value in values if value.end <= match.start() + 1]
        inside = any(value.begin < match.end() and match.start() < value.end - 1 for value in values)
        if any(not value.is_negated for value in before) and not inside:
            return before
    return values


def _choose(clause: str, values: list[Value]) -> tuple[Value, bool]:
    """The value that is meant, and whether its place says so."""
    plain = [value for value in values if not value.in_remark] or values
    lead = _LEAD.match(clause)
    first = plain[0]
    if lead is not None and first.begin <= lead.end():
        again = [value for value in plain[1:] if _AGAIN.search(clause[: value.begin])]
        return (again or [first])[-1], True
    behind_verbs = [value for value in plain if _VERB.search(clause[: value.begin])]
    return (behind_verbs or plain)[-1], bool(behind_verbs)


_ONE_FORMULA = re.compile(
    r"\$\$((?:[^$\\]|\\.)+)\$\$|\$((?:[^$\\]|\\.)+)\$|\\\(((?:(?!\\[()]).)+)\\\)|\\\[((?:(?!\\[\[\]]).)+)\\\]",
    re.DOTALL,
)


_END_MARK = re.compile(r"\$?\\(?:checkmark|blacksquare|square|Box|qed|smiley)\$?$")


def strip_decoration(text: str) -> str:
    """Removes pictures, check marks, arrows and quotes around a text, and a final full stop."""
    text = _END_MARK.sub("", text.rstrip())
    begin, end = 0, len(text)
    while begin < end and _is_decoration(text[begin]):
        begin += 1
    while end > begin and (_is_decoration(text[end - 1]) or text[end - 1] in ".,;:"):
        end -= 1
    return text[begin:end]


def _is_decoration(char: str) -> bool:
    return (
        char.isspace()
        or char in '"*_`\u201c\u201d\ufe0f'
        or (ord(char) > 0x2100 and unicodedata.category(char) == "So")
    )


def strip_math_mode(text: str) -> str:
    """Removes the dollar signs or brackets of LaTeX's math mode around a text that is one formula."""
    match = _ONE_FORMULA.fullmatch(text)
    return next(inside for inside in match.groups() if inside is not None).strip() if match else text


def last_value(text: str, values: Sequence[Value]) -> str | None:
    """Returns the last value of a text; None when there is none, or the last sentence with values denies them.

    Args:
        text: the text.
        values: those that `find_values` found in it.
    """
    meant = [value for value in values if not (value.is_name or value.is_label)]
    for index in range(len(meant) - 1, -1, -1):
        value = meant[index]
        between = text[meant[index - 1].end : value.begin] if index else "\n"
        same_sentence = not ("\n" in between or _STOP.search(between))
        if value.is_negated and not same_sentence:
            return None
        if value.is_negated or (value.in_remark and same_sentence):
            continue
        return value.text
    return None
