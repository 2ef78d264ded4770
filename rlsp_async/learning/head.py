"""From hidden states to logits, as the model's own forward pass does it.

Most models multiply with the output head and do nothing else. Some scale the hidden states before it (MiniCPM), or
scale or cap the logits after it (Granite, Cohere, Gemma). Their own code is run: the language model's forward pass,
with a stand-in for its decoder that returns given hidden states.

Shapes: R tokens, E hidden size, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Head = Callable[[Tensor], Tensor]
"""[R, E] hidden states -> [R, V] logits."""

_TRIED_SCALES = (0.01, 1.0, 30.0)
"""Sizes of the hidden states with which a head is tried: a soft cap shows with large ones."""


class _GivenStates(nn.Module):
    """Stands in for a decoder: its output is its input."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> _States:
        return _States(inputs_embeds)


class _States:
    """A decoder's output with hidden states and nothing else: every other field is None."""

    def __init__(self, hidden_1RE: Tensor) -> None:
        self.last_hidden_state = hidden_1RE

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)

    def __getitem__(self, at: Any) -> Any:
        return (self.last_hidden_state,)[at]


def logits_head(model: Any) -> Head:
    """Returns what turns hidden states into logits.

    Args:
        model: a causal language model of transformers.

    Returns:
        the output head alone where the forward pass does nothing beside it, to the last bit; else the forward pass.
    """
    plain: Any = model.get_output_embeddings()
    whole = _without_decoder(model)
    if whole is None:
        return plain  # type: ignore[no-any-return]

    def own(hidden_RE: Tensor) -> Tensor:
        logits_RV: Tensor = whole(inputs_embeds=hidden_RE[None], use_cache=False).logits[0]
        return logits_RV

    return plain if _are_equal(plain, own) else own


def _without_decoder(model: Any) -> Any:
    """The model, parameters shared, with a stand-in for its decoder; None when the decoder is no direct child."""
    decoder = model.get_decoder()
    names = [name for name, module in model.named_children() if module is decoder]
    if not names:
        return None
    whole = copy.copy(model)
    whole._modules = {**model._modules, names[0]: _GivenStates()}
    return whole


@torch.no_grad()
def _are_equal(plain: Any, own: Head) -> bool:
    """Whether two heads give the same bits for hidden states of several sizes."""
    weight = plain.weight
    states = torch.randn(4, weight.shape[1], generator=torch.Generator().manual_seed(0)).to(weight)
    try:
        return all(torch.equal(plain(states * scale), own(states * scale)) for scale in _TRIED_SCALES)
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError):
        # Raised again, and translated, when the model is checked.
        return False
