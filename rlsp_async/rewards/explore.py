"""Exploration rewards R_ex: they pay effort and ignore whether the answer is right (RLSP, arXiv:2502.06773, 2.2).

All grow with the length or the number of search steps, are concave and bounded, so the incentive fades.
B rollouts; lengths in tokens, at least 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]


def len_inv(length_B: Reals, scale: float) -> Reals:
    """-C / |o|, the paper's (App. B.4, C = 1000)."""
    return -scale / length_B


def len_inv_sqrt(length_B: Reals, scale: float) -> Reals:
    """-C / sqrt(|o|)."""
    reward_B: Reals = -scale / np.sqrt(length_B)
    return reward_B


def len_exp(length_B: Reals, scale: float) -> Reals:
    """-C exp(-sqrt(|o|)), in [-C, 0)."""
    reward_B: Reals = -scale * np.exp(-np.sqrt(length_B))
    return reward_B


def steps(num_steps_B: Reals, scale: float) -> Reals:
    """1 - (1 - 1/scale)^steps, in [0, 1). Example: scale 20/3 makes it 1 - .85^steps."""
    return 1.0 - np.power(1.0 - 1.0 / scale, num_steps_B)
