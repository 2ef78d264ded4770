"""Tests that are Python: read from the reference answer, run in the checker process one by one.

    tests = read_tests("assert add(1, 2) == 3", "")
    tests.name                                      # "add"
    tests.run(runner, code)                         # TestResult(num_passed=1, num_tests=1, failure="")

The answer is in the runner; in the tests, its functions and classes are stand-ins (`remote`). A test is a statement
with an assert at the top level of the text or of a function `check(candidate)` (HumanEval), a function or method named
test..., once for each case of its parameters (pytest), or a method of a unittest.TestCase. The user writes the tests,
never the model.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Iterable

from rlsp_async.errors import DataError
from rlsp_async.verifying.code.extract import (
    bound_names,
    extract_preamble,
    find_last_function,
    parse_code,
)
from rlsp_async.verifying.code.library import PLACEHOLDERS, is_importable
from rlsp_async.verifying.code.preamble import preamble_names
from rlsp_async.verifying.code.python_tests import UnitTests, is_test

_BUILTINS = frozenset(dir(builtins))
_TAKE_FUNCTION_FIRST = frozenset(
    {"map", "filter", "reduce", "partial", "starmap", "takewhile", "dropwhile", "filterfalse", "callable"}
)
_TAKE_FUNCTION_SECOND = frozenset({"accumulate", "assertRaises", "raises", "groupby"})
"""Functions whose first or second argument is a function."""
_TAKE_FUNCTION_BY_NAME = frozenset({"key", "func", "function", "default_factory", "initial_func"})
_REACH_OUTSIDE = {
    "open": "read a file",
    "urlopen": "use the network",
    "monkeypatch": "replace parts of the process of the answer",
    "patch": "replace parts of the process of the answer",
    "input": "read standard input",
    "breakpoint": "stop in a debugger",
    "getsource": "look into the code of the answer",
    "signature": "look into the code of the answer",
    "getfullargspec": "look into the code of the answer",
}
"""Functions that tests cannot use, and what the tests then do."""


def read_tests(source: str, prompt: str, entry_point: str = "") -> UnitTests:
    """Reads tests that are Python.

    Args:
        source: Python source.
        prompt: the prompt, which may name the function and define helpers.
        entry_point: the name of the function, or `Solution().method`; empty: the tests or the prompt name it.

    Raises:
        DataError: the source holds no tests, they name no function, or they cannot be run here.
    """
    tree = parse_code(source)
    if tree is None:
        raise DataError("the reference answer is not Python: tests are asserts or check(candidate)")
    if not any(is_test(node) for node in ast.walk(tree) if isinstance(node, ast.stmt)):
        raise DataError("the tests hold no assert")
    imported = _import_from_answer(tree)
    _refuse_uncarried(tree)
    has_check = any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body)
    free = {name: None for name in _free_names(tree) if name not in imported}
    head, _, method = entry_point.replace("()", "").rpartition(".")
    name = head or entry_point or _choose_name(tree, free, imported, prompt, has_check=has_check)
    if not name.isidentifier():
        raise DataError('the tests name no function: name it in "entry_point"')
    helpers = extract_preamble(prompt, name)
    known = bound_names(tree) | _BUILTINS | _module_names(tree) | {name, *free, "__name__", "__file__", "pytest"}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - known - set(preamble_names())
    return UnitTests(
        source=source,
        name=name,
        method=method if head else "",
        called=frozenset(free) - {name} - set(preamble_names()),
        used=frozenset(used),
        imported=frozenset(imported),
        errors=frozenset(_expected_errors(tree) - _bound_or_builtin(tree)),
        helpers=helpers,
        has_check=has_check,
        modules=frozenset(_module_names(tree) - bound_names(tree)),
        awaits="asyncio" in source
        or any(isinstance(node, ast.Await | ast.AsyncFunctionDef) for node in ast.walk(tree)),
        handles_errors=_handles_errors(tree) or _handles_errors(parse_code(helpers)),
    )


def _choose_name(
    tree: ast.Module, free: dict[str, None], imported: dict[str, None], prompt: str, *, has_check: bool
) -> str:
    if has_check and (name := find_last_function(prompt)):
        return name
    own = [name for name in free if name not in preamble_names()]
    begun = find_last_function(prompt)
    if imported:
        called = [name for name in _called_names(tree) if name in imported]
        return (called or list(imported))[0]
    if begun in free and begun not in own:
        return begun
    return _guess_name(tree, dict.fromkeys(own) or free, prompt)


def _guess_name(tree: ast.Module, free: dict[str, None], prompt: str) -> str:
    """The function that asserts are about.

    In this order: the first free name that is called; the first free name that is used in another way, such as an
    argument of a function that the prompt does not define; the function that the prompt begins, if the tests use it;
    the first name that is called, which is then the name of a builtin.
    """
    if free:
        return next(iter(free))
    bound = _BUILTINS | bound_names(tree) | _module_names(tree)
    used = [name.id for name in _in_order(node for node in ast.walk(tree) if isinstance(node, ast.Name))]
    begun = find_last_function(prompt)
    called = _called_names(tree)
    return next((name for name in used if name not in bound), begun if begun in used else next(iter(called), ""))


def _import_from_answer(tree: ast.Module) -> dict[str, None]:
    """The names that the tests import from the module of the answer, in order."""
    names: dict[str, None] = {}
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and is_answer_module(node):
            names |= dict.fromkeys(alias.name for alias in node.names if alias.name != "*")
        if isinstance(node, ast.Import) and is_answer_module(node):
            modules |= {alias.asname or alias.name for alias in node.names}
    uses = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    names |= dict.fromkeys(node.attr for node in uses if isinstance(node.value, ast.Name) and node.value.id in modules)
    return names


def is_answer_module(node: ast.Import | ast.ImportFrom) -> bool:
    """Whether an import is one of the answer: `from solution import f`, `import solution`, `from .f import f`."""
    if isinstance(node, ast.ImportFrom):
        module = node.module or ""
        is_named_so = any(alias.name == module for alias in node.names) and not is_importable(module)
        return module.rpartition(".")[2] in PLACEHOLDERS or node.level > 0 or is_named_so
    return all(alias.name in PLACEHOLDERS for alias in node.names)


def _refuse_uncarried(tree: ast.Module) -> None:
    """Raises DataError when the tests need what there is not in the checker and the runner."""
    guarded = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.Try) for inner in ast.walk(node)}
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    defined = bound_names(tree) - {alias.asname or alias.name for node in imports for alias in node.names}
    for node in imports:
        if not is_answer_module(node) and id(node) not in guarded:
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            for module in modules:
                if not is_importable(module):
                    raise DataError(
                        f"line {node.lineno} of the tests imports {module!r}, which is not there; if it is installed, "
                        "name it in task.verifier_options.modules"
                    )
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = _reaching_name(call.func)
        if name in _REACH_OUTSIDE and name not in defined:
            why = _REACH_OUTSIDE[name]
            raise DataError(f"line {call.lineno} of the tests calls {name}: tests that {why} cannot be run here")


def _reaching_name(function: ast.expr) -> str:
    """The function of _REACH_OUTSIDE that may be called: `open`, `io.open`, `mock.patch`, `patch.object`."""
    if isinstance(function, ast.Name):
        return function.id
    if not isinstance(function, ast.Attribute):
        return ""
    if _is_of(function, "patch") or _is_of(function, "monkeypatch"):
        return "patch"
    return function.attr if function.attr in ("urlopen", "patch") or _is_of(function, "io", "inspect") else ""


def _is_of(node: ast.expr, *modules: str) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules


def _free_names(tree: ast.Module) -> dict[str, None]:
    """Names that the tests call but do not bind, in order of appearance."""
    bound = _BUILTINS | bound_names(tree) | {"pytest"}
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


def _expected_errors(tree: ast.Module) -> set[str]:
    """Names that stand where tests name the class of an error."""
    expected: list[ast.expr] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            expected.append(node.type)
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "id", "") or getattr(node.func, "attr", "")
            expected += node.args[:1] if "raises" in name.lower() or name == "suppress" else []
    return {name.id for one in expected for name in ast.walk(one) if isinstance(name, ast.Name)}


def _bound_or_builtin(tree: ast.Module) -> set[str]:
    answers = _import_from_answer(tree)
    return (bound_names(tree) - set(answers)) | _BUILTINS | set(preamble_names())


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
