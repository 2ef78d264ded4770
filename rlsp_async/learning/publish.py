"""How the learner hands out weights: names, tensors and a probe of what they compute."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rlsp_async import config
from rlsp_async.columns import Ids, pack_floats, pack_ints
from rlsp_async.learning import pack
from rlsp_async.learning.policy import Policy
from rlsp_async.messages import Probe, WeightsRef

_PROBE_TOKENS = 48


class Publisher(Protocol):
    """Where weights go."""

    def publish(self, named_tensors: Iterable[tuple[str, Tensor]], version: int, probe: Probe) -> WeightsRef:
        """Makes a version available."""

    def prune(self) -> None:
        """Forgets old versions."""

    def is_empty(self) -> bool:
        """Whether no version is there: none was published yet, or they lay in memory and the machine was restarted."""


class StorePublisher:
    """Publishes into the run's weights directory (`rlsp_async.weights`)."""

    def __init__(self, cfg: config.RunConfig, num_bytes: int, incarnation: int = 0) -> None:
        from rlsp_async.weights.file import choose_directory

        self.directory: Path = choose_directory(cfg, num_bytes)
        self._keep, self._incarnation = cfg.learner.keep_weights, incarnation

    def publish(self, named_tensors: Iterable[tuple[str, Tensor]], version: int, probe: Probe) -> WeightsRef:
        from rlsp_async.weights.file import FileTransport

        return FileTransport(self.directory).publish(named_tensors, version, probe, self._incarnation)

    def prune(self) -> None:
        from rlsp_async.weights.file import FileTransport

        FileTransport(self.directory).prune(self._keep, self._incarnation)

    def is_empty(self) -> bool:
        from rlsp_async.weights.file import list_versions

        return not list_versions(self.directory)


def probe_ids(seed: int, num_vocabulary: int, context_tokens: int) -> Ids:
    """The probe's fixed sequence: drawn from the seed, at most 48 tokens."""
    length = max(2, min(_PROBE_TOKENS, context_tokens))
    return np.random.default_rng((seed, length)).integers(0, num_vocabulary, length).astype(np.int32)


@torch.no_grad()
def make_probe(policy: Policy, ids: Ids) -> Probe:
    """Log-probs (temperature 1) that the present weights give ids[1:]."""
    num = len(ids) - 1
    sequence = pack.Sequences(
        [ids[:1]],
        [ids[1:]],
        np.zeros(num, np.float32),
        np.zeros(num, np.int32),
        np.zeros(1, np.int64),
        np.zeros(1, np.int64),
    )
    logp_R = policy.outputs(pack.build(sequence, [0]), 1.0, with_values=False).logp_R
    return Probe(ids=pack_ints(ids), logprobs=pack_floats(logp_R.float().cpu().numpy()))
