"""The nouns: laws that every message obeys, and what a verdict may do."""

import msgspec
import pytest

from rlsp_async.messages import Abandon, FromHub, FromWorker, Invite, Noun, Pull, Verdict


def every_noun() -> list[type[msgspec.Struct]]:
    return sorted((kind for kind in Noun.__subclasses__()), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", every_noun(), ids=lambda kind: kind.__name__)
def test_a_noun_is_frozen_built_by_name_a_map_and_documented(kind):
    config = kind.__struct_config__
    assert config.frozen
    assert not config.array_like
    assert not config.forbid_unknown_fields
    assert kind.__doc__
    shared = [field.name for field in msgspec.structs.fields(kind) if isinstance(field.default, (list, dict))]
    assert shared == []


def test_every_message_has_its_own_tag_and_direction():
    tags = [kind.__struct_config__.tag for kind in (*FromWorker.__args__, *FromHub.__args__)]
    assert tags == [
        "hello",
        "ping",
        "done",
        "failed",
        "loaded",
        "rejected",
        "bye",
        "pull",
        "invite",
        "abandon",
        "welcome",
        "pong",
        "work",
        "ack",
        "revoke",
        "weights",
        "drain",
        "refuse",
        "status",
        "pull",
        "invite",
        "abandon",
    ]
    both = {Pull, Invite, Abandon}  # of one worker for another one
    assert set(FromWorker.__args__) & set(FromHub.__args__) == both


@pytest.mark.parametrize(
    ("status", "is_true"),
    [("correct", True), ("wrong", True), ("unparsable", True), ("timeout", False), ("error", False)],
)
def test_only_what_judges_the_answer_may_train(status, is_true):
    assert Verdict(status=status).is_true is is_true
