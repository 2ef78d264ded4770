"""Verifier of Python functions against unit tests; the model's code never meets the tests.

    score(prompt, "```python\\ndef add(a, b):\\n    return a + b\\n```", "assert add(1, 2) == 3").status == "correct"

The reference answer is the text of the tests: asserts (MBPP) or `check(candidate)` (HumanEval); `codetest.py`. The code
is found in the response (`codetext.py`) and runs in a process of its own (`coderun.py`) that is told names and
arguments and sends back data; the tests run here and compare. What the code does to its own process (patched builtins,
objects that equal everything, sys.exit, a bomb) is at most a wrong answer. CPU time beyond `cpu_s` is `wrong`; a code
that sleeps is `timeout`, as the deadline of the pool is.
"""

from __future__ import annotations

import traceback

from rlsp_async.config import Section
from rlsp_async.errors import ConfigError, DataError
from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import judged, unparsable
from rlsp_async.verifying.code.extract import find_code
from rlsp_async.verifying.code.runner import Runner, RunnerLost, preload
from rlsp_async.verifying.code.unit_tests import Tests, read_tests

VERSION = "1"
LANE = "isolated"
READS_FILES = False


class CodeConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `code`."""

    cpu_s: int = 3
    """Seconds of CPU time for all tests of one answer; more is `wrong`. Below verifier.deadline_s."""
    modules: list[str] = []
    """Modules beyond the common ones of the standard library that code may import; they are loaded in advance."""

    def __post_init__(self) -> None:
        if self.cpu_s < 1:
            raise ValueError("cpu_s must be at least 1")


Config = CodeConfig


class CodeVerifier:
    """`prepare`, then one `score`: a runner is good for one answer."""

    def __init__(self, cfg: CodeConfig) -> None:
        self._cfg = cfg
        self._runner: Runner | None = None

    def prepare(self, memory_mb: int) -> None:
        """Forks the runner, while this process knows nothing."""
        self._runner = Runner(memory_mb, self._cfg.cpu_s)

    def score(self, prompt: str, response: str, answer: str) -> Verdict:
        """The verdict. Raises DataError for tests that cannot be run."""
        runner, self._runner = self._runner, None
        if runner is None:
            raise RuntimeError("prepare() forks the process for the code of one answer; call it first")
        try:
            tests = read_tests(answer, prompt)
            code = find_code(response, tests.name, prompt)
            if code is None:
                return unparsable(f"no Python code that defines {tests.name!r}")
            return _run(runner, code, tests)
        finally:
            runner.close()


def load(cfg: CodeConfig) -> CodeVerifier:
    """Loads what the code may import. Raises ConfigError for a module that is missing."""
    try:
        preload(cfg.modules)
    except ImportError as e:
        raise ConfigError(f"task.verifier_options.modules: {e}") from None
    return CodeVerifier(cfg)


def _run(runner: Runner, code: str, tests: Tests) -> Verdict:
    """Runs the code, then the tests against it."""
    try:
        runner.start(code)
        tests.run(runner.call)
    except DataError:
        raise
    except RunnerLost as e:
        return _wrong(code, f"the code's process was lost: {e}")
    except Exception as e:  # noqa: BLE001  whatever the code or a comparison with its results raises
        return _wrong(code, f"{_line(e)}{type(e).__name__}: {e}")
    return judged(True, code)


def _wrong(code: str, why: str) -> Verdict:
    verdict = judged(False, code)
    return Verdict(status=verdict.status, parts=verdict.parts, extracted=verdict.extracted, detail=why[:300])


def _line(error: Exception) -> str:
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == "tests.py"]
    return f"line {lines[-1]} of the tests: " if lines else ""
