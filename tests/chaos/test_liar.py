"""The lying peer: none of its answers may be taken, and what it changes is no message or another one."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from rlsp_async.chaos import liar
from rlsp_async.chaos.faults import LIES
from rlsp_async.chaos.liar import Liar, answers_without_a_lease, changed, false_groups, false_verdicts
from rlsp_async.messages import Ack, Hello, SampleJob, VerifyJob, Work
from rlsp_async.replay.hub import Hub
from rlsp_async.replay.records import JournalContent
from rlsp_async.wire.codec import encode
from tests.replay.line import Bench, SmallTask, config, hello


def bench_with_a_vocabulary() -> Bench:
    bench = Bench(Hub(config(), SmallTask(), JournalContent(incarnation=1), vocabulary=100))
    for peer, role in ((b"v", "verifier"), (b"l", "learner")):
        bench.say(peer, hello(role, seq=1))
    return bench


def test_no_false_group_is_acknowledged():
    job = next(one.job for one in works(bench_with_a_vocabulary(), "sampler"))
    assert isinstance(job, SampleJob)
    for place in range(len(list(false_groups(1, job, 0)))):
        bench = bench_with_a_vocabulary()
        work = works(bench, "sampler")[0]
        lie = list(false_groups(work.lease, work.job, 0))[place]
        sent = bench.say(b"x", lie)
        assert not [message for message in sent if isinstance(message, Ack)], (place, lie)
        assert bench.hub.state.ledger.records[work.job.group_id].state in ("issued", "dropped")


def works(bench: Bench, role: str) -> list[Work]:
    bench.say(b"x", hello(role, f"{role}-liar", seq=1, start=9))
    return list(bench.got(b"x", Work))


def test_no_false_verdict_is_acknowledged():
    num = 7
    for place in range(num + 1):
        bench = Bench(Hub(config(), SmallTask(), JournalContent(incarnation=1)))
        bench.say(b"s", hello("sampler", seq=1))
        bench.until(lambda bench=bench: bench.hub.state.queues.verify.queue, b"s")
        work = works(bench, "verifier")[0]
        assert isinstance(work.job, VerifyJob)
        lies = list(false_verdicts(work.lease, work.job))
        assert len(lies) == num + 2
        sent = bench.say(b"x", lies[place])
        assert not [message for message in sent if isinstance(message, Ack)], place
        assert bench.hub.state.ledger.records[work.job.group_id].state in ("sampled", "dropped")


@pytest.mark.parametrize("role", ["sampler", "verifier"])
def test_no_answer_without_a_lease_is_acknowledged(role: str):
    bench = bench_with_a_vocabulary()
    bench.say(b"s", hello("sampler", seq=1))
    bench.say(b"x", hello(role, f"{role}-liar", credit=1, seq=1, start=9))
    held = {work.lease for work in bench.got(b"x", Work)}
    foreign = [work.lease for work in bench.got(b"s", Work)]
    for lease in [*foreign, (1 << 32) + 999, 2**62, 0]:
        for answer in answers_without_a_lease(lease, 1):
            assert lease in held or not [m for m in bench.say(b"x", answer) if isinstance(m, Ack)]
    assert bench.hub.state.ledger.records[1].state == "issued"


def test_every_change_changes_a_frame_and_is_decided_by_the_seed():
    frame = encode(hello("sampler", seq=1))
    found = [changed(frame, Random(seed)) for seed in range(200)]
    assert found == [changed(frame, Random(seed)) for seed in range(200)]
    assert frame not in found and len(set(found)) > 100
    assert changed(b"", Random(3)) is not None


async def test_it_lies_in_every_way_for_as_long_as_it_is_told_and_is_then_gone():
    import zmq.asyncio

    context = zmq.asyncio.Context()
    router = context.socket(zmq.ROUTER)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    try:
        for what in LIES:
            one = Liar("r", f"tcp://127.0.0.1:{port}", "seed", [encode(hello("sampler", seq=1))])
            await one.lie(what, 0.5)
            assert one.num_sent > 0, what
            [_, frame] = await router.recv_multipart()
            assert isinstance(msgspec.msgpack.decode(frame, type=Hello), Hello)
    finally:
        router.close(linger=0)
        context.destroy(linger=0)
    assert liar.UNGIVEN > 2**40
