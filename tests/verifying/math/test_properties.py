"""Thousands of generated pairs a run: every rewrite of a value is correct, every other value wrong; our evaluator and
sympy agree on generated expressions."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import sympy

from rlsp_async.verifying.math import score
from rlsp_async.verifying.math.evaluate import is_same_value
from rlsp_async.verifying.math.normalize import normalize_spelling
from rlsp_async.verifying.math.parse import UnreadableExpression, parse_expression

Rewrite = Callable[[Fraction], str | None]


def decimal(value: Fraction) -> str | None:
    """The finite decimal of a value, else None."""
    for places in range(7):
        if (value * 10**places).denominator == 1:
            digits = f"{abs(int(value * 10**places)):0{places + 1}d}"
            text = f"{digits[:-places]}.{digits[-places:]}" if places else digits
            return f"-{text}" if value < 0 else text
    return None


def whole(rewrite: Callable[[int], str]) -> Rewrite:
    return lambda value: rewrite(int(value)) if value.denominator == 1 else None


def finite(rewrite: Callable[[str], str]) -> Rewrite:
    def apply(value: Fraction) -> str | None:
        text = decimal(value)
        return rewrite(text) if text is not None else None

    return apply


def scientific(sign: str) -> Rewrite:
    def apply(value: Fraction) -> str | None:
        text = decimal(value / 1000)
        return f"{text}{sign}" if text is not None else None

    return apply


def mixed(value: Fraction) -> str | None:
    over, rest = divmod(abs(value), 1)
    if value < 0 or not over or not rest:
        return None
    return f"{over}\\frac{{{rest.numerator}}}{{{rest.denominator}}}"


REWRITES: dict[str, Rewrite] = {
    "fraction": lambda v: f"\\frac{{{v.numerator}}}{{{v.denominator}}}",
    "slash": lambda v: f"{v.numerator}/{v.denominator}",
    "not reduced": lambda v: f"\\dfrac{{{6 * v.numerator}}}{{{6 * v.denominator}}}",
    "decimal": finite(lambda t: t),
    "zeros": finite(lambda t: t + ("000" if "." in t else ".00")),
    "minus sign": finite(lambda t: t.replace("-", "\u2212")),
    "full width": finite(lambda t: "".join(chr(ord(c) + 0xFEE0) for c in t)),
    "name": finite(lambda t: f"x = {t}"),
    "function": finite(lambda t: f"f(2) = {t}"),
    "unit": finite(lambda t: f"{t} \\text{{ cm}}^2"),
    "bare unit": finite(lambda t: f"{t} km"),
    "noun": finite(lambda t: f"{t} apples"),
    "letter unit": finite(lambda t: f"{t}\\,\\text{{m}}"),
    "currency": finite(lambda t: f"\\${t}" if "-" not in t else f"-\\${t[1:]}"),
    "bold": finite(lambda t: f"\\mathbf{{{t}}}"),
    "e": scientific("e3"),
    "E": scientific("E+3"),
    "times": scientific("\\times 10^{3}"),
    "x": scientific(" x 10^3"),
    "cdot": scientific("\\cdot 10^3"),
    "per cent": lambda v: f"{decimal(100 * v)}\\%" if decimal(100 * v) is not None else None,
    "mixed": mixed,
    "groups": whole(lambda n: f"{n:,}"),
    "blanks": whole(lambda n: f"{n:,}".replace(",", "\\,")),
    "apostrophes": whole(lambda n: f"{n:,}".replace(",", "'")),
    "braces": whole(lambda n: f"{n:,}".replace(",", "{,}")),
    "dots": whole(lambda n: f"{n:,}".replace(",", ".") if abs(n) >= 10**6 else str(n)),
    "comma": lambda v: (decimal(v) or "").replace(".", ",") if 0 < (100 * v).denominator == 1 < v.denominator else None,
    "product": lambda v: f"{v.numerator} \\cdot \\frac{{1}}{{{v.denominator}}}",
    "sum": lambda v: f"{v.numerator - v.denominator}/{v.denominator} + 1",
    "chain": lambda v: (
        f"x = \\frac{{{2 * v.numerator}}}{{{2 * v.denominator}}} = \\frac{{{v.numerator}}}{{{v.denominator}}}"
    ),
}


def draw_value(draw: random.Random) -> Fraction:
    size = draw.choice((20, 1000, 10**7))
    return Fraction(draw.randrange(-size, size), draw.choice((1, 1, 1, 2, 4, 5, 8, 10, 100, 3, 7, 12)))


def is_correct(gold: str, answer: str) -> bool:
    return score("", f"\\boxed{{{answer}}}", gold).status == "correct"


@pytest.mark.parametrize("style", REWRITES)
def test_a_rewritten_value_is_correct_and_another_value_is_wrong(style: str) -> None:
    draw = random.Random(style)
    for _ in range(60):
        value, other = draw_value(draw), draw_value(draw)
        for gold in filter(None, (decimal(value), f"\\frac{{{value.numerator}}}{{{value.denominator}}}")):
            text = REWRITES[style](value)
            if text is not None:
                assert is_correct(gold, text), (gold, text)
            wrong = [REWRITES[style](w) for w in (other, -value, value + 1, value * 10, value + Fraction(1, 8))]
            for candidate, text in zip(
                (other, -value, value + 1, value * 10, value + Fraction(1, 8)), wrong, strict=True
            ):
                percent = candidate * 100 == value or candidate == value * 100 if style == "per cent" else False
                if text is not None and candidate != value and not percent:
                    assert not is_correct(gold, text), (gold, text)


WRAPPERS: dict[str, tuple[Callable[[list[str]], str], Callable[[list[str]], str]]] = {
    "list": (", ".join, lambda t: " \\text{ and } ".join(reversed(t))),
    "set": (lambda t: f"\\{{{', '.join(t)}\\}}", lambda t: ", ".join(reversed(t))),
    "solutions": (", ".join, lambda t: " \\text{ or } ".join(f"x={v}" for v in reversed(t))),
    "tuple": (lambda t: f"({', '.join(t)})", lambda t: "\\left(" + ",\\,".join(t) + "\\right)"),
    "named tuple": (lambda t: f"({', '.join(t)})", lambda t: f"({', '.join('abcdef'[: len(t)])}) = ({', '.join(t)})"),
    "matrix": (
        lambda t: f"\\begin{{pmatrix}}{' & '.join(t)}\\end{{pmatrix}}",
        lambda t: f"\\begin{{bmatrix}}{'&'.join(t)}\\end{{bmatrix}}",
    ),
}


@pytest.mark.parametrize("shape", WRAPPERS)
def test_shapes_of_generated_values(shape: str) -> None:
    draw = random.Random(shape)
    write, rewrite = WRAPPERS[shape]
    for _ in range(40):
        values = draw.sample(range(-50, 50), draw.randrange(2, 5))
        other = [*values[:-1], values[-1] + 1 if values[-1] + 1 not in values else 99]
        gold = write([str(v) for v in values])
        assert is_correct(gold, rewrite([f"\\frac{{{2 * v}}}{{2}}" for v in values])), gold
        assert not is_correct(gold, rewrite([str(v) for v in other])), (gold, other)
        assert not is_correct(gold, rewrite([str(v) for v in values[:-1]])), gold
        if shape not in ("list", "set", "solutions"):
            assert not is_correct(gold, rewrite([str(v) for v in reversed(values)])), gold


def test_intervals_and_inequalities_of_generated_ends() -> None:
    draw = random.Random(3)
    for _ in range(60):
        low, high = sorted(draw.sample(range(-30, 30), 2))
        opening, closing = draw.choice("(["), draw.choice(")]")
        first, second = "<" if opening == "(" else "\\le", "<" if closing == ")" else "\\le"
        gold = f"{opening}{low}, {high}{closing}"
        for end in (high, high + 1):
            for text in (
                f"{low} {first} x {second} {end}",
                f"x \\in {opening}{low},{end}{closing}",
                f"{3 * low} {first} 3x {second} {3 * end}",
                f"{-end} {second} -x {first} {-low}",
                f"{end} {second.replace('<', '>').replace('le', 'ge')} x {first.replace('<', '>').replace('le', 'ge')} {low}",
            ):
                assert is_correct(gold, text) == (end == high), (gold, text)
        other = f"{'[' if opening == '(' else '('}{low}, {high}{closing}"
        assert not is_correct(gold, other), (gold, other)


# --- our evaluator and sympy -----------------------------------------------------------------------------------------

Tree = tuple[Any, ...]
X, Y = sympy.symbols("x y")


def draw_tree(draw: random.Random, depth: int) -> Tree:
    if depth == 0 or draw.random() < 0.15:
        return ("leaf", draw.choice(("x", "y", "x", 1, 2, 3, 5)))
    kind = draw.choice(("+", "-", "*", "*", "/", "^"))
    if kind == "^":
        return ("^", draw_tree(draw, depth - 1), draw.choice((2, 3)))
    return (kind, draw_tree(draw, depth - 1), draw_tree(draw, depth - 1))


def latex(tree: Tree) -> str:
    if tree[0] == "leaf":
        return str(tree[1])
    if tree[0] == "^":
        return f"\\left({latex(tree[1])}\\right)^{{{tree[2]}}}"
    if tree[0] == "/":
        return f"\\frac{{{latex(tree[1])}}}{{{latex(tree[2])}}}"
    return f"\\left({latex(tree[1])}\\right) {tree[0].replace('*', chr(92) + 'cdot')} \\left({latex(tree[2])}\\right)"


def as_sympy(tree: Tree) -> sympy.Expr:
    if tree[0] == "leaf":
        return {"x": X, "y": Y}.get(tree[1], sympy.Integer(tree[1]) if isinstance(tree[1], int) else X)
    if tree[0] == "^":
        return as_sympy(tree[1]) ** tree[2]
    left, right = as_sympy(tree[1]), as_sympy(tree[2])
    return {"+": left + right, "-": left - right, "*": left * right, "/": left / right if right != 0 else sympy.zoo}[
        tree[0]
    ]


def rewrite_tree(tree: Tree, draw: random.Random) -> Tree:
    """An equal tree: sides exchanged, products distributed, fractions extended, powers written out."""
    if tree[0] == "leaf":
        return tree
    if tree[0] == "^":
        base = rewrite_tree(tree[1], draw)
        return ("*", base, ("^", base, tree[2] - 1)) if tree[2] > 2 else ("*", base, base)
    left, right = rewrite_tree(tree[1], draw), rewrite_tree(tree[2], draw)
    if tree[0] == "*" and right[0] in ("+", "-"):
        return (right[0], ("*", left, right[1]), ("*", right[2], left))
    if tree[0] in ("+", "*"):
        return (tree[0], right, left)
    if tree[0] == "/":
        return ("/", ("*", ("leaf", 3), left), ("*", right, ("leaf", 3)))
    return ("+", left, ("*", ("leaf", -1), right))


def change_leaf(tree: Tree, draw: random.Random) -> Tree:
    if tree[0] == "leaf":
        return ("leaf", draw.choice([leaf for leaf in ("x", "y", 1, 2, 4, 7) if leaf != tree[1]]))
    at = 1 if tree[0] == "^" else draw.choice((1, 2))
    return (*tree[:at], change_leaf(tree[at], draw), *tree[at + 1 :])


def test_the_evaluator_agrees_with_sympy_on_generated_expressions() -> None:
    draw = random.Random(11)
    num_same = num_different = num_undecided = 0
    while num_same < 400 or num_different < 400:
        tree = draw_tree(draw, draw.randrange(1, 4))
        other = rewrite_tree(tree, draw) if draw.random() < 0.5 else change_leaf(tree, draw)
        left, right = as_sympy(tree), as_sympy(other)
        if any(part.has(sympy.zoo, sympy.nan, sympy.oo) for part in (left, right)):
            continue
        same = sympy.cancel(left - right) == 0
        try:
            ours = is_same_value(*(parse_expression(normalize_spelling(latex(t))) for t in (tree, other)))
        except UnreadableExpression:  # not defined at enough points, say 1/(x(y-1)-xy+x)
            num_undecided += 1
            continue
        assert ours == same, (latex(tree), latex(other))
        num_same, num_different = num_same + same, num_different + (not same)
    assert num_undecided < 20


CONSTANTS = (
    ("\\sqrt{2}", sympy.sqrt(2)),
    ("\\sqrt[3]{5}", sympy.root(5, 3)),
    ("\\pi", sympy.pi),
    ("e", sympy.E),
    ("\\ln 3", sympy.log(3)),
    ("\\sin \\frac{\\pi}{5}", sympy.sin(sympy.pi / 5)),
    ("\\frac{7}{3}", sympy.Rational(7, 3)),
    ("\\sqrt{6}", sympy.sqrt(6)),
    ("\\sqrt{3}", sympy.sqrt(3)),
    ("2", sympy.Integer(2)),
)


def test_the_evaluator_agrees_with_sympy_on_irrational_constants() -> None:
    values = []
    for (text, value), (text2, value2) in itertools.product(CONSTANTS, repeat=2):
        values += [
            (f"{text} + {text2}", value + value2),
            (f"\\left({text}\\right)\\left({text2}\\right)", value * value2),
            (f"\\frac{{{text}}}{{{text2}}}", value / value2),
            (f"\\left({text}\\right)^2 - {text2}", value**2 - value2),
        ]
    numbers = [sympy.N(value, 60) for _, value in values]
    nodes = [parse_expression(normalize_spelling(text)) for text, _ in values]
    draw = random.Random(5)
    pairs = [(i, j) for i, j in itertools.combinations(range(len(values)), 2) if abs(numbers[i] - numbers[j]) < 1e-40]
    pairs += [tuple(draw.sample(range(len(values)), 2)) for _ in range(700)]
    assert len(pairs) > 850
    for i, j in pairs:
        assert is_same_value(nodes[i], nodes[j], 0) == (abs(numbers[i] - numbers[j]) < 1e-40), (values[i], values[j])
