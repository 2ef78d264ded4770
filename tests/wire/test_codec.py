"""Messages and bytes: what is read, skipped and refused."""

import contextlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlsp_async.errors import ConfigError, MessageError
from rlsp_async.messages import Ack, Hello, Ping
from rlsp_async.wire.codec import decode_from_hub, decode_from_worker, encode


def test_the_bytes_are_a_map_with_the_type_by_name():
    assert encode(Ack(lease=7)) == b"\x82\xa4type\xa3ack\xa5lease\x07"
    assert decode_from_hub(encode(Ack(lease=7))) == Ack(lease=7)


def test_unknown_keys_are_skipped_and_absent_ones_take_their_default():
    frame = msgpack.packb({"later": [1, 2], "type": "hello", "run": "r", "role": "sampler", "worker": "s", "credit": 3})
    assert decode_from_worker(frame) == Hello(run="r", role="sampler", worker="s", credit=3, step=-1, leases=[])


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"type": "hello", "run": "r", "role": "sampler", "worker": "s"}, "missing required field `credit`"),
        ({"type": "ping", "metrics": {"tokens": "many"}}, r"\$.metrics\[...\]"),
        ({"type": "done", "lease": 1, "groups": [{"group_id": "x"}]}, r"\$.groups\[0\].group_id"),
        ({"type": "ack", "lease": 1}, "Invalid value 'ack'"),
        ({"lease": 1}, "missing required field `type`"),
    ],
)
def test_what_is_not_of_the_protocol_is_refused_with_its_path(table, says):
    with pytest.raises(MessageError, match=says):
        decode_from_worker(msgpack.packb(table))


def test_a_direction_reads_only_its_own_messages():
    with pytest.raises(MessageError, match="no message of the hub"):
        decode_from_hub(encode(Ping()))


def test_the_sender_refuses_a_message_above_the_limit_and_names_the_setting():
    message = Ping(state="x" * 1_500_000)
    with pytest.raises(ConfigError, match=r"Ping message of 1.50 MB is above replay.max_message_mb = 1:"):
        encode(message, max_bytes=1_000_000)
    assert len(encode(message)) == len(encode(message, max_bytes=2_000_000)) > 1_500_000


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (b"\x82\xa4type\xa3bye\xa6reason\xa2\xff\xfe", "can't decode byte 0xff"),
        (b"\x82\xa4type\xa3bye\xa1x" + b"\x91" * 100_000 + b"\xc0", "maximum recursion depth"),
        (b"\x82\xa4type\xa3bye\xa6reason\xdb\xff\xff\xff\xff", "truncated"),
    ],
)
def test_what_msgspec_does_not_call_its_own_error_is_a_message_error_too(frame, says):
    for decode in (decode_from_worker, decode_from_hub):
        with pytest.raises(MessageError, match=says if decode is decode_from_worker else "no message of the hub"):
            decode(frame)


@given(st.binary(max_size=64))
def test_any_bytes_are_either_a_message_or_a_message_error(frame):
    for decode in (decode_from_hub, decode_from_worker):
        with contextlib.suppress(MessageError):
            assert msgpack.unpackb(encode(decode(frame)))["type"]
