"""What a version costs the learner and the sampler: seconds from the training thread to served tokens, beside a memcpy.

    python benchmarks/weights.py                              # files in shared memory, torch engine, three sizes
    python benchmarks/weights.py --engine vllm --sizes 100M
    python benchmarks/weights.py --directory runs/x           # files on a disk
    PYTHONPATH=/older/tree python benchmarks/weights.py       # the same of an older tree

Printed for each size, as median (smallest .. largest) of the repeats:

    memcpy     all weights copied into memory that is there already: the least that a copy can take
    stand      how long the training thread stands for a version, without the probe; beside it the ratio to memcpy
    probe      the probe's forward pass, in the training thread too
    publish    sums or digest, and the name of the file: beside training. Part of `stand` in a tree without snapshots
    fetch      the sampler checks what arrived
    pause      the engine loads: no token is sampled
    check      live sums and probe in the sampler
    served     from the end of a step to the first token of the version: the sum of the above

The first versions fill pages that are new; `first` is `stand` of the very first one. Random weights, nothing else runs
in the process; with other load on the machine only the ratios within a run mean something.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path("/dev/shm")
KEEP = 3


class Shape(NamedTuple):
    """A Llama of about that size."""

    hidden: int
    layers: int
    intermediate: int
    vocabulary: int


SIZES = {"0.2M": Shape(64, 2, 256, 512), "10M": Shape(320, 6, 864, 4096), "100M": Shape(768, 12, 2048, 16384)}


class Timed:
    """Adds up seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def call(self, name: str, act: Callable[[], Any]) -> Any:
        """Calls a function and notes how long it took."""
        begun = time.perf_counter()
        result = act()
        self.seconds.setdefault(name, []).append(time.perf_counter() - begun)
        return result

    async def wait(self, name: str, act: Awaitable[Any]) -> Any:
        """Waits for something and notes how long it took."""
        begun = time.perf_counter()
        result = await act
        self.seconds.setdefault(name, []).append(time.perf_counter() - begun)
        return result


