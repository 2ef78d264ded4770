"""What keys cost: Done and Ack between a Router and a worker's Session in a process of its own, with keys and without.

    python benchmarks/keys.py                      messages a second at 200 B and 5 KB, best and all of five rounds
    python benchmarks/keys.py --seconds 1 --rounds 2

Each message is decoded, bounded, checked (role, pace; with keys the user id, the routing id and the list) and answered.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from rlsp_async.messages import Ack, Done, Failed, FromHub, Hello, Prompt, Rollout, RolloutGroup, Sampling
from rlsp_async.wire.codec import encode
from rlsp_async.wire.keyring import HubKeys, create_keyring, read_hub_keys, read_worker_keys
from rlsp_async.wire.router import Router
from rlsp_async.wire.session import Session
from rlsp_async.wire.sockets import ConnectionLimits

WINDOW = 256
TOKENS = {"200 B": 0, "5 KB": 390}


def frame(tokens: int) -> bytes:
    """A Done of one rollout; without tokens a Failed."""
    if not tokens:
        return encode(Failed(lease=7, kind="data", error="x" * 155))
    column = bytes(4 * tokens)
    rollout = Rollout(index=0, token_ids=column, logprobs=column, versions=column, text="x")
    prompt = Prompt(prompt_id="ops/train/17", task="ops", text="1 1 3 4 -> 7 <think>", answer="7")
    return encode(
        Done(
            lease=7,
            groups=[RolloutGroup(group_id=7, prompt=prompt, prompt_ids=b"", sampling=Sampling(), rollouts=[rollout])],
        )
    )


async def hub(keys: HubKeys | None, worker: list[str], seconds: float) -> tuple[float, float]:
    """Starts a worker and serves it; messages a second from the first one on, CPU microseconds here for each."""
    async with Router(ConnectionLimits(), keys) as router:
        address = await router.bind("tcp://127.0.0.1:0")
        process = await asyncio.create_subprocess_exec(sys.executable, __file__, "--worker", address, *worker)
        try:
            num, started, cpu_s = 0, 0.0, 0.0
            while not started or time.monotonic() - started < seconds:
                for peer, message in await asyncio.wait_for(router.receive(), 20):
                    if not started:
                        started, cpu_s = time.monotonic(), time.process_time()
                    if isinstance(message, Done | Failed):
                        num += 1
                        router.send(peer, Ack(lease=message.lease))
            return num / (time.monotonic() - started), (time.process_time() - cpu_s) / num * 1e6
        finally:
            process.kill()
            await process.wait()


async def work(address: str, directory: str, tokens: int) -> None:
    """Keeps WINDOW messages on their way until it is killed."""
    session = Session(
        address, "sampler-0", 2 * WINDOW, ConnectionLimits(), read_worker_keys(directory, "sampler", "sampler-0")
    )
    done = frame(tokens)

    def on_message(message: FromHub) -> None:
        if isinstance(message, Ack):
            session.post(done)

    session.post(encode(Hello(run="r", role="sampler", worker="sampler-0", credit=10_000)))
    for _ in range(WINDOW):
        session.post(done)
    await asyncio.gather(session.read(on_message), session.write())


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        address, directory, tokens = arguments.worker
        asyncio.run(work(address, directory, int(tokens)))
        return
    with tempfile.TemporaryDirectory() as there:
        keys_dir = str(Path(there) / "keys")
        create_keyring(Path(keys_dir), ["sampler"])
        for name, tokens in TOKENS.items():
            rates: dict[str, list[tuple[float, float]]] = {"": [], keys_dir: []}
            for _ in range(arguments.rounds):
                for directory, measured in rates.items():
                    keys = read_hub_keys(directory)
                    measured.append(asyncio.run(hub(keys, [directory, str(tokens)], arguments.seconds)))
            plain, curve = (_best_and_median(measured) for measured in rates.values())
            print(
                f"{name} ({len(frame(tokens))} B)  messages/s best, median: plain {plain[0]:,.0f}, {plain[1]:,.0f}; "
                f"keys {curve[0]:,.0f}, {curve[1]:,.0f}; ratio {curve[0] / plain[0]:.2f}, {curve[1] / plain[1]:.2f}; "
                f"hub CPU us a message, median: {plain[2]:.0f}; {curve[2]:.0f}",
                flush=True,
            )


def _best_and_median(measured: list[tuple[float, float]]) -> tuple[float, float, float]:
    rates, cpu_us = sorted(rate for rate, _ in measured), sorted(us for _, us in measured)
    return rates[-1], rates[len(rates) // 2], cpu_us[len(cpu_us) // 2]


if __name__ == "__main__":
    main()
