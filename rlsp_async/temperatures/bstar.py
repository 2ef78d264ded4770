"""B-STaR's choice of the temperature, arXiv:2412.17256, as a bandit that runs while training goes on.

    bs      min(n' / n*, 1) * n' / n        of one group: n different responses, n' of them correct, n* the target
    belief  after each group every arm's sum and count times `discount`, then the group's arm: sum + bs, count + 1
    draw    the arm with the largest  mean + spread / sqrt(count + prior_groups) * z,   z ~ N(0, 1) of (seed, cursor)

The paper stops before each round and samples a probe set at every temperature of its grid. Here each issued group is a
probe of one arm, and discounted Thompson sampling replaces the sweep: the belief about an arm that was not drawn for
long fades back to the prior, so that the arm is tried again, because the policy moves. Draws are random, so that the
many pending groups spread over the arms that may be best.

Every rollout of the group counts in n. The paper's other half, the reward threshold, is chosen batch by batch where the
rewards are known (`filtered`, `balance_target`). Two responses with the same text count as one.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Annotated

import numpy as np

from rlsp_async.config import Section
from rlsp_async.config.ranges import Range
from rlsp_async.errors import DataError
from rlsp_async.messages import RolloutGroup, Verdict
from rlsp_async.temperatures.base import SALT, check_grid


class BstarConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `bstar`."""

    grid: tuple[Annotated[float, Range(gt=0, le=100)], ...] = (0.6, 0.8, 1.0, 1.2)
    """The arms (the paper: .5, .55 .. 1.2)."""
    target: Annotated[int, Range(ge=1, le=65_536)] = 8
    """n*: number of correct responses to a prompt that is enough (the paper: 8 of 64)."""
    discount: Annotated[float, Range(gt=0, le=1)] = 0.99
    """Factor on every sum and count after one more group."""
    spread: Annotated[float, Range(ge=0, le=10**6)] = 0.3
    """Standard deviation of one group's score."""
    prior: Annotated[float, Range(ge=-(10**6), le=10**6)] = 0.5
    """Expected score of an arm without groups."""
    prior_groups: Annotated[float, Range(gt=0, le=10**9)] = 1.0
    """Number of groups that the prior counts for."""

    def __post_init__(self) -> None:
        check_grid(self.grid)


Config = BstarConfig


def balance_score(texts: Sequence[str], correct: Sequence[bool], target: int) -> float:
    """The balance score of one group; the verdict on the first of several equal texts counts.

    Example: 4 different responses, 2 correct, target 4 -> .5 * .5.
    """
    first: dict[str, bool] = {}
    for text, right in zip(texts, correct, strict=True):
        first.setdefault(text, right)
    num_correct = sum(first.values())
    return min(num_correct / target, 1.0) * num_correct / len(first) if first else 0.0


class Bstar:
    """Beliefs about the scores of A temperatures, the arms of the bandit."""

    def __init__(self, cfg: BstarConfig, seed: int) -> None:
        self._cfg, self._seed = cfg, seed
        self._row = struct.Struct(f"<{2 * len(cfg.grid)}d")
        self.sum_A = np.zeros(len(cfg.grid))
        self.count_A = np.zeros(len(cfg.grid))

    @property
    def mean_A(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """Expected score of each arm."""
        cfg = self._cfg
        mean_A: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = (self.sum_A + cfg.prior * cfg.prior_groups) / (
            self.count_A + cfg.prior_groups
        )
        return mean_A

    def draw(self, cursor: int) -> float:
        """The temperature of one group."""
        noise_A = np.random.default_rng([self._seed, cursor, SALT]).standard_normal(len(self.sum_A))
        sampled_A = self.mean_A + self._cfg.spread / np.sqrt(self.count_A + self._cfg.prior_groups) * noise_A
        return self._cfg.grid[int(np.argmax(sampled_A))]

    def observe(self, group: RolloutGroup, verdicts: Sequence[Verdict]) -> bytes:
        """Updates the arm of one group. A temperature that is not on the grid (an older batch's) teaches nothing."""
        if group.sampling.temperature not in self._cfg.grid:
            return b""
        arm = self._cfg.grid.index(group.sampling.temperature)
        correct = [verdict.status == "correct" for verdict in verdicts]
        score = balance_score([rollout.text for rollout in group.rollouts], correct, self._cfg.target)
        self.sum_A *= self._cfg.discount
        self.count_A *= self._cfg.discount
        self.sum_A[arm] += score
        self.count_A[arm] += 1.0
        return self._row.pack(*self.sum_A, *self.count_A)

    def restore(self, row: bytes) -> None:
        """Takes in the row from the journal."""
        if len(row) != self._row.size:
            raise DataError(
                f"what the journal knows of temperatures ({len(row)} bytes) does not fit a grid of "
                f"{len(self.sum_A)}: the grid has changed since the run began"
            )
        kept = np.array(self._row.unpack(row))
        self.sum_A, self.count_A = kept[: len(self.sum_A)], kept[len(self.sum_A) :]

    def figures(self) -> dict[str, float]:
        """The expected score and the discounted number of groups of each arm."""
        arms = list(zip(self._cfg.grid, self.mean_A.tolist(), self.count_A.tolist(), strict=True))
        return {**{f"score_{t:g}": mean for t, mean, _ in arms}, **{f"groups_{t:g}": count for t, _, count in arms}}


def load(cfg: BstarConfig, seed: int, temperature: float) -> Bstar:
    """The schedule with these options."""
    return Bstar(cfg, seed)
