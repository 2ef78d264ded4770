"""Hand-made columns for the tests of single algorithms, and gradients for comparison with a slow reference."""

from dataclasses import replace

import torch

from rlsp_async.algos import base

__all__ = ["batch", "drawn", "gradient", "members", "replace", "tokens"]


def batch(reward, group, length, **columns):
    """Rollouts with these rewards, groups and lengths; other columns are zeros unless given."""
    num = sum(length)
    made = {"behaviour_N": torch.zeros(num), "mask_N": torch.ones(num, dtype=torch.bool), **columns}
    return base.Rollouts(
        torch.tensor(reward, dtype=torch.float32),
        torch.tensor(group),
        torch.tensor(length),
        **{k: torch.as_tensor(v) for k, v in made.items()},
    )


def tokens(logp, rollout, **columns):
    """Tokens of literal columns; shares are one over the number of tokens unless given."""
    made = {"behaviour": logp, "adv": [1.0] * len(logp), "share": [1.0 / len(logp)] * len(logp), **columns}
    made = {k: torch.tensor(v) for k, v in made.items() if k != "mask"}
    mask = torch.tensor(columns.get("mask", [True] * len(logp)))
    return base.Tokens(logp=torch.tensor(logp).requires_grad_(), rollout=torch.tensor(rollout), mask=mask, **made)


def drawn(length=(3, 1, 4, 2), seed=1, spread=0.4):
    """Tokens of rollouts of these lengths with random columns; one advantage for each rollout."""
    g = torch.Generator().manual_seed(seed)
    num, rollout = sum(length), torch.arange(len(length)).repeat_interleave(torch.tensor(length))
    draw = lambda: torch.randn(num, generator=g)  # noqa: E731
    logp = -draw().abs() - 0.2
    adv = torch.randn(len(length), generator=g)[rollout]
    return base.Tokens(
        logp=logp.requires_grad_(),
        behaviour=logp.detach() + spread * draw(),
        adv=adv,
        mask=torch.arange(num) != 4,
        share=torch.rand(num, generator=g),
        rollout=rollout,
        old=logp.detach() + spread * draw(),
        reference=logp.detach() + spread * draw(),
        mean=-2.0 + 0.1 * draw(),
        old_mean=-2.0 + 0.1 * draw(),
    )


def gradient(loss, given):
    """Gradient of a scalar by the log-probs of `given`."""
    return torch.autograd.grad(loss, given.logp)[0]


def members(given):
    """Token numbers of each rollout, masked-out ones left out."""
    return [
        [t for t in range(len(given.logp)) if given.rollout[t] == q and given.mask[t]]
        for q in range(int(given.rollout.max()) + 1)
    ]
