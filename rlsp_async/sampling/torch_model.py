"""A Llama or Qwen decoder in plain torch, over fused weights: a full forward pass and one decode step.

Per layer: h += o(attend(rope(qkv(norm(h))))); h += down(silu(gate(norm(h))) * up(norm(h))). The projections q, k, v
and gate, up are one matrix each: at a hidden size of 64 a decode step is mostly the overhead of its calls.

Shapes: B rows, T tokens, E hidden, H query heads, K key heads, D head size, L cached tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from rlsp_async.config import LoraConfig
from rlsp_async.errors import DataError, WeightsError
from rlsp_async.model.adapter import LLAMA_TARGETS, add_pair, check_targets, read_pairs
from rlsp_async.model.create import transformers_config
from rlsp_async.model.weights import weight_files

KINDS = ("llama", "mistral", "qwen2", "qwen3")
ROPE_TYPES = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings whose angles depend on the position alone."""

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q [B,H,T,D], k [B,K,T,D], v [B,K,T,D]) -> [B,H,T,D]"""

_FUSED = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
_NORMS = {
    "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
}


class TorchModel:
    """Weights and sizes of a model. No cache and no other state is kept between calls."""

    def __init__(
        self, model_dir: Path, dtype: torch.dtype, device: str, window: int, lora: LoraConfig | None = None
    ) -> None:
        """Reads the directory. `lora`: versions are adapters, which are added to the weights that were read.

        Raises DataError for a model family or a rotary embedding that is not supported here, and ConfigError for an
        adapter that is not.
        """
        config: Any = transformers_config(model_dir)
        check_family(config, model_dir)
        self.num_layers: int = config.num_hidden_layers
        self.num_heads: int = config.num_attention_heads
        self.num_kv_heads: int = config.num_key_value_heads
        self.head_dim: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.dtype, self.device = dtype, device
        self._eps: float = config.rms_norm_eps
        self._cos_PD, self._sin_PD = _rope_tables(config, window, dtype, device)
        tensors = read_tensors(model_dir)
        self._tied = is_tied(config.tie_word_embeddings, tensors)
        self._parts = _parts(tensors, self.num_layers, self._tied)
        self._weights = {part: _fuse(tensors, names).to(device, dtype) for part, names in self._parts.items()}
        self._lora, self._base = lora, dict[str, Tensor]()
        self._adapted, self._layers = dict[str, list[str]](), set[str]()
        if lora:
            check_targets(lora.targets, set(LLAMA_TARGETS), str(model_dir))
            self._keep_base(tensors, set(lora.targets or LLAMA_TARGETS))

    def _keep_base(self, tensors: Mapping[str, Tensor], targets: set[str]) -> None:
        """Keeps the weights that adapters are added to.

        Their sums are float32 in a bfloat16 model too: a small product would vanish in the rounding of the sum, and the
        learner, which adds the product to the layer's output, would compute another model.
        """
        self._adapted = {
            part: names
            for part, names in self._parts.items()
            if not part.endswith(".bias") and targets.intersection(name.split(".")[-2] for name in names)
        }
        for part, names in self._adapted.items():
            self._base |= {name: tensors[name].to(self.device, self.dtype) for name in names}
            self._weights[part] = self._weights[part].to(torch.float32, copy=True)  # never the kept tensor itself
        self._layers = {name.removesuffix(".weight") for name in self._base if name.split(".")[-2] in targets}

    def load(self, path: Path) -> None:
        """Copies all weights of a file in place, or none and raises WeightsError when names or shapes differ.

        Of a model with adapters the file holds those, and the weights are the sums.
        """
        self.load_tensors(load_file(path, device=self.device), str(path))

    def load_tensors(self, tensors: dict[str, Tensor], what: str) -> None:
        """The same for tensors that came another way; `what` begins an error."""
        parts = self._parts
        if self._lora:
            tensors, parts = self._sums(what, tensors, self._lora), self._adapted
        elif self._tied:
            tensors.pop("lm_head.weight", None)
        wanted = {name for names in parts.values() for name in names}
        if wanted != set(tensors):
            raise WeightsError(f"{what}: tensors differ from the model's, e.g. {sorted(wanted ^ set(tensors))[:3]}")
        fused = {part: _fuse(tensors, names) for part, names in parts.items()}
        for part in parts:
            if fused[part].shape != self._weights[part].shape:
                raise WeightsError(
                    f"{what}: {parts[part]} has shape {tuple(fused[part].shape)}, the model "
                    f"{tuple(self._weights[part].shape)}"
                )
        for part in parts:
            self._weights[part].copy_(fused[part])

    def tensors(self) -> list[Tensor]:
        """The weights that are computed with; fused, and a tied head once."""
        return list(self._weights.values())

    def _sums(self, what: str, tensors: Mapping[str, Tensor], lora: LoraConfig) -> dict[str, Tensor]:
        """W + (alpha / rank) B A of every layer that shares a fused weight with an adapted one. Raises WeightsError."""
        try:
            pairs = read_pairs(tensors)
            if set(pairs) != self._layers:
                odd = min(set(pairs) ^ self._layers)
                raise ValueError(f"its adapters are not those of model.lora.targets, e.g. {odd}")
            scale = lora.alpha / lora.rank
            sums = {f"{n}.weight": add_pair(self._base[f"{n}.weight"], pair, scale) for n, pair in pairs.items()}
        except (ValueError, RuntimeError) as e:  # RuntimeError: shapes that cannot be added
            raise WeightsError(f"{what}: {e}") from e
        return {name: weight.float() for name, weight in self._base.items()} | sums

    def hidden(self, ids_BT: Tensor, positions_BT: Tensor, attend: Attend) -> Tensor:
        """The last hidden states [B, T, E], after the final norm, of ids [B, T] at positions [B, T]."""
        weights = self._weights
        cos_BTD, sin_BTD = self._cos_PD[positions_BT].unsqueeze(2), self._sin_PD[positions_BT].unsqueeze(2)
        h_BTE = F.embedding(ids_BT, weights["embed"])
        for layer in range(self.num_layers):
            q, k, v = self._qkv(layer, self._norm(h_BTE, f"{layer}.norm1"), cos_BTD, sin_BTD)
            out_BTE = attend(layer, q, k, v).transpose(1, 2).flatten(2)
            h_BTE = h_BTE + self._linear(out_BTE, f"{layer}.o")
            gate_up = self._linear(self._norm(h_BTE, f"{layer}.norm2"), f"{layer}.gate_up")
            gate, up = gate_up.chunk(2, dim=-1)
            h_BTE = h_BTE + self._linear(F.silu(gate).mul_(up), f"{layer}.down")
        return self._norm(h_BTE, "norm")

    def logits(self, h_E: Tensor) -> Tensor:
        """Logits [..., V] in float32 of hidden states [..., E]."""
        return F.linear(h_E, self._weights["embed" if self._tied else "head"]).float()

    def _qkv(self, layer: int, x_BTE: Tensor, cos_BTD: Tensor, sin_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heads, kv_heads = self.num_heads, self.num_kv_heads
        qkv = self._linear(x_BTE, f"{layer}.qkv")
        qkv = qkv.view(*x_BTE.shape[:2], heads + 2 * kv_heads, self.head_dim)
        qk, v = qkv[:, :, : heads + kv_heads], qkv[:, :, heads + kv_heads :]
        if f"{layer}.q_norm" in self._weights:
            qk = torch.cat(
                (self._norm(qk[:, :, :heads], f"{layer}.q_norm"), self._norm(qk[:, :, heads:], f"{layer}.k_norm")),
                dim=2,
            )
        half = self.head_dim // 2  # the sine table carries the sign of the first half
        turned = torch.cat((qk[..., half:], qk[..., :half]), dim=-1)
        qk = (qk * cos_BTD).addcmul_(turned, sin_BTD).transpose(1, 2)
        return qk[:, :heads], qk[:, heads:], v.transpose(1, 2)

    def _linear(self, x: Tensor, part: str) -> Tensor:
        weight, bias = self._weights[part], self._weights.get(f"{part}.bias")
        if weight.dtype is x.dtype:
            return F.linear(x, weight, bias)
        return F.linear(x.to(weight.dtype), weight, None if bias is None else bias.to(weight.dtype)).to(x.dtype)

    def _norm(self, x: Tensor, part: str) -> Tensor:
        weight = self._weights[part]
        if x.dtype is torch.float32:
            return F.rms_norm(x, weight.shape, weight, self._eps)
        return F.rms_norm(x.float(), weight.shape, None, self._eps).to(x.dtype) * weight


def read_tensors(model_dir: Path) -> dict[str, Tensor]:
    """All tensors of a model directory, from the files that transformers reads. Raises DataError."""
    tensors: dict[str, Tensor] = {}
    for path in weight_files(model_dir):
        tensors.update(load_file(path))
    return tensors


def is_tied(wanted: bool, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the output head is the embedding: not when the files have another one, whatever config.json says."""
    head, embedding = tensors.get("lm_head.weight"), tensors.get("model.embed_tokens.weight")
    return wanted and (head is None or embedding is None or torch.equal(head, embedding))


