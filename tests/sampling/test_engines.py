"""Which engine a run takes."""

from __future__ import annotations

from typing import Any

import pytest

from rlsp_async.errors import MachineError
from rlsp_async.sampling import engines
from rlsp_async.sampling.engines import choose_by_size, choose_engine


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
    name, reason = choose_by_size(size, vllm=vllm, cuda=cuda)
    assert name == wanted
    assert reason


def test_asking_for_what_is_not_installed_says_how_to_install(
    make_config: Any, make_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "has_vllm", lambda: False)
    with pytest.raises(MachineError, match=r"pip install 'rlsp_async\[vllm\]'"):
        choose_engine(make_config(engine="vllm"), make_model())
    assert choose_engine(make_config(engine="auto"), make_model()) == ("torch", "vllm is not installed")
    assert choose_engine(make_config(engine="torch"), make_model())[0] == "torch"
