"""The window of vLLM follows from the prompts and the model; no temperature that vLLM would change."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

import pytest
from msgspec.structs import replace

from rlsp_async.config import ModelConfig, RunConfig, SamplerConfig, SamplingConfig, StageConfig, TemperatureConfig
from rlsp_async.errors import ConfigError
from rlsp_async.model.info import ModelInfo
from rlsp_async.preflight.settings import refuse
from rlsp_async.sampling.engines import has_vllm
from rlsp_async.sampling.vllm_settings import FRONT_PID, gpu_arguments, set_environment, window
from tests.model.shapes import QWEN_1_5B

MODEL = ModelInfo(
    vocabulary=64, hidden=64, layers=2, heads=2, kv_heads=1, head_dim=32, intermediate=96, context=8192, tied=True
)


def run(memory: float = 1.0, temperature: float = 1.0, engine: str = "auto") -> RunConfig:
    return RunConfig(
        name="r",
        stages={"s": StageConfig()},
        sampler=SamplerConfig(engine=engine, memory=memory),  # type: ignore[arg-type]
        sampling=SamplingConfig(max_new_tokens=100, temperature=temperature),
    )


@pytest.mark.parametrize("cpu", [False, True])
def test_prompts_of_any_length_that_the_model_takes_are_taken(cpu: bool) -> None:
    assert window(run(), MODEL, cpu, 5000) >= 5100
    assert window(run(), MODEL, cpu, 8150) == 8192
    assert window(run(), MODEL, cpu, None) == 8192


def test_on_a_gpu_the_window_is_no_longer_than_it_must_be() -> None:
    assert window(run(), MODEL, False, 700) == 800


def test_on_a_cpu_the_cache_must_hold_the_longest_prompt_and_its_response() -> None:
    room = 1.0  # MiB, at 512 bytes a token
    assert window(run(memory=room / 1024), MODEL, True, 1900) == 2048
    with pytest.raises(ConfigError, match="holds 2048 tokens of KV cache, one sequence may have 2100"):
        window(run(memory=room / 1024), MODEL, True, 2000)


def test_the_engine_of_a_gpu_is_spawned_and_says_what_it_did_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VLLM_WORKER_MULTIPROC_METHOD", "VLLM_LOGGING_LEVEL", "VLLM_USE_FLASHINFER_SAMPLER"):
        monkeypatch.setenv(name, "")
    set_environment(cpu=False, threads=1)
    assert os.environ["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"  # a fork cannot use CUDA
    assert os.environ["VLLM_LOGGING_LEVEL"] == "WARNING"


def test_the_cache_of_a_gpu_has_a_computed_size() -> None:
    cfg = replace(run(memory=0.35), sampler=SamplerConfig(engine="vllm", memory=0.35, max_sequences=384))
    cfg = replace(cfg, model=ModelConfig(dtype="bfloat16"))
    card = 80 * 2**30
    arguments = gpu_arguments(cfg, QWEN_1_5B, card, shared=True)
    # 28 GiB less 2.9 of weights, 0.65 of logits and 3 of the engine
    assert arguments["kv_cache_memory_bytes"] / 2**30 == pytest.approx(21.5, abs=0.3)
    assert arguments["max_num_batched_tokens"] == 8192 and arguments["gpu_memory_utilization"] == 0.35
    assert gpu_arguments(cfg, QWEN_1_5B, card, shared=False)["max_num_batched_tokens"] == 16384
    with pytest.raises(ConfigError, match="sampler.memory = 0.35 of a card of 16 GiB leaves -0.* GiB for the KV cache"):
        gpu_arguments(cfg, QWEN_1_5B, 16 * 2**30, shared=True)


@pytest.mark.parametrize("engine", ["auto", "vllm"])
def test_a_temperature_that_vllm_would_raise_is_refused(engine: str) -> None:
    with pytest.raises(ConfigError, match=r"sampling\.temperature = 0\.005 is below 0\.01: vLLM would sample at 0\.01"):
        refuse(run(temperature=5e-3, engine=engine), MODEL)
    for name, options in (
        ("linear", {"start": 1.0, "end": 1e-3}),
        ("constant", {"temperature": 1e-3}),
        ("random", {"grid": [0.001, 1.0]}),
        ("bstar", {"grid": [0.5, 0.001]}),
        ("entropy", {"low": 0.001}),
    ):
        schedule = TemperatureConfig(name=name, options=options)
        with pytest.raises(ConfigError, match=r"stages\.s\.temperature: its lowest = 0\.001 is below 0\.01"):
            refuse(_staged(engine, schedule), MODEL)
    refuse(run(temperature=0.01, engine=engine), MODEL)


def test_the_torch_engine_samples_at_any_temperature() -> None:
    refuse(run(temperature=1e-3, engine="torch"), MODEL)


def _staged(engine: str, schedule: TemperatureConfig) -> RunConfig:
    return RunConfig(
        name="r",
        stages={"s": StageConfig(temperature=schedule)},
        sampler=SamplerConfig(engine=engine),  # type: ignore[arg-type]
    )


def test_gib_are_no_share_of_a_gpu() -> None:
    with pytest.raises(ConfigError, match=r"sampler\.memory = 1: on a GPU it is the share"):
        gpu_arguments(run(memory=1.0), QWEN_1_5B, 80 * 2**30, shared=False)


def test_an_engine_is_told_whose_end_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FRONT_PID, "")
    set_environment(cpu=False, threads=1)
    assert os.environ[FRONT_PID] == str(os.getpid())


ENGINE = """
import os, time
import rlsp_async.sampling.vllm_extension  # as a spawned engine does, long before its first call
print(os.getpid(), flush=True)
time.sleep(600)
"""
FRONT = """
import os, subprocess, sys
subprocess.Popen([sys.executable, "-c", sys.argv[1]], env={**os.environ, "RLSP_FRONT_PID": str(os.getpid())}).wait()
"""


@pytest.mark.vllm
@pytest.mark.skipif(not has_vllm(), reason="vllm is not installed")
def test_an_engine_that_starts_ends_with_its_sampler() -> None:
    front = subprocess.Popen([sys.executable, "-c", FRONT, ENGINE], stdout=subprocess.PIPE, text=True)
    assert front.stdout is not None
    try:
        engine = int(front.stdout.readline())
        watched = os.pidfd_open(engine)
        front.kill()
        ended, _, _ = select.select([watched], [], [], 20)
        os.close(watched)
        if not ended:
            os.kill(engine, signal.SIGKILL)
        assert ended
    finally:
        front.kill()
        front.wait()
        front.stdout.close()
