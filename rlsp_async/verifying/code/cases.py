"""Tests that are data: inputs with their outputs, for programs, functions and stateful classes.

    ProgramTests(cases=(ProgramCase("3\\n1 2 3\\n", ("6\\n",)),), tolerance=0.0)
    CallTests(name="add", cases=(CallCase((1, 2), {}, 3),), tolerance=0.0, is_in_place=False)

A program runs once for each case, with the input as its standard input. A function is called once for each case; it is
a function of that name or a method of a class Solution, of which each case has an instance of its own. A case whose
arguments are ["MinStack", "push", ...] and [[], [1], ...] makes an instance of the class and calls its methods in turn.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec

from rlsp_async.errors import DataError
from rlsp_async.verifying.code.comparing import is_same_output, is_same_value
from rlsp_async.verifying.code.extract import find_code, find_last_function, find_program, parse_code
from rlsp_async.verifying.code.python_tests import PassedTests
from rlsp_async.verifying.code.remote import AnswerSession, UncarriedError
from rlsp_async.verifying.code.runner import CodeRunner, RunnerLost

_SOLUTION = "Solution"
_SHOWN_CHARS = 60


class ProgramCase(msgspec.Struct, frozen=True):
    """One run of a program."""

    stdin: str
    outputs: tuple[str, ...]
    """The outputs of which any is right."""


class ProgramTests(msgspec.Struct, frozen=True):
    """Tests of a program by its standard input and output."""

    cases: tuple[ProgramCase, ...]
    tolerance: float

    def find_code(self, response: str, prompt: str) -> str | None:
        """The program in a response."""
        return find_program(response)

    def describe_code(self) -> str:
        """What code is looked for, in words."""
        return "Python program"

    def run(self, runner: CodeRunner, code: str) -> PassedTests:
        """Runs the program once for each case. Nothing of a run is left for the next but what it did to modules."""
        session = AnswerSession(runner)
        num_passed, failure = 0, ""
        for number, case in enumerate(self.cases, start=1):
            found = _attempt(session, partial(self._run_case, session, code, case))
            num_passed += not found
            failure = failure or (f"case {number}: {found}" if found else "")
            if session.end is not None:
                break
        return PassedTests(num_passed, len(self.cases), failure)

    def _run_case(self, session: AnswerSession, code: str, case: ProgramCase) -> str:
        output = session.run_program(code, case.stdin)
        if any(is_same_output(output, expected, self.tolerance) for expected in case.outputs):
            return ""
        return f"the program wrote {_shown(output)}, expected {_shown(case.outputs[0])}"


class CallCase(msgspec.Struct, frozen=True):
    """One call."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: tuple[Any, ...]
    """The results of which any is right."""


