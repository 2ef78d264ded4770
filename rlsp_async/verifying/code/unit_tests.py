"""The unit tests of a programming task: read from the reference answer, run in the checker process.

    tests = read_tests("assert add(1, 2) == 3", "")
    tests.name                                      # "add"
    tests.run(lambda name, args, kwargs: ...)       # raises AssertionError when one fails

Each call of the tested function goes to the runner, where the model's code is. There are two formats: plain asserts
(MBPP), and a function `check(candidate)` (HumanEval), whose prompt gives the name of the candidate and the helpers.
JSON `{"test": "...", "entry_point": "..."}` names the function outright. The user writes the tests, never the model.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from rlsp_async.errors import DataError
from rlsp_async.verifying.code.extract import extract_preamble, find_last_function, parse_code
from rlsp_async.verifying.code.runner import run_source

Call = Callable[[str, tuple[Any, ...], dict[str, Any]], Any]
_BUILTINS = frozenset(dir(builtins))
_FAULTS_OF_THE_TEST = (NameError, ImportError, SyntaxError)


class UnitTests(msgspec.Struct, frozen=True):
    """The tests of one reference answer, as read by `read_tests`."""

    source: str
    name: str
    """Name of the tested function."""
    others: frozenset[str]
    """Names of further functions that the answer must define."""
    helpers: str
    """Source of the imports, constants and helpers that the prompt gives."""
    has_check: bool
    modules: frozenset[str]
    """Names of modules that the tests use without importing them."""

    def run(self, call: Call) -> None:
        """Runs the tests.

        Args:
            call: calls the function of a name with arguments in the runner, and returns its result.

        Raises:
            AssertionError: a test failed. A wrong answer may lead to any other exception, too.
            DataError: the tests cannot be run, or call no function of the answer.
        """
        calls: list[BaseException | None] = []

        def proxy(name: str) -> Callable[..., Any]:
            def function(*args: Any, **kwargs: Any) -> Any:
                calls.append(None)
                try:
                    return call(name, args, kwargs)
                except BaseException as e:
                    calls[-1] = e
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
            if e in calls:
                raise
            raise DataError(f"the tests cannot be run: {type(e).__name__}: {e}") from None
        if not calls:
            raise DataError("the tests call no function of the answer")


def read_tests(answer: str, prompt: str) -> UnitTests:
    """Reads the tests in a reference answer.

    Args:
        answer: Python source, or JSON with "test" and "entry_point".
        prompt: the prompt, which may name the function and define helpers.

    Raises:
        DataError: the answer holds no tests, or they name no function.
    """
    source, name = _read_answer(answer)
    tree = parse_code(source)
    if tree is None:
        raise DataError("the reference answer is not Python: tests are asserts or check(candidate)")
    if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        raise DataError("the tests hold no assert")
    has_check = any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body)
    free = _free_names(tree)
    name = name or (find_last_function(prompt) if has_check else next(iter(free or _called_names(tree)), ""))
    if not name:
        raise DataError('the tests name no function: name it in "entry_point"')
    helpers = extract_preamble(prompt, name)
    modules = {
        node.value.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in sys.modules
    }
    return UnitTests(
        source, name, frozenset(free) - {name}, helpers, has_check, frozenset(modules - set(_bound_names(tree)))
    )


def _read_answer(answer: str) -> tuple[str, str]:
    """Source of the tests, and the name of the function; the name is empty when only the source is given."""
    if not answer.lstrip().startswith("{"):
        return answer, ""
    try:
        table = msgspec.json.decode(answer, type=dict[str, Any])
    except msgspec.MsgspecError as e:
        raise DataError(f'the reference answer is not a JSON object with "test": {e}') from None
    test, name = table.get("test"), table.get("entry_point", "")
    if not isinstance(test, str) or not isinstance(name, str):
        raise DataError('the reference answer is not a JSON object with "test" and "entry_point"')
    return test, name


def _free_names(tree: ast.Module) -> dict[str, None]:
    """Names that the tests call but do not bind, in order of appearance."""
    bound = _BUILTINS | set(_bound_names(tree))
    return {name: None for name in _called_names(tree) if name not in bound}


def _called_names(tree: ast.Module) -> list[str]:
    called = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    names = sorted((f for f in called if isinstance(f, ast.Name)), key=lambda f: (f.lineno, f.col_offset))
    return [name.id for name in names]


def _bound_names(tree: ast.Module) -> Iterator[str]:
    """Names that the tests assign, define, take as parameters or import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)
