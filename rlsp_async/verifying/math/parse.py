"""A small parser of mathematical expressions, LaTeX or plain, into nested tuples. It evaluates nothing.

    parse_expression("2\\frac{1}{2}") == ("+", ("number", Fraction(2), 0), ("/", ...))
    parse_expression("sqrt(x**2 + 1)")

Every length is bounded, so that reading takes linear time. `UnreadableExpression` is raised for an expression that is
longer or deeper, or that the parser does not know.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

MAX_CHARS = 1_000
MAX_DEPTH = 20
MAX_DIGITS = 400
MAX_STEPS = 600

FUNCTIONS = frozenset(
    {
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "arcsin",
        "arccos",
        "arctan",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "tanh",
        "ln",
        "log",
        "lg",
        "exp",
        "sqrt",
        "abs",
        "floor",
        "ceil",
        "max",
        "min",
        "cbrt",
    }
)
CONSTANTS = {"pi": "pi", "infty": "infinity", "inf": "infinity", "infinity": "infinity", "oo": "infinity"}
GREEK = frozenset(
    {
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "zeta",
        "eta",
        "theta",
        "iota",
        "kappa",
        "lambda",
        "mu",
        "nu",
        "xi",
        "rho",
        "sigma",
        "tau",
        "upsilon",
        "phi",
        "chi",
        "psi",
        "omega",
        "Gamma",
        "Delta",
        "Theta",
        "Lambda",
        "Xi",
        "Sigma",
        "Phi",
        "Psi",
        "Omega",
        "ell",
        "angle",
        "triangle",
    }
)

Node = tuple[Any, ...]
_NUMBER = re.compile(
    r"(\d{1,3}(?:,\d{3})+(?![\d,])|\d+)?(?:\.(\d+|(?!\.)))?"
    r"(?:\\overline\s?\{(\d{1,50})\}|([eE][-+]?\d{1,4})(?![\d.a-zA-Z]))?"
)
_LETTERS = re.compile(r"\s?\{?\s?(\w{1,6})\s?\}?")
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_WORD = re.compile(r"[A-Za-z]+")
_SUBSCRIPT = re.compile(r"_(?:\{([^{}]{1,20})\}|([A-Za-z0-9]))")
_ENDING = (
    "\\}",
    "\\rfloor",
    "\\rceil",
    "\\text",
    "\\end",
    "\\\\",
    "\\le ",
    "\\ge ",
    "\\ne ",
    "\\in ",
    "\\to ",
    "\\cup",
    "\\cap",
    "\\pm",
    "\\mp",
    "\\approx",
    "\\rangle",
)
_MINUS_ONE: Node = ("neg", ("number", Fraction(1), 0))
_INVERSE = (_MINUS_ONE, ("group", _MINUS_ONE))
_CLOSING = {"(": ")", "[": "]", "{": "}", "\\{": "\\}", "|": "|", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil"}


class UnreadableExpression(ValueError):
    """The text is not an expression that this parser knows, or its size or its value is beyond a bound."""


class TooLarge(UnreadableExpression):
    """The text was read, and its value or its number of parts is beyond a bound."""


def parse_expression(text: str, scientific: bool = True) -> Node:
    """Parses an expression.

    Args:
        text: LaTeX or plain.
        scientific: whether "5e-2" means 0.05; otherwise it means 5 e - 2.

    Returns:
        The expression as nested tuples; each begins with the name of an operation.

    Raises:
        UnreadableExpression: the text is not an expression, or it is too long or too deep.
    """
    if len(text) > MAX_CHARS:
        raise UnreadableExpression(f"longer than {MAX_CHARS} characters")
    reader = _ExpressionParser(_spell_choices(text.strip()), scientific)
    node = reader.sum(0)
    if reader.rest():
        raise UnreadableExpression(f"unexpected {reader.rest()[:10]!r}")
    return node


_CHOICES = (
    (re.compile(r"(?:\{\s?\}\s?)?\^\s?\{?(\w{1,6})\}?\s?C\s?_\s?\{?(\w{1,6})\}?"), r"\\binom{\1}{\2}"),
    (re.compile(r"(?:\{\s?\}\s?)?(?<![A-Za-z])_\s?\{?(\w{1,6})\}?\s?C\s?_\s?\{?(\w{1,6})\}?"), r"\\binom{\1}{\2}"),
    (re.compile(r"(?<![A-Za-z\\])C\s?\(\s?(\w{1,6})\s?,\s?(\w{1,6})\s?\)"), r"\\binom{\1}{\2}"),
    (re.compile(r"(?<![A-Za-z\\])P\s?\(\s?(\d{1,4})\s?,\s?(\d{1,4})\s?\)"), r"(\\binom{\1}{\2}*\2!)"),
    (re.compile(r"(?:\{\s?\}\s?)?\^\s?\{?(\d{1,4})\}?\s?P\s?_\s?\{?(\d{1,4})\}?"), r"(\\binom{\1}{\2}*\2!)"),
)
"""Spellings of the number of choices (n over k) and of arrangements."""
_INTEGRAL = re.compile(r"\s?(?:d|\\text\s?\{\s?d\s?\})\s?([a-zA-Z])(?![a-zA-Z])")


_CHOICE_BELOW = re.compile(r"(?<![A-Za-z\\])C\s?_\s?\{?(\d{1,4})\}?\s?\^\s?\{?(\d{1,4})\}?")


def _spell_choice_below(match: re.Match[str]) -> str:
    """`C_5^2` is 5 over 2; `C_1^2` is the square of a variable."""
    return f"\\binom{{{match[1]}}}{{{match[2]}}}" if int(match[1]) >= max(2, int(match[2])) else match[0]


def _spell_choices(text: str) -> str:
    if "C" in text or "P" in text:
        for pattern, spelled in _CHOICES:
            text = pattern.sub(spelled, text)
        text = _CHOICE_BELOW.sub(_spell_choice_below, text)
    return text


class _ExpressionParser:
    def __init__(self, text: str, scientific: bool) -> None:
        self.text, self.at, self.scientific, self.num_steps = text, 0, scientific, 0
        self.bound: set[str] = set()

    def step(self, depth: int) -> None:
        """Counts an operation, so that the tree stays small and shallow enough for recursion."""
        self.num_steps += 1
        if depth > MAX_DEPTH or self.num_steps > MAX_STEPS:
            raise UnreadableExpression("nested too deeply" if depth > MAX_DEPTH else "too long")

    def rest(self) -> str:
        while self.at < len(self.text) and self.text[self.at] == " ":
            self.at += 1
        return self.text[self.at :]

    def take(self, *tokens: str) -> str:
        """Consumes the first of `tokens` that comes next and returns it, else "". A command ends with its letters."""
        while self.at < len(self.text) and self.text[self.at] == " ":
            self.at += 1
        for token in tokens:
            end = self.at + len(token)
            if self.text.startswith(token, self.at) and not (
                token[0] == "\\" and token[-1].isalpha() and self.text[end : end + 1].isalpha()
            ):
                self.at = end
                return token
        return ""

    def expect(self, token: str) -> None:
        if not self.take(token):
            raise UnreadableExpression(f"{token!r} is missing")

    def sum(self, depth: int) -> Node:
        self.step(depth)
        node = self.signed(depth)
        while op := self.take("+", "-"):
            self.step(depth)
            node = (op, node, self.signed(depth))
        return node

    def signed(self, depth: int) -> Node:
        negative = False
        for _ in range(4):
            sign = self.take("+", "-")
            if not sign:
                break
            negative ^= sign == "-"
        node = self.product(depth)
        return ("neg", node) if negative else node

    def product(self, depth: int) -> Node:
        node = self.power(depth)
        while True:
            self.step(depth)
            op = self.take("\\cdot", "*", "/")
            if op:
                right = ("neg", self.power(depth)) if self.take("-") else self.power(depth)
                node = ("/" if op == "/" else "*", node, right)
            elif self.begins_factor():
                if self.rest()[0].isdigit():
                    raise UnreadableExpression("two numbers side by side")
                right = self.power(depth)
                node = ("+" if _is_mixed_number(node, right) else "*", node, right)
            else:
                return node

    def begins_factor(self) -> bool:
        rest = self.rest()
        return bool(rest) and not rest.startswith(_ENDING) and (rest[0] in "([{\\." or rest[0].isalnum())

    def power(self, depth: int) -> Node:
        node = self.postfix(self.atom(depth), depth)
        if self.take("^", "**"):
            if self.take("\\circ"):
                return ("degrees", node)
            node = self.postfix(("^", node, self.exponent(depth + 1)), depth)
        return node

    def exponent(self, depth: int) -> Node:
        self.step(depth)
        if self.take("-"):
            return ("neg", self.exponent(depth + 1))
        self.take("+")
        node = self.postfix(self.atom(depth), depth)
        return ("^", node, self.exponent(depth + 1)) if self.take("^", "**") else node

    def postfix(self, node: Node, depth: int) -> Node:
        while True:
            self.step(depth)
            if self.text.startswith("^\\circ", self.at):
                self.at += len("^\\circ")
                node = ("degrees", node)
            elif self.take("!!"):
                if self.rest().startswith("!"):
                    raise UnreadableExpression("a row of factorial signs")
                node = ("!!", node)
            elif self.take("!"):
                node = ("!", node)
            elif self.take("%"):
                node = ("percent", node)
            else:
                return node

    def atom(self, depth: int) -> Node:
        rest = self.rest()
        if not rest:
            raise UnreadableExpression("cut off")
        if rest[0].isdigit() or (rest[0] == "." and rest[1:2].isdigit()):
            return self.number()
        if rest[0].isascii() and rest[0].isalpha():
            return self.word(depth)
        opening = self.take("(", "[", "\\{", "{", "|", "\\lfloor", "\\lceil")
        if opening:
            return self.bracket(opening, depth)
        if rest[0] == "\\":
            return self.command(depth)
        raise UnreadableExpression(f"unexpected {rest[:10]!r}")

    def bracket(self, opening: str, depth: int) -> Node:
        node = self.sum(depth + 1)
        self.expect(_CLOSING[opening])
        kinds = {"|": "abs", "\\lfloor": "floor", "\\lceil": "ceil"}
        return ("call", kinds[opening], node) if opening in kinds else ("group", node)

    def number(self) -> Node:
        match = _NUMBER.match(self.text, self.at)
        if match is None or match.end() == self.at or len(match[0]) > MAX_DIGITS:
            raise TooLarge("a number that is too long")
        whole, decimals, repeating, power = match.groups()
        if power and not self.scientific:
            match, power = _NUMBER.match(self.text[: match.end() - len(power)], self.at) or match, None
        self.at = match.end()
        decimals = decimals or ""
        value = Fraction(int((whole or "0").replace(",", ""))) + Fraction(int(decimals or "0"), 10 ** len(decimals))
        if repeating:
            value += Fraction(int(repeating), (10 ** len(repeating) - 1) * 10 ** len(decimals))
        if power:
            exponent = int(power[1:])
            if abs(exponent) > MAX_DIGITS:
                raise TooLarge("a number that is too large")
            value *= Fraction(10) ** exponent
        base = _SUBSCRIPT.match(self.text, self.at)
        if base is not None:
            self.at = base.end()
            return ("based", value, (base[1] or base[2]).strip())
        return ("number", value, 0 if repeating or power else len(decimals))

    def word(self, depth: int) -> Node:
        match = _WORD.match(self.text, self.at)
        assert match is not None
        run = match[0]
        if run.lower() in CONSTANTS and len(run) > 1:
            self.at = match.end()
            return ("constant", CONSTANTS[run.lower()])
        if run in FUNCTIONS:
            self.at = match.end()
            return self.call(run, depth)
        if len(run) > 3:
            raise UnreadableExpression(f"a word: {run[:20]!r}")
        self.at += 1
        return self.variable(run[0])

    def variable(self, name: str) -> Node:
        if name in ("i", "e") and name not in self.bound and not self.text.startswith("_", self.at):
            return ("constant", name)
        if subscript := _SUBSCRIPT.match(self.text, self.at):
            self.at = subscript.end()
            name += "_" + (subscript[1] or subscript[2]).replace(" ", "")
        while self.at < len(self.text) and self.text[self.at] == "'":
            self.at += 1
            name += "'"
        return ("variable", name)

    def command(self, depth: int) -> Node:
        match = _COMMAND.match(self.text, self.at)
        if match is None:
            raise UnreadableExpression(f"unexpected {self.text[self.at : self.at + 10]!r}")
        self.at, name = match.end(), match[1]
        if name in ("frac", "binom"):
            return ({"frac": "/"}.get(name, name), self.argument(depth), self.argument(depth))
        if name in CONSTANTS:
            return ("constant", CONSTANTS[name])
        if name in ("sum", "prod"):
            return self.series(name, depth)
        if name == "int":
            return self.integral(depth)
        if name in FUNCTIONS:
            return self.call(name, depth)
        if name in ("angle", "triangle"):
            return ("variable", f"{name} {self.letters()}")
        if name in GREEK:
            return self.variable(name)
        if name in ("overline", "vec", "hat", "bar", "mathbb", "mathcal"):
            return ("variable", f"{name} {self.letters()}")
        raise UnreadableExpression(f"unknown command \\{name[:20]}")

    def series(self, name: str, depth: int) -> Node:
        """A finite sum or product: `\\sum_{k=1}^{n} k^2`. It reaches to the next plus or minus sign."""
        self.step(depth)
        match = re.compile(r"\s?_\s?\{\s?([a-zA-Z])\s?=\s?([^{}]{1,40})\}").match(self.text, self.at)
        if match is None:
            raise UnreadableExpression(f"bounds of \\{name} that are not known")
        self.at = match.end()
        self.expect("^")
        last = self.argument(depth + 1)
        first = parse_expression(match[2])
        self.bound.add(match[1])
        body = self.product(depth + 1)
        self.bound.discard(match[1])
        if self.rest()[:1] in ("+", "-"):
            raise UnreadableExpression(f"where \\{name} ends is not clear")
        return (name, match[1], first, last, body)

    def integral(self, depth: int) -> Node:
        """A definite integral: `\\int_0^1 x dx`."""
        self.step(depth)
        self.expect("_")
        low = self.argument(depth + 1)
        self.expect("^")
        high = self.argument(depth + 1)
        end = _INTEGRAL.search(self.text, self.at)
        if end is None or "\\int" in self.text[self.at : end.start()]:
            raise UnreadableExpression("an integral without its variable")
        body = parse_expression(self.text[self.at : end.start()] or "1")
        self.at = end.end()
        return ("int", end[1], low, high, body)

    def argument(self, depth: int) -> Node:
        """An argument of \\frac: what stands in braces, or one character."""
        if self.take("{"):
            node = self.sum(depth + 1)
            self.expect("}")
            return node
        rest = self.rest()
        if rest[:1].isdigit():
            self.at += 1
            return ("number", Fraction(int(rest[0])), 0)
        return self.atom(depth + 1)

    def letters(self) -> str:
        match = _LETTERS.match(self.text, self.at)
        if match is None:
            raise UnreadableExpression("a name is missing")
        self.at = match.end()
        return match[1]

    def call(self, name: str, depth: int) -> Node:
        self.step(depth)
        if name == "sqrt":
            return self.root(depth)
        base: Node | None = None
        if name in ("log", "lg") and self.take("_"):
            base = self.argument(depth)
        power = self.exponent(depth + 1) if self.take("^") else None
        if base is None and name in ("log", "lg") and self.take("_"):
            base = self.argument(depth)
        node: Node = ("call", {"lg": "log10"}.get(name, name), self.operand(depth))
        if base is not None:
            node = ("log", base, node[2])
        if power in _INVERSE and name in ("sin", "cos", "tan"):
            return ("call", f"arc{name}", node[2])
        return node if power is None else ("^", node, power)

    def root(self, depth: int) -> Node:
        degree: Node = ("number", Fraction(2), 0)
        if self.take("["):
            degree = self.sum(depth + 1)
            self.expect("]")
        return ("root", degree, self.atom(depth + 1))

    def operand(self, depth: int) -> Node:
        """The argument of a function: a bracket, or the factors up to the next sign or function."""
        if self.rest()[:1] in ("(", "{", "["):
            return self.atom(depth + 1)
        node = self.power(depth + 1)
        while self.begins_factor() and not self.rest().startswith("(") and not self._function_next():
            node = ("*", node, self.power(depth + 1))
        return node

    def _function_next(self) -> bool:
        match = re.match(r"\\?([A-Za-z]+)", self.rest())
        return bool(match and match[1] in FUNCTIONS)


def _is_mixed_number(left: Node, right: Node) -> bool:
    """Whether the factors are a mixed number, `2\\frac{1}{2}`: a whole number before a proper fraction."""
    if left[0] != "number" or left[1].denominator != 1 or right[0] != "/":
        return False
    parts = [part[1] if part[0] == "group" else part for part in right[1:]]
    return all(part[0] == "number" and part[1].denominator == 1 for part in parts) and parts[0][1] < parts[1][1]
