"""The run of tests that are Python, statement by statement, in the checker process."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import random
import sys
import traceback
import types
import unittest
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from rlsp_async.errors import DataError
from rlsp_async.verifying.code.extract import bound_names, find_code, parse_code
from rlsp_async.verifying.code.library import PLACEHOLDERS
from rlsp_async.verifying.code.preamble import preamble_names
from rlsp_async.verifying.code.pytest_names import expand_cases, fixture_name, make_pytest
from rlsp_async.verifying.code.remote import AnswerSession, UncarriedError
from rlsp_async.verifying.code.runner import CodeRunner, allow_event_loops, run_source

_FAULTS_OF_THE_TEST = (NameError, ImportError, SyntaxError, OSError)
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


class PassedTests(NamedTuple):
    """How many tests have passed, and why the first of the others has not."""

    num_passed: int
    num_tests: int
    failure: str = ""


class UnitTests(msgspec.Struct, frozen=True):
    """The tests of one reference answer, as read by `unit_tests.read_tests`."""

    source: str
    name: str
    """Name of the tested function or class."""
    method: str
    """The method of an instance of the class `name` that is the candidate; empty: `name` itself is."""
    called: frozenset[str]
    """Names of further functions that the answer must define."""
    used: frozenset[str]
    """Other names that the tests use and do not define."""
    imported: frozenset[str]
    """Names that the tests import from the module of the answer."""
    errors: frozenset[str]
    """Classes of errors of the answer that the tests expect."""
    helpers: str
    """Source of the imports, constants and helpers that the prompt gives."""
    has_check: bool
    modules: frozenset[str]
    """Names of modules that the tests use without importing them."""
    awaits: bool
    """Whether the tests await what the answer returns."""
    handles_errors: bool = True
    """Whether the tests may expect an error of the function (`try`, `with`, assertRaises). If not, an error that one of
    its calls has raised fails the tests, even if a loop or a builtin has taken it for its end."""

    def find_code(self, response: str, prompt: str) -> str | None:
        """The code of a response that these tests are about."""
        return find_code(response, self.name, prompt)

    def describe_code(self) -> str:
        """What code is looked for, in words."""
        return f"Python code that defines {self.name!r}"

    def run(self, runner: CodeRunner, code: str) -> PassedTests:
        """Runs the code in the runner, then the tests in this process.

        Raises:
            DataError: the tests cannot be run, or call no function of the answer.
        """
        tree = parse_code(self.source)
        assert tree is not None  # read_tests has parsed it
        return PythonTests(runner, tree, self).run(_with_classes(code, tree))


def is_test(node: ast.stmt) -> bool:
    """Whether a statement asserts something itself: `assert ...`, `self.assertEqual(...)`, `with raises(...)`."""
    if isinstance(node, ast.Assert):
        return True
    parts = [node.value] if isinstance(node, ast.Expr) else []
    parts += [item.context_expr for item in node.items] if isinstance(node, ast.With | ast.AsyncWith) else []
    for part in parts:
        name = getattr(getattr(part, "func", None), "attr", "") or getattr(getattr(part, "func", None), "id", "")
        if isinstance(part, ast.Call) and (name.startswith("assert") or name == "raises" or name == "fail"):
            return True
    return False


def holds_test(node: ast.stmt) -> bool:
    """Whether a statement that is no definition is a test, or holds one."""
    if isinstance(node, (*_FUNCTION, ast.ClassDef)):
        return False
    return any(is_test(part) for part in ast.walk(node) if isinstance(part, ast.stmt))


class PythonTests:
    """One run."""

    def __init__(self, runner: CodeRunner, tree: ast.Module, facts: UnitTests) -> None:
        self._tree, self._facts = tree, facts
        self._errors: dict[str, type[Exception]] = {name: type(name, (Exception,), {}) for name in facts.errors}
        names = (facts.name, *facts.called, *facts.used, *facts.imported)
        named = frozenset(name for name in names if name[:1].isupper())
        self._session = AnswerSession(runner, named=named, errors=self._errors, awaits=facts.awaits)
        self._namespace: dict[str, Any] = {**preamble_names(), "__name__": "tests"}
        self._num_passed = 0
        self._num_tests = 0
        self._failure = ""
        self._candidate: Any = None

    def run(self, code: str) -> PassedTests:
        """Runs the code in the runner, then the tests in this process.

        Raises:
            DataError: the tests cannot be run, or call no function of the answer.
        """
        with _tools_of_tests(self._session):
            self._run_own(self._facts.helpers, "helpers.py")
            self._share_classes(list(self._namespace))
            self._session.expect_classes(self._classes_of_tests())
            started = self._attempt(lambda: self._session.start(code))
            if started:
                self._failure = started
            else:
                self._bind_names()
                self._run_body()
        if not started and not self._session.num_calls and not self._failure:
            raise DataError("the tests call no function of the answer")
        return PassedTests(self._num_passed, max(1, self._num_tests), self._failure)

    def _run_own(self, source: str | ast.Module, label: str) -> None:
        try:
            run_source(source, label, self._namespace)
        except _FAULTS_OF_THE_TEST as e:
            raise DataError(f"the tests cannot be run: {type(e).__name__}: {e}") from None

    # --- names -------------------------------------------------------------------------------------------------------

    def _classes_of_tests(self) -> list[str]:
        """Classes in the tests whose instances are nothing but attributes: without methods but for those of Python."""
        return [
            node.name
            for node in self._tree.body
            if isinstance(node, ast.ClassDef)
            and all(child.name.startswith("__") for child in node.body if isinstance(child, _FUNCTION))
        ]

    def _share_classes(self, names: list[str]) -> None:
        """Has instances of these classes cross by value."""
        for name in names:
            value = self._namespace.get(name)
            if isinstance(value, type) and value.__module__ == "tests":
                self._session.share_class(name, value)

    def _bind_names(self) -> None:
        """Gives the tests the names of the answer, and the modules that they use without importing them."""
        facts, names = self._facts, self._namespace
        names |= {name: sys.modules[name] for name in facts.modules if name in sys.modules and name not in names}
        names["pytest"] = sys.modules["pytest"]
        for name in (facts.name, *facts.called, *facts.used, *facts.imported):
            if name in self._errors:
                names[name] = self._errors[name]
            elif name == facts.name or name in facts.imported or name not in names:
                is_called = name == facts.name or name in facts.called or name in facts.imported
                found = self._session.find_or_missing(name, is_called=is_called)
                if found is not None:
                    names[name] = found[0]
        names |= {name: kind for name, kind in self._errors.items() if name not in names}
        self._candidate = names.get(facts.name)

    def _answer_module(self) -> types.ModuleType:
        """The module of the answer, as tests import it."""
        session = self._session

        class AnswerModule(types.ModuleType):
            """Finds the names of the answer when the tests ask for them."""

            def __getattr__(self, name: str) -> Any:
                if name.startswith("__"):
                    raise AttributeError(name)
                found = session.find_or_missing(name, is_called=True)
                return found[0] if found else None

        return AnswerModule("solution")

    # --- statements --------------------------------------------------------------------------------------------------

    def _run_body(self) -> None:
        body = [node for node in self._tree.body if not _is_main_guard(node)]
        futures = [node for node in body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
        self._run_statements([node for node in body if node not in futures], futures)
        if self._facts.has_check and not self._failure_is_final():
            self._run_check()
        if self._failure_is_final():
            return
        called = {part.func.id for part in _calls_of(body) if isinstance(part.func, ast.Name)}
        for name, value in list(self._namespace.items()):
            if name not in called and getattr(value, "__module__", "") == "tests":
                self._run_collected(name, value)
        if not self._num_tests:
            guard = [part for node in self._tree.body if _is_main_guard(node) for part in getattr(node, "body", [])]
            self._run_statements([node for node in guard if not _calls_main(node)], futures, are_tests=True)

    def _failure_is_final(self) -> bool:
        return self._session.end is not None

    def _run_statements(self, body: list[ast.stmt], futures: list[ast.ImportFrom], *, are_tests: bool = False) -> None:
        """Runs statements one by one. After a failed test the others go on; after another failure they are failed."""
        can_go_on = True
        for node in body:
            counts = holds_test(node) or (are_tests and isinstance(node, ast.Expr)) or self._calls_test(node)
            self._num_tests += counts
            if not can_go_on or self._failure_is_final():
                continue
            if isinstance(node, ast.Import | ast.ImportFrom) and self._import_answer(node):
                continue
            module = ast.Module([*futures, node], [])
            failure = self._attempt(lambda module=module: run_source(module, "tests.py", self._namespace))  # type: ignore[misc]
            if isinstance(node, ast.ClassDef):
                self._share_classes([node.name] if node.name in self._classes_of_tests() else [])
            self._note(failure, counts)
            can_go_on = not failure or counts

    def _calls_test(self, node: ast.stmt) -> bool:
        """Whether a statement calls a function of the tests that asserts something: `test_add()`."""
        if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
            return False
        asserting = {
            part.name
            for part in self._tree.body
            if isinstance(part, _FUNCTION) and any(is_test(x) for x in ast.walk(part) if isinstance(x, ast.stmt))
        }
        return getattr(node.value.func, "id", "") in asserting

    def _import_answer(self, node: ast.Import | ast.ImportFrom) -> bool:
        """Binds what an import of the answer's module binds."""
        if isinstance(node, ast.ImportFrom):
            names = {alias.name: alias.asname or alias.name for alias in node.names}
            if not set(names) - {"*"} <= self._facts.imported or node.module == "__future__":
                return False
            for name, bound in names.items():
                if name != "*":
                    self._namespace[bound] = self._namespace.get(name)
            return True
        if not all(alias.name in PLACEHOLDERS for alias in node.names):
            return False
        self._namespace |= {alias.asname or alias.name: self._answer_module() for alias in node.names}
        return True

    def _run_check(self) -> None:
        """Runs `check(candidate)`: statement by statement where the body reads the same outside of its function."""
        candidate = self._candidate
        if self._facts.method:
            method = self._facts.method

            def candidate(*args: Any, **kwargs: Any) -> Any:
                return getattr(self._candidate(), method)(*args, **kwargs)

        check = next(node for node in self._tree.body if isinstance(node, ast.FunctionDef) and node.name == "check")
        parameters = [parameter.arg for parameter in check.args.args]
        if len(parameters) == 1 and not check.decorator_list and _is_flat(check):
            self._namespace[parameters[0]] = candidate
            self._run_statements(check.body, [])
            return
        self._num_tests += 1
        self._note(self._attempt(lambda: self._namespace["check"](candidate)), True)

    # --- functions, methods and classes ------------------------------------------------------------------------------

    def _run_collected(self, name: str, value: Any) -> None:
        if isinstance(value, types.FunctionType) and name.startswith("test"):
            self._run_cases(value, expand_cases(value))
        elif isinstance(value, type) and issubclass(value, unittest.TestCase):
            for method in unittest.TestLoader().getTestCaseNames(value):
                if not getattr(getattr(value, method), "__unittest_skip__", False):
                    self._run_one(lambda method=method: _run_method(value(method), method))  # type: ignore[misc]
        elif isinstance(value, type) and name.startswith("Test") and "__init__" not in vars(value):
            for method in [method for method in vars(value) if method.startswith("test")]:
                self._run_cases(getattr(value, method), expand_cases(vars(value)[method], value), value)

    def _run_cases(self, function: Callable[..., Any], cases: list[dict[str, Any]], kind: Any = None) -> None:
        for case in cases:
            self._run_one(lambda case=case: self._call_test(function, case, kind))  # type: ignore[misc]

    def _call_test(self, function: Callable[..., Any], case: dict[str, Any], kind: Any) -> None:
        """Calls a test function with its case and its fixtures, as pytest does."""
        instance = kind() if kind is not None else None
        for name in ("setup_class", "setup_method", "setup"):
            if hasattr(instance, name):
                inspect_call(getattr(instance, name), function)
        call = function if instance is None else types.MethodType(function, instance)
        wanted = [name for name, one in inspect.signature(call).parameters.items() if one.default is one.empty]
        missing = [name for name in wanted if name not in case]
        _finish(call(**case, **{name: self._make_fixture(name, instance) for name in missing}))

    def _make_fixture(self, name: str, instance: Any) -> Any:
        if name in ("candidate", "solution", "func", "function"):
            return self._candidate
        if name == "capsys":
            return sys.modules["pytest"].capture
        owners = [value for value in self._namespace.values() if fixture_name(value) == name]
        owners += [
            types.MethodType(value, instance) for value in vars(type(instance)).values() if fixture_name(value) == name
        ]
        if not owners:
            raise NameError(f"the fixture {name!r} is not defined")
        wanted = list(inspect.signature(owners[0]).parameters)
        made = owners[0](**{inner: self._make_fixture(inner, instance) for inner in wanted})
        return next(made) if isinstance(made, types.GeneratorType) else made

    def _run_one(self, act: Callable[[], Any]) -> None:
        self._num_tests += 1
        if not self._failure_is_final():
            self._note(self._attempt(act), True)

    # --- outcomes ----------------------------------------------------------------------------------------------------

    def _attempt(self, act: Callable[[], Any]) -> str:
        """Does something with the answer, and returns why it has failed; empty when it has not.

        Raises:
            DataError: the tests are at fault.
        """
        outcomes, error = self._session.outcomes, None
        place = len(outcomes)
        try:
            act()
        except BaseException as e:  # noqa: BLE001  the answer, or a comparison with its results, may raise anything
            error = e
        if isinstance(self._session.end, UncarriedError):
            raise DataError(str(self._session.end)) from None
        if isinstance(error, DataError):
            raise error
        if isinstance(error, _FAULTS_OF_THE_TEST) and not self._session.has_raised(error):
            raise DataError(f"the tests cannot be run: {type(error).__name__}: {error}") from None
        if self._session.end is not None:
            return f"the code's process was lost: {self._session.end}"
        if error is None and not self._facts.handles_errors:
            error = next((one for one in outcomes[place:] if one is not None), None)
        return f"{_failed_line(error)}{type(error).__name__}: {error}" if error is not None else ""

    def _note(self, failure: str, counts: bool) -> None:
        self._num_passed += bool(counts and not failure)
        self._failure = self._failure or failure


