"""Does every correct answer beat every wrong one? The dominance condition of the RLSP reward.

    R(L) = alpha * correct + (1 - alpha) * (-C f(L))        f decreasing in the length L (tokens)

A correct answer of L tokens beats a wrong one of the greatest length Lmax when

    alpha > (1 - alpha) C (f(L) - f(Lmax))

For f = 1/L (arXiv 2502.06773, Sec. 2.2) that is C < alpha L / ((1 - alpha)(1 - L/Lmax)). The paper's C = 1000 is
for answers of thousands of tokens; at 50 to 300 it turns the objective round: long and wrong beats short and right.
The family "steps" lies in [0, 1] and asks only for alpha > 0.5. Clipping is left out: it can only flatten.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from rlsp_async.config import Reward

SHAPES: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "len_inv": (lambda length: 1.0 / length, lambda f: 1.0 / f),
    "len_inv_sqrt": (lambda length: length**-0.5, lambda f: f**-2.0),
    "len_exp": (lambda length: math.exp(-math.sqrt(length)), lambda f: math.log(f) ** 2),
}
"""f and its inverse, by the name in `reward.explore`."""


class Dominance(msgspec.Struct, frozen=True, kw_only=True):
    """Example: alpha .8, len_inv, C = 1000, Lmax = 4096: shortest_safe_tokens = 235.2."""

    alpha: float
    """The smallest alpha of the stage."""
    shortest_safe_tokens: float
    """A correct answer of at least so many tokens beats every wrong one; 0: all do; inf: none."""
    largest_scale: float
    """C must stay below this, for answers of `shortest_tokens` and more; inf: any C will do."""
    shortest_tokens: int
    longest_tokens: int

    @property
    def holds(self) -> bool:
        """Whether it holds for every answer of `shortest_tokens` and more."""
        return self.shortest_safe_tokens <= self.shortest_tokens


def dominance(reward: Reward, shortest_tokens: int, longest_tokens: int) -> Dominance | None:
    """The condition for answers of `shortest_tokens`..`longest_tokens`; None when nothing but correctness is paid."""
    alpha = min(reward.alpha, reward.alpha_end) if reward.alpha_end >= 0 else reward.alpha
    lengths = {"shortest_tokens": shortest_tokens, "longest_tokens": longest_tokens}
    if reward.explore == "none" or alpha == 1.0:
        return None
    if reward.explore == "steps":
        safe = 0.0 if alpha > 0.5 else math.inf
        return Dominance(alpha=alpha, shortest_safe_tokens=safe, largest_scale=math.inf, **lengths)
    return Dominance(
        alpha=alpha,
        shortest_safe_tokens=_safe(reward, alpha, longest_tokens),
        largest_scale=_scale(reward, alpha, shortest_tokens, longest_tokens),
        **lengths,
    )


def _safe(reward: Reward, alpha: float, longest_tokens: int) -> float:
    """L with alpha == (1 - alpha) C (f(L) - f(Lmax))."""
    f, inverse = SHAPES[reward.explore]
    if reward.scale <= 0:
        return 0.0
    level = alpha / ((1.0 - alpha) * reward.scale) + f(longest_tokens)
    return 0.0 if level >= f(1) else float(inverse(level))


def _scale(reward: Reward, alpha: float, shortest_tokens: int, longest_tokens: int) -> float:
    f, _ = SHAPES[reward.explore]
    gap = f(shortest_tokens) - f(longest_tokens)
    return math.inf if gap <= 0 else alpha / ((1.0 - alpha) * gap)
