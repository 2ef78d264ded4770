"""The average of a policy: by hand, in bfloat16, and of another model."""

import pytest
import torch

from rlsp_async.errors import DataError
from rlsp_async.learning.average import Average


class Weights:
    """The part of a policy that the average reads."""

    def __init__(self, values, dtype=torch.float32):
        self.parameter = torch.nn.Parameter(torch.tensor(values, dtype=dtype))

    def policy_parameters(self):
        yield "w", self.parameter


def test_by_hand():
    reference, policy = Weights([1.0, 2.0]), Weights([3.0, 2.0])
    made = Average(reference, 0.25)
    made.follow(policy)
    assert reference.parameter.tolist() == [1.5, 2.0]
    made.follow(policy)
    assert reference.parameter.tolist() == [1.875, 2.0]


def test_a_small_rate_does_not_vanish_in_bfloat16():
    reference, policy = Weights([1.0], torch.bfloat16), Weights([2.0], torch.bfloat16)
    made = Average(reference, 0.001)
    for _ in range(100):
        made.follow(policy)
    assert made.state()["w"].item() == pytest.approx(2 - 0.999**100, rel=1e-5)
    assert reference.parameter.item() == pytest.approx(1.095, abs=0.004)
    again = Average(Weights([1.0], torch.bfloat16), 0.001)
    again.restore(made.state())
    assert torch.equal(again.state()["w"], made.state()["w"])


def test_the_average_of_another_model_is_refused():
    made = Average(Weights([1.0, 2.0]), 0.1)
    for tensors in ({}, {"w": torch.zeros(3)}, {"v": torch.zeros(2)}):
        with pytest.raises(DataError, match="not of this model"):
            made.restore(tensors)
