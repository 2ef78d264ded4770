"""Rollouts with an environment: a group of conversations in one engine, each turn a request with the ids so far.

    prompt ids --generate--> turn ids --text--> environment --observation--> its ids appended --generate--> ...

Ids are never rendered again: a turn's are the engine's, an observation is encoded once. The rollouts of a group go on
by themselves, each at a turn of its own. In a synchronous run they go on together, because there a turn's rows are
decoded apart from all others (`GenerateSettings.together`), and so not a bit depends on how fast an environment is.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from rlsp_async.columns import pack_floats, pack_ints
from rlsp_async.contents import TRANSCRIPT_BYTES
from rlsp_async.environments.base import End
from rlsp_async.environments.pool import EnvironmentPool, EnvironmentProcess
from rlsp_async.errors import DataError, EngineError, first_error
from rlsp_async.messages import Ended, Finish, Rollout, SampleJob
from rlsp_async.observations import OBSERVED
from rlsp_async.sampling.engine import Completion, Engine, GenerateSettings
from rlsp_async.tokens import Codec

SAID_CHARACTERS = 400
"""Of one text in a transcript."""


class Conversations(NamedTuple):
    """What the conversations of one group work with."""

    engine: Engine
    codec: Codec
    environments: EnvironmentPool
    job: SampleJob
    prompt_ids: list[int]
    settings: GenerateSettings
    """Length, temperature and stop ids of a rollout; the seed of the group."""
    to_text: Callable[[Completion], str]
    """A turn as text, without its stop token."""
    worker: str
    clock: Callable[[], float]


async def sample_conversations(given: Conversations) -> list[Rollout]:
    """Samples the rollouts of a group.

    Raises:
        EngineError: the engine or an environment failed; all rollouts of the group are void.
        DataError: the first observation does not fit the window.
    """
    conversations = [_Conversation(given, index) for index in range(given.job.sampling.rollouts)]
    try:
        if given.settings.together:
            await _all(conversation.begin() for conversation in conversations)
            while active := [conversation for conversation in conversations if conversation.is_active]:
                await _all(conversation.advance(together=len(active)) for conversation in active)
        else:
            await _all(conversation.run() for conversation in conversations)
    finally:
        for conversation in conversations:
            conversation.close()
    return [conversation.rollout() for conversation in conversations]


async def _all(calls: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Runs coroutines at once; the first EngineError or DataError cancels the others and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for call in calls:
                group.create_task(call)
    except* (EngineError, DataError) as failures:
        raise first_error(failures) from failures


class _Conversation:
    """One rollout. Its columns grow by a turn or by an observation; `_record` is what they must be equal to."""

    def __init__(self, given: Conversations, index: int) -> None:
        self._given, self._index = given, index
        self._child: EnvironmentProcess | None = None
        self._started = given.clock()
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self._versions: list[int] = []
        self._turns: list[int] = []
        self._record: list[tuple[Sequence[int], bool]] = []
        """Ids in the order in which they were said, and whether they were sampled."""
        self._said: list[tuple[str, str]] = []
        self._text = ""
        self._ended: Ended = ""
        self._finish: Finish = "stop"
        self._claim: dict[str, float] = {}

    @property
    def is_active(self) -> bool:
        """Whether another turn follows."""
        return not self._ended and self._finish != "abort"

    async def run(self) -> None:
        """The whole rollout."""
        await self.begin()
        while self.is_active:
            await self.advance(together=0)

    async def begin(self) -> None:
        """Starts the environment; what it says first stands behind the prompt."""
        self._child = await self._given.environments.open()
        job = self._given.job
        words = np.random.SeedSequence([job.sampling.seed, job.group_id, self._index]).generate_state(1, np.uint64)
        said = await self._child.reset(job.prompt, int(words[0] >> 1))
        if not self._observe(said.text):
            raise DataError(
                f"prompt {job.prompt.prompt_id!r}: the first observation of its environment does not fit the window "
                f"of {self._given.engine.window} tokens"
            )

    async def advance(self, together: int) -> None:
        """One turn: what the policy says, and what the environment answers."""
        given, turn = self._given, len(self._turns)
        settings = dataclasses.replace(
            given.settings,
            max_new_tokens=min(given.settings.max_new_tokens - self._num_sampled(), self._room()),
            seed=(*given.settings.seed, turn, self._index),
            together=together,
        )
        completion = await given.engine.generate([*given.prompt_ids, *self._ids], settings)
        self._text = given.to_text(completion)
        self._append(completion.token_ids.tolist(), completion)
        self._said.append(("model", self._text))
        if completion.finish != "stop":
            self._finish = completion.finish
            self._ended = "max_tokens" if completion.finish == "length" else ""
            return
        assert self._child is not None
        said = await self._child.step(self._text)
        if isinstance(said, End):
            self._ended, self._claim = "done", said.parts
            self._said.append(("end", said.detail))
        elif len(self._turns) >= given.environments.cfg.max_turns:
            self._ended = "max_turns"
        elif self._num_sampled() >= given.settings.max_new_tokens or not self._observe(said.text):
            self._ended, self._finish = "max_tokens", "length"

    def close(self) -> None:
        """Ends the environment's process."""
        if self._child is not None:
            self._child.close()

    def rollout(self) -> Rollout:
        """The finished rollout. Raises AssertionError when its columns are not what was said."""
        self._require_record()
        return Rollout(
            index=self._index,
            token_ids=pack_ints(self._ids),
            logprobs=pack_floats(self._logprobs),
            versions=pack_ints(self._versions),
            text=self._text,
            finish=self._finish,
            sampler=self._given.worker,
            seconds=self._given.clock() - self._started,
            turns=pack_ints(self._turns),
            claim=self._claim,
            ended=self._ended,
            transcript=transcript(self._said),
        )

    def _observe(self, text: str) -> bool:
        """Appends an observation; False, and nothing is appended, when no room would be left for a turn."""
        ids = self._given.codec.encode_observation(self._given.job.prompt, text) if text else []
        if len(ids) >= self._room():
            return False
        self._append(ids, None)
        if text:
            self._said.append(("environment", text))
        return True

    def _append(self, ids: list[int], completion: Completion | None) -> None:
        """Appends what was sampled, or observed when there is no completion."""
        if completion is not None:
            self._turns.append(len(self._ids))
        self._ids += ids
        self._logprobs += [0.0] * len(ids) if completion is None else completion.logprobs.tolist()
        self._versions += [OBSERVED] * len(ids) if completion is None else completion.versions.tolist()
        self._record.append((tuple(ids), completion is not None))

    def _room(self) -> int:
        """Tokens that still fit the window."""
        return self._given.engine.window - len(self._given.prompt_ids) - len(self._ids)

    def _num_sampled(self) -> int:
        return sum(len(ids) for ids, is_sampled in self._record if is_sampled)

    def _require_record(self) -> None:
        """Always on: the columns are the concatenation of what was said, and sampled exactly where it was sampled."""
        ids = [token for said, _ in self._record for token in said]
        sampled = [is_sampled for said, is_sampled in self._record for _ in said]
        if self._ids != ids or [version >= 0 for version in self._versions] != sampled:
            raise AssertionError(
                f"group {self._given.job.group_id}, rollout {self._index}: its columns are not what was said in its "
                f"{len(self._turns)} turns"
            )


def transcript(said: Sequence[tuple[str, str]]) -> bytes:
    """What was said as a msgpack list of [who, text], for people: long texts cut, the last ones left out."""
    rows = [[who, text if len(text) <= SAID_CHARACTERS else f"{text[:SAID_CHARACTERS]}..."] for who, text in said]
    packed = msgspec.msgpack.encode(rows)
    while len(packed) > TRANSCRIPT_BYTES:
        rows = [*rows[: len(rows) // 2], ["cut", ""]]
        packed = msgspec.msgpack.encode(rows)
    return packed
