"""Which process gets which GPU of this machine.

    assign(["0", "1", "2"], samplers=2, tensor_parallel=1) == {"learner": "0", "sampler-0": "1", "sampler-1": "2"}

The learner takes the first card, samplers share the others; with one card everybody shares it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def visible(environment: Mapping[str, str], devices: Path = Path("/dev")) -> list[str]:
    """The cards this process may use: CUDA_VISIBLE_DEVICES if it is set, else those the driver shows."""
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [card for card in environment["CUDA_VISIBLE_DEVICES"].split(",") if card.strip()]
    numbers = [path.name.removeprefix("nvidia") for path in devices.glob("nvidia[0-9]*")]
    return sorted((number for number in numbers if number.isdigit()), key=int)


def assign(cards: list[str], samplers: int, tensor_parallel: int) -> dict[str, str]:
    """CUDA_VISIBLE_DEVICES by process name; empty when there is no choice (no card, or one that all share)."""
    if len(cards) < 2:
        return {}
    rest = cards[1:]
    given = {"learner-0": cards[0]}
    for i in range(samplers):
        mine = [rest[(i * tensor_parallel + j) % len(rest)] for j in range(tensor_parallel)]
        given[f"sampler-{i}"] = ",".join(dict.fromkeys(mine))
    return given
