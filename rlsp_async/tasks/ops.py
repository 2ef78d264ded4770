"""The operator puzzle: numbers in a fixed order and a target. Which of + - * between them gives the target?

    prompt         1 1 3 4 -> 7 <think>
    demonstration  1 + 1 2 + 3 5 + 4 9 ?= 7 x 1 * 1 1 * 3 3 + 4 7 ?= 7 ok </think> * * +

The value is computed from left to right, and no running value leaves 0..limit. One attempt is
`n0 (op n r)... ?= target x|ok`. The target is repeated before the verdict, because without it models learn the verdict
badly. The answer is the row of operators after `</think>`.

Demonstrations come from an imperfect teacher, so that reinforcement learning has something to find. The teacher tries
the legal rows in random order, gives up with probability `p_stop` after each failure (or at `max_attempts`), and then
answers with any legal row. With the defaults 50.6 % of the demonstrations are right, after 4.0 attempts and 57 tokens
on average.

The share `verify_share` of the demonstrations verify a proposed row instead of looking for one:

    prompt         1 1 3 4 -> 7 : 1 * 1 * 3 + 4 check <think>
    demonstration  1 * 1 1 * 3 3 + 4 7 ?= 7 ok </think> ok

The answer is `ok` or `x`: whether the proposed row gives the target. Half of the proposed rows are right. This teacher
is imperfect too: with probability `verify_guess` the teacher answers at random, otherwise works out the row as in an
attempt. With `verify_test` the held-out prompts are of that kind.

A problem is held out when the md5 of its text says so (`heldout_share`); training draws never return such a problem.
"""

from __future__ import annotations

import functools
import itertools
import random
from typing import TYPE_CHECKING, Annotated

import msgspec

from rlsp_async.config import Section
from rlsp_async.config.ranges import Range
from rlsp_async.errors import DataError
from rlsp_async.messages import Prompt, Verdict
from rlsp_async.tasks.base import Split, is_heldout
from rlsp_async.tasks.word_tokenizer import word_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Numbers = tuple[int, ...]
Leaf = tuple[str, int, str]
"""A row of operators, its value, and the computation in full: ("+ *", 12, "1 + 2 3 * 4 12")."""
ANSWERS = {"correct": "ok", "wrong": "x"}
"""Status of the verdict on a row -> the right answer to its verification."""
MARK = "check"


class OpsConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The size of the puzzles and the patience of the teacher."""

    k: Annotated[int, Range(ge=2, le=5)] = 4
    """Number of numbers in a problem."""
    largest: Annotated[int, Range(ge=1, le=9)] = 6
    """Numbers are drawn from 1..largest."""
    limit: Annotated[int, Range(ge=1, le=99)] = 40
    """Every running value, including the target, lies in 0..limit."""
    p_stop: Annotated[float, Range(ge=0, le=1)] = 0.15
    """Chance that the teacher gives up after a failed attempt."""
    max_attempts: Annotated[int, Range(ge=1, le=10**6)] = 14
    """The teacher gives up after this many failed attempts."""
    heldout_share: Annotated[float, Range(gt=0, lt=1)] = 0.1
    """Share of all problems that is held out for the test split."""
    verify_share: Annotated[float, Range(ge=0, le=1)] = 0.0
    """Share of the demonstrations that verify a proposed row of operators instead of looking for one."""
    verify_guess: Annotated[float, Range(ge=0, le=1)] = 0.5
    """Chance that the teacher answers a verification at random."""
    verify_test: bool = False
    """The test split asks to verify proposed rows of held-out problems, so that `rlsp eval` measures that skill."""

    def __post_init__(self) -> None:
        if not self.largest <= self.limit <= 99:
            raise ValueError("limit must lie in largest..99: the tokenizer has the numbers 0..99")


Config = OpsConfig


class Ops:
    """The task: an endless training split and a finite test split of distinct problems."""

    name = "ops"
    verifier = "ops"
    verified_by = "ops"

    def __init__(self, cfg: OpsConfig, seed: int) -> None:
        self._cfg = cfg
        self._seed = seed
        self._leaves = functools.lru_cache(maxsize=8192)(functools.partial(legal_leaves, limit=cfg.limit))
        self._heldout: list[str] | None = None

    def size(self, split: Split) -> int | None:
        """None for "train"; the number of held-out problems for "test"."""
        return None if split == "train" else len(self._tests())

    def prompt(self, split: Split, index: int) -> Prompt:
        """Prompt number `index` of a split. Raises DataError beyond the end of "test"."""
        if split == "train":
            numbers, target, _ = self._draw(index)
            return self._as_prompt(split, index, problem_text(numbers, target))
        tests = self._tests()
        if index >= len(tests):
            raise DataError(f"ops: test prompt {index} asked for, there are {len(tests)}; lower evaluation.prompts")
        prompt = self._as_prompt(split, index, tests[index])
        if not self._cfg.verify_test:
            return prompt
        return self._propose(prompt, random.Random(f"ops/verify/{self._seed}/test/{index}"))[0]

    def demonstration(self, index: int) -> tuple[Prompt, str]:
        """Training prompt `index` and the teacher's response to it."""
        if self._cfg.verify_share:
            verify = random.Random(f"ops/verify/{self._seed}/{index}")
            if verify.random() < self._cfg.verify_share:
                return self._propose(self.prompt("train", index), verify)
        numbers, target, rng = self._draw(index)
        response = write_demonstration(self._leaves(numbers), target, rng, self._cfg.p_stop, self._cfg.max_attempts)
        return self._as_prompt("train", index, problem_text(numbers, target)), response

    def verification(self, prompt: Prompt, response: str, verdict: Verdict) -> Prompt | None:
        """A prompt that asks to verify the row of a response; None when the response has no row."""
        problem = prompt.text.removesuffix(" <think>")
        row = answer_row(response, self._cfg.k - 1)
        if row is None or verdict.status not in ANSWERS:
            return None
        return msgspec.structs.replace(prompt, text=check_text(problem, row), answer=ANSWERS[verdict.status])

    def tokenizer(self) -> PreTrainedTokenizerFast | None:
        """The word-level tokenizer of 124 tokens."""
        return word_tokenizer()

    def _propose(self, prompt: Prompt, rng: random.Random) -> tuple[Prompt, str]:
        """A prompt that asks to verify a row for the problem of `prompt`, and the teacher's response."""
        problem = prompt.text.removesuffix(" <think>")
        left, _, right = problem.partition(" -> ")
        target = int(right)
        row, value, way = propose_row(self._leaves(tuple(map(int, left.split()))), target, rng)
        answer = ANSWERS["correct" if value == target else "wrong"]
        asked = msgspec.structs.replace(
            prompt, prompt_id=f"{prompt.prompt_id}/check", text=check_text(problem, row), answer=answer
        )
        return asked, write_verification(way, value, target, rng, self._cfg.verify_guess)

    def _as_prompt(self, split: Split, index: int, problem: str) -> Prompt:
        return Prompt(
            prompt_id=f"ops/{split}/{index}",
            task="ops",
            text=f"{problem} <think>",
            answer=problem.rpartition(" ")[2],
            index=index,
            source="ops generator",
        )

    def _draw(self, index: int) -> tuple[Numbers, int, random.Random]:
        """A training problem: random numbers, and the value of a random legal row as the target."""
        cfg = self._cfg
        rng = random.Random(f"ops/{self._seed}/{index}")
        while True:
            numbers = tuple(int(rng.random() * cfg.largest) + 1 for _ in range(cfg.k))
            leaves = self._leaves(numbers)
            if not leaves:
                continue
            target = leaves[int(rng.random() * len(leaves))][1]
            if not is_heldout(problem_text(numbers, target), cfg.heldout_share):
                return numbers, target, rng

    def _tests(self) -> list[str]:
        """All held-out problems, shuffled by the seed; computed on first use."""
        if self._heldout is None:
            problems = sorted(heldout_problems(self._cfg))
            random.Random(f"ops/test/{self._seed}").shuffle(problems)
            self._heldout = problems
        return self._heldout


