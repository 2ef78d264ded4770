"""Messages <-> msgpack bytes: one encoder for both directions, one decoder each.

    frame = encode(Ack(lease=7))
    decode_from_hub(frame) == Ack(lease=7)

Unknown fields are skipped, missing ones refused with their path. The *sender* checks the size: ZeroMQ disconnects a
peer that sends too much and says nothing.
"""

from __future__ import annotations

import msgspec

from rlsp_async.errors import ConfigError, MessageError
from rlsp_async.messages import FromHub, FromWorker

MEGABYTE = 1_000_000

_encoder = msgspec.msgpack.Encoder()
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)
_from_hub: msgspec.msgpack.Decoder[FromHub] = msgspec.msgpack.Decoder(FromHub)


def encode(message: FromWorker | FromHub, max_bytes: int = 0) -> bytes:
    """A message as msgpack. Raises ConfigError when it is longer than `max_bytes` (0: no bound)."""
    frame = _encoder.encode(message)
    if max_bytes and len(frame) > max_bytes:
        raise ConfigError(
            f"a {type(message).__name__} message of {len(frame) / MEGABYTE:.2f} MB is above replay.max_message_mb = "
            f"{max_bytes / MEGABYTE:g}: raise it, or lower rollouts, max_new_tokens or groups_per_step")
    return frame


def decode_from_worker(frame: bytes) -> FromWorker:
    """What a worker says. Raises MessageError with the path of what is wrong."""
    try:
        return _from_worker.decode(frame)
    except msgspec.MsgspecError as e:
        raise MessageError(f"{len(frame)} bytes are no message of a worker: {e}") from None


def decode_from_hub(frame: bytes) -> FromHub:
    """What the hub says. Raises MessageError with the path of what is wrong."""
    try:
        return _from_hub.decode(frame)
    except msgspec.MsgspecError as e:
        raise MessageError(f"{len(frame)} bytes are no message of the hub: {e}") from None
