"""Column addition: the sum of a few numbers, digit by digit, by a teacher who slips and sometimes checks.

    prompt         3 4 7 + 1 0 9 + 9 9 5 <think>
    demonstration  7 9 5 + 0 = 21 ; 4 0 9 + 2 = 15 ; 3 1 9 + 1 = 14 ; check ok </think> 1 4 5 1

Columns from right to left: the digits, what is carried, their sum. In each column the teacher errs by one with
probability `p_slip`; with probability `p_check` he looks over what he wrote and, when it is wrong, does it all again
(`check x redo`). With the defaults 75 % of the demonstrations are right, 32 words long on average, 85 at most. Beside
`ops` it is the control: there is nothing to search for, so a reward for length alone should bring nothing.

A problem is held out when the md5 of its text says so; training draws never meet those.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from rlsp_async.config import Section
from rlsp_async.errors import DataError
from rlsp_async.messages import Prompt
from rlsp_async.tasks.base import Split
from rlsp_async.tasks.readers import is_heldout
from rlsp_async.tasks.word_tokenizer import word_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TEST_SIZE = 1000
MAX_ROUNDS = 3
"""So often the teacher writes the columns at most."""


class Config(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The size of the sums and the care of the teacher."""

    numbers: int = 3
    """Numbers in a sum."""
    digits: int = 3
    """Digits of each."""
    p_slip: float = 0.12
    """Chance that a column's sum is off by one."""
    p_check: float = 0.3
    """Chance that the teacher looks over what he wrote."""
    heldout_share: float = 0.1
    """Share of all problems that only the test split sees."""

    def __post_init__(self) -> None:
        if not (2 <= self.numbers <= 5 and 3 <= self.digits <= 6):
            raise ValueError("numbers must lie in 2..5 and digits in 3..6")
        if not (0.0 <= self.p_slip <= 1.0 and 0.0 <= self.p_check <= 1.0 and 0.0 < self.heldout_share < 1.0):
            raise ValueError("p_slip and p_check must lie in 0..1, heldout_share between 0 and 1")


class Addition:
    """The task. Endless training split, TEST_SIZE distinct held-out problems, the same for every seed."""

    name = "addition"
    verifier = "addition"

    def __init__(self, cfg: Config, seed: int) -> None:
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
            raise DataError(f"addition: test prompt {index} asked for, there are {TEST_SIZE}; lower evaluation.prompts")
        self._tests = self._tests or heldout_problems(self._cfg)
        return self._as_prompt(split, index, self._tests[index])

    def demonstration(self, index: int) -> tuple[Prompt, str]:
        """Training prompt `index` and the teacher's response to it."""
        numbers, rng = self._draw(index)
        return self._as_prompt("train", index, numbers), teach(numbers, rng, self._cfg.p_slip, self._cfg.p_check)

    def tokenizer(self) -> PreTrainedTokenizerFast | None:
        """The word-level tokenizer of 124 tokens."""
        return word_tokenizer()

    def _as_prompt(self, split: Split, index: int, numbers: tuple[int, ...]) -> Prompt:
        return Prompt(
            prompt_id=f"addition/{split}/{index}",
            task=self.name,
            text=f"{problem_text(numbers)} <think>",
            answer=str(sum(numbers)),
            index=index,
            source="addition generator",
        )

    def _draw(self, index: int) -> tuple[tuple[int, ...], random.Random]:
        rng = random.Random(f"addition/{self._seed}/{index}")
        while True:
            numbers = draw_numbers(self._cfg, rng)
            if not is_heldout(problem_text(numbers), self._cfg.heldout_share):
                return numbers, rng


def load(cfg: Config, seed: int) -> Addition:
    """The task with these options."""
    return Addition(cfg, seed)


def draw_numbers(cfg: Config, rng: random.Random) -> tuple[int, ...]:
    """Numbers without a leading zero."""
    low = 10 ** (cfg.digits - 1)
    return tuple(low + int(rng.random() * 9 * low) for _ in range(cfg.numbers))


def heldout_problems(cfg: Config) -> list[tuple[int, ...]]:
    """The first TEST_SIZE different held-out problems that a generator of its own meets."""
    rng = random.Random("addition/test")
    found: dict[tuple[int, ...], None] = {}
    while len(found) < TEST_SIZE:
        numbers = draw_numbers(cfg, rng)
        if is_heldout(problem_text(numbers), cfg.heldout_share):
            found[numbers] = None
    return list(found)


def problem_text(numbers: tuple[int, ...]) -> str:
    """ "3 4 7 + 1 0 9"."""
    return " + ".join(" ".join(str(number)) for number in numbers)


def teach(numbers: tuple[int, ...], rng: random.Random, p_slip: float, p_check: float) -> str:
    """The teacher's response: columns, perhaps a look over them, `</think>`, the digits of what he found."""
    written: list[str] = []
    for round_ in range(1, MAX_ROUNDS + 1):
        columns, result = add(numbers, rng, p_slip)
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


def add(numbers: tuple[int, ...], rng: random.Random, p_slip: float) -> tuple[str, int]:
    """The columns as text, and the result that they lead to."""
    carried, result, texts = 0, 0, []
    for place in range(len(str(numbers[0]))):
        digits = [number // 10**place % 10 for number in numbers]
        total = sum(digits) + carried
        if rng.random() < p_slip:
            total += 1 if total == 0 or rng.random() < 0.5 else -1
        texts.append(f"{' '.join(map(str, digits))} + {carried} = {total} ;")
        result += total % 10 * 10**place
        carried = total // 10
    return " ".join(texts), result + carried * 10 ** len(str(numbers[0]))
