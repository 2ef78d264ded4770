"""A worker's link against a real router on loopback, heartbeats of 50 ms."""

import asyncio
import threading

import msgspec
import pytest

from rlsp_async.errors import (
    DataError,
    DivergedError,
    EngineError,
    FencedError,
    MachineError,
    MessageError,
    UserError,
    WeightsDelayed,
    WeightsError,
)
from rlsp_async.messages import (
    Abandon,
    Ack,
    Bye,
    Done,
    Drain,
    Failed,
    Hello,
    Loaded,
    NewWeights,
    Ping,
    Probe,
    Pull,
    Refuse,
    Rejected,
    Revoke,
    Rollout,
    WeightsRef,
)
from rlsp_async.service import in_thread
from rlsp_async.wire.link import backoff_s
from rlsp_async.wire.loading import WeightLoader
from rlsp_async.wire.relayed import RelayedMessages
from tests.wire.hub import LIMITS, Hub, answer, link_to


class Clock:
    """Stands still until a test moves it; with a `step` it moves by that much at each look."""

    def __init__(self, step: float = 0.0) -> None:
        self.start = self.now = 100.0
        self._step = step

    def __call__(self) -> float:
        self.now += self._step
        return self.now


def ref(version: int) -> WeightsRef:
    probe = Probe(ids=b"", logprobs=b"")
    return WeightsRef(version=version, uri="file:///w", digest="sha256:0", num_bytes=1, probe=probe)


async def stop(hub: Hub, running: "asyncio.Task[str]") -> str:
    hub.say(Drain(reason="enough"))
    return await asyncio.wait_for(running, 5)


async def test_a_lease_is_worked_and_acknowledged_and_a_drain_ends_with_bye():
    async with Hub() as hub:
        running = asyncio.create_task(link_to(hub.address).run())
        await hub.until(lambda: hub.peers)
        for lease in (1, 2):
            hub.lease(lease)
        await hub.until(lambda: len(hub.all(Done)) == 2)
        assert await stop(hub, running) == "enough"
        await hub.until(lambda: hub.all(Bye))
    assert [done.groups[0].group_id for done in hub.all(Done)] == [1, 2]
    assert hub.all(Hello)[0].credit == 2
    assert hub.all(Failed) == []


async def test_more_leases_than_the_credit_are_refused_not_queued():
    gate, at_once, most = asyncio.Event(), 0, 0

    async def slow(job):
        nonlocal at_once, most
        at_once, most = at_once + 1, max(most, at_once + 1)
        await gate.wait()
        at_once -= 1
        return await answer(job)

    async with Hub() as hub:
        running = asyncio.create_task(link_to(hub.address, slow, credit=2).run())
        await hub.until(lambda: hub.peers)
        for lease in (1, 2, 3, 4):
            hub.lease(lease)
        await hub.until(lambda: len(hub.all(Failed)) == 2)
        gate.set()
        await hub.until(lambda: len(hub.all(Done)) == 2)
        await stop(hub, running)
    assert most == 2
    assert [(failed.lease, failed.kind) for failed in hub.all(Failed)] == [(3, "returned"), (4, "returned")]


async def test_an_unacknowledged_done_is_said_again_to_a_hub_that_came_back_on_the_same_port():
    first = Hub(mute=True)
    address = await first.start()
    running = asyncio.create_task(link_to(address).run())
    await first.until(lambda: first.peers)
    first.lease(7)
    await first.until(lambda: first.all(Done))
    await first.stop()
    second = Hub(keep={7})
    await second.start(address)
    await second.until(lambda: second.all(Done))
    assert second.all(Hello)[0].leases == [7]
    assert second.all(Done)[0] == first.all(Done)[0]
    await stop(second, running)
    await second.stop()


