"""`rlsp check CONFIG`: the resolved settings, what follows from them, and whether they can work at all.

Starts nothing and needs no GPU. A model directory is loaded once, as the learner does, and its log-probs are compared
with those of the model's own forward pass; with `--quick` only config.json and the headers of its weights are read. A
directory that is not on this machine is a warning here (`rlsp run` refuses it). With `--gpus` the settings are checked
for a machine with that many GPUs, instead of this one.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TextIO

import msgspec

from rlsp_async.cli.arguments import Commands, add_config_command
from rlsp_async.config import RunConfig, StageConfig, load, load_lora
from rlsp_async.config.flatten import settings, toml_text
from rlsp_async.cuda import card_memory_gib
from rlsp_async.errors import ConfigError
from rlsp_async.model import ModelInfo, planned_model
from rlsp_async.preflight import cards, estimate, inputs, references
from rlsp_async.preflight.settings import (
    describe_condition,
    is_released,
    refuse,
    run_warnings,
    stage_warnings,
)
from rlsp_async.report.text import bytes_text, count_text, gib_text
from rlsp_async.runner.gpus import assign_gpus, fill_count, idle_gpus, visible_gpus

CARD_GIB = 80.0
"""Memory of a card unless `--gpu-memory` says otherwise."""
FOLDED = 90
"""A list that is longer than this has a line for each of its items."""


class Fact(msgspec.Struct, frozen=True):
    """One line of the output: a name, its value, and where the value comes from."""

    name: str
    value: str
    note: str = ""


def add_parser(commands: Commands) -> None:
    """The arguments of `rlsp check`."""
    text = "resolved settings and what follows from them; needs no GPU and starts nothing"
    parser = add_config_command(commands, "check", text)
    parser.add_argument("--quick", action="store_true", help="load no model and judge no reference answer")
    parser.add_argument("--gpus", type=int, metavar="N", help="check for a machine with N GPUs (default: this machine)")
    parser.add_argument(
        "--gpu-memory", type=float, metavar="GIB", help="memory of each (default: that of this machine's, else 80)"
    )
    parser.set_defaults(function=check_command)


def check_command(arguments: argparse.Namespace) -> int:
    """Prints everything; exit code 0, warnings included. Raises UserError for what cannot work."""
    if (arguments.gpus is not None and arguments.gpus < 0) or (arguments.gpu_memory or 1.0) <= 0:
        raise ConfigError("--gpus must be at least 0, and --gpu-memory above 0")
    return check(
        arguments.config,
        arguments.overrides,
        quick=arguments.quick,
        gpus=None if arguments.gpus is None else [str(number) for number in range(arguments.gpus)],
        card_gib=arguments.gpu_memory,
    )


def check(
    path: str,
    overrides: list[str],
    out: TextIO | None = None,
    *,
    quick: bool = False,
    gpus: list[str] | None = None,
    card_gib: float | None = None,
) -> int:
    """Prints what was found, then what follows from the settings, then the settings; returns 0.

    `quick`: the model is not loaded. `gpus` and `card_gib`: the GPUs of the machine that the run is meant for, and the
    memory of each; None: those of this machine.

    Raises UserError for settings that cannot work, and for data or a model that cannot be read.
    """
    from rlsp_async.verifying.base import check_verifier

    out = out or sys.stdout
    elsewhere, gpus = gpus is not None, visible_gpus(os.environ) if gpus is None else gpus
    cfg = fill_count(load(path, overrides), gpus)
    shape = planned_model(cfg)
    refuse(cfg, shape)
    if shape is not None and not elsewhere:
        inputs.require_memory(cfg, shape)
    check_verifier(cfg)
    warnings = inputs.key_warnings(cfg) + inputs.model_warnings(cfg)
    if shape is None:
        warnings.append(
            f"model.path: {cfg.model.path}: not on this machine; nothing that depends on its size "
            "is estimated, and `rlsp run` refuses to start"
        )
    facts = {"the machine": machine_facts(cfg, shape)}
    if card_facts := gpu_facts(cfg, shape, gpus, card_gib, warnings):
        facts["the GPUs"] = card_facts
    for name, stage in cfg.stages.items():
        facts[f"stage {name}"] = stage_facts(cfg, stage)
        warnings += stage_warnings(cfg, name, stage)
    facts["the data"] = _data_facts(cfg, shape, quick)
    warnings += run_warnings(cfg)
    print(f"rlsp check: {path} can run{_count(warnings)}", file=out)
    for text in warnings:
        print(f"warning: {text}", file=out)
    for title, some in facts.items():
        _print_facts(title, some, out)
    _print_settings(cfg, out)
    return 0


def _count(warnings: list[str]) -> str:
    return f" ({len(warnings)} warning{'s' if len(warnings) > 1 else ''})" if warnings else ""


# --- what follows from the settings --------------------------------------------------------------------------------


def machine_facts(cfg: RunConfig, shape: ModelInfo | None) -> list[Fact]:
    """Processes, memory and disk. Imports the algorithms' modules, to know which models they keep."""
    processes = estimate.num_processes(cfg)
    listed = ", ".join(f"{count} {role}" for role, count in processes.items() if count)
    facts = [Fact("run directory", str(cfg.directory)), Fact("processes", str(sum(processes.values())), listed)]
    if shape is None:
        return facts
    extra = inputs.extra_models(cfg)
    vllm = cfg.sampler.engine in ("auto", "vllm")
    return [
        *facts,
        Fact(
            "model",
            f"{count_text(shape.num_parameters)} parameters",
            f"{shape.layers} layers, hidden {shape.hidden}, window {shape.context}, {cfg.model.dtype}",
        ),
        *_adapter_facts(cfg, shape),
        Fact(
            "memory, learner" if cfg.learner.ranks == 1 else "memory, each learner rank",
            gib_text(estimate.learner_gib(cfg, shape, extra)),
            _learner_state(extra),
        ),
        Fact(
            "memory, each sampler",
            gib_text(estimate.sampler_gib(cfg, shape, vllm=vllm)),
            "estimate: weights twice while loading, KV cache on the CPU; on a GPU sampler.memory is its share",
        ),
        Fact("one version", bytes_text(estimate.version_bytes(cfg, shape)), f"{cfg.learner.keep_weights} are kept"),
        Fact("way of weights", cfg.learner.transport, _WAYS[cfg.learner.transport]),
        Fact(
            "one checkpoint",
            bytes_text(estimate.checkpoint_bytes(cfg, shape, extra)),
            f"{cfg.learner.keep_checkpoints} are kept",
        ),
        Fact("disk", bytes_text(estimate.disk_bytes(cfg, shape, extra)), "estimate, at its largest"),
    ]


