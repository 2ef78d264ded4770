"""Finding the Python code in a response. Only text and syntax trees are looked at; nothing is run.

    find_code("Sure:\\n```python\\ndef f(x):\\n    return x\\n```", "f", "")      # the fenced block
    find_code("    return x", "f", "def f(x):\\n")                              # a completion of the prompt
    find_program("```python\\nprint(int(input()) + 1)\\n```")                    # a program

Looked for behind the last thought, in this order: the last block that defines the function; the whole text, if it is
code that defines the function; those lines of the text that are code. If none of them defines the function, the last
block, or the text up to where it stops being code, is taken for the continuation of the prompt, also if it has lost
its first blanks. What the code uses and does not define is taken from the other blocks, and from the prompt.
"""

from __future__ import annotations

import ast
import builtins
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator

from rlsp_async.verifying.code.fences import find_blocks, strip_end
from rlsp_async.verifying.code.preamble import preamble_names
from rlsp_async.verifying.thoughts import split_thoughts

MAX_RESPONSE_CHARS = 4_000_000
MAX_CHARS = 64_000
"""Of what a response says behind its thoughts."""
_PROMPT_FENCE = re.compile(r"```\w*[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_KEPT = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_FIRST_LINE = re.compile(
    r"^(?:(?:from|import|def|class|async def)\b|@|[A-Za-z_]\w*\s*(?::[^=\n]+)?=(?!=)).*", re.MULTILINE
)
_FIRST_LINE_OF_PROGRAM = re.compile(
    r"^(?:(?:from\s+\w|import\s+\w|def|class|for\s.*:|while\s.*:|if\s.*:|print\()|@|[A-Za-z_][\w, ]*\s*=(?!=)).*",
    re.MULTILINE,
)
_CODE_LINE = re.compile(
    r"(?:from|import|def|class|async|if|elif|else|for|while|with|try|except|finally|assert)\b|[@#)\]}]"
    r"|[A-Za-z_][\w.]*(?:\[[^\]]*\])?\s*(?::[^=\n]+=|[-+*/|&^]?=|\()|[A-Za-z_]\w*(?:\s*,\s*[A-Za-z_]\w*)+\s*="
)
Wanted = Callable[[ast.Module], bool]


def find_code(response: str, name: str, prompt: str) -> str | None:
    """Finds code that defines the function `name`, completed with what the prompt gives.

    Returns:
        The source, or None when no code defines the function or the text is longer than MAX_CHARS.
    """
    text = _spoken_text(response)
    if text is None:
        return None
    blocks = find_blocks(text)
    candidates = (*reversed(blocks), text, _code_lines(text, _FIRST_LINE))
    for code in candidates:
        if defines_name(code, name, with_body=True):
            return _with_preamble(join_blocks(code, blocks), extract_preamble(prompt, name))
    for begin in code_beginnings(prompt):
        for rest in (*reversed(blocks), text, _indented_lines(text)):
            for body in _indentations(rest):
                if defines_name(begin + body, name, with_body=True):
                    return begin + body
    for code in candidates:
        if defines_name(code, name):
            return _with_preamble(join_blocks(code, blocks), extract_preamble(prompt, name))
    return None


def find_program(response: str) -> str | None:
    """Finds code that does something when it is run as a program; None when there is none."""
    text = _spoken_text(response)
    if text is None:
        return None
    blocks = find_blocks(text)
    for code in (*reversed(blocks), text, _code_lines(text, _FIRST_LINE_OF_PROGRAM)):
        tree = parse_code(code)
        if tree is not None and any(map(_acts, tree.body)):
            return join_blocks(code, blocks)
    return None


def join_blocks(code: str, blocks: list[str]) -> str:
    """Returns the code with what it uses and other blocks define in front of it, as a reader would put it together."""
    tree = parse_code(code)
    if tree is None:
        return code
    needed = free_names(tree)
    others = [other for block in blocks if block != code and (other := parse_code(block)) is not None]
    nodes = [node for other in others for node in other.body if isinstance(node, _KEPT)]
    taken: dict[int, ast.stmt] = {}
    while needed:
        name = needed.pop()
        place = max((i for i, node in enumerate(nodes) if name in bound_names(node)), default=-1)
        if place >= 0 and place not in taken:
            taken[place] = nodes[place]
            needed |= free_names(ast.Module([nodes[place]], []))
    return _with_preamble(code, "\n".join(ast.unparse(taken[place]) for place in sorted(taken)))


