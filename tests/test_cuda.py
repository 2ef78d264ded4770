"""Devices: what a CPU can show of how tensors come to a GPU."""

from types import SimpleNamespace

import torch

from rlsp_async.cuda import to_device


class Recorded:
    """A tensor of the host that records what is asked of it."""

    def __init__(self):
        self.asked = []

    def pin_memory(self):
        self.asked.append("pin_memory")
        return self

    def to(self, where, non_blocking=False):
        self.asked.append((where.type, non_blocking))
        return self


def test_a_copy_to_a_gpu_is_pinned_and_not_waited_for():
    tensor = Recorded()
    assert to_device(tensor, SimpleNamespace(type="cuda")) is tensor
    assert tensor.asked == ["pin_memory", ("cuda", True)]


def test_on_the_cpu_nothing_is_copied():
    tensor = torch.arange(3)
    assert to_device(tensor, torch.device("cpu")).data_ptr() == tensor.data_ptr()
