"""A checkpoint is complete or absent, and a damaged one is passed over aloud."""

import pytest
import structlog
import torch

from rlsp_async.errors import DataError
from rlsp_async.learning import checkpoint


def save(directory, step, keep=2):
    tensors = {"a": torch.full((2, 3), float(step))}
    return checkpoint.save(directory, checkpoint.Checkpoint(step, tensors, {"stage": "rl"}), keep)


def test_what_is_saved_comes_back(tmp_path):
    place = save(tmp_path, 12)
    assert place.name == "step-00000012"
    assert sorted(p.name for p in place.iterdir()) == ["DONE", "state.json", "tensors.safetensors"]
    found = checkpoint.load_newest(tmp_path)
    assert (found.step, found.state["stage"]) == (12, "rl")
    assert torch.equal(found.tensors["a"], torch.full((2, 3), 12.0))


def test_only_the_newest_stay(tmp_path):
    for step in (1, 2, 10):
        save(tmp_path, step)
    assert [p.name for p in checkpoint.complete(tmp_path)] == ["step-00000010", "step-00000002"]


def cut(content):
    return content[:-9]


def flip_a_bit(content):
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


@pytest.mark.parametrize(("damage", "harm"), [("tensors.safetensors", cut), ("tensors.safetensors", flip_a_bit),
                                              ("state.json", cut), ("state.json", flip_a_bit), ("DONE", cut)])
def test_a_damaged_checkpoint_is_passed_over_and_said(tmp_path, damage, harm):
    save(tmp_path, 1)
    broken = save(tmp_path, 2) / damage
    broken.write_bytes(harm(broken.read_bytes()))
    with structlog.testing.capture_logs() as lines:
        assert checkpoint.load_newest(tmp_path).step == 1
    assert [line["event"] for line in lines] == ["checkpoint_damaged"]
    assert "step-00000002" in lines[0]["path"]


def test_when_all_are_damaged_nothing_starts_over_silently(tmp_path):
    (save(tmp_path, 1) / "DONE").unlink()
    with pytest.raises(DataError, match="damaged"):
        checkpoint.load_newest(tmp_path)


def test_a_half_written_one_is_not_seen_and_does_not_disturb(tmp_path):
    (tmp_path / ".step-00000003.tmp").mkdir()
    (tmp_path / ".step-00000003.tmp" / "state.json").write_text("{")
    assert checkpoint.load_newest(tmp_path) is None
    save(tmp_path, 3)
    assert checkpoint.load_newest(tmp_path).step == 3
    assert not (tmp_path / ".step-00000003.tmp").exists()


def test_no_directory_is_no_checkpoint(tmp_path):
    assert checkpoint.load_newest(tmp_path / "none") is None
