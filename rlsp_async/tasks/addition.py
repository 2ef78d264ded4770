"""Column addition: the sum of a few numbers, digit by digit, from a teacher who makes slips and sometimes checks.

    prompt         3 4 7 + 1 0 9 + 9 9 5 <think>
    demonstration  7 9 5 + 0 = 21 ; 4 0 9 + 2 = 15 ; 3 1 9 + 1 = 14 ; check ok </think> 1 4 5 1

Columns go from right to left: the digits, the carry, their sum. In each column the teacher errs by one with probability
`p_slip`. With probability `p_check` the teacher checks the columns and, when the result is wrong, writes all of them
again (`check x redo`). With the defaults 75 % of the demonstrations are right, 32 words long on average, 85 at most.
The task is a control for `ops`: there is nothing to search for, so a reward for length alone should bring nothing.

A problem is held out when the md5 of its text says so; training draws never return such a problem.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Annotated

from rlsp_async.config import Section
from rlsp_async.config.ranges import Range
from rlsp_async.errors import DataError
from rlsp_async.messages import Prompt
from rlsp_async.tasks.base import Split, is_heldout
from rlsp_async.tasks.word_tokenizer import word_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TEST_SIZE = 1000
MAX_ROUNDS = 3
"""The teacher writes the columns at most this often."""


class AdditionConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The size of the sums and the care of the teacher."""

    numbers: Annotated[int, Range(ge=2, le=5)] = 3
    """Number of numbers in a sum."""
    digits: Annotated[int, Range(ge=3, le=6)] = 3
    """Number of digits of each number."""
    p_slip: Annotated[float, Range(ge=0, le=1)] = 0.12
    """Chance that a column's sum is off by one."""
    p_check: Annotated[float, Range(ge=0, le=1)] = 0.3
    """Chance that the teacher checks the columns."""
    heldout_share: Annotated[float, Range(gt=0, lt=1)] = 0.1
    """Share of all problems that is held out for the test split."""


Config = AdditionConfig


class Addition:
    """The task: an endless training split and TEST_SIZE distinct held-out problems, the same for every seed."""

    name = "addition"
    verifier = "addition"

    def __init__(self, cfg: AdditionConfig, seed: int) -> None:
        self._cfg = cfg
        self._seed = seed
        self._tests: list[tuple[int, ...]] = []

    def size(self, split: Split) -> int | None:
        """None for "train", TEST_SIZE for "test"."""
        return None if split == "train" else TEST_SIZE

    def prompt(self, split: Split, index: int) -> Prompt:
        """Prompt number `index` of a split. Raises DataError beyond the end of "test"."""
        if split == "train":
            return self._as_prompt(split, index, self._draw(index)[0])
        if index >= TEST_SIZE:
            raise DataError(f"{self.name}: no test prompt {index}, there are {TEST_SIZE}; lower evaluation.prompts")
        self._tests = self._tests or heldout_problems(self._cfg)
        return self._as_prompt(split, index, self._tests[index])

    def demonstration(self, index: int) -> tuple[Prompt, str]:
        """Training prompt `index` and the teacher's response to it."""
        numbers, rng = self._draw(index)
        return self._as_prompt("train", index, numbers), write_demonstration(
            numbers, rng, self._cfg.p_slip, self._cfg.p_check
        )

    def tokenizer(self) -> PreTrainedTokenizerFast | None:
        """The word-level tokenizer of 124 tokens."""
        return word_tokenizer()

    def _as_prompt(self, split: Split, index: int, numbers: tuple[int, ...]) -> Prompt:
        return Prompt(
            prompt_id=f"{self.name}/{split}/{index}",
            task=self.name,
            text=f"{problem_text(numbers)} <think>",
            answer=str(sum(numbers)),
            index=index,
            source=f"{self.name} generator",
        )

    def _draw(self, index: int) -> tuple[tuple[int, ...], random.Random]:
        rng = random.Random(f"{self.name}/{self._seed}/{index}")
        while True:
            numbers = draw_numbers(self._cfg, rng)
            if not is_heldout(problem_text(numbers), self._cfg.heldout_share):
                return numbers, rng


def load(cfg: AdditionConfig, seed: int) -> Addition:
    """The task with these options."""
    return Addition(cfg, seed)


def draw_numbers(cfg: AdditionConfig, rng: random.Random) -> tuple[int, ...]:
    """Random numbers without leading zeros."""
    low = 10 ** (cfg.digits - 1)
    return tuple(low + int(rng.random() * 9 * low) for _ in range(cfg.numbers))


def heldout_problems(cfg: AdditionConfig) -> list[tuple[int, ...]]:
    """The first TEST_SIZE distinct held-out problems of a generator with a fixed seed."""
    rng = random.Random("addition/test")
    problems: dict[tuple[int, ...], None] = {}
    while len(problems) < TEST_SIZE:
        numbers = draw_numbers(cfg, rng)
        if is_heldout(problem_text(numbers), cfg.heldout_share):
            problems[numbers] = None
    return list(problems)


def problem_text(numbers: tuple[int, ...]) -> str:
    """The text of a problem, e.g. "3 4 7 + 1 0 9"."""
    return " + ".join(" ".join(str(number)) for number in numbers)


def write_demonstration(numbers: tuple[int, ...], rng: random.Random, p_slip: float, p_check: float) -> str:
    """The teacher's response: columns, possibly a check of them, `</think>`, the digits of the result."""
    written: list[str] = []
    for round_ in range(1, MAX_ROUNDS + 1):
        columns, result = write_columns(numbers, rng, p_slip)
        written.append(columns)
        if rng.random() >= p_check:
            break
        if result == sum(numbers):
            written.append("check ok")
            break
        if round_ == MAX_ROUNDS:
            written.append("check x")
            break
        written.append("check x redo")
    return f"{' '.join(written)} </think> {' '.join(str(result))}"


def write_columns(numbers: tuple[int, ...], rng: random.Random, p_slip: float) -> tuple[str, int]:
    """The columns as text, and the result that they give."""
    carry, result, texts = 0, 0, []
    for column in range(len(str(numbers[0]))):
        digits = [number // 10**column % 10 for number in numbers]
        total = sum(digits) + carry
        if rng.random() < p_slip:
            total += 1 if total == 0 or rng.random() < 0.5 else -1
        texts.append(f"{' '.join(map(str, digits))} + {carry} = {total} ;")
        result += total % 10 * 10**column
        carry = total // 10
    return " ".join(texts), result + carry * 10 ** len(str(numbers[0]))