_WAYS = {
    "auto": "the file where a sampler can read it (this machine, a shared disk), else a channel: nccl or gloo",
    "file": "the file alone: samplers on other machines need learner.weights_dir on a disk that both see",
    "channel": "a channel first, nccl between GPUs that differ, else gloo; the file when that fails",
}
"""How weights reach the samplers, by learner.transport."""


def _adapter_facts(cfg: RunConfig, shape: ModelInfo) -> list[Fact]:
    lora = load_lora(cfg.model)
    if lora is None:
        return []
    values = estimate.adapter_values(cfg, shape)
    state = (
        f"float32; {bytes_text(16 * values)} with gradients and moments; the {cfg.model.dtype} weights stay as they are"
    )
    return [Fact("adapters (LoRA)", f"{count_text(values)} values, rank {lora.rank}", state)]


def gpu_facts(
    cfg: RunConfig, shape: ModelInfo | None, gpus: list[str], card_gib: float | None, warnings: list[str]
) -> list[Fact]:
    """Which process gets which GPU, and what each GPU holds; adds to the warnings.

    A model that is not here has the sizes of the released one that its directory is named after, if there is one.

    Raises:
        ConfigError: the processes want more GPUs than there are, or more memory than the GPUs have.
    """
    assigned = assign_gpus(gpus, cfg)
    if not assigned:
        return []
    if idle := idle_gpus(gpus, assigned):
        warnings.append(
            f"{len(idle)} of {len(gpus)} GPUs ({', '.join(idle)}) stay idle: raise sampler.count (0: all that fit) or "
            "sampler.tensor_parallel"
        )
    released = cards.released_shape(cfg.model.path) if shape is None else None
    shape = released[1] if released else shape
    if shape is None:
        return [Fact(name, f"GPU {', '.join(mine)}") for name, mine in assigned.items()]
    facts = [Fact("sizes", released[0], "of the released model of this name")] if released else []
    uses = cards.plan_cards(cfg, shape, assigned, card_gib or card_memory_gib() or CARD_GIB, inputs.extra_models(cfg))
    for use in uses:
        facts.append(Fact(f"GPU {use.card}", ", ".join(use.processes), "; ".join(use.texts)))
        warnings += use.warnings
    return facts


def _learner_state(extra: estimate.ExtraModels) -> str:
    more = ["a reference"] * extra.frozen + ["a second trunk for the critic"] * extra.trained
    return "estimate: " + ", ".join([*more, "state and one microbatch"])


