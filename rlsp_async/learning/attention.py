"""Block-diagonal causal attention for packed rows, known to transformers as "rlsp_packed".

Each token sees the earlier tokens of its own sequence, or the last few of them in a layer with a sliding window, and
nothing else. On a CPU (and for float32 on CUDA) the row is laid out as right-padded blocks of similar lengths inside
the attention only, so that everything else of the model works on T tokens. On CUDA in half precision
`torch.nn.attention.varlen` computes it without padding.

    spans = Spans.of(cu_seqlens)
    model(input_ids=ids[None], position_ids=positions[None], packing=spans, use_cache=False)

Shapes: T packed tokens, H heads, K key heads (H a multiple of K), D head size, D' head size of the values, Q sequences,
P padded places, B sequences of a block, L its longest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from rlsp_async.columns import Ids

NAME = "rlsp_packed"
_BLOCK_COST_TOKENS = 1024
"""Cost of a further block (its kernel calls), in padded tokens."""


class Blocks(NamedTuple):
    """A packed row as blocks of neighbouring sequences with padding."""

    shapes: list[tuple[int, int]]
    """(B, L) of each block; P is the sum of B * L."""
    take_P: Tensor
    """Index of the token at each place; 0 where there is padding."""
    empty: Tensor
    """Indices of the places that are padding."""
    back_T: Tensor
    """Index of each token's place."""


@dataclass(frozen=True)
class Spans:
    """Where the sequences of a packed row begin and end; made once for all layers."""

    cu_seqlens: Tensor
    """[Q + 1] int32, cumulative lengths."""
    longest: int
    """Tokens of the longest sequence."""

    @classmethod
    def of(cls, cu_seqlens: Ids, device: str | torch.device = "cpu") -> Spans:
        """Makes spans from cumulative lengths [Q + 1]."""
        return cls(torch.from_numpy(cu_seqlens.astype(np.int32)).to(device), int(np.diff(cu_seqlens).max()))

    @cached_property
    def blocks(self) -> Blocks:
        """How the row falls into blocks; made when the first layer asks, which fused kernels never do.

        With the longest sequence first there are the fewest padded places.
        """
        cu_seqlens = self.cu_seqlens.cpu().numpy()
        lengths = np.diff(cu_seqlens).astype(np.int64)
        shapes, takes = [], []
        first = 0
        for last in cut_blocks(lengths.tolist()):
            longest = int(lengths[first:last].max())
            shapes.append((last - first, longest))
            takes.append(_places(cu_seqlens[first:last], lengths[first:last], longest))
            first = last
        take_P = np.concatenate(takes)
        arrays = (np.maximum(take_P, 0), np.flatnonzero(take_P < 0), np.flatnonzero(take_P >= 0))
        return Blocks(shapes, *(torch.from_numpy(a.astype(np.int64)).to(self.cu_seqlens.device) for a in arrays))


def cut_blocks(lengths: list[int]) -> list[int]:
    """Cuts Q sequences into blocks so that padded places plus the cost of the blocks are fewest.

    A dynamic program over at most Q cuts, with cost(first..last) = B * L + the cost of a block.

    Example: [100] * 20 + [10] * 200 -> [20, 220].

    Args:
        lengths: tokens of each sequence, in the order of the row.

    Returns:
        the end of each block, as a number of sequences.
    """
    num = len(lengths)
    length_Q = np.array(lengths, dtype=np.int64)
    best, previous = np.zeros(num + 1, dtype=np.int64), [0] * (num + 1)
    for last in range(1, num + 1):
        # From the block of one sequence to the block of all; of equal costs the first, the shortest block, is taken.
        longest = np.maximum.accumulate(length_Q[:last][::-1])
        cost = best[:last][::-1] + np.arange(1, last + 1) * longest + _BLOCK_COST_TOKENS
        size = int(cost.argmin())
        best[last], previous[last] = cost[size], last - 1 - size
    ends = [num]
    while previous[ends[-1]] > 0:
        ends.append(previous[ends[-1]])
    return ends[::-1]


def _places(begin_B: Ids, length_B: npt.NDArray[np.int64], longest: int) -> npt.NDArray[np.int64]:
    """[B * L] index of the token at each place of a block, -1 for padding."""
    column_L = np.arange(longest)
    token_BL = np.where(column_L < length_B[:, None], begin_B[:, None] + column_L, -1)
    return token_BL.reshape(-1)


