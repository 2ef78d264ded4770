"""Finding the Python code in a response. Only text and syntax trees are looked at; nothing is run.

    find_code("Sure:\\n```python\\ndef f(x):\\n    return x\\n```", "f", "")      # the fenced block
    find_code("    return x", "f", "def f(x):\\n")                              # a completion of the prompt

Looked for after the last `</think>`, in this order: the last fenced block that defines the function; the whole text, if
it is code that defines the function; those lines of the text that are code. If none of them defines the function, the
last block, or the text up to where it stops being code, is taken for the continuation of the prompt.
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
    """Finds code that defines the function `name`, completed with what the prompt gives.

    Returns:
        The source, or None when no code defines the function or the text is longer than MAX_CHARS.
    """
    text: str = response.rpartition("</think>")[2]
    if len(text) > MAX_CHARS:
        return None
    blocks: list[str] = [block for block in _FENCE.findall(text) if block.strip()]
    for code in (*reversed(blocks), text, _code_lines(text)):
        if defines_name(code, name):
            return f"{extract_preamble(prompt, name)}\n{code}"
    for begin in _code_beginnings(prompt):
        for rest in (*reversed(blocks), text, _indented_lines(text)):
            if defines_name(begin + rest, name, with_body=True):
                return begin + rest
    return None


def extract_preamble(prompt: str, name: str) -> str:
    """Returns the imports, constants and helpers in a prompt, without the function `name` that it asks for."""
    for code in _code_beginnings(prompt):
        tree = parse_code(code)
        if tree is None and (tree := parse_code(code + "\n    pass\n")) is None:
            continue
        kept = [node for node in tree.body if isinstance(node, _KEPT) and getattr(node, "name", "") != name]
        if any(getattr(node, "name", "") == name for node in tree.body):
            return "\n".join(ast.unparse(node) for node in kept)
    return ""


def find_last_function(prompt: str) -> str:
    """Returns the name of the last function that code in the prompt begins, or an empty string."""
    for code in _code_beginnings(prompt):
        tree = parse_code(code) or parse_code(code + "\n    pass\n")
        names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)] if tree else []
        if names:
            return names[-1]
    return ""


def defines_name(code: str, name: str, *, with_body: bool = False) -> bool:
    """Whether this is Python source that binds `name` at its top level.

    Args:
        code: the source.
        name: the name to look for.
        with_body: whether a function must have more than a docstring or `pass`.
    """
    tree = parse_code(code)
    return tree is not None and any(_binds(node, name, with_body) for node in tree.body)


def parse_code(code: str) -> ast.Module | None:
    """Returns the syntax tree, or None when the text is not Python."""
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


def _code_beginnings(prompt: str) -> list[str]:
    """Parts of the prompt that may be code: its fenced blocks, the whole, and from its first line of code on."""
    if len(prompt) > MAX_CHARS:
        return []
    blocks = list(reversed(_PROMPT_FENCE.findall(prompt)))
    first = _FIRST_LINE.search(prompt)
    return [*blocks, prompt, *([prompt[first.start() :]] if first else [])]


def _code_lines(text: str) -> str:
    """The text from its first line of code up to the first line that is neither indented nor looks like code."""
    first = _FIRST_LINE.search(text)
    if first is None:
        return ""
    kept: list[str] = []
    for line in text[first.start() :].splitlines(keepends=True):
        if line.strip() and not line[0].isspace() and not _CODE_LINE.match(line):
            break
        kept.append(line)
    return "".join(kept)


def _indented_lines(text: str) -> str:
    """A completion up to its first line that is not indented; models often append examples and prose."""
    kept: list[str] = []
    for line in text.splitlines(keepends=True):
        if line.strip() and not line[0].isspace() and any(earlier.strip() for earlier in kept):
            break
        kept.append(line)
    return "".join(kept)
