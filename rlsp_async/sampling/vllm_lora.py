"""Adapters in vLLM: one adapter, which every request carries from the first token on.

A version is loaded by vLLM's own path for adapters (`add_lora` with `load_inplace`), under a pause. Before the first
version the adapter is zero: a request that carried none would go on without one after a version was loaded.

vLLM's code for adapters on a CPU copies A and B once for every token, and its adapter of the output head cannot compute
log-probs of a prompt while others decode. Here the adapted layers are named, so that the head is not one of them, and
on a CPU `OneAdapter` multiplies with the one adapter that there is. Seconds for 64 requests of 128 tokens, a Llama of
0.2 M parameters, rank 8, one core, the best of four rounds beside other work: 1.5 without adapters, 2.3 with
`OneAdapter`, 5.6 with vLLM's code.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import save_file
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform

from rlsp_async.config import LoraConfig
from rlsp_async.model.adapter import CONFIG, FACTORS, PREFIX, WEIGHTS, adapter_config

NAME, NUMBER = "policy", 1
"""What the adapter is called in vLLM."""


class AdapterDirectory:
    """The directory from which vLLM loads the adapter: its settings, and a link to the file of the newest version."""

    def __init__(self, lora: LoraConfig, layers: list[str], shape: tuple[int, int]) -> None:
        """Makes the directory with an adapter that is zero.

        Args:
            lora: rank and alpha.
            layers: full names of the adapted layers.
            shape: [out, in] of the first of them.
        """
        self._temporary = tempfile.TemporaryDirectory(prefix="rlsp-adapter-")
        self._path = Path(self._temporary.name)
        (self._path / CONFIG).write_bytes(msgspec.json.encode(adapter_config(lora, layers)))
        out, inside = shape
        zero = {FACTORS[0]: torch.zeros(lora.rank, inside), FACTORS[1]: torch.zeros(out, lora.rank)}
        save_file({f"{PREFIX}{layers[0]}.{factor}": t for factor, t in zero.items()}, self._path / WEIGHTS)

    def point_to(self, path: Path) -> None:
        """Makes a published file the one that is loaded next."""
        link = self._path / f".{WEIGHTS}"
        link.unlink(missing_ok=True)
        link.symlink_to(path.resolve())
        link.replace(self._path / WEIGHTS)

    @property
    def received(self) -> Path:
        """Where the worker writes a version that came over a channel."""
        return self._path / "received.safetensors"

    def loading(self) -> LoRARequest:
        """What `add_lora` is called with: the file is read although an adapter of this name is loaded."""
        return LoRARequest(NAME, NUMBER, str(self._path), load_inplace=True)

    def carried(self) -> LoRARequest:
        """What every request carries."""
        return LoRARequest(NAME, NUMBER, str(self._path))

    def remove(self) -> None:
        """Deletes the directory."""
        self._temporary.cleanup()


class OneAdapter(PunicaWrapperCPU):  # type: ignore[misc]
    """Adapters on a CPU when all requests carry the same one: two products for each layer."""

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: Sequence[torch.Tensor],
        lora_b_stacked: Sequence[torch.Tensor],
        scale: float,
        output_slices: Sequence[int],
        *,
        add_inputs: bool = True,
        **_: Any,
    ) -> None:
        """Adds, or writes, scale B (A x) to each slice of the output, in float32 whatever the model's type is."""
        x, y, at = x.view(-1, x.shape[-1]), y.view(-1, y.shape[-1]), 0
        for a, b, num in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
            made = scale * ((x.float() @ a[0, 0].float().T) @ b[0, 0].float().T)
            part = y[:, at : at + num]
            part.copy_(part + made if add_inputs else made)
            at += num


def use_one_adapter() -> None:
    """Makes vLLM on the CPU compute adapters with `OneAdapter`. Called in the worker before it loads the model."""
    name = f"{OneAdapter.__module__}.{OneAdapter.__qualname__}"
    type(current_platform).get_punica_wrapper = classmethod(lambda cls: name)
