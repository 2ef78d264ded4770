"""The batch of the torch engine: rows that decode together, their KV cache, admission and compaction.

Rows 0..n-1 are always the live rows: the last row moves into the place of a finished row (compaction), new rows are
appended. The cache is left-aligned; row b holds `length[b]` tokens. A prompt's last token is not prefilled: it is the
first input of decoding, so every sampled token comes from the same code. Rows with the same prompt share its prefill.

Shapes: n live rows, L cached tokens, V vocabulary; see torch_model.py for the rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlsp_async.sampling.engine import GenerateSettings
from rlsp_async.sampling.torch_model import TorchModel, attend_cached, attend_causally

PREFILL_TOKENS = 8192
"""Most tokens, padding included, of one prefill pass."""
GROWTH_TOKENS = 64
"""Tokens by which each row of the cache grows."""
RANDOM_NUMBERS = 64
"""Random numbers of a row that are drawn at once."""


@dataclass(eq=False)
class DecodeRow:
    """One completion in progress; `ticket` is the future of its caller."""

    prompt_ids: tuple[int, ...]
    settings: GenerateSettings
    ticket: Any = None
    random: Iterator[float] = field(default_factory=lambda: iter(()))
    """Its random numbers, one for each token; the batch sets them when the row is admitted."""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)

    @property
    def is_stopped(self) -> bool:
        """Whether the last token is a stop id."""
        return bool(self.tokens) and self.tokens[-1] in self.settings.stop_ids

    @property
    def is_done(self) -> bool:
        """Whether the completion has ended."""
        return self.is_stopped or len(self.tokens) >= self.settings.max_new_tokens


class DecodeBatch:
    """The live rows of one model. `version` labels the tokens that they sample."""

    def __init__(self, model: TorchModel, max_rows: int, seed: int) -> None:
        self.version = 0
        self.live: list[DecodeRow] = []
        self._model = model
        self._max_rows = max_rows
        self._own_seeds = ((seed, number) for number in itertools.count())
        """For rows without a seed."""
        shape = (2, model.num_layers, max_rows, model.num_kv_heads, 0, model.head_dim)
        self._cache = torch.empty(shape, dtype=model.dtype, device=model.device)  # [2, layer, row, K, L, D]
        self._lengths: list[int] = []
        self._refresh()

    @property
    def num_free(self) -> int:
        """Rows that may still be admitted."""
        return self._max_rows - len(self.live)

    def admit(self, rows: Sequence[DecodeRow]) -> None:
        """Prefills and appends rows; at most `num_free`."""
        assert len(rows) <= self.num_free
        for row in rows:
            row.random = random_numbers(row.settings.seed or next(self._own_seeds))
        for batch in prefill_batches(sorted(rows, key=lambda row: (len(row.prompt_ids), row.prompt_ids))):
            self._prefill(batch)
        self._refresh()

    def step(self) -> list[DecodeRow]:
        """Samples one token for every live row; removes and returns the rows that are done."""
        num = len(self.live)
        self._reserve(max(self._lengths) + 1)
        logits_nV = self._decode(max(self._lengths) + 1)
        logp_nV = torch.log_softmax(logits_nV / self._temperature_n1, dim=-1)
        random_n = torch.tensor([next(row.random) for row in self.live], dtype=torch.float64)
        self._input_n = draw(logp_nV, random_n.to(logp_nV.device))
        logprobs = logp_nV.gather(1, self._input_n[:, None])[:, 0].tolist()
        for at, (row, token, logprob) in enumerate(zip(self.live, self._input_n.tolist(), logprobs, strict=True)):
            row.tokens.append(token)
            row.logprobs.append(logprob)
            row.versions.append(self.version)
            self._lengths[at] += 1
        self._length_n += 1
        done = [at for at in range(num) if self.live[at].is_done]
        return self.remove(done) if done else []

    def remove(self, at: Sequence[int]) -> list[DecodeRow]:
        """Removes the rows at some places; the last live rows move into these places. Returns the removed rows."""
        gone = set(at)
        num = len(self.live) - len(gone)
        holes = sorted(hole for hole in gone if hole < num)
        movers = [index for index in range(num, len(self.live)) if index not in gone]
        removed = [self.live[index] for index in sorted(gone)]
        if holes:
            longest = max(self._lengths[index] for index in movers)
            self._cache[:, :, holes, :, :longest] = self._cache[:, :, movers, :, :longest]
            self._input_n[holes] = self._input_n[movers]
        for hole, mover in zip(holes, movers, strict=True):
            self.live[hole], self._lengths[hole] = self.live[mover], self._lengths[mover]
        del self.live[num:], self._lengths[num:]
        self._refresh()
        return removed

    def score(self, ids: Sequence[int]) -> Tensor:
        """Log-probs [N-1] at temperature 1 of ids[1:], for ids [N]."""
        ids_1T = torch.tensor([ids], device=self._model.device)
        positions_1T = torch.arange(len(ids), device=self._model.device)[None]
        logits_TV = self._model.logits(self._model.hidden(ids_1T, positions_1T, attend_causally)[0, :-1])
        return torch.log_softmax(logits_TV, dim=-1).gather(1, ids_1T[0, 1:, None])[:, 0]

    def _decode(self, longest: int) -> Tensor:
        num, positions_n1 = len(self.live), self._length_n[:, None]
        columns_L = torch.arange(longest, device=self._model.device)
        mask_nL = torch.zeros(num, longest, dtype=self._model.dtype, device=self._model.device)
        mask_nL.masked_fill_(columns_L > positions_n1, float("-inf"))

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self._cache[0, layer], self._cache[1, layer]
            keys[self._row_n, :, self._length_n] = k[:, :, 0]
            values[self._row_n, :, self._length_n] = v[:, :, 0]
            return attend_cached(q, keys[:num, :, :longest], values[:num, :, :longest], mask_nL)

        return self._model.logits(self._model.hidden(self._input_n[:, None], positions_n1, attend)[:, 0])

    def _prefill(self, rows: Sequence[DecodeRow]) -> None:
        """Appends rows and fills their cache with all prompt tokens but the last."""
        first, longest = len(self.live), len(rows[-1].prompt_ids) - 1
        self.live += rows
        self._lengths += [len(row.prompt_ids) - 1 for row in rows]
        self._input_n = torch.cat((self._input_n, self._ids([row.prompt_ids[-1] for row in rows])))
        self._reserve(longest + 1)
        if longest == 0:
            return
        prompts = {row.prompt_ids: None for row in rows}
        which = {prompt: at for at, prompt in enumerate(prompts)}
        ids_UT = self._ids([[*prompt[:-1], *[0] * (longest + 1 - len(prompt))] for prompt in prompts])
        source_m = self._ids([which[row.prompt_ids] for row in rows])

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            self._cache[0, layer, first : first + len(rows), :, :longest] = k[source_m]
            self._cache[1, layer, first : first + len(rows), :, :longest] = v[source_m]
            return attend_causally(layer, q, k, v)

        positions_UT = torch.arange(longest, device=self._model.device).expand_as(ids_UT)
        self._model.hidden(ids_UT, positions_UT, attend)

    def _refresh(self) -> None:
        """Makes the tensors that depend on the list of live rows."""
        num, device = len(self.live), self._model.device
        self._row_n = torch.arange(num, device=device)
        self._length_n = self._ids(self._lengths)
        temperatures = [[row.settings.temperature] for row in self.live]
        self._temperature_n1 = torch.tensor(temperatures, device=device).reshape(num, 1)
        self._input_n = self._input_n[:num] if num else self._ids([])

    def _reserve(self, num_tokens: int) -> None:
        """Makes room for `num_tokens` in each row. New room is zeroed: it is masked, but a NaN in it would spread."""
        room = self._cache.shape[4]
        if num_tokens <= room:
            return
        more = -(-num_tokens // GROWTH_TOKENS) * GROWTH_TOKENS - room
        self._cache = torch.nn.functional.pad(self._cache, (0, 0, 0, more))

    def _ids(self, values: Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._model.device)


def random_numbers(seed: tuple[int, ...]) -> Iterator[float]:
    """Numbers from 0 to 1 for the tokens of one row, endless; they depend on the seed alone."""
    generator = np.random.default_rng(np.random.SeedSequence(seed))
    while True:
        yield from generator.random(RANDOM_NUMBERS).tolist()


def draw(logp_nV: Tensor, random_n: Tensor) -> Tensor:
    """Samples one token for each row by inverting the distribution function in float64.

    Args:
        logp_nV: [n, V] log-probs, normalised.
        random_n: [n] a random number from 0 to 1 for each row, in float64.

    Returns:
        [n] token ids.
    """
    if logp_nV.ndim != 2:
        raise ValueError(f"log-probs must be [n, V], not {tuple(logp_nV.shape)}")
    if random_n.shape != logp_nV.shape[:1] or random_n.dtype is not torch.float64:
        raise ValueError(f"{len(logp_nV)} rows need as many random numbers in float64, not {tuple(random_n.shape)}")
    cdf_nV = logp_nV.exp().cumsum(-1, dtype=torch.float64)
    return torch.searchsorted(cdf_nV, random_n[:, None] * cdf_nV[:, -1:], right=True)[:, 0].clamp_(
        max=logp_nV.shape[1] - 1
    )


def prefill_batches(rows: Sequence[DecodeRow]) -> list[list[DecodeRow]]:
    """Rows sorted by prompt, in batches whose distinct prompts, padded, stay within PREFILL_TOKENS."""
    batches: list[list[DecodeRow]] = []
    distinct: set[tuple[int, ...]] = set()
    for row in rows:
        distinct = distinct | {row.prompt_ids}
        if not batches or len(distinct) * len(row.prompt_ids) > PREFILL_TOKENS:
            batches.append([])
            distinct = {row.prompt_ids}
        batches[-1].append(row)
    return batches
