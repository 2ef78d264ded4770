"""Whether work grows no faster than the size of its input, judged by a wide factor and not by seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

FACTOR = 8
"""The larger input is so many times the smaller one; quadratic work then takes 64 times as long."""
SLACK = 3.0
"""How far from proportional a measurement may be."""
FLOOR_S = 0.004
"""A shorter measurement counts as this long, because it says nothing about growth."""


def grows_linearly(work: Callable[[int], object], num: int) -> bool:
    """Whether `work(FACTOR * num)` takes at most about FACTOR times the CPU time of `work(num)`."""
    small, large = (min(_cpu_s(work, size) for _ in range(3)) for size in (num, FACTOR * num))
    return large <= SLACK * FACTOR * max(small, FLOOR_S)


def _cpu_s(work: Callable[[int], object], size: int) -> float:
    start = time.process_time()
    work(size)
    return time.process_time() - start
