"""The process that loads an environment once and forks a confined child for each rollout.

    pool (in a sampler) --control socket--> fork server --fork--> child, child, ...
         \\________ one channel for each child: Reset and Step in, Reply out ________/

Started as `python -m rlsp_async.environments.fork_server`, with the arguments and the orders of the verifiers' fork
server, whose frames and sandbox it uses. A child serves one rollout. It dies with the fork server or when its channel
closes, and it is killed when a step takes too long. Nothing here is asynchronous or threaded.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from typing import Literal

import msgspec

from rlsp_async.config import EnvironmentConfig
from rlsp_async.contents import PART_CHARACTERS, PART_MOST, PARTS_KEPT
from rlsp_async.environments.base import End, Environment, LoadedEnvironment, Observation, load_environment
from rlsp_async.errors import UserError
from rlsp_async.messages import Prompt
from rlsp_async.verifying.fork_server import LENGTH, CheckerLimits, ReadySignal, encode_frame, take_orders
from rlsp_async.verifying.sandbox import confine, enter_namespaces, probe_restrictions

OBSERVATION_CHARACTERS = 16_384
"""Of one observation. What is longer is cut, and the observation says so."""
DETAIL_CHARACTERS = 500


class Reset(msgspec.Struct, frozen=True, kw_only=True, tag="reset"):
    """Begins the rollout of a child."""

    prompt: Prompt
    seed: int


class Step(msgspec.Struct, frozen=True, kw_only=True, tag="step"):
    """What the policy said."""

    text: str


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What the environment said."""

    kind: Literal["observation", "end", "failure"]
    text: str = ""
    """Of an observation; of an end or a failure the reason."""
    parts: dict[str, float] = {}
    """Of an end."""


def main() -> None:
    """Runs the fork server. Arguments: control descriptor, name of the environment, options and limits as JSON."""
    limits = msgspec.json.decode(sys.argv[4], type=CheckerLimits)
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the sampler decides
    try:
        environment = load_environment(EnvironmentConfig(name=sys.argv[2], options=msgspec.json.decode(sys.argv[3])))
    except UserError as e:
        control.sendall(encode_frame(ReadySignal(pid=os.getpid(), error=str(e))))
        return
    own_ids = {"own process ids": enter_namespaces()}
    restrictions = {**probe_restrictions(files=environment.reads_files), **own_ids}
    control.sendall(encode_frame(ReadySignal(pid=os.getpid(), lane="isolated", restrictions=restrictions)))
    gc.collect()
    gc.freeze()  # a collection in a child would write to, and so copy, what it shares with this process
    take_orders(control, lambda channel: _become_child(channel, environment, limits))


def _become_child(channel: socket.socket, environment: LoadedEnvironment, limits: CheckerLimits) -> None:
    """Runs a forked child from its start to its end; never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        confine(limits.memory_mb, files=environment.reads_files, cpu_s=limits.cpu_s)
        channel.sendall(encode_frame(ReadySignal(pid=os.getpid())))
        serve_channel(channel, environment.make())
        code = 0
    except (BrokenPipeError, ConnectionResetError):
        code = 0  # the sampler has closed the channel and waits for no reply
    finally:
        os._exit(code)


def serve_channel(channel: socket.socket, environment: Environment) -> None:
    """Answers one frame after the other until the channel closes."""
    read, decode = channel.makefile("rb").read, msgspec.msgpack.Decoder(Reset | Step).decode
    while len(head := read(LENGTH.size)) == LENGTH.size:
        channel.sendall(encode_frame(answer(environment, decode(read(LENGTH.unpack(head)[0])))))


def answer(environment: Environment, said: Reset | Step) -> Reply:
    """What the environment says. Whatever it raises, or says that no observation and no end is, becomes a failure."""
    try:
        if isinstance(said, Reset):
            result: object = environment.reset(said.prompt, said.seed)
        else:
            result = environment.step(said.text)
        return _checked(result, may_end=isinstance(said, Step))
    except MemoryError:
        return Reply(kind="failure", text="out of memory")
    except Exception as e:  # noqa: BLE001  any fault of an environment becomes a failure, which the sampler reports
        return Reply(
            kind="failure", text=f"{type(e).__name__}: {e}"[:DETAIL_CHARACTERS].encode(errors="replace").decode()
        )


def _checked(result: object, may_end: bool) -> Reply:
    """The reply that says it. Raises TypeError, ValueError and UnicodeError for what cannot be said."""
    if isinstance(result, Observation):
        return Reply(kind="observation", text=cut(result.text))
    if not isinstance(result, End) or not may_end:
        raise TypeError(f"{type(result).__name__} is neither Observation nor End" if may_end else "reset must observe")
    parts = {str(name): float(part) for name, part in result.parts.items()}
    if len(parts) > PARTS_KEPT or any(len(name) > PART_CHARACTERS for name in parts):
        raise ValueError(
            f"an End of {len(parts)} parts; at most {PARTS_KEPT}, with names of {PART_CHARACTERS} characters"
        )
    if not all(abs(part) <= PART_MOST for part in parts.values()):  # also false for NaN
        raise ValueError(f"a part is not a finite number below {PART_MOST:g}: {parts}")
    return Reply(kind="end", text=cut(result.detail)[:DETAIL_CHARACTERS], parts=parts)


def cut(text: str) -> str:
    """At most OBSERVATION_CHARACTERS of a text, which then says how long it was. Raises UnicodeError, TypeError."""
    if not isinstance(text, str):
        raise TypeError(f"an observation is a text, not {type(text).__name__}")
    if len(text) > OBSERVATION_CHARACTERS:
        note = f" [cut: {len(text):,} characters]"
        text = text[: OBSERVATION_CHARACTERS - len(note)] + note
    text.encode()
    return text


if __name__ == "__main__":
    main()
