"""Which messages the hub gets to see, without a socket."""

import itertools
from typing import get_args

import pytest

from rlsp_async.messages import (
    Abandon,
    Bye,
    Done,
    Failed,
    FromWorker,
    Hello,
    Invite,
    Loaded,
    Ping,
    Pong,
    Pull,
    Refuse,
    Rejected,
    Role,
    StepReport,
    VerdictSet,
)
from rlsp_async.wire.contract import GROUP
from rlsp_async.wire.gate import MAY_SAY, Gate, may_say
from rlsp_async.wire.keyring import AllowedKey

GROUPS = Done(lease=1, groups=[GROUP])
VERDICTS = Done(lease=1, verdicts=[VerdictSet(group_id=1, verdicts=[])])
STEPS = Done(lease=1, steps=[StepReport(step=1)])
LOADED, REJECTED = Loaded(version=1, seconds=1.0, probe_error=0.0), Rejected(version=1, reason="x")
FAILED = Failed(lease=1, kind="data", error="x")
PULL, INVITE, ABANDON = (
    Pull(ticket="w/1", version=1, made_by=1),
    Invite(ticket="w/1", worker="w", kind="gloo"),
    Abandon(ticket="w/1"),
)


def hello(role: Role = "sampler", worker: str = "w", credit: int = 1) -> Hello:
    return Hello(run="r", role=role, worker=worker, credit=credit)


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("sampler", [GROUPS, FAILED, LOADED, REJECTED, PULL, ABANDON, Ping(), Bye()]),
        ("verifier", [VERDICTS, FAILED, Ping(), Bye()]),
        ("learner", [STEPS, FAILED, INVITE, ABANDON, Ping(), Bye()]),
        ("observer", [Ping(), Bye()]),
    ],
)
def test_each_role_says_its_own_messages_and_no_other_with_keys_and_without(role, may):
    for find in (None, {"key": AllowedKey(name=role, role=role)}.get):
        for message in (GROUPS, VERDICTS, STEPS, FAILED, LOADED, REJECTED, PULL, INVITE, ABANDON, Ping(), Bye()):
            gate = Gate(find)
            assert gate.screen(b"p", "key", 0.0) and gate.admit(b"p", "key", hello(role)) == (True, None)
            heard, _ = gate.admit(b"p", "key", message)
            assert heard is (message in may), (role, message)
            assert gate.counts.wrong_role == (message not in may)


def test_a_done_that_holds_two_kinds_of_results_is_of_no_role():
    for one, other in itertools.permutations(
        ({"groups": [GROUP]}, {"verdicts": VERDICTS.verdicts}, {"steps": STEPS.steps}), 2
    ):
        both = Done(lease=1, **one, **other)
        assert not any(may_say(role, both) for role in get_args(Role))


def test_every_kind_of_message_has_somebody_who_may_say_it():
    assert frozenset().union(*MAY_SAY.values()) == set(get_args(FromWorker))
    assert set(MAY_SAY) == set(get_args(Role))


def test_a_connection_speaks_for_one_worker_as_long_as_it_lives():
    gate = Gate()
    assert gate.admit(b"p", "", hello()) == (True, None)
    assert gate.admit(b"p", "", hello()) == (True, None)
    for other in (hello("learner"), hello(worker="v")):
        heard, reply = gate.admit(b"p", "", other)
        assert not heard and reply == Refuse(reason="this connection said hello as sampler 'w' before")
    assert gate.admit(b"p", "", STEPS) == (False, None)
    assert gate.admit(b"p", "", Bye()) == (True, Pong(known=False))
    assert gate.admit(b"p", "", hello("learner")) == (True, None)
    assert gate.counts.wrong_role == 3


def test_strangers_are_told_so_and_counted():
    gate = Gate()
    assert gate.admit(b"p", "", Ping()) == (False, Pong(known=False))
    assert gate.admit(b"p", "", GROUPS) == (False, None)
    assert gate.counts.strangers == 2


def test_too_many_connections_push_out_the_oldest():
    gate = Gate(max_peers=3)
    for name in (b"a", b"b", b"c", b"a", b"d"):
        gate.admit(name, "", hello())
    assert [gate.admit(name, "", Ping())[0] for name in (b"a", b"b", b"c", b"d")] == [True, False, True, True]


def flood(gate: Gate, peer: bytes, num: int, start_s: float, seconds: float) -> int:
    """Sends evenly; how many pass."""
    return sum(gate.screen(peer, "", start_s + seconds * i / num) for i in range(num))


def test_a_flood_is_cut_to_the_pace_of_its_credit_and_the_neighbour_is_unharmed():
    gate = Gate()
    assert flood(gate, b"p", 10_000, 0.0, 0.0) == 10_000, "five seconds' worth at once is no flood"
    assert 19_990 <= flood(gate, b"p", 100_000, 0.0, 10.0) <= 20_001
    assert gate.counts.flooded >= 79_999
    gate.admit(b"p", "", hello(credit=10))
    assert 29_980 <= flood(gate, b"p", 100_000, 10.0, 10.0) <= 30_001
    assert flood(gate, b"neighbour", 5000, 20.0, 1.0) == 5000
    assert flood(gate, b"p", 1500, 30.0, 1.0) == 1500, "and it is heard again when it calms down"


def test_no_credit_buys_an_endless_pace():
    gate = Gate()
    gate.screen(b"p", "", 0.0)
    gate.admit(b"p", "", hello(credit=2**62))
    assert flood(gate, b"p", 100_000, 0.0, 0.0) < 12_000
    assert 10_000 <= flood(gate, b"p", 20_000, 0.01, 0.0) <= 10_050, "a hundredth of a second of the largest pace"
    gate.admit(b"p", "", hello(credit=-5))
    assert flood(gate, b"p", 100_000, 1.0, 0.0) <= 2000


def test_keys_are_asked_again_with_every_message():
    listed = {
        "a": AllowedKey(name="sampler", role="sampler"),
        "b": AllowedKey(name="v-1", role="verifier", worker=True),
    }
    gate = Gate(listed.get)
    assert gate.screen(b"p", "a", 0.0) and not gate.screen(b"q", "unlisted", 0.0)
    assert not gate.screen(b"p", "b", 0.0), "the routing id is the other key's"
    assert gate.screen(b"q", "b", 0.0), "a refused frame binds nothing"
    assert gate.may_hear(b"p") and gate.may_hear(b"q") and not gate.may_hear(b"never seen")
    del listed["a"]
    assert not gate.screen(b"p", "a", 0.0) and not gate.may_hear(b"p")
    assert gate.counts.refused_keys == 3


@pytest.mark.parametrize(
    ("key", "said", "reason"),
    [
        ("a", hello("learner"), "its key 'sampler' is for the role sampler, not learner"),
        ("b", hello("verifier", "v-2"), "its key is for the worker 'v-1', not 'v-2'"),
    ],
)
def test_a_hello_that_its_key_does_not_cover_is_refused(key, said, reason):
    listed = {
        "a": AllowedKey(name="sampler", role="sampler"),
        "b": AllowedKey(name="v-1", role="verifier", worker=True),
    }
    gate = Gate(listed.get)
    assert gate.admit(b"p", key, said) == (False, Refuse(reason=reason))
    assert gate.admit(b"p", key, Ping()) == (False, Pong(known=False))