_NEUTRAL = frozenset(
    {
        "position_ids",
        "position_embeddings",
        "cache_position",
        "past_key_values",
        "use_cache",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "logits_to_keep",
        "return_dict",
    }
)
"""Arguments that layers hand on and that change nothing in the attention of one whole row."""


@dataclass(frozen=True)
class Variant:
    """How a layer's attention differs from plain causal attention."""

    scaling: float | None = None
    """Factor of the scores; None for 1 / sqrt(D)."""
    window: int | None = None
    """Tokens that a token sees, itself included; None: all earlier ones of its sequence."""
    softcap: float | None = None
    """Scores become softcap * tanh(scores / softcap)."""
    sinks_H: Tensor | None = None
    """A score for each head that takes part in the softmax and has no value (gpt-oss)."""


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention over one packed row, with the signature that transformers calls.

    Args:
        module: the layer; its attention must be causal.
        query: [1, H, T, D].
        key: [1, K, T, D].
        value: [1, K, T, D'], with D' = D in most models.
        attention_mask: must be None; `packing` says which tokens see each other.
        options: `packing`, the row's `Spans`; `scaling`, `sliding_window`, `softcap` and `s_aux` as in `Variant`.

    Returns:
        [1, T, H, D'], and None for the attention weights.

    Raises:
        ValueError: there is no `packing`, or an argument has a meaning that is not computed here.
    """
    packing: Spans | None = options.pop("packing", None)
    if packing is None:
        raise ValueError(f"attention {NAME!r} needs packing=Spans.of(cu_seqlens), which its layers do not hand on")
    variant = Variant(*(options.pop(name, None) for name in ("scaling", "sliding_window", "softcap", "s_aux")))
    _refuse_others(module, attention_mask, options)
    if variant.window is not None and variant.window >= packing.longest:
        variant = replace(variant, window=None)
    q_THD, k_TKD, v_TKD = (x[0].transpose(0, 1) for x in (query, key, value))
    fused = q_THD.is_cuda and q_THD.dtype in (torch.float16, torch.bfloat16) and v_TKD.shape[2] <= q_THD.shape[2]
    if fused and not _is_capped(variant):
        return _varlen(q_THD, k_TKD, v_TKD, packing, variant)[None], None
    return _dense(q_THD, k_TKD, v_TKD, packing, variant)[None], None


def _refuse_others(module: torch.nn.Module, attention_mask: Tensor | None, options: dict[str, Any]) -> None:
    """Raises ValueError for arguments that would change the result and are not computed here."""
    causal = options.pop("is_causal", None)
    if causal is False or (causal is None and getattr(module, "is_causal", True) is False):
        raise ValueError("its attention is not causal")
    if attention_mask is not None:
        raise ValueError("its attention takes a mask or bias of its own")
    if options.pop("dropout", None):
        raise ValueError("its attention has dropout")
    odd = sorted(name for name, value in options.items() if value is not None and name not in _NEUTRAL)
    if odd:
        raise ValueError(f"its attention takes {', '.join(odd)}")


def _is_capped(variant: Variant) -> bool:
    """Whether the scores are changed before the softmax, which fused kernels do not do."""
    return variant.softcap is not None or variant.sinks_H is not None


def _dense(q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, packing: Spans, variant: Variant) -> Tensor:
    """[T, H, D'] block by block, with padding."""
    heads, groups = q_THD.shape[1], q_THD.shape[1] // k_TKD.shape[1]
    outs = []
    for q, k, v in zip(*(_blocks(x, packing) for x in (q_THD, k_TKD, v_TKD)), strict=True):
        if groups > 1:
            k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
        if _is_capped(variant):
            out_BHLD = _capped(q, k, v, variant)
        elif variant.window is not None:
            mask_LL = _visible(q.shape[2], variant.window, q.device)
            out_BHLD = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_LL, scale=variant.scaling)
        else:
            out_BHLD = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=variant.scaling)
        outs.append(out_BHLD.transpose(1, 2).reshape(-1, heads, v.shape[3]))
    flat_PHD = outs[0] if len(outs) == 1 else torch.cat(outs)
    out_THD: Tensor = _Unpad.apply(flat_PHD, packing)  # type: ignore[no-untyped-call]
    return out_THD


def _visible(length: int, window: int | None, device: torch.device) -> Tensor:
    """[L, L] whether the query of a row sees the key of a column: the last `window` tokens, itself included."""
    mask_LL = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return mask_LL if window is None else mask_LL.triu(1 - window)


def _capped(q_BHLD: Tensor, k_BHLD: Tensor, v_BHLD: Tensor, variant: Variant) -> Tensor:
    """[B, H, L, D'] with soft caps (Gemma 2, arXiv:2408.00118) or sinks in the scores, softmax in float32."""
    scaling = q_BHLD.shape[3] ** -0.5 if variant.scaling is None else variant.scaling
    scores_BHLL = torch.matmul(q_BHLD, k_BHLD.transpose(2, 3)) * scaling
    if variant.softcap is not None:
        scores_BHLL = variant.softcap * torch.tanh(scores_BHLL / variant.softcap)
    hidden_LL = ~_visible(q_BHLD.shape[2], variant.window, q_BHLD.device)
    scores_BHLL = scores_BHLL.float().masked_fill(hidden_LL, float("-inf"))
    if variant.sinks_H is not None:
        sinks = variant.sinks_H.float()[None, :, None, None].expand(*scores_BHLL.shape[:3], 1)
        scores_BHLL = torch.cat((scores_BHLL, sinks), dim=-1)
    weights_BHLL = scores_BHLL.softmax(-1)[..., : k_BHLD.shape[2]]
    return torch.matmul(weights_BHLL.to(v_BHLD.dtype), v_BHLD)


def _blocks(x_THD: Tensor, packing: Spans) -> list[Tensor]:
    """Each block as [B, H, L, D]."""
    flat_PHD: Tensor = _Pad.apply(x_THD, packing)  # type: ignore[no-untyped-call]
    parts = torch.split(flat_PHD, [batch * longest for batch, longest in packing.blocks.shapes])
    return [
        part.view(*shape, *x_THD.shape[1:]).transpose(1, 2)
        for part, shape in zip(parts, packing.blocks.shapes, strict=True)
    ]


def _pad(x_T: Tensor, packing: Spans) -> Tensor:
    """[T, ...] -> [P, ...] with zeros at padding."""
    return x_T.index_select(0, packing.blocks.take_P).index_fill_(0, packing.blocks.empty, 0.0)


class _Pad(torch.autograd.Function):
    """`_pad` with its gradient: each token has one place, so that the gradient is a plain gather."""

    @staticmethod
    def forward(ctx: Any, x_T: Tensor, packing: Spans) -> Tensor:
        ctx.packing = packing
        return _pad(x_T, packing)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0].index_select(0, ctx.packing.blocks.back_T), None


