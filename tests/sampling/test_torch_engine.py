"""The torch engine against Hugging Face's forward pass."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rlsp_async.errors import ConfigError, DataError, EngineError, WeightsError
from rlsp_async.sampling import torch_batch
from rlsp_async.sampling.engine import GenerateSettings
from rlsp_async.sampling.torch_batch import DecodeRow, draw, prefill_batches
from rlsp_async.sampling.torch_engine import TorchEngine

PROMPTS = [[5], [1, 7, 8, 9], [1, 7, 8, 9], [3, 4, 5, 6, 7, 8, 9, 10, 11], [1, 9]]


@pytest.mark.parametrize(("kind", "tied", "kv_heads"), [("llama", True, 4), ("llama", False, 2), ("qwen2", True, 2)])
async def test_logprobs_are_those_of_the_hf_model_at_the_temperature(
    make_model: Any, make_config: Any, reference: Any, kind: str, tied: bool, kv_heads: int
) -> None:
    model = make_model(kind, tied, kv_heads)
    engine = TorchEngine(make_config(max_sequences=3), model, seed=1)  # 5 rollouts in 3 rows: admission, compaction
    await engine.start()
    settings = [
        GenerateSettings(max_new_tokens=n, temperature=t)
        for n, t in [(20, 1.0), (5, 0.7), (11, 0.7), (9, 1.6), (30, 1.0)]
    ]
    done = await asyncio.gather(*(engine.generate(p, s) for p, s in zip(PROMPTS, settings, strict=True)))
    await engine.close()
    for prompt, setting, completion in zip(PROMPTS, settings, done, strict=True):
        wanted = reference(model, prompt + completion.token_ids.tolist(), setting.temperature)[len(prompt) - 1 :]
        np.testing.assert_allclose(completion.logprobs, wanted, atol=1e-4)
        assert (len(completion.token_ids), completion.finish) == (setting.max_new_tokens, "length")
        assert completion.versions.tolist() == [0] * setting.max_new_tokens


async def test_score_is_at_temperature_one(make_model: Any, make_config: Any, reference: Any) -> None:
    model = make_model("qwen2", False, 2)
    engine = TorchEngine(make_config(), model, seed=1)
    await engine.start()
    ids = [1, 5, 9, 2, 33, 60, 7]
    np.testing.assert_allclose(await engine.score(ids), reference(model, ids), atol=1e-4)
    await engine.close()


async def test_a_swap_in_flight_changes_version_and_distribution_from_one_token_on(
    make_model: Any, make_config: Any, reference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = make_model(seed=0), make_model(seed=1)
    engine = TorchEngine(make_config(), old, seed=1)
    await engine.start()
    halted, go_on = hold_at_step(monkeypatch, 20)
    settings = GenerateSettings(max_new_tokens=60)
    running = [asyncio.create_task(engine.generate([1, 7], settings)) for _ in range(8)]
    assert await asyncio.to_thread(halted.wait, 10)
    loading = asyncio.create_task(engine.load_weights(new / "model.safetensors", 17))
    await asyncio.sleep(0)  # it is in the mailbox now
    go_on.set()
    await loading
    assert engine.version == 17
    done = await asyncio.gather(*running)
    fresh = await engine.generate([1, 7, 8], GenerateSettings(max_new_tokens=9))
    scores = await engine.score([1, 7, 8, 9])
    await engine.close()
    assert fresh.versions.tolist() == [17] * 9
    np.testing.assert_allclose(fresh.logprobs, reference(new, [1, 7, 8, *fresh.token_ids.tolist()])[2:], atol=1e-4)
    np.testing.assert_allclose(scores, reference(new, [1, 7, 8, 9]), atol=1e-4)
    assert max(completion.versions.tolist().count(0) for completion in done) == 20
    for completion in done:
        versions = completion.versions.tolist()
        before = versions.count(0)
        assert versions == [0] * before + [17] * (60 - before)
        of_old = reference(old, [1, 7, *completion.token_ids.tolist()])[1:]
        np.testing.assert_allclose(completion.logprobs[:before], of_old[:before], atol=1e-4)
        assert abs(completion.logprobs[before] - of_old[before]) > 1e-3


def hold_at_step(monkeypatch: pytest.MonkeyPatch, step: int) -> tuple[threading.Event, threading.Event]:
    """The engine stops in its `step`-th decode step, sets the first event and goes on at the second."""
    halted, go_on, count = threading.Event(), threading.Event(), itertools.count(1)

    def held(logp: torch.Tensor, random: torch.Tensor) -> torch.Tensor:
        if next(count) == step:
            halted.set()
            assert go_on.wait(10)
        return draw(logp, random)

    monkeypatch.setattr(torch_batch, "draw", held)
    return halted, go_on


async def test_stops_at_a_stop_id_and_is_cut_at_the_window(make_model: Any, make_config: Any) -> None:
    engine = TorchEngine(make_config(), make_model(), seed=3)
    await engine.start()
    stops = tuple(range(2, 30))
    stopped = await engine.generate([1, 40], GenerateSettings(max_new_tokens=50, stop_ids=stops))
    assert stopped.finish == "stop"
    assert [token in stops for token in stopped.token_ids.tolist()] == [False] * (len(stopped.token_ids) - 1) + [True]
    cut = await engine.generate([7] * 60, GenerateSettings(max_new_tokens=50))
    assert (len(cut.token_ids), cut.finish) == (4, "length")
    with pytest.raises(DataError, match=r"64 tokens .* window of 64"):
        await engine.generate([7] * 64, GenerateSettings(max_new_tokens=1))
    await engine.close()


async def test_equal_seeds_sample_equal_rollouts_and_others_do_not(make_model: Any, make_config: Any) -> None:
    model, drawn = make_model(), []
    for seed in (1, 1, 2):
        engine = TorchEngine(make_config(), model, seed)
        await engine.start()
        drawn.append((await engine.generate([1, 5], GenerateSettings(max_new_tokens=30))).token_ids.tolist())
        await engine.close()
    assert drawn[0] == drawn[1] != drawn[2]


async def test_a_seed_of_a_rollout_decides_its_tokens_whatever_decodes_beside_it(
    make_model: Any, make_config: Any
) -> None:
    engine = TorchEngine(make_config(max_sequences=6), make_model(), seed=1)
    await engine.start()

    def group(prompt: list[int], number: int, together: int = 3) -> list[Any]:
        settings = [GenerateSettings(max_new_tokens=40, seed=(7, number, i), together=together) for i in range(3)]
        return [engine.generate(prompt, setting) for setting in settings]

    alone = await asyncio.gather(*group([1, 7, 8], 5))
    shared = asyncio.gather(*(engine.generate([1, 9, 4, 4, n], GenerateSettings(max_new_tokens=50)) for n in range(9)))
    mixed = await asyncio.gather(*group([1, 7, 8], 6), *reversed(group([1, 7, 8], 5)), *group([3] * 20, 7))
    batched = await asyncio.gather(*group([1, 7, 8], 5, together=0), *group([3] * 20, 7, together=0))
    await shared
    await engine.close()
    for first, again in zip(alone, reversed(mixed[3:6]), strict=True):
        assert first.token_ids.tolist() == again.token_ids.tolist()
        assert first.logprobs.tobytes() == again.logprobs.tobytes()
    assert [c.token_ids.tolist() for c in batched[:3]] == [c.token_ids.tolist() for c in alone]
    assert len({tuple(c.token_ids.tolist()) for c in (*alone, *mixed[:3])}) == 6, "two rollouts share random numbers"


async def test_a_group_that_is_cancelled_leaves_no_place_behind(make_model: Any, make_config: Any) -> None:
    engine = TorchEngine(make_config(max_sequences=3), make_model(), seed=1)
    await engine.start()
    settings = [GenerateSettings(max_new_tokens=40, seed=(7, 1, i), together=3) for i in range(3)]
    two = [asyncio.create_task(engine.generate([1, 7], setting)) for setting in settings[:2]]  # the third never comes
    await asyncio.sleep(0)
    for task in two:
        task.cancel()
    await asyncio.gather(*two, return_exceptions=True)
    done = await asyncio.gather(*(engine.generate([1, 7], setting) for setting in settings))
    assert [len(completion.token_ids) for completion in done] == [40, 40, 40]
    waiting = asyncio.create_task(engine.generate([1, 7], settings[0]))
    await asyncio.sleep(0)
    await engine.close()
    with pytest.raises(EngineError, match="closed"):
        await waiting


async def test_foreign_weights_are_refused_and_nothing_is_half_loaded(
    make_model: Any, make_config: Any, reference: Any, tmp_path: Path
) -> None:
    model = make_model()
    engine = TorchEngine(make_config(), model, seed=1)
    await engine.start()
    tensors = {name: tensor + 1 for name, tensor in load_file(model / "model.safetensors").items()}
    tensors["model.norm.weight"] = torch.zeros(7)
    save_file(tensors, tmp_path / "shape.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, tmp_path / "missing.safetensors")
    with pytest.raises(WeightsError, match="shape"):
        await engine.load_weights(tmp_path / "shape.safetensors", 1)
    with pytest.raises(WeightsError, match="norm"):
        await engine.load_weights(tmp_path / "missing.safetensors", 1)
    assert engine.version == 0
    np.testing.assert_allclose(await engine.score([1, 2, 3]), reference(model, [1, 2, 3]), atol=1e-4)
    await engine.close()


async def test_a_death_and_a_close_fail_what_runs_and_a_cancelled_caller_frees_its_row(
    make_model: Any, make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TorchEngine(make_config(max_sequences=1), make_model(), seed=1)
    await engine.start()
    first = asyncio.create_task(engine.generate([1], GenerateSettings(max_new_tokens=60)))
    await asyncio.sleep(0.003)
    first.cancel()
    assert len((await engine.generate([1], GenerateSettings(max_new_tokens=4))).token_ids) == 4
    monkeypatch.setattr(torch_batch, "draw", lambda logp, generator: 1 / 0)
    with pytest.raises(EngineError, match="ZeroDivisionError"):
        await engine.generate([1], GenerateSettings(max_new_tokens=4))
    monkeypatch.undo()
    assert engine.errored
    await engine.close()
    await engine.start()
    halted, go_on = hold_at_step(monkeypatch, 5)
    running = asyncio.create_task(engine.generate([1], GenerateSettings(max_new_tokens=60)))
    assert await asyncio.to_thread(halted.wait, 10)
    closing = asyncio.create_task(engine.close())
    await asyncio.sleep(0)
    go_on.set()
    await closing
    with pytest.raises(EngineError, match="closed"):
        await running


def test_draw_follows_the_distribution() -> None:
    p = torch.tensor([0.0, 0.5, 0.3, 0.2, 0.0])
    random = torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn = draw(p.log().expand(20_000, 5), random)
    frequency = torch.bincount(drawn, minlength=5) / 20_000
    torch.testing.assert_close(frequency, p, atol=0.015, rtol=0)
    assert frequency[0] == frequency[4] == 0


def test_prefill_batches_count_a_shared_prompt_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_batch, "PREFILL_TOKENS", 8)
    rows = [DecodeRow((n,) * 4, GenerateSettings(max_new_tokens=1)) for n in (1, 1, 1, 2, 3, 3)]
    assert [[row.prompt_ids[0] for row in batch] for batch in prefill_batches(rows)] == [[1, 1, 1, 2], [3, 3]]


def test_what_cannot_work_is_said_before_anything_starts(make_model: Callable[..., Path], make_config: Any) -> None:
    with pytest.raises(ConfigError, match=r"sampler\.memory"):
        TorchEngine(make_config(memory=1e-6), make_model(), seed=1)
    with pytest.raises(DataError, match="has no config"):
        TorchEngine(make_config(), Path("/nowhere"), seed=1)