def load(cfg: OpsConfig, seed: int) -> Ops:
    """The task with these options."""
    return Ops(cfg, seed)


def legal_leaves(numbers: Numbers, limit: int) -> list[Leaf]:
    """Every row of operators whose running values stay in 0..limit."""
    leaves: list[Leaf] = [("", numbers[0], str(numbers[0]))]
    for n in numbers[1:]:
        grown = ((row, op, apply_operator(op, value, n), way) for row, value, way in leaves for op in "+-*")
        leaves = [
            (f"{row} {op}", value, f"{way} {op} {n} {value}") for row, op, value, way in grown if 0 <= value <= limit
        ]
    return [(row[1:], value, way) for row, value, way in leaves]


def apply_operator(op: str, a: int, b: int) -> int:
    """The value of `a op b`, for + - and *."""
    return a + b if op == "+" else a - b if op == "-" else a * b


def problem_text(numbers: Numbers, target: int) -> str:
    """The text of a problem, e.g. "1 1 3 4 -> 7"."""
    return f"{' '.join(map(str, numbers))} -> {target}"


def heldout_problems(cfg: OpsConfig) -> set[str]:
    """The texts of all held-out problems."""
    problems: set[str] = set()
    for numbers in itertools.product(range(1, cfg.largest + 1), repeat=cfg.k):
        targets = {value for _, value, _ in legal_leaves(numbers, cfg.limit)}
        problems.update(p for p in (problem_text(numbers, t) for t in targets) if is_heldout(p, cfg.heldout_share))
    return problems


def write_demonstration(leaves: list[Leaf], target: int, rng: random.Random, p_stop: float, max_attempts: int) -> str:
    """The teacher's response to a problem: attempts, then `</think>`, then a row of operators."""
    untried, attempts = list(leaves), []
    while True:
        row, value, way = untried.pop(int(rng.random() * len(untried)))
        attempts.append(f"{way} ?= {target} {'ok' if value == target else 'x'}")
        if value == target:
            break
        if len(attempts) >= max_attempts or rng.random() < p_stop:
            row = leaves[int(rng.random() * len(leaves))][0]
            break
    return f"{' '.join(attempts)} </think> {row}"


# --- verifying a proposed row -----------------------------------------------------------------------------------------


def check_text(problem: str, row: str) -> str:
    """A problem ("1 1 3 4 -> 7") and a row ("* * +") as a prompt that shows the operators between the numbers."""
    first, *numbers = problem.partition(" -> ")[0].split()
    shown = " ".join([first, *(f"{op} {n}" for op, n in zip(row.split(), numbers, strict=True))])
    return f"{problem} : {shown} {MARK} <think>"


def is_check(prompt: str) -> bool:
    """Whether a prompt asks to verify a row."""
    return prompt.split()[-2:] == [MARK, "<think>"]


def answer_row(response: str, num_operators: int) -> str | None:
    """The row of operators after the last `</think>` of a response; None when that is not a row."""
    _, closed, tail = response.rpartition("</think>")
    row = tail.split()
    return " ".join(row) if closed and len(row) == num_operators and set(row) <= set("+-*") else None


def propose_row(leaves: list[Leaf], target: int, rng: random.Random) -> Leaf:
    """A legal row, right or wrong with equal probability when both kinds exist."""
    right = [leaf for leaf in leaves if leaf[1] == target]
    wrong = [leaf for leaf in leaves if leaf[1] != target]
    chosen = right if not wrong or rng.random() < 0.5 else wrong
    return chosen[int(rng.random() * len(chosen))]


def write_verification(way: str, value: int, target: int, rng: random.Random, p_guess: float) -> str:
    """The teacher's response to a verification: the computation of the row and the verdict, or a guess."""
    if rng.random() < p_guess:
        return f"</think> {'ok' if rng.random() < 0.5 else 'x'}"
    word = "ok" if value == target else "x"
    return f"{way} ?= {target} {word} </think> {word}"