def inspect_call(function: Callable[..., Any], argument: Any) -> None:
    """Calls a set-up method with the argument that it may have."""
    function(*([argument] if inspect.signature(function).parameters else []))


def _run_method(case: unittest.TestCase, method: str) -> None:
    """Runs one method of a TestCase, with what comes before and after it; errors rise."""
    kind = type(case)
    kind.setUpClass()
    try:
        case.setUp()
        if isinstance(case, unittest.IsolatedAsyncioTestCase):
            asyncio.run(case.asyncSetUp())
        _finish(getattr(case, method)())
        case.tearDown()
    finally:
        case.doCleanups() if not isinstance(case, unittest.IsolatedAsyncioTestCase) else None
        kind.tearDownClass()


def _finish(value: Any) -> None:
    if inspect.iscoroutine(value):
        asyncio.run(value)


class PrintedText:
    """The fixture capsys: what the answer has printed since the last reading."""

    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    def readouterr(self) -> Any:
        """The text, as pytest names it."""
        text = self._stream.getvalue()
        self._stream.seek(0)
        self._stream.truncate()
        return types.SimpleNamespace(out=text, err="")


@contextlib.contextmanager
def _tools_of_tests(session: AnswerSession) -> Iterator[None]:
    """What tests find while they run: pytest, an event loop, an output that goes nowhere, one seed for all."""
    before = sys.modules.get("pytest")
    module = make_pytest()
    sys.modules["pytest"] = module
    loop = asyncio.SelectorEventLoop
    kept = {name: vars(loop).get(name) for name in ("_make_self_pipe", "_close_self_pipe")}
    allow_event_loops()
    seed = random.seed

    def seed_both(value: Any = None, version: int = 2) -> None:
        seed(value, version)
        session.ask("seed", value, version)

    random.seed = seed_both  # type: ignore[assignment]
    try:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            module.capture = PrintedText(printed)  # type: ignore[attr-defined]
            yield
    finally:
        random.seed = seed
        for name, value in kept.items():
            if value is None:
                delattr(loop, name)
            else:
                setattr(loop, name, value)
        if before is None:
            del sys.modules["pytest"]
        else:
            sys.modules["pytest"] = before


def _is_main_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "__name__" in ast.dump(node.test) and "__main__" in ast.dump(node.test)


def _calls_main(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and getattr(node.value.func, "attr", "") == "main"
    )


def _calls_of(body: list[ast.stmt]) -> Iterator[ast.Call]:
    for node in body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield node.value


def _is_flat(function: ast.FunctionDef) -> bool:
    """Whether the statements of a function mean the same at the top level of a module."""
    for node in ast.walk(function):
        if isinstance(node, ast.Return | ast.Yield | ast.YieldFrom | ast.Await | ast.Global | ast.Nonlocal):
            return False
    return True


def _failed_line(error: BaseException) -> str:
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == "tests.py"]
    return f"line {lines[-1]} of the tests: " if lines else ""


def _with_classes(code: str, tree: ast.Module) -> str:
    """The code behind the classes of data that it mentions and that the tests define, such as ListNode."""
    answer = parse_code(code)
    if answer is None:
        return code
    mentioned = {node.id for node in ast.walk(answer) if isinstance(node, ast.Name)} - bound_names(answer)
    given = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name in mentioned]
    own = [ast.unparse(node) for node in given if not any(isinstance(part, ast.Assert) for part in ast.walk(node))]
    return "\n".join([*own, code]) if own else code
