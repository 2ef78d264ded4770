"""`rlsp check CONFIG`: the resolved settings, what follows from them, and whether they can work at all.

Starts nothing, needs no GPU, loads no model: of a model directory only config.json is read, and a directory that is not
on this machine is a warning here (`rlsp run` refuses it).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

import msgspec

from rlsp_async.config import RunConfig, StageConfig, load
from rlsp_async.config.flatten import settings, toml_text
from rlsp_async.errors import ConfigError
from rlsp_async.keys import about_keys
from rlsp_async.model import ModelInfo, planned_model
from rlsp_async.preflight import estimate, reward_checks
from rlsp_async.preflight.policies import policy_warnings, refuse_policies
from rlsp_async.preflight.staleness import stale_warnings
from rlsp_async.report.text import bytes_text, count_text, gib_text
from rlsp_async.rewards.dominance import Dominance
from rlsp_async.verifying.base import check_verifier

DEMONSTRATIONS = 64
"""So many are read to learn how short an answer can be."""


class Finding(msgspec.Struct, frozen=True):
    """One line of the output."""

    what: str
    value: str
    note: str = ""


def check(path: str, overrides: list[str], out: TextIO | None = None) -> int:
    """Prints everything; returns 0. Raises UserError for settings that cannot work and data that cannot be read."""
    out = out or sys.stdout
    cfg = load(path, overrides)
    shape = planned_model(cfg)
    _print_settings(cfg, out)
    refuse(cfg, shape)
    check_verifier(cfg)
    warnings = about_keys(cfg)
    warnings += (
        []
        if shape
        else [
            f"model.path: {cfg.model.path}: not on this machine; nothing that depends on its size "
            "is estimated, and `rlsp run` refuses to start"
        ]
    )
    _print_findings("the machine", machine(cfg, shape), out)
    for name, stage in cfg.stages.items():
        _print_findings(f"stage {name}", of_stage(cfg, stage), out)
        warnings += stage_warnings(cfg, name, stage) + policy_warnings(name, stage)
    _print_findings("the data", _data(cfg, shape), out)
    warnings += general_warnings(cfg)
    print(file=out)
    for text in warnings:
        print(f"warning: {text}", file=out)
    print(f"rlsp check: {path} can run{_count(warnings)}", file=out)
    return 0


def _count(warnings: list[str]) -> str:
    return f" ({len(warnings)} warning{'s' if len(warnings) > 1 else ''})" if warnings else ""


# --- what cannot work ----------------------------------------------------------------------------------------------


def refuse(cfg: RunConfig, shape: ModelInfo | None) -> None:
    """Raises ConfigError for settings with which the run would stop, hang or never train."""
    s = cfg.sampling
    if shape and s.max_new_tokens >= shape.context:
        raise ConfigError(
            f"sampling.max_new_tokens = {s.max_new_tokens} leaves no room for a prompt in the model's "
            f"window of {shape.context} tokens"
        )
    if cfg.replay.lease_s <= 2 * cfg.replay.heartbeat_s:
        raise ConfigError(
            f"replay.lease_s = {cfg.replay.lease_s:g} must be above twice replay.heartbeat_s = "
            f"{cfg.replay.heartbeat_s:g}: every lease would be taken back before its worker can speak"
        )
    if cfg.replay.stall_s <= cfg.replay.lease_s:
        raise ConfigError(
            f"replay.stall_s = {cfg.replay.stall_s:g} must be above replay.lease_s = "
            f"{cfg.replay.lease_s:g}: the run would stop before a lost lease is given to another worker"
        )
    for key, value in (
        ("sampler.groups_in_flight", cfg.sampler.groups_in_flight),
        ("verifier.groups_in_flight", cfg.verifier.groups_in_flight),
        ("verifier.processes", cfg.verifier.processes),
        ("sampler.max_sequences", cfg.sampler.max_sequences),
        ("sampler.threads", cfg.sampler.threads),
        ("learner.threads", cfg.learner.threads),
    ):
        if value < 1:
            raise ConfigError(f"{key} = {value} must be at least 1: nothing would ever be worked on")
    for name, stage in cfg.stages.items():
        _refuse_stage(cfg, name, stage)


def _refuse_stage(cfg: RunConfig, name: str, stage: StageConfig) -> None:
    refuse_policies(cfg, name, stage)
    if stage.source == "rollouts" and stage.reward.explore not in ("none", "len_inv"):
        reward_checks.refuse(f"stages.{name}.reward", stage.reward, _is_released(stage))
    if stage.minibatches > stage.groups_per_step:
        raise ConfigError(
            f"stages.{name}.minibatches = {stage.minibatches} is above groups_per_step = "
            f"{stage.groups_per_step}: there are not enough groups to share out"
        )
    limit, largest = cfg.replay.max_message_mb * 1_000_000, estimate.batch_bytes(cfg, stage)
    if largest > limit:
        raise ConfigError(
            f"stages.{name}: a batch of {stage.groups_per_step} groups can take {bytes_text(largest)}, above "
            f"replay.max_message_mb = {cfg.replay.max_message_mb}; set it to {-(-largest // 1_000_000)}"
        )


# --- what follows --------------------------------------------------------------------------------------------------


def machine(cfg: RunConfig, shape: ModelInfo | None) -> list[Finding]:
    """Processes, memory, disk. Imports the algorithms' modules, to know what they keep beside the policy."""
    from rlsp_async.runner.prepare import models_beside

    processes = estimate.num_processes(cfg)
    listed = ", ".join(f"{count} {role}" for role, count in processes.items() if count)
    found = [Finding("run directory", str(cfg.directory)), Finding("processes", str(sum(processes.values())), listed)]
    if shape is None:
        return found
    beside = models_beside(cfg)
    vllm = cfg.sampler.engine in ("auto", "vllm")
    return [
        *found,
        Finding(
            "model",
            f"{count_text(shape.num_parameters)} parameters",
            f"{shape.layers} layers, hidden {shape.hidden}, window {shape.context}, {cfg.model.dtype}",
        ),
        Finding("memory, learner", gib_text(estimate.learner_gib(cfg, shape, beside)), _state_of(beside)),
        Finding(
            "memory, each sampler",
            gib_text(estimate.sampler_gib(cfg, shape, vllm=vllm)),
            "estimate: weights twice while loading, KV cache on the CPU; on a GPU sampler.memory is its share",
        ),
        Finding("one version", bytes_text(estimate.weight_bytes(cfg, shape)), f"{cfg.learner.keep_weights} are kept"),
        Finding(
            "one checkpoint",
            bytes_text(estimate.checkpoint_bytes(cfg, shape, beside)),
            f"{cfg.learner.keep_checkpoints} are kept",
        ),
        Finding("disk", bytes_text(estimate.disk_bytes(cfg, shape, beside)), "estimate, at its largest"),
    ]


