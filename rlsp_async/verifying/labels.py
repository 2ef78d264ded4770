"""Which options of a multiple-choice question a text names: labels, denials, several at once. Pure text work.

    reader = LabelReader(("A", "B", "C"), {"blue": "B"})
    reader.named("(B)") == {"B"}                         reader.named("purple") == frozenset()
    reader.stated("B, because C is wrong") == {"B"}      reader.stated("not A but B") == {"B"}
    reader.committed("(B) fits; (A) does not.") == {"B"}         reader.committed("A sky is a thing") == frozenset()

A label is mentioned in brackets, in bold, behind a word such as "option", at the begin of a line, or bare where a verb
or a punctuation mark shows that it is no word: the article "A" and the pronoun "I" are no labels. What a text denies
("not A", "C is wrong", "rather than D") or mentions as a reason ("because C ...") is not named.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlsp_async.verifying.atoms import remove_marks
from rlsp_async.verifying.boxes import strip_box
from rlsp_async.verifying.words import normalize_words

_LOOK_ALIKE = str.maketrans(
    "\u0410\u0412\u0421\u0415\u041d\u041a\u041c\u041e\u0420\u0422\u0425\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c"
    "\u039d\u039f\u03a1\u03a4\u03a7",
    "ABCEHKMOPTXABEZHIKMNOPTX",
)
_QUOTES = str.maketrans("\u201c\u201d\u201e\u00ab\u00bb\u300c\u300d", '"' * 7)
_LONE_LETTER = re.compile(r"(?<!\w)[\u0391-\u03a9\u0410-\u042f](?!\w)")
_COMMANDS = re.compile(r"\\(?:text\w*|math\w+|mbox|bf|rm)\s?\{([^{}]*)\}|\\[()\[\]]|[$]|\\(?:[,;!:]|quad|\s)")
_SPLIT = re.compile(r"\s*(?:,|;|/|&|\+|\b(?:and|und|et|y)\b|\u548c|\u3001|\s)\s*")
_LEADS = frozenset({"option", "options", "choice", "choices", "answer", "answers", "letter", "the"})

_WORD_BEFORE = re.compile(
    r"(?:\b(?:options?|choices?|answers?|letters?|statements?|alternatives?|is|are|be|equals|choose|chose|choosing|pick|picked|select"
    r"|selected|selecting|go\s+with|going\s+with|say|says|only|therefore|thus|hence|so|it['\u2019]s|that['\u2019]s|both|either|neither"
    r"|between|not|than|of|but|ist|sind|est|sont|es|son|sono|\u00e8|\u00e9|s\u00e3o|\u00e4r|er|to|adalah|l\u00e0|jest|lautet|on|este|je|wybieram"
    r"|elijo|choisis|w\u00e4hle|\u0432\u044b\u0431\u0438\u0440\u0430\u044e|\u0432\u0430\u0440\u0438\u0430\u043d\u0442),?"
    r"|[:\uff1a=\u2192]|[\u9009\u9078\u62e9\u62e9\u662f\u4e3a\u70ba\u9879\u9805\u6848\u306f]|\uc740|\ub294)\s*$",
    re.IGNORECASE,
)
_VERB_AFTER = re.compile(
    r"\s*(?:(?:is|are|fits?|works?|matches|holds?|seems?|looks?|must|remains?|wins?|follows?|it\s+is|satisfies|gives|would|can|does|was)\b"
    r"|[\u662f\u9879\u9805\u6b63\u304c\u306f\u3067]|\uc774|\uac00|\uc785|\uc740|\ub294)",
    re.IGNORECASE,
)
_END_AFTER = re.compile(
    r"\s*(?:$|\n|[.,;:!?)\]/&\u3002\uff0c\u3001\uff01-]|(?:because|since|as|and|or|but|not|with|for|which|due|rather|instead|over|maybe|only"
    r"|alone|here|again|then|und|oder|et|ou|y|o|weil|denn|car|porque)\b|[^\x00-\x7f])",
    re.IGNORECASE,
)
_ARTICLES = frozenset({"A", "I"})
_CONNECTIVE = re.compile(
    r"[\s)\]]*(?:[,/&+]|\band\b|\bor\b|\bund\b|\boder\b|\bet\b|\bou\b|\u548c|\u6216|\u3001)?[\s,]*(?:(?:and|or)\b\s*)?"
    r"(?:(?:maybe|perhaps|possibly|also|option|choice|either)\s*){0,2}[\s(\[]*",
    re.IGNORECASE,
)
_DENIED_BEFORE = re.compile(
    r"(?:\b(?:not|never|cannot|rather\s+than|instead\s+of|except|other\s+than|neither|nor|unlike|than|eliminate|eliminates|eliminated|exclude"
    r"|excludes|reject|rejects|rule\s+out|rules\s+out|ruled\s+out|discard|without|nicht|kein|ni|nein)|n['\u2019]t|\u4e0d\u662f|\u6392\u9664|\u4e0d\u9009)\s*"
    r"(?:(?:be|the|an?|option|choice|answer|just|simply)\s+){0,3}[\s(\[\"']*$",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"[)\]\"']*\s*(?:"
    r"(?:is|are|was|were|seems?|looks?|would\s+be|must\s+be|has\s+to\s+be)\s+"
    r"(?:(?:clearly|obviously|therefore|thus|also|just|definitely|simply|all)\s+)?"
    r"(?:not|wrong|incorrect|false|too|impossible|invalid|out|ruled\s+out|eliminated|excluded|never|irrelevant|unlikely|absurd|nonsense)\b"
    r"|(?:is|are|was|were|does|do|did|can|could|would|has|must)\s*n['\u2019]t\b|can['\u2019]t\b"
    r"|(?:does|do|did|can|could|would|must)\s?not\b|(?:cannot|fails?|contradicts?|violates?|ignores?|misses|lacks?)\b"
    r"|(?:seems?|looks?|appears?|might|may|could)\b[^.;]{0,40}\bbut\b"
    r"|ist\s+(?:falsch|nicht)\b|n['\u2019]est\b|no\s+es\b|[\u9879\u9805]?(?:\u662f\u9519|\u4e0d|\u9519\u8bef|\u9519|\u6709\u8bef))",
    re.IGNORECASE,
)
_REASON = re.compile(
    r"[\s,;(]\b(?:because|since|as|whereas|while|although|though|but|unlike|given|if|when|weil|denn|da|car|porque|puisque)\b|\u56e0\u4e3a",
    re.IGNORECASE,
)
_CORRECTION = re.compile(
    r"\b(?:no|wait|actually|rather|correction|sorry|so|therefore|thus|hence|instead|but|which\s+leaves|leaving|leaves)\b",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<=[.!?;])(?=\s)|(?<=[\u3002\uff01\uff1f\uff1b])|\n")
_HEDGE_FIRST = re.compile(r"\s*(?:it\s+)?(?:could|might|may)\b", re.IGNORECASE)
_MIN_LISTED = 3


@dataclass(frozen=True, slots=True)
class _Mention:
    label: str
    begin: int
    end: int
    is_denied: bool


class LabelReader:
    """Reads the labels in texts."""

    def __init__(self, labels: Sequence[str], options: Mapping[str, str]) -> None:
        """Makes a reader.

        Args:
            labels: what can be chosen: letters, figures or words.
            options: the label of each option by its text, as `normalize_words` writes it.
        """
        self._labels = {label.casefold(): label for label in labels}
        self._are_words = any(len(label) > 1 and label.isalpha() and not _is_roman(label) for label in labels)
        self._options = options
        label = "|".join(sorted(map(re.escape, labels), key=len, reverse=True))
        case = re.IGNORECASE if self._are_words else re.NOFLAG
        self._mention = re.compile(
            rf"(?<![\w\\^_'\u2019])(?:{label})(?![\w'\u2019^_]|\s?[=+*^<>]|-\w)", case | re.ASCII
        )
        self._bold = re.compile(rf"\*\*\s*[(\[]?({label})[)\].:]?\s*\*\*", case)
        self._listed = re.compile(rf"\s{{0,40}}[-*]?\s{{0,8}}[(\[]?({label})[)\].:]\s*\S", case)

    def named(self, text: str) -> frozenset[str]:
        """The labels that a complete answer names, directly or by the text of an option; empty for anything else."""
        text = plain_label_text(strip_box(text.strip())).strip().rstrip(".").strip()
        if label := self._options.get(normalize_words(text)):
            return frozenset({label})
        words = [word.strip("().[]:\"'") for word in _SPLIT.split(text) if word.strip("().[]:\"'")]
        while words and words[0].casefold() in _LEADS and words[0].casefold() not in self._labels:
            words = words[1:]
        if words and all(word.casefold() in self._labels for word in words):
            return frozenset(self._labels[word.casefold()] for word in words)
        if (
            not self._are_words
            and text.isupper()
            and text.isalpha()
            and len(set(text)) == len(text) <= len(self._labels)
        ):
            letters = [self._labels.get(char.casefold(), "") for char in text]
            if all(letters):
                return frozenset(letters)
        return frozenset()

    def stated(self, clause: str) -> frozenset[str]:
        """The labels that a clause states, where "the answer is" or a tag stands before it."""
        if whole := self.named(clause):
            return whole
        clause = self._plain(strip_box(clause.strip())).strip()
        found = self._positive(clause, True)
        text = self._by_text(re.sub(r"^\W*\w+[).:\]]*\s*", "", clause) if found else clause)
        return found | text if len(found) <= 1 else found

    def committed(self, text: str) -> frozenset[str]:
        """The labels of the last sentence that commits itself to some; empty when none does."""
        for sentence in reversed(self._sentences(self._plain(text))):
            if found := self._positive(sentence, False):
                return found
        return self.named(text)

    def _plain(self, text: str) -> str:
        return plain_label_text(self._bold.sub(r"(\1)", text))

    def _sentences(self, text: str) -> list[str]:
        """The sentences of a text, without a list of the options."""
        lines = text.split("\n")
        listed = [match[1] if (match := self._listed.match(line)) else "" for line in lines]
        if len({label for label in listed if label}) >= _MIN_LISTED:
            lines = [
                line for line, label in zip(lines, listed, strict=True) if not label or _LABEL_ALONE.fullmatch(line)
            ]
        sentences: list[str] = []
        for line in lines:
            head = self._listed.match(line)
            begin = head.end(1) + 1 if head else 0
            pieces = _SENTENCE_END.split(line[begin:])
            sentences.extend([line[:begin] + pieces[0], *pieces[1:]])
        return sentences

    def _positive(self, sentence: str, is_clause: bool) -> frozenset[str]:
        """The labels that a sentence asserts: not denied, not part of a reason, and after the last correction."""
        mentions = self._mentions(sentence, is_clause)
        reasons = [match.start() for match in _REASON.finditer(sentence)]
        stated = [mention for mention in mentions if not mention.is_denied]
        for reason in reasons:
            if any(mention.end <= reason + 1 for mention in stated):
                stated = [mention for mention in stated if mention.end <= reason + 1]
                break
        for match in _CORRECTION.finditer(sentence):
            if any(mention.begin >= match.end() for mention in stated) and not self._is_label_at(sentence, match):
                stated = [mention for mention in stated if mention.begin >= match.end()]
        return frozenset(mention.label for mention in stated)

    def _is_label_at(self, sentence: str, match: re.Match[str]) -> bool:
        """Whether a word of correction is itself a label, as "no" is where one chooses between yes and no."""
        return match[0].casefold() in self._labels and not sentence[match.end() :].startswith((",", ":", "."))

    def _mentions(self, sentence: str, is_clause: bool) -> list[_Mention]:
        found: list[_Mention] = []
        for match in self._mention.finditer(sentence):
            if self._are_words:
                if _IDIOM.match(sentence, match.start()):
                    continue
            elif not self._is_label(sentence, match, is_clause, found):
                continue
            before, behind = (
                sentence[max(0, match.start() - 60) : match.start()],
                sentence[match.end() : match.end() + 60],
            )
            goes_on = bool(found) and _CONNECTIVE.fullmatch(sentence[found[-1].end : match.start()]) is not None
            is_denied = (
                _DENIED_BEFORE.search(before) is not None
                or _DENIED_AFTER.match(behind) is not None
                or (goes_on and found[-1].is_denied)
            )
            found.append(_Mention(self._labels[match[0].casefold()], match.start(), match.end(), is_denied))
        return found

    def _is_label(self, sentence: str, match: re.Match[str], is_clause: bool, found: Sequence[_Mention]) -> bool:
        """Whether a letter stands for an option, and is not a word or a symbol of its own."""
        before, behind = sentence[: match.start()], sentence[match.end() :]
        if before.rstrip()[-1:] in ("(", "[") and behind.lstrip()[:1] in (")", "]"):
            return not before.rstrip()[:-1][-1:].isalnum()
        if found and _CONNECTIVE.fullmatch(sentence[found[-1].end : match.start()]):
            return bool(_END_AFTER.match(behind) or _VERB_AFTER.match(behind))
        ends, verb = _END_AFTER.match(behind) is not None, _VERB_AFTER.match(behind) is not None
        at_begin = not before.strip(" \"'(-*")
        if at_begin and re.match(r"[).:\]](?:\s|$)|\s*$" if match[0] == "I" else r"[).:,\]](?:\s|$)|\s*$", behind):
            return True
        if _WORD_BEFORE.search(before[-40:].rstrip("\"'([ ") + " ") or (is_clause and at_begin):
            return ends or verb or (match[0] not in _ARTICLES and not is_clause) or not re.match(r"\s+[a-z]", behind)
        return verb and not (match[0] == "I" and re.match(r"\s*(?:am|was|can|would|must|do|did)\b", behind))

    def _by_text(self, clause: str) -> frozenset[str]:
        """The option whose text a clause is, word for word, before a reason."""
        reason = _REASON.search(clause)
        label = self._options.get(normalize_words(clause[: reason.start()] if reason else clause))
        return frozenset({label}) if label else frozenset()


_IDIOM = re.compile(
    r"(?:no|yes)\s+(?:doubt|problem|wonder|matter|way|idea|one|longer|more|need|reason|question|information|evidence|answer|and\s+no\s+more)\b"
    r"|true\s+(?:that|value|answer|meaning)\b",
    re.IGNORECASE,
)
_LABEL_ALONE = re.compile(r"\s{0,40}[-*]?\s{0,8}[(\[]?\w{1,4}[)\].:]?\s*")


def _is_roman(label: str) -> bool:
    return re.fullmatch(r"[IVX]{1,5}", label) is not None


def plain_label_text(text: str) -> str:
    """Makes labels comparable: full-width, circled and Cyrillic letters become Latin ones; marks and commands go."""
    text = unicodedata.normalize("NFKC", remove_marks(text)).translate(_QUOTES)
    text = _LONE_LETTER.sub(lambda match: match[0].translate(_LOOK_ALIKE), text)
    return _COMMANDS.sub(lambda match: " " if match[1] is None else match[1], text)
