"""The real vLLM engine on the CPU: one start for the module, and one after its child is killed (the last test)."""

from __future__ import annotations

import asyncio
import os
import signal
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import pytest_asyncio
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from rlsp_async.columns import ints
from rlsp_async.config import RunConfig, StageConfig
from rlsp_async.config import SamplerConfig as SamplerSection
from rlsp_async.errors import DataError, EngineError, WeightsError
from rlsp_async.messages import Prompt, Pull, SampleJob, Sampling, WeightsRef
from rlsp_async.sampling.check import directory_totals
from rlsp_async.sampling.engine import Completion, GenerateSettings
from rlsp_async.sampling.engines import has_vllm
from rlsp_async.sampling.sampler import Sampler
from rlsp_async.sampling.vllm_engine import VllmEngine, versions_of
from rlsp_async.weights.file import FileTransport
from rlsp_async.weights.probe import make_probe
from rlsp_async.weights.snapshot import read_plan
from rlsp_async.weights.sums import total

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(240),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not has_vllm(), reason="vllm is not installed"),
    # A killed engine leaves its sockets' context to the garbage collector: vLLM's, not ours to close.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <function Context.__del__:pytest.PytestUnraisableExceptionWarning"
    ),
    pytest.mark.filterwarnings("ignore:Unclosed context:ResourceWarning"),
]

VOCAB = 124
PROBE_IDS = [1, 9, 33, 7, 120, 64]


def make_model(directory: Path, seed: int) -> Path:
    """A tied Llama with head size 32 (what vLLM needs on a CPU) and peaked distributions."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        intermediate_size=96,
        vocab_size=VOCAB,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.15,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def reference(directory: Path, ids: list[int], temperature: float = 1.0) -> np.ndarray[Any, Any]:
    """Log-probs [N-1] of ids[1:] by Hugging Face's forward pass."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    with torch.no_grad():
        logp = torch.log_softmax(model(torch.tensor([ids])).logits[0, :-1] / temperature, -1)
    return logp.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].numpy()


def make_ref(model: Path, directory: Path, version: int, probed: Path | None = None) -> WeightsRef:
    """`model`'s weights as a version, with the probe of `probed` (itself by default)."""
    tensors = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).state_dict()
    named = [(name, tensor) for name, tensor in tensors.items() if name != "lm_head.weight"]
    transport = FileTransport(directory)
    probe = make_probe(PROBE_IDS, reference(probed or model, PROBE_IDS))
    return transport.publish(transport.take(named, version), probe)


class WordCodec:
    """One id a word."""

    stop_ids = ()

    def encode(self, prompt: Prompt) -> list[int]:
        return [int(word) for word in prompt.text.split()]

    def decode(self, ids: Any) -> str:
        return " ".join(map(str, ids))


