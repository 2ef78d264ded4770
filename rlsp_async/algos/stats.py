"""Stats of an update, which micro-batches add up to: means, effective fractions and largest values.

A stat is a float32 pair (sum, count) under its name (`maths.stat`). Some names begin with a mark, which `summarise`
takes off again:

    _w/NAME, _w2/NAME   weights and squared weights; together the effective fraction (sum w)^2 / (count sum w^2)
    _largest/NAME       (largest value, 1 if there is a value)
    _bin/NAME           a share that is left out when it is 0
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlsp_async.algos import maths

Stats = dict[str, Tensor]
_W, _W2, _LARGEST, _BIN = "_w/", "_w2/", "_largest/", "_bin/"


def merge_stats(total: Stats, more: Stats) -> Stats:
    """The stats of two sets of tokens together.

    Args:
        total: pairs (sum, count) by name.
        more: pairs of other tokens.

    Returns:
        sums and counts added up, the larger one of largest values.
    """
    merged = dict(total)
    for name, pair in more.items():
        if name not in merged:
            merged[name] = pair
        elif name.startswith(_LARGEST):
            merged[name] = torch.maximum(merged[name], pair)
        else:
            merged[name] = merged[name] + pair
    return merged


def summarise(totals: Stats) -> dict[str, float]:
    """Reduces accumulated pairs (sum, count) to means, effective fractions and largest values, by name without mark.

    Args:
        totals: pairs by name.

    Returns:
        one number for each name. Names with count 0 are left out rather than reported as 0.
    """
    metrics: dict[str, float] = {}
    for name, pair in totals.items():
        total, count = float(pair[0]), float(pair[1])
        if not count or name.startswith(_W2) or (name.startswith(_BIN) and not total):
            continue
        if name.startswith(_W):
            square = float(totals[_W2 + name.removeprefix(_W)][0])
            metrics |= {name.removeprefix(_W): total**2 / (count * square)} if square > 0 else {}
        elif name.startswith(_LARGEST):
            metrics[name.removeprefix(_LARGEST)] = total
        else:
            metrics[name.removeprefix(_BIN)] = total / count
    return metrics


def effective_fraction(name: str, weight: Tensor, mask: Tensor) -> Stats:
    """Stats that become the effective fraction (sum w)^2 / (count sum w^2) of weights.

    Args:
        name: name of the metric.
        weight: weights, [R].
        mask: bool [R]; which of them count.

    Returns:
        two stats.

    Raises:
        ValueError: the shapes differ.
    """
    return {_W + name: maths.stat(weight, mask), _W2 + name: maths.stat(weight**2, mask)}


def largest_value(name: str, values: Tensor, mask: Tensor) -> Stats:
    """A stat that becomes the largest value.

    Args:
        name: name of the metric.
        values: 0 or above, [R].
        mask: bool [R]; which of them count.

    Returns:
        one stat.

    Raises:
        ValueError: the shapes differ.
    """
    maths.check_shapes(values_R=values, mask_R=mask)
    top = maths.guard(values, mask).max() if len(values) else values.sum()
    return {_LARGEST + name: torch.stack([top.float(), mask.any().float()])}


def histogram(name: str, values: Tensor, lower_ends: tuple[int, ...], mask: Tensor) -> Stats:
    """Stats that become the share of values in each bin; a metric's name is NAME with its bin's lower end for `{low}`.

    Example: lags (0, 3, 5), lower ends (0, 1, 2, 4) -> shares 1/3 in bins 0, 2 and 4; nothing for bin 1.

    Args:
        name: name of the metrics with `{low}` in it.
        values: int64 [R], not below the first lower end.
        lower_ends: lower end of each bin, ascending; the last bin has no upper end.
        mask: bool [R]; which values count.

    Returns:
        one stat for each bin.

    Raises:
        ValueError: the shapes differ.
    """
    ends = [*lower_ends[1:], 1 << 62]
    return {
        f"{_BIN}{name.format(low=low)}": maths.stat(((values >= low) & (values < end)).float(), mask)
        for low, end in zip(lower_ends, ends, strict=True)
    }
