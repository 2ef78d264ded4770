"""Verifier of Python functions and programs against tests; the model's code never sees the tests.

    score(prompt, "```python\\ndef add(a, b):\\n    return a + b\\n```", "assert add(1, 2) == 3").status == "correct"

The reference answer is the text of the tests, or JSON that holds them, in one of the forms of `forms`. The code is
found in the response (`extract`) and runs in a process of its own (`runner`), which receives names and arguments, or
the standard input of a program, and sends back data. The tests run in the checker process and compare. Whatever the
code does to its own process (patched builtins, objects that equal everything, sys.exit, a fork bomb) makes it a wrong
answer at worst. More CPU time than `cpu_s` is `wrong`; code that sleeps until the pool's deadline is `timeout`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from rlsp_async.config import Section
from rlsp_async.config.ranges import FieldName, Range
from rlsp_async.errors import ConfigError
from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import make_unparsable, make_verdict
from rlsp_async.verifying.code.forms import read_reference
from rlsp_async.verifying.code.library import load_library
from rlsp_async.verifying.code.runner import CodeRunner
from rlsp_async.verifying.code.values import pack_value, unpack_value

VERSION = "3"
LANE = "isolated"
READS_FILES = False
JOINS_ANSWERS = True
_MAX_DETAIL_CHARS = 300
_SAMPLE_READINGS = 10
"""After eight or so, CPython has specialised the bytecode of what is read."""


class CodeConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `code`."""

    cpu_s: Annotated[int, Range(ge=1, le=86_400)] = 3
    """CPU seconds for all tests of one answer; more is `wrong`. Keep it below verifier.deadline_s."""
    modules: list[FieldName] = []
    """Modules that code may import beside the standard library and numpy; they are loaded in advance."""
    tolerance: Annotated[float, Range(ge=0, lt=1)] = 0.0
    """Absolute or relative difference between numbers that is accepted in the results of programs and of function
    calls, unless the reference answer or the prompt states one. 0: numbers must be equal."""


Config = CodeConfig


class CodeVerifier:
    """Judges one answer: `prepare` forks a runner, and `score` uses it up."""

    def __init__(self, cfg: CodeConfig) -> None:
        self._cfg = cfg
        self._runner: CodeRunner | None = None

    def prepare(self, memory_mb: int) -> None:
        """Forks the runner while this process has read nothing that the code must not know."""
        self._runner = CodeRunner(memory_mb, self._cfg.cpu_s)

    def score(self, prompt: str, response: str, answer: str) -> Verdict:
        """Returns the verdict; its part "passed" is the share of the tests that have passed.

        Raises:
            DataError: the tests cannot be run.
            RuntimeError: `prepare` was not called.
        """
        runner, self._runner = self._runner, None
        if runner is None:
            raise RuntimeError("prepare() forks the process for the code of one answer; call it first")
        try:
            tests = read_reference(answer, prompt, self._cfg.tolerance)
            code = tests.find_code(response, prompt)
            if code is None:
                return make_unparsable(f"no {tests.describe_code()}", passed=0.0)
            result = tests.run(runner, code)
        finally:
            runner.close()
        is_correct = not result.failure and result.num_passed == result.num_tests
        verdict = make_verdict(is_correct, code, passed=result.num_passed / result.num_tests)
        return msgspec.structs.replace(verdict, detail=result.failure[:_MAX_DETAIL_CHARS])

    def reference_response(self, answer: str, demonstration: str) -> str:
        """The solution that the task provides, or "": tests do not say which code passes them."""
        return demonstration

    def check_answer(self, prompt: str, answer: str) -> None:
        """Checks, before anything is run, that tests can be read and hold nothing that cannot be carried.

        Raises:
            DataError: they cannot be used.
        """
        read_reference(answer, prompt, self._cfg.tolerance)


def load(cfg: CodeConfig) -> CodeVerifier:
    """Imports the modules that code may use, and makes the verifier.

    Raises:
        ConfigError: a module of the option `modules` is missing.
    """
    try:
        load_library(cfg.modules)
    except ImportError as e:
        raise ConfigError(f"task.verifier_options.modules: {e}") from None
    _read_sample()
    return CodeVerifier(cfg)


def _read_sample() -> None:
    """Reads tests and code once, so that what Python prepares at the first use is there in every forked process."""
    for _ in range(_SAMPLE_READINGS):
        tests = read_reference("assert f(1) == [2]\nassert f(2) == (3,)", "", 0.0)
        tests.find_code("```python\ndef f(x):\n    return x\n```", "")
        unpack_value(pack_value([1, {"a": (2.0, "b")}]))
