"""Two ranks have the gradients and metrics of one process, for every family of models that is trained."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.learning.ranked import record
from tests.learning.test_families import TRAINED
from tests.model.families import make_model

ROOT = Path(__file__).parents[2]
CASE = "clipped"
"""grpo, whose gradients are clipped by their norm over all ranks."""

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # GPT-BigCode's


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    directory = tmp_path_factory.mktemp("families")
    return {name: make_model(name, directory / name) for name in TRAINED}


@pytest.fixture(scope="module")
def ranked(models, tmp_path_factory):
    """What two ranks recorded of all families, by family."""
    directory = tmp_path_factory.mktemp("ranks")
    cases = ",".join(f"{CASE}@{path}" for path in models.values())
    command = [sys.executable, "-m", "tests.learning.ranked", directory, directory, f"2:{cases}"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=500)
    found = {name: {} for name in models}
    for key, tensor in load_file(directory / "2.safetensors").items():
        case, name = key.split("|")
        found[Path(case.split("@")[1]).name][name] = tensor
    return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", TRAINED)
def test_two_ranks_train_a_family_as_one_process_does(models, ranked, name):
    alone = record(models[name], CASE)
    assert set(ranked[name]) == set(alone)
    for key, tensor in alone.items():
        largest = max(1e-12, float(tensor.abs().max()))
        torch.testing.assert_close(ranked[name][key], tensor, rtol=1e-5, atol=1e-5 * largest, msg=key)
