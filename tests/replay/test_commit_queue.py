"""Decisions wait in order and within a bound while a commit is under way, and the hub goes on deciding."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from rlsp_async.config import ReplayConfig
from rlsp_async.messages import Work
from rlsp_async.replay.hub import Hub
from rlsp_async.replay.journal import Journal
from rlsp_async.replay.records import Cursor, Put
from rlsp_async.replay.server import CommitQueue
from rlsp_async.replay.turn import Effects
from tests.replay.test_server import FakeRouter, server, two_stages


def effects(number: int) -> Effects:
    return Effects(records=[Cursor(name="c", value=number)], wants=[number])


async def test_what_waits_is_taken_at_once_and_in_order():
    decided = CommitQueue(10)
    assert decided.is_empty
    decided.add(effects(1), 1)
    decided.add(effects(2))
    decided.add(effects(3), 2)
    assert not decided.is_empty
    taken = await decided.take()
    assert taken.wants == [1, 2, 3]
    assert [record.value for record in taken.records] == [1, 2, 3]
    assert decided.is_empty


async def test_no_more_messages_wait_than_may_share_a_commit():
    decided = CommitQueue(3)
    assert await decided.room() == 3
    decided.add(effects(1), 2)
    assert await decided.room() == 1
    decided.add(effects(2), 1)
    waiting = asyncio.create_task(decided.room())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await decided.take()
    async with asyncio.timeout(1):
        assert await waiting == 3


async def test_the_hub_decides_on_while_a_commit_is_under_way_and_sends_nothing_of_it(tmp_path, monkeypatch):
    """With a disk of 20 ms a commit: decisions run ahead of it, messages do not, and no commit is above its bound."""
    cfg = two_stages(tmp_path, replay=ReplayConfig(commit_groups=4))
    on_disk: set[int] = set()
    early: list[Any] = []
    heard, ahead = [0], []

    def on_send(peer: bytes, message: Any) -> None:
        if isinstance(message, Work) and hasattr(message.job, "group_id") and message.job.group_id not in on_disk:
            early.append(message)

    class CountingHub(Hub):
        def hear(self, *arguments: Any) -> Any:
            heard[0] += 1
            return super().hear(*arguments)

    class SlowJournal(Journal):
        def commit(self, records: Any) -> None:
            bodies = sum(isinstance(record, Put) and record.body is not None for record in records)
            assert bodies <= cfg.replay.commit_groups
            before = heard[0]
            time.sleep(0.02)
            ahead.append(heard[0] - before)
            super().commit(records)
            on_disk.update(record.record.group_id for record in records if isinstance(record, Put))

    monkeypatch.setattr("rlsp_async.replay.server.Hub", CountingHub)
    monkeypatch.setattr("rlsp_async.replay.server.Journal", SlowJournal)
    hub = server(cfg)
    await hub.run(lambda: FakeRouter(on_send=on_send))
    assert hub.hub.state.ending.kind == "finished"
    assert early == []
    assert max(ahead) > 0
