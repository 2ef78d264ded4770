"""`rlsp eval`: the arguments and the output; the evaluation itself is `rlsp_async.evaluate`."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from rlsp_async.cli.arguments import Commands
from rlsp_async.config import RunConfig, SamplerConfig, SamplingConfig, convert, load, tables
from rlsp_async.errors import ConfigError


def add_parser(commands: Commands) -> None:
    """The arguments of `rlsp eval`."""
    parser = commands.add_parser("eval", help="pass@1 and pass@n of a model directory on a task, with 95 %% intervals")
    parser.add_argument("model", metavar="MODEL", help="Hugging Face directory, e.g. runs/ops_cpu/final")
    parser.add_argument("--task", required=True, metavar="T", help="a task (`rlsp tasks`) or a config whose task it is")
    parser.add_argument("-n", type=int, default=8, metavar="N", help="rollouts of each prompt (default: 8)")
    parser.add_argument("--prompts", type=int, default=256, metavar="N", help="held-out prompts (default: 256)")
    parser.add_argument("--engine", default="auto", choices=["auto", "vllm", "torch"], help="default: auto")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="default: that of the config, else 256")
    parser.add_argument("--temperature", type=float, metavar="X", help="default: that of the config, else 1.0")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument("--out", default="", metavar="FILE", help="every response with its verdict, as JSON lines")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument(
        "overrides",
        metavar="sampler.key=value",
        nargs="*",
        default=[],
        help="settings of the engine, e.g. sampler.tensor_parallel=2 sampler.memory=0.9; default: those of the config, "
        "else the whole GPU",
    )
    parser.set_defaults(function=evaluate_command)


def evaluate_command(arguments: argparse.Namespace) -> int:
    """Prints the table, or with --json one object. Raises UserError, DivergedError."""
    from rlsp_async.cli.tasks import task_of
    from rlsp_async.evaluate import evaluate

    section, _ = task_of(arguments.task)
    cfg = load(arguments.task) if arguments.task.endswith(".toml") else None
    sampling = cfg.sampling if cfg else SamplingConfig()
    if arguments.n < 1 or arguments.prompts < 1:
        raise ConfigError("-n and --prompts must be at least 1")
    result = evaluate(
        Path(arguments.model),
        section,
        rollouts=arguments.n,
        prompts=arguments.prompts,
        engine=arguments.engine,
        max_new_tokens=sampling.max_new_tokens if arguments.max_new_tokens is None else arguments.max_new_tokens,
        temperature=sampling.temperature if arguments.temperature is None else arguments.temperature,
        seed=arguments.seed,
        out=Path(arguments.out) if arguments.out else None,
        sampler=engine_settings(cfg, arguments.overrides),
    )
    print(msgspec.json.encode(result).decode() if arguments.json else result)
    return 0


def engine_settings(cfg: RunConfig | None, overrides: list[str]) -> SamplerConfig | None:
    """The engine's settings: those of the config with the `sampler.key=value` words; None without either.

    Raises ConfigError for a word of another section.
    """
    from rlsp_async.cuda import has_cuda
    from rlsp_async.evaluate import sole_sampler

    if cfg is None and not overrides:
        return None
    for word in overrides:
        if not word.startswith("sampler."):
            raise ConfigError(f"rlsp eval takes sampler.key=value only, not {word!r}")
    given: dict[str, object] = tables(overrides).get("sampler", {})
    base = cfg.sampler if cfg else sole_sampler(has_cuda())
    return convert({**msgspec.to_builtins(base), **given}, SamplerConfig, "rlsp eval", "sampler")