async def test_a_lease_that_the_hub_keeps_is_worked_on_across_a_reconnect_and_another_is_dropped():
    gate, dropped = asyncio.Event(), asyncio.Event()

    async def slow(job):
        try:
            await (gate.wait() if job.group_id == 2 else asyncio.sleep(60.0))
        except asyncio.CancelledError:
            dropped.set()
            raise
        return await answer(job)

    first = Hub()
    address = await first.start()
    running = asyncio.create_task(link_to(address, slow).run())
    await first.until(lambda: first.peers)
    first.lease(1)
    first.lease(2)
    await first.until(lambda: any(ping.state == "working" for ping in first.all(Ping)))
    await first.stop()
    second = Hub(keep={2})
    await second.start(address)
    await second.until(lambda: second.peers)
    gate.set()  # it ends now, perhaps before the Welcome has arrived
    await second.until(lambda: second.all(Done))
    async with asyncio.timeout(5.0):
        await dropped.wait()
    await stop(second, running)
    await second.stop()
    assert [done.lease for done in second.all(Done)] == [2]


async def test_revoke_cancels_the_task_and_nothing_is_said_for_the_lease():
    cancelled = asyncio.Event()

    async def endless(job):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with Hub() as hub:
        running = asyncio.create_task(link_to(hub.address, endless, credit=1).run())
        await hub.until(lambda: hub.peers)
        hub.lease(1)
        await hub.until(lambda: any(ping.state == "working" for ping in hub.all(Ping)))
        hub.say(Revoke(lease=1, reason="late"))
        await asyncio.wait_for(cancelled.wait(), 5)
        await stop(hub, running)
    assert hub.all(Done) + hub.all(Failed) == []


async def test_a_silent_hub_is_left_and_found_again_at_another_address():
    async with Hub() as deaf, Hub() as other:
        addresses, clock = [deaf.address], Clock()
        running = asyncio.create_task(link_to(lambda: addresses[-1], clock=clock).run())
        await deaf.until(lambda: deaf.peers)
        addresses.append(other.address)
        await deaf.freeze()
        await asyncio.sleep(4 * LIMITS.heartbeat_s)  # the last answers are heard, at a time that stands still
        clock.now += 0.5 * LIMITS.timeout_s
        await asyncio.sleep(4 * LIMITS.heartbeat_s)
        assert other.peers == []
        clock.now += LIMITS.timeout_s
        await other.until(lambda: other.peers)
        await stop(other, running)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", None])
async def test_without_a_hub_the_worker_ends_in_bounded_time_and_says_where_it_looked(address, monkeypatch):
    clock = Clock(step=1.0)
    monkeypatch.setattr("rlsp_async.wire.link.backoff_s", lambda *_: 0.01)  # the clock moves, so no wait need be long
    with pytest.raises(MachineError, match=address or r"hub\.json"):
        await link_to(lambda: address, give_up_s=40.0, clock=clock).run()
    assert 40.0 <= clock.now - clock.start < 60.0


async def test_a_refused_worker_ends_with_the_hubs_sentence():
    async with Hub() as hub:
        running = asyncio.create_task(link_to(hub.address).run())
        await hub.until(lambda: hub.peers)
        hub.say(Refuse(reason="this is run a, not run b"))
        with pytest.raises(UserError, match="this is run a, not run b"):
            await asyncio.wait_for(running, 5)


class RefusingHub(Hub):
    """Refuses every Hello as long as it is told to."""

    refusal = Refuse(reason="sampler-0 is at work \x1b[2J", fenced=True, retry_s=0.4)
    refuses = True

    def _hear(self, peer, message):
        if isinstance(message, Hello) and self.refuses:
            self.heard.append(message)
            self.router.send(peer, self.refusal)
        else:
            super()._hear(peer, message)


async def test_a_start_by_hand_asks_again_while_another_one_is_at_work_then_ends_with_one_line():
    async with RefusingHub() as hub:
        with pytest.raises(FencedError, match=r"the replay hub refuses sampler-0: sampler-0 is at work  \[2J"):
            await asyncio.wait_for(link_to(hub.address, yields=True).run(), 5)
        assert len(hub.all(Hello)) > 2
        assert all(hello.yields for hello in hub.all(Hello))


