"""Damaged messages, endless and seeded: each is a list of frames."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import msgpack

HEADERS = [
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdc\xff\xff",
    b"\xde\xff\xff",
    b"\xda\xff\xff",
    b"\xc9\xff\xff\xff\xff\x01",
    b"\xc1",
    b"\xcf" + b"\xff" * 8,
    b"\xd7\xff" + b"\xff" * 8,
]
NESTS = [b"\x91", b"\x81\x01", b"\xdc\xff\xff", b"\xdd\xff\xff\xff\xff", b"\x81\xa1a", b"\x92\x01"]
LONGEST_NEST = 3000
STRANGE: list[Any] = [
    None,
    True,
    -1,
    0,
    2**63,
    2**64 - 1,
    -(2**63),
    float("nan"),
    float("inf"),
    "",
    "x" * 70_000,
    "\ud7ff" * 2000,
    b"",
    b"\xff" * 5,
    bytes(9000),
    [],
    [[]] * 400,
    [{}] * 400,
    {},
    {"a": {}},
    [0] * 5000,
    {str(i): 0.0 for i in range(1100)},
    {"type": "hello"},
    "sampler",
    "hub",
    "file:///etc/passwd",
]


def damaged(corpus: list[bytes], seed: int) -> Iterator[list[bytes]]:
    """Bit flips, cuts, splices, length bombs, nests, noise, wrong numbers of frames, and now and then nothing wrong."""
    rng = random.Random(seed)
    ways = [flip, cut, splice, bomb, nest, repeat, noise, honest, twist, twist, twist]
    while True:
        frame = rng.choice(ways)(rng, corpus)
        draw = rng.random()
        if draw < 0.02:
            yield [frame, rng.choice(corpus)]
        elif draw < 0.03:
            yield [b"", frame]
        elif draw < 0.035:
            yield [b""] * rng.randint(1, 50)
        else:
            yield [frame]


def flip(rng: random.Random, corpus: list[bytes]) -> bytes:
    frame = bytearray(rng.choice(corpus))
    for _ in range(rng.choice([1, 1, 2, 8])):
        frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
    return bytes(frame)


def cut(rng: random.Random, corpus: list[bytes]) -> bytes:
    frame = rng.choice(corpus)
    at = rng.randrange(len(frame))
    return frame[:at] if rng.random() < 0.7 else frame[at:]


def splice(rng: random.Random, corpus: list[bytes]) -> bytes:
    one, other = rng.choice(corpus), rng.choice(corpus)
    return one[: rng.randrange(len(one))] + other[rng.randrange(len(other)) :]


def bomb(rng: random.Random, corpus: list[bytes]) -> bytes:
    return _put(rng, corpus, rng.choice(HEADERS))


def nest(rng: random.Random, corpus: list[bytes]) -> bytes:
    deep = rng.choice(NESTS) * rng.randint(1, LONGEST_NEST)
    if rng.random() < 0.3:  # under a key that nobody knows: it is skipped, level by level
        return b"\x82\xa4type\xa3bye\xa1x" + deep
    return _put(rng, corpus, deep)


def repeat(rng: random.Random, corpus: list[bytes]) -> bytes:
    frame = rng.choice(corpus)
    start = rng.randrange(len(frame))
    return frame[:start] + frame[start : start + 40] * rng.randint(2, 60) + frame[start:]


def noise(rng: random.Random, corpus: list[bytes]) -> bytes:
    return rng.randbytes(rng.randint(0, 200))


def honest(rng: random.Random, corpus: list[bytes]) -> bytes:
    return rng.choice(corpus)


def twist(rng: random.Random, corpus: list[bytes]) -> bytes:
    """One value, deep inside, becomes another: well-formed, and wrong in type, length or size."""
    table: Any = msgpack.unpackb(rng.choice(corpus), strict_map_key=False)
    at, strange = table, rng.choice(STRANGE)
    while True:
        key = rng.choice(list(at)) if isinstance(at, dict) else rng.randrange(len(at))
        if not (isinstance(at[key], (dict, list)) and at[key]) or rng.random() < 0.15:
            break
        at = at[key]
    if isinstance(at, dict) and rng.random() < 0.2:
        at["x" * rng.randint(0, 2000)] = strange
    elif isinstance(at, list) and rng.random() < 0.3:
        at.extend(at * rng.randint(1, 300))
    else:
        at[key] = strange
    return msgpack.packb(table)  # type: ignore[no-any-return]


def _put(rng: random.Random, corpus: list[bytes], what: bytes) -> bytes:
    """In the place of a few bytes."""
    frame = rng.choice(corpus)
    at = rng.randrange(len(frame))
    return frame[:at] + what + frame[at + rng.randint(0, 6) :]
