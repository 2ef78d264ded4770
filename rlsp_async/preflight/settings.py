"""Settings that cannot work, or that work but perhaps not as meant.

    refuse(cfg, shape)           raises ConfigError for settings with which the run would stop, hang or never train
    stage_warnings(cfg, name)    one sentence for each setting of a stage that may surprise
    run_warnings(cfg)            the same for the run as a whole

Nothing is read from the disk. Some functions import the module of a stage's algorithm, and torch with it.
"""

from __future__ import annotations

from rlsp_async.config import RewardConfig, RunConfig, StageConfig, TemperatureConfig, load_success_replay
from rlsp_async.errors import ConfigError
from rlsp_async.model import ModelInfo
from rlsp_async.preflight import estimate
from rlsp_async.report.text import bytes_text
from rlsp_async.rewards.dominance import SHAPES, Dominance, dominance, resolved_scale, shortest
from rlsp_async.sampling.vllm_settings import LOWEST_TEMPERATURE
from rlsp_async.temperatures.base import lowest_temperature

MAX_UNCORRECTED_UPDATES = 8
"""A loss that does not correct for staleness may be this many optimizer updates behind without a warning."""


# --- refused -------------------------------------------------------------------------------------------------------


def refuse(cfg: RunConfig, shape: ModelInfo | None) -> None:
    """Raises ConfigError for settings with which the run would stop, hang or never train.

    Args:
        cfg: the settings.
        shape: sizes of the model; None when its directory is not on this machine.
    """
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
    _refuse_cold(cfg, "sampling.temperature", s.temperature)
    for name, stage in cfg.stages.items():
        _refuse_stage(cfg, name, stage)


def _refuse_stage(cfg: RunConfig, name: str, stage: StageConfig) -> None:
    refuse_policies(cfg, name, stage)
    if stage.source == "rollouts":
        coldest = lowest_temperature(stage.temperature, cfg.sampling.temperature)
        _refuse_cold(cfg, f"stages.{name}.temperature: its lowest", coldest)
    if stage.source == "rollouts" and stage.reward.explore not in ("none", "len_inv"):
        refuse_reward(f"stages.{name}.reward", stage.reward, is_released(stage))
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


def _refuse_cold(cfg: RunConfig, key: str, temperature: float) -> None:
    """Raises ConfigError for a temperature at which vLLM would sample from another distribution than the learner's."""
    if temperature < LOWEST_TEMPERATURE and cfg.sampler.engine in ("auto", "vllm"):
        raise ConfigError(
            f"{key} = {temperature:g} is below {LOWEST_TEMPERATURE}: vLLM would sample at {LOWEST_TEMPERATURE}, and "
            f"the learner would compute other log-probs; set it to {LOWEST_TEMPERATURE} or more"
        )


def refuse_policies(cfg: RunConfig, name: str, stage: StageConfig) -> None:
    """Raises ConfigError when a prompt or replay policy would never let a batch be trained, or could have no effect."""
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


def refuse_reward(where: str, reward: RewardConfig, released: bool) -> None:
    """Raises ConfigError for an exploration reward that the released server's form does not have.

    Args:
        where: the section's path, for the message. Example: "stages.rlsp.reward".
        reward: the section.
        released: whether the algorithm composes the reward as the released server does (`is_released`).
    """
    if released and reward.explore not in ("none", "len_inv"):
        raise ConfigError(
            f'{where}.explore = {reward.explore!r}, but the algorithm\'s reward_form = "released" pays -C / length '
            'and nothing else; set explore to "len_inv" or "none", or reward_form to "eq1"'
        )


# --- warnings ------------------------------------------------------------------------------------------------------


