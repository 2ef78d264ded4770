"""What docs/rewards.md says of padding, on a few groups."""

import itertools
import random

import pytest

from benchmarks import padding


@pytest.fixture(scope="module")
def cases():
    return {
        "ops": list(itertools.islice(padding.ops_cases(random.Random(0)), 5)),
        "gsm8k": list(itertools.islice(padding.gsm8k_cases(random.Random(0)), 5)),
    }


@pytest.mark.parametrize("what", sorted(padding.OPS_PADS))
def test_padding_a_puzzle_games_the_papers_scale_and_not_the_steps(cases, what):
    rows = {form: rest for form, *rest in padding.measure("ops", cases["ops"], padding.OPS_PADS[what], 256)}
    wrong, padded, beaten = rows["len_inv, C = 1000"]
    assert padded > wrong and beaten == 100
    assert rows["len_inv, auto"][2] == 0
    assert rows["steps, auto"][1] <= rows["steps, auto"][0] + 0.05


def test_a_phrase_pays_next_to_nothing_and_new_nonsense_pays_all(cases):
    pay = {
        what: {form: padded for form, _, padded, _ in padding.measure("gsm8k", cases["gsm8k"], pad, 256)}
        for what, pad in padding.TEXT_PADS.items()
    }
    assert pay["Wait."]["steps, auto"] == 0.0
    assert pay["one sentence with a phrase"]["steps, auto"] < 0.1
    assert pay["phrases, random words"]["steps, auto"] > 0.19
