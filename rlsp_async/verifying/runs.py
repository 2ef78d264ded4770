r"""The runs of a text: the atoms that belong together, as in "2x + 3", "(3, 4)", "1.5 \times 10^3" and "3 out of 5".

Two atoms belong together when they touch, when an operator stands between them, or when a bracket without words holds
them. A sign behind a blank and before a number begins a new run: "3 apples, -5 degrees". A number that touches a letter
before it is part of an identifier (H2, cm2, COVID-19) and makes no run of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rlsp_async.verifying.atoms import CURRENCIES, SIGNS, Atom, split_atoms

MAX_GROUP_CHARS = 2_000
"""A bracket around more characters does not hold its content together."""

_OPERANDS = frozenset({"formula", "number", "words", "command", "postfix", "root", "name", "function", "group"})
INFIX = frozenset({"operator", "relation", "infix"})
"""Kinds of the atoms that stand between two others."""
_INFIX_WORDS = re.compile(
    r"(?:times|plus|minus|over|by|to|through|choose|modulo|of|in|out\s+of|divided\s+by|multiplied\s+by|x|X)(?=\s+[$(\\\d])"
)
_SIGN_WORDS = re.compile(r"(?:minus|negative)(?=\s+[$]?[\d.\\])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class AtomRun:
    """Atoms that belong together. `in_remark`: they stand in a bracket with words."""

    atoms: tuple[Atom, ...]
    in_remark: bool


def find_runs(text: str) -> list[AtomRun]:
    """Returns the runs of a text in their order."""
    return _Runs(text).found


class _Runs:
    """Makes the runs of a text, from left to right."""

    def __init__(self, text: str) -> None:
        self.found: list[AtomRun] = []
        self._text = text
        self._run: list[Atom] = []
        self._remarks = 0
        self._atoms, self._remark_ends = _group_brackets(text, split_atoms(text))
        skip = -1
        for index, atom in enumerate(self._atoms):
            if atom.begin < skip:
                continue
            skip = self._take(index, atom)
        self._close()

    def _take(self, index: int, atom: Atom) -> int:
        """Takes an atom; returns where the next one may begin."""
        if atom.kind == "size":
            return -1
        if atom.kind in ("opening", "closing"):
            self._close()
            self._remarks += atom.kind == "opening" and atom.begin in self._remark_ends
            self._remarks -= atom.kind == "closing" and atom.begin in self._remark_ends.values()
        elif atom.kind in ("word", "name") and (words := self._infix_words(atom)):
            self._run.append(words)
            return words.end
        elif atom.kind == "word" and _SIGN_WORDS.match(self._text, atom.begin):
            self._close()
            self._run.append(atom)
        elif atom.kind in INFIX:
            self._take_infix(index, atom)
        elif atom.kind in _OPERANDS or (atom.kind == "word" and self._touches(atom) and self._ends_in_operand()):
            if not self._joins(atom):
                self._close()
            if (
                not self._run
                and atom.kind == "number"
                and ends_in_letter(self._text[max(0, atom.begin - 1) : atom.begin])
            ):
                self._run.append(Atom("identifier", "", atom.begin, atom.begin))
            self._run.append(atom)
        else:
            self._close()
        return -1

    def _infix_words(self, atom: Atom) -> Atom | None:
        """Words that stand for an operator, when a number stands before and behind them."""
        if not self._run or self._run[-1].kind not in ("number", "postfix", "formula", "group"):
            return None
        match = _INFIX_WORDS.match(self._text, atom.begin)
        return None if match is None or self._touches(atom) else Atom("infix", match[0], match.start(), match.end())

    def _take_infix(self, index: int, atom: Atom) -> None:
        following = self._atoms[index + 1] if index + 1 < len(self._atoms) else None
        gap_after = following is None or following.begin > atom.end
        touches = self._touches(atom)
        if atom.text in SIGNS:
            if self._run and not (self._ends_in_operand() and not touches and not gap_after):
                self._run.append(atom)
                return
            self._close()
            if not gap_after:
                is_hyphen = ends_in_letter(self._text[max(0, atom.begin - 1) : atom.begin])
                self._run.append(Atom("identifier", "", atom.begin, atom.end) if is_hyphen else atom)
            return
        if atom.text in ":&|":
            ok = self._ends_in_operand() and touches == (not gap_after)
            if ok and self._run[-1].kind != "name":
                self._run.append(atom)
            else:
                self._close()
        elif self._run:
            self._run.append(atom)
        elif atom.text in "^_" and not gap_after:
            self._run.append(Atom("identifier", "", atom.begin, atom.end))

    def _joins(self, atom: Atom) -> bool:
        """Whether an operand goes on with the run."""
        if not self._run:
            return True
        last = self._run[-1]
        if last.kind in INFIX or self._touches(atom):
            return True
        if last.kind in ("command", "root", "function") or (last.kind == "word" and len(self._run) == 1):
            return True
        if "\n" in self._text[last.end : atom.begin]:
            return False
        if atom.kind in ("command", "root", "words"):
            return last.kind in ("number", "name", "group", "command", "postfix")
        return atom.kind == "number" and last.kind == "number" and self._is_mixed(last, atom)

    def _is_mixed(self, last: Atom, atom: Atom) -> bool:
        """Whether two numbers are a mixed number: 2 1/2."""
        if not last.text.isascii() or not last.text.isdigit():
            return False
        if atom.text.isnumeric() and not atom.text.isdecimal():
            return True  # one of the characters that are fractions
        behind = self._text[atom.end : atom.end + 1], self._text[atom.end + 1 : atom.end + 2]
        return behind[0] in ("/", "\u2044", "\u2215") and behind[1].isdigit()

    def _touches(self, atom: Atom) -> bool:
        return bool(self._run) and (
            self._run[-1].end == atom.begin or _is_size(self._text[self._run[-1].end : atom.begin])
        )

    def _ends_in_operand(self) -> bool:
        return bool(self._run) and (self._run[-1].kind in _OPERANDS or self._run[-1].kind in ("word", "identifier"))

    def _close(self) -> None:
        if self._run:
            self.found.append(AtomRun(tuple(self._run), self._remarks > 0))
        self._run = []


def ends_in_letter(text: str) -> bool:
    """Whether a text ends in a letter of an alphabet; signs of Chinese, Japanese and Korean stand for whole words."""
    return text[-1:].isalpha() and ord(text[-1]) < 0x0E00


_SIZE = re.compile(rf"(?:\\(?:[,;:!> ]|left|right|displaystyle|[bB]igg?[lr]?)|[{CURRENCIES}])+")


def _is_size(text: str) -> bool:
    """Whether a text is only spacing, sizes and currency signs, which do not part what stands around them."""
    return _SIZE.fullmatch(text) is not None


def _group_brackets(text: str, atoms: Sequence[Atom]) -> tuple[list[Atom], dict[int, int]]:
    """Makes one atom of each bracket that holds no words; returns where the brackets that hold words begin and end."""
    mates: dict[int, int] = {}
    opened: list[int] = []
    num_words = [0]
    for index, atom in enumerate(atoms):
        num_words.append(num_words[-1] + (atom.kind in ("word", "newline", "other", "stop")))
        if atom.kind == "opening":
            opened.append(index)
        elif atom.kind == "closing" and opened:
            mates[opened.pop()] = index
    grouped: list[Atom] = []
    remarks: dict[int, int] = {}
    index = 0
    while index < len(atoms):
        atom, mate = atoms[index], mates.get(index)
        if mate is not None and num_words[mate] == num_words[index] and atoms[mate].end - atom.begin <= MAX_GROUP_CHARS:
            grouped.append(Atom("group", text[atom.begin : atoms[mate].end], atom.begin, atoms[mate].end))
            index = mate + 1
            continue
        if mate is not None:
            remarks[atom.begin] = atoms[mate].begin
        grouped.append(atom)
        index += 1
    return grouped, remarks
