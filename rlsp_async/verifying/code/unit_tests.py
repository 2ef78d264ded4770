"""The tests of a programming task, run where a model's code is not: every call of its function goes to the runner.

    tests = read_tests("assert add(1, 2) == 3", "")
    tests.name                                      # "add"
    tests.run(lambda name, args, kwargs: ...)       # raises AssertionError when one fails

Two formats: plain asserts (MBPP), or a function `check(candidate)` (HumanEval), whose prompt gives the name of the
candidate and the helpers. JSON `{"test": "...", "entry_point": "..."}` says both outright. Tests are data of the user.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from rlsp_async.errors import DataError
from rlsp_async.verifying.code.extract import last_function, parse, preamble
from rlsp_async.verifying.code.runner import run_source

Call = Callable[[str, tuple[Any, ...], dict[str, Any]], Any]
_BUILTINS = frozenset(dir(builtins))
_FAULTS_OF_THE_TEST = (NameError, ImportError, SyntaxError)


class Tests(msgspec.Struct, frozen=True):
    """Tests that have been read."""

    source: str
    name: str
    """The function that they test."""
    others: frozenset[str]
    """Further names that the answer must offer."""
    helpers: str
    """What the prompt gives."""
    has_check: bool
    modules: frozenset[str]
    """Modules that the tests use as if they had imported them."""

    def run(self, call: Call) -> None:
        """Runs them. Raises AssertionError or whatever else a wrong answer leads to; DataError when they are no
        tests."""
        asked: list[BaseException | None] = []

        def proxy(name: str) -> Callable[..., Any]:
            def function(*args: Any, **kwargs: Any) -> Any:
                asked.append(None)
                try:
                    return call(name, args, kwargs)
                except BaseException as e:
                    asked[-1] = e
                    raise

            return function

        namespace: dict[str, Any] = {"__name__": "tests"}
        try:
            run_source(self.helpers, "helpers.py", namespace)
            namespace |= {name: sys.modules[name] for name in self.modules if name not in namespace}
            namespace |= {name: proxy(name) for name in (self.name, *self.others) if name not in namespace}
            run_source(self.source, "tests.py", namespace)
            if self.has_check:
                namespace["check"](proxy(self.name))
        except _FAULTS_OF_THE_TEST as e:
            if e in asked:
                raise
            raise DataError(f"the tests cannot be run: {type(e).__name__}: {e}") from None
        if not asked:
            raise DataError("the tests call no function of the answer")


def read_tests(answer: str, prompt: str) -> Tests:
    """The tests that a reference answer holds. Raises DataError when it holds none."""
    source, name = _parts(answer)
    tree = parse(source)
    if tree is None:
        raise DataError("the reference answer is no Python: tests are asserts or check(candidate)")
    if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        raise DataError("the tests hold no assert")
    has_check = any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body)
    free = _free_names(tree)
    name = name or (last_function(prompt) if has_check else next(iter(free or _called_names(tree)), ""))
    if not name:
        raise DataError('the tests name no function: say which in "entry_point"')
    helpers = preamble(prompt, name)
    modules = {
        node.value.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in sys.modules
    }
    return Tests(source, name, frozenset(free) - {name}, helpers, has_check, frozenset(modules - set(_made(tree))))


def _parts(answer: str) -> tuple[str, str]:
    """Source of the tests and name of the function, if it is said."""
    if not answer.lstrip().startswith("{"):
        return answer, ""
    try:
        table = msgspec.json.decode(answer, type=dict[str, Any])
    except msgspec.MsgspecError as e:
        raise DataError(f'the reference answer is no JSON object with "test": {e}') from None
    test, name = table.get("test"), table.get("entry_point", "")
    if not isinstance(test, str) or not isinstance(name, str):
        raise DataError('the reference answer is no JSON object with "test" and "entry_point"')
    return test, name


def _free_names(tree: ast.Module) -> dict[str, None]:
    """Names that are called but not made in the tests, in order of appearance."""
    made = _BUILTINS | set(_made(tree))
    return {name: None for name in _called_names(tree) if name not in made}


def _called_names(tree: ast.Module) -> list[str]:
    called = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    names = sorted((f for f in called if isinstance(f, ast.Name)), key=lambda f: (f.lineno, f.col_offset))
    return [one.id for one in names]


def _made(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)
