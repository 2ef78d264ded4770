"""The forms in which reference answers hold tests, and their reading.

    read_reference('{"inputs": ["1 2\\\\n"], "outputs": ["3\\\\n"]}', "", 0.0)     # ProgramTests
    read_reference("assert add(1, 2) == 3", "", 0.0)                              # UnitTests

A reference answer is Python, or JSON:

    ["assert f(1) == 1", ...]                                     tests that are Python
    {"test": "def check(candidate): ...", "entry_point": "f"}     the same with the name of the function
    {"inputs": [...], "outputs": [...], "fn_name": "f"}           cases (APPS, TACO); without fn_name, of a program
    [{"input": "...", "output": "...", "testtype": "stdin"}]      cases (LiveCodeBench); or "functional"

or an object that holds one of these under the name of a column (`input_output`, `public_test_cases` ...).
"""

from __future__ import annotations

import ast
import json
import math
from typing import Any

from rlsp_async.answers import split_answers
from rlsp_async.errors import DataError
from rlsp_async.verifying.code.cases import CallCase, CallTests, ProgramCase, ProgramTests
from rlsp_async.verifying.code.comparing import stated_tolerance
from rlsp_async.verifying.code.extract import find_last_function, parse_code
from rlsp_async.verifying.code.python_tests import UnitTests
from rlsp_async.verifying.code.unit_tests import read_tests

Reference = UnitTests | ProgramTests | CallTests
_NAMES = ("entry_point", "fn_name", "func_name", "function_name", "method_name")
_PYTHON = ("test", "tests", "test_list", "test_code", "unit_tests", "unit_test", "assert_case", "asserts", "test_cases")
_SETUP = ("test_imports", "test_setup_code", "test_setup", "setup_code", "import_prefix")
_COLUMNS = (
    "input_output",
    "test_cases",
    "tests",
    "public_test_cases",
    "private_test_cases",
    "public_tests",
    "private_tests",
    "generated_tests",
    "examples",
    "ground_truth",
)
_INPUT, _OUTPUT = ("inputs", "input"), ("outputs", "output", "expected_output", "expected")
_ACCEPTED = ("accepted_outputs", "acceptable_outputs", "acceptable", "alternatives", "outputs")
_TOLERANCE = ("tolerance", "float_tolerance", "abs_tol", "rel_tol", "atol", "rtol", "eps", "epsilon")
_KINDS = ("testtype", "type", "test_type")
_MAX_DEPTH = 4
_NO_VALUE = object()
_UNREADABLE = 'the reference answer is not a JSON object with "test" and "entry_point", or with "inputs" and "outputs"'


def read_reference(answer: str, prompt: str, tolerance: float) -> Reference:
    """Reads the tests in a reference answer.

    Args:
        answer: Python source, or JSON in one of the forms above.
        prompt: the prompt, which may name the function, define helpers and state a tolerance.
        tolerance: the tolerance for numbers where neither the answer nor the prompt states one.

    Raises:
        DataError: the answer holds no tests, they name no function, or they cannot be run here.
    """
    parts = split_answers(answer)  # of a column that holds a list: all of them are tests
    value = _decode(answer) if len(parts) == 1 else parts
    found = answer if value is None else value
    return _read(found, prompt, {"tolerance": stated_tolerance(prompt) or tolerance, "name": ""}, 0)


def _decode(answer: str) -> Any:
    """The JSON value that the answer is, or None when it is Python."""
    text = answer.strip()
    if text[:1] not in ("{", "[", '"'):
        return None
    value = _read_json(text)
    if value is _NO_VALUE:
        value = _read_python(text)  # what str() makes of a row
    if value is _NO_VALUE and text.startswith("{"):
        raise DataError(_UNREADABLE)
    return None if value is _NO_VALUE else value


def _read(value: Any, prompt: str, facts: dict[str, Any], depth: int) -> Reference:
    if depth > _MAX_DEPTH:
        raise DataError("the reference answer holds tests within tests")
    if isinstance(value, str):
        inner = _decode(value) if depth else None
        return read_tests(value, prompt, facts["name"]) if inner is None else _read(inner, prompt, facts, depth + 1)
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return _read_texts(value, prompt, facts, depth)
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return _read_list(value, prompt, facts, depth)
    if isinstance(value, dict):
        return _read_table(value, prompt, facts, depth)
    raise DataError(_UNREADABLE)


def _read_texts(texts: list[str], prompt: str, facts: dict[str, Any], depth: int) -> Reference:
    """A list of tests that are Python, or of JSON objects that are still text."""
    if all(text.lstrip().startswith("{") for text in texts):
        return _read([_decode(text) for text in texts], prompt, facts, depth + 1)
    return read_tests("\n".join(texts), prompt, facts["name"])


