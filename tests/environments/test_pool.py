"""Environments in their processes: bounded steps, named failures, nothing left behind. Real processes."""

from pathlib import Path

import pytest

from rlsp_async.config import EnvironmentConfig
from rlsp_async.environments.base import End, Observation
from rlsp_async.environments.fork_server import OBSERVATION_CHARACTERS, Step, answer
from rlsp_async.environments.pool import EnvironmentPool
from rlsp_async.errors import ConfigError, EngineError
from rlsp_async.messages import Prompt

PROMPT = Prompt(prompt_id="p", task="t", text="q", answer="a")
HOSTILE = """
import os, time
from rlsp_async.environments.base import End, Observation

VERSION = "3"

class Hostile:
    tools = ()

    def reset(self, prompt, seed):
        self.num = 0
        return Observation(text=f"{prompt.answer} {seed}")

    def step(self, text):
        self.num += 1
        if text == "loop":
            while True:
                pass
        if text == "die":
            os._exit(3)
        if text == "raise":
            raise KeyError("no such thing")
        if text == "long":
            return Observation(text="x" * 10_000_000)
        if text == "half":
            return Observation(text="\\ud800")
        if text == "nan":
            return End(parts={"correct": float("nan")})
        if text == "write":
            open("/tmp/rlsp-escaped", "w")
        if text == "nothing":
            return None
        return End(parts={"correct": 1.0, "num": self.num}) if text == "end" else Observation(text=text)

def make(options):
    return Hostile()
"""


@pytest.fixture
async def pool(tmp_path):
    path = tmp_path / "hostile.py"
    path.write_text(HOSTILE)
    async with EnvironmentPool(EnvironmentConfig(name=str(path), turn_s=1.0, episode_s=30.0), 1024) as made:
        yield made


async def test_what_an_environment_does_stays_in_its_process_and_has_a_bound(pool):
    child = await pool.open()
    assert await child.reset(PROMPT, 7) == Observation(text="a 7")
    assert await child.step("\u00e4\u4f60 <eos>") == Observation(text="\u00e4\u4f60 <eos>")
    cut = (await child.step("long")).text
    assert len(cut) == OBSERVATION_CHARACTERS and cut.endswith(" [cut: 10,000,000 characters]")
    assert await child.step("end") == End(parts={"correct": 1.0, "num": 3.0})
    child.close()
    for text, why in (
        ("raise", "KeyError: 'no such thing'"),
        ("half", "UnicodeEncodeError"),
        ("nan", "not a finite number"),
        ("nothing", "NoneType is neither"),
        ("write", "PermissionError|OSError"),
        ("die", "its process died"),
        ("loop", "turn_s = 1 s"),
    ):
        child = await pool.open()
        await child.reset(PROMPT, 7)
        with pytest.raises(EngineError, match=why):
            await child.step(text)
        child.close()
    assert not Path("/tmp/rlsp-escaped").exists()
    assert pool.fork_server.is_alive


async def talk(child):
    """Goes on until the kernel has killed the child with its parent, in a moment."""
    for _ in range(100_000):
        await child.step("more")


async def test_a_rollout_has_a_bound_in_all_and_a_dead_fork_server_is_replaced(pool):
    child = await pool.open()
    await child.reset(PROMPT, 7)
    child.seconds = 30.0
    with pytest.raises(EngineError, match="episode_s = 30 s"):
        await child.step("more")
    child = await pool.open()
    await child.reset(PROMPT, 7)
    pool.fork_server._process.kill()
    assert await pool.fork_server.has_ended()
    with pytest.raises(EngineError, match="its process died"):
        await talk(child)
    child = await pool.open()
    assert await child.reset(PROMPT, 8) == Observation(text="a 8")
    child.close()


async def test_an_environment_that_cannot_be_loaded_is_one_sentence():
    with pytest.raises(ConfigError, match="did you mean 'calculator'"):
        async with EnvironmentPool(EnvironmentConfig(name="calculater"), 1024):
            pass


def test_an_end_at_the_beginning_and_too_many_parts_are_failures():
    class Many:
        tools = ()

        def step(self, text):
            return End(parts={str(n): 1.0 for n in range(65)})

    assert answer(Many(), Step(text="")).text.startswith("ValueError: an End of 65 parts")
