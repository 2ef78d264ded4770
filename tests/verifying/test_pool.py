"""The pool with a verifier that hangs, dies, takes all memory and lies: a bad response costs only its own verdict."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from rlsp_async.errors import ConfigError, MachineError
from rlsp_async.messages import Verdict, VerifyItem, VerifyJob
from rlsp_async.verifying import fork_server
from rlsp_async.verifying.base import load_verifier
from rlsp_async.verifying.pool import VerifierPool
from tests.verifying import escapes, hostile
from tests.verifying.code import attacks
from tests.verifying.pools import make_pool, verify_cases

HOSTILE = "tests.verifying.hostile"


def make(name: str = HOSTILE, processes: int = 1, deadline_s: float = 1.0) -> VerifierPool:
    return make_pool(name, processes=processes, deadline_s=deadline_s)


async def ask(pool: VerifierPool, *responses: str, group_id: int = 7) -> list[Verdict]:
    return await verify_cases(pool, *(("p", response, "yes") for response in responses), group_id=group_id)


def statuses(verdicts: list[Verdict]) -> list[str]:
    return [verdict.status for verdict in verdicts]


async def test_verdicts_carry_name_version_and_time() -> None:
    async with make() as pool:
        first, second = await ask(pool, "yes", "no")
        assert statuses([first, second]) == ["correct", "wrong"]
        assert first.verifier == "hostile/9"
        assert first.milliseconds > 0.0
        assert await ask(pool) == []
        metrics = pool.metrics()
        assert (metrics["verdicts"], metrics["verdicts_correct"], metrics["checker_starts"]) == (2.0, 1.0, 1.0)
        assert pool.metrics()["verdicts"] == 0.0


async def test_a_hanging_check_costs_its_deadline_and_nothing_else() -> None:
    async with make(deadline_s=0.5) as pool:
        await ask(pool, "yes")
        pool.metrics()
        verdicts = await ask(pool, "yes", "hang", "no", "yes")
        assert statuses(verdicts) == ["correct", "timeout", "wrong", "correct"]
        assert verdicts[1].detail == "no verdict within 0.5 s"
        assert pool.metrics()["checker_starts"] == 1.0  # one deadline, one new process


async def test_a_slow_batch_is_no_timeout_of_its_last_item() -> None:
    async with make(deadline_s=1.0) as pool:
        assert statuses(await ask(pool, *["sleep0.4"] * 4)) == ["wrong"] * 4


@pytest.mark.parametrize(
    ("response", "detail"),
    [
        ("exit", "the checker process died"),
        ("memory", "out of memory"),
        ("deep", "RecursionError"),
        ("none", "NoneType"),
        ("raise", "DataError: the reference answer is unusable"),
        ("write", "PermissionError"),
    ],
)
async def test_a_fault_of_the_verifier_is_an_error(response: str, detail: str) -> None:
    async with make(deadline_s=5.0) as pool:
        verdicts = await ask(pool, "yes", response, "yes")
        assert statuses(verdicts) == ["correct", "error", "correct"]
        assert detail in verdicts[1].detail
    assert not os.path.exists(hostile.PROBE)


async def test_noise_huge_texts_and_environment() -> None:
    async with make() as pool:
        noise, huge, environ = await ask(pool, "print", "huge", "environ")
        assert (noise.status, len(huge.extracted), environ.extracted) == ("wrong", 500, "{}")


async def test_many_groups_at_once_on_two_processes() -> None:
    async with make(processes=2, deadline_s=0.5) as pool:
        jobs = [["yes", "no", "hang" if g == 3 else "exit" if g == 5 else "yes"] for g in range(40)]
        results = await asyncio.gather(*(ask(pool, *job, group_id=g) for g, job in enumerate(jobs)))
        for g, verdicts in enumerate(results):
            assert statuses(verdicts) == ["correct", "wrong", {3: "timeout", 5: "error"}.get(g, "correct")]


async def test_a_cancelled_call_leaves_no_answer_behind() -> None:
    async with make(deadline_s=5.0) as pool:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await ask(pool, "yes", "sleep1", "yes")
        assert statuses(await ask(pool, "no", "no")) == ["wrong", "wrong"]


async def test_processes_are_replaced_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlsp_async.verifying.pool.RECYCLE_AFTER", 3)
    async with make() as pool:
        pids = [(await ask(pool, "pid", "pid"))[0].extracted for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]


async def test_a_killed_fork_server_is_replaced() -> None:
    async with make() as pool:
        await ask(pool, "yes")
        first = await kill_fork_server(pool)
        assert statuses(await ask(pool, "yes", "no")) == ["correct", "wrong"]
        assert pool.fork_server.pid != first


async def kill_fork_server(pool: VerifierPool) -> int:
    """Kills the fork server as the kernel would, waits until the pool has noticed, and returns its process id."""
    pid = pool.fork_server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(5.0):
        while pool.fork_server.is_alive:
            await asyncio.sleep(0.01)
    return pid


async def test_a_verifier_that_cannot_be_loaded(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="did you mean 'math'"):
        async with make("maths"):
            pass
    with pytest.raises(MachineError, match="could not be loaded"):
        async with make("tests.verifying.broken"):
            pass
    assert "broken on purpose" in capfd.readouterr().err


async def test_nothing_is_left_after_close() -> None:
    async with make(processes=2, deadline_s=30.0) as pool:
        pids = [int((await ask(pool, "pid"))[0].extracted) for _ in range(2)]
        hung = asyncio.create_task(ask(pool, "hang"))
        await asyncio.sleep(0.1)
        hung.cancel()
        assert pool.fork_server.pid is not None
        pids.append(pool.fork_server.pid)
    await gone(pids)


async def test_nothing_is_left_after_kill_9_of_the_fork_server() -> None:
    async with make(deadline_s=30.0) as pool:
        pid = int((await ask(pool, "pid"))[0].extracted)
        hung = asyncio.create_task(ask(pool, "hang"))
        await asyncio.sleep(0.2)
        await gone([pid, await kill_fork_server(pool)])
        assert statuses(await hung) == ["error"]


async def test_nothing_is_left_after_kill_9_of_the_service(tmp_path: Path) -> None:
    code = f"""
