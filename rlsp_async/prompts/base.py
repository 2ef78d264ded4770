"""What a prompt selection is: a module that offers `Config` and `load(cfg, seed, size) -> PromptSelector`.

    stages.rlsp.prompts = { name = "mopps", options = { target = 0.5 } }

A selector draws one prompt whenever a slot is free. What the selector has learnt about a prompt is one short row of
bytes, which the journal keeps together with the verdicts that led to it. Its random numbers are a function of (seed,
cursor), so a hub that is restarted draws the same prompts as an uninterrupted one. A name with a dot is a module of
your own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Protocol

import msgspec

from rlsp_async import config
from rlsp_async.config import Section
from rlsp_async.config.ranges import Range
from rlsp_async.errors import ConfigError
from rlsp_async.plugins import PluginFamily

PROMPT_SELECTIONS = PluginFamily(
    noun="prompts",
    package="rlsp_async.prompts",
    setting="prompts.name",
    options="prompts.options",
    needs=("Config", "load"),
)


class Draw(msgspec.Struct, frozen=True):
    """One drawn prompt, and the row that must be kept."""

    index: int
    """Position of the prompt in the training split."""
    visit: int
    """How often the prompt had been issued before."""
    propensity: float = 1.0
    """Probability of the draw relative to a uniform draw (1.0)."""
    row: bytes = b""
    """What the journal must keep about the prompt; empty: nothing."""


class PromptSelector(Protocol):
    """Draws prompts. Pure: no clock and no file, so the same calls give the same draws."""

    def draw(self, cursor: int, pending: Mapping[int, int]) -> Draw:
        """The prompt for draw number `cursor` (0, 1, 2 ...).

        `pending` maps the index of a prompt to the number of its groups that are issued and have no verdicts yet.
        """
        ...

    def observe(self, index: int, num_correct: int, num_judged: int) -> bytes:
        """Takes in the verdicts of one group (each group once); returns the row that must be kept (empty: none)."""
        ...

    def restore(self, index: int, row: bytes) -> None:
        """Takes in a row that was kept. Raises DataError for a row of another selection or another split."""
        ...


class PoolConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The option that all selections which remember prompts share."""

    pool: Annotated[int, Range(ge=0, le=10**9)] = 0
    """Only this many training prompts, the first ones, are used; 0: all. A task with endless prompts needs a pool."""


def pool_size(cfg: PoolConfig, size: int | None, name: str) -> int:
    """The number of prompts to choose from. Raises ConfigError when they are endless and no pool is set, or none."""
    if size is None and not cfg.pool:
        raise ConfigError(f"prompts {name!r} remembers each prompt, and this task has endless ones: set options.pool")
    if size is None:
        return cfg.pool
    if size < 1:
        raise ConfigError(f"prompts {name!r} has nothing to choose from: the training split is empty")
    return min(size, cfg.pool or size)


def load_selector(section: config.PromptsConfig, seed: int, size: int | None) -> PromptSelector:
    """The selection that a stage names; `size` is the number of training prompts of the task (None: endless).

    Raises ConfigError for an unknown name or option, and for a task that the selection cannot choose from.
    """
    module = PROMPT_SELECTIONS.find(section.name)
    cfg = PROMPT_SELECTIONS.decode_options(section.name, module, section.options)
    selector: PromptSelector = module.load(cfg, seed, size)
    return selector
