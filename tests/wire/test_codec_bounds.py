"""No part of a message is longer than its bound, and finding out costs nothing."""

import tracemalloc
from typing import get_args

import msgspec
import pytest

from rlsp_async import messages
from rlsp_async.errors import MessageError
from rlsp_async.messages import Done, FromHub, FromWorker, Hello, Ping, StepReport, Verdict, VerdictSet
from rlsp_async.wire import codec
from rlsp_async.wire.codec import TooLongError, decode_from_hub, decode_from_worker, encode, outline
from rlsp_async.wire.contract import EXAMPLES, GROUP, ROLLOUT

MEGABYTE = 1_000_000
HELLO = Hello(run="r", role="sampler", worker="w", credit=1)


def with_(message, **changes):
    return msgspec.structs.replace(message, **changes)


@pytest.mark.parametrize(
    "message",
    [
        with_(HELLO, worker="x" * 1025),
        with_(HELLO, info={str(i): "" for i in range(65)}),
        with_(HELLO, info={"a": "x" * 65_537}),
        with_(HELLO, leases=[1] * 65_537),
        Ping(state="x" * 1025),
        Ping(metrics={str(i): 0.0 for i in range(1025)}),
        Ping(metrics={"x" * 65_537: 0.0}),
        Done(lease=1, groups=[GROUP, GROUP]),
        Done(lease=1, steps=[StepReport(step=1)] * 2),
        Done(lease=1, verdicts=[VerdictSet(group_id=1, verdicts=[])] * 2),
        Done(lease=1, verdicts=[VerdictSet(group_id=1, verdicts=[Verdict(status="wrong")] * 4097)]),
        Done(
            lease=1,
            verdicts=[
                VerdictSet(group_id=1, verdicts=[Verdict(status="wrong", parts={str(i): 0.0 for i in range(65)})])
            ],
        ),
        Done(lease=1, groups=[with_(GROUP, rollouts=[ROLLOUT] * 4097)]),
        Done(lease=1, groups=[with_(GROUP, prompt_ids=bytes(4 * 131_073))]),
        Done(lease=1, groups=[with_(GROUP, rollouts=[with_(ROLLOUT, text="x" * 4_194_305)])]),
    ],
    ids=lambda message: type(message).__name__,
)
def test_each_part_has_its_bound(message):
    with pytest.raises(TooLongError, match="of length <= "):
        decode_from_worker(encode(message))


def test_a_run_says_how_long_its_columns_are():
    fits = Done(lease=1, groups=[with_(GROUP, rollouts=[with_(ROLLOUT, token_ids=bytes(4 * 512))])])
    assert decode_from_worker(encode(fits), max_tokens=512) == fits
    with pytest.raises(TooLongError, match=r"`bytes` of length <= 2044 - at `\$.groups\[0\].rollouts\[0\].token_ids`"):
        decode_from_worker(encode(fits), max_tokens=511)


@pytest.mark.parametrize("value", [2**63, 2**64 - 1])
def test_an_integer_that_no_database_takes_is_refused(value):
    with pytest.raises(MessageError, match="Expected `int` <= 9223372036854775807"):
        decode_from_worker(msgspec.msgpack.encode({"type": "done", "lease": value}))


def test_honest_messages_fit():
    for message in EXAMPLES.values():
        decode = decode_from_worker if isinstance(message, FromWorker) else decode_from_hub
        assert decode(encode(message)) == message


def leaves(kind, path=""):
    """Every type within the outline of a message, with its path."""
    info = msgspec.inspect.type_info(kind)
    todo = [(path or info.cls.__name__, info)]
    while todo:
        at, one = todo.pop()
        yield at, one
        match one:
            case msgspec.inspect.StructType(fields=fields):
                todo += [(f"{at}.{field.name}", field.type) for field in fields]
            case msgspec.inspect.UnionType(types=types):
                todo += [(at, part) for part in types]
            case msgspec.inspect.ListType(item_type=item):
                todo.append((f"{at}[]", item))
            case msgspec.inspect.DictType(key_type=key, value_type=value):
                todo += [(f"{at} key", key), (f"{at} value", value)]


