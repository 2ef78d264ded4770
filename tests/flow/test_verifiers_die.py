"""Verifiers are killed, frozen and gone for longer than the hub waits for a sign: what is trained on is still only what a
verifier really said of the very rollout."""

import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from rlsp_async.messages import RolloutGroup, Verdict
from tests.flow import stub

pytestmark = [pytest.mark.flow, pytest.mark.alone, pytest.mark.timeout(300)]

STEPS = 160
NAMES = [f"verifier-{i}" for i in range(4)]
DOWN_S = 5.0
"""Above replay.timeout_s = 3 of the stub run."""
PARTS = ("correct", "letters")
"""What the verifier itself gives; the pool counts search steps beside it."""


class Verifiers:
    """Four services of one checker each, started and killed here; the supervisor knows none of them."""

    def __init__(self, run: Path) -> None:
        self._run, self._out = run, (run.parent / "verifiers.out").open("ab")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in NAMES:
            self.start(name)

    def start(self, name: str) -> None:
        command = [*stub.RLSP, "verifier", str(self._run / "config.toml"), "--worker", name]
        self.processes[name] = subprocess.Popen(
            command,
            cwd=self._run,
            env=stub.environment(self._run),
            stdout=self._out,
            stderr=self._out,
            start_new_session=True,
        )

    def checkers(self, name: str) -> list[psutil.Process]:
        """The children of its fork server: they judge answers, and each may die at any moment."""
        try:
            return [
                child for server in psutil.Process(self.processes[name].pid).children() for child in server.children()
            ]
        except psutil.NoSuchProcess:
            return []

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()

    def signal(self, names: list[str], signum: signal.Signals) -> None:
        for name in names:
            self.processes[name].send_signal(signum)

    def close(self) -> None:
        for name in NAMES:
            self.kill(name)
        self._out.close()


def test_half_of_the_verifiers_killed_at_random_and_all_of_them_down(tmp_path: Path, model: Path) -> None:
    stub.write_modules(tmp_path, verifier_s=0.05)
    run = stub.stub_run(
        tmp_path,
        model,
        f"stages.rl.steps={STEPS}",
        "verifier.count=0",
        "verifier.processes=1",
        "verifier.groups_in_flight=2",
        "stages.rl.target_lag=3",
    )
    rng = random.Random(5)
    with stub.running(run) as process:
        verifiers = Verifiers(run)
        try:
            stub.wait_for(lambda: stub.last_step(run) >= 3, "step 3")
            num_killed = sum(kill_half(verifiers, rng) for _ in range(6))
            before = stub.last_step(run)
            verifiers.signal(NAMES[:2], signal.SIGSTOP)
            for name in NAMES[2:]:
                verifiers.kill(name)
            time.sleep(DOWN_S)
            stub.wait_for(lambda: connected(run) == set(), "the hub to miss all verifiers", 20.0)
            assert stub.last_step(run) <= before + 6, "somebody judged while all were down"
            verifiers.signal(NAMES[:2], signal.SIGCONT)
            for name in NAMES[2:]:
                verifiers.start(name)
            assert process.wait(timeout=120) == 0, run.with_suffix(".out").read_text()
        finally:
            verifiers.close()
    assert num_killed >= 12
    assert stub.last_step(run) == STEPS
    assert before < STEPS
    check_verdicts(run)
    stub.audited(run)


def connected(run: Path) -> set[str]:
    """Verifiers that the hub takes for living."""
    query = "SELECT worker, kind FROM events WHERE worker LIKE 'verifier%' AND kind IN ('joined', 'gone') ORDER BY seq"
    return {worker for worker, kind in dict(stub.rows(run, query)).items() if kind == "joined"}


def kill_half(verifiers: Verifiers, rng: random.Random) -> int:
    """Two services at random, which are started again, and the checker of each of the others; how many were killed."""
    time.sleep(rng.uniform(0.2, 1.0))
    down = rng.sample(NAMES, 2)
    for name in down:
        verifiers.kill(name)
    killed = 0
    for name in [name for name in NAMES if name not in down]:
        for checker in verifiers.checkers(name)[:1]:
            checker.kill()
            killed += 1
    for name in down:
        verifiers.start(name)
    return killed + len(down)


def check_verdicts(run: Path) -> None:
    """Every verdict of the journal is the one that the verifier gives of the stored rollout, and no other was trained."""
    query = """SELECT g.uses, g.num_verdicts, b.body, v.verdicts FROM groups g JOIN bodies b USING (group_id)
               LEFT JOIN verdicts v USING (group_id)"""
    trained, seen = 0, set()
    for uses, num_verdicts, body, verdicts in stub.rows(run, query):
        group = stub.decoded(body, RolloutGroup)
        given = [] if verdicts is None else stub.decoded(verdicts, list[Verdict])
        assert verdicts is not None or uses == 0
        trained += uses
        if verdicts is not None:
            expected = [judged(rollout.text) for rollout in group.rollouts]
            assert [(v.verifier, v.status, {name: v.parts[name] for name in PARTS}) for v in given] == expected
            assert num_verdicts == len(expected) == 2
            seen.update(v.status for v in given)
    assert trained == 2 * STEPS
    assert seen == {"correct", "wrong"}


def judged(text: str) -> tuple[str, str, dict[str, float]]:
    """What `mine.parity` says, worked out here again."""
    right = float(sum(map(ord, text)) % 2)
    return "parity/1", "correct" if right else "wrong", {"correct": right, "letters": float(len(text))}
