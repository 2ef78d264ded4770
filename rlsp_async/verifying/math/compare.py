"""Whether two shapes are the same answer: part by part, by named rules.

    compare_answers("(-\\\\infty, 2) \\\\cup [3, 4]", "x<2 or 3<=x<=4") is True
    compare_answers("1, 2", "2, 1") is True             compare_answers("1, 2", "[1, 2]") is False

A comparison returns True or False when both sides were read completely, and None when a part was not; then
`computer_algebra` is asked. The rules that overrule its verdict:

    number          two numbers with units are compared exactly (`literals`)
    decimal         a decimal with `places` or more may stand for a number that decimals cannot express
    decimal comma   `2,5` may answer 2.5
    chain           the constant sides of `x = 1/3 = 0.33` must agree; any of them may be the answer
    name            a name in front of a value says nothing, unless both sides have names that differ
    equation        an equation is not an expression; two equations are equal up to a factor
    list            lists and sets have no order; a list is neither an interval nor, when it rises, a pair in brackets
    region          intervals, unions and inequalities of one variable are compared as sets of numbers (`regions`)
    congruence      residues modulo the same number
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from rlsp_async.verifying.math.equations import compare_equations, compare_with_equation
from rlsp_async.verifying.math.phrases import same_conditions
from rlsp_async.verifying.math.regions import REGIONS, compare_regions
from rlsp_async.verifying.math.scalars import DEFAULTS, ScalarRules, compare_scalars, compare_values, exact_value
from rlsp_async.verifying.math.shapes import AnswerShape, parse_shape

MAX_UNORDERED_PARTS = 40
"""Longer lists are compared in order only."""
SEQUENCES = frozenset({"tuple", "list", "set", "matrix"})


class Comparer(NamedTuple):
    """Compares shapes under the options of the verifier."""

    rules: ScalarRules = DEFAULTS
    ordered: bool = False
    """Whether a list must have the order of the reference answer."""
    decimal_comma: Literal["answer", "both", "never"] = "answer"
    """Where `2,5` may be 2.5."""

    def texts(self, gold: str, extracted: str) -> bool | None:
        """Compares two answers in plain spelling.

        Returns:
            Whether they are equal; None when a part could not be read.

        Raises:
            UnreadableExpression: an answer is nested too deeply, or is of a kind that is not known.
            TooLarge: an answer has too many parts, or a value is too large to compute.
        """
        return self.shapes(parse_shape(gold), parse_shape(extracted))

    def shapes(self, gold: AnswerShape, extracted: AnswerShape) -> bool | None:
        """Compares two shapes."""
        if gold.conditions and extracted.conditions and not same_conditions(gold.conditions, extracted.conditions):
            return False
        if gold.kind == extracted.kind == "scalar":
            return compare_scalars(gold, extracted, self.rules)
        if gold.kind == extracted.kind == "equation":
            return compare_equations(gold, extracted, self.shapes)
        if "equation" in (gold.kind, extracted.kind):
            return self._equation_and_other(gold, extracted)
        if "congruence" in (gold.kind, extracted.kind):
            return self._congruences(gold, extracted)
        if gold.kind == "membership" or extracted.kind == "membership":
            return self._memberships(gold, extracted)
        if gold.kind in REGIONS or extracted.kind in REGIONS:
            return self._regions(gold, extracted)
        if gold.kind in SEQUENCES and extracted.kind in SEQUENCES:
            return self._sequences(gold, extracted)
        if gold.kind == extracted.kind == "ratio":
            return self._ratios(gold, extracted)
        if gold.kind == extracted.kind and gold.text == extracted.text and gold.parts:
            return len(gold.parts) == len(extracted.parts) and self.in_their_order(gold.parts, extracted.parts)
        return self._single(gold, extracted)

    def _ratios(self, gold: AnswerShape, extracted: AnswerShape) -> bool | None:
        """Ratios of three and more numbers are equal up to a factor."""
        values = [[exact_value(part) for part in side.parts] for side in (gold, extracted)]
        if len(values[0]) != len(values[1]):
            return False
        if any(not value for side in values for value in side):
            return self.in_their_order(gold.parts, extracted.parts)
        quotients = {a / b for a, b in zip(*values, strict=True) if a is not None and b is not None}
        return len(quotients) == 1

    def in_their_order(self, gold: tuple[AnswerShape, ...], extracted: tuple[AnswerShape, ...]) -> bool | None:
        """Compares parts pairwise."""
        answers = [self.shapes(gold_part, part) for gold_part, part in zip(gold, extracted, strict=True)]
        return False if False in answers else None if None in answers else True

    def in_any_order(self, gold: tuple[AnswerShape, ...], extracted: tuple[AnswerShape, ...]) -> bool | None:
        """Compares parts as multisets."""
        if len(gold) != len(extracted):
            return False
        if len(gold) > MAX_UNORDERED_PARTS:
            return self.in_their_order(gold, extracted)
        left, unsure = list(extracted), False
        for gold_part in gold:
            answers = [self.shapes(gold_part, part) for part in left]
            if True in answers:
                left.pop(answers.index(True))
            elif None in answers:
                unsure = True
            else:
                return False
        return None if unsure else True

    def _equation_and_other(self, gold: AnswerShape, extracted: AnswerShape) -> bool | None:
        equation, other = (gold, extracted) if gold.kind == "equation" else (extracted, gold)
        if other.kind in ("list", "set") and len(other.parts) == 1:
            other = other.parts[0]
            pair = (gold, other) if equation is gold else (other, extracted)
            return self.shapes(*pair)
        if other.kind == "list" and other.text == "or":
            return self._alternatives(gold, extracted)
        return compare_with_equation(equation, other, self.shapes, gold_is_equation=equation is gold)

    def _memberships(self, gold: AnswerShape, extracted: AnswerShape) -> bool | None:
        if gold.kind == extracted.kind:
            same = gold.parts[0].text == extracted.parts[0].text
            return self.shapes(gold.parts[1], extracted.parts[1]) if same else False
        membership, other = (gold, extracted) if gold.kind == "membership" else (extracted, gold)
        region = membership.parts[1]
        if other.kind == "inequality":
            return compare_regions(*((region, other) if membership is gold else (other, region)))
        return self.shapes(region, other) if membership is gold else self.shapes(other, region)

    def _regions(self, gold: AnswerShape, extracted: AnswerShape) -> bool | None:
        for region, other in ((gold, extracted), (extracted, gold)):
            if other.kind == "list" and other.text != "or" and region.kind in REGIONS:
                if region.kind == "interval" and region.text == "()" and region is gold:
                    return self._pair(gold, extracted)
                return self._inequality_list(gold, extracted)
        return compare_regions(gold, extracted)

    def _inequality_list(self, gold: AnswerShape, extracted: AnswerShape) -> bool | None:
        """`x>1, x<3`: the conditions of a list hold together, or are alternatives when they exclude each other."""
        shapes = []
        for shape in (gold, extracted):
            if shape.kind == "list":
                if not all(part.kind in REGIONS for part in shape.parts):
                    return False
                shape = AnswerShape("union", "", shape.parts)
            shapes.append(shape)
        if compare_regions(shapes[0], shapes[1]):
            return True
        return compare_regions(*(s._replace(kind="intersection") if s.kind == "union" else s for s in shapes))

    def _pair(self, gold: AnswerShape, extracted: AnswerShape) -> bool | None:
        return len(gold.parts) == len(extracted.parts) and self.in_their_order(gold.parts, extracted.parts)

    def _sequences(self, gold: AnswerShape, extracted: AnswerShape) -> bool | None:
        if gold.kind == extracted.kind == "list" and self.ordered and "pm" not in (gold.text, extracted.text):
            return len(gold.parts) == len(extracted.parts) and self.in_their_order(gold.parts, extracted.parts)
        if len(gold.parts) != len(extracted.parts):
            return self._vectors(gold, extracted) or self._alternatives(gold, extracted)
        kinds = {gold.kind, extracted.kind}
        if kinds <= {"list", "set"}:
            return self.in_any_order(gold.parts, extracted.parts)
        if "set" in kinds or (gold.kind == extracted.kind == "tuple" and gold.text != extracted.text):
            return False
        if kinds == {"tuple", "list"} and not _is_list_in_brackets(gold, extracted):
            return False
        answer = self.in_their_order(gold.parts, extracted.parts)
        return answer if answer is not False else self._vectors(gold, extracted)

    def _vectors(self, gold: AnswerShape, extracted: AnswerShape) -> bool | None:
        """Compares a matrix of one column or one row with a tuple or list."""
        kinds = {gold.kind, extracted.kind}
        if "matrix" not in kinds or len(kinds) == 1 or "set" in kinds:
            return False
        gold_parts, parts = _vector_parts(gold), _vector_parts(extracted)
        return len(gold_parts) == len(parts) and self.in_their_order(gold_parts, parts)

    def _alternatives(self, gold: AnswerShape, extracted: AnswerShape) -> bool | None:
        """A list joined by "or" of spellings of one value is this value."""
        for first, second in ((gold, extracted), (extracted, gold)):
            if first.kind == "list" and first.text == "or" and first.parts and second.kind != "list":
                answers = [self.shapes(first.parts[0], part) for part in first.parts[1:]]
                if False in answers:
                    return False
                head = first.parts[0]
                answers.append(self.shapes(head, second) if first is gold else self.shapes(second, head))
                return False if False in answers else None if None in answers else True
        return False

    def _single(self, gold: AnswerShape, extracted: AnswerShape) -> bool | None:
        """Compares a single value with a list, set or tuple of one part, or with a decimal comma."""
        if (answer := self._decimal_comma(gold, extracted)) is not None:
            return answer
        for first, second in ((gold, extracted), (extracted, gold)):
            if first.kind in ("set", "list", "tuple") and len(first.parts) == 1 and second.kind == "scalar":
                return self.shapes(first.parts[0], second) if first is gold else self.shapes(second, first.parts[0])
        return self._alternatives(gold, extracted)

    def _decimal_comma(self, gold: AnswerShape, extracted: AnswerShape) -> bool | None:
        """Compares a number with `2,5`, which is also a list; None when this is not such a pair."""
        if gold.literal is None or extracted.literal is None or self.decimal_comma == "never":
            return None
        if gold.kind == "list" and self.decimal_comma != "both":
            return None
        return compare_values(gold.literal, extracted.literal, self.rules)

    def _congruences(self, gold: AnswerShape, extracted: AnswerShape) -> bool | None:
        if gold.kind != extracted.kind:
            return False
        name, residues, modulus = gold.parts
        name2, residues2, modulus2 = extracted.parts
        if name.text and name2.text and name.text != name2.text:
            return False
        if modulus.text != modulus2.text:
            return False
        if not modulus.text.isdigit() or int(modulus.text) == 0:
            return self.in_any_order(residues.parts, residues2.parts)
        values = [[exact_value(part) for part in side.parts] for side in (residues, residues2)]
        if any(value is None for side in values for value in side):
            return self.in_any_order(residues.parts, residues2.parts)
        left, right = ({value % int(modulus.text) for value in side if value is not None} for side in values)
        return left == right


def compare_answers(gold: str, extracted: str) -> bool | None:
    """Compares two answers in plain spelling with the default options; see `Comparer.texts`."""
    return Comparer().texts(gold, extracted)


def _vector_parts(shape: AnswerShape) -> tuple[AnswerShape, ...]:
    if shape.kind == "matrix" and all(len(row.parts) == 1 for row in shape.parts):
        return tuple(row.parts[0] for row in shape.parts)
    if shape.kind == "matrix" and len(shape.parts) == 1:
        return shape.parts[0].parts
    return shape.parts


def _is_list_in_brackets(gold: AnswerShape, extracted: AnswerShape) -> bool:
    """Whether a tuple and a list may be the same: round brackets, unless the answer may be an interval.

    `(3, 4)` may be answered by `3, 4`. But the two solutions `-2, 2` are not the interval or the point `(-2, 2)`, and
    solutions of one variable (`x = 1, x = 2`) are no pair.
    """
    pair, parts = (gold, extracted) if gold.kind == "tuple" else (extracted, gold)
    if any(part.kind == "equation" for part in parts.parts):
        names = [part.parts[0].text for part in parts.parts if part.kind == "equation"]
        return pair.text == "()" and len(set(names)) == len(parts.parts)
    if pair.text != "()":
        return len(pair.parts) > 2 and pair.text == "[]"
    if pair is gold or len(pair.parts) != 2:
        return True
    first, second = exact_value(pair.parts[0]), exact_value(pair.parts[1])
    return first is not None and second is not None and first > second
