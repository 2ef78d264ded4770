"""Two and three ranks have the loss, the gradients and the metrics of one process, for every algorithm."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.learning.ranked import CASES, record

ROOT = Path(__file__).parents[2]
THREE = ("ppo with a separate critic", "muon", "dpo:", "clipped")
"""Cases that three ranks compute, too."""


def start_ranks(model_dir, directory, size, cases):
    out = directory / f"{size}.safetensors"
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.learning.ranked", model_dir, out, str(r), str(size), f"{out}.store", *cases],
            cwd=ROOT,
        )
        for r in range(size)
    ]
    assert [process.wait(300) for process in processes] == [0] * size
    return load_file(out)


@pytest.fixture(scope="module")
def found(model_dir, tmp_path_factory):
    """What 2 and 3 ranks recorded, by their number."""
    directory = tmp_path_factory.mktemp("ranks")
    return {size: start_ranks(model_dir, directory, size, cases) for size, cases in ((2, CASES), (3, THREE))}


@pytest.mark.parametrize(("size", "case"), [*((2, case) for case in CASES), *((3, case) for case in THREE)])
def test_ranks_have_the_gradients_and_metrics_of_one_process(model_dir, found, size, case):
    alone = record(model_dir, case)
    ranked = {name.split("|")[1]: tensor for name, tensor in found[size].items() if name.startswith(f"{case}|")}
    assert set(ranked) == set(alone)
    for name, tensor in alone.items():
        largest = max(1e-12, float(tensor.abs().max()))
        torch.testing.assert_close(ranked[name], tensor, rtol=1e-5, atol=1e-5 * largest)