async def test_a_start_by_hand_comes_in_when_the_other_one_has_left():
    async with RefusingHub() as hub:
        running = asyncio.create_task(link_to(hub.address, yields=True).run())
        await hub.until(lambda: hub.all(Hello))
        hub.refuses = False
        await hub.until(lambda: hub.peers)
        hub.say(Drain(reason="over"))
        assert await asyncio.wait_for(running, 5) == "over"


async def test_on_welcome_is_called_once_before_any_work_and_its_error_ends_the_worker():
    said = []

    def refuse():
        said.append(1)
        raise FencedError("another learner is at work")

    async with Hub() as hub:
        running = asyncio.create_task(link_to(hub.address, on_welcome=refuse).run())
        with pytest.raises(FencedError, match="another learner is at work"):
            await asyncio.wait_for(running, 5)
    assert said == [1]


async def test_a_refused_result_is_forgotten_and_not_sent_again():
    async with Hub(mute=True) as hub:
        running = asyncio.create_task(link_to(hub.address).run())
        await hub.until(lambda: hub.peers)
        hub.lease(1)
        await hub.until(lambda: hub.all(Done))
        hub.say(Revoke(lease=1, reason="no", refused=True))
        await hub.until(lambda: hub.all(Ping) and hub.all(Ping)[-1].leases == [])
        hub.say(Drain(reason="over"))
        assert await asyncio.wait_for(running, 5) == "over"


@pytest.mark.parametrize(
    ("error", "kind"), [(EngineError("gpu gone"), "infrastructure"), (DataError("too long"), "data")]
)
async def test_errors_of_engine_and_data_are_failures_of_the_lease_only(error, kind):
    async def broken(job):
        raise error

    async with Hub() as hub:
        running = asyncio.create_task(link_to(hub.address, broken).run())
        await hub.until(lambda: hub.peers)
        hub.lease(1)
        await hub.until(lambda: hub.all(Failed))
        await stop(hub, running)
    assert [(failed.lease, failed.kind) for failed in hub.all(Failed)] == [(1, kind)]
    assert str(error) in hub.all(Failed)[0].error


@pytest.mark.parametrize("error", [DivergedError("loss is NaN"), ZeroDivisionError("bug")])
async def test_any_other_error_ends_the_worker_after_it_has_told_the_hub(error):
    async def broken(job):
        raise error

    async with Hub() as hub:
        running = asyncio.create_task(link_to(hub.address, broken).run())
        await hub.until(lambda: hub.peers)
        hub.lease(1)
        with pytest.raises(type(error), match=str(error)):
            await asyncio.wait_for(running, 5)
        await hub.until(lambda: hub.all(Bye))
    assert [failed.lease for failed in hub.all(Failed)] == [1]


async def test_a_result_above_the_size_limit_fails_at_the_sender_with_the_setting_to_raise():
    async def huge(job):
        group = await answer(job)
        group.rollouts.append(Rollout(index=0, token_ids=bytes(400_000), logprobs=b"", versions=b"", text=""))
        return group

    async with Hub() as hub:
        running = asyncio.create_task(link_to(hub.address, huge).run())
        await hub.until(lambda: hub.peers)
        hub.lease(1)
        await hub.until(lambda: hub.all(Failed))
        assert await stop(hub, running) == "enough"
    assert "Done message of 0.40 MB is above replay.max_message_mb = 0.2" in hub.all(Failed)[0].error
    assert len(hub.all(Hello)) == 1


