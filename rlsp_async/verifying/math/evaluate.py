"""Whether two expressions are equal: exactly where they are rational numbers, else by their values at several points.

    is_same_value(parse_expression("x^2+2x+1"), parse_expression("(x+1)^2")) is True
    is_same_value(parse_expression("\\\\sqrt{2}"), parse_expression("1.41")) is False

Values are fractions as long as they are rational and small, then floats with 50 digits. Two expressions are equal when
they agree to 25 digits at every point. The size of a result is checked before an operation is done, so that nothing can
explode; a size beyond the bounds raises `UnreadableExpression`. A decimal number with at least six places may stand for
an irrational number that rounds to it.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath

from rlsp_async.verifying.math.parse import Node, TooLarge, UnreadableExpression

MAX_BITS = 20_000
"""Largest size of an exact number; larger numbers become floats."""
MAX_MAGNITUDE = 1_000_000
"""Largest exponent of a float, in bits."""
MAX_ARGUMENT = 10**9
MAX_FACTORIAL = 2_050
MAX_GAMMA = 200
"""Largest argument of a factorial that is not a whole number."""
MAX_TERMS = 1_000
"""Most terms of a sum or product."""
MAX_QUAD_DEGREE = 7
NUM_WHOLE = 6
"""At how many whole numbers expressions with sums are compared."""
MIN_PLACES = 6
"""Number of decimal places from which a decimal number may stand for an irrational one."""

CONTEXT = mpmath.MPContext()
CONTEXT.dps = 50
"""The arithmetic of floats: 50 decimal digits."""
_NEAR = CONTEXT.mpf(10) ** -25
_POSITIVE = ("0.3718281828459045", "1.6180339887498948", "2.7102030405060708", "0.8414709848078965", "6.1239580317")
_SIGNED = ("-1.3247179572447460", "0.5671432904097838", "-0.7390851332151606")
Value = Any  # Fraction, mpf or mpc; mpmath has no type annotations


def is_same_value(left: Node, right: Node, places: int = MIN_PLACES) -> bool:
    """Whether two expressions have the same value wherever both are defined.

    Args:
        left: an expression.
        right: another one.
        places: from how many decimal places a decimal may stand for a value that no decimal expresses; 0: never.

    Raises:
        UnreadableExpression: a value is too large, unknown, or undefined at all points that are tried.
    """
    names = sorted(find_variables(left) | find_variables(right))
    if not names:
        return _same_constant(left, right, places)
    num_compared, whole = 0, _has_series(left) or _has_series(right)
    for k in range(NUM_WHOLE if whole else len(_POSITIVE) + len(_SIGNED)):
        point = {name: _whole_value(name, k) if whole else _point_value(name, k) for name in names}
        pair = _values_at(left, right, point)
        if pair is None or (k >= len(_POSITIVE) and not whole and not (_is_real(pair[0]) and _is_real(pair[1]))):
            continue  # not defined there; left of zero, the branches of complex functions may differ
        if not is_close(*pair):
            if _is_on_branch(left, point) or _is_on_branch(right, point):
                continue  # the real and the principal root of a negative number are both meant by people
            return False
        num_compared += 1
    if num_compared < 2:
        raise UnreadableExpression("no point to compare at")
    return True


def sign_of_ratio(left: Node, right: Node) -> int:
    """The sign of left / right, for expressions that `is_proportional` says have a constant ratio."""
    names = sorted(find_variables(left) | find_variables(right))
    pair = _values_at(left, right, {name: _point_value(name, 0) for name in names})
    if pair is None or not pair[0] or not pair[1]:
        raise UnreadableExpression("no point to compare at")
    ratio = CONTEXT.re(_float(pair[0]) / _float(pair[1]))
    return 1 if ratio > 0 else -1


def is_proportional(left: Node, right: Node) -> bool:
    """Whether left = c right for a constant c != 0; then the equations left = 0 and right = 0 are the same."""
    names = sorted(find_variables(left) | find_variables(right))
    ratios: list[Value] = []
    for k in range(len(_POSITIVE)):
        pair = _values_at(left, right, {name: _point_value(name, k) for name in names})
        if pair is None or pair[1] == 0 or pair[0] == 0:
            return pair is not None and pair[0] == pair[1] and not ratios and k == len(_POSITIVE) - 1
        ratios.append(_float(pair[0]) / _float(pair[1]))
    return all(is_close(ratio, ratios[0]) for ratio in ratios)


def find_variables(node: Node) -> frozenset[str]:
    """Returns the names of the variables in an expression."""
    if node[0] == "variable":
        return frozenset((node[1],))
    if node[0] in _BINDING:
        return (find_variables(node[4]) - {node[1]}) | find_variables(node[2]) | find_variables(node[3])
    return frozenset().union(*(find_variables(part) for part in node[1:] if isinstance(part, tuple)))


def evaluate_expression(node: Node, point: dict[str, Value] | None = None) -> Value:
    """Computes the value of an expression.

    Args:
        node: the expression.
        point: the value of each of its variables.

    Returns:
        A fraction while the value is rational and small, else a float or complex number of mpmath.

    Raises:
        UnreadableExpression: a value on the way is too large, or an operation is unknown.
        ZeroDivisionError: the expression is not defined at the point.
    """
    kind = node[0]
    if kind == "number":
        return node[1]
    if kind == "variable":
        return (point or {})[node[1]]
    if kind == "constant":
        return _constant(node[1])
    if kind == "call":
        return _call(node[1], node[2], point)
    if kind in _BINDING:
        return _check_size(_BINDING[kind](node, point or {}))
    rule = _RULES.get(kind)
    if rule is None:
        raise UnreadableExpression(f"no value for {kind!r}")
    return _check_size(rule(*(evaluate_expression(part, point) for part in node[1:])))


def is_close(left: Value, right: Value) -> bool:
    """Whether two values are equal fractions, or floats that agree to 25 digits."""
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left == right
    a, b = _float(left), _float(right)
    if CONTEXT.isinf(a) or CONTEXT.isinf(b):
        return bool(a == b)
    return bool(abs(a - b) <= _NEAR * max(abs(a), abs(b), _NEAR))


# --- constants -------------------------------------------------------------------------------------------------------


def _same_constant(left: Node, right: Node, places: int) -> bool:
    if left[0] == right[0] == "neg":
        return _same_constant(left[1], right[1], places)
    if "based" in (left[0], right[0]):
        return _same_digits(left, right)
    try:
        a, b = evaluate_expression(left), evaluate_expression(right)
    except ZeroDivisionError:
        raise UnreadableExpression("a division by zero") from None
    if is_close(a, b):
        return True
    return _is_rounded_value(left, a, b, places) or _is_rounded_value(right, b, a, places)


def _is_rounded_value(node: Node, value: Value, other: Value, places: int) -> bool:
    """Whether `node` is a decimal number that is the rounded or cut value of `other`, which no decimal can express."""
    while node[0] in ("neg", "group"):
        node = node[1]
    if node[0] != "number" or not 0 < places <= node[2] or not _is_real(other):
        return False
    if isinstance(other, Fraction) and _terminates(other.denominator):
        return False
    return bool(abs(_float(value) - _float(other)) < CONTEXT.mpf(10) ** -node[2])


def _terminates(denominator: int) -> bool:
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return denominator == 1


def _same_digits(left: Node, right: Node) -> bool:
    """Whether two numbers, of which one has a base, have the same digits; the base may be missing on one side."""
    if left[0] == right[0]:
        return left == right
    return bool(left[0] in ("based", "number") and right[0] in ("based", "number") and left[1] == right[1])


# --- operations ------------------------------------------------------------------------------------------------------


def _constant(name: str) -> Value:
    if name == "i":
        return CONTEXT.mpc(0, 1)
    return {"pi": +CONTEXT.pi, "e": +CONTEXT.e, "infinity": CONTEXT.inf}[name]


def _check_size(value: Value) -> Value:
    if isinstance(value, Fraction):
        return value if _bits(value) <= MAX_BITS else _float(value)
    if CONTEXT.isnan(value):
        raise UnreadableExpression("no number")
    if value and not CONTEXT.isinf(value) and abs(CONTEXT.mag(value)) > MAX_MAGNITUDE:
        raise TooLarge("too large a value")
    return value


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _float(value: Value) -> Value:
    if isinstance(value, Fraction):
        return CONTEXT.mpf(value.numerator) / value.denominator
    return value


def _is_real(value: Value) -> bool:
    return isinstance(value, Fraction) or abs(CONTEXT.im(value)) <= _NEAR * max(1, abs(value))


def _exact_or_float(rule: Callable[[Value, Value], Value]) -> Callable[[Value, Value], Value]:
    """Makes an operation work on two fractions exactly, and on any other pair as floats."""

    @functools.wraps(rule)
    def both(a: Value, b: Value) -> Value:
        exact = isinstance(a, Fraction) and isinstance(b, Fraction)
        return rule(a, b) if exact else rule(_float(a), _float(b))

    return both


def _power(base: Value, exponent: Value) -> Value:
    if isinstance(exponent, Fraction) and isinstance(base, Fraction):
        if exponent.denominator == 1 and abs(exponent.numerator) * _bits(base) <= MAX_BITS:
            return base**exponent.numerator
        if exponent.denominator == 2 and abs(exponent.numerator) * _bits(base) <= MAX_BITS:
            return _root(Fraction(2), base**exponent.numerator)
    base, exponent = _float(base), _float(exponent)
    if base == 0:
        if not _is_real(exponent) or exponent <= 0:
            raise ZeroDivisionError
        return base
    if CONTEXT.isinf(base) or CONTEXT.isinf(exponent):
        raise UnreadableExpression("a power of infinity")
    if abs(CONTEXT.mag(base)) * abs(exponent) > MAX_MAGNITUDE or abs(exponent) > MAX_ARGUMENT:
        raise TooLarge("too large a power")
    return CONTEXT.power(base, exponent)


def _root(degree: Value, value: Value) -> Value:
    if not isinstance(degree, Fraction) or degree.denominator != 1 or not 0 < degree <= 1000:
        return _power(value, 1 / degree)
    n = int(degree)
    if isinstance(value, Fraction) and value >= 0 and n == 2:
        top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
        if top * top == value.numerator and bottom * bottom == value.denominator:
            return Fraction(top, bottom)
    if n % 2 and _is_real(value) and CONTEXT.re(_float(value)) < 0:
        return -CONTEXT.root(-CONTEXT.re(_float(value)), n)
    return CONTEXT.root(_float(value), n)


def _factorial(value: Value) -> Value:
    if not isinstance(value, Fraction) and _is_real(value) and CONTEXT.re(value) <= MAX_GAMMA:
        if CONTEXT.re(value) < 0:
            raise ZeroDivisionError
        return CONTEXT.gamma(value + 1)
    if not isinstance(value, Fraction) or value.denominator != 1 or not 0 <= value <= MAX_FACTORIAL:
        raise UnreadableExpression("a factorial of this")
    return Fraction(math.factorial(int(value)))


def _double_factorial(value: Value) -> Fraction:
    if not isinstance(value, Fraction) or value.denominator != 1 or not 0 <= value <= MAX_FACTORIAL:
        raise UnreadableExpression("a double factorial of this")
    return Fraction(math.prod(range(int(value), 0, -2)))


def _binomial(n: Value, k: Value) -> Value:
    if not (isinstance(n, Fraction) and isinstance(k, Fraction)):
        a, b = _float(n), _float(k)
        if not all(_is_real(v) and abs(v) <= MAX_GAMMA for v in (a, b)):
            raise UnreadableExpression("a binomial of this")
        if CONTEXT.re(a) < 0 or CONTEXT.re(b) < 0:
            raise ZeroDivisionError
        return CONTEXT.binomial(a, b)
    if not all(isinstance(v, Fraction) and v.denominator == 1 and 0 <= v <= MAX_FACTORIAL for v in (n, k)):
        raise UnreadableExpression("a binomial of this")
    return Fraction(math.comb(int(n), int(k)))


def _logarithm(base: Value, value: Value) -> Value:
    top, bottom = CONTEXT.log(_nonzero_float(value)), CONTEXT.log(_nonzero_float(base))
    return top / bottom


def _nonzero_float(value: Value) -> Value:
    if value == 0:
        raise ZeroDivisionError
    return _float(value)


def _call(name: str, argument: Node, point: dict[str, Value] | None) -> Value:
    value = evaluate_expression(argument, point)
    if (
        name in ("sin", "cos", "tan", "cot", "sec", "csc")
        and argument[0] in ("degrees", "group")
        and "degrees" in (argument[0], argument[1][0])
    ):
        value = _float(value) * CONTEXT.pi / 180
    if name in ("abs", "floor", "ceil"):
        return _rounded(name, value)
    if name == "cbrt":
        return _root(Fraction(3), value)
    if name in ("max", "min"):
        raise UnreadableExpression(f"{name} of one")
    value = _float(value)
    limit = 100_000 if name in ("exp", "sinh", "cosh", "tanh") else MAX_ARGUMENT
    if abs(value) > limit and name not in _LOGARITHMS:
        raise TooLarge("too large an argument")
    if name in _LOGARITHMS:
        value = _nonzero_float(value)
    if name.startswith("a") and name[1:] in ("sin", "cos", "tan"):
        name = "arc" + name[1:]
    function = {"ln": "log", "arcsin": "asin", "arccos": "acos", "arctan": "atan"}.get(name, name)
    return _check_size(getattr(CONTEXT, function)(value))


def _rounded(name: str, value: Value) -> Value:
    if name == "abs":
        return abs(value)
    if not isinstance(value, Fraction):
        if not _is_real(value) or abs(value) > MAX_ARGUMENT:
            raise UnreadableExpression(f"{name} of this")
        return Fraction(int(getattr(CONTEXT, name)(CONTEXT.re(value))))
    return Fraction(math.floor(value) if name == "floor" else math.ceil(value))


# --- sums, products, integrals ---------------------------------------------------------------------------------------


def _series(node: Node, point: dict[str, Value]) -> Value:
    kind, name, first, last, body = node
    low, high = evaluate_expression(first, point), evaluate_expression(last, point)
    if not all(isinstance(end, Fraction) and end.denominator == 1 for end in (low, high)):
        raise UnreadableExpression(f"a {kind} whose bounds are not whole numbers")
    if high - low > MAX_TERMS:
        raise UnreadableExpression(f"a {kind} of more than {MAX_TERMS} terms")
    rule = _RULES["+" if kind == "sum" else "*"]
    total: Value = Fraction(int(kind == "prod"))
    for k in range(int(low), int(high) + 1):
        total = _check_size(rule(total, evaluate_expression(body, {**point, name: Fraction(k)})))
    return total


def _integral(node: Node, point: dict[str, Value]) -> Value:
    _, name, first, last, body = node
    if _has_series(body):
        raise UnreadableExpression("an integral of a sum or integral")
    low, high = _float(evaluate_expression(first, point)), _float(evaluate_expression(last, point))
    value, error = CONTEXT.quad(
        lambda x: _float(evaluate_expression(body, {**point, name: x})),
        [low, high],
        error=True,
        maxdegree=MAX_QUAD_DEGREE,
    )
    if error > _NEAR:
        raise UnreadableExpression("an integral that does not converge fast")
    return value


def _has_series(node: Node) -> bool:
    return node[0] in _BINDING or any(_has_series(part) for part in node[1:] if isinstance(part, tuple))


_LOGARITHMS = frozenset({"ln", "log", "log10"})
_RULES: dict[str, Callable[..., Value]] = {
    "+": _exact_or_float(lambda a, b: a + b),
    "-": _exact_or_float(lambda a, b: a - b),
    "*": _exact_or_float(lambda a, b: a * b),
    "/": _exact_or_float(lambda a, b: a / b),
    "^": _power,
    "neg": lambda a: -a,
    "group": lambda a: a,
    "root": _root,
    "!": _factorial,
    "!!": _double_factorial,
    "binom": _binomial,
    "log": _logarithm,
    "degrees": lambda a: a,
    "percent": lambda a: a / Fraction(100) if isinstance(a, Fraction) else a / 100,
}


_BINDING: dict[str, Callable[[Node, dict[str, Value]], Value]] = {"sum": _series, "prod": _series, "int": _integral}
"""Operations that bind a variable: (kind, variable, first, last, body)."""


def _is_on_branch(node: Node, point: dict[str, Value]) -> bool:
    """Whether a root, a power that is not whole, or a logarithm of a negative number is in an expression."""
    if any(_is_on_branch(part, point) for part in node[1:] if isinstance(part, tuple) and node[0] not in _BINDING):
        return True
    inner = {"^": 1, "root": 2, "call": 2, "log": 2}.get(node[0])
    if inner is None or (node[0] == "call" and node[1] not in _LOGARITHMS and node[1] not in ("cbrt", "sqrt")):
        return False
    try:
        base = evaluate_expression(node[inner], point)
        if node[0] == "^":
            exponent = evaluate_expression(node[2], point)
            if isinstance(exponent, Fraction) and exponent.denominator == 1:
                return False
    except ZeroDivisionError:
        return False
    return not _is_real(base) or bool(CONTEXT.re(_float(base)) < 0)


def _point_value(name: str, k: int) -> Value:
    """The value of a variable at the k-th point; values of different variables have nothing to do with one another."""
    texts = _POSITIVE if k < len(_POSITIVE) else _SIGNED
    value = CONTEXT.mpf(texts[k if k < len(_POSITIVE) else k - len(_POSITIVE)])
    drawn = Fraction(zlib.crc32(f"{name} {k}".encode()), 2**32)
    return value * _float(Fraction(3, 5) + drawn * Fraction(4, 5))


def _whole_value(name: str, k: int) -> Fraction:
    """The whole number from 2 to 12 that a variable has at the k-th point of expressions with sums."""
    return Fraction(2 + (zlib.crc32(f"{name} {k}".encode()) + 3 * k) % 11)


def _values_at(left: Node, right: Node, point: dict[str, Value]) -> tuple[Value, Value] | None:
    """The values of both expressions at a point; None when one of them is not defined there, or too large."""
    try:
        return evaluate_expression(left, point), evaluate_expression(right, point)
    except ZeroDivisionError:
        return None
    except TooLarge:
        if point:
            return None
        raise