def make_model(directory: Path, shape: Shape) -> Path:
    """A tied Llama with random weights, float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.hidden // 32,
        num_key_value_heads=shape.hidden // 32,
        head_dim=32,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocabulary,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def make_engine(name: str, model: Path) -> Any:
    """An engine of that name with the model."""
    from rlsp_async.config import RunConfig, SamplerConfig, StageConfig

    cfg = RunConfig(
        name="bench",
        stages={"only": StageConfig()},
        sampler=SamplerConfig(engine=name, memory=0.5, max_sequences=8),  # type: ignore[arg-type]
    )
    if name == "vllm":
        from rlsp_async.sampling.vllm_engine import VllmEngine

        return VllmEngine(cfg, model, seed=1)
    from rlsp_async.sampling.torch_engine import TorchEngine

    return TorchEngine(cfg, model, seed=1)


def copy_all(target: list[torch.Tensor], source: list[torch.Tensor]) -> None:
    """Copies every tensor into memory that is there."""
    for there, here in zip(target, source, strict=True):
        there.copy_(here)


def take(transport: Any, named: Callable[[], dict[str, torch.Tensor]], version: int) -> Any:
    """A snapshot of the weights."""
    return transport.take(named().items(), version)


def publish_at_once(transport: Any, named: Callable[[], dict[str, torch.Tensor]], version: int, probe: Any) -> Any:
    """Publishes as a tree without snapshots does."""
    return transport.publish(named().items(), version, probe)


async def measure(model: Path, engine_name: str, directory: Path, repeats: int) -> dict[str, list[float]]:
    """Publishes and loads `repeats` versions; returns the seconds of each part. One version is discarded as warm-up
    of everything but `first`."""
    from rlsp_async.columns import ints
    from rlsp_async.learning import publish
    from rlsp_async.learning.policy import Policy, load_model
    from rlsp_async.weights.file import FileTransport

    policy = Policy(load_model(model, "float32", "cpu", False))
    parameters = [p.data for _, p in policy.policy_parameters()]
    target = [torch.zeros_like(p) for p in parameters]
    transport, engine = FileTransport(directory), make_engine(engine_name, model)
    ids = np.random.default_rng(0).integers(0, policy.model.config.vocab_size, 64).astype(np.int32)
    await engine.start()
    first: list[float] = []
    timed = Timed()
    for version in range(1, repeats + 2):
        if version == 2:
            first, timed = timed.seconds["stand"], Timed()
        for parameter in parameters:
            parameter.mul_(1.0001)
        timed.call("memcpy", partial(copy_all, target, parameters))
        probe = timed.call("probe", partial(publish.make_probe, policy, ids))
        named = partial(publish.checkpoint_tensors, policy.model)
        if hasattr(transport, "take"):
            snapshot = timed.call("stand", partial(take, transport, named, version))
            ref = timed.call("publish", partial(transport.publish, snapshot, probe))
            transport.prune(KEEP)
            transport.prepare(snapshot.layout.infos)
        else:
            ref = timed.call("stand", partial(publish_at_once, transport, named, version, probe))
            transport.prune(KEEP)
        path = timed.call("fetch", partial(transport.fetch, ref))
        await timed.wait("pause", engine.load_weights(path, version))
        if hasattr(engine, "live_total"):
            await timed.wait("sums", engine.live_total())
        await timed.wait("score", engine.score(ints(ref.probe.ids).tolist()))
    await engine.close()
    if hasattr(transport, "close"):
        transport.close()
    return timed.seconds | {"first": first}


def parts(seconds: dict[str, list[float]]) -> dict[str, list[float]]:
    """The columns of the table: what is not measured by itself is added up for each repeat."""
    none = [0.0] * len(seconds["stand"])
    check = [a + b for a, b in zip(seconds.get("sums", none), seconds["score"], strict=True)]
    columns = {name: seconds.get(name, none) for name in ("memcpy", "stand", "probe", "publish", "fetch", "pause")}
    added = zip(*(columns[name] for name in ("stand", "probe", "publish", "fetch", "pause")), check, strict=True)
    return {**columns, "check": check, "served": [sum(row) for row in added], "first": seconds["first"]}


def show(size: str, model: Path, columns: dict[str, list[float]]) -> dict[str, Any]:
    """Prints the table of one size; returns its medians."""
    num_bytes = (model / "model.safetensors").stat().st_size
    medians = {name: statistics.median(values) for name, values in columns.items()}
    print(f"\n{size}: {num_bytes / 1e6:.1f} MB, {len(columns['stand'])} versions")
    for name, values in columns.items():
        ratio = f"{medians[name] / medians['memcpy']:8.2f} x memcpy" if name in ("stand", "first", "publish") else ""
        spread = f"({min(values) * 1e3:.2f} .. {max(values) * 1e3:.2f})"
        rate = (
            f"{num_bytes / medians[name] / 1e9:6.2f} GB/s" if medians[name] and name not in ("probe", "check") else ""
        )
        print(f"  {name:8} {medians[name] * 1e3:10.2f} ms {spread:24} {rate:12} {ratio}")
    return {"size": size, "bytes": num_bytes, **{f"{name}_s": value for name, value in medians.items()}}


def main() -> int:
    """Measures what the arguments say, prints tables and one line of JSON."""
    parser = argparse.ArgumentParser(description="What a version of the weights costs.")
    parser.add_argument("--sizes", nargs="+", choices=sorted(SIZES), default=list(SIZES))
    parser.add_argument("--engine", choices=["torch", "vllm"], default="torch")
    parser.add_argument("--transport", choices=["file"], default="file")
    parser.add_argument("--directory", type=Path, help="where files are published; shared memory without it")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = []
    for size in arguments.sizes:
        with (
            tempfile.TemporaryDirectory() as models,
            tempfile.TemporaryDirectory(dir=arguments.directory or SHARED, prefix="rlsp-bench-") as directory,
        ):
            model = make_model(Path(models) / "model", SIZES[size])
            seconds = asyncio.run(measure(model, arguments.engine, Path(directory), arguments.repeats))
            results.append(show(size, model, parts(seconds)))
    print(json.dumps({"engine": arguments.engine, "transport": arguments.transport, "results": results}))
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    raise SystemExit(main())
