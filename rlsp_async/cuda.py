"""CUDA devices: whether there are any, and how two processes share one.

torch answers by NVML when PYTORCH_NVML_BASED_CUDA_CHECK is set. Otherwise the question alone makes CUDA unusable in
processes that are forked afterwards, and vLLM forks its engine unless it is told not to.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, device

SHARED_CARD = "RLSP_SHARED_CARD"
"""Variable that is "1" in services that share a card with services of another role."""
NVML_CHECK = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
CONTEXT_SHARE = 0.03
"""Share of a card that is left for the CUDA contexts of the processes on it."""


def has_cuda() -> bool:
    """Whether torch sees a CUDA device; makes no CUDA context."""
    for name, value in NVML_CHECK.items():
        os.environ.setdefault(name, value)
    import torch

    return torch.cuda.is_available()


def card_memory_gib() -> float | None:
    """Memory of the first CUDA device; None without one. Makes a CUDA context."""
    if not has_cuda():
        return None
    import torch

    return float(torch.cuda.get_device_properties(0).total_memory) / 2**30


def use_deterministic_kernels() -> None:
    """Lets torch compute with deterministic kernels only, in this process. Call before the first product on a GPU.

    cuBLAS reads the size of its workspace once. The backward pass of packed attention asks torch for this switch, too.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    torch.use_deterministic_algorithms(True)


def is_shared_card(environment: Mapping[str, str]) -> bool:
    """Whether a service with this environment shares its card."""
    return environment.get(SHARED_CARD) == "1"


def learner_share(sampler_memory: float) -> float:
    """The share of a card that the learner may take beside samplers that have `sampler_memory` of it."""
    return 1.0 - sampler_memory - CONTEXT_SHARE


def to_device(tensor: Tensor, where: device) -> Tensor:
    """A tensor of the host on a device. To a GPU it is copied from pinned memory, and nothing waits for the copy."""
    return tensor.pin_memory().to(where, non_blocking=True) if where.type == "cuda" else tensor.to(where)
