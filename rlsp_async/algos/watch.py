"""Figures of an update that micro-batches add up to: means, effective counts, largest values; by sign of the advantage.

A stat is a pair [sum, count] under its name. Some names begin with a mark: `_w/NAME` and `_w2/NAME`, weights and their
squares, become one effective fraction (sum w)^2 / (count sum w^2); `_largest/NAME` keeps the larger; `_bin/NAME` is a
share that is left out when it is 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlsp_async.algos import ops
from rlsp_async.algos.view import View

Stats = dict[str, Tensor]
LAGS = (0, 1, 2, 4, 8, 16)
"""Lower ends of the lag histogram's bins."""
_W, _W2, _LARGEST, _BIN = "_w/", "_w2/", "_largest/", "_bin/"


def merge(total: Stats, more: Stats) -> Stats:
    """Both together."""
    made = dict(total)
    for name, pair in more.items():
        if name not in made:
            made[name] = pair
        elif name.startswith(_LARGEST):
            made[name] = torch.maximum(made[name], pair)
        else:
            made[name] = made[name] + pair
    return made


def figures(totals: Stats) -> dict[str, float]:
    """One number a name; of what there was none, a mean of 0 would be a lie, and there is no number."""
    found: dict[str, float] = {}
    for name, pair in totals.items():
        total, count = float(pair[0]), float(pair[1])
        if not count or name.startswith(_W2) or (name.startswith(_BIN) and not total):
            continue
        if name.startswith(_W):
            square = float(totals[_W2 + name.removeprefix(_W)][0])
            found |= {name.removeprefix(_W): total**2 / (count * square)} if square > 0 else {}
        elif name.startswith(_LARGEST):
            found[name.removeprefix(_LARGEST)] = total
        else:
            found[name.removeprefix(_BIN)] = total / count
    return found


def effective(name: str, weight: Tensor, mask: Tensor) -> Stats:
    """Stats that become the effective fraction of these weights."""
    return {_W + name: ops.stat(weight, mask), _W2 + name: ops.stat(weight**2, mask)}


def largest(name: str, values: Tensor, mask: Tensor) -> Stats:
    """Stats that become the largest of these values (0 or more)."""
    top = ops.guard(values, mask).max() if len(values) else values.sum()
    return {_LARGEST + name: torch.stack([top.float(), mask.any().float()])}


def stage(name: str, view: View, weight: Tensor, keep: Tensor) -> Stats:
    """What a stage has left of the positives and of the negatives.

    Share of tokens kept (unless there was nothing to leave out), effective fraction and largest of the weights, k3 to
    the policy that sampled, lag histogram.
    """
    found: Stats = {}
    k3 = ops.k3(view.behaviour, view.new)
    for sign, side in (("positive", view.mask & (view.adv > 0)), ("negative", view.mask & (view.adv < 0))):
        left = side & keep
        found |= effective(f"{name}_ess_{sign}", weight, left) | largest(f"{name}_largest_{sign}", weight, left)
        found[f"{name}_k3_{sign}"] = ops.stat(k3, left)
        if keep is not view.mask:
            found[f"{name}_kept_{sign}"] = ops.stat(keep.float(), side)
        if view.lag is not None:
            found |= {f"{_BIN}{name}_lag_{low}_{sign}": pair for low, pair in histogram(view.lag, left).items()}
    return found


def histogram(lag: Tensor, mask: Tensor) -> dict[int, Tensor]:
    """[tokens in the bin, tokens] by the bin's lower end. Example: lags (0, 3, 5) -> one each in 0, 2 and 4."""
    ends = [*LAGS[1:], 1 << 62]
    return {low: ops.stat(((lag >= low) & (lag < end)).float(), mask) for low, end in zip(LAGS, ends, strict=True)}