def make_job(text: str, rollouts: int = 4) -> SampleJob:
    prompt = Prompt(prompt_id="t/1", task="t", text=text, answer="")
    return SampleJob(group_id=1, prompt=prompt, sampling=Sampling(rollouts=rollouts, max_new_tokens=400))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    directory = tmp_path_factory.mktemp("models")
    return [make_model(directory / str(seed), seed) for seed in range(3)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(models: list[Path]) -> AsyncIterator[VllmEngine]:
    section = SamplerSection(engine="vllm", memory=0.1, max_sequences=64)
    engine = VllmEngine(RunConfig(name="t", stages={"only": StageConfig()}, sampler=section), models[0], seed=5)
    await engine.start()
    yield engine
    await engine.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sampler(engine: VllmEngine, models: list[Path]) -> Sampler:
    cfg = RunConfig(name="t", stages={"only": StageConfig()})
    return Sampler(cfg, models[0], "sampler-0", engine=engine, codec=WordCodec())


async def test_logprobs_are_those_of_the_hf_model_at_the_temperature(engine: VllmEngine, models: list[Path]) -> None:
    for temperature in (1.0, 0.7):
        settings = GenerateSettings(max_new_tokens=40, temperature=temperature, stop_ids=(2,))
        done = await asyncio.gather(*(engine.generate([1, 5, token], settings) for token in (6, 6, 7)))
        assert done[0].token_ids.tolist() != done[1].token_ids.tolist()
        for token, completion in zip((6, 6, 7), done, strict=True):
            ids = [1, 5, token, *completion.token_ids.tolist()]
            np.testing.assert_allclose(completion.logprobs, reference(models[0], ids, temperature)[2:], atol=1e-3)
            assert set(completion.versions.tolist()) == {0}
            assert (completion.finish == "stop") == (ids[-1] == 2)
    np.testing.assert_allclose(await engine.score(PROBE_IDS), reference(models[0], PROBE_IDS), atol=1e-3)


async def test_the_sum_of_what_the_worker_holds_is_that_of_the_files_and_misses_a_tensor_that_is_left_out(
    engine: VllmEngine, models: list[Path], tmp_path: Path
) -> None:
    assert await engine.live_total() in directory_totals(models[0], torch.float32)
    tensors = load_file(models[1] / "model.safetensors")
    left_out = sorted(name for name in tensors if "down_proj" in name)[0]
    save_file({name: tensor for name, tensor in tensors.items() if name != left_out}, tmp_path / "part")
    await engine.load_weights(tmp_path / "part", 1)
    published = total(read_plan(models[1] / "model.safetensors"))
    assert await engine.live_total() != published
    await engine.load_weights(models[1] / "model.safetensors", 1)
    assert await engine.live_total() == published
    await engine.load_weights(models[0] / "model.safetensors", 0)


async def test_prompts_that_fill_the_window_are_bad_data(engine: VllmEngine, sampler: Sampler) -> None:
    assert engine.window == 512
    with pytest.raises(DataError, match="512"):
        await engine.generate([5] * 512, GenerateSettings(max_new_tokens=1))
    with pytest.raises(DataError, match="'t/1' has 600 tokens"):
        await sampler.sample(make_job("7 " * 600))
    assert len((await engine.generate([5] * 506, GenerateSettings(max_new_tokens=50))).token_ids) == 6


async def test_weights_change_in_flight_and_the_tied_head_with_them(
    engine: VllmEngine, sampler: Sampler, models: list[Path], tmp_path: Path
) -> None:
    ref = make_ref(models[1], tmp_path, 17)
    settings = GenerateSettings(max_new_tokens=400)
    running = [asyncio.create_task(engine.generate([1, 5, 6], settings)) for _ in range(48)]
    await engine.generate([1, 5, 6], GenerateSettings(max_new_tokens=30))
    assert await sampler.load(ref) < 1e-3
    assert engine.version == 17
    done = await asyncio.gather(*running)
    assert {completion.finish for completion in done} == {"length"}
    assert {tuple(sorted(set(completion.versions.tolist()))) for completion in done} == {(0, 17)}
    for completion in done[:6]:
        check_both_sides(completion, models)
    fresh = await engine.generate([1, 5, 6], settings)
    wanted = reference(models[1], [1, 5, 6, *fresh.token_ids.tolist()])[2:]
    np.testing.assert_allclose(fresh.logprobs, wanted, atol=1e-3)


async def test_a_prompt_seen_before_a_swap_is_computed_anew(
    engine: VllmEngine, sampler: Sampler, models: list[Path], tmp_path: Path
) -> None:
    prompt, settings = [1, *range(3, 103)], GenerateSettings(max_new_tokens=20)
    for version, model in ((17, models[1]), (21, models[2])):  # three full blocks of the prefix cache
        await sampler.load(make_ref(model, tmp_path, version))
        await engine.generate(prompt, settings)
        completion = await engine.generate(prompt, settings)
        wanted = reference(model, [*prompt, *completion.token_ids.tolist()])[len(prompt) - 1 :]
        np.testing.assert_allclose(completion.logprobs, wanted, atol=1e-3)


def check_both_sides(completion: Completion, models: list[Path]) -> None:
    """Old tokens have the old model's log-probs exactly up to the swap; from there on they have not."""
    versions = completion.versions.tolist()
    swap = versions.index(17)
    assert versions == [0] * swap + [17] * (400 - swap)
    ids = [1, 5, 6, *completion.token_ids.tolist()]
    old = reference(models[0], ids)[2:]
    np.testing.assert_allclose(completion.logprobs[:swap], old[:swap], atol=1e-3)
    assert np.abs(completion.logprobs[swap : swap + 3] - old[swap : swap + 3]).max() > 1e-2


async def test_wrong_weights_are_refused_and_good_ones_served_again(
    engine: VllmEngine, sampler: Sampler, models: list[Path], tmp_path: Path
) -> None:
    wrong = make_ref(models[2], tmp_path, 18, probed=models[1])
    running = asyncio.create_task(sampler.sample(make_job("1 5 6")))
    await asyncio.sleep(0.05)
    with pytest.raises(WeightsError, match="version 18"):
        await sampler.load(wrong)
    with pytest.raises(EngineError, match="void"):
        await running
    with pytest.raises(EngineError, match="serves nothing"):
        await sampler.sample(make_job("1 5 6"))
    await sampler.load(make_ref(models[2], tmp_path, 19))
    group = await sampler.sample(make_job("1 5 6"))
    assert {int(version) for rollout in group.rollouts for version in ints(rollout.versions)} == {19}


async def test_a_killed_engine_fails_what_runs_and_is_started_again_with_the_newest_weights(
    engine: VllmEngine, sampler: Sampler, models: list[Path], tmp_path: Path
) -> None:
    await sampler.load(make_ref(models[1], tmp_path, 20))
    running = [asyncio.create_task(sampler.sample(make_job("1 5 6"))) for _ in range(4)]
    await asyncio.sleep(0.1)
    killed = engine.core_pid
    os.kill(killed, signal.SIGKILL)
    results = await asyncio.gather(*running, return_exceptions=True)
    assert [type(result) for result in results] == [EngineError] * 4
    assert engine.errored
    group = await sampler.sample(make_job("1 5 6"))
    assert engine.core_pid not in (0, killed)
    rollout = group.rollouts[0]
    assert set(ints(rollout.versions).tolist()) == {20}
    ids = [1, 5, 6, *ints(rollout.token_ids).tolist()]
    np.testing.assert_allclose(np.frombuffer(rollout.logprobs, "<f4"), reference(models[1], ids)[2:], atol=1e-3)


async def test_a_request_right_after_the_death_of_an_idle_engine_ends(engine: VllmEngine) -> None:
    os.kill(engine.core_pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        with pytest.raises(EngineError):
            await engine.generate([1, 5, 6], GenerateSettings(max_new_tokens=8))
    assert engine.errored


async def test_spans_must_cover_every_token() -> None:
    from types import SimpleNamespace as Span

    spans = [Span(version="3", start=0, end=2), Span(version="4", start=2, end=3)]
    assert versions_of(spans, 3).tolist() == [3, 3, 4]
    with pytest.raises(EngineError, match="3 of 4"):
        versions_of(spans, 4)


async def test_a_worker_receives_in_a_thread_and_loads_what_it_received(tmp_path: Path) -> None:
    from types import SimpleNamespace

    with warnings.catch_warnings():  # deprecations inside vLLM
        warnings.simplefilter("ignore")
        from rlsp_async.sampling.vllm_extension import Extension, FileUpdate, FileWeights
    from rlsp_async.weights.receive import Progress, state_of
    from rlsp_async.weights.serve import OfferSettings, WeightsServer, meeting_point

    loop = asyncio.get_running_loop()
    invited: asyncio.Queue[Any] = asyncio.Queue()
    settings = OfferSettings(learner="learner-0", incarnation=1, transport="channel", deadline_s=20.0)
    server = WeightsServer(
        settings,
        lambda: meeting_point("127.0.0.1", 0, 20.0),
        lambda message: loop.call_soon_threadsafe(invited.put_nowait, message),
    )
    worker = Extension()
    worker.rank, worker.device = 0, "cpu"
    transport = FileTransport(tmp_path)
    probe = make_probe(PROBE_IDS, [-1.0] * (len(PROBE_IDS) - 1))
    server.announce(transport.publish(transport.take([("w", torch.arange(6.0).reshape(2, 3))], 1, 1), probe))
    try:
        server.heard(Pull(ticket="sampler-0/1", version=1, made_by=1, worker="sampler-0", kinds=["gloo"]))
        async with asyncio.timeout(30):
            worker.receive_begin(msgspec.msgpack.encode(await invited.get()))
            while (progress := state_of([Progress(*worker.receive_poll())])).state == "running":
                await asyncio.sleep(0.02)
        assert progress.state == "done", progress
        loaded: dict[str, torch.Tensor] = {}
        weights = SimpleNamespace(model=SimpleNamespace(load_weights=lambda pairs: loaded.update(pairs)))
        FileWeights.receive_weights(weights, FileUpdate(ticket="sampler-0/1"))
        assert torch.equal(loaded["w"], torch.arange(6.0).reshape(2, 3))
        server.heard(Pull(ticket="sampler-0/2", version=1, made_by=1, worker="sampler-0", kinds=["gloo"]))
        async with asyncio.timeout(30):
            worker.receive_begin(msgspec.msgpack.encode(await invited.get()))
            while Progress(*worker.receive_poll()).state == "running":
                await asyncio.sleep(0.02)
        worker.receive_write("sampler-0/2", str(tmp_path / "adapter.safetensors"))
        assert torch.equal(load_file(tmp_path / "adapter.safetensors")["w"], torch.arange(6.0).reshape(2, 3))
    finally:
        worker.receive_stop()
        server.close()
