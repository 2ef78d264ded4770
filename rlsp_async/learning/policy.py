"""The model that is trained: log-probs, entropy and values of packed response tokens.

Log-probs are float32, at the temperature the rollouts were drawn with. Only positions that predict a response token
meet the vocabulary, a chunk at a time, so that 152k entries fit.

Shapes: T packed tokens, R response tokens among them, E hidden size, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from rlsp_async.errors import DataError
from rlsp_async.learning import attention
from rlsp_async.learning.pack import PackedBatch

Critic = Literal["none", "head", "head_detached", "separate"]
_CHUNK_VALUES = 1 << 26
"""Logits that exist at once: 256 MiB in float32."""


@dataclass(frozen=True)
class Outputs:
    """Of one micro-batch, aligned with its R response tokens."""

    logp_R: Tensor
    """Log-prob of each response token at the temperature."""
    entropy_R: Tensor
    """Of the distribution it was drawn from; without gradient unless asked for."""
    values_R: Tensor | None
    """Value of the state before each response token, [R, K] with K value heads; None without a critic."""
    mean_R: Tensor | None = None
    """Mean over the vocabulary of the log-probs there, no gradient; None unless asked for."""
    energy_R: Tensor | None = None
    """Squared norm of the gradient of `logp_R` by the logits, 1 - 2 p + sum of p^2 over the temperature's square; None
    unless asked for."""


class Asked(NamedTuple):
    """What a pass makes besides log-probs: mean over the vocabulary, entropy with gradient, energy."""

    mean: bool
    entropy: bool
    energy: bool


class Policy(nn.Module):
    """A causal language model with an optional critic.

    `critic`: "head" is a linear layer on the shared trunk, "head_detached" the same without gradient into the trunk,
    "separate" a second trunk that starts as a copy of the policy (as RLSP's released code has it). Its `num_values`
    heads are rows of one layer; they are float32 and start at zero, and where the algorithm says (the mean reward) once
    there is a batch.
    """

    def __init__(self, model: Any, critic: Critic = "none", num_values: int = 1) -> None:
        super().__init__()
        self.model = model
        self.critic_kind: Critic = "none"
        self.value_head: nn.Linear | None = None
        self.critic: Any = None
        self.num_values = num_values
        self.add_critic(critic, num_values)

    def add_critic(self, critic: Critic, num_values: int = 1) -> None:
        """A fresh critic of this kind in place of the present one."""
        self.critic_kind, self.value_head, self.critic, self.num_values = critic, None, None, num_values
        if critic == "none":
            return
        head = nn.Linear(self.model.config.hidden_size, num_values, dtype=torch.float32)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        self.value_head = head.to(self.device)
        if critic == "separate":
            self.critic = copy.deepcopy(self.model.get_decoder())

    @torch.no_grad()
    def center_values(self, *means: float) -> None:
        """Lets a critic that has learned nothing yet begin at the mean return, head by head. Otherwise its weights
        travel there on the mean of the hidden states, and what differs between states becomes noise for many steps."""
        if self.value_head is not None and not bool(self.value_head.weight.any() or self.value_head.bias.any()):
            self.value_head.bias.copy_(torch.tensor(means))

    @property
    def device(self) -> torch.device:
        return torch.device(next(self.model.parameters()).device)

    def outputs(
        self,
        batch: PackedBatch,
        temperature: float,
        with_values: bool = True,
        with_mean: bool = False,
        with_entropy: bool = False,
        with_energy: bool = False,
    ) -> Outputs:
        """Runs the model over one packed row. `temperature` counts unless the row brings one for each token;
        `with_entropy`: the entropy carries gradient."""
        device = self.device
        ids_T, positions_T, source_R, target_R = (
            torch.from_numpy(a).to(device) for a in (batch.ids_T, batch.position_ids_T, batch.source_R, batch.target_R)
        )
        spans = attention.Spans.of(batch.cu_seqlens, device)
        hidden_RE = _trunk(self.model.get_decoder(), ids_T, positions_T, spans)[source_R]
        divisor = temperature if batch.temperature_R is None else torch.from_numpy(batch.temperature_R).to(device)
        asked = Asked(with_mean, with_entropy, with_energy)
        logp_R, entropy_R, mean_R, energy_R = self._log_probs(hidden_RE, target_R, divisor, asked)
        values_R = None
        if with_values and self.value_head is not None:
            state_RE = hidden_RE
            if self.critic is not None:
                state_RE = _trunk(self.critic, ids_T, positions_T, spans)[source_R]
            if self.critic_kind == "head_detached":
                state_RE = state_RE.detach()
            values_R = self.value_head(state_RE.float()).squeeze(-1)
        return Outputs(logp_R, entropy_R, values_R, mean_R if with_mean else None, energy_R if with_energy else None)

    def _log_probs(
        self, hidden_RE: Tensor, target_R: Tensor, temperature: float | Tensor, asked: Asked
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        head = self.model.get_output_embeddings()
        size = max(1, _CHUNK_VALUES // head.weight.shape[0])
        if len(target_R) <= size:
            return _chunk(head, hidden_RE, target_R, temperature, asked)
        # The logits of a chunk are made again on the way back, so that only one chunk of them lives at a time.
        starts = range(0, len(target_R), size)
        divisors = [temperature[at : at + size] if isinstance(temperature, Tensor) else temperature for at in starts]
        parts = [
            checkpoint(_chunk, head, h, t, d, asked, use_reentrant=False)
            for h, t, d in zip(torch.split(hidden_RE, size), torch.split(target_R, size), divisors, strict=True)
        ]
        logp_R, entropy_R, mean_R, energy_R = (torch.cat(column) for column in zip(*parts, strict=True))
        return logp_R, entropy_R, mean_R, energy_R

    def policy_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What is published: names and parameters of the language model alone, tied ones once."""
        yield from self.model.named_parameters()

    def critic_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for prefix, module in (("value_head", self.value_head), ("critic", self.critic)):
            if module is not None:
                yield from module.named_parameters(prefix)


def _trunk(decoder: Any, ids_T: Tensor, positions_T: Tensor, spans: attention.Spans) -> Tensor:
    out = decoder(input_ids=ids_T[None], position_ids=positions_T[None], packing=spans, use_cache=False)
    hidden_TE: Tensor = out.last_hidden_state[0]
    return hidden_TE


def _chunk(
    head: nn.Module, hidden_RE: Tensor, target_R: Tensor, temperature: float | Tensor, asked: Asked
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-prob of the token, entropy; mean log-prob over the vocabulary and energy (0 unless asked for)."""
    logits_RV = head(hidden_RE).float()
    if isinstance(temperature, Tensor):
        logits_RV = logits_RV / temperature[:, None]
    elif temperature != 1.0:
        logits_RV = logits_RV / temperature
    logp_RV = F.log_softmax(logits_RV, dim=-1)
    with torch.set_grad_enabled(asked.entropy and torch.is_grad_enabled()):
        entropy_R = -(logp_RV.exp() * logp_RV).sum(-1)
    with torch.no_grad():
        mean_R = logp_RV.mean(-1) if asked.mean else torch.zeros_like(entropy_R)
        energy_R = torch.zeros_like(entropy_R)
        if asked.energy:
            prob_RV = logp_RV.exp()
            energy_R = 1 - 2 * prob_RV.gather(1, target_R[:, None]).squeeze(1) + prob_RV.square().sum(-1)
            energy_R = energy_R / temperature**2
    return logp_RV.gather(1, target_R[:, None]).squeeze(1), entropy_R, mean_R, energy_R


def load_model(
    directory: Path, dtype: str = "float32", device: str | torch.device = "cpu", gradient_checkpointing: bool = False
) -> Any:
    """A Hugging Face causal-LM directory as a model with packed attention.

    Raises DataError when the directory cannot be loaded, or when the model needs something packed rows do not have
    (sliding windows, capped logits).
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    attention.register()
    logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            directory, dtype=getattr(torch, dtype), local_files_only=True, attn_implementation=attention.NAME
        )
    except (OSError, ValueError, KeyError) as e:
        raise DataError(f"{directory}: no causal language model that transformers loads: {e}") from e
    _check(model.config, directory)
    model.to(device)
    if gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    return model


def _check(config: Any, directory: Path) -> None:
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    if layers != {"full_attention"}:
        raise DataError(f"{directory}: layers of type {', '.join(sorted(layers))}; only full attention can be packed")
    for name in ("final_logit_softcapping", "attn_logit_softcapping", "logit_scale"):
        if getattr(config, name, None):
            raise DataError(f"{directory}: {name} is set; the learner would compute other log-probs than the sampler")
    if getattr(config, "attention_dropout", 0.0):
        raise DataError(f"{directory}: attention_dropout must be 0")
