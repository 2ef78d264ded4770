"""Messages <-> msgpack bytes: one encoder for both directions, one decoder for each, and a bound on every part.

    frame = encode(Ack(lease=7))
    decode_from_hub(frame) == Ack(lease=7)
    outline(FromWorker)     the same messages with a bound on every string, list, map, column and integer

Unknown fields are skipped; a missing field is refused with its path. A frame is first decoded into its outline. msgspec
looks at the length in a header before it allocates, so a bomb (a megabyte that would become fifty in memory) costs
nothing. The outline is made from `messages.py`: a new field has a bound at once, by its name in `TEXTS`, `NAMES` or
`MAX_ENTRIES`, else the default of its type. Whatever the bytes are, the outcome is a message or a MessageError.

The sender checks the size of a message, because ZeroMQ disconnects the sender of a longer one without an error.
"""

from __future__ import annotations

import types
from functools import lru_cache
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from rlsp_async.contents import TEXT_CHARACTERS
from rlsp_async.errors import ConfigError, MessageError
from rlsp_async.messages import FromHub, FromWorker

MAX_TOKENS = 131_072
"""Longest column, in tokens, unless the settings of a run allow less."""
BYTES_A_TOKEN = 4
NAME_CHARACTERS = 1024
NOTE_CHARACTERS = 65_536

NAMES = frozenset(
    {
        "run",
        "worker",
        "prompt_id",
        "task",
        "source",
        "selector",
        "stage",
        "phase",
        "state",
        "parent",
        "root",
        "sampler",
        "verifier",
        "digest",
        "ticket",
        "kind",
        "kinds",
        "channel",
        "host",
        "devices",
    }
)
"""Fields whose strings are names."""
TEXTS = frozenset({"text", "answer", "system", "prompt", "response", "extracted"})
"""Fields whose strings people or models write. All other strings are notes: a reason, an error, a path."""

ONE_RESULT = 1
MAP_ENTRIES = 1024
LIST_ENTRIES = 65_536
MAX_ENTRIES = {
    "Done.groups": ONE_RESULT,
    "Done.verdicts": ONE_RESULT,
    "Done.steps": ONE_RESULT,
    "RolloutGroup.rollouts": 4096,
    "VerdictSet.verdicts": 4096,
    "VerifiedGroup.verdicts": 4096,
    "VerifyJob.items": 4096,
    "Verdict.parts": 64,
    "Hello.info": 64,
    "WeightsRef.also": 16,
    "Pull.kinds": 16,
    "Pull.devices": 1024,
    "Pull.env": 64,
}
"""Most entries of a list or a map, by field; else MAP_ENTRIES or LIST_ENTRIES."""

MAX_BYTES = {"plan": 1_000_000, "where": 4096}
"""Longest value of a field of bytes that is no column."""

INT64 = 2**63


@lru_cache(maxsize=16)
def outline(kind: Any, max_tokens: int = MAX_TOKENS) -> Any:
    """The type of a message, or of a union of messages, with a bound on every part.

    Columns hold at most `max_tokens` values. Raises TypeError for a field whose type has no bound.
    """
    if get_origin(kind) in (Union, types.UnionType):
        return Union[tuple(outline(member, max_tokens) for member in get_args(kind))]  # noqa: UP007
    hints = get_type_hints(kind, include_extras=True)
    fields = [_field(kind, info, hints[info.name], max_tokens) for info in msgspec.structs.fields(kind)]
    tag = kind.__struct_config__.tag
    return msgspec.defstruct(kind.__name__, fields, kw_only=True, frozen=True, tag=tag)


def _field(kind: Any, info: msgspec.structs.FieldInfo, hint: Any, max_tokens: int) -> Any:
    """One field with its bound; a field with a default stays optional."""
    bounded = _bounded(hint, f"{kind.__name__}.{info.name}", max_tokens)
    if info.required:
        return (info.name, bounded)
    # The decoded outline is thrown away, so no default is made for an absent field.
    return (info.name, Union[bounded, msgspec.UnsetType], msgspec.UNSET)  # noqa: UP007


