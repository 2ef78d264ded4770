"""Which kinds of channel this process can open, and which one the learner and a sampler take.

nccl    both have GPUs, not the same one, and the same library in the same environment: from card to card
gloo    otherwise: TCP between hosts
file    neither end knows a kind of the other one: the sampler takes another URI of the version
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from rlsp_async.cuda import has_cuda
from rlsp_async.errors import WeightsDelayed
from rlsp_async.messages import Pull
from rlsp_async.weights import gloo, nccl
from rlsp_async.weights.channel import Channel

FILE = "file"
HOST_ID = "RLSP_HOST_ID"
"""Variable with what this machine is called, for tests; without it, the boot id of the kernel."""
MUST_AGREE = ("NCCL_CUMEM_ENABLE", "NCCL_NVLS_ENABLE", "NCCL_P2P_DISABLE", "NCCL_P2P_LEVEL", "NCCL_SHM_DISABLE")
"""Variables that hang NCCL's handshake when the two ends have different values."""


def host_id() -> str:
    """What tells this machine from others: equal for two processes on one running kernel."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return os.environ.get(HOST_ID) or (boot.read_text(encoding="ascii").strip() if boot.exists() else "")


def own_kinds() -> list[str]:
    """The kinds that this process can open, the best first."""
    return [nccl.KIND, gloo.KIND] if has_cuda() and nccl.is_available() else [gloo.KIND]


def own_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """What must be equal at both ends of a channel of kind nccl; empty without it."""
    if nccl.KIND not in own_kinds():
        return {}
    found = os.environ if environment is None else environment
    return {"version": nccl.version()} | {name: found[name] for name in MUST_AGREE if name in found}


def own_devices(num: int) -> list[str]:
    """UUIDs of the first cards that this process sees; empty on a CPU."""
    if not has_cuda():
        return []
    return [str(torch.cuda.get_device_properties(i).uuid) for i in range(min(num, torch.cuda.device_count()))]


def choose_kind(pull: Pull, kinds: list[str], device: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """The kind that the learner takes for a sampler, and why.

    Args:
        pull: what the sampler says of itself.
        kinds: those of the learner.
        device: UUID of the learner's card; empty on a CPU.
        environment: `own_environment` of the learner.
    """
    common = [kind for kind in kinds if kind in pull.kinds]
    why = "" if nccl.KIND in common else "one of the two has no GPU or no NCCL"
    if not why and not (pull.devices and device):
        why = "the cards are not known"
    if not why and (device in pull.devices or len(set(pull.devices)) < len(pull.devices)):
        why = "they share a card, and NCCL refuses two ranks on one"
    if not why and (differing := _differing(pull.env, environment)):
        why = f"{differing} differs at the two ends"
    if not why:
        return nccl.KIND, "both have cards of their own"
    if gloo.KIND in common:
        return gloo.KIND, why
    return FILE, f"there is no common kind of channel: the learner has {kinds}, the sampler {pull.kinds[:4]}"


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> str:
    """The first name whose value is not the same in two environments; empty when all are."""
    return next((name for name in sorted({*one, *other}) if one.get(name) != other.get(name)), "")


def open_channel(kind: str, name: str, where: bytes, rank: int, world: int, deadline_s: float) -> Channel:
    """Opens one end of a channel; returns when all ends are there. Raises WeightsDelayed."""
    if kind == gloo.KIND:
        return gloo.open_channel(name, where, rank, world, deadline_s)
    if kind == nccl.KIND:
        return nccl.open_channel(name, where, rank, world, deadline_s)
    raise WeightsDelayed(f"channel {name}: this build opens no channel of kind {kind[:40]!r}")
