"""The probe's text."""

import itertools

import pytest

from rlsp_async.learning.publish import text_probe_ids


@pytest.mark.parametrize(
    ("prompts", "context", "expected"),
    [
        ([[1, 2, 3]] * 99, 64, [1, 2, 3] * 21 + [1]),
        ([[1, 2, 3], [4]], 9, [1, 2, 3, 4, 1, 2, 3, 4, 1]),
        ([list(range(40)), list(range(40))], 64, [*range(40), *range(24)]),
        ([[5]], 1, [5, 5]),
        ([[], []], 64, None),
        ([], 64, None),
        ([[1, 50]], 64, None),
        ([[1, -1]], 64, None),
    ],
)
def test_the_first_prompts_fill_the_probe(prompts, context, expected):
    ids = text_probe_ids(iter(prompts), 50, context)
    assert (None if ids is None else ids.tolist()) == expected


def test_endless_prompts_are_read_as_far_as_needed():
    assert text_probe_ids(itertools.repeat([]), 50, 64) is None
    assert len(text_probe_ids(itertools.repeat([7]), 50, 4096)) == 64