def extract_preamble(prompt: str, name: str) -> str:
    """Returns the imports, constants and helpers in a prompt, without the function `name` that it asks for."""
    for code in code_beginnings(prompt):
        tree = parse_code(code)
        if tree is None and (tree := parse_code(code + "\n    pass\n")) is None:
            tree = parse_code(code + "\n        pass\n")
        if tree is None:
            continue
        kept = [node for node in tree.body if isinstance(node, _KEPT) and getattr(node, "name", "") != name]
        if any(getattr(node, "name", "") == name for node in tree.body):
            return "\n".join(ast.unparse(node) for node in kept)
    return ""


def find_last_function(prompt: str) -> str:
    """Returns the name of the last function that code in the prompt begins, or an empty string."""
    for code in code_beginnings(prompt):
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
        with_body: whether a function must have more than a docstring or `pass`, and must not be imported.
    """
    tree = parse_code(code)
    if tree is None or (with_body and any(map(_returns, tree.body))):
        return False
    return any(_binds(node, name, with_body) for node in tree.body)


def parse_code(code: str) -> ast.Module | None:
    """Returns the syntax tree, or None when the text is not Python."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def free_names(tree: ast.Module) -> set[str]:
    """Names that the code uses and neither binds anywhere nor finds among builtins and preamble."""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return {name for name in used - bound_names(tree) if not hasattr(builtins, name) and name not in preamble_names()}


def bound_names(tree: ast.AST) -> set[str]:
    """Names that code assigns, defines, takes as parameters or imports, at any depth."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return names


def code_beginnings(prompt: str) -> list[str]:
    """Parts of the prompt that may be code: its fenced blocks, the whole, and from its first line of code on."""
    if len(prompt) > MAX_CHARS:
        return []
    blocks = list(reversed(_PROMPT_FENCE.findall(prompt)))
    first = _FIRST_LINE.search(prompt)
    return [*blocks, prompt, *([prompt[first.start() :]] if first else [])]


def _spoken_text(response: str) -> str | None:
    """What a response says after its thoughts; None when it is too long, or ends within a thought."""
    if len(response) > MAX_RESPONSE_CHARS:
        return None
    text, is_unfinished = split_thoughts(response.replace("\ufeff", ""))
    if len(text) > MAX_CHARS or is_unfinished:
        return None
    before, mark, _ = text.partition("[DONE]")
    return strip_end(before if mark and before.strip() else text)


def _with_preamble(code: str, preamble: str) -> str:
    """The code behind a preamble; an import from __future__ stays the first statement."""
    tree = parse_code(code)
    futures = (
        [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"] if tree else []
    )
    if not preamble:
        return code
    if futures:
        lines = code.splitlines()
        for node in futures:
            lines[node.lineno - 1 : (node.end_lineno or node.lineno)] = [""] * (
                1 + (node.end_lineno or node.lineno) - node.lineno
            )
        code = "\n".join(lines) + "\n"
    return "\n".join([*map(ast.unparse, futures), preamble, code])


def _binds(node: ast.stmt, name: str, with_body: bool) -> bool:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        is_bare = len(node.body) == 1 and isinstance(node.body[0], ast.Expr | ast.Pass)
        return node.name == name and not (with_body and is_bare)
    if isinstance(node, ast.Import | ast.ImportFrom):
        return any((alias.asname or alias.name) == name for alias in node.names) and not with_body
    if isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
        inner = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
        inner += [child for handler in getattr(node, "handlers", []) for child in handler.body]
        return any(_binds(child, name, with_body) for child in inner)
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    names = [part for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
    return any(part.id == name and isinstance(part.ctx, ast.Store) for part in names)


def _returns(node: ast.AST) -> bool:
    """Whether a statement returns without a function around it, as a body does that has lost its indentation."""
    if isinstance(node, ast.Return):
        return True
    if isinstance(node, (*_FUNCTION, ast.ClassDef, ast.Lambda)):
        return False
    return any(_returns(child) for child in ast.iter_child_nodes(node))


def _acts(node: ast.stmt) -> bool:
    """Whether a statement at the top level calls something, other than in a definition."""
    if isinstance(node, (*_FUNCTION, ast.ClassDef, ast.Import, ast.ImportFrom)):
        return False
    return any(isinstance(part, ast.Call) for part in ast.walk(node))


def _code_lines(text: str, first_line: re.Pattern[str]) -> str:
    """The text from its first line of code up to the first line that is neither indented nor looks like code."""
    first = first_line.search(text)
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


def _indentations(body: str) -> Iterator[str]:
    """A body as it stands, with the indentation of a function, and with that of a first line that lost its blanks."""
    yield body
    stripped = body.lstrip("\n")
    yield textwrap.indent(textwrap.dedent(stripped), "    ")
    first, end, others = stripped.partition("\n")
    yield f"    {first.lstrip()}{end}{others}"
