"""Does the learner compute the model that the checkpoint is? Looked at once, when a model is loaded.

The log-probs of several sequences in packed rows are compared with those of the model's own forward pass (transformers'
"eager" attention, its own output head, one unpadded sequence at a time). Each sequence is part of several rows, so that
a sequence that sees its neighbours, or changes with them, is found. Sliding windows are compared twice: as they are,
and made so short that most sequences are longer. A difference is refused with its size.

The cost is bounded: 89 tokens alone and 137 in packed rows, twice when there is a sliding window: below 500 tokens in
all, however large the model's window is.

Shapes: N tokens of one sequence, R response tokens of a row, V vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlsp_async.columns import Ids
from rlsp_async.errors import DataError
from rlsp_async.learning import attention
from rlsp_async.learning.pack import PackedBatch, Sequences, pack_sequences

PackedLogProbs = Callable[[PackedBatch], Tensor]
"""A row -> [R] log-probs of its response tokens at temperature 1, in packed order."""

LENGTHS = (41, 3, 19, 26)
"""Tokens of the sequences."""
ROWS = ((0, 1, 2, 3), (3, 1), (2,))
"""The packed rows, by numbers of sequences."""
SHORT_WINDOW = 7
"""Tokens of a sliding window that was made short."""

FLOAT32_ERROR = 3e-5
"""Accepted difference in float32, for each unit of 1 + the largest log-prob."""
HALF_MEAN_ERROR, HALF_MOST_ERROR = 0.02, 0.06
"""Accepted mean difference in half precision, and the difference that at most a tenth of the tokens may exceed; for
each unit of 1 + the largest log-prob. Numbers have 8 bits, and errors add up over the layers."""

NOT_EXCHANGEABLE = (
    "transformers loads this family, and its attention cannot be exchanged for one that keeps packed sequences apart"
)
"""What is said of families that do not use the attention interface of transformers (GPT-J, Falcon, MPT)."""
_LAYERS = ("full_attention", "sliding_attention")


def check_layers(config: Any, where: str) -> None:
    """Refuses models whose layers are known to need more than a packed row has.

    Args:
        config: the model's configuration.
        where: the model's directory, for the error.

    Raises:
        DataError: a layer is of another type than full or sliding attention.
    """
    layers = set(getattr(config, "layer_types", None) or ())
    if odd := sorted(layers - set(_LAYERS)):
        raise DataError(
            f"{where}: layers of type {', '.join(odd)}; only full attention and sliding windows can be packed"
        )
    if "sliding_attention" in layers and not getattr(config, "sliding_window", None):
        raise DataError(f"{where}: layers of type sliding_attention, and config.json names no sliding_window")


@torch.no_grad()
def check_log_probs(model: Any, packed: PackedLogProbs, longest: int, where: str) -> None:
    """Compares packed log-probs with the model's own forward pass.

    Args:
        model: a causal language model of transformers in evaluation mode, with packed attention.
        packed: computes the log-probs of a packed row with this model, as training does.
        longest: the model's longest sequence, in tokens.
        where: the model's directory, for errors.

    Raises:
        DataError: they differ, or the model cannot be run on a packed row.
    """
    with _own_attention(model):
        if model.config._attn_implementation == attention.NAME:
            raise DataError(f"{where}: {NOT_EXCHANGEABLE}")
    sequences = _draw(int(model.get_input_embeddings().weight.shape[0]), longest)
    own = _compare(model, packed, sequences, where, "")
    if not _holders(model, longest):
        return
    with _short_windows(model, longest):
        shortened = _compare(model, packed, sequences, where, " with a short sliding window")
    config = model.config.get_text_config()
    if _names_window(config, longest) and all(torch.equal(a, b) for a, b in zip(own, shortened, strict=True)):
        raise DataError(
            f"{where}: config.json names a sliding window of {config.sliding_window} tokens, which transformers does "
            f"not apply to {config.model_type!r}; vLLM may: set sliding_window to null"
        )


def _draw(num_vocabulary: int, longest: int) -> list[Ids]:
    """Random sequences of token ids."""
    rng = np.random.default_rng(0)
    lengths = [max(2, min(length, longest)) for length in LENGTHS]
    return [rng.integers(0, num_vocabulary, length).astype(np.int32) for length in lengths]


def _compare(model: Any, packed: PackedLogProbs, sequences: list[Ids], where: str, when: str) -> list[Tensor]:
    """The model's own log-probs of each sequence, [N - 1] each. Raises DataError where the packed ones differ."""
    kind = model.config.model_type
    try:
        with _own_attention(model):
            own = [_own_log_probs(model, ids) for ids in sequences]
    except Exception as e:  # translated: whatever a model's code raises, the model cannot be trained
        raise DataError(f"{where}: {kind!r} does not run{when}: {_first_line(e)}") from e
    for members in ROWS:
        try:
            made = packed(_row(sequences, members))
        except Exception as e:  # translated, as above
            raise DataError(
                f"{where}: the learner cannot train {kind!r}: packed sequences do not run: {_first_line(e)}"
            ) from e
        expected = torch.cat([own[member] for member in members])
        _require_equal(made, expected, model.dtype, f"{where}: the learner cannot train {kind!r}", when)
    return own