def attend_causally(_layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Full causal attention within a sequence; padding on the right is never looked at."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1, enable_gqa=True)


def attend_cached(q: Tensor, k_BKLD: Tensor, v_BKLD: Tensor, mask_BL: Tensor) -> Tensor:
    """One query token a row against its cache; mask is 0 or -inf. Query heads of one key head share its read."""
    num_rows, heads, _, head_dim = q.shape
    q = q.reshape(num_rows, k_BKLD.shape[1], -1, head_dim)
    scores = torch.matmul(q * (1 / math.sqrt(head_dim)), k_BKLD.transpose(2, 3)).add_(mask_BL[:, None, None])
    return torch.matmul(scores.float().softmax(-1).to(v_BKLD.dtype), v_BKLD).reshape(num_rows, heads, 1, head_dim)


def check_family(config: Any, model_dir: Path) -> None:
    """Raises DataError for a model family or a rotary embedding that is not computed here."""
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    window = getattr(config, "use_sliding_window", True) and getattr(config, "sliding_window", None)
    activation = getattr(config, "hidden_act", None)
    odd = [
        what
        for what, is_odd in (
            (f"rope type {rope!r}", rope not in ROPE_TYPES),
            ("a sliding window", bool(window) and window < config.max_position_embeddings),
            (f"activation {activation!r}", activation != "silu"),
        )
        if is_odd
    ]
    if config.model_type not in KINDS:
        odd = [f"model_type {config.model_type!r}"]
    if odd:
        raise DataError(f'{model_dir}: the torch engine does not compute {", ".join(odd)}; set sampler.engine = "vllm"')


def _rope_tables(config: Any, window: int, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines, [window, D] each; rope(x) = x cos + swap_halves(x) sin."""
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    cos, sin = LlamaRotaryEmbedding(config)(torch.empty(1, dtype=torch.float32), torch.arange(window)[None])
    half = sin.shape[-1] // 2
    signed = torch.cat((-sin[0, :, :half], sin[0, :, half:]), dim=-1)
    return cos[0].to(device, dtype), signed.to(device, dtype)


def _parts(tensors: Mapping[str, Tensor], num_layers: int, tied: bool) -> dict[str, list[str]]:
    """Which checkpoint tensors make each fused weight."""
    parts = {"embed": ["model.embed_tokens.weight"], "norm": ["model.norm.weight"]}
    if not tied:
        parts["head"] = ["lm_head.weight"]
    for layer in range(num_layers):
        stem = f"model.layers.{layer}"
        for part, modules in _FUSED.items():
            parts[f"{layer}.{part}"] = [f"{stem}.{module}.weight" for module in modules]
            parts[f"{layer}.{part}.bias"] = [f"{stem}.{module}.bias" for module in modules]
        parts |= {f"{layer}.{part}": [f"{stem}.{module}.weight"] for part, module in _NORMS.items()}
    optional = ("bias", "q_norm", "k_norm")
    kept = {part: names for part, names in parts.items() if not part.endswith(optional) or names[0] in tensors}
    missing = [name for names in kept.values() for name in names if name not in tensors]
    if missing:
        raise DataError(f"the model's safetensors lack {missing[0]!r}")
    return kept


def _fuse(tensors: Mapping[str, Tensor], names: list[str]) -> Tensor:
    return torch.cat([tensors[name] for name in names]) if len(names) > 1 else tensors[names[0]]
