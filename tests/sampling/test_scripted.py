"""The stub engine does what a real one does, as far as a test can see."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlsp_async.errors import EngineError
from rlsp_async.sampling.engine import GenerateSettings
from rlsp_async.sampling.scripted import ScriptedEngine


async def test_script_is_cut_after_a_stop_id_or_at_the_length() -> None:
    engine = ScriptedEngine(script=lambda prompt_ids: [8, 2, 9])
    await engine.start()
    stopped = await engine.generate([1], GenerateSettings(max_new_tokens=9, stop_ids=(2,)))
    assert (stopped.token_ids.tolist(), stopped.finish) == ([8, 2], "stop")
    cut = await engine.generate([1], GenerateSettings(max_new_tokens=1, stop_ids=(2,)))
    assert (cut.token_ids.tolist(), cut.finish) == ([8], "length")


async def test_a_seed_gives_the_same_tokens_and_loads_are_recorded() -> None:
    drawn = []
    for seed in (4, 4, 5):
        engine = ScriptedEngine(seed=seed)
        await engine.start()
        await engine.load_weights(Path("w"), 3)
        completion = await engine.generate([1], GenerateSettings(max_new_tokens=20, stop_ids=(2,)))
        assert (engine.loaded, engine.version, completion.versions[0]) == ([(Path("w"), 3)], 3, 3)
        assert completion.token_ids[-1] == 2
        drawn.append(completion.token_ids.tolist())
    assert drawn[0] == drawn[1] != drawn[2]


async def test_a_killed_engine_raises_until_it_is_started_again() -> None:
    engine = ScriptedEngine()
    await engine.start()
    engine.kill()
    assert engine.errored
    with pytest.raises(EngineError):
        await engine.score([1, 2])
    await engine.start()
    assert (await engine.score([1, 2])).tolist() == [-1.0]