def _require_equal(made_R: Tensor, own_R: Tensor, dtype: torch.dtype, what: str, when: str) -> None:
    """Raises DataError when log-probs differ by more than rounding."""
    error_R = (made_R.float() - own_R.float()).abs()
    if not bool(error_R.isfinite().all()):
        raise DataError(f"{what}: its log-probs are not finite{when}")
    unit = 1 + float(own_R.abs().max())
    if dtype is torch.float32:
        is_off = float(error_R.max()) > FLOAT32_ERROR * unit
    else:
        most = float(error_R.quantile(0.9))
        is_off = float(error_R.mean()) > HALF_MEAN_ERROR * unit or most > HALF_MOST_ERROR * unit
    if is_off:
        raise DataError(
            f"{what}: log-probs of packed sequences differ by up to {float(error_R.max()):.2g} from those of the "
            f"model's own forward pass{when}"
        )


def _own_log_probs(model: Any, ids: Ids) -> Tensor:
    """[N - 1] log-probs of ids[1:] by the model's own forward pass."""
    ids_N = torch.from_numpy(ids.astype(np.int64)).to(model.device)
    logits_NV = model(input_ids=ids_N[None], use_cache=False).logits[0, :-1]
    logp_NV = torch.log_softmax(logits_NV.float(), dim=-1)
    return logp_NV.gather(1, ids_N[1:, None])[:, 0]


def _row(sequences: list[Ids], members: tuple[int, ...]) -> PackedBatch:
    num = sum(len(ids) - 1 for ids in sequences)
    made = Sequences(
        [ids[:1] for ids in sequences],
        [ids[1:] for ids in sequences],
        np.zeros(num, np.float32),
        np.zeros(num, np.int32),
        np.arange(len(sequences)),
        np.zeros(len(sequences), np.int64),
    )
    return pack_sequences(made, members)


@contextlib.contextmanager
def _own_attention(model: Any) -> Iterator[None]:
    """Lets the model attend as transformers wrote it."""
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(attention.NAME)


def _holders(model: Any, longest: int) -> list[Any]:
    """Modules and configurations that have a sliding window shorter than the longest sequence, each once."""
    modules = list(model.modules())
    configs = {id(module.config): module.config for module in modules if hasattr(module, "config")}
    windowed = [x for x in (*modules, *configs.values()) if type(getattr(x, "sliding_window", None)) is int]
    return [holder for holder in windowed if 0 < holder.sliding_window < longest]


def _names_window(config: Any, longest: int) -> bool:
    """Whether a configuration says that some layer has a sliding window shorter than the longest sequence."""
    window = getattr(config, "sliding_window", None)
    if not window or window >= longest or getattr(config, "use_sliding_window", True) is False:
        return False
    layers = getattr(config, "layer_types", None)
    return layers is None or "sliding_attention" in layers


@contextlib.contextmanager
def _short_windows(model: Any, longest: int) -> Iterator[None]:
    """Makes every sliding window short."""
    kept = [(holder, holder.sliding_window) for holder in _holders(model, longest)]
    try:
        for holder, window in kept:
            holder.sliding_window = SHORT_WINDOW if window > SHORT_WINDOW else window - 1 or 2
        yield
    finally:
        for holder, window in kept:
            holder.sliding_window = window


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