import asyncio, sys
sys.path.insert(0, {os.getcwd()!r})
from tests.verifying.test_pool import ask, make
async def main():
    async with make(processes=2, deadline_s=60.0) as pool:
        pids = [(await ask(pool, "pid"))[0].extracted for _ in range(2)]
        print(*pids, pool.fork_server.pid, flush=True)
        await asyncio.gather(ask(pool, "hang"), ask(pool, "hang"))
asyncio.run(main())
"""
    service = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert service.stdout is not None
    pids = [int(pid) for pid in (await service.stdout.readline()).split()]
    await asyncio.sleep(0.2)
    service.kill()
    await service.wait()
    assert len(pids) == 3
    await gone(pids)


async def test_in_the_isolated_lane_nothing_is_left_after_kill_9_of_either_process() -> None:
    for victim in ("the process that waits", "the process that forks"):
        async with make("tests.verifying.hostile_isolated", processes=2, deadline_s=5.0) as pool:
            hung = [asyncio.create_task(ask(pool, "hang")) for _ in range(2)]
            outer = psutil.Process(pool.fork_server.pid)
            while len(family := outer.children(recursive=True)) < 2 + pool.restrictions["own process ids"]:
                await asyncio.sleep(0.02)
            (family[0] if pool.restrictions["own process ids"] and "forks" in victim else outer).kill()
            await gone([outer.pid, *(process.pid for process in family)])
            for task in hung:  # one that had not started yet is given to the next fork server
                assert statuses(await task)[0] in ("error", "timeout")


async def test_the_next_answer_is_judged_when_the_process_that_forks_was_killed_a_moment_ago() -> None:
    async with make("tests.verifying.hostile_isolated", deadline_s=10.0) as pool:
        assert statuses(await ask(pool, "yes")) == ["correct"]
        outer = psutil.Process(pool.fork_server.pid)
        (outer.children() or [outer])[0].kill()
        assert statuses(await ask(pool, "yes", "no")) == ["correct", "wrong"]


async def test_the_isolated_lane_leaves_no_dead_processes_and_shows_no_others() -> None:
    async with make("tests.verifying.obedient", deadline_s=10.0) as pool:
        look = "import os\ndef f(x): return str(os.getpid() < 1000 and os.getppid() == 1)"
        is_apart = [verdict.status == "correct" for verdict in await ask_for(pool, "True", *[look] * 10)]
        assert is_apart == [pool.restrictions["own process ids"]] * 10
        await asyncio.sleep(0.1)
        states = [process.status() for process in psutil.Process(pool.fork_server.pid).children(recursive=True)]
        assert states.count("zombie") <= 2


async def ask_for(pool: VerifierPool, answer: str, *responses: str) -> list[Verdict]:
    return await verify_cases(pool, *(("p", response, answer) for response in responses))


async def test_a_verifier_that_runs_what_a_model_wrote_reaches_no_other_process() -> None:
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"], start_new_session=True)
    try:
        before = escapes.state_of(victim.pid)
        async with make("tests.verifying.obedient", deadline_s=10.0) as pool:
            codes = [code.replace("VICTIM", str(victim.pid)) for code in attacks.ON_VICTIM.values()]
            verdicts = await ask_for(pool, "yes", *codes)
        assert not [verdict for verdict in verdicts if verdict.status == "correct"]
        assert victim.poll() is None
        assert escapes.state_of(victim.pid) == before
    finally:
        victim.kill()
        victim.wait()


def test_a_check_that_nobody_kills_ends_by_its_cpu_time() -> None:
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        fork_server.serve_channel(theirs, load_verifier(HOSTILE), "hostile/9", 1)
        os._exit(0)
    theirs.close()
    with ours:
        ours.sendall(fork_server.encode_frame([VerifyItem(prompt="", response="hang", answer="")]))
        assert os.wait4(pid, 0)[1] == signal.SIGPROF


async def gone(pids: list[int]) -> None:
    """Waits, for a bounded time, until none of the processes runs."""
    async with asyncio.timeout(5.0):
        while any(running(pid) for pid in pids):
            await asyncio.sleep(0.02)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_one_process_judges_thousands_with_one_message_for_each_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's own share of the work; benchmarks/lanes.py measures how long it takes."""
    sent: list[object] = []

    def encode(message: object) -> bytes:
        sent.append(message)
        return fork_server.encode_frame(message)

    monkeypatch.setattr("rlsp_async.verifying.pool.encode_frame", encode)
    items = [VerifyItem(prompt="1 1 3 4 -> 7 <think>", response="x " * 40 + "</think> * * +", answer="7")] * 8
    async with make("ops") as pool:
        await asyncio.gather(*(pool.verify(VerifyJob(group_id=g, task="ops", items=items)) for g in range(250)))
        metrics = pool.metrics()
    assert (metrics["verdicts_correct"], metrics["checker_starts"], len(sent)) == (2000.0, 1.0, 250)
