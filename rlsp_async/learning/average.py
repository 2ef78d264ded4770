"""A reference that follows the policy: its exponential moving average, one move a step.

    reference <- (1 - rate) reference + rate policy

The average is float32 whatever the model's type is, because a small rate vanishes in bfloat16; it is part of every
checkpoint, so that a learner that restarts is held to the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlsp_async.errors import DataError
from rlsp_async.learning.policy import Policy


class Average:
    """Of the language model's parameters, kept in step with `reference`."""

    def __init__(self, reference: Policy, rate: float) -> None:
        self.rate = rate
        self._reference = dict(reference.policy_parameters())
        self._mean = {name: p.detach().float() for name, p in self._reference.items()}  # float32: the parameter itself

    @torch.no_grad()
    def follow(self, policy: Policy) -> None:
        """One step was trained."""
        for name, parameter in policy.policy_parameters():
            self._mean[name].lerp_(parameter.detach().float(), self.rate)
        self._write_back()

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return dict(self._mean)

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes back what `state` gave. Raises DataError for another model's."""
        if set(tensors) != set(self._mean) or any(tensors[n].shape != mean.shape for n, mean in self._mean.items()):
            raise DataError("the checkpoint's average of the policy is not of this model; start the stage anew")
        for name, mean in self._mean.items():
            mean.copy_(tensors[name])
        self._write_back()

    def _write_back(self) -> None:
        for name, mean in self._mean.items():
            if self._reference[name].data_ptr() != mean.data_ptr():
                self._reference[name].copy_(mean)
