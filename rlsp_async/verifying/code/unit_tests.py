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
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from rlsp_async.errors import DataError
from rlsp_async.verifying.code.extract import extract_preamble, find_last_function, parse_code
from rlsp_async.verifying.code.runner import RunnerLost, run_source

Call = Callable[[str, tuple[Any, ...], dict[str, Any]], Any]
_BUILTINS = frozenset(dir(builtins))
_TAKE_FUNCTION_FIRST = frozenset(
    {"map", "filter", "reduce", "partial", "starmap", "takewhile", "dropwhile", "filterfalse", "callable"}
)
_TAKE_FUNCTION_SECOND = frozenset({"accumulate", "assertRaises", "raises", "groupby"})
"""Functions whose first or second argument is a function."""
_TAKE_FUNCTION_BY_NAME = frozenset({"key", "func", "function", "default_factory", "initial_func"})
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
    handles_errors: bool = True
    """Whether the tests may expect an error of the function (`try`, `with`, assertRaises). If not, an error that one of
    its calls has raised fails the tests, even if a loop or a builtin has taken it for its end."""

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
        for error in calls:
            if isinstance(error, RunnerLost) or (error is not None and not self.handles_errors):
                raise error


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
    name = name or (find_last_function(prompt) if has_check else _guess_name(tree, free, prompt))
    if not name:
        raise DataError('the tests name no function: name it in "entry_point"')
    helpers = extract_preamble(prompt, name)
    return UnitTests(
        source=source,
        name=name,
        others=frozenset(free) - {name},
        helpers=helpers,
        has_check=has_check,
        modules=frozenset(_module_names(tree) - set(_bound_names(tree))),
        handles_errors=_handles_errors(tree) or _handles_errors(parse_code(helpers)),
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


def _guess_name(tree: ast.Module, free: dict[str, None], prompt: str) -> str:
    """The function that asserts are about.

    In this order: the first free name that is called; the first free name that is used in another way, such as an
    argument of a function that the prompt does not define; the function that the prompt begins, if the tests use it;
    the first name that is called, which is then the name of a builtin.
    """
    if free:
        return next(iter(free))
    bound = _BUILTINS | set(_bound_names(tree)) | _module_names(tree)
    used = [name.id for name in _in_order(node for node in ast.walk(tree) if isinstance(node, ast.Name))]
    begun = find_last_function(prompt)
    called = _called_names(tree)
    return next((name for name in used if name not in bound), begun if begun in used else next(iter(called), ""))


def _free_names(tree: ast.Module) -> dict[str, None]:
    """Names that the tests call but do not bind, in order of appearance."""
    bound = _BUILTINS | set(_bound_names(tree))
    return {name: None for name in _called_names(tree) if name not in bound}


def _called_names(tree: ast.Module) -> list[str]:
    """Names that are called, or that a call passes where a function is expected: `map(f, a)`, `sorted(a, key=f)`."""
    names: list[ast.Name] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            functions = [node.func, *(word.value for word in node.keywords if word.arg in _TAKE_FUNCTION_BY_NAME)]
            caller = getattr(node.func, "id", "") or getattr(node.func, "attr", "")
            functions += node.args[:1] if caller in _TAKE_FUNCTION_FIRST else []
            functions += node.args[1:2] if caller in _TAKE_FUNCTION_SECOND else []
            names += [function for function in functions if isinstance(function, ast.Name)]
    return [name.id for name in _in_order(names)]


def _in_order(names: Iterable[ast.Name]) -> list[ast.Name]:
    return sorted(names, key=lambda name: (name.lineno, name.col_offset))


def _module_names(tree: ast.Module) -> set[str]:
    """Names of loaded modules whose attributes the tests use."""
    return {
        node.value.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in sys.modules
    }


def _handles_errors(tree: ast.Module | None) -> bool:
    """Whether the code has a statement or a call that may expect an error."""
    if tree is None:
        return True
    for node in ast.walk(tree):
        if isinstance(node, ast.Try | ast.TryStar | ast.With | ast.AsyncWith):
            return True
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        if "raises" in name.lower() or "suppress" in name:
            return True
    return False


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
