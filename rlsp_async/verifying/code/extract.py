"""Finding the Python code in a response. Text and syntax trees only: nothing is run.

    find_code("Sure:\\n```python\\ndef f(x):\\n    return x\\n```", "f", "")      # the fenced block
    find_code("    return x", "f", "def f(x):\\n")                              # a completion of the prompt

In this order, after the last `</think>`: the last fenced block that defines the function, the whole text if it is code
that does, the lines of it that are code; else the last block, or the text up to where it stops being code, as the rest
of the prompt.
"""

from __future__ import annotations

import ast
import re
import warnings

MAX_CHARS = 64_000
_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```(?![\w`])|\Z)", re.MULTILINE | re.DOTALL)
_PROMPT_FENCE = re.compile(r"```\w*[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_KEPT = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
_FIRST_LINE = re.compile(r"^(?:(?:from|import|def|class|async def)\b|@|[A-Za-z_]\w*\s*=(?!=)).*", re.MULTILINE)

_CODE_LINE = re.compile(
    r"(?:from|import|def|class|async|if|elif|else|for|while|with|try|except|finally|assert)\b|[@#)\]}]"
    r"|[A-Za-z_][\w.]*(?:\[[^\]]*\])?\s*(?:[-+*/|&^]?=|\()"
)


def find_code(response: str, name: str, prompt: str) -> str | None:
    """Code that defines the function `name`, complete; None when there is none, or too much of it."""
    text: str = response.rpartition("</think>")[2]
    if len(text) > MAX_CHARS:
        return None
    blocks: list[str] = [block for block in _FENCE.findall(text) if block.strip()]
    for code in (*reversed(blocks), text, _code_lines(text)):
        if defines(code, name):
            return f"{preamble(prompt, name)}\n{code}"
    for begin in _beginnings(prompt):
        for rest in (*reversed(blocks), text, _indented(text)):
            if defines(begin + rest, name, with_body=True):
                return begin + rest
    return None


def preamble(prompt: str, name: str) -> str:
    """Imports, constants and helpers that the prompt gives, without the function that it asks for."""
    for code in _beginnings(prompt):
        tree = parse(code)
        if tree is None and (tree := parse(code + "\n    pass\n")) is None:
            continue
        kept = [node for node in tree.body if isinstance(node, _KEPT) and getattr(node, "name", "") != name]
        if any(getattr(node, "name", "") == name for node in tree.body):
            return "\n".join(ast.unparse(node) for node in kept)
    return ""


def last_function(prompt: str) -> str:
    """The last function that code in the prompt begins; empty when there is none."""
    for code in _beginnings(prompt):
        tree = parse(code) or parse(code + "\n    pass\n")
        names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)] if tree else []
        if names:
            return names[-1]
    return ""


def defines(code: str, name: str, *, with_body: bool = False) -> bool:
    """Whether this is Python that gives `name` a value at its top level; `with_body`: more than a docstring."""
    tree = parse(code)
    return tree is not None and any(_binds(node, name, with_body) for node in tree.body)


def parse(code: str) -> ast.Module | None:
    """The syntax tree, or None."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _binds(node: ast.stmt, name: str, with_body: bool) -> bool:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        is_bare = len(node.body) == 1 and isinstance(node.body[0], ast.Expr | ast.Pass)
        return node.name == name and not (with_body and is_bare)
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
    return False


def _beginnings(prompt: str) -> list[str]:
    """Places in the prompt where code may stand: its fenced blocks, all of it, from its first line of code on."""
    if len(prompt) > MAX_CHARS:
        return []
    found = list(reversed(_PROMPT_FENCE.findall(prompt)))
    first = _FIRST_LINE.search(prompt)
    return [*found, prompt, *([prompt[first.start() :]] if first else [])]


def _code_lines(text: str) -> str:
    """From the first line of code up to the first line that is neither indented nor looks like code."""
    first = _FIRST_LINE.search(text)
    if first is None:
        return ""
    kept: list[str] = []
    for line in text[first.start() :].splitlines(keepends=True):
        if line.strip() and not line[0].isspace() and not _CODE_LINE.match(line):
            break
        kept.append(line)
    return "".join(kept)


def _indented(text: str) -> str:
    """A completion up to the first line that is not indented: models go on with examples and words."""
    kept: list[str] = []
    for line in text.splitlines(keepends=True):
        if line.strip() and not line[0].isspace() and any(one.strip() for one in kept):
            break
        kept.append(line)
    return "".join(kept)
