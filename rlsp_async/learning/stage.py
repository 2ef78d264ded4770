"""What a stage has of its own: algorithm, optimizers, critic, the weights it starts from and the reference policy.

The reference is the policy as the stage begins, or its average since then (`optim.PolicyAverage`). It is written to
RUN/reference/STAGE.safetensors at the stage's first step, so that a learner that restarts in mid-stage uses the same
reference. The base, from which stages with `start = "base"` begin (rounds of expert iteration, arXiv:2403.04642), is
that file of the first stage that trains on rollouts. With adapters all of this is about adapters: the file holds
theirs, and the reference shares its model with the policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlsp_async import config
from rlsp_async.algos.base import Algorithm, AlgorithmConfig, load_algorithm
from rlsp_async.errors import ConfigError, DataError
from rlsp_async.files import rename
from rlsp_async.learning import lora
from rlsp_async.learning.optim import PolicyAverage, Updater
from rlsp_async.learning.policy import Policy
from rlsp_async.learning.ranks import fill


@dataclass(frozen=True)
class StageState:
    """One stage in training."""

    name: str
    section: config.StageConfig
    algorithm: Algorithm
    cfg: AlgorithmConfig
    updater: Updater
    reference: Policy | None
    average: PolicyAverage | None = None
    """The average that the reference follows, for an algorithm with `reference_ema`."""


def begin_stage(cfg: config.RunConfig, name: str, policy: Policy, run_dir: Path, resumed: bool = False) -> StageState:
    """Begins a stage: the base's weights if it starts there, critic, optimizers, the reference if it needs one.

    Args:
        cfg: the run.
        name: name of the stage.
        policy: the model; a fresh critic is put into it.
        run_dir: the run's directory, for the reference's file.
        resumed: the stage began before a restart. Its reference is read from the disk; weights, optimizers' state and
            average are for the caller to restore.

    Returns:
        the stage's state.

    Raises:
        ConfigError: the run has no such stage.
        DataError: the file of the reference or of the base cannot be read.
        MachineError: the file of the reference cannot be written.
    """
    if name not in cfg.stages:
        raise ConfigError(f"no stage {name!r} in this run; there is {', '.join(cfg.stages)}")
    section = cfg.stages[name]
    algorithm, options = load_algorithm(section.algorithm)
    if policy.adapters:
        lora.refuse(options, f"stages.{name}.algorithm")
    if not resumed:
        _load_start(cfg, name, policy, run_dir)
    policy.add_critic(options.critic, options.num_values())
    needed = "reference" in algorithm.needs(options)
    if not resumed and (needed or _is_base(cfg, name)):
        _write(_path(run_dir, name), policy)
    reference = _read(_path(run_dir, name), policy) if needed else None
    num_updates = section.steps * section.epochs * section.minibatches
    updater = Updater(section.optimizer, policy, options.critic_lr, num_updates)
    average = (
        PolicyAverage(reference, options.reference_ema) if reference is not None and options.reference_ema else None
    )
    return StageState(name, section, algorithm, options, updater, reference, average)


def _is_base(cfg: config.RunConfig, name: str) -> bool:
    """Whether another stage starts from the weights with which this one begins."""
    others = (stage for other, stage in cfg.stages.items() if other != name)
    return name == cfg.base_stage and any(stage.start == "base" for stage in others)


def _load_start(cfg: config.RunConfig, name: str, policy: Policy, run_dir: Path) -> None:
    """Copies the base's weights into the policy, for a stage that starts there and is not the base stage itself."""
    if cfg.stages[name].start == "base" and name != cfg.base_stage:
        path = _path(run_dir, cfg.base_stage)
        copy_into(dict(policy.policy_parameters()), _load(path), str(path))


def _path(run_dir: Path, name: str) -> Path:
    """The file of the weights with which a stage began."""
    return run_dir / "reference" / f"{name}.safetensors"


def _write(path: Path, policy: Policy) -> None:
    """Writes the language model's weights whole, durably. Returns on every rank when the file is there."""
    tensors = {n: p.cpu().contiguous() for n, p in policy.whole_parameters()}
    trouble = _try_write(path, tensors) if policy.ranks.is_first else ""
    policy.ranks.agree(trouble)


def _try_write(path: Path, tensors: dict[str, Tensor]) -> str:
    """Writes the file; returns in a sentence why that failed, or nothing."""
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary)
        rename(temporary, path, durable=True)
    except (OSError, SafetensorError) as e:
        return f"{path}: the reference policy cannot be written: {e}; free some space"
    return ""


def _read(path: Path, policy: Policy) -> Policy:
    """The policy with the weights of a file, without gradient: a copy, or the same model with other adapters."""
    if policy.adapters:
        held = {n: torch.empty_like(p, requires_grad=False) for n, p in policy.adapters.items()}
        copy_into(held, _load(path), str(path))
        return policy.holding(held)
    reference = policy.copy()
    copy_into(dict(reference.policy_parameters()), _load(path), str(path))
    return reference.requires_grad_(False)


def _load(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as e:
        raise DataError(
            f"{path}: the weights with which a stage began cannot be read: {e}; put the file back, or give "
            "the run another name to begin again"
        ) from e
    return tensors


@torch.no_grad()
def copy_into(parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor], where: str) -> None:
    """Copies tensors into parameters by name.

    Args:
        parameters: what is written to.
        tensors: their new values.
        where: what the tensors were read from, for errors.

    Raises:
        DataError: names or shapes differ.
    """
    if set(parameters) != set(tensors):
        odd = sorted(set(parameters) ^ set(tensors))
        raise DataError(f"{where}: not of this model; {len(odd)} names differ, e.g. {odd[0]}")
    for name, parameter in parameters.items():
        if parameter.shape != tensors[name].shape:
            raise DataError(f"{where}: {name} has shape {tuple(tensors[name].shape)}, not {tuple(parameter.shape)}")
        fill(parameter, tensors[name])
