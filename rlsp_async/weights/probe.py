"""The probe: a fixed sequence and the log-probs that the published weights give it.

The digest says that the bytes arrived; the probe says that the engine computes with them (a packed copy of an old
weight passes every digest). N token ids, N - 1 log-probs at temperature 1 in float32: entry i is that of ids[i + 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rlsp_async.columns import floats, num_values, pack_floats, pack_ints
from rlsp_async.messages import Probe

DEFAULT_TOLERANCES = {"float32": 1e-3, "bfloat16": 0.5}


def make_probe(ids: Sequence[int] | npt.NDArray[Any], logprobs: Sequence[float] | npt.NDArray[Any]) -> Probe:
    """A probe of N >= 2 ids and N - 1 finite log-probs. Raises ValueError when they are not that."""
    if len(ids) < 2 or len(logprobs) != len(ids) - 1:
        raise ValueError(f"a probe of {len(ids)} ids needs at least 2 ids and one log-prob less, not {len(logprobs)}")
    if not np.isfinite(np.asarray(logprobs, dtype=np.float64)).all():
        raise ValueError("the probe's log-probs are not finite: the weights are broken")
    return Probe(ids=pack_ints(ids), logprobs=pack_floats(logprobs))


def largest_error(probe: Probe, scores: Sequence[float] | npt.NDArray[Any]) -> float:
    """max |score - published|; infinity when a score is missing or not finite."""
    if len(scores) != num_values(probe.logprobs):
        return float("inf")
    error = float(np.abs(np.asarray(scores, dtype=np.float64) - floats(probe.logprobs)).max())
    return error if np.isfinite(error) else float("inf")


def tolerance(setting: float, dtype: str) -> float:
    """The largest error that is accepted: the setting, or the default of the weights' type when it is 0."""
    return setting or DEFAULT_TOLERANCES[dtype]
