"""What a prompt selection is: a module that offers `Config` and `load(cfg, seed, size) -> Selector`.

    stages.rlsp.prompts = { name = "mopps", options = { target = 0.5 } }

A selector draws one prompt at a time, when a slot is free. What it has learnt of a prompt is one short row of bytes,
which the journal keeps with the verdicts that it came from; its random numbers are a function of (seed, cursor). So a
hub that is restarted draws what it would have drawn. A name with a dot is a module of your own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from rlsp_async import config
from rlsp_async.config import Section
from rlsp_async.errors import ConfigError
from rlsp_async.plugins import PluginFamily

PROMPT_SELECTIONS = PluginFamily(
    noun="prompts",
    package="rlsp_async.prompts",
    setting="prompts.name",
    options="prompts.options",
    needs=("Config", "load"),
)


class Draw(NamedTuple):
    """A prompt, and the row that must be kept (empty: none)."""

    place: int
    """Position in the split."""
    visit: int
    """How often it had been issued before."""
    propensity: float = 1.0
    """Probability with which it was drawn, relative to uniform (1.0)."""
    row: bytes = b""


class Selector(Protocol):
    """Pure: no clock, no file; the same calls give the same draws."""

    def draw(self, cursor: int, pending: Mapping[int, int]) -> Draw:
        """The prompt number `cursor` (0, 1, 2 ...); `pending`: place -> groups of it that are not judged yet."""
        ...

    def observe(self, place: int, num_correct: int, num_judged: int) -> bytes:
        """The verdicts of one group came, each group once; returns the row that must be kept (empty: none)."""
        ...

    def restore(self, place: int, row: bytes) -> None:
        """Takes back a row that was kept. Raises DataError when it is none of this selection's."""
        ...


class PoolConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every selection that remembers prompts needs."""

    pool: int = 0
    """Only the first so many training prompts are used; 0: all. A task with endless prompts needs one."""

    def __post_init__(self) -> None:
        if self.pool < 0:
            raise ValueError(f"pool {self.pool} must be at least 0")


def pool_size(cfg: PoolConfig, size: int | None, name: str) -> int:
    """How many prompts there are to choose from. Raises ConfigError when they have no end."""
    if size is None and not cfg.pool:
        raise ConfigError(f"prompts {name!r} remembers each prompt, and this task has endless ones: set options.pool")
    if size is None:
        return cfg.pool
    if size < 1:
        raise ConfigError(f"prompts {name!r} has nothing to choose from: the training split is empty")
    return min(size, cfg.pool or size)


def load_selector(section: config.PromptsConfig, seed: int, size: int | None) -> Selector:
    """The selection that a stage names; `size`: training prompts of the task, None: endless.

    Raises ConfigError for an unknown name or option, and for a task that it cannot select from.
    """
    module = PROMPT_SELECTIONS.find(section.name)
    cfg = PROMPT_SELECTIONS.decode_options(section.name, module, section.options)
    selector: Selector = module.load(cfg, seed, size)
    return selector
