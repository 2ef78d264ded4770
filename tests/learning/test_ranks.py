"""Two and three ranks have the loss, the gradients and the metrics of one process, for every algorithm."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.learning.ranked import CASES, record

ROOT = Path(__file__).parents[2]
THREE = ("ppo with a separate critic", "muon", "dpo", "clipped")
"""Cases that three ranks compute, too."""


@pytest.fixture(scope="module")
def found(model_dir, tmp_path_factory):
    """What 2 and 3 ranks recorded, by their number."""
    directory = tmp_path_factory.mktemp("ranks")
    jobs = [f"{size}:{','.join(cases)}" for size, cases in ((2, CASES), (3, THREE))]
    command = [sys.executable, "-m", "tests.learning.ranked", model_dir, directory, *jobs]
    subprocess.run(command, cwd=ROOT, check=True, timeout=500)
    return {size: load_file(directory / f"{size}.safetensors") for size in (2, 3)}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("size", "case"), [*((2, case) for case in CASES), *((3, case) for case in THREE)])
def test_ranks_have_the_gradients_and_metrics_of_one_process(model_dir, found, size, case):
    alone = record(model_dir, case)
    ranked = {name.split("|")[1]: tensor for name, tensor in found[size].items() if name.startswith(f"{case}|")}
    assert set(ranked) == set(alone)
    for name, tensor in alone.items():
        largest = max(1e-12, float(tensor.abs().max()))
        torch.testing.assert_close(ranked[name], tensor, rtol=1e-5, atol=1e-5 * largest)