def _read_table(table: dict[str, Any], prompt: str, facts: dict[str, Any], depth: int) -> Reference:
    facts = _facts_of(table, facts)
    if _first(table, _INPUT) is not None and _first(table, _OUTPUT) is not None:
        inputs, outputs = _first(table, _INPUT), _first(table, _OUTPUT)
        if isinstance(inputs, list) and isinstance(outputs, list):
            return _read_columns(inputs, outputs, prompt, facts)
        return _read_list([table], prompt, facts, depth)
    python = next((table[name] for name in _PYTHON if name in table and _is_python(table[name])), None)
    if python is not None:
        setup = [line for name in _SETUP for line in _as_lines(table.get(name))]
        more = _as_lines(table.get("challenge_test_list"))
        return read_tests("\n".join([*setup, *_as_lines(python), *more]), prompt, facts["name"])
    columns = [table[name] for name in dict.fromkeys((*_COLUMNS, *_PYTHON)) if table.get(name)]
    if not columns:
        raise DataError(_UNREADABLE)
    return _joined([_read(column, prompt, facts, depth + 1) for column in columns])


def _facts_of(table: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    metadata = table.get("metadata")
    if isinstance(metadata, str):
        metadata = _decode(metadata)
    found = [_first(place, _NAMES) for place in (table, metadata) if isinstance(place, dict)]
    name = next((name for name in found if name), facts["name"])
    if not isinstance(name, str):
        raise DataError('the reference answer is not a JSON object with "test" and "entry_point"')
    tolerance = _first(table, _TOLERANCE)
    if tolerance is not None and not (isinstance(tolerance, int | float) and 0 <= tolerance < math.inf):
        raise DataError(f"the reference answer has the tolerance {tolerance!r}, which is not a number")
    return {"name": name, "tolerance": facts["tolerance"] if tolerance is None else float(tolerance)}


def _is_python(value: Any) -> bool:
    lines = _as_lines(value)
    return bool(lines) and not all(line.lstrip().startswith(("{", "[")) for line in lines)


def _as_lines(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if value.strip() else []
    return value if isinstance(value, list) and value and all(isinstance(line, str) for line in value) else []


def _first(table: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((table[name] for name in names if table.get(name) is not None), None)


def _joined(parts: list[Reference]) -> Reference:
    """The cases of several columns as one."""
    first = parts[0]
    if isinstance(first, ProgramTests) and all(isinstance(part, ProgramTests) for part in parts):
        return ProgramTests(tuple(case for part in parts for case in part.cases), first.tolerance)  # type: ignore[union-attr, misc]
    if isinstance(first, CallTests) and all(isinstance(part, CallTests) for part in parts):
        cases = tuple(case for part in parts for case in part.cases)  # type: ignore[union-attr]
        return CallTests(first.name, cases, first.tolerance, first.is_in_place)  # type: ignore[arg-type]
    if len(parts) == 1:
        return first
    raise DataError("the reference answer mixes tests of programs with tests of functions")


# --- cases -----------------------------------------------------------------------------------------------------------


def _read_columns(inputs: list[Any], outputs: list[Any], prompt: str, facts: dict[str, Any]) -> Reference:
    """Inputs and outputs side by side (APPS, TACO, CodeContests)."""
    if len(inputs) != len(outputs) or not inputs:
        raise DataError(f"the reference answer has {len(inputs)} inputs and {len(outputs)} outputs")
    is_program = not facts["name"] and all(_is_stdin(one) for one in inputs)
    if is_program:
        pairs = zip(inputs, outputs, strict=True)
        cases = [ProgramCase(_as_stdin(one), (_as_stdin(other),)) for one, other in pairs]
        return ProgramTests(tuple(cases), facts["tolerance"])
    is_wrapped = all(isinstance(one, list) and len(one) == 1 for one in outputs)
    calls = [_call(i, one, (other, *(other if is_wrapped else ()))) for i, (one, other) in _numbered(inputs, outputs)]
    return _calls(calls, prompt, facts)


def _numbered(inputs: list[Any], outputs: list[Any]) -> list[tuple[int, tuple[Any, Any]]]:
    return list(enumerate(zip(inputs, outputs, strict=True), start=1))


def _read_list(cases: list[dict[str, Any]], prompt: str, facts: dict[str, Any], depth: int) -> Reference:
    """Cases one after the other (LiveCodeBench), or tests that are Python, each in an object."""
    if all(_first(case, _INPUT) is None and _first(case, _OUTPUT) is None for case in cases):
        found = [next((case[name] for name in _PYTHON if _is_python(case.get(name))), None) for case in cases]
        if all(found):
            return read_tests("\n".join(line for one in found for line in _as_lines(one)), prompt, facts["name"])
        if len(cases) == 1:
            return _read_table(cases[0], prompt, facts, depth + 1)
        raise DataError(_UNREADABLE)
    facts = _facts_of(cases[0], facts)
    kinds = {str(_first(case, _KINDS) or "") for case in cases}
    if kinds - {"", "stdin", "stdin_stdout", "io", "functional", "function_call", "call"}:
        raise DataError(f"the reference answer has cases of the kind {', '.join(sorted(kinds))}")
    is_function = bool(kinds & {"functional", "function_call", "call"}) or (
        bool(facts["name"]) and not kinds & {"stdin", "stdin_stdout", "io"}
    )
    if not is_function and all(_is_stdin(_first(case, _INPUT) or "") for case in cases):
        return ProgramTests(tuple(_program_case(i, case) for i, case in enumerate(cases, start=1)), facts["tolerance"])
    calls = []
    for number, case in enumerate(cases, start=1):
        accepted = next((case[name] for name in _ACCEPTED if isinstance(case.get(name), list)), None)
        output = _first(case, _OUTPUT)
        if output is None and not any(name in case for name in _OUTPUT):
            raise DataError(f"case {number} of the reference answer has no output")
        calls.append(_call(number, _first(case, _INPUT), tuple(accepted) if accepted else (output,)))
    return _calls(calls, prompt, facts)


def _program_case(number: int, case: dict[str, Any]) -> ProgramCase:
    accepted = next((case[name] for name in _ACCEPTED if isinstance(case.get(name), list) and case[name]), None)
    output = next((case[name] for name in _OUTPUT if isinstance(case.get(name), str | int | float | list)), None)
    if accepted is None and output is None:
        raise DataError(f"case {number} of the reference answer has no output")
    outputs = [output] if accepted is None else accepted
    return ProgramCase(_as_stdin(_first(case, _INPUT) or ""), tuple(map(_as_stdin, outputs)))


def _is_stdin(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(line, str) for line in value))


def _as_stdin(value: Any) -> str:
    """A text; a list is that of its lines."""
    if isinstance(value, list):
        return "\n".join(map(_as_stdin, value))
    return value if isinstance(value, str) else str(value)


def _calls(cases: list[CallCase], prompt: str, facts: dict[str, Any]) -> CallTests:
    name = facts["name"].replace("()", "").rpartition(".")[2]
    lower = prompt.lower()
    is_in_place = any(words in lower for words in ("in-place", "in place", "-> none", "modify the input"))
    name = name or find_last_function(prompt)
    if name and not name.isidentifier():
        raise DataError(f"the reference answer names the function {name!r}")
    return CallTests(name, tuple(cases), facts["tolerance"], is_in_place)


def _call(number: int, given: Any, results: tuple[Any, ...]) -> CallCase:
    """A call from its arguments: a list, an object of keywords, or text with one JSON value a line."""
    read = tuple(_read_value(result) for result in results)
    if isinstance(given, dict):
        return CallCase((), given, read)
    if isinstance(given, list):
        return CallCase(tuple(given), {}, read)
    if not isinstance(given, str):
        return CallCase((given,), {}, read)
    args, kwargs = _read_arguments(number, given)
    return CallCase(tuple(args), kwargs, read)


def _read_arguments(number: int, text: str) -> tuple[list[Any], dict[str, Any]]:
    """The arguments in a text: one JSON or Python value a line, one value in all, or `nums = [1], k = 2`."""
    lines = [line for line in text.strip().split("\n") if line.strip()]
    for parts in (lines, [text]):
        for read in (_read_json, _read_python):
            values = [read(part) for part in parts]
            if _NO_VALUE not in values:
                return values, {}
    call = parse_code(f"f({text.strip()})")
    match call.body if call else []:
        case [ast.Expr(ast.Call(args=args, keywords=words))]:
            values = [_read_python(ast.unparse(node)) for node in (*args, *(word.value for word in words))]
            if _NO_VALUE not in values:
                return values, {}
    raise DataError(f"the input of case {number} is neither JSON, one value a line, nor Python: {text[:60]!r}")


def _read_value(value: Any) -> Any:
    """The result in its text; text that is no JSON stands for itself."""
    if not isinstance(value, str):
        return value
    found = _read_json(value)
    found = _read_python(value) if found is _NO_VALUE else found
    return value if found is _NO_VALUE else found


def _read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _NO_VALUE


def _read_python(text: str) -> Any:
    """The value that a Python literal stands for."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return _NO_VALUE
