"""The model that is trained: log-probs, entropy and values of packed response tokens.

Log-probs are float32, at the temperature at which the rollouts were drawn. Only positions that predict a response token
are multiplied with the vocabulary, a chunk at a time, so that a vocabulary of 152k entries fits into memory.

Shapes: T packed tokens, R response tokens among them, E hidden size, V vocabulary, K value heads.
"""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import register_fsdp_forward_method
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from rlsp_async.cuda import to_device
from rlsp_async.errors import DataError
from rlsp_async.learning import attention, fidelity, lora, pack
from rlsp_async.learning.head import Head, logits_head
from rlsp_async.learning.pack import PackedBatch
from rlsp_async.learning.ranks import Ranks, is_sharded, local, release
from rlsp_async.model.create import reason
from rlsp_async.model.info import longest_sequence, longrope_limit

Critic = Literal["none", "head", "head_detached", "separate"]
CHUNK_LOGITS = {"cpu": 1 << 26, "cuda": 1 << 27}
"""Number of logits that exist at once: 256 MiB in float32; 512 MiB on a GPU, where small products waste the card."""


@dataclass(frozen=True)
class ForwardOutputs:
    """What a forward pass computes, aligned with the R response tokens of a micro-batch."""

    logp_R: Tensor
    """Log-prob of each response token at the temperature."""
    entropy_R: Tensor
    """Entropy of the distribution that the token was drawn from; without gradient unless requested."""
    values_R: Tensor | None
    """Value of the state before each response token, [R, K] with K value heads; None without a critic."""
    mean_R: Tensor | None = None
    """Mean of the log-probs over the vocabulary, without gradient; None unless requested."""
    energy_R: Tensor | None = None
    """Squared norm of the gradient of `logp_R` by the logits, (1 - 2 p + sum of p^2) / temperature^2, without gradient;
    None unless requested."""


class ForwardRequest(NamedTuple):
    """What a forward pass computes beside log-probs and entropy."""

    values: bool = True
    """The critic's values, if there is a critic."""
    mean: bool = False
    """The mean of the log-probs over the vocabulary."""
    entropy: bool = False
    """Let the entropy carry gradient."""
    energy: bool = False
    """The squared norm of the gradient by the logits."""
    has_entropy: bool = True
    """Compute the entropy at all; without it it is 0."""


