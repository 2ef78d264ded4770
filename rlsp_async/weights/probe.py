"""The probe: a fixed sequence of token ids and the log-probs that the published weights give it.

The digest shows that the bytes arrived. The probe shows that the engine computes with them: an engine that goes on
using a packed copy of older weights passes every digest. A probe has N token ids and N - 1 log-probs at temperature 1
in float32; log-prob i is that of ids[i + 1].
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rlsp_async.columns import floats, ints, num_values, pack_floats, pack_ints
from rlsp_async.errors import DataError
from rlsp_async.messages import Probe

INITIAL = "probe.json"
"""The file in RUN with the probe of the initial model."""
EXACT = 1e-3
"""Tolerance of float32 on the CPU, on the largest error."""
UNKNOWN = {"float32": 2e-2, "bfloat16": 0.5}
"""Tolerances on the largest error where the engine's own error is not known; float32 may be TF32 on a GPU."""
FACTOR = 3.0
"""How many times the error of the initial model is accepted: log-probs spread as a model is trained."""


class Errors(NamedTuple):
    """How far log-probs are off, or may be."""

    largest: float
    mean: float

    def is_within(self, bound: Errors) -> bool:
        """Whether neither is above its bound."""
        return self.largest <= bound.largest and self.mean <= bound.mean

    def words(self, bound: Errors) -> str:
        """What is too large. Example: "0.5, tolerance 0.001"."""
        if self.largest > bound.largest:
            return f"{self.largest:.3g}, tolerance {bound.largest:.3g}"
        return f"{self.mean:.3g} in the mean, tolerance {bound.mean:.3g}"


FLOORS = {"float32": Errors(2e-3, 5e-4), "bfloat16": Errors(0.1, 0.03)}
"""The smallest tolerances that are derived from an engine's own error: a model with flat log-probs has none."""


def make_probe(ids: Sequence[int] | npt.NDArray[Any], logprobs: Sequence[float] | npt.NDArray[Any]) -> Probe:
    """Packs a probe.

    Args:
        ids: [N] token ids, N >= 2.
        logprobs: [N-1] finite log-probs of ids[1:], at temperature 1.

    Returns:
        The probe as it travels in a `WeightsRef`.

    Raises:
        ValueError: the lengths do not fit, or a log-prob is not finite.
    """
    if len(ids) < 2 or len(logprobs) != len(ids) - 1:
        raise ValueError(f"a probe of {len(ids)} ids needs at least 2 ids and one log-prob less, not {len(logprobs)}")
    if not np.isfinite(np.asarray(logprobs, dtype=np.float64)).all():
        raise ValueError("the probe's log-probs are not finite: the weights are broken")
    return Probe(ids=pack_ints(ids), logprobs=pack_floats(logprobs))


def write_initial_probe(directory: Path, probe: Probe) -> None:
    """Writes the probe of a run's initial model into its directory; not durable."""
    made = {"ids": ints(probe.ids).tolist(), "logprobs": floats(probe.logprobs).tolist()}
    (directory / INITIAL).write_text(json.dumps(made) + "\n", encoding="utf-8")


def read_initial_probe(directory: Path) -> Probe | None:
    """Reads what `write_initial_probe` wrote; None when nothing was written. Raises DataError for another file."""
    path = directory / INITIAL
    if not path.exists():
        return None
    try:
        made = json.loads(path.read_bytes())
        return make_probe(made["ids"], made["logprobs"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DataError(f"{path}: holds no probe: {e!r}; remove it to go without") from None


def errors(probe: Probe, scores: Sequence[float] | npt.NDArray[Any]) -> Errors:
    """Compares what an engine computes with what was published.

    Args:
        probe: the published probe.
        scores: [N-1] log-probs that the engine gives the probe's ids.

    Returns:
        max and mean of |score - published|; infinity when a score is missing or not finite.
    """
    if len(scores) != num_values(probe.logprobs):
        return Errors(float("inf"), float("inf"))
    error = np.abs(np.asarray(scores, dtype=np.float64) - floats(probe.logprobs))
    if not np.isfinite(error).all():
        return Errors(float("inf"), float("inf"))
    return Errors(float(error.max()), float(error.mean()))


def tolerance(setting: float, dtype: str, on_gpu: bool, own: Errors | None) -> Errors:
    """Returns the largest accepted errors.

    Args:
        setting: `sampler.probe_tolerance`, on the largest error; 0: it is derived.
        dtype: type of the weights, "float32" or "bfloat16".
        on_gpu: whether the engine computes on a GPU.
        own: the errors of the initial model, whose weights are right; None: not known.
    """
    anything = float("inf")
    if setting:
        return Errors(setting, anything)
    if dtype == "float32" and not on_gpu:
        return Errors(EXACT, anything)
    if own is None:
        return Errors(UNKNOWN[dtype], anything)
    floor = FLOORS[dtype]
    return Errors(max(FACTOR * own.largest, floor.largest), max(FACTOR * own.mean, floor.mean))
