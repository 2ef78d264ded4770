"""Does an engine compute with the weights that were published? Asked after each load, by two means.

live sums   the sum over all parameters that the engine holds must be that of the published tensors, exactly. It
            finds a layer that kept its old weights, and the version before. It is used where it holds of the
            initial model: fused projections and padding with zeros leave it as it is, quantised or packed layers
            and parameters on several devices do not, and that is said once in the log.
probe       the log-probs of a fixed text must be those of the learner. It finds weights that are right and not
            computed with. How far an engine is off with the right weights, in bfloat16 or on a GPU, is measured
            on the initial model (`probe.tolerance`).
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog
import torch
from safetensors import SafetensorError, safe_open

from rlsp_async.columns import floats, ints
from rlsp_async.config import RunConfig
from rlsp_async.cuda import has_cuda
from rlsp_async.errors import DataError, WeightsError
from rlsp_async.messages import Probe, WeightsRef
from rlsp_async.model.weights import weight_files
from rlsp_async.sampling.engine import Engine, Staged
from rlsp_async.weights import sums
from rlsp_async.weights.probe import Errors, errors, make_probe, tolerance
from rlsp_async.weights.snapshot import read_plan

HEAD = "lm_head.weight"

log = structlog.get_logger(__name__)


class LoadCheck:
    """The checks of one engine."""

    def __init__(self, cfg: RunConfig, engine: Engine, model_dir: Path) -> None:
        """Until `calibrate` the tolerance is that of an engine of which nothing is known, and no sum is compared."""
        self._cfg, self._engine, self._model_dir = cfg, engine, model_dir
        self._tolerance = self._tolerance_of(None)
        self._sums_hold = False

    def _tolerance_of(self, own: Errors | None) -> Errors:
        return tolerance(self._cfg.sampler.probe_tolerance, self._cfg.model.dtype, has_cuda(), own)

    async def calibrate(self, initial: Probe | None) -> None:
        """Measures the engine on the initial model, which it holds.

        Args:
            initial: the learner's probe of that model; None: the tolerance stays.

        Raises:
            DataError: the engine computes another model than the learner.
            EngineError: the engine died.
        """
        if initial is not None:
            own = await self._check_initial(initial)
            self._tolerance = self._tolerance_of(own)
        live = await self._engine.live_total()
        if live is None:
            return
        dtype = torch.float32 if self._cfg.model.dtype == "float32" else torch.bfloat16
        self._sums_hold = live in await asyncio.to_thread(directory_totals, self._model_dir, dtype)
        if not self._sums_hold:
            log.warning(
                "the engine lays its parameters out in another way than the model's files: their sums are not "
                "compared, the probe alone tells whether a version was loaded",
                engine=self._engine.name,
            )

    async def _check_initial(self, initial: Probe) -> Errors:
        own = await self._errors(initial)
        if not own.is_within(self._tolerance):
            raise DataError(
                f"{self._model_dir}: the {self._engine.name} engine computes another model than the learner: log-probs "
                f"of the initial weights are off by {own.words(self._tolerance)}; choose another sampler.engine or "
                "another model"
            )
        return own

    async def check(self, ref: WeightsRef, source: Path | Staged) -> float:
        """Checks the version that the engine has just loaded. An engine whose sums differ is ended.

        Args:
            ref: the version.
            source: what it was loaded from: a file, or what the engine received.

        Returns:
            The largest error of its probe.

        Raises:
            WeightsError: the engine computes with other weights.
            EngineError: the engine died.
        """
        if self._sums_hold:
            live = await self._engine.live_total()
            plan = source.plan if isinstance(source, Staged) else await asyncio.to_thread(read_plan, source)
            published = sums.total(plan)
            if live != published:
                await self._engine.close()  # which of its layers are old is not known: it is started again
                raise WeightsError(
                    f"version {ref.version}: the {self._engine.name} engine holds other weights than were loaded: "
                    f"their sum is {live}, that of the version {published}"
                )
        found = await self._errors(ref.probe)
        if not found.is_within(self._tolerance):
            raise WeightsError(
                f"version {ref.version}: the probe's log-probs are off by {found.words(self._tolerance)}; the "
                f"{self._engine.name} engine computes with other weights"
            )
        return found.largest

    async def _errors(self, probe: Probe) -> Errors:
        """How far the engine is off on a probe, as far as its window reaches."""
        ids, logprobs = ints(probe.ids).tolist(), floats(probe.logprobs)
        if len(logprobs) != len(ids) - 1:
            return Errors(float("inf"), float("inf"))
        ids = ids[: max(2, self._engine.window - 1)]
        return errors(make_probe(ids, logprobs[: len(ids) - 1]), await self._engine.score(ids))


def directory_totals(model_dir: Path, dtype: torch.dtype) -> set[int]:
    """The totals (`weights.sums`) that the parameters of a model may have, from its files.

    Args:
        model_dir: the model's directory.
        dtype: the type in which an engine holds floats.

    Returns:
        One total for all tensors, and one without an output head, which may be tied to the embedding. Empty when the
        files cannot be read.
    """
    totals = {True: 0, False: 0}
    try:
        for path in weight_files(model_dir):
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118
                    tensor = file.get_tensor(name)
                    tensor = tensor.to(dtype) if tensor.is_floating_point() else tensor
                    totals[name == HEAD] += sums.sums(tensor)[0]
    except (OSError, SafetensorError, DataError) as e:
        log.warning("the sums of the initial model are not known", path=str(model_dir), error=str(e))
        return set()
    return {sums.signed(totals[False]), sums.signed(totals[False] + totals[True])}