def run_warnings(cfg: RunConfig) -> list[str]:
    """Settings of the run as a whole that work, but perhaps not as meant."""
    texts = []
    rows = cfg.sampler.groups_in_flight * cfg.sampling.rollouts
    if cfg.sampler.count and rows > cfg.sampler.max_sequences:
        texts.append(
            f"sampler: {cfg.sampler.groups_in_flight} groups of {cfg.sampling.rollouts} are {rows} rollouts, above "
            f"max_sequences = {cfg.sampler.max_sequences}: some wait inside the engine"
        )
    texts += starving_samplers(cfg)
    rollouts = any(stage.source == "rollouts" for stage in cfg.stages.values())
    for role, count in (("sampler", cfg.sampler.count), ("verifier", cfg.verifier.count)):
        if rollouts and not count:
            texts.append(
                f"{role}.count = 0: the run waits until a {role} joins from elsewhere, "
                f"and stops after replay.stall_s = {cfg.replay.stall_s:g} s"
            )
    if cfg.model.lora and not cfg.model.path:
        texts.append(
            "model.lora: the weights of a model that is built from model.scratch are random and would stay so; train "
            "every weight, or name a trained model in model.path"
        )
    longest = cfg.sampling.max_new_tokens
    if longest > cfg.learner.tokens_per_microbatch:
        texts.append(
            f"learner.tokens_per_microbatch = {cfg.learner.tokens_per_microbatch} is below max_new_tokens = "
            f"{longest}: a long rollout takes a pass of its own, larger than that"
        )
    return texts


def starving_samplers(cfg: RunConfig) -> list[str]:
    """A sentence for each stage whose slots are fewer than the groups that several samplers ask for at once."""
    credit = cfg.sampler.count * cfg.sampler.groups_in_flight
    return [
        f"stages.{name}: {cfg.sampler.count} samplers x {cfg.sampler.groups_in_flight} groups_in_flight ask for "
        f"{credit} groups at once, and the stage has {stage.capacity} slots, (target_lag + 1) x groups_per_step x "
        f"oversample: some samplers wait for work; lower sampler.groups_in_flight to "
        f"{max(1, stage.capacity // cfg.sampler.count)}, or raise groups_per_step or target_lag"
        for name, stage in cfg.stages.items()
        if stage.source == "rollouts" and cfg.sampler.count > 1 and credit > stage.capacity
    ]


def stage_warnings(cfg: RunConfig, name: str, stage: StageConfig) -> list[str]:
    """Settings of a stage that work, but perhaps not as meant."""
    texts = []
    if stage.source == "rollouts":
        where, longest = f"stages.{name}.reward", cfg.sampling.max_new_tokens
        texts += reward_warnings(where, stage.reward, longest, is_released(stage))
        texts += missing_parts(where, stage.reward, cfg.sampling.rollouts, cfg.task.verifier)
    lag = stage.target_lag + max(0, stage.publish_every - 1)
    if stage.source == "rollouts" and lag > stage.max_lag:
        texts.append(
            f"stages.{name}: groups can be {lag} versions behind (target_lag + publish_every - 1), above max_lag "
            f"= {stage.max_lag}: late ones are dropped, their work is lost"
        )
    return texts + staleness_warnings(name, stage) + policy_warnings(name, stage)


