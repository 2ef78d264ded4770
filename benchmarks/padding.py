"""Which exploration rewards does a padded wrong answer game? A simulation through the real counts and composition.

    python benchmarks/padding.py            # a minute or less, no model, no run

A group is 4 right and 3 wrong honest responses to one puzzle (`ops`, the task's own teacher) or word problem (GSM8K,
the shipped reference solution with its sentences in part left out, so that rollouts differ) and one wrong response that
is padded to the limit. Printed, for each form: alpha * 0 + (1 - alpha) * R_ex of the honest wrong ones, of the padded
one, and in how many of 100 groups the padded wrong one is paid more than some honest right one.

This is no training: the figures say what a policy would be paid, not whether training would lead there.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable, Iterator

import numpy as np

from rlsp_async.config import RewardConfig
from rlsp_async.rewards import compose
from rlsp_async.rewards.dominance import resolved_scale
from rlsp_async.rewards.novelty import group_novelty
from rlsp_async.rewards.search import with_counts
from rlsp_async.tasks import gsm8k, ops

ALPHA, GROUPS, RIGHT = 0.8, 100, 4
FORMS = {
    "len_inv, C = 1000": RewardConfig(explore="len_inv", scale=1000.0),
    "len_inv, auto": RewardConfig(explore="len_inv", scale="auto"),
    "len_inv_sqrt, auto": RewardConfig(explore="len_inv_sqrt", scale="auto"),
    "len_exp, auto": RewardConfig(explore="len_exp", scale="auto"),
    "steps, auto": RewardConfig(explore="steps", scale="auto"),
    "novelty": RewardConfig(explore="novelty"),
}
Padding = Callable[[str, int, random.Random], str]
Case = tuple[str, str, list[str], str]
"""Prompt, answer, the 7 honest responses (right ones first) and the wrong one that gets padded."""


def ops_cases(rng: random.Random) -> Iterator[Case]:
    """Puzzles with the teacher's responses."""
    task = ops.load(ops.Config(), 0)
    for index in range(GROUPS):
        prompt, _ = task.demonstration(index)
        left = prompt.text.partition("->")[0].split()
        leaves = ops.legal_leaves(tuple(map(int, left)), 40)
        responses: dict[bool, list[str]] = {True: [], False: []}
        for _ in range(1000):
            response = ops.write_demonstration(leaves, int(prompt.answer), rng, 0.15, 14)
            row = response.rpartition("</think> ")[2]
            responses[any(leaf[0] == row and leaf[1] == int(prompt.answer) for leaf in leaves)].append(response)
        if len(responses[False]) >= RIGHT:
            yield (
                prompt.text,
                prompt.answer,
                responses[True][:RIGHT] + responses[False][: RIGHT - 1],
                responses[False][RIGHT - 1],
            )


def gsm8k_cases(rng: random.Random) -> Iterator[Case]:
    """Reference solutions, each rollout without some of its sentences; wrong ones end in another number."""
    task = gsm8k.load(gsm8k.Config(), 0)
    for index in range(GROUPS):
        prompt, solution = task.demonstration(index)
        lines = [line for line in solution.splitlines() if line and not line.startswith("####")]
        responses = []
        for rollout in range(8):
            kept = [line for line in lines if rng.random() < 0.7] or lines[:1]
            number = prompt.answer if rollout < RIGHT else f"1{prompt.answer}"
            responses.append("\n".join([*kept, f"The answer is {number}"]))
        yield prompt.text, prompt.answer, responses[:7], responses[7]


def pad_front(text: str, repeat: str, limit: int) -> str:
    """Puts `repeat` in front of a response until it has `limit` tokens."""
    room = limit - len(tokens(text))
    return " ".join((repeat.split() * (room // len(repeat.split()) + 1))[: max(0, room)]) + " " + text


OPS_PADS: dict[str, Padding] = {
    "the word x": lambda text, limit, rng: pad_front(text, "x", limit),
    "its first attempt again": lambda text, limit, rng: pad_front(text, re.split(r"(?<= x) ", text)[0], limit),
    "random words": lambda text, limit, rng: pad_front(text, " ".join(rng.choices([*"0123456789+-*"], k=300)), limit),
}
TEXT_PADS: dict[str, Padding] = {
    "Wait.": lambda text, limit, rng: pad_front(text, "Wait.", limit),
    "one sentence with a phrase": lambda text, limit, rng: pad_front(text, "Wait, let me check the sum again.", limit),
    "phrases, random words": lambda text, limit, rng: pad_front(
        text,
        " ".join(f"Wait, {' '.join(''.join(rng.choices('abcdefgh', k=5)) for _ in range(4))}." for _ in range(60)),
        limit,
    ),
}


def tokens(text: str) -> list[str]:
    """Words, which stand for tokens here."""
    return text.split()


def measure(verifier: str, cases: list[Case], pad: Padding, limit: int) -> Iterator[tuple[str, float, float, int]]:
    """(form, pay of the wrong, pay of the padded, groups of 100 in which the padded one beats a right one)."""
    rng, vocabulary = random.Random(1), dict[str, int]()
    rows = []
    for prompt, answer, honest, victim in cases:
        responses = [*honest, pad(victim, limit, rng)]
        steps_G = np.array([with_counts(verifier, prompt, r, answer, {})["search_steps"] for r in responses])
        ids = [
            np.array([vocabulary.setdefault(w, len(vocabulary)) for w in tokens(r)], dtype=np.int32) for r in responses
        ]
        rows.append((np.array([float(len(i)) for i in ids]), steps_G, group_novelty(ids)))
    correct_G = np.array([1.0] * RIGHT + [0.0] * 4)
    for form, section in FORMS.items():
        wrong, padded, beaten = [], [], 0
        for length_G, steps_G, novel_G in rows:
            explore_G = (
                novel_G
                if section.explore == "novelty"
                else compose.exploration(section.explore, length_G, steps_G, resolved_scale(section, limit))
            )
            reward_G = compose.compose(correct_G, explore_G, ALPHA, section.clip).reward_B
            wrong.append(reward_G[RIGHT:-1].mean())
            padded.append(reward_G[-1])
            beaten += bool(reward_G[-1] > reward_G[:RIGHT].min())
        yield form, float(np.mean(wrong)), float(np.mean(padded)), round(100 * beaten / len(rows))


def main() -> None:
    for name, cases, pads in (
        ("ops", list(ops_cases(random.Random(0))), OPS_PADS),
        ("gsm8k", list(gsm8k_cases(random.Random(0))), TEXT_PADS),
    ):
        for what, pad in pads.items():
            print(f"\n{name}, {len(cases)} groups, padded with: {what}\n")
            print("| form | wrong | wrong and padded | beats a right one, of 100 |\n| --- | --- | --- | --- |")
            for form, wrong, padded, beaten in measure(name, cases, pad, 256):
                print(f"| {form} | {wrong:.3f} | {padded:.3f} | {beaten} |")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
