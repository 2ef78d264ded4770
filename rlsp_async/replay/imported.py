"""Imported rollouts as groups: the file RUN/imported.jsonl that `rlsp import` wrote, one group of one rollout a row.

They are old data of unknown versions, so to the laws they are demonstrations: one rollout, no lag, `max_uses` counts. A
row that was judged brings its verdict, and so a reward. Each pass over the file has an order of its own.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from rlsp_async.columns import pack_floats, pack_ints
from rlsp_async.config import RunConfig
from rlsp_async.errors import DataError
from rlsp_async.messages import Prompt, Rollout, RolloutGroup, Sampling, Verdict, VerifiedGroup
from rlsp_async.prompts.uniform import pick

FILE = "imported.jsonl"
VERSION = -1


class ImportedRow(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout, encoded and checked."""

    prompt: Prompt
    response: str
    prompt_ids: list[int]
    token_ids: list[int]
    logprobs: list[float] = []
    """Behaviour log-probs at temperature 1; empty: unknown, which a loss with ratios must not be given."""
    verdict: Verdict | None = None


_row = msgspec.json.Decoder(ImportedRow).decode


class Imported:
    """Makes the group of any cursor; blocking, for one helper thread."""

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
            row = _row(line)
        except msgspec.DecodeError as e:
            raise DataError(f"{self._path}:{index + 1} is not what `rlsp import` wrote: {e}") from None
        num = len(row.token_ids)
        rollout = Rollout(index=0, token_ids=pack_ints(row.token_ids), text=row.response, sampler="imported",
                          logprobs=pack_floats(np.array(row.logprobs) if row.logprobs else np.zeros(num)),
                          versions=pack_ints(np.full(num, VERSION)))
        prompt = msgspec.structs.replace(row.prompt, index=index, visit=visit)
        group = RolloutGroup(group_id=0, prompt=prompt, prompt_ids=pack_ints(row.prompt_ids), rollouts=[rollout],
                             sampling=Sampling(max_new_tokens=num, rollouts=1), provenance="demonstration")
        return VerifiedGroup(group=group, verdicts=[row.verdict] if row.verdict else [])


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