def _state_of(beside: estimate.Beside) -> str:
    more = ["a reference"] * beside.frozen + ["a second trunk for the critic"] * beside.trained
    return "estimate: " + ", ".join([*more, "state and one microbatch"])


def of_stage(cfg: RunConfig, stage: StageConfig) -> list[Finding]:
    """Capacity, lag, volumes, the reward's dominance condition."""
    per_group = estimate.rollouts_per_group(cfg, stage)
    rollouts = stage.groups_per_step * per_group
    tokens = estimate.tokens_per_step(cfg, stage)
    found = [
        Finding("capacity", f"{stage.capacity} groups", "(target_lag + 1) * groups_per_step * oversample, at most"),
        Finding(
            "worst lag",
            _versions(estimate.admitted_lag(stage)),
            f"a group that others overtake grows older; above max_lag = {stage.max_lag} it is dropped as stale",
        ),
        Finding(
            "a step",
            f"{'up to ' if stage.source == 'imported' else ''}{rollouts} rollouts, up to {count_text(tokens)} tokens",
            f"{stage.groups_per_step} groups of {per_group}",
        ),
        Finding(
            "the stage",
            f"{count_text(rollouts * stage.steps)} rollouts, up to {count_text(tokens * stage.steps)} tokens",
            f"{stage.steps} steps",
        ),
        Finding(
            "optimizer updates",
            str(estimate.optimizer_updates(stage)),
            f"{stage.steps} steps x {stage.minibatches} minibatches x {stage.epochs} epochs",
        ),
        Finding("buffer", bytes_text(estimate.buffer_bytes(cfg, stage)), "upper bound, in the hub's memory"),
    ]
    return [*found, *_reward(cfg, stage)]


def _reward(cfg: RunConfig, stage: StageConfig) -> list[Finding]:
    found = reward_checks.finding(stage.reward, cfg.sampling.max_new_tokens, _is_released(stage))
    return [Finding("correct beats wrong", *found)] if found and stage.source == "rollouts" else []


