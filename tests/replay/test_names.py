"""Names are per role, starts are numbered without a clock, and a newcomer by hand never ends what is at work."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rlsp_async.messages import Bye, Ping, Pong, Refuse, Rejected, Status, Welcome, Work
from tests.replay.line import Bench, config, hello, new_hub


def crewed() -> Bench:
    bench = Bench(new_hub(config()))
    for peer, role in ((b"s", "sampler"), (b"v", "verifier"), (b"l", "learner")):
        bench.say(peer, hello(role, seq=1, start=100))
    return bench


def welcomed(sent: list[Any]) -> bool:
    return any(isinstance(message, Welcome) for message in sent)


def by_hand(role: Any, worker: str = "", pid: str = "7", **fields: Any) -> Any:
    said = hello(role, worker, seq=1, start=fields.pop("start", 500), **fields)
    return msgspec.structs.replace(said, yields=True, info={"host": "h", "pid": pid})


@pytest.mark.parametrize("name", ["learner-0", "sampler-0", "verifier-0"])
@pytest.mark.parametrize("when", ["before", "while it works", "after a crash"])
def test_an_observer_neither_replaces_nor_blocks_a_worker(name: str, when: str):
    role = name.partition("-")[0]
    bench = Bench(new_hub(config()))
    if when != "before":
        bench.say(b"w", hello(role, name, start=100, seq=1))
    if when == "after a crash":
        bench.tick(10.5)
        bench.tick(21.0)
        assert name not in bench.hub.state.table.workers
    bench.say(b"o", hello("observer", name, credit=0, start=2**62, seq=1))
    bench.say(b"o", Bye())
    if when == "while it works":
        assert bench.hub.state.table.workers[name].role == role
        assert not bench.got(b"w", Refuse)
    assert welcomed(bench.say(b"w2", hello(role, name, start=101, seq=1)))
    assert bench.hub.state.table.workers[name].incarnation == 101


def test_an_observer_with_a_name_of_its_own_sees_the_status_and_two_roles_may_share_a_name():
    bench = crewed()
    assert any(isinstance(m, Status) for m in bench.say(b"o", hello("observer", "box", credit=0)))
    for peer, role in ((b"1", "sampler"), (b"2", "verifier")):
        assert welcomed(bench.say(peer, hello(role, "box", seq=1)))
    assert welcomed(bench.say(b"3", hello("sampler", "box", start=2, seq=1)))
    assert [m for m in bench.got(b"1", Refuse) if m.fenced]
    assert not bench.got(b"2", Refuse)
    bench.run(b"s", b"v", b"l", b"2", b"3")
    assert bench.hub.state.step == 3


@pytest.mark.parametrize(
    "name", ["", "a b", "x[/y]", "\x1b[2J", "../../etc", ".hidden", "a\nb", "n" * 129, "caf\u00e9"]
)
def test_a_name_that_is_none_is_refused_in_one_printable_line(name: str):
    bench = crewed()
    [refusal] = bench.say(b"x", msgspec.structs.replace(hello("sampler"), worker=name))
    assert isinstance(refusal, Refuse) and refusal.reason.isprintable() and not refusal.fenced
    assert not [r for r in bench.records if getattr(r, "worker", "") == name != ""]


def test_a_verifier_cannot_take_the_name_of_a_sampler_that_is_away():
    bench = Bench(new_hub(config()))
    assert isinstance(bench.say(b"x", hello("verifier", "sampler-0", start=2**62))[0], Refuse)
    assert welcomed(bench.say(b"s", hello("sampler", start=1, seq=1)))


@pytest.mark.parametrize("role", ["sampler", "verifier", "learner"])
def test_a_number_that_nobody_has_given_out_is_refused_and_the_worker_goes_on(role: str):
    bench = crewed()
    bench.hub.numbered(100)
    for number in (101, 2**60, 2**63 - 1):
        [refusal] = bench.say(b"x", hello(role, seq=1, start=number))
        assert f"no start of this run has number {number}: the newest one has 100" in refusal.reason
        assert not refusal.fenced
    assert not bench.got(role[0].encode(), Refuse)
    bench.run(b"s", b"v", b"l")
    assert bench.hub.state.step == 3


def test_numbers_are_not_bounded_where_none_is_known_and_not_those_of_starts_by_hand():
    bench = Bench(new_hub(config()))
    assert welcomed(bench.say(b"s", hello("sampler", seq=1, start=2**60)))
    bench.hub.numbered(7)
    assert welcomed(bench.say(b"v", by_hand("verifier", start=2**40)))  # numbered on another machine
    assert welcomed(bench.say(b"l", hello("learner", seq=1, start=7)))


def test_a_version_that_was_never_offered_cannot_be_refused():
    """One lying sampler, for a moment the only one, does not end the run."""
    bench = crewed()
    bench.until(lambda: bench.hub.state.version == 2, b"s", b"v", b"l")
    bench.say(b"s", Bye())
    bench.say(b"x", by_hand("sampler", "sampler-9"))
    for version in (0, 1, 3, 2**31) * 10:
        bench.say(b"x", Rejected(version=version, reason="no"))
    assert bench.hub.state.ending.kind == ""


# --- by hand ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["sampler", "verifier", "learner"])
def test_a_second_start_by_hand_is_refused_and_the_one_at_work_goes_on(role: str):
    bench = crewed()
    peer = role[0].encode()
    [refusal] = bench.say(b"x", by_hand(role))
    assert isinstance(refusal, Refuse) and refusal.fenced and refusal.retry_s > 0
    assert not bench.got(peer, Refuse)
    bench.run(b"s", b"v", b"l")
    assert bench.hub.state.step == 3


def test_a_second_learner_of_another_name_by_hand_is_refused():
    bench = crewed()
    [refusal] = bench.say(b"x", by_hand("learner", "learner-9"))
    assert isinstance(refusal, Refuse) and "learner-0 is the learner" in refusal.reason
    assert not bench.got(b"l", Refuse)


def test_a_start_by_hand_works_where_nobody_is_keeps_its_leases_and_yields_to_a_numbered_start():
    bench = Bench(new_hub(config()))
    assert welcomed(bench.say(b"x", by_hand("sampler", start=900)))
    works = list(bench.got(b"x", Work))
    held = {work.lease: work.job.group_id for work in works}
    again = msgspec.structs.replace(by_hand("sampler", start=900), seq=2, leases=sorted(held), holding=held)
    [welcome, *_] = bench.say(b"x2", again)
    assert welcome.leases == sorted(held)
    other = by_hand("sampler", pid="8", start=900)
    assert isinstance(bench.say(b"y", other)[0], Refuse)  # another process, by chance of the same number
    assert welcomed(bench.say(b"s", hello("sampler", start=3, seq=1)))
    assert [m for m in bench.got(b"x2", Refuse) if m.fenced]
    bench.say(b"s", Bye())
    assert welcomed(bench.say(b"z", by_hand("sampler", pid="9", start=1)))  # a number from another machine


def test_the_runs_own_learner_takes_over_from_one_by_hand():
    bench = Bench(new_hub(config()))
    assert welcomed(bench.say(b"x", by_hand("learner", "learner-9", start=5)))
    assert welcomed(bench.say(b"l", hello("learner", start=6, seq=1)))
    assert [m for m in bench.got(b"x", Refuse) if m.fenced]
    assert bench.hub.state.table.learner().name == "learner-0"
    assert bench.say(b"x", Ping(seq=9))[0] != Pong()


def test_a_start_by_hand_that_was_refused_comes_in_when_the_other_one_has_left():
    bench = crewed()
    assert isinstance(bench.say(b"x", by_hand("sampler"))[0], Refuse)
    bench.say(b"s", Bye())
    assert welcomed(bench.say(b"x", by_hand("sampler")))
