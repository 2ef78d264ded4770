"""Messages <-> msgpack bytes: one encoder for both directions, one decoder each.

    frame = encode(Ack(lease=7))
    decode_from_hub(frame) == Ack(lease=7)

Unknown fields are skipped, missing ones refused with their path. A frame is measured (`bounds.py`) before anything is
built of it. The *sender* checks the size: ZeroMQ disconnects a peer that sends too much and says nothing. Whatever the
bytes are, the outcome is a message or a MessageError.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import msgspec

from rlsp_async.errors import ConfigError, MessageError
from rlsp_async.messages import FromHub, FromWorker
from rlsp_async.wire.bounds import MAX_TOKENS, outline

MEGABYTE = 1_000_000

_encoder = msgspec.msgpack.Encoder()
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)
_from_hub: msgspec.msgpack.Decoder[FromHub] = msgspec.msgpack.Decoder(FromHub)


class TooLongError(MessageError):
    """A part of the message is longer than any honest one."""


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
    """What a worker says. Raises MessageError with the path of what is wrong, TooLongError when a part is too long."""
    return cast("FromWorker", _decode(_from_worker, _measure(FromWorker, max_tokens), frame, "a worker"))


def decode_from_hub(frame: bytes, max_tokens: int = MAX_TOKENS) -> FromHub:
    """What the hub says. Raises MessageError with the path of what is wrong, TooLongError when a part is too long."""
    return cast("FromHub", _decode(_from_hub, _measure(FromHub, max_tokens), frame, "the hub"))


def require_heard(frame: bytes, max_tokens: int = MAX_TOKENS) -> None:
    """Raises MessageError for what a hub would drop unheard: nobody would answer it, and its lease never end."""
    _translated(_measure(FromWorker, max_tokens).decode, frame, "a worker")


def _decode(decoder: Any, measure: Any, frame: bytes, who: str) -> Any:
    _translated(measure.decode, frame, who)
    return _translated(decoder.decode, frame, who)


def _translated(decode: Any, frame: bytes, who: str) -> Any:
    """msgspec raises its own error, UnicodeDecodeError for a string, RecursionError for a nest that is too deep."""
    try:
        return decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        kind = TooLongError if " of length <= " in str(e) else MessageError
        raise kind(f"{len(frame)} bytes are no message of {who}: {e}") from None


@lru_cache(maxsize=16)
def _measure(kind: Any, max_tokens: int) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(outline(kind, max_tokens))
