"""Imported rows as groups: those with the same key, cut into groups that are no larger than sampled ones. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

from rlsp_async.errors import DataError
from rlsp_async.messages import Prompt
from rlsp_async.replay.sources import ImportedGroup, ImportedRollout


class EncodedRow(NamedTuple):
    """One row of a file, encoded and checked; `key` is empty where nothing groups."""

    where: str
    key: str
    prompt: Prompt
    prompt_ids: list[int]
    rollout: ImportedRollout


def grouped(rows: Iterable[EncodedRow], most: int) -> Iterator[ImportedGroup]:
    """Rows without a key alone, as they come; then those with one, by key, in the order of first rows.

    More than `most` of a key are cut into groups that differ by one rollout at most. All rows with a key are in memory.
    Raises DataError when two rows of a key do not answer the same prompt.
    """
    by_key: dict[str, list[EncodedRow]] = {}
    for row in rows:
        if row.key:
            members = by_key.setdefault(row.key, [])
            members.append(row)
            _require_same(members[0], row)
        else:
            yield _group([row])
    for members in by_key.values():
        num_groups = -(-len(members) // most)
        ends = [len(members) * i // num_groups for i in range(num_groups + 1)]
        yield from (_group(members[a:b]) for a, b in pairwise(ends))


def _group(rows: list[EncodedRow]) -> ImportedGroup:
    return ImportedGroup(prompt=rows[0].prompt, prompt_ids=rows[0].prompt_ids, rollouts=[row.rollout for row in rows])


def _require_same(first: EncodedRow, row: EncodedRow) -> None:
    here, there = ((p.text, p.answer, p.chat, p.system) for p in (row.prompt, first.prompt))
    if here != there or row.prompt_ids != first.prompt_ids:
        raise DataError(
            f"{row.where}: it shares its group {row.key!r} with {first.where}, and has another prompt or "
            "answer; group by a field that tells prompts apart"
        )
