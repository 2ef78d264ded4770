"""MoPPS, arXiv:2507.04632: prompts whose success rate is believed to be near a target, by Thompson sampling.

    belief       success rate of a prompt ~ Beta(a, b), at first (1, 1)
    verdicts     a <- lam * a + (1 - lam) * a0 + num_correct        b likewise, with num_judged - num_correct
    draw         `candidates` prompts uniformly; one g ~ Beta(a, b) for each; the g nearest to `target` wins

The paper chooses a batch of B prompts from ratio * B candidates at once. Here each free slot draws from `candidates` of
its own, among the prompts without a pending group. The propensity is the probability that the same candidates give the
same winner again, estimated from `propensity_draws` further draws. With lam < 1 the order of the verdicts matters: the
order in the journal. The rewards of batches that are chosen this way stay near the target; they do not show progress.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np

from rlsp_async.config.ranges import Range
from rlsp_async.prompts.base import Draw, PoolConfig, pool_size
from rlsp_async.prompts.table import Indices, PromptTable, Reals


class MoppsConfig(PoolConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `mopps`."""

    target: Annotated[float, Range(gt=0, lt=1)] = 0.5
    """Target success rate (gamma*)."""
    decay: Annotated[float, Range(ge=0, le=1)] = 0.5
    """lam: how much of the old belief is kept after new verdicts; 1 never forgets (the paper: 0.5 and 1)."""
    candidates: Annotated[int, Range(ge=1, le=10**6)] = 16
    """Number of prompts that each draw compares (the paper's candidate ratio: 8 and 16)."""
    prior: Annotated[tuple[float, float], Range(gt=0, le=10**6)] = (1.0, 1.0)
    """a0 and b0, the belief about a prompt without verdicts."""
    propensity_draws: Annotated[int, Range(ge=1, le=10**6)] = 32
    """Number of further draws from which the logged propensity is estimated."""


Config = MoppsConfig


def update_belief(a: float, b: float, num_correct: int, num_judged: int, cfg: MoppsConfig) -> tuple[float, float]:
    """The belief after one group. Example: prior (1, 1), decay .5, 2 of 8 correct: (1, 1) -> (3, 7)."""
    rest = 1.0 - cfg.decay
    return (
        cfg.decay * a + rest * cfg.prior[0] + num_correct,
        cfg.decay * b + rest * cfg.prior[1] + num_judged - num_correct,
    )


def nearest_to_target(g_CM: Reals, target: float) -> Indices:
    """The winner of each of M draws over C candidates: the candidate nearest to the target, the first of equal ones."""
    winners_M: Indices = np.argmin(np.square(g_CM - target), axis=0)
    return winners_M


class Mopps:
    """Beliefs about a pool of prompts."""

    def __init__(self, cfg: MoppsConfig, seed: int, size: int) -> None:
        self._cfg, self._seed = cfg, seed
        self.table = PromptTable(size, *cfg.prior)

    def draw(self, cursor: int, pending: Mapping[int, int]) -> Draw:
        """One prompt."""
        rng = np.random.default_rng([self._seed, cursor])
        candidates_C = self._candidates(rng, pending)
        num = self._cfg.propensity_draws
        a_C, b_C = self.table.first_N[candidates_C], self.table.second_N[candidates_C]
        winners_M = nearest_to_target(
            rng.beta(a_C[:, None], b_C[:, None], (len(candidates_C), 1 + num)), self._cfg.target
        )
        winner = int(winners_M[0])
        share = (1 + int(np.count_nonzero(winners_M[1:] == winner))) / (num + len(candidates_C))
        index = int(candidates_C[winner])
        return Draw(index, self.table.visit(index), share * len(candidates_C), self.table.row(index))

    def observe(self, index: int, num_correct: int, num_judged: int) -> bytes:
        """Updates the belief about the prompt with the verdicts of one group."""
        table = self.table
        table.first_N[index], table.second_N[index] = update_belief(
            float(table.first_N[index]), float(table.second_N[index]), num_correct, num_judged, self._cfg
        )
        return table.row(index)

    def restore(self, index: int, row: bytes) -> None:
        """Takes in a row from the journal."""
        self.table.restore(index, row)

    def _candidates(self, rng: np.random.Generator, pending: Mapping[int, int]) -> Indices:
        num = min(self._cfg.candidates, len(self.table))
        drawn = rng.choice(len(self.table), num, replace=False)
        free = [index for index in drawn.tolist() if index not in pending]
        if free:
            return np.array(free, np.int64)
        rest = self.table.not_pending(pending)
        return rng.choice(rest, min(num, len(rest)), replace=False)


def load(cfg: MoppsConfig, seed: int, size: int | None) -> Mopps:
    """The selector. Raises ConfigError when the prompts are endless and no pool is set."""
    return Mopps(cfg, seed, pool_size(cfg, size, "mopps"))