class _Unpad(torch.autograd.Function):
    """[P, ...] -> [T, ...]. Padding gets gradient 0, as it must: padded queries look at real keys."""

    @staticmethod
    def forward(ctx: Any, x_P: Tensor, packing: Spans) -> Tensor:
        ctx.packing = packing
        return x_P.index_select(0, packing.blocks.back_T)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _pad(grads[0], ctx.packing), None


def _varlen(q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, packing: Spans, variant: Variant) -> Tensor:
    """[T, H, D'] without padding, on CUDA in half precision."""
    from torch.nn.attention.varlen import varlen_attn

    value_size = v_TKD.shape[2]
    if value_size != q_THD.shape[2]:  # the kernel wants one head size; columns of zeros stay zeros
        v_TKD = F.pad(v_TKD, (0, q_THD.shape[2] - value_size))
    out = varlen_attn(
        q_THD.contiguous(),
        k_TKD.contiguous(),
        v_TKD.contiguous(),
        packing.cu_seqlens,
        packing.cu_seqlens,
        packing.longest,
        packing.longest,
        scale=variant.scaling,
        window_size=(-1 if variant.window is None else variant.window - 1, 0),
        enable_gqa=q_THD.shape[1] != k_TKD.shape[1],
    )
    if not isinstance(out, Tensor):
        raise TypeError("varlen_attn returned more than its output")
    return out[..., :value_size]


def register() -> None:
    """Makes `attn_implementation="rlsp_packed"` known to transformers; a second call changes nothing."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)
