"""The sampler over the scripted engine: groups, checks of weights, restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlsp_async.columns import floats, ints
from rlsp_async.errors import DataError, DivergedError, EngineError, WeightsError
from rlsp_async.messages import Prompt, SampleJob, Sampling, WeightsRef
from rlsp_async.sampling.sampler import RESTARTS, Sampler, engine_seed
from rlsp_async.sampling.scripted import ScriptedEngine
from rlsp_async.weights.file import FileTransport
from rlsp_async.weights.probe import make_probe

PROBE_IDS = (1, 4, 6)


class FakeCodec:
    """One id a word; ids back to words."""

    stop_ids = (2,)

    def encode(self, prompt: Prompt) -> list[int]:
        return [int(word) for word in prompt.text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))


def make_ref(directory: Path, version: int) -> WeightsRef:
    """Published weights whose probe the scripted engine matches."""
    transport = FileTransport(directory)
    taken = transport.take([("w", torch.ones(2) * version)], version)
    return transport.publish(taken, make_probe(PROBE_IDS, [-0.25, -3.5]))


def make_sampler(config: Any, **engine: Any) -> tuple[Sampler, ScriptedEngine]:
    scripted = ScriptedEngine(**engine)
    return Sampler(config, Path("unused"), "sampler-0", engine=scripted, codec=FakeCodec()), scripted


async def test_a_group_carries_ids_logprobs_versions_and_text(make_config: Any, job: SampleJob) -> None:
    sampler, _ = make_sampler(make_config(), script=lambda prompt_ids: [*prompt_ids, 7, 2, 9])
    async with sampler:
        group = await sampler.sample(job)
    assert (group.group_id, group.prompt, group.sampling, group.stage) == (9, job.prompt, job.sampling, "only")
    assert ints(group.prompt_ids).tolist() == [2, 3]
    assert [rollout.index for rollout in group.rollouts] == [0, 1, 2]
    assert ints(group.rollouts[0].token_ids).tolist() == [2]  # the script's first id is a stop id
    other = msg_with(job, text="5 3")
    sampler, _ = make_sampler(make_config(), script=lambda prompt_ids: [*prompt_ids, 7, 2, 9])
    async with sampler:
        rollout = (await sampler.sample(other)).rollouts[2]
    assert ints(rollout.token_ids).tolist() == [5, 3, 7, 2]
    assert floats(rollout.logprobs).tolist() == [-0.5] * 4
    assert ints(rollout.versions).tolist() == [0] * 4
    assert (rollout.text, rollout.finish, rollout.sampler) == ("5 3 7", "stop", "sampler-0")


async def test_length_is_cut_to_the_window_and_a_prompt_that_fills_it_is_bad_data(
    make_config: Any, job: SampleJob
) -> None:
    sampler, _ = make_sampler(make_config(), script=lambda prompt_ids: [7] * 50, window=6)
    async with sampler:
        rollout = (await sampler.sample(msg_with(job, text="4 5"))).rollouts[0]
        assert (ints(rollout.token_ids).tolist(), rollout.finish, rollout.text) == ([7] * 4, "length", "7 7 7 7")
        with pytest.raises(DataError, match="'t/1' has 6 tokens, the window is 6"):
            await sampler.sample(msg_with(job, text="4 5 6 7 8 9"))


async def test_versions_change_in_flight_and_metrics_count(make_config: Any, job: SampleJob, tmp_path: Path) -> None:
    now = 100.0
    engine = ScriptedEngine(script=lambda ids: [7] * 6, latency_s=0.4)
    sampler = Sampler(make_config(), Path("unused"), "sampler-0", engine=engine, codec=FakeCodec(), clock=lambda: now)
    async with sampler:
        running = asyncio.create_task(sampler.sample(job))
        await asyncio.sleep(0.1)
        now += 7.0
        assert await sampler.load(make_ref(tmp_path, 5)) == 0.0
        assert await sampler.load(make_ref(tmp_path, 5)) == 0.0
        group = await running
        figures = sampler.metrics()
    assert engine.loaded == [(tmp_path / "v000005-0.safetensors", 5)]  # the second was known already
    versions = ints(group.rollouts[0].versions).tolist()
    assert versions == sorted(versions)
    assert set(versions) == {0, 5}
    assert (figures["tokens"], figures["rollouts"], figures["groups"]) == (18, 3, 1)
    assert (figures["busy_s"], figures["loading_s"]) == (7.0, 0.0)
    assert sampler.metrics()["tokens"] == 0


async def test_an_engine_that_computes_another_model_ends_before_it_samples(make_config: Any, tmp_path: Path) -> None:
    from rlsp_async.weights.probe import read_initial_probe, write_initial_probe

    assert read_initial_probe(tmp_path) is None
    write_initial_probe(tmp_path, make_probe(PROBE_IDS, [-0.25, -3.5]))
    for scores, sentence in (
        ([-0.25, -3.5], ""),
        ([-0.25, -3.0], r"off by 0\.5, tolerance 0\.001"),
        ([-0.25], "off by inf"),
    ):

        class Engine(ScriptedEngine):
            async def score(self, ids: Sequence[int], scores: list[float] = scores) -> Any:
                assert tuple(ids) == PROBE_IDS
                return np.array(scores, np.float32)

        engine = Engine()
        probe = read_initial_probe(tmp_path)
        sampler = Sampler(make_config(), Path("m"), "sampler-0", engine=engine, codec=FakeCodec(), probe=probe)
        if not sentence:
            async with sampler:
                continue
        with pytest.raises(
            DataError, match=f"m: the scripted engine computes another model than the learner: .* {sentence}"
        ):
            await sampler.__aenter__()
    (tmp_path / "probe.json").write_text("[]")
    with pytest.raises(DataError, match=r"probe\.json: holds no probe"):
        read_initial_probe(tmp_path)


async def test_wrong_bytes_are_refused_with_both_digests(make_config: Any, job: SampleJob, tmp_path: Path) -> None:
    sampler, engine = make_sampler(make_config())
    async with sampler:
        ref = make_ref(tmp_path, 5)
        path = tmp_path / "v000005-0.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        with pytest.raises(WeightsError, match=f"version 5.*sha256.*{ref.digest}"):
            await sampler.load(ref)
        assert engine.loaded == []
        with pytest.raises(EngineError, match="serves nothing"):
            await sampler.sample(job)
        await sampler.load(make_ref(tmp_path, 6))
        assert ints((await sampler.sample(job)).rollouts[0].versions)[0] == 6


async def test_a_wrong_probe_is_refused_and_voids_the_groups_in_flight(
    make_config: Any, job: SampleJob, tmp_path: Path
) -> None:
    sampler, engine = make_sampler(make_config(probe_tolerance=0.01), latency_s=0.05)
    async with sampler:
        running = asyncio.create_task(sampler.sample(job))
        await asyncio.sleep(0.02)
        engine.wrong_by = 0.02
        with pytest.raises(WeightsError, match=r"version 3.*off by 0\.02"):
            await sampler.load(make_ref(tmp_path, 3))
        with pytest.raises(EngineError, match="void"):
            await running
        with pytest.raises(EngineError, match="serves nothing"):
            await sampler.sample(job)
        engine.wrong_by = 0.009
        assert await sampler.load(make_ref(tmp_path, 4)) == pytest.approx(0.009, abs=1e-6)
        await sampler.sample(job)


async def test_a_group_that_ends_during_a_check_waits_for_the_verdict(
    make_config: Any, job: SampleJob, tmp_path: Path
) -> None:
    sampler, engine = make_sampler(make_config(), latency_s=0.02)
    checked = asyncio.Event()
    score = engine.score

    async def slow_score(ids: Sequence[int]) -> Any:
        await checked.wait()
        return await score(ids) + 1

    engine.score = slow_score  # type: ignore[method-assign]
    async with sampler:
        running = asyncio.create_task(sampler.sample(job))
        loading = asyncio.create_task(sampler.load(make_ref(tmp_path, 3)))
        await asyncio.sleep(0.1)
        assert not running.done()
        checked.set()
        with pytest.raises(WeightsError):
            await loading
        with pytest.raises(EngineError, match="void"):
            await running


async def test_a_dead_engine_is_started_again_with_the_newest_weights_within_a_budget(
    make_config: Any, job: SampleJob, tmp_path: Path
) -> None:
    sampler, engine = make_sampler(make_config())
    async with sampler:
        await sampler.load(make_ref(tmp_path, 8))
        for restart in range(1, RESTARTS + 1):
            engine.fail_next = True
            with pytest.raises(EngineError, match="dead"):
                await sampler.sample(job)
            group = await sampler.sample(job)
            assert engine.num_starts == 1 + restart
            assert {int(v) for rollout in group.rollouts for v in ints(rollout.versions)} == {8}
        engine.kill()
        with pytest.raises(DivergedError, match="died 4 times"):
            await sampler.sample(job)
    assert [version for _, version in engine.loaded] == [8] * (1 + RESTARTS)


async def test_after_a_restart_pruned_weights_serve_nothing_until_the_next_come(
    make_config: Any, job: SampleJob, tmp_path: Path
) -> None:
    sampler, engine = make_sampler(make_config())
    async with sampler:
        await sampler.load(make_ref(tmp_path, 8))
        (tmp_path / "v000008-0.safetensors").unlink()
        engine.kill()
        with pytest.raises(EngineError, match="after a restart: version 8"):
            await sampler.sample(job)
        await sampler.load(make_ref(tmp_path, 9))
        assert ints((await sampler.sample(job)).rollouts[0].versions)[0] == 9


async def test_an_engine_that_dies_of_a_version_twice_refuses_it(
    make_config: Any, job: SampleJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler, engine = make_sampler(make_config())

    async def dies(path: Path, version: int) -> None:
        engine.kill()
        raise EngineError("half loaded")

    async with sampler:
        with monkeypatch.context() as patch:
            patch.setattr(engine, "load_weights", dies)
            with pytest.raises(WeightsError, match=r"version 5.*twice"):
                await sampler.load(make_ref(tmp_path, 5))
        with pytest.raises(EngineError, match="serves nothing"):
            await sampler.sample(job)
        await sampler.load(make_ref(tmp_path, 6))
        await sampler.sample(job)


async def test_a_cancelled_group_leaves_nothing_in_flight(make_config: Any, job: SampleJob) -> None:
    sampler, _ = make_sampler(make_config(), latency_s=5.0)
    async with sampler:
        running = asyncio.create_task(sampler.sample(job))
        await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert sampler.num_in_flight == 0


def test_seeds_differ_between_workers_and_runs_and_are_stable() -> None:
    seeds = [engine_seed(run, f"sampler-{worker}") for run in range(3) for worker in range(3)]
    assert len(set(seeds)) == 9
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert engine_seed(0, "sampler-0") == seeds[0]


def msg_with(job: SampleJob, text: str) -> SampleJob:
    """The job with another prompt, room for 20 tokens."""
    prompt = Prompt(prompt_id="t/1", task="t", text=text, answer="")
    return SampleJob(group_id=1, prompt=prompt, sampling=Sampling(rollouts=3, max_new_tokens=20))