def policy_warnings(name: str, stage: StageConfig) -> list[str]:
    """Prompt and replay policies of a stage that work, but perhaps not as meant."""
    where, texts, options = f"stages.{name}", [], stage.selection_options
    if stage.oversample > 1.0 and not stage.drop_no_signal:
        texts.append(
            f"{where}: oversample = {stage.oversample:g} without drop_no_signal: nobody needs the groups that "
            "are sampled ahead; they only grow older"
        )
    if stage.oversample > 1.0 and estimate.slots_lag(stage) > stage.max_lag:
        texts.append(
            f"{where}: with oversample = {stage.oversample:g} groups can be {estimate.slots_lag(stage)} versions "
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


def staleness_warnings(name: str, stage: StageConfig) -> list[str]:
    """A sentence for a stage whose batches are off-policy and whose algorithm does not correct for it.

    A ratio to the policy at the beginning of the step bounds what happens within a step, not what happened before it.
    """
    from rlsp_async.algos.base import load_algorithm

    if stage.source != "rollouts":
        return []
    try:
        module, options = load_algorithm(stage.algorithm)
    except ConfigError:
        return []  # no such algorithm: `inputs.check_modules` reports it with the stage's name
    if options.is_held() or getattr(module, "ON_POLICY", 1.0) is None:
        return []
    lag, within = estimate.admitted_lag(stage), options.carries() == "step"
    behind = stage.epochs * stage.minibatches * (lag + (not within))
    if behind <= MAX_UNCORRECTED_UPDATES:
        return []
    kept = "bounds what happens within a step only" if within else "corrects for nothing"
    return [
        f"stages.{name}: a rollout is behind up to {behind} updates (lag {lag}, {stage.epochs} epochs x "
        f"{stage.minibatches} minibatches, max_uses {stage.max_uses}), and {stage.algorithm.name} with these "
        f"options {kept}: stale negatives can make it diverge; set weight_cap or corrections, or take a loss that "
        "has its own (docs/algorithms.md)"
    ]


# --- the reward: does a correct answer always earn more than a wrong one? ------------------------------------------


def reward_condition(reward: RewardConfig, longest_tokens: int, released: bool) -> Dominance | None:
    """The dominance condition for answers of longest_tokens / 16 to longest_tokens; None for correctness alone."""
    return dominance(reward, shortest(longest_tokens), longest_tokens, released)


def describe_condition(reward: RewardConfig, longest_tokens: int, released: bool) -> tuple[str, str] | None:
    """The answer lengths for which a correct answer earns more, and why; None without a condition."""
    condition = reward_condition(reward, longest_tokens, released)
    if condition is None:
        return None
    verdict = "holds" if condition.holds else "is BROKEN"
    if reward.explore in SHAPES:
        scale = resolved_scale(reward, longest_tokens, released)
        why = (
            f" for answers of {condition.shortest_tokens} to {condition.longest_tokens} tokens; reward.scale (C) = "
            f"{scale:.4g}, bound C < {condition.largest_scale:.4g} "
            + ("in the released form" if released else f"at alpha = {condition.alpha:g}")
        )
    else:
        why = f": {reward.explore} lies in 0..1, so alpha must be above 0.5; it is {condition.alpha:g}"
    return f"from {_tokens(condition.shortest_safe_tokens)} on", f"the dominance condition {verdict}{why}"


def reward_warnings(where: str, reward: RewardConfig, longest_tokens: int, released: bool) -> list[str]:
    """One sentence for each thing about a reward that may not be meant. Example of `where`: "stages.rlsp.reward"."""
    condition = reward_condition(reward, longest_tokens, released)
    if condition is None:
        return []
    if reward.explore in SHAPES and resolved_scale(reward, longest_tokens, released) == 0:
        cure = "raise alpha above 0, or name a number" if reward.scale == "auto" else 'or say explore = "none"'
        return [f"{where}.scale is 0: exploration is not paid at all; {cure}"]
    if condition.holds:
        return []
    if reward.explore not in SHAPES:
        return [
            f"{where}: a wrong answer can beat a right one: {reward.explore} can pay a wrong answer 1 - alpha, being "
            f"right pays alpha = {condition.alpha:g}; raise alpha above 0.5"
        ]
    cure = "" if released else " or raise alpha"
    return [
        f"{where}: a wrong answer can beat a right one: a correct answer shorter than "
        f"{_tokens(condition.shortest_safe_tokens)} scores below a wrong one of {condition.longest_tokens}; lower "
        f"scale below {condition.largest_scale:.4g}{cure}"
    ]


def missing_parts(where: str, reward: RewardConfig, num_rollouts: int, verifier: str) -> list[str]:
    """What the exploration reward needs and the run does not provide.

    `verifier` is the setting; empty means the task's own verifier. Of the shipped verifiers only `judge` has a judge; a
    user's own verifier may have one, so nothing is said about it.
    """
    if reward.explore == "novelty" and num_rollouts < 2:
        return [f"{where}: novelty compares the rollouts of a group, and sampling.rollouts is {num_rollouts}: it is 0"]
    ours = "." not in verifier and "/" not in verifier
    if reward.explore == "judge" and ours and verifier != "judge":
        return [
            f'{where}: explore = "judge" pays the part "judge" of the verdicts, and '
            f"{f'verifier {verifier!r}' if verifier else 'the verifier of the task'} gives none; set task.verifier"
        ]
    return []


def is_released(stage: StageConfig) -> bool:
    """Whether the algorithm composes the reward as the released server does. Imports the algorithm's module."""
    from rlsp_async.algos.base import load_algorithm

    try:
        return stage.reward.explore != "none" and load_algorithm(stage.algorithm)[1].reward_form == "released"
    except ConfigError:
        return False  # no such algorithm: `inputs.check_modules` reports it with the stage's name


def _tokens(tokens: float) -> str:
    return "no length" if tokens == float("inf") else f"{tokens:.0f} tokens"
