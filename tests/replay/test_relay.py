"""Requests for weights between a sampler and the learner, as the hub relays them."""

from __future__ import annotations

from typing import Any

import msgspec

from rlsp_async.messages import Abandon, Bye, Invite, NewWeights, Ping, Pull
from rlsp_async.replay.records import Event
from rlsp_async.replay.workers import RELAYS_PER_S
from tests.replay.line import Bench, config, hello, new_hub

PULL = Pull(ticket="sampler-0/1", version=1, made_by=1, worker="learner-0", kinds=["gloo"])
INVITE = Invite(ticket="sampler-0/1", worker="sampler-0", kind="gloo")


def published(*peers: bytes) -> Bench:
    """A line whose learner has published version 1, of incarnation 1."""
    bench = Bench(new_hub(config()))
    for peer, role in ((b"s", "sampler"), (b"v", "verifier"), (b"l", "learner")):
        bench.say(peer, hello(role, seq=1))
    bench.until(lambda: bench.hub.state.training.weights is not None, b"s", b"v", b"l")
    weights = bench.hub.state.training.weights
    assert weights is not None and (weights.version, weights.incarnation) == (1, 1)
    return bench


def to(bench: Bench, peer: bytes, message: Any) -> list[tuple[bytes, Any]]:
    """Whom the hub tells what of a message."""
    effects = bench.hub.on(peer, message, bench.now)
    assert not effects.records, "nothing of a transfer is written to the journal"
    return [sent for sent in effects.sends if isinstance(sent[1], Pull | Invite | Abandon | NewWeights)]


def test_a_pull_is_stamped_and_goes_to_the_learner_and_the_invitation_back():
    bench = published()
    assert to(bench, b"s", PULL) == [(b"l", msgspec.structs.replace(PULL, worker="sampler-0"))]
    assert to(bench, b"l", INVITE) == [(b"s", INVITE)]
    forged = Abandon(ticket="sampler-0/1", worker="sampler-9", reason="deadline")
    assert to(bench, b"s", forged) == [(b"l", msgspec.structs.replace(forged, worker="sampler-0"))]
    void = Abandon(ticket="sampler-0/1", worker="sampler-0", reason="superseded")
    assert to(bench, b"l", void) == [(b"s", void)]


def test_a_pull_of_a_version_that_is_not_the_newest_is_answered_by_the_newest():
    bench = published()
    for version, made_by in ((0, 1), (1, 2), (7, 1)):
        pull = msgspec.structs.replace(PULL, version=version, made_by=made_by)
        void, offer = to(bench, b"s", pull)
        reason = "version 1 is the newest"
        assert void == (b"s", Abandon(ticket="sampler-0/1", worker="sampler-0", reason=reason))
        assert offer[0] == b"s" and offer[1].weights.version == 1


def test_without_weights_a_learner_or_a_sampler_the_one_who_asks_hears_why():
    bench = Bench(new_hub(config()))
    bench.say(b"s", hello("sampler", seq=1))
    assert [m.reason for _, m in to(bench, b"s", PULL)] == ["no version was published"]
    bench = published()
    bench.hub.on(b"l", Bye(), bench.now)
    assert [m.reason for _, m in to(bench, b"s", PULL)] == ["no learner is connected"]
    bench = published()
    stranger = msgspec.structs.replace(INVITE, worker="sampler-9")
    reason = "sampler-9 is not connected"
    assert to(bench, b"l", stranger) == [(b"l", Abandon(ticket="sampler-0/1", worker="sampler-9", reason=reason))]
    assert to(bench, b"l", msgspec.structs.replace(INVITE, worker="verifier-0"))[0][0] == b"l"


def test_the_learner_hears_that_a_sampler_with_a_channel_is_gone():
    bench = published()
    to(bench, b"s", PULL)
    sends = bench.hub.on(b"s", Bye(), bench.now).sends
    gone = Abandon(ticket="", worker="sampler-0", reason="sampler-0 is gone")
    assert (b"l", gone) in sends
    bench = published()
    assert not [m for _, m in bench.hub.on(b"s", Bye(), bench.now).sends if isinstance(m, Abandon)]


def test_a_sampler_that_asks_without_end_does_not_fill_the_queue_of_the_learner():
    bench = published()
    sent = [to(bench, b"s", PULL) for _ in range(RELAYS_PER_S + 3)]
    assert [len(messages) for messages in sent] == [1] * 8 + [0] * 3
    assert bench.hub.state.refusals["relayed"] == 3
    bench.hub.on(b"s", Ping(state="working", seq=100), bench.now + 1.0)
    assert len([m for _, m in bench.hub.on(b"s", PULL, bench.now + 1.0).sends if isinstance(m, Pull)]) == 1
    assert not [record for record in bench.records if isinstance(record, Event) and record.kind == "refused"]