def test_every_string_list_map_column_and_integer_of_every_message_is_bounded():
    long = (msgspec.inspect.StrType, msgspec.inspect.BytesType, msgspec.inspect.ListType, msgspec.inspect.DictType)
    seen = 0
    for message in (*get_args(FromWorker), *get_args(FromHub)):
        for path, kind in leaves(outline(message)):
            if isinstance(kind, long):
                assert kind.max_length is not None and 0 < kind.max_length <= codec.TEXT_CHARACTERS, path
                seen += 1
            if isinstance(kind, msgspec.inspect.IntType):
                assert kind.le == 2**63 - 1, path
            assert not isinstance(kind, (msgspec.inspect.AnyType, msgspec.inspect.RawType)), path
    assert seen > 100


def test_a_type_without_a_bound_is_found_when_the_module_is_loaded():
    loose = msgspec.defstruct("Loose", [("anything", set[int])], tag="loose")
    with pytest.raises(TypeError, match="has no bound yet"):
        outline(loose)


def test_the_names_in_the_tables_are_fields_of_messages():
    kinds = {
        name: kind
        for name, kind in vars(messages).items()
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    }
    fields = {field for kind in kinds.values() for field in kind.__struct_fields__}
    assert fields >= codec.NAMES | codec.TEXTS
    for path in codec.MAX_ENTRIES:
        kind, _, field = path.partition(".")
        assert field in kinds[kind].__struct_fields__, path


# --- a megabyte that would become many -----------------------------------------------------------------------------


def pack_map(key: bytes, num: int, item: bytes) -> bytes:
    return key + b"\xdd" + num.to_bytes(4, "big") + item * num


def of_done(field: bytes, num: int, item: bytes) -> bytes:
    return b"\x83\xa4type\xa4done\xa5lease\x01" + pack_map(field, num, item)


def with_reports(item: bytes) -> bytes:
    return of_done(b"\xa5steps", MEGABYTE // len(item), item)


def with_metrics() -> bytes:
    entries = b"".join(b"\xa4" + f"{i:04x}".encode() + b"\x00" for i in range(65_536)) * 3
    return b"\x82\xa4type\xa4ping\xa7metrics\xdf" + (3 * 65_536).to_bytes(4, "big") + entries


BOMBS = {
    "empty maps as groups": of_done(b"\xa6groups", MEGABYTE, b"\x80"),
    "empty maps as verdicts": of_done(b"\xa8verdicts", MEGABYTE, b"\x80"),
    "a report in seven bytes": with_reports(b"\x81\xa4step\x00"),
    "a figure in six bytes": with_metrics(),
    "a verdict in fifteen bytes": of_done(
        b"\xa8verdicts",
        1,
        b"\x82\xa8group_id\x01" + pack_map(b"\xa8verdicts", MEGABYTE // 14, b"\x81\xa6status\xa5wrong"),
    ),
    "small integers": b"\x86" + encode(HELLO)[1:] + pack_map(b"\xa6leases", MEGABYTE, b"\x01"),
    "an unknown field of empty maps": b"\x82\xa4type\xa3bye" + pack_map(b"\xa5other", MEGABYTE, b"\x80"),
    "nested arrays of four billion": b"\x82\xa4type\xa3bye\xa5other" + b"\xdd\xff\xff\xff\xff" * (MEGABYTE // 5),
    "nested array16 headers": b"\x82\xa4type\xa3bye\xa5other" + b"\xdc\xff\xff" * (MEGABYTE // 3),
    "nested maps": b"\x82\xa4type\xa3bye\xa5other" + b"\x81\x01" * (MEGABYTE // 2),
    "nested where a list is wanted": b"\x83\xa4type\xa4done\xa5lease\x01\xa6groups" + b"\x91" * MEGABYTE,
    "a string of four gigabytes": b"\x82\xa4type\xa3bye\xa6reason\xdb\xff\xff\xff\xff" + b"x" * MEGABYTE,
}
MOST_BYTES = 2 * MEGABYTE


@pytest.mark.parametrize("name", BOMBS)
def test_a_megabyte_never_becomes_more_than_two(name):
    frame = BOMBS[name]
    encode(HELLO)
    decode_from_worker(encode(HELLO))
    tracemalloc.start()
    try:
        for decode in (decode_from_worker, decode_from_hub):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            try:
                decode(frame)
            except MessageError:
                refused = True
            else:
                refused = False
            peak = tracemalloc.get_traced_memory()[1] - before
            assert peak < MOST_BYTES, (name, decode.__name__, peak)
            assert refused or "unknown" in name or decode is decode_from_hub
    finally:
        tracemalloc.stop()
