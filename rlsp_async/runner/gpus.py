"""Which process gets which GPU of this machine, and the environment that tells it so.

    assign_gpus(["0", "1", "2"], cfg) == {"learner-0": ["0"], "sampler-0": ["1"], "sampler-1": ["2"]}

The ranks of the learner get the first GPUs, one each, every sampler its own among the others. A single GPU is shared by
all processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from rlsp_async.config import RunConfig
from rlsp_async.cuda import NVML_CHECK, SHARED_CARD
from rlsp_async.errors import ConfigError
from rlsp_async.replay.plan import needs_sampler
from rlsp_async.sampling.vllm_settings import refuse_no_share

GPU_THREADS = 8
"""CPU threads of a service with a GPU, at least: reading weights and tokenising use them."""


def visible_gpus(environment: Mapping[str, str], devices: Path = Path("/dev")) -> list[str]:
    """The GPUs that this process may use: CUDA_VISIBLE_DEVICES if it is set, else those that the driver shows.

    As in CUDA itself, an empty name or "-1" hides every GPU behind it.
    """
    if "CUDA_VISIBLE_DEVICES" in environment:
        names = [gpu.strip() for gpu in environment["CUDA_VISIBLE_DEVICES"].split(",")]
        hidden = next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))
        return names[:hidden]
    numbers = [path.name.removeprefix("nvidia") for path in devices.glob("nvidia[0-9]*")]
    return sorted((number for number in numbers if number.isdigit()), key=int)


def fill_count(cfg: RunConfig, gpus: list[str]) -> RunConfig:
    """The run with a number in the place of `sampler.count = 0`: the samplers that the GPUs beside the learner's hold.

    It stays 0 where no GPU is left, and for a run that samples nothing.
    """
    if cfg.sampler.count or cfg.sampler.engine == "scripted" or not needs_sampler(cfg):
        return cfg
    learner = 0 if cfg.learner.device == "cpu" else 1
    count = max(0, len(gpus) - learner) // cfg.sampler.tensor_parallel
    return replace(cfg, sampler=replace(cfg.sampler, count=count))


def assign_gpus(gpus: list[str], cfg: RunConfig) -> dict[str, list[str]]:
    """The GPUs of each process, by process name; empty when there are none or nothing wants one.

    Args:
        gpus: the visible GPUs.
        cfg: the run; a learner on the CPU and samplers without a model get no GPU.

    Raises:
        ConfigError: the samplers want more GPUs than there are, or more of the only one than it has.
    """
    learner = ["learner-0"] if cfg.learner.device != "cpu" else []
    ranks = cfg.learner.ranks if learner else 0
    samplers = [f"sampler-{i}" for i in range(cfg.sampler.count)] if cfg.sampler.engine != "scripted" else []
    each = cfg.sampler.tensor_parallel
    if not gpus or not (learner or samplers):
        return {}
    if samplers and cfg.sampler.engine != "torch":
        refuse_no_share(cfg)
    if ranks > len(gpus):
        raise ConfigError(
            f"learner.ranks = {ranks} needs {ranks} GPUs, and this machine has {len(gpus)} ({', '.join(gpus)}): set "
            f"learner.ranks = {len(gpus)}"
        )
    if len(gpus) == 1 and learner:
        _check_single(cfg, len(samplers))
        return {name: list(gpus) for name in (*learner, *samplers)}
    rest = gpus[ranks:]
    if len(samplers) * each > len(rest):
        beside = " beside the learner's" if learner else ""
        raise ConfigError(
            f"sampler.count = {cfg.sampler.count} with sampler.tensor_parallel = {each} needs {len(samplers) * each} "
            f"GPUs{beside}, and this machine has {len(rest)} ({', '.join(rest)}): set sampler.count = "
            f"{len(rest) // each}" + ("" if each <= len(rest) else f" and sampler.tensor_parallel = {len(rest)}")
        )
    assigned = dict.fromkeys(learner, gpus[:ranks])
    return assigned | {name: rest[i * each : (i + 1) * each] for i, name in enumerate(samplers)}


def _check_single(cfg: RunConfig, samplers: int) -> None:
    """Raises ConfigError when one GPU cannot be shared as the settings want it."""
    if samplers and cfg.sampler.tensor_parallel > 1:
        raise ConfigError(
            f"sampler.tensor_parallel = {cfg.sampler.tensor_parallel}, and this machine has one GPU: set it to 1"
        )
    if samplers * cfg.sampler.memory > 0.9:
        raise ConfigError(
            f"{samplers} samplers with sampler.memory = {cfg.sampler.memory:g} leave nothing of the only GPU to the "
            f"learner: set sampler.count = 1 and sampler.memory to about 0.35"
        )


def idle_gpus(gpus: list[str], assigned: Mapping[str, list[str]]) -> list[str]:
    """The GPUs that no process gets."""
    used = {gpu for mine in assigned.values() for gpu in mine}
    return [gpu for gpu in gpus if gpu not in used] if assigned else []


def gpu_environment(name: str, assigned: Mapping[str, list[str]]) -> dict[str, str]:
    """What the environment of a process says of its GPUs.

    Segments of the learner's allocator may grow, so that it leaves no gaps on the card. vLLM and NCCL want fixed ones.
    """
    mine = assigned.get(name)
    if mine is None:
        return dict(NVML_CHECK)
    shared = any(gpu in mine for other, gpus in assigned.items() if other != name for gpu in gpus)
    return {
        **NVML_CHECK,
        "CUDA_VISIBLE_DEVICES": ",".join(mine),
        SHARED_CARD: str(int(shared)),
        **({"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"} if name.startswith("learner") else {}),
    }