def _bounded(hint: Any, path: str, max_tokens: int) -> Any:
    """The type of a field, with a bound that depends on its name and its type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _bounded(arguments[0], path, max_tokens)
    if origin in (Union, types.UnionType):
        return Union[tuple(_bounded(member, path, max_tokens) for member in arguments)]  # noqa: UP007
    if origin is list:
        item = _bounded(arguments[0], path, max_tokens)
        return Annotated[list[item], Meta(max_length=MAX_ENTRIES.get(path, LIST_ENTRIES))]  # type: ignore[valid-type]
    if origin is dict:
        key, value = (_bounded(argument, f"{path}.name", max_tokens) for argument in arguments)
        return Annotated[dict[key, value], Meta(max_length=MAX_ENTRIES.get(path, MAP_ENTRIES))]  # type: ignore[valid-type]
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return outline(hint, max_tokens)
    return _leaf(hint, path.rpartition(".")[2], max_tokens)


def _leaf(hint: Any, name: str, max_tokens: int) -> Any:
    if hint is str:
        longest = TEXT_CHARACTERS if name in TEXTS else NAME_CHARACTERS if name in NAMES else NOTE_CHARACTERS
        return Annotated[str, Meta(max_length=longest)]
    if hint is bytes:
        return Annotated[bytes, Meta(max_length=MAX_BYTES.get(name, BYTES_A_TOKEN * max_tokens))]
    if hint is int:
        return Annotated[int, Meta(ge=-INT64, le=INT64 - 1)]
    if hint in (float, bool, type(None)) or get_origin(hint) is Literal:
        return hint
    raise TypeError(f"messages.py has a type that has no bound yet: {hint!r} in field {name!r}")


MEGABYTE = 1_000_000

_encoder = msgspec.msgpack.Encoder()
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)
_from_hub: msgspec.msgpack.Decoder[FromHub] = msgspec.msgpack.Decoder(FromHub)


class TooLongError(MessageError):
    """A part of the message is above its bound."""


def encode(message: FromWorker | FromHub, max_bytes: int = 0) -> bytes:
    """A message as msgpack. Raises ConfigError when it is longer than `max_bytes` (0: no bound)."""
    frame = _encoder.encode(message)
    if max_bytes and len(frame) > max_bytes:
        raise ConfigError(
            f"a {type(message).__name__} message of {len(frame) / MEGABYTE:.2f} MB is above replay.max_message_mb = "
            f"{max_bytes / MEGABYTE:g}: raise it, or lower rollouts, max_new_tokens or groups_per_step"
        )
    return frame


def decode_from_worker(frame: bytes, max_tokens: int = MAX_TOKENS) -> FromWorker:
    """The message of a worker. Raises MessageError with the path of what is wrong, TooLongError above a bound."""
    return cast("FromWorker", _decode(_from_worker, _measure(FromWorker, max_tokens), frame, "a worker"))


def decode_from_hub(frame: bytes, max_tokens: int = MAX_TOKENS) -> FromHub:
    """The message of a hub. Raises MessageError with the path of what is wrong, TooLongError above a bound."""
    return cast("FromHub", _decode(_from_hub, _measure(FromHub, max_tokens), frame, "the hub"))


def require_decodable(frame: bytes, max_tokens: int = MAX_TOKENS) -> None:
    """Raises MessageError for a frame that a hub would drop: its lease would have no answer and never end."""
    _translate_errors(_measure(FromWorker, max_tokens).decode, frame, "a worker")


def _decode(decoder: Any, measure: Any, frame: bytes, who: str) -> Any:
    _translate_errors(measure.decode, frame, who)
    return _translate_errors(decoder.decode, frame, who)


def _translate_errors(decode: Any, frame: bytes, who: str) -> Any:
    """Calls `decode`. Turns its errors, UnicodeDecodeError and RecursionError among them, into a MessageError."""
    try:
        return decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        kind = TooLongError if " of length <= " in str(e) else MessageError
        raise kind(f"{len(frame)} bytes are no message of {who}: {e}") from None


@lru_cache(maxsize=16)
def _measure(kind: Any, max_tokens: int) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(outline(kind, max_tokens))