def stage_facts(cfg: RunConfig, stage: StageConfig) -> list[Fact]:
    """Capacity, lag, volumes, and the reward's dominance condition."""
    per_group = estimate.rollouts_per_group(cfg, stage)
    rollouts = stage.groups_per_step * per_group
    tokens = estimate.tokens_per_step(cfg, stage)
    facts = [
        Fact("capacity", f"{stage.capacity} groups", "(target_lag + 1) * groups_per_step * oversample, at most"),
        Fact(
            "worst lag",
            _versions(estimate.admitted_lag(stage)),
            f"a group that others overtake grows older; above max_lag = {stage.max_lag} it is dropped as stale",
        ),
        Fact(
            "a step",
            f"{'up to ' if stage.source == 'imported' else ''}{rollouts} rollouts, up to {count_text(tokens)} tokens",
            f"{stage.groups_per_step} groups of {per_group}",
        ),
        Fact(
            "the stage",
            f"{count_text(rollouts * stage.steps)} rollouts, up to {count_text(tokens * stage.steps)} tokens",
            f"{stage.steps} steps",
        ),
        Fact(
            "optimizer updates",
            str(estimate.optimizer_updates(stage)),
            f"{stage.steps} steps x {stage.minibatches} minibatches x {stage.epochs} epochs",
        ),
        Fact("buffer", bytes_text(estimate.buffer_bytes(cfg, stage)), "upper bound, in the hub's memory"),
    ]
    return [*facts, *_reward_facts(cfg, stage)]


def _reward_facts(cfg: RunConfig, stage: StageConfig) -> list[Fact]:
    if stage.source != "rollouts":
        return []
    condition = describe_condition(stage.reward, cfg.sampling.max_new_tokens, is_released(stage))
    return [Fact("correct beats wrong", *condition)] if condition else []


def _versions(num: int) -> str:
    return f"{num} version" if num == 1 else f"{num} versions"


def _data_facts(cfg: RunConfig, shape: ModelInfo | None, quick: bool) -> list[Fact]:
    """Reads prompts and demonstrations, the algorithms' options and the model. Raises DataError, ConfigError."""
    from rlsp_async.tasks.overlap import summary

    size = inputs.check_data(cfg)
    inputs.check_modules(cfg)
    facts = [Fact("held-out prompts", "endless" if size < 0 else str(size), f"task {cfg.task.name}, readable")]
    if overlap := inputs.find_overlap(cfg):
        facts.append(Fact("training rows", *summary(overlap)))
    facts += [] if quick else _reference_facts(cfg)
    directory = Path(cfg.model.path).expanduser()
    brought = bool(cfg.model.path) and directory.is_dir()
    measured = inputs.measure(cfg, directory if brought else None) if shape else None
    if measured is not None:
        facts.append(Fact("longest prompt", f"{measured.longest} tokens", "of every row that is used"))
        facts.append(Fact("longest sequence", f"{measured.longest_sequence} tokens", "prompt and response"))
        facts += [Fact("rows", sentence) for sentence in measured.sentences]
    if measured is not None and brought and not quick:
        engine, window, _ = inputs.check_loading(cfg, directory, measured.expected)
        facts.append(Fact("model", "loads", "packed log-probs are those of its forward pass; it can be exported"))
        if window:
            facts.append(Fact("window", f"{window} tokens", f"of prompt and response, {engine} engine"))
    return facts


def _reference_facts(cfg: RunConfig) -> list[Fact]:
    """Judges every reference answer. Raises DataError when too many of them are not correct against themselves."""
    found = references.judge_references(cfg, lambda text: print(f"rlsp check: {text}", file=sys.stderr))
    references.refuse_unreadable(cfg, found)
    lines = found.sentences() if found else ["not judged: the verifier has none that can be judged"]
    return [Fact("reference answers", line) for line in lines]


# --- printing ------------------------------------------------------------------------------------------------------


def _print_settings(cfg: RunConfig, out: TextIO) -> None:
    """The settings in the order of the schema, one a line; a long list is folded between its items."""
    print("\nthe settings (change one with key=value)\n", file=out)
    for key, value in settings(cfg).items():
        text = " ".join(toml_text(value).split()) if isinstance(value, list) else toml_text(value)
        if isinstance(value, list) and len(text) > FOLDED:
            items = ",\n".join(f"    {' '.join(toml_text(item).split())}" for item in value)
            text = f"[\n{items},\n  ]"
        print(f"  {key} = {text}", file=out)


def _print_facts(title: str, facts: list[Fact], out: TextIO) -> None:
    print(f"\n{title}\n", file=out)
    for fact in facts:
        print(f"  {fact.name:<21} {fact.value:<36} {fact.note}".rstrip(), file=out)
