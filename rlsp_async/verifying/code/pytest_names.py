"""The part of pytest that test files of data sets use, for the checker: it neither has pytest nor needs to collect.

    module = make_pytest()
    with module.raises(ValueError, match="no"): ...
    expand_cases(function)          # the keyword arguments of each case of @pytest.mark.parametrize

An instance is put in the place of the module while tests run. What is not here raises AttributeError, so that tests
which need it cannot be run (`error`).
"""

from __future__ import annotations

import itertools
import math
import re
import types
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

_ATTRIBUTE = "_rlsp_cases"
_FIXTURE = "_rlsp_fixture"


class ExpectedRaise:
    """The context manager of `raises`; `value` is the error."""

    def __init__(self, kinds: Any, match: str | None) -> None:
        self._kinds, self._match = kinds, match
        self.value: BaseException | None = None
        self.type: type[BaseException] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None or kind is None:
            raise AssertionError(f"did not raise {self._kinds}")
        self.value, self.type = error, kind
        if not isinstance(error, self._kinds):
            return False
        if self._match is not None and not re.search(self._match, str(error)):
            raise AssertionError(f"{str(error)[:100]!r} does not match {self._match!r}")
        return True


def expect_raise(kinds: Any, *args: Any, match: str | None = None, **kwargs: Any) -> ExpectedRaise:
    """`pytest.raises`: a context manager, or the call of a function that must raise."""
    expected = ExpectedRaise(kinds, match)
    if args:
        with expected:
            args[0](*args[1:], **kwargs)
    return expected


class CloseTo:
    """`pytest.approx`: equal to numbers, and to sequences and mappings of numbers, within a tolerance."""

    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, expected: Any, rel: float | None = None, abs: float | None = None, nan_ok: bool = False) -> None:
        self._expected, self._nan_ok = expected, nan_ok
        self._absolute = 1e-12 if abs is None else abs
        self._relative = (1e-6 if abs is None else 0.0) if rel is None else rel

    def __eq__(self, actual: object) -> bool:
        return self._is_close(self._expected, actual)

    def __repr__(self) -> str:
        return f"approx({self._expected!r})"

    def _is_close(self, expected: Any, actual: Any) -> bool:
        if hasattr(expected, "tolist"):
            expected = expected.tolist()
        if hasattr(actual, "tolist"):
            actual = actual.tolist()
        if isinstance(expected, Mapping):
            return (
                isinstance(actual, Mapping)
                and expected.keys() == actual.keys()
                and all(self._is_close(value, actual[key]) for key, value in expected.items())
            )
        if isinstance(expected, list | tuple):
            return (
                isinstance(actual, list | tuple)
                and len(actual) == len(expected)
                and all(map(self._is_close, expected, actual))
            )
        if isinstance(expected, bool | str | None) or not isinstance(actual, int | float | complex):
            return bool(expected == actual)
        if expected == actual:
            return True
        if expected != expected or actual != actual:
            return self._nan_ok and expected != expected and actual != actual
        if abs(expected) == math.inf:
            return False
        return bool(abs(expected - actual) <= max(self._absolute, self._relative * abs(expected)))


class MarkNames:
    """`pytest.mark`: parametrize; other marks change nothing."""

    def parametrize(self, names: Any, values: Iterable[Any], **_: Any) -> Callable[[Any], Any]:
        """Notes the cases on the function or class."""
        fields = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)

        def decorate(target: Any) -> Any:
            cases = []
            for value in values:
                value = value.values if isinstance(value, ParameterSet) else (value,) if len(fields) == 1 else value
                cases.append(dict(zip(fields, value, strict=True)))
            setattr(target, _ATTRIBUTE, [*getattr(target, _ATTRIBUTE, []), cases])
            return target

        return decorate

    def __getattr__(self, name: str) -> Any:
        def mark(*args: Any, **_: Any) -> Any:
            return args[0] if len(args) == 1 and callable(args[0]) else lambda target: target

        return mark


class ParameterSet:
    """`pytest.param`."""

    def __init__(self, *values: Any, **_: Any) -> None:
        self.values = values


def mark_fixture(function: Any = None, **options: Any) -> Any:
    """`pytest.fixture`."""

    def decorate(target: Any) -> Any:
        setattr(target, _FIXTURE, options.get("name") or target.__name__)
        return target

    return decorate if function is None else decorate(function)


def fixture_name(function: Any) -> str:
    """The name of a fixture; empty for other functions."""
    return str(getattr(function, _FIXTURE, "")) if isinstance(function, types.FunctionType) else ""


def fail_test(reason: str = "", **_: Any) -> None:
    """`pytest.fail`."""
    raise AssertionError(reason or "pytest.fail")


def expand_cases(target: Any, around: Any = None) -> list[dict[str, Any]]:
    """The keyword arguments of each case of a test function, in the class `around` or alone."""
    marks = [*getattr(around, _ATTRIBUTE, []), *getattr(target, _ATTRIBUTE, [])]
    return [{name: case[name] for case in cases for name in case} for cases in itertools.product(*marks)]


def make_pytest() -> types.ModuleType:
    """The module that tests import as pytest."""
    module = types.ModuleType("pytest")
    module.__dict__.update(
        raises=expect_raise, approx=CloseTo, mark=MarkNames(), param=ParameterSet, fixture=mark_fixture, fail=fail_test
    )
    return module
