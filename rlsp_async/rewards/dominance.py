"""The dominance condition of the RLSP reward: every right answer is paid more than every wrong one.

    R = a * correct + b * R_ex        a = alpha, b = 1 - alpha; in the released server's form a = b = 1

Forms of length, R_ex = -C f(L) with f decreasing in the length L (tokens): a right answer of L tokens is paid more than
a wrong one of the greatest length Lmax when

    C (f(L) - f(Lmax)) < a / b

For f = 1/L (arXiv:2502.06773, section 2.2) that is C < alpha L / ((1 - alpha)(1 - L/Lmax)). The paper's C = 1000 is for
answers of thousands of tokens; at 50 to 300 tokens it reverses the objective: long and wrong is paid more than short
and right. "steps", "judge" and "novelty" lie in [0, 1] and need only alpha > 0.5. Clipping is left out: it can only
make rewards more alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from rlsp_async.config import RewardConfig

SHAPES: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "len_inv": (lambda length: 1.0 / length, lambda f: 1.0 / f),
    "len_inv_sqrt": (lambda length: length**-0.5, lambda f: f**-2.0),
    "len_exp": (lambda length: math.exp(-math.sqrt(length)), lambda f: math.log(f) ** 2),
}
"""f and its inverse, by the name in `reward.explore`."""

SHORT = 16
"""A right answer is taken to have at least max_new_tokens / SHORT tokens."""
MARGIN = 2.0
"""`scale = "auto"` is the largest safe C divided by this."""
STEPS_SCALE = 20.0 / 3.0
"""`scale = "auto"` of "steps", which makes its reward 1 - .85^steps."""


class Dominance(msgspec.Struct, frozen=True, kw_only=True):
    """What the condition says of a reward.

    Example: alpha .8, len_inv, C = 1000, Lmax = 4096: right answers are safe from 235.9 tokens on.
    """

    alpha: float
    """The smallest alpha of the stage."""
    shortest_safe_tokens: float
    """Right answers of this length and more are paid more than every wrong one; 0: all are; inf: none."""
    largest_scale: float
    """C must stay below this for answers of `shortest_tokens` and more; inf: any C will do."""
    shortest_tokens: int
    longest_tokens: int

    @property
    def holds(self) -> bool:
        """Whether every right answer of `shortest_tokens` and more is paid more than every wrong one."""
        return self.shortest_safe_tokens <= self.shortest_tokens


def shortest(longest_tokens: int) -> int:
    """Length from which on right answers are to be safe.

    Example: 256 -> 16.

    Args:
        longest_tokens: max_new_tokens.

    Returns:
        a sixteenth of that, at least 1 token.
    """
    return max(1, longest_tokens // SHORT)


def dominance(
    reward: RewardConfig, shortest_tokens: int, longest_tokens: int, released: bool = False
) -> Dominance | None:
    """The condition C (f(L) - f(Lmax)) < a / b for a stage's reward, at its smallest alpha.

    Args:
        reward: the stage's settings.
        shortest_tokens: L of the shortest right answer that is to be safe.
        longest_tokens: Lmax.
        released: whether the reward has the released server's form.

    Returns:
        the condition; None when nothing but correctness is paid.
    """
    alpha = min(reward.alpha, reward.alpha_end) if reward.alpha_end >= 0 else reward.alpha
    lengths = {"shortest_tokens": shortest_tokens, "longest_tokens": longest_tokens}
    if reward.explore == "none" or (alpha == 1.0 and not released):
        return None
    if reward.explore not in SHAPES:
        safe = 0.0 if alpha > 0.5 else math.inf
        return Dominance(alpha=alpha, shortest_safe_tokens=safe, largest_scale=math.inf, **lengths)
    ratio = 1.0 if released else alpha / (1.0 - alpha)
    f, inverse = SHAPES[reward.explore]
    gap = f(shortest_tokens) - f(longest_tokens)
    largest = math.inf if gap <= 0 else ratio / gap
    scale = _auto(largest) if isinstance(reward.scale, str) else reward.scale
    level = math.inf if scale <= 0 else ratio / scale + f(longest_tokens)
    safe = 0.0 if level >= f(1) else float(inverse(level))
    return Dominance(alpha=alpha, shortest_safe_tokens=safe, largest_scale=largest, **lengths)


def resolved_scale(reward: RewardConfig, longest_tokens: int, released: bool = False) -> float:
    """C as a number: the setting, or for "auto" half the largest C that is safe for right answers of Lmax / 16 to Lmax.

    Example: "auto", alpha .8, len_inv, 256 tokens -> 34.13.

    Args:
        reward: the stage's settings.
        longest_tokens: Lmax, max_new_tokens.
        released: whether the reward has the released server's form.

    Returns:
        C; 20/3 for "auto" of "steps".
    """
    if not isinstance(reward.scale, str):
        return float(reward.scale)
    if reward.explore == "steps":
        return STEPS_SCALE
    condition = dominance(reward, shortest(longest_tokens), longest_tokens, released)
    return 0.0 if condition is None else _auto(condition.largest_scale)


def _auto(largest: float) -> float:
    """Half the largest safe C; 1 where nothing limits C (answers of one length)."""
    return 1.0 if largest == math.inf else largest / MARGIN