def reward_condition(cfg: RunConfig, stage: StageConfig) -> Dominance | None:
    """None for stages whose reward is correctness alone, or that have none (demonstrations)."""
    if stage.source != "rollouts":
        return None
    return reward_checks.condition_of(stage.reward, cfg.sampling.max_new_tokens, _is_released(stage))


def _is_released(stage: StageConfig) -> bool:
    """Whether the reward is the released server's. Imports the algorithm's module."""
    from rlsp_async.algos.base import load_algorithm

    try:
        return stage.reward.explore != "none" and load_algorithm(stage.algorithm)[1].reward_form == "released"
    except ConfigError:
        return False  # no such algorithm: `check_modules` says so, with the stage's name


def _versions(num: int) -> str:
    return f"{num} version" if num == 1 else f"{num} versions"


def _data(cfg: RunConfig, shape: ModelInfo | None) -> list[Finding]:
    """Reads prompts and demonstrations, and the algorithms' options. Raises DataError, ConfigError."""
    from rlsp_async.runner.prepare import check_data, check_modules, overlap_of
    from rlsp_async.tasks.overlap import summary

    size = check_data(cfg)
    check_modules(cfg)
    found = [Finding("held-out prompts", "endless" if size < 0 else str(size), f"task {cfg.task.name}, readable")]
    if overlap := overlap_of(cfg):
        found.append(Finding("training rows", *summary(overlap)))
    if cfg.model.path and shape and Path(cfg.model.path).expanduser().is_dir():
        from rlsp_async.runner.prepare import check_window

        longest = check_window(cfg, Path(cfg.model.path).expanduser())
        found.append(Finding("longest prompt", f"{longest} tokens", "of the first 256 of each split"))
    return found


# --- what may surprise ---------------------------------------------------------------------------------------------


def stage_warnings(cfg: RunConfig, name: str, stage: StageConfig) -> list[str]:
    """Settings that work, but perhaps not as meant."""
    texts = []
    if stage.source == "rollouts":
        where, longest = f"stages.{name}.reward", cfg.sampling.max_new_tokens
        texts += reward_checks.warnings(where, stage.reward, longest, _is_released(stage))
        texts += reward_checks.missing(where, stage.reward, cfg.sampling.rollouts, cfg.task.verifier)
    lag = stage.target_lag + max(0, stage.publish_every - 1)
    if stage.source == "rollouts" and lag > stage.max_lag:
        texts.append(
            f"stages.{name}: groups can be {lag} versions behind (target_lag + publish_every - 1), above max_lag "
            f"= {stage.max_lag}: late ones are dropped, their work is lost"
        )
    return texts + stale_warnings(name, stage)


def general_warnings(cfg: RunConfig) -> list[str]:
    """Of the run as a whole."""
    texts = []
    rows = cfg.sampler.groups_in_flight * cfg.sampling.rollouts
    if cfg.sampler.count and rows > cfg.sampler.max_sequences:
        texts.append(
            f"sampler: {cfg.sampler.groups_in_flight} groups of {cfg.sampling.rollouts} are {rows} rollouts, above "
            f"max_sequences = {cfg.sampler.max_sequences}: some wait inside the engine"
        )
    rollouts = any(stage.source == "rollouts" for stage in cfg.stages.values())
    for role, count in (("sampler", cfg.sampler.count), ("verifier", cfg.verifier.count)):
        if rollouts and not count:
            texts.append(
                f"{role}.count = 0: the run waits until a {role} joins from elsewhere, "
                f"and stops after replay.stall_s = {cfg.replay.stall_s:g} s"
            )
    longest = cfg.sampling.max_new_tokens
    if longest > cfg.learner.tokens_per_microbatch:
        texts.append(
            f"learner.tokens_per_microbatch = {cfg.learner.tokens_per_microbatch} is below max_new_tokens = "
            f"{longest}: a long rollout takes a pass of its own, larger than that"
        )
    return texts


# --- printing ------------------------------------------------------------------------------------------------------


def _print_settings(cfg: RunConfig, out: TextIO) -> None:
    print("the settings (change one with key=value)\n", file=out)
    for key, value in settings(cfg).items():
        print(f"  {key} = {toml_text(value)}", file=out)


def _print_findings(title: str, found: list[Finding], out: TextIO) -> None:
    print(f"\n{title}\n", file=out)
    for finding in found:
        print(f"  {finding.what:<21} {finding.value:<36} {finding.note}".rstrip(), file=out)
