"""Which engine a run takes, and what a model directory says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlsp_async.errors import DataError, MachineError
from rlsp_async.model import count_parameters, read_model_info
from rlsp_async.sampling import engine
from rlsp_async.sampling.engine import choose_engine


@pytest.mark.parametrize(
    ("size", "vllm", "cuda", "wanted"),
    [
        (10_000_000, True, False, "vllm"),
        (200_000, True, False, "torch"),
        (200_000, True, True, "vllm"),
        (10_000_000, False, False, "torch"),
        (10_000_000, False, True, "torch"),
    ],
)
def test_auto_takes_vllm_for_large_models_and_gpus(size: int, vllm: bool, cuda: bool, wanted: str) -> None:
    name, reason = engine._choose(size, vllm, cuda)
    assert name == wanted
    assert reason


def test_asking_for_what_is_not_installed_says_how_to_install(
    make_config: Any, make_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "has_vllm", lambda: False)
    with pytest.raises(MachineError, match=r"pip install 'rlsp_async\[vllm\]'"):
        choose_engine(make_config(engine="vllm"), make_model())
    assert choose_engine(make_config(engine="auto"), make_model()) == ("torch", "vllm is not installed")
    assert choose_engine(make_config(engine="torch"), make_model())[0] == "torch"


def test_a_model_directory_is_read_without_its_weights(make_model: Any) -> None:
    directory = make_model("qwen2", True, 2)
    generation = json.loads((directory / "generation_config.json").read_text())
    (directory / "generation_config.json").write_text(json.dumps(generation | {"eos_token_id": [2, 9]}))
    found = read_model_info(directory)
    assert (found.kind, found.context, found.eos_ids) == ("qwen2", 64, (2, 9))
    assert found.kv_values_per_token == 2 * 2 * 2 * 8
    assert (
        count_parameters(directory) == 61 * 32 + 2 * (2 * 32 * 32 + 2 * 16 * 32 + 32 + 2 * 16 + 3 * 32 * 48 + 64) + 32
    )


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_broken_model_directory_is_bad_data(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(DataError, match=r"config\.json"):
        read_model_info(tmp_path)
