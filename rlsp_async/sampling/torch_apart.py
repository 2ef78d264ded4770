"""Groups that decode apart from each other, for runs whose rollouts are the same bits each time.

A matrix product over 3 rows may end with other bits than the same rows within a product over 100, and which rows decode
together in a shared batch depends on when requests arrive. So a completion whose settings say `together` waits until
all completions of its group have come; they fill a batch of their own, in the order of their seeds, and no other row
ever enters it. Several such batches take turns. This is slower than a shared batch: its products are smaller.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator

from rlsp_async.sampling.torch_batch import DecodeBatch, DecodeRow

Key = tuple[int, ...]


class GroupsApart:
    """The groups that decode apart. Used by the engine's thread alone."""

    def __init__(self, make_batch: Callable[[int], DecodeBatch], max_rows: int) -> None:
        """`make_batch` makes an empty batch with room for some rows; all batches together hold at most `max_rows`."""
        self._make_batch, self._max_rows = make_batch, max_rows
        self._gathering: dict[Key, list[DecodeRow]] = defaultdict(list)
        """Groups of which some completions have not come yet, by their seeds without the last number."""
        self._whole: deque[list[DecodeRow]] = deque()
        self._batches: list[DecodeBatch] = []

    @property
    def is_busy(self) -> bool:
        """Whether a step would do something."""
        return bool(self._whole or self._batches)

    def rows(self) -> Iterator[DecodeRow]:
        """Every row that waits or decodes."""
        for rows in (*self._gathering.values(), *self._whole, *(batch.live for batch in self._batches)):
            yield from rows

    def add(self, row: DecodeRow) -> None:
        """Takes one completion; with the last one of its group the group may decode."""
        key = row.settings.seed[:-1]
        mates = [mate for mate in self._gathering[key] if not mate.ticket.cancelled()] + [row]
        self._gathering[key] = mates
        if len(mates) == row.settings.together:
            del self._gathering[key]
            mates.sort(key=lambda mate: mate.settings.seed)
            self._whole.extend(mates[i : i + self._max_rows] for i in range(0, len(mates), self._max_rows))

    def step(self, version: int) -> list[DecodeRow]:
        """Lets each group sample one token for each of its rows; returns the rows that are done."""
        self._forget_cancelled()
        room = self._max_rows - sum(len(batch.live) for batch in self._batches)
        while self._whole and len(self._whole[0]) <= room:
            rows = self._whole.popleft()
            batch = self._make_batch(len(rows))
            batch.admit(rows)
            self._batches.append(batch)
            room -= len(rows)
        done = []
        for batch in self._batches:
            batch.version = version
            done += batch.step()
        self._batches = [batch for batch in self._batches if batch.live]
        return done

    def _forget_cancelled(self) -> None:
        """Removes groups that nobody waits for any more; the completions of a group are cancelled together."""
        for key in [key for key, rows in self._gathering.items() if _is_cancelled(rows)]:
            del self._gathering[key]
        self._whole = deque(rows for rows in self._whole if not _is_cancelled(rows))
        self._batches = [batch for batch in self._batches if not _is_cancelled(batch.live)]


def _is_cancelled(rows: list[DecodeRow]) -> bool:
    return all(row.ticket.cancelled() for row in rows)
