"""Demonstrations as groups: prompt and response from the task, encoded with the run's tokenizer, one rollout each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from rlsp_async import tokens
from rlsp_async.columns import Ids, pack_floats, pack_ints
from rlsp_async.config import RunConfig
from rlsp_async.errors import DataError
from rlsp_async.messages import Prompt, Rollout, RolloutGroup, Sampling, VerifiedGroup
from rlsp_async.prompts.uniform import pick
from rlsp_async.tasks.base import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEMONSTRATION_VERSION = -1


class Demonstrations:
    """Makes the group of any cursor; blocking, for one helper thread."""

    def __init__(self, cfg: RunConfig, task: Task) -> None:
        self._cfg = cfg
        self._task = task
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._size = task.size("train")

    def make(self, first: int, num: int) -> list[tuple[int, VerifiedGroup]]:
        """(cursor, group) for cursors first .. first + num - 1. Group ids are given by the ledger.

        Raises DataError when the task has no demonstrations or the tokenizer cannot be used.
        """
        return [(cursor, VerifiedGroup(group=self._group(cursor))) for cursor in range(first, first + num)]

    def _group(self, cursor: int) -> RolloutGroup:
        index, visit = pick(self._cfg.seed, self._size, cursor)
        prompt, text = self._task.demonstration(index)
        prompt_ids, response_ids = self._encoded(prompt, text)
        rollout = Rollout(
            index=0,
            token_ids=pack_ints(response_ids),
            logprobs=pack_floats(np.zeros(len(response_ids))),
            text=text,
            versions=pack_ints(np.full(len(response_ids), DEMONSTRATION_VERSION)),
            sampler="demonstration",
        )
        sampling = Sampling(temperature=self._cfg.sampling.temperature, max_new_tokens=len(response_ids), rollouts=1)
        prompt = msgspec.structs.replace(prompt, index=index, visit=visit)
        return RolloutGroup(
            group_id=0,
            prompt=prompt,
            prompt_ids=pack_ints(prompt_ids),
            sampling=sampling,
            rollouts=[rollout],
            provenance="demonstration",
        )

    def _encoded(self, prompt: Prompt, text: str) -> tuple[Ids, Ids]:
        if self._tokenizer is None:
            self._tokenizer = tokens.load_tokenizer(self._cfg.directory / "model")
        prompt_ids = tokens.encode_prompt(self._tokenizer, prompt)
        response_ids = tokens.encode_response(self._tokenizer, text)
        if not len(response_ids):
            raise DataError(f"demonstration of prompt {prompt.prompt_id}: empty after tokenization")
        return prompt_ids, response_ids