class Policy(nn.Module):
    """A causal language model with an optional critic.

    `critic`: "head" is a linear layer on the shared trunk, "head_detached" the same without gradient into the trunk,
    "separate" a second trunk that starts as a copy of the policy (as in RLSP's released code). The `num_values` heads
    are rows of one float32 layer; they are zero until `center_values` sets them for the critic's first batch.

    `holds`: values that the model's adapters have while this policy computes; None: those that they have. With it a
    reference policy shares its model with the policy that is trained.
    """

    ranks: Ranks
    """The ranks that compute every pass together; parameters are sharded over them, adapters are not."""

    def __init__(
        self, model: Any, critic: Critic = "none", num_values: int = 1, holds: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.adapters = lora.adapter_parameters(model)
        self._holds = holds
        self.critic_kind: Critic = "none"
        self.value_head: nn.Linear | None = None
        self.critic: Any = None
        self.num_values = num_values
        self.ranks, self.dtype = Ranks.single(), model.dtype  # of a sharded model: in which it computes
        self._build: Callable[[], Any] | None = None
        self._longest = longrope_limit(model.config.get_text_config().to_dict())
        self._head = (logits_head(model),)  # in a tuple: its parameters are the model's, and belong there
        self.add_critic(critic, num_values)

    def add_critic(self, critic: Critic, num_values: int = 1) -> None:
        """Puts a fresh critic of this kind in the place of the present one."""
        self.critic_kind, self.value_head, self.critic, self.num_values = critic, None, None, num_values
        if critic == "none":
            return
        head = nn.Linear(self.model.config.hidden_size, num_values, dtype=torch.float32)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        self.value_head = head.to(self.device)
        if critic == "separate":
            self.critic = self.copy_model(lambda model: model.get_decoder())

    def shard(self, ranks: Ranks, build: Callable[[], Any]) -> Policy:
        """Shards the parameters over ranks; nothing changes for a single rank.

        A model with adapters is not sharded: each rank holds it whole, and only the adapters' gradients are added up.

        Args:
            ranks: the ranks, each of which calls this with the same model.
            build: loads the model again, unsharded: a sharded one cannot be copied.

        Returns:
            the policy itself.
        """
        if ranks.size == 1:
            return self
        if self.critic is not None:
            raise ValueError("a policy is sharded before it has a critic")
        self.ranks = ranks
        if self.adapters:
            return self
        self._build = build
        _shard(self, self.model, ranks, self.dtype)
        register_fsdp_forward_method(self, "outputs")
        row = pack.pack_sequences(_TWO_TOKENS, [0])
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")  # nothing changes outputs in place
        with torch.no_grad():  # the first pass decides which module is the root: not a critic's, which comes and goes
            self.outputs(row, 1.0, ForwardRequest(values=False))
        self.release()
        return self

    def copy_model(self, part: Callable[[Any], Any]) -> Any:
        """Returns a copy of a part of the language model, with its present weights; sharded where the model is.

        Args:
            part: gives the part, of a model of transformers.
        """
        if self._build is None:
            return copy.deepcopy(part(self.model))
        made = part(self._build())
        _shard(made, made, self.ranks, self.dtype)
        _copy_rows(part(self.model), made)
        return made

    def copy(self) -> Policy:
        """A policy of its own with the same weights, without critic."""
        if self._build is None:
            return Policy(copy.deepcopy(self.model))
        made = Policy(self._build()).shard(self.ranks, self._build)
        _copy_rows(self.model, made.model)
        return made

    def holding(self, adapters: Mapping[str, Tensor]) -> Policy:
        """A policy on the same model whose adapters have other values while it computes."""
        made = Policy(self.model, holds=adapters)
        made.ranks = self.ranks
        return made

    def release(self) -> None:
        """Lets go of the parameters of other ranks, after passes; does nothing for a single rank."""
        if self._build is not None:
            release(self)

    @torch.no_grad()
    def center_values(self, *means: float) -> None:
        """Lets a critic that has learned nothing yet begin at the mean return, one for each head.

        Without this its weights reach the mean return along the mean of the hidden states, and the differences between
        states are noise for many steps. A critic that has learned is left alone.
        """
        if self.value_head is not None and not bool(self.value_head.weight.any() or self.value_head.bias.any()):
            self.value_head.bias.copy_(torch.tensor(means))

    @property
    def device(self) -> torch.device:
        """The device of the model's parameters."""
        return torch.device(next(self.model.parameters()).device)

    def outputs(
        self,
        batch: PackedBatch,
        temperature: float,
        request: ForwardRequest = ForwardRequest(),  # noqa: B008
    ) -> ForwardOutputs:
        """Runs the model over one packed row.

        Args:
            batch: the row.
            temperature: temperature of all tokens, unless the row brings one for each token.
            request: what to compute beside log-probs and entropy.

        Returns:
            columns [R] on the model's device; log-probs and values carry gradient.

        Raises:
            DataError: a sequence is so long that it would change the rotary embedding of the others.
        """
        if self._holds is None:
            return self._outputs(batch, temperature, request)
        with torch.no_grad(), lora.holding(self.adapters, self._holds):
            return self._outputs(batch, temperature, request)

    def _outputs(self, batch: PackedBatch, temperature: float, request: ForwardRequest) -> ForwardOutputs:
        device = self.device
        self._require_room(batch)
        ids_T, positions_T, source_R, target_R = (
            to_device(torch.from_numpy(a), device)
            for a in (batch.ids_T, batch.position_ids_T, batch.source_R, batch.target_R)
        )
        spans = attention.Spans.of(batch.cu_seqlens, device)
        hidden_RE = run_trunk(self.model.get_decoder(), ids_T, positions_T, spans)[source_R]
        divisor: float | Tensor = temperature
        if batch.temperature_R is not None:
            divisor = to_device(torch.from_numpy(batch.temperature_R), device)
        logp_R, entropy_R, mean_R, energy_R = self._log_probs(hidden_RE, target_R, divisor, request)
        values_R = None
        if request.values and self.value_head is not None:
            state_RE = hidden_RE
            if self.critic is not None:
                state_RE = run_trunk(self.critic, ids_T, positions_T, spans)[source_R]
            if self.critic_kind == "head_detached":
                state_RE = state_RE.detach()
            values_R = self.value_head(state_RE.float()).squeeze(-1)
        mean, energy = mean_R if request.mean else None, energy_R if request.energy else None
        return ForwardOutputs(logp_R, entropy_R, values_R, mean, energy)

    def _require_room(self, batch: PackedBatch) -> None:
        if self._longest is not None and (longest := int(np.diff(batch.cu_seqlens).max())) > self._longest:
            raise DataError(
                f"a sequence of {longest} tokens: with longrope, sequences of more than {self._longest} change the "
                "rotary embedding of the others in a packed row; leave it out or make it shorter"
            )

    def _log_probs(
        self, hidden_RE: Tensor, target_R: Tensor, temperature: float | Tensor, request: ForwardRequest
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The columns of `_chunk` for any number of response tokens."""
        (head,) = self._head
        weight = self.model.get_output_embeddings().weight
        size = max(1, CHUNK_LOGITS[weight.device.type] // weight.shape[0])
        if len(target_R) <= size:
            return _chunk(head, hidden_RE, target_R, temperature, request)
        # The logits of a chunk are recomputed in the backward pass, so that only one chunk of them exists at a time.
        starts = range(0, len(target_R), size)
        divisors = [temperature[at : at + size] if isinstance(temperature, Tensor) else temperature for at in starts]
        parts = [
            checkpoint(_chunk, head, h, t, d, request, use_reentrant=False)
            for h, t, d in zip(torch.split(hidden_RE, size), torch.split(target_R, size), divisors, strict=True)
        ]
        logp_R, entropy_R, mean_R, energy_R = (torch.cat(column) for column in zip(*parts, strict=True))
        return logp_R, entropy_R, mean_R, energy_R

    def whole_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Names and values of `policy_parameters` in the model's type, whole. Every rank iterates over all of them."""
        for name, parameter in self.policy_parameters():
            if is_sharded(parameter):
                yield name, self.ranks.whole(local(parameter).to(self.dtype), parameter.shape[0])
            else:
                yield name, parameter.detach()

    def held(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> Iterator[tuple[str, Tensor, bool]]:
        """Names, the rows that this rank holds in the type in which they are kept, and whether those are not all."""
        for name, parameter in parameters:
            split = is_sharded(parameter)
            yield name, local(parameter).to(self.dtype) if split else parameter, split

    def policy_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters of the language model that are trained and published: those of its adapters, or all.

        The critic's are not among them. Tied parameters come once.
        """
        yield from self.adapters.items() if self.adapters else self.model.named_parameters()

    def critic_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters of the critic, which is never published."""
        for prefix, module in (("value_head", self.value_head), ("critic", self.critic)):
            if module is not None:
                yield from module.named_parameters(prefix)


_TWO_TOKENS = pack.Sequences(
    [np.zeros(1, np.int32)],
    [np.zeros(1, np.int32)],
    np.zeros(1, np.float32),
    np.zeros(1, np.int32),
    np.zeros(1, np.int64),
    np.zeros(1, np.int64),
)
"""The shortest batch that a model computes."""


def _shard(root: nn.Module, model: Any, ranks: Ranks, dtype: torch.dtype) -> None:
    """Shards the float32 masters of a model, or of its decoder, which computes in `dtype`.

    The parameters move to the host first, so that a card never holds more than the shards and one whole layer.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to("cpu", torch.float32)
    num = model.config.get_text_config().num_hidden_layers
    lists = (module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == num)
    ranks.shard(root, next(lists, ()), dtype)


@torch.no_grad()
def _copy_rows(source: nn.Module, target: nn.Module) -> None:
    """Copies this rank's rows of all parameters from one sharded module to another of the same kind."""
    for (_, here), (_, there) in zip(source.named_parameters(), target.named_parameters(), strict=True):
        local(there).copy_(local(here))


def run_trunk(decoder: Any, ids_T: Tensor, positions_T: Tensor, spans: attention.Spans) -> Tensor:
    """Runs a decoder over one packed row.

    Args:
        decoder: the model without its output head.
        ids_T: token ids.
        positions_T: position of each token in its sequence.
        spans: how the row falls into sequences.

    Returns:
        hidden states [T, E].
    """
    out = decoder(input_ids=ids_T[None], position_ids=positions_T[None], packing=spans, use_cache=False)
    hidden_TE: Tensor = out.last_hidden_state[0]
    return hidden_TE


def _chunk(
    head: Head, hidden_RE: Tensor, target_R: Tensor, temperature: float | Tensor, request: ForwardRequest
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-prob of the token, entropy, mean log-prob over the vocabulary and energy; the last two 0 unless requested."""
    logits_RV = head(hidden_RE).float()
    if isinstance(temperature, Tensor):
        logits_RV = logits_RV / temperature[:, None]
    elif temperature != 1.0:
        logits_RV = logits_RV / temperature
    logp_RV = F.log_softmax(logits_RV, dim=-1)
    if request.has_entropy:
        with torch.set_grad_enabled(request.entropy and torch.is_grad_enabled()):
            entropy_R = -(logp_RV.exp() * logp_RV).sum(-1)
    else:
        entropy_R = torch.zeros_like(logp_RV[:, 0])
    with torch.no_grad():
        mean_R = logp_RV.mean(-1) if request.mean else torch.zeros_like(entropy_R)
        energy_R = torch.zeros_like(entropy_R)
        if request.energy:
            prob_RV = logp_RV.exp()
            energy_R = 1 - 2 * prob_RV.gather(1, target_R[:, None]).squeeze(1) + prob_RV.square().sum(-1)
            energy_R = energy_R / temperature**2
    return logp_RV.gather(1, target_R[:, None]).squeeze(1), entropy_R, mean_R, energy_R


def load_model(
    directory: Path, dtype: str = "float32", device: str | torch.device = "cpu", gradient_checkpointing: bool = False
) -> Any:
    """Loads a causal language model from a Hugging Face directory, with packed attention, and checks it once.

    Args:
        directory: config and weights.
        dtype: name of the parameters' type.
        device: where the model computes.
        gradient_checkpointing: whether activations are recomputed in the backward pass.

    Returns:
        the model, in evaluation mode: without dropout and router noise, which samplers do not have either.

    Raises:
        DataError: the directory cannot be loaded, tensors are missing, surplus, of another shape or not finite, or
            packed rows do not have the log-probs of the model's own forward pass.
    """
    model = _load(directory, getattr(torch, dtype)).eval()
    fidelity.check_layers(model.config.get_text_config(), str(directory))
    _require_finite(model, directory)
    model.to(device)
    longest = longest_sequence(model.config.get_text_config().to_dict()) or sys.maxsize
    made = Policy(model)
    request = ForwardRequest(values=False)
    fidelity.check_log_probs(model, lambda row: made.outputs(row, 1.0, request).logp_R, longest, str(directory))
    if gradient_checkpointing:
        _recompute_activations(model, directory)
    return model


def _load(directory: Path, dtype: torch.dtype) -> Any:
    """The model of a directory. Raises DataError unless every tensor is in its place."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    attention.register()
    logging.disable_progress_bar()
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            attn_implementation=attention.NAME,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except Exception as e:  # translated: transformers raises many kinds for damaged files and unknown families
        if isinstance(e, KeyError) and e.args == (attention.NAME,):  # the family looks in a table of its own
            raise DataError(f"{directory}: {fidelity.NOT_EXCHANGEABLE}") from e
        raise DataError(f"{directory}: no causal language model that transformers loads: {reason(e)}") from e
    shapes = [
        f"{name} ({tuple(there)} in the files, {tuple(here)} by config.json)"
        for name, there, here in sorted(found["mismatched_keys"])
    ]
    for what, names in (
        ("lack tensors of the model", sorted(found["missing_keys"])),
        ("have tensors of another shape", shapes),
        ("have tensors that the model does not have", sorted(filter(_is_weight, found["unexpected_keys"]))),
        ("cannot be converted", sorted(map(str, found.get("error_msgs") or ()))),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise DataError(f"{directory}: its safetensors {what}: {', '.join(names[:3])}{more}")
    return model


def _is_weight(name: str) -> bool:
    """Whether a surplus tensor is more than a buffer that older versions of transformers saved."""
    return not name.endswith(("rotary_emb.inv_freq", "attn.bias", "attn.masked_bias", "attention.bias", "position_ids"))


def _require_finite(model: Any, directory: Path) -> None:
    """Raises DataError when a weight is NaN or infinite."""
    for name, parameter in model.named_parameters():
        if not bool(parameter.detach().isfinite().all()):
            raise DataError(f"{directory}: tensor {name} has values that are NaN or infinite")


def _recompute_activations(model: Any, directory: Path) -> None:
    """Turns gradient checkpointing on. Layers recompute in training mode only: they are put into it, and leave it while
    they compute, so that their dropout stays off."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    try:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    except ValueError as e:
        raise DataError(f"{directory}: learner.gradient_checkpointing: {e}") from e
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer) and m.gradient_checkpointing]
    if not layers:
        raise DataError(
            f"{directory}: learner.gradient_checkpointing: {model.config.model_type!r} does not support it; set it to "
            "false"
        )
    for layer in layers:
        layer.training = True
        layer._gradient_checkpointing_func = _Recomputed(layer)


class _Recomputed:
    """Runs a layer in evaluation mode and recomputes it in the backward pass."""

    def __init__(self, layer: Any) -> None:
        self._layer = (layer,)

    def __call__(self, run: Any, *args: Any) -> Any:
        """The layer's output."""
        return checkpoint(self._evaluated, run, *args, use_reentrant=False)

    def _evaluated(self, run: Any, *args: Any) -> Any:
        (layer,) = self._layer
        layer.training = False
        try:
            return run(*args)
        finally:
            layer.training = True
