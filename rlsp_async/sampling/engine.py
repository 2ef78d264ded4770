"""The interface of an inference engine.

An engine turns prompt ids into completions and swaps its weights while completions run: the version of a token is that
of the weights that computed its distribution. Log-probs are those of the distribution that was sampled from (logits
divided by the temperature). Implementations: `vllm_engine.py`, `torch_engine.py`, and `scripted.py` for tests;
`engines.py` chooses one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rlsp_async.columns import Floats, Ids
from rlsp_async.messages import Finish, Invite, WeightsRef
from rlsp_async.weights.receive import Progress
from rlsp_async.weights.sums import Plan


@dataclass(frozen=True, kw_only=True)
class GenerateSettings:
    """How one completion is drawn. Example: GenerateSettings(max_new_tokens=200, temperature=0.7, stop_ids=(2,))."""

    max_new_tokens: int
    temperature: float = 1.0
    stop_ids: tuple[int, ...] = ()
    """Any of these ids ends the completion and is part of it."""
    seed: tuple[int, ...] = ()
    """What this completion's random numbers are made of; empty: the engine draws from a seed of its own."""
    together: int = 0
    """Above 0: this number of completions, whose seeds differ in the last number alone, are computed apart from all
    others, where the engine can, so that not a bit of them depends on what else it does."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One completion of T tokens; the three arrays have the same length."""

    token_ids: Ids
    """[T] sampled ids, the stop token included."""
    logprobs: Floats
    """[T] log-probs at the sampling temperature."""
    versions: npt.NDArray[np.int32]
    """[T] policy version that sampled each token."""
    finish: Finish

    def __post_init__(self) -> None:
        """Raises ValueError when the arrays differ in length."""
        if not self.token_ids.shape == self.logprobs.shape == self.versions.shape:
            raise ValueError(
                f"a completion of {self.token_ids.shape} ids has {self.logprobs.shape} log-probs and "
                f"{self.versions.shape} versions"
            )


@dataclass(frozen=True)
class Staged:
    """A version that an engine has received and not loaded yet."""

    ticket: str
    """Of the invitation with which it came."""
    plan: Plan


class Engine(Protocol):
    """One model that works on many completions at once; used by one event loop."""

    name: str
    window: int
    """Most tokens of prompt and completion together."""

    @property
    def version(self) -> int:
        """Policy version that the next token is sampled from."""
        ...

    @property
    def errored(self) -> bool:
        """Whether the engine is dead: every call raises EngineError until it is closed and started again."""
        ...

    async def start(self) -> None:
        """Loads the initial model as version 0.

        Raises:
            DataError: the model directory cannot be used.
            MachineError: a library is missing.
            EngineError: the engine does not start.
        """
        ...

    async def generate(self, prompt_ids: Sequence[int], settings: GenerateSettings) -> Completion:
        """Samples one completion. Cancelling the caller frees its place in the engine.

        Args:
            prompt_ids: [P] ids of the prompt, chat template included; 0 < P < window.
            settings: length, temperature and stop ids.

        Returns:
            A completion of at least one token.

        Raises:
            EngineError: the engine died.
            DataError: the prompt leaves no room in the window.
        """
        ...

    async def load_weights(self, source: Path | Staged, version: int) -> None:
        """Swaps the weights between two decode steps; running completions go on with their old KV cache.

        Args:
            source: safetensors file with every tensor of the model under its checkpoint name, or what was received.
            version: policy version of these weights.

        Raises:
            WeightsError: the tensors do not fit the model; the old weights stay.
            WeightsDelayed: what was received is not there any more; the old weights stay.
            EngineError: the engine died.
        """
        ...

    async def receive_begin(self, invite: Invite) -> None:
        """Begins to receive a version over a channel, and returns; completions go on. One that is under way is ended.

        Args:
            invite: what the learner sent.

        Raises:
            EngineError: the engine died.
        """
        ...

    async def receive_poll(self) -> list[Progress]:
        """How far that is, for each process that receives. Raises EngineError."""
        ...

    async def receive_stop(self) -> None:
        """Ends what is being received, with its channel. Raises EngineError."""
        ...

    def weights_loaded(self, ref: WeightsRef) -> None:
        """Receives the published version that `load_weights` has just loaded, before its probe is scored.

        Engines with a model do nothing here. An engine without a model learns the probe's values.

        Args:
            ref: the version that was loaded.
        """
        ...

    async def live_total(self) -> int | None:
        """Adds up the sums of the parameters that the engine computes with, as `weights.sums.live_total` does.

        Returns:
            The total; None: this engine has no parameters that could be summed.

        Raises:
            EngineError: the engine died.
        """
        ...

    async def score(self, ids: Sequence[int]) -> Floats:
        """Computes the log-probs of a sequence.

        Args:
            ids: [N] token ids, N at most `window`.

        Returns:
            [N-1] log-probs at temperature 1 of ids[1:], each given the ids before it.

        Raises:
            EngineError: the engine died.
        """
        ...

    async def close(self) -> None:
        """Ends the engine; completions that still run raise EngineError. May be called twice."""
        ...