class CallTests(msgspec.Struct, frozen=True):
    """Tests of a function by arguments and results that are JSON."""

    name: str
    """Name of the function or method; empty: the prompt or the answer names it."""
    cases: tuple[CallCase, ...]
    tolerance: float
    is_in_place: bool
    """Whether a function that returns nothing is compared by its first argument, as it has left it."""

    def find_code(self, response: str, prompt: str) -> str | None:
        """The code that defines the function, the class Solution or the stateful class."""
        wanted = [name for name in (self._class_name(), self.name, _SOLUTION) if name]
        wanted += [name for name in [find_last_function(prompt)] if name and not self.name]
        for name in wanted:
            code = find_code(response, name, prompt)
            tree = parse_code(code) if code else None
            if code and tree and (name != _SOLUTION or self._method_of(tree)):
                return code
        return None if self.name else _find_any(response)

    def describe_code(self) -> str:
        """What code is looked for, in words."""
        return f"Python code that defines {(self._class_name() or self.name or 'one function')!r}"

    def run(self, runner: CodeRunner, code: str) -> PassedTests:
        """Calls the function once for each case.

        Raises:
            DataError: an argument cannot be carried.
        """
        session = AnswerSession(runner)
        failure = _attempt(session, lambda: session.start(code))
        num_passed = 0
        if failure:
            return PassedTests(0, len(self.cases), failure)
        tree = parse_code(code) or ast.Module([], [])
        for number, case in enumerate(self.cases, start=1):
            found = _attempt(session, partial(self._run_case, session, tree, case))
            num_passed += not found
            failure = failure or (f"case {number}: {found}" if found else "")
            if session.end is not None:
                break
        return PassedTests(num_passed, len(self.cases), failure)

    def _run_case(self, session: AnswerSession, tree: ast.Module, case: CallCase) -> str:
        args = _copied(list(case.args))
        if self._class_name() and _defines(tree, self._class_name()):
            result: Any = _use_object(session, args)
        else:
            result = session.ask("call_deep", self._target(session, tree), *args, **_copied(case.kwargs))
            if result is None and self.is_in_place and args:
                result = args[0]
        if any(is_same_value(result, expected, self.tolerance) for expected in case.results):
            return ""
        return f"the result was {_shown(result)}, expected {_shown(case.results[0])}"

    def _target(self, session: AnswerSession, tree: ast.Module) -> Any:
        method = self._method_of(tree)
        if method and (not self.name or not _defines(tree, self.name)):
            return getattr(session.find_name(_SOLUTION)(), method)
        functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        return session.find_name(self.name or functions[-1])

    def _class_name(self) -> str:
        """The stateful class that every case uses; empty when the cases are calls of a function."""
        names = {_stateful_class(case) for case in self.cases}
        return names.pop() if len(names) == 1 else ""

    def _method_of(self, tree: ast.Module) -> str:
        """The method of the class Solution that is tested: the named one, or the only one that no other calls."""
        solution = next((n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == _SOLUTION), None)
        if solution is None:
            return ""
        methods = [node.name for node in solution.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        if self.name:
            return self.name if self.name in methods else ""
        used = {node.attr for node in ast.walk(solution) if isinstance(node, ast.Attribute)}
        public = [name for name in methods if not name.startswith("_")]
        return next((name for name in public if name not in used), public[-1] if public else "")


def _attempt(session: AnswerSession, act: Callable[[], str | None]) -> str:
    """Does something with the answer, and returns why it has failed; empty when it has not."""
    try:
        return act() or ""
    except UncarriedError as e:
        raise DataError(str(e)) from None
    except RunnerLost as e:
        return f"the code's process was lost: {e}"
    except Exception as e:  # noqa: BLE001  the answer may raise anything
        return f"{type(e).__name__}: {e}"


def _use_object(session: AnswerSession, args: list[Any]) -> list[Any]:
    """Makes an instance of the class and calls its methods; the results begin with None, for the instance."""
    (kind, *methods), (first, *others) = args
    instance = session.find_name(kind)(*first)
    results: list[Any] = [None]
    for method, operands in zip(methods, others, strict=True):
        results.append(session.ask("call_deep", getattr(instance, method), *operands))
    return results


def _stateful_class(case: CallCase) -> str:
    match case.args:
        case ([str(kind), *methods], [[*_], *_] as operands) if len(operands) == len(methods) + 1:
            is_named = kind.isidentifier() and all(isinstance(name, str) and name.isidentifier() for name in methods)
            return kind if is_named and all(isinstance(one, list) for one in operands) else ""
    return ""


def _find_any(response: str) -> str | None:
    """The last code of a response that defines a function at its top level."""
    for name in reversed(list(_function_names(response))):
        if code := find_code(response, name, ""):
            return code
    return None


def _function_names(response: str) -> Iterator[str]:
    for line in response.splitlines():
        words = line.strip().replace("(", " ").split()
        if words[:1] == ["def"] and len(words) > 1 and words[1].isidentifier():
            yield words[1]


def _defines(tree: ast.Module, name: str) -> bool:
    return any(getattr(node, "name", "") == name for node in tree.body) or any(
        isinstance(node, ast.Assign) and any(getattr(target, "id", "") == name for target in node.targets)
        for node in tree.body
    )


def _copied(value: Any) -> Any:
    """A copy of JSON, so that a case does not see what the answer has done to its arguments before."""
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return {key: _copied(item) for key, item in value.items()} if isinstance(value, dict) else value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."
