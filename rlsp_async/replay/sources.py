"""Groups that nobody samples: demonstrations of the task, and rollouts that `rlsp import` put into the run.

A demonstration is a prompt and a response of the task, encoded with the run's tokenizer, as a group of one rollout.

Imported groups come from the file RUN/imported.jsonl, one group a line. They are old data of unknown versions, so to
the hub they are demonstrations: they have no lag, and `max_uses` counts; but a group may hold up to `sampling.rollouts`
rollouts. Groups that were judged bring their verdicts, and so their rewards. Each pass over the file has an order of
its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from rlsp_async import tokens
from rlsp_async.columns import Ids, pack_floats, pack_ints
from rlsp_async.config import RunConfig
from rlsp_async.errors import DataError
from rlsp_async.messages import Prompt, Rollout, RolloutGroup, Sampling, Verdict, VerifiedGroup
from rlsp_async.prompts.uniform import pick
from rlsp_async.tasks.base import Said, Task, demonstrated

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Demonstrations:
    """Makes the group of any cursor. Blocking, for one helper thread."""

    def __init__(self, cfg: RunConfig, task: Task) -> None:
        self._cfg = cfg
        self._task = task
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._size = task.size("train")

    def make(self, first: int, num: int) -> list[tuple[int, VerifiedGroup]]:
        """(cursor, group) for cursors first .. first + num - 1. The hub gives the group ids.

        Raises DataError when the task has no demonstrations or the tokenizer cannot be used.
        """
        return [(cursor, VerifiedGroup(group=self._group(cursor))) for cursor in range(first, first + num)]

    def _group(self, cursor: int) -> RolloutGroup:
        index, visit = pick(self._cfg.seed, self._size, cursor)
        prompt, said = demonstrated(self._task, index, bool(self._cfg.task.environment))
        prompt_ids, encoded = self._encoded(prompt, said)
        num = len(encoded.ids)
        rollout = Rollout(
            index=0,
            token_ids=pack_ints(encoded.ids),
            logprobs=pack_floats(np.zeros(num)),
            text=said[-1].text,
            versions=pack_ints(encoded.versions),
            turns=pack_ints(encoded.turns),
            sampler="demonstration",
        )
        sampling = Sampling(temperature=self._cfg.sampling.temperature, max_new_tokens=num, rollouts=1)
        prompt = msgspec.structs.replace(prompt, index=index, visit=visit)
        return RolloutGroup(
            group_id=0,
            prompt=prompt,
            prompt_ids=pack_ints(prompt_ids),
            sampling=sampling,
            rollouts=[rollout],
            provenance="demonstration",
        )

    def _encoded(self, prompt: Prompt, said: list[Said]) -> tuple[Ids, tokens.EncodedTurns]:
        if self._tokenizer is None:
            self._tokenizer = tokens.load_tokenizer(self._cfg.directory / "model")
        prompt_ids = tokens.encode_prompt(self._tokenizer, prompt, self._cfg.task.template_options)
        encoded = tokens.encode_demonstration(self._tokenizer, prompt, said, self._cfg.task.template_options)
        if not len(encoded.ids):
            raise DataError(f"demonstration of prompt {prompt.prompt_id}: empty after tokenization")
        return prompt_ids, encoded


FILE = "imported.jsonl"
VERSION = -1


class ImportedRollout(msgspec.Struct, frozen=True, kw_only=True):
    """One response, encoded and checked."""

    response: str
    token_ids: list[int]
    logprobs: list[float] = []
    """Behaviour log-probs at temperature 1; empty: unknown, which a loss with ratios must not be given."""
    verdict: Verdict | None = None
    turns: list[int] = []
    """Offsets at which the turns of a rollout in an environment begin; empty: one turn."""
    observed: list[int] = []
    """Offsets of the tokens that the environment said."""


class ImportedGroup(msgspec.Struct, frozen=True, kw_only=True):
    """One line: responses to one prompt, all of them judged or none."""

    prompt: Prompt
    prompt_ids: list[int]
    rollouts: list[ImportedRollout]


_group = msgspec.json.Decoder(ImportedGroup).decode


class Imported:
    """Makes the group of any cursor. Blocking, for one helper thread."""

    def __init__(self, cfg: RunConfig) -> None:
        self._seed, self._path = cfg.seed, cfg.directory / FILE
        self._offsets: list[int] = []

    def make(self, first: int, num: int) -> list[tuple[int, VerifiedGroup]]:
        """(cursor, group) for cursors first .. first + num - 1. Raises DataError when there is no usable file."""
        self._offsets = self._offsets or line_offsets(self._path)
        with self._path.open("rb") as file:
            found = []
            for cursor in range(first, first + num):
                index, visit = pick(self._seed, len(self._offsets), cursor)
                file.seek(self._offsets[index])
                found.append((cursor, self._group(file.readline(), index, visit)))
        return found

    def _group(self, line: bytes, index: int, visit: int) -> VerifiedGroup:
        try:
            made = _group(line)
        except msgspec.DecodeError as e:
            raise DataError(f"{self._path}:{index + 1} is not what `rlsp import` wrote: {e}") from None
        rollouts = [_rollout(i, one) for i, one in enumerate(made.rollouts)]
        prompt = msgspec.structs.replace(made.prompt, index=index, visit=visit)
        sampling = Sampling(max_new_tokens=max(len(one.token_ids) for one in made.rollouts), rollouts=len(rollouts))
        group = RolloutGroup(
            group_id=0,
            prompt=prompt,
            prompt_ids=pack_ints(made.prompt_ids),
            rollouts=rollouts,
            sampling=sampling,
            provenance="demonstration",
        )
        return VerifiedGroup(group=group, verdicts=[one.verdict for one in made.rollouts if one.verdict])


def _rollout(index: int, one: ImportedRollout) -> Rollout:
    num = len(one.token_ids)
    versions = np.full(num, 0 if one.turns else VERSION)
    versions[one.observed] = VERSION
    return Rollout(
        index=index,
        token_ids=pack_ints(one.token_ids),
        text=one.response,
        sampler="imported",
        logprobs=pack_floats(np.array(one.logprobs) if one.logprobs else np.zeros(num)),
        versions=pack_ints(versions),
        turns=pack_ints(one.turns),
    )


def line_offsets(path: Path) -> list[int]:
    """Where each line begins. Raises DataError when there is none."""
    try:
        with path.open("rb") as file:
            offsets, at = [], 0
            for line in file:
                offsets.append(at)
                at += len(line)
    except FileNotFoundError:
        offsets = []
    if not offsets:
        raise DataError(f"{path} is not there or empty, and a stage trains on it: rlsp import FILE.jsonl --run CONFIG")
    return offsets
