"""Which process gets which GPU of this machine.

    assign_gpus(["0", "1", "2"], samplers=2, tensor_parallel=1)
        == {"learner-0": "0", "sampler-0": "1", "sampler-1": "2"}

The learner gets the first GPU, samplers share the others; a single GPU is shared by all processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def visible_gpus(environment: Mapping[str, str], devices: Path = Path("/dev")) -> list[str]:
    """The GPUs that this process may use: CUDA_VISIBLE_DEVICES if it is set, else those that the driver shows."""
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [gpu for gpu in environment["CUDA_VISIBLE_DEVICES"].split(",") if gpu.strip()]
    numbers = [path.name.removeprefix("nvidia") for path in devices.glob("nvidia[0-9]*")]
    return sorted((number for number in numbers if number.isdigit()), key=int)


def assign_gpus(gpus: list[str], samplers: int, tensor_parallel: int) -> dict[str, str]:
    """CUDA_VISIBLE_DEVICES by process name; empty when there is no choice (no GPU, or one that all share).

    Args:
        gpus: the visible GPUs.
        samplers: number of sampler processes.
        tensor_parallel: GPUs of one sampler. GPUs are given out in turn, so some may be shared.
    """
    if len(gpus) < 2:
        return {}
    rest = gpus[1:]
    assigned = {"learner-0": gpus[0]}
    for i in range(samplers):
        mine = [rest[(i * tensor_parallel + j) % len(rest)] for j in range(tensor_parallel)]
        assigned[f"sampler-{i}"] = ",".join(dict.fromkeys(mine))
    return assigned