async def test_an_answer_that_the_hub_would_drop_unheard_is_a_failure_of_its_lease(monkeypatch):
    """The gate answers nothing to a column above max_tokens; the lease would be held for ever."""

    async def endless(job):
        column = b"\0\0\0\0" * 9
        rollout = Rollout(index=0, token_ids=column, logprobs=column, versions=column, text="")
        return msgspec.structs.replace(await answer(job), rollouts=[rollout])

    monkeypatch.setattr("tests.wire.hub.LIMITS", msgspec.structs.replace(LIMITS, max_tokens=8))
    async with Hub() as hub:
        running = asyncio.create_task(link_to(hub.address, endless).run())
        await hub.until(lambda: hub.peers)
        hub.lease(7)
        await hub.until(lambda: hub.all(Failed))
        assert await stop(hub, running) == "enough"
    [failed] = hub.all(Failed)
    assert (failed.lease, failed.kind) == (7, "data")
    assert "of length <= 32 - at `$.groups[0].rollouts[0].token_ids`" in failed.error
    assert hub.router.counts.too_long == 0


async def test_a_blocking_handler_in_its_thread_does_not_stop_the_heartbeats():
    gate, names = threading.Event(), []

    def freeze(job):
        names.append(threading.current_thread().name)
        gate.wait(5)
        return asyncio.run(answer(job))

    async with Hub() as hub:
        running = asyncio.create_task(link_to(hub.address, in_thread(freeze, name="learner"), credit=1).run())
        await hub.until(lambda: hub.peers)
        hub.lease(1)
        await hub.until(lambda: sum(ping.state == "working" for ping in hub.all(Ping)) >= 12)  # 600 ms > timeout
        gate.set()
        await hub.until(lambda: hub.all(Done))
        await stop(hub, running)
    assert names == ["learner_0"]
    assert len(hub.all(Hello)) == 1
    assert max(ping.busy_s / ping.window_s for ping in hub.all(Ping) if ping.window_s) > 0.9


async def test_of_versions_that_wait_only_the_newest_is_loaded_and_a_refusal_is_reported():
    loads, gate = [], asyncio.Event()

    async def load(ref):
        loads.append(ref.version)
        await gate.wait()
        if ref.version == 5:
            raise WeightsError("digest differs")
        return 0.25

    async with Hub() as hub:
        running = asyncio.create_task(link_to(hub.address, on_weights=load).run())
        await hub.until(lambda: hub.peers)
        hub.say(NewWeights(weights=ref(1)))
        await hub.until(lambda: any(ping.state == "loading" for ping in hub.all(Ping)))
        for version in (2, 3):
            hub.say(NewWeights(weights=ref(version)))
        hub.lease(9)  # answered after the versions have arrived: one connection keeps its order
        await hub.until(lambda: hub.all(Done))
        gate.set()
        await hub.until(lambda: len(hub.all(Loaded)) == 2)
        hub.say(NewWeights(weights=ref(3)))
        await hub.until(lambda: len(hub.all(Loaded)) == 3)
        hub.say(NewWeights(weights=ref(5)))
        await hub.until(lambda: hub.all(Rejected))
        await stop(hub, running)
    assert loads == [1, 3, 5]
    assert [(loaded.version, loaded.probe_error) for loaded in hub.all(Loaded)] == [(1, 0.25), (3, 0.25), (3, 0.25)]
    assert hub.all(Rejected)[0].reason == "digest differs"


async def test_a_drain_that_takes_too_long_gives_its_leases_back():
    async def endless(job):
        await asyncio.sleep(60)

    async with Hub() as hub:
        link = link_to(hub.address, endless, drain_s=0.2)
        running = asyncio.create_task(link.run())
        await hub.until(lambda: hub.peers)
        hub.lease(1)
        await hub.until(lambda: any(ping.state == "working" for ping in hub.all(Ping)))
        link.drain("SIGTERM")
        hub.lease(2)
        assert await asyncio.wait_for(running, 3) == "SIGTERM"
        await hub.until(lambda: hub.all(Bye))
    assert [failed.lease for failed in hub.all(Failed)] == [2, 1]
    assert any(ping.state == "draining" for ping in hub.all(Ping))


