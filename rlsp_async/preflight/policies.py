"""Prompt and replay selections that cannot work as they are set, or not as meant. Pure; for `rlsp check`."""

from __future__ import annotations

from rlsp_async.config import RunConfig, StageConfig, TemperatureConfig, load_success_replay
from rlsp_async.errors import ConfigError
from rlsp_async.preflight.estimate import slots_lag


def refuse_policies(cfg: RunConfig, name: str, stage: StageConfig) -> None:
    """Raises ConfigError for settings with which nothing would ever be trained, or which could have no effect."""
    where = f"stages.{name}"
    load_success_replay(name, stage)
    if stage.drop_no_signal and stage.source == "rollouts" and cfg.sampling.rollouts < 2:
        raise ConfigError(
            f"{where}.drop_no_signal needs sampling.rollouts of 2 or more: a group of one rollout never "
            "has a signal, so every group would be dropped"
        )
    others = [other.temperature for other in cfg.stages.values() if other.success_replay]
    if stage.success_replay and (stage.temperature.name != "constant" or others != [stage.temperature] * len(others)):
        raise ConfigError(
            f"{where}.success_replay puts a rollout into a group that was drawn later, and a group has "
            "one temperature: let all stages with success_replay have the same constant one"
        )
    min_ready = stage.selection_options.get("min_ready", 0)
    if isinstance(min_ready, int) and min_ready > stage.capacity:
        raise ConfigError(
            f"{where}.selection_options.min_ready = {min_ready} groups will never be ready at once: the "
            f"stage has {stage.capacity} slots; lower it, or raise target_lag"
        )
    if stage.source != "rollouts":
        for key, is_set in (
            ("drop_no_signal", stage.drop_no_signal),
            ("oversample", stage.oversample > 1.0),
            ("prompts", stage.prompts.name != "uniform"),
            ("temperature", stage.temperature != TemperatureConfig()),
        ):
            if is_set:
                raise ConfigError(
                    f"{where}.{key} is about rollouts, and this stage trains on {stage.source}: take it out"
                )


def policy_warnings(name: str, stage: StageConfig) -> list[str]:
    """Settings that work, but perhaps not as meant."""
    where, texts, options = f"stages.{name}", [], stage.selection_options
    if stage.oversample > 1.0 and not stage.drop_no_signal:
        texts.append(
            f"{where}: oversample = {stage.oversample:g} without drop_no_signal: nobody needs the groups that "
            "are sampled ahead; they only grow older"
        )
    if stage.oversample > 1.0 and slots_lag(stage) > stage.max_lag:
        texts.append(
            f"{where}: with oversample = {stage.oversample:g} groups can be {slots_lag(stage)} versions "
            f"behind, above max_lag = {stage.max_lag}: what is left over from a batch is dropped as stale"
        )
    if stage.max_uses == 1 and (options.get("min_new") or options.get("keep")):
        texts.append(f"{where}: min_new and keep have no effect with max_uses = 1: every group is new")
    if stage.max_uses > 1 and options.get("min_new") == 1.0:
        texts.append(f"{where}: with min_new = 1 no group is ever used again; max_uses = 1 does the same with less")
    carry = min(options.get("carry", 0), stage.capacity)
    if carry and stage.max_uses == 1:
        texts.append(
            f"{where}: carry = {carry} with max_uses = 1: what the stage before has trained is used up, and "
            "nothing of it is taken over"
        )
    pool, new = stage.prompts.options.get("pool", 0), stage.capacity - carry
    if stage.success_replay and not pool:
        texts.append(
            f"{where}: success_replay remembers successes by prompt, and without prompts.options.pool one "
            "comes back only when the whole training split has been through, an endless one never"
        )
    if 0 < pool < new:
        texts.append(
            f"{where}: {new} groups are on their way at once, and prompts.options.pool has only "
            f"{pool} prompts: several groups of one prompt are sampled side by side"
        )
    return texts
