"""The prompts of a run that is killed and resumed, in the order in which the hub issues them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec

from rlsp_async.prompts.uniform import pick
from rlsp_async.replay.hub import Hub
from rlsp_async.replay.journal import Journal
from rlsp_async.replay.records import GroupRecord
from tests.replay.line import Bench, SmallTask, config, hello

NUM_ROWS = 4


class Few(SmallTask):
    """A training split that is visited more than once."""

    def size(self, split: str) -> int | None:
        return NUM_ROWS


def one_life(path: Path, start: int, num_moves: int) -> list[tuple[int, int]]:
    """(index, visit) of every prompt that the journal says was issued, in order, when the hub is killed."""
    cfg = config(seed=11, stage={"target_lag": 3})
    journal = Journal(path, cfg)
    bench = Bench(Hub(cfg, Few(), journal.load()))
    for peer, role in ((b"s", "sampler"), (b"v", "verifier"), (b"l", "learner")):
        bench.say(peer, hello(role, step=bench.hub.state.step if role == "learner" else -1, start=start))
    for _ in range(num_moves):
        for peer in (b"s", b"v", b"l"):
            bench.step(peer)
    journal.commit(bench.records)
    journal.close()
    with closing(sqlite3.connect(path)) as file:
        heads = [
            msgspec.msgpack.decode(head, type=GroupRecord)
            for (head,) in file.execute("SELECT head FROM groups ORDER BY group_id")
        ]
    return [(head.index, head.visit) for head in heads]


def test_a_restart_goes_on_where_the_cursor_was(tmp_path: Path) -> None:
    """No prompt is left out or issued twice, within a pass and across passes."""
    for start, num_moves in ((1, 3), (2, 6), (3, 9)):
        issued = one_life(tmp_path / "j.sqlite", start, num_moves)
        assert issued == [pick(11, NUM_ROWS, cursor) for cursor in range(len(issued))]
    assert len(issued) > NUM_ROWS
    assert len(set(issued)) == len(issued)