async def test_results_that_are_acknowledged_are_told_to_the_hook():
    acknowledged: list[tuple[int, int]] = []
    async with Hub() as hub:
        hook = lambda lease, group: acknowledged.append((lease, group))  # noqa: E731
        running = asyncio.create_task(link_to(hub.address, on_acknowledged=hook).run())
        await hub.until(lambda: hub.peers)
        hub.lease(7)
        await hub.until(lambda: hub.all(Done))
        hub.say(Ack(lease=99))  # of a lease that it never had
        await stop(hub, running)
    assert acknowledged == [(7, 7)]


async def test_a_leaving_worker_waits_until_the_hub_has_read_its_last_words(monkeypatch):
    monkeypatch.setattr("rlsp_async.wire.link.LEAVE_S", 60.0)
    async with Hub() as hub:
        link = link_to(hub.address)
        running = asyncio.create_task(link.run())
        await hub.until(lambda: hub.all(Ping))
        await hub.freeze()
        link.drain("SIGTERM")
        await asyncio.sleep(0.2)
        assert not running.done()
        hub.resume()
        assert await asyncio.wait_for(running, 5) == "SIGTERM", "long before LEAVE_S"
        assert hub.all(Bye)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", None])
async def test_a_drain_without_a_hub_and_without_leases_takes_no_time(address):
    link = link_to(lambda: address, drain_s=30, give_up_s=60)
    running = asyncio.create_task(link.run())
    await asyncio.sleep(0.1)
    link.drain("SIGTERM")
    assert await asyncio.wait_for(running, 2) == "SIGTERM"


async def test_metrics_and_the_learners_step_are_asked_for_anew():
    steps = iter([3, 4])
    async with Hub() as hub:
        link = link_to(hub.address, metrics=lambda: {"tokens": 5.0}, step=lambda: next(steps))
        running = asyncio.create_task(link.run())
        await hub.until(lambda: hub.all(Ping))
        assert hub.all(Hello)[0].step == 3
        assert hub.all(Ping)[0].metrics == {"tokens": 5.0}
        hub.say(Ack(lease=99))  # of a lease it never had: nothing happens
        await stop(hub, running)


async def test_an_address_that_is_none_ends_the_worker_with_one_clear_sentence():
    with pytest.raises(MachineError, match=r"the hub's address 'tcp://nowhere' cannot be used"):
        await link_to("tcp://nowhere").run()


async def test_a_done_without_an_ack_is_said_again_and_a_revoke_does_not_hush_it():
    async with Hub(mute=True) as hub:
        running = asyncio.create_task(link_to(hub.address).run())
        await hub.until(lambda: hub.peers)
        hub.lease(3)
        await hub.until(lambda: hub.all(Done))
        hub.say(Revoke(lease=3, reason="it is over"))
        await hub.until(lambda: len(hub.all(Done)) >= 3)
        hub.say(Ack(lease=3))
        await hub.until(lambda: hub.all(Ping)[-1].leases == [] and hub.all(Ping)[-1].seq > 3)
        said = len(hub.all(Done))
        hub.lease(3)  # it comes once more, late
        await asyncio.sleep(0.3)
        assert len(hub.all(Done)) == said
        await stop(hub, running)


async def test_pings_name_every_lease_and_the_version_served_and_count_up():
    async def load(ref):
        return 0.0

    async with Hub(mute=True) as hub:
        running = asyncio.create_task(link_to(hub.address, on_weights=load).run())
        await hub.until(lambda: hub.peers)
        hub.lease(5)
        hub.say(NewWeights(weights=msgspec.structs.replace(ref(4), incarnation=9)))
        await hub.until(lambda: [(p.leases, p.version, p.made_by) for p in hub.all(Ping)[-1:]] == [([5], 4, 9)])
        hub.say(Ack(lease=5))
        assert hub.all(Hello)[0].seq == 1
        numbers = [ping.seq for ping in hub.all(Ping)]
        assert numbers == list(range(1, len(numbers) + 1))
        await stop(hub, running)


