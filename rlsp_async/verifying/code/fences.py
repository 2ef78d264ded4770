"""The blocks of code in a response: fenced, between marks, or the lines that are code. Only text is looked at.

    find_blocks("Sure:\\n```python\\nx = 1\\n```\\n")        # ["x = 1\\n"]

Fences are of backticks or tildes, indented or not, with any spelling of the language. Those of other languages
(```json) are no Python. Models close a fence with fewer marks than they opened it with, put the marks behind the last
line of code, or do not close it at all, so a text is read in two ways: as models write, and as CommonMark has it.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

_OPENS = re.compile(r"^(?P<before>[^`~]*?)(?P<marks>`{3,}|~{3,})[ \t]*(?P<info>[^\n`]*)$")
_CLOSES = re.compile(r"^(?P<code>.*?)(?P<marks>`{3,}|~{3,})[ \t]*(?:<[^<>\n]{1,30}>|[.,:;*]*)?[ \t]*$")
_ONE_LINE = re.compile(
    r"`{1,3}(?:python3?|py)?[ \t]*((?:def |import |from |class |lambda |[A-Za-z_]\w*\s*=)[^`\n]+)`{1,3}"
)
_MARKED = re.compile(
    r"\[(?P<square>PYTHON|CODE|BEGIN|SOLUTION)\]\s*\n?(?P<a>.*?)(?:\[/(?P=square)\]|\[DONE\]|\Z)"
    r"|<(?P<angle>python|code|solution|answer|py)>[ \t]*\n?(?P<b>.*?)(?:</(?P=angle)>|\Z)"
    r"|\\begin\{(?P<latex>lstlisting|verbatim|minted|python)\}(?:\[[^\]\n]*\])?(?:\{\w+\})?(?P<c>.*?)(?:\\end\{(?P=latex)\}|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_PYTHON = re.compile(
    r"^\W*(?:python|py|pypy|ipython|sage|cython|pycon)\b|^\W*(?:python|py|pypy)[\d.]*\b", re.IGNORECASE
)
_OTHER_LANGUAGE = re.compile(
    r"^\W*(?:json\w*|bash|sh|shell|zsh|console|text|txt|output|plain\w*|c|cpp|c\+\+|java|javascript|js|typescript|ts|go|"
    r"golang|rust|html|xml|ya?ml|sql|markdown|md|diff|csharp|cs|ruby|php|kotlin|swift|r|haskell|scala|toml|ini|csv|latex|"
    r"tex|input|stdin|stdout|pseudo\w*|mermaid)\b",
    re.IGNORECASE,
)
_END_OF_TEXT = re.compile(r"\s*(?:<\|[^|<>\n]{1,30}\|>|</s>|<end_of_turn>|<eos>)\s*$")
_ODD_BLANKS = re.compile(r"^[ ]*[\u00a0\u3000][ \u00a0\u3000]*", re.MULTILINE)
"""Blanks at the begin of a line that Python does not take for blanks."""
_PROMPTED = re.compile(r"^(?:>>>|\.\.\.|In \[\d+\]:)[ ]?")


def find_blocks(text: str) -> list[str]:
    """Returns the blocks of Python code in a text, in order: those of the first way of reading, then others."""
    blocks: list[str] = []
    found = [*_fenced(text, as_models_write=True), *_marked(text)]
    for block in (*_ONE_LINE.findall(text), *_fenced(text, as_models_write=False), *_widest(text), *found):
        clean = _clean(block)
        if clean.strip():
            if clean in blocks:
                blocks.remove(clean)
            blocks.append(clean)
    return blocks


def strip_end(text: str) -> str:
    """Returns a text without the special tokens of a chat template at its end."""
    while match := _END_OF_TEXT.search(text):
        text = text[: match.start()]
    return text


def _fenced(text: str, *, as_models_write: bool) -> Iterator[str]:
    """The content of fences; an open one ends with the text."""
    marks, is_python, lines = "", False, list[str]()
    for line in text.splitlines(keepends=True):
        plain = line.rstrip("\r\n")
        opens = _OPENS.match(plain)
        if not marks:
            if opens:
                marks, lines = opens["marks"], []
                is_python = not _OTHER_LANGUAGE.match(opens["info"]) or bool(_PYTHON.match(opens["info"]))
            continue
        closes = _CLOSES.match(plain)
        if closes and closes["marks"][0] == marks[0] and _may_close(closes, marks, as_models_write):
            if closes["code"].strip():
                lines.append(closes["code"] + "\n")
            if is_python:
                yield "".join(lines)
            marks = ""
        elif as_models_write and opens and opens["marks"][0] == marks[0] and not opens["before"].strip():
            if is_python:
                yield "".join(lines)
            marks, lines = opens["marks"], []
            is_python = not _OTHER_LANGUAGE.match(opens["info"]) or bool(_PYTHON.match(opens["info"]))
        else:
            lines.append(line)
    if marks and is_python:
        yield "".join(lines)


def _may_close(closes: re.Match[str], marks: str, as_models_write: bool) -> bool:
    if as_models_write:
        return True
    return not closes["code"].strip() and len(closes["marks"]) >= len(marks)


def _widest(text: str) -> Iterator[str]:
    """From the first fence to the last: code whose own texts hold fences."""
    lines = text.splitlines(keepends=True)
    fences = [i for i, line in enumerate(lines) if _OPENS.match(line.rstrip("\r\n"))]
    if len(fences) > 2:
        yield "".join(lines[fences[0] + 1 : fences[-1]])


def _marked(text: str) -> Iterator[str]:
    for match in _MARKED.finditer(text):
        inner = match["a"] or match["b"] or match["c"] or ""
        if "```" not in inner and "~~~" not in inner:
            yield inner


def _clean(block: str) -> str:
    """A block without common indentation and without the prompts of an interactive session."""
    lines = block.splitlines(keepends=True)
    if any(line.startswith(">>>") for line in lines):
        shown = [_PROMPTED.sub("", line) for line in lines if _PROMPTED.match(line)]
        return "".join(shown)
    block = _ODD_BLANKS.sub(lambda blanks: " " * len(blanks[0]), block.replace("\ufeff", ""))
    dedented = textwrap.dedent(block.expandtabs(4) if "\t" in block and " " in block else block)
    return strip_end(dedented) + "\n" if _END_OF_TEXT.search(dedented) else dedented
