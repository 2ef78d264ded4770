"""What the correction stages look at: one micro-batch, without gradient, masked-out tokens made harmless."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rlsp_async.algos import ops


@dataclass(frozen=True)
class View:
    """Columns [R]; where `mask` is False they hold 0."""

    new: Tensor
    """Log-prob under the policy that is compared with the one that sampled."""
    behaviour: Tensor
    log_ratio: Tensor
    """new - behaviour, within +-20."""
    adv: Tensor
    mask: Tensor
    rollout: Tensor
    lag: Tensor | None = None
    """Versions between the token's policy and the learner's; None: nobody sampled it."""

    @property
    def harmful(self) -> Tensor:
        """bool: the update would move the token further in the direction in which it has moved since it was sampled."""
        return self.mask & (self.adv * self.log_ratio > 0)

    @property
    def rollout_log_ratio(self) -> Tensor:
        """Of the token's whole rollout; not bounded."""
        return ops.rollout_sums(self.new - self.behaviour, self.rollout, self.mask)


def look(new: Tensor, behaviour: Tensor, adv: Tensor, mask: Tensor, rollout: Tensor, lag: Tensor | None = None) -> View:
    """A view of these columns."""
    new, behaviour = (ops.guard(x.detach().float(), mask) for x in (new, behaviour))
    log_ratio = ops.log_ratio(new, behaviour, mask)
    return View(new, behaviour, log_ratio, ops.guard(adv.detach(), mask), mask, rollout, lag)
