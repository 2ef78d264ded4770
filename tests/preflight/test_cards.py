"""What each GPU would hold: shipped settings fit the machine that they are for, and others are refused with a cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlsp_async.cli.check import gpu_facts
from rlsp_async.cli.command import main
from rlsp_async.config import load
from rlsp_async.errors import ConfigError
from rlsp_async.preflight.cards import RELEASED, plan_cards, released_shape
from rlsp_async.preflight.inputs import extra_models
from rlsp_async.runner.gpus import assign_gpus, fill_count

FOLDER = Path(__file__).parents[2] / "launch/configs"
SHIPPED = sorted(FOLDER.glob("*gpu*.toml"))
MACHINES = {"1gpu": 1, "2gpu": 2, "8gpu": 8, "2box": 1}
"""GPUs of the machine that a shipped file is for, by the end of its name."""


def test_sizes_of_released_models() -> None:
    billions = {name: round(shape.num_parameters / 1e9, 2) for name, shape in RELEASED.items()}
    assert billions == {
        "Qwen2.5-0.5B": 0.49,
        "Qwen2.5-1.5B": 1.54,
        "Qwen2.5-3B": 3.09,
        "Qwen2.5-7B": 7.62,
        "Qwen2.5-14B": 14.77,
        "Qwen2.5-32B": 32.76,
    }
    found = released_shape("models/Qwen2.5-7B-Instruct")
    assert found is not None and found[0] == "Qwen2.5-7B"
    assert released_shape("models/Qwen2.5-72B") is None
    assert released_shape("") is None


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_settings_fit_the_machine_that_they_are_for(path: Path) -> None:
    gpus = [str(number) for number in range(MACHINES[path.stem.rpartition("_")[2]])]
    cfg = fill_count(load(path), gpus)
    found = released_shape(cfg.model.path)
    assert found is not None
    uses = plan_cards(cfg, found[1], assign_gpus(gpus, cfg), 80.0, extra_models(cfg))
    assert [use.card for use in uses] == gpus
    assert not [text for use in uses for text in use.warnings]


def test_what_is_on_the_one_card_of_1gpu() -> None:
    cfg = load(FOLDER / "gsm8k_qwen2.5-1.5b_1gpu.toml")
    (use,) = plan_cards(cfg, RELEASED["Qwen2.5-1.5B"], assign_gpus(["0"], cfg), 80.0, extra_models(cfg))
    assert use.processes == ["learner-0", "sampler-0"]
    learner, sampler = use.texts
    assert learner.endswith("of 49.6 GiB")  # 80 less 0.35 for the sampler and 0.03 for contexts
    assert sampler.startswith("sampler 28.0 GiB, of them 21.5 of KV cache")


def test_a_card_that_is_too_small_is_refused_with_a_cure() -> None:
    cfg = load(FOLDER / "gsm8k_qwen2.5-1.5b_1gpu.toml")
    with pytest.raises(
        ConfigError, match=r"the learner needs about .* GiB of card 0, and 24\.8 of its 40 are left; lower"
    ):
        plan_cards(cfg, RELEASED["Qwen2.5-1.5B"], assign_gpus(["0"], cfg), 40.0, extra_models(cfg))
    with pytest.raises(ConfigError, match=r"or take a smaller model or a larger card"):
        plan_cards(cfg, RELEASED["Qwen2.5-7B"], {"learner-0": ["0"]}, 80.0)


def shown(num: int, *overrides: str) -> tuple[list[str], list[str]]:
    """The lines and the warnings of `rlsp check --gpus`."""
    gpus, warnings = [str(number) for number in range(num)], list[str]()
    cfg = fill_count(load(FOLDER / "gsm8k_qwen2.5-1.5b_2gpu.toml", list(overrides)), gpus)
    facts = gpu_facts(cfg, None, gpus, 80.0, warnings)
    return [f"{fact.name}: {fact.value}" for fact in facts], warnings


def test_a_check_on_a_laptop_for_a_machine_with_gpus() -> None:
    two = ["sizes: Qwen2.5-1.5B", "GPU 0: learner-0", "GPU 1: sampler-0"]
    assert shown(2) == (two, [])
    lines, warnings = shown(4)
    assert lines == two
    assert ["2 of 4 GPUs (2, 3) stay idle" in text for text in warnings] == [True]
    assert shown(4, "sampler.count=0") == ([*two, "GPU 2: sampler-1", "GPU 3: sampler-2"], [])
    assert shown(2, "model.path=/mine") == (["learner-0: GPU 0", "sampler-0: GPU 1"], [])
    assert shown(0) == ([], [])


def test_the_command_checks_for_that_machine(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["check", "gsm8k_qwen2.5-1.5b_2gpu", "--quick", "--gpus"]
    assert main([*words, "2", "--gpu-memory", "24"]) == 2
    assert "the learner needs about 64.9 GiB of card 0, and 23.3 of its 24 are left" in capsys.readouterr().err
    assert main([*words, "-1"]) == 2
