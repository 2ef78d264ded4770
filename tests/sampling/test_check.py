"""An engine that holds other weights than the published ones is found by their sum; its own error sets the tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from rlsp_async.errors import DataError, WeightsError
from rlsp_async.messages import WeightsRef
from rlsp_async.sampling.check import LoadCheck, directory_totals
from rlsp_async.sampling.scripted import ScriptedEngine
from rlsp_async.sampling.torch_engine import TorchEngine
from rlsp_async.sampling.torch_model import TorchModel
from rlsp_async.weights import sums
from rlsp_async.weights.file import FileTransport
from rlsp_async.weights.probe import errors, make_probe

IDS = [1, 7, 8, 9, 33, 60, 5, 2, 41, 17]


def bfloat16(directory: Path) -> Path:
    """A model's directory in bfloat16."""
    AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16).save_pretrained(directory)
    return directory


def one_step(model: Path, lr: float = 1e-3) -> dict[str, torch.Tensor]:
    """The weights after one step of Adam, each of whose values moves by the learning rate."""
    generator = torch.Generator().manual_seed(1)
    tensors = load_file(model / "model.safetensors")
    return {
        name: (t.float() + lr * torch.randn(t.shape, generator=generator).sign()).to(t.dtype)
        for name, t in tensors.items()
    }


def publish(tensors: dict[str, torch.Tensor], directory: Path, scores: Sequence[float]) -> WeightsRef:
    transport = FileTransport(directory)
    return transport.publish(transport.take(tensors.items(), 1), make_probe(IDS, scores))


@pytest.mark.parametrize(("kind", "tied", "kv_heads"), [("llama", True, 4), ("llama", False, 2), ("qwen2", True, 2)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_the_sum_of_what_an_engine_holds_is_that_of_its_files(
    make_model: Any, make_config: Any, kind: str, tied: bool, kv_heads: int, dtype: str
) -> None:
    model = make_model(kind, tied, kv_heads)
    engine = TorchEngine(make_config(model_dtype=dtype), model, seed=1)
    await engine.start()
    live = await engine.live_total()
    await engine.close()
    assert live in directory_totals(model, getattr(torch, dtype))


async def test_the_version_before_is_refused_in_bfloat16(
    make_model: Any, make_config: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = bfloat16(make_model())
    cfg = make_config(model_dtype="bfloat16")
    engine = TorchEngine(cfg, model, seed=1)
    await engine.start()
    check = LoadCheck(cfg, engine, model)
    await check.calibrate(make_probe(IDS, await engine.score(IDS)))
    old = await engine.score(IDS)
    new = one_step(model)
    path = tmp_path / "new.safetensors"
    save_file(new, path)
    await engine.load_weights(path, 1)
    ref = publish(new, tmp_path, await engine.score(IDS))
    published = FileTransport(tmp_path).fetch(ref)
    assert await check.check(ref, published) == 0.0
    assert 0.1 < errors(ref.probe, old).largest < 0.5, "what is accepted of an engine that was not measured"

    await engine.load_weights(model / "model.safetensors", 1)
    with pytest.raises(WeightsError, match="version 1: the torch engine holds other weights than were loaded"):
        await check.check(ref, published)
    assert engine.errored, "it is started again"

    await engine.start()
    taken = TorchModel.load

    def without_one(self: TorchModel, path: Path) -> None:
        kept = self._weights["0.down"].clone()
        taken(self, path)
        self._weights["0.down"].copy_(kept)

    monkeypatch.setattr(TorchModel, "load", without_one)
    await engine.load_weights(published, 1)
    with pytest.raises(WeightsError, match="holds other weights"):
        await check.check(ref, published)
    await engine.close()


async def test_where_the_layouts_differ_sums_are_not_compared_and_that_is_said(
    make_model: Any, make_config: Any, tmp_path: Path
) -> None:
    model = make_model()
    engine = TorchEngine(make_config(), model, seed=1)
    await engine.start()
    save_file({"a": torch.ones(1)}, model / "model.safetensors")
    check = LoadCheck(make_config(), engine, model)
    with structlog.testing.capture_logs() as logs:
        await check.calibrate(None)
    assert ["their sums are not compared" in entry["event"] for entry in logs] == [True]
    ref = publish({"a": torch.ones(1)}, tmp_path, await engine.score(IDS))
    assert await check.check(ref, FileTransport(tmp_path).fetch(ref)) == 0.0
    await engine.close()


def test_files_that_cannot_be_read_have_no_total(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    assert directory_totals(tmp_path, torch.float32) == set()


class OffEngine(ScriptedEngine):
    """One whose scores are off by a number."""

    off = 0.0

    async def score(self, ids: Sequence[int]) -> Any:
        return np.full(len(ids) - 1, -1.0, np.float32) + np.float32(self.off)


@pytest.mark.parametrize(
    ("own", "off", "words"),
    [
        (0.0, 0.029, ""),
        (0.0, 0.04, "0.04 in the mean, tolerance 0.03"),
        (0.0, 0.2, "0.2, tolerance 0.1"),
        (0.05, 0.14, ""),
        (0.05, 0.16, "0.16, tolerance 0.15"),
    ],
)
async def test_a_bfloat16_engine_may_be_off_three_times_its_own_error(
    make_config: Any, own: float, off: float, words: str
) -> None:
    engine = OffEngine()
    engine.off = own
    check = LoadCheck(make_config(model_dtype="bfloat16"), engine, Path("unused"))
    initial = make_probe(IDS, [-1.0] * 9)
    await check.calibrate(initial)
    engine.off = off
    ref = WeightsRef(version=2, uri="file:///w", digest="", num_bytes=1, probe=initial)
    if not words:
        assert await check.check(ref, Path("unused")) == pytest.approx(off, abs=1e-6)
        return
    with pytest.raises(WeightsError, match=f"version 2: the probe's log-probs are off by {words}"):
        await check.check(ref, Path("unused"))


async def test_a_probe_is_compared_as_far_as_a_window_reaches(make_config: Any) -> None:
    class Short(ScriptedEngine):
        async def score(self, ids: Sequence[int]) -> Any:
            assert list(ids) == IDS[:5]
            return np.full(4, -1.0, np.float32)

    check = LoadCheck(make_config(), Short(window=6), Path("unused"))
    probe = make_probe(IDS, [-1.0] * 4 + [-9.0] * 5)
    await check.calibrate(probe)
    ref = WeightsRef(version=2, uri="file:///w", digest="", num_bytes=1, probe=probe)
    assert await check.check(ref, Path("unused")) == 0.0


async def test_an_engine_that_computes_another_model_is_refused_in_bfloat16_too(make_config: Any) -> None:
    engine = OffEngine()
    engine.off = 0.6
    check = LoadCheck(make_config(model_dtype="bfloat16"), engine, Path("m"))
    with pytest.raises(DataError, match=r"m: the scripted engine computes another model .* 0\.6, tolerance 0\.5"):
        await check.calibrate(make_probe(IDS, [-1.0] * 9))


def test_a_tied_head_in_the_files_may_count_or_not(make_model: Any) -> None:
    model = make_model("llama", False, 4)
    tensors = load_file(model / "model.safetensors")
    everything = sums.total(sums.make_plan(tensors.items()))
    del tensors["lm_head.weight"]
    assert directory_totals(model, torch.float32) == {everything, sums.total(sums.make_plan(tensors.items()))}