async def test_older_weights_that_come_late_are_passed_over_unless_a_later_hub_sends_them():
    loads: list[tuple[int, int]] = []
    answers: list[Loaded | Rejected] = []

    async def load(ref):
        loads.append((ref.version, ref.incarnation))
        return 0.0

    loader = WeightLoader(load, answers.append)
    running = asyncio.create_task(loader.run())
    for version, incarnation, hub in ((5, 2, 1), (4, 2, 1), (5, 1, 0), (5, 3, 1), (3, 3, 2)):
        loader.offer(msgspec.structs.replace(ref(version), incarnation=incarnation), hub)
        await asyncio.sleep(0.01)
    running.cancel()
    assert loads == [(5, 2), (5, 3), (3, 3)]
    assert (loader.version, loader.made_by) == (3, 3)


async def test_a_worker_without_a_welcome_says_hello_again():
    async with Hub() as hub:
        hub.welcomes = False
        running = asyncio.create_task(link_to(hub.address).run())
        await hub.until(lambda: len(hub.all(Hello)) >= 3)
        hub.welcomes = True
        await hub.until(lambda: hub.all(Hello)[-1].seq >= 4)
        assert [hello.seq for hello in hub.all(Hello)] == list(range(1, len(hub.all(Hello)) + 1))
        await stop(hub, running)


async def test_a_step_that_cannot_follow_is_given_back_and_the_worker_goes_on():
    async def train(job):
        if job.group_id == 2:
            raise MessageError("step 2 cannot follow step 0 of these weights")
        return await answer(job)

    async with Hub() as hub:
        running = asyncio.create_task(link_to(hub.address, train).run())
        await hub.until(lambda: hub.peers)
        hub.lease(2)
        await hub.until(lambda: hub.all(Failed))
        hub.lease(1)
        await hub.until(lambda: hub.all(Done))
        await stop(hub, running)
    assert [(failed.lease, failed.kind) for failed in hub.all(Failed)] == [(2, "returned")]


def test_back_off_doubles_from_one_to_thirty_two_heartbeats_and_jitter_spreads_it_by_a_quarter():
    assert [backoff_s(n, 0.5, jitter=0.5) for n in range(8)] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 16.0, 16.0]
    assert backoff_s(5, 1.0, jitter=0.0) == 24.0
    assert backoff_s(5000, 1.0, jitter=1.0) == 40.0


async def test_a_version_that_does_not_arrive_changes_nothing_and_is_refused_the_third_time():
    answers, come, tried = [], False, asyncio.Event()

    async def load(ref):
        tried.set()
        if ref.version == 2 and not come:
            raise WeightsDelayed("the learner is silent")
        return 0.25

    loader = WeightLoader(load, answers.append)
    running = asyncio.create_task(loader.run())

    async def offer(version):
        tried.clear()
        loader.offer(ref(version))
        await asyncio.wait_for(tried.wait(), 5)
        await asyncio.sleep(0)

    await offer(1)
    for num in (1, 2):
        await offer(2)
        assert (loader.version, loader.loading, len(answers)) == (1, False, 1), num
    await offer(2)
    assert loader.version == -1
    assert answers[1] == Rejected(version=2, reason="it did not arrive 3 times: the learner is silent")
    come = True
    await offer(2)
    assert (loader.version, answers[2].version, answers[2].probe_error) == (2, 2, 0.25)
    running.cancel()


async def test_messages_for_another_worker_go_through_the_link_only_while_the_hub_knows_it():
    heard = []
    relayed = RelayedMessages(heard.append)
    pull = Pull(ticket="w/1", version=1, made_by=1)
    relayed.send(pull)  # nobody is there yet
    async with Hub() as hub:
        running = asyncio.create_task(link_to(hub.address, relayed=relayed).run())
        await hub.until(lambda: hub.all(Ping))
        hub.say(Abandon(ticket="w/1", reason="no learner"))
        relayed.send(pull)
        await hub.until(lambda: hub.all(Pull))
        await stop(hub, running)
    relayed.send(pull)
    assert hub.all(Pull) == [pull]
    assert heard == [Abandon(ticket="w/1", reason="no learner")]
