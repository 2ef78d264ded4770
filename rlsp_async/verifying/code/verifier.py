"""Verifier of Python functions against unit tests; the model's code never sees the tests.

    score(prompt, "```python\\ndef add(a, b):\\n    return a + b\\n```", "assert add(1, 2) == 3").status == "correct"

The reference answer is the text of the tests: asserts (MBPP) or `check(candidate)` (HumanEval); see `unit_tests`. The
code is found in the response (`extract`) and runs in a process of its own (`runner`), which receives names and
arguments and sends back data. The tests run in the checker process and compare. Whatever the code does to its own
process (patched builtins, objects that equal everything, sys.exit, a fork bomb) makes it a wrong answer at worst. More
CPU time than `cpu_s` is `wrong`; code that sleeps until the pool's deadline is `timeout`.
"""

from __future__ import annotations

import traceback
from typing import Annotated

from rlsp_async.config import Section
from rlsp_async.config.ranges import FieldName, Range
from rlsp_async.errors import ConfigError, DataError
from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import make_unparsable, make_verdict
from rlsp_async.verifying.code.extract import find_code
from rlsp_async.verifying.code.runner import CodeRunner, RunnerLost, preload_modules
from rlsp_async.verifying.code.unit_tests import UnitTests, read_tests

VERSION = "2"
LANE = "isolated"
READS_FILES = False


class CodeConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `code`."""

    cpu_s: Annotated[int, Range(ge=1, le=86_400)] = 3
    """CPU seconds for all tests of one answer; more is `wrong`. Keep it below verifier.deadline_s."""
    modules: list[FieldName] = []
    """Modules that code may import beside common ones of the standard library; they are loaded in advance."""


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
        """Returns the verdict.

        Raises:
            DataError: the tests cannot be run.
            RuntimeError: `prepare` was not called.
        """
        runner, self._runner = self._runner, None
        if runner is None:
            raise RuntimeError("prepare() forks the process for the code of one answer; call it first")
        try:
            tests = read_tests(answer, prompt)
            code = find_code(response, tests.name, prompt)
            if code is None:
                return make_unparsable(f"no Python code that defines {tests.name!r}")
            return _run_tests(runner, code, tests)
        finally:
            runner.close()


def load(cfg: CodeConfig) -> CodeVerifier:
    """Imports the modules that code may use, and makes the verifier.

    Raises:
        ConfigError: a module of the option `modules` is missing.
    """
    try:
        preload_modules(cfg.modules)
    except ImportError as e:
        raise ConfigError(f"task.verifier_options.modules: {e}") from None
    return CodeVerifier(cfg)


def _run_tests(runner: CodeRunner, code: str, tests: UnitTests) -> Verdict:
    """Runs the code in the runner, then the tests in this process."""
    try:
        runner.start(code)
        tests.run(runner.call)
    except DataError:
        raise
    except RunnerLost as e:
        return _wrong(code, f"the code's process was lost: {e}")
    except Exception as e:  # noqa: BLE001  the code, or a comparison with its results, may raise anything
        return _wrong(code, f"{_failed_line(e)}{type(e).__name__}: {e}")
    return make_verdict(True, code)


def _wrong(code: str, why: str) -> Verdict:
    verdict = make_verdict(False, code)
    return Verdict(status=verdict.status, parts=verdict.parts, extracted=verdict.extracted, detail=why[:300])


def _failed_line(error: Exception) -> str:
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == "tests.py"]
    return f"line {lines[-1]} of the tests: " if lines else ""
