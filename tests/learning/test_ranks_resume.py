"""Checkpoints of several ranks: the same bits after a kill, and any number of ranks goes on from them."""

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from rlsp_async.errors import ConfigError
from rlsp_async.learning import checkpoint
from rlsp_async.learning.learner import Learner
from tests.learning.small import Shelf, jobs, run_config

pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).parents[2]
PARTS = ["tensors-00000-of-00002.safetensors", "tensors-00001-of-00002.safetensors"]


def ranked(model_dir, run_dir, *numbers):
    command = [sys.executable, "-m", "tests.learning.ranked_learner", str(model_dir), str(run_dir), *map(str, numbers)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)


@pytest.fixture(scope="module")
def runs(model_dir, tmp_path_factory):
    """`straight`: six steps by two ranks. `killed`: rank 1 was killed in the fifth; the checkpoint of step 4 is left."""
    place = tmp_path_factory.mktemp("runs")
    for name in ("straight", "killed"):
        (place / name / "t").mkdir(parents=True)
    assert ranked(model_dir, place / "straight" / "t", 2, 1, 6).returncode == 0
    died = ranked(model_dir, place / "killed" / "t", 2, 1, 6, 1 + 2 + 2 + 2)
    assert died.returncode == 9, died.stderr
    return place


def parts(run_dir, step):
    """The tensors of each file but the state of torch's generator, which starts from another seed in each process."""
    place = run_dir / "checkpoints" / f"step-{step:08d}"
    assert sorted(path.name for path in place.iterdir()) == ["DONE", "state.json", *PARTS]
    return {(name, key): t for name in PARTS for key, t in load_file(place / name).items() if key != "rng"}


def test_two_ranks_of_which_one_was_killed_end_with_the_same_bits(model_dir, runs, tmp_path):
    run_dir = Path(shutil.copytree(runs / "killed", tmp_path / "again")) / "t"
    assert checkpoint.list_complete(run_dir / "checkpoints")[0].name == "step-00000004"
    done = ranked(model_dir, run_dir, 2, 5, 6)
    assert done.returncode == 0, done.stderr
    again, straight = parts(run_dir, 6), parts(runs / "straight" / "t", 6)
    assert set(again) == set(straight)
    assert [name for name in again if not torch.equal(again[name], straight[name])] == []


@pytest.mark.parametrize("size", [1, 3])
def test_another_number_of_ranks_goes_on_where_two_ended(model_dir, runs, tmp_path, size):
    run_dir = Path(shutil.copytree(runs / "killed", tmp_path / "again")) / "t"
    if size == 1:
        cfg = run_config(run_dir.parent)
        with pytest.raises(ConfigError, match="learner.ranks was 2"):
            Learner(cfg, model_dir, run_dir, Shelf())
        free = msgspec.structs.replace(cfg, learner=msgspec.structs.replace(cfg.learner, other_ranks=True))
        learner = Learner(free, model_dir, run_dir, Shelf())
        for job in jobs()[4:]:
            learner.train(job)
        learner.on_stop()
    else:
        done = ranked(model_dir, run_dir, 3, 5, 6)
        assert done.returncode == 0, done.stderr
    ours = checkpoint.read(run_dir / "checkpoints" / "step-00000006").tensors
    straight = checkpoint.read(runs / "straight" / "t" / "checkpoints" / "step-00000006").tensors
    assert set(ours) == set(straight)
    for name in ours:
        if name.startswith("model/"):
            torch.testing.assert_close(ours[name], straight[name], rtol=1e-3, atol=1e-3)
    exported = load_file(run_dir / "final" / "model.safetensors")
    torch.testing.assert_close(exported["model.norm.weight"], ours["model/model.norm.weight"])


def test_a_damaged_part_is_found_by_any_number_of_ranks(runs, tmp_path):
    place = shutil.copytree(runs / "straight" / "t" / "checkpoints", tmp_path / "checkpoints")
    part = Path(place) / "step-00000006" / PARTS[1]
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    newest = checkpoint.load_newest(Path(place))
    assert newest is not None
    assert newest.step == 4
    assert (Path(place) / ".step-00000006.damaged").is_dir()
