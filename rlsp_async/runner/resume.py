"""A run that is there already: is it one, is it finished, and may it go on with these settings?

Settings that decide the weights must stay (seed, model, task, sampling, stages, evaluation,
learner.tokens_per_microbatch). How the work is done may change: the number of samplers, ports, time-outs, how often a
checkpoint is written.
"""

from __future__ import annotations

import sqlite3
import tomllib
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import msgspec

from rlsp_async import config
from rlsp_async.config import RunConfig
from rlsp_async.config.flatten import settings
from rlsp_async.errors import ConfigError, DataError, UserError, unwritable
from rlsp_async.files import replace_file
from rlsp_async.replay import integrity
from rlsp_async.report.write import load_report

CHECK_S = 10.0
"""Longest comparison of a journal with its digests, for the words at the end of a run."""


def load_interrupted(path: Path, overrides: list[str]) -> RunConfig:
    """The settings of the run in a directory (or of its config.toml), wherever it was moved to.

    Raises DataError when there is no run, ConfigError when the directory does not have the run's name.
    """
    directory = (path.parent if path.name == "config.toml" else path).expanduser().resolve()
    if not (directory / "config.toml").is_file():
        raise DataError(f"{path} is no run: there is no config.toml in it; name a directory like runs/ops_cpu")
    cfg = config.load(directory / "config.toml", overrides)
    if cfg.name != directory.name:
        raise ConfigError(f"{directory} holds the run {cfg.name!r}: a run's directory has its name; rename it back")
    return msgspec.structs.replace(cfg, runs_dir=str(directory.parent))


def is_run(directory: Path) -> bool:
    """Whether a run was prepared here. Raises ConfigError for a directory with something else in it."""
    if (directory / "config.toml").is_file():
        return True
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigError(f"{directory} is there and is no run (it has no config.toml); choose another name=...")
    return False


def is_finished(directory: Path) -> bool:
    """Whether a report of the whole run was written. A damaged one counts as none: the journal knows, and the report is
    written again."""
    try:
        report = load_report(directory)
    except DataError as e:
        print(f"{e}; the run goes on without it", flush=True)
        return False
    return report is not None and report.finished


def find_damage(directory: Path) -> str:
    """Why a run that is there cannot be continued; empty when nothing is known against it."""
    journal, checkpoints = directory / "journal.sqlite", directory / "checkpoints"
    has_saved = (checkpoints / "OWNER").is_file()
    if not journal.is_file():
        return f"{journal} is gone" if has_saved else ""
    if wrong := integrity.find_damage(journal, CHECK_S):
        return f"{journal} is damaged ({wrong})"
    try:
        held, wanted = integrity.num_commits(journal), integrity.read_tail(journal)
        if held < wanted and _durability(directory) == "power":
            return f"{journal} has lost its end: it holds {held:,} of {wanted:,} commits"
        with closing(sqlite3.connect(f"file:{quote(str(journal))}?mode=ro", uri=True)) as db:
            [(saved,)] = db.execute("SELECT max(checkpoint) FROM steps").fetchall()
            [(steps,)] = db.execute("SELECT max(step) FROM steps").fetchall()
    except sqlite3.Error as e:
        return f"{journal} cannot be read ({e})"
    kept = [int(p.name[5:]) for p in checkpoints.glob("step-*") if p.name[5:].isdigit() and (p / "DONE").is_file()]
    if saved and not kept:
        return f"{checkpoints} holds no whole checkpoint any more"
    if kept and max(kept) > (steps or 0) + 1:
        return f"the checkpoint of step {max(kept)} is newer than the journal, which ends at step {steps or 0}"
    return ""


def _durability(directory: Path) -> str:
    """`replay.durability` of the run; "power" when its settings cannot be read."""
    try:
        return config.load(directory / "config.toml", []).replay.durability
    except (UserError, OSError):
        return "power"


def require_same(cfg: RunConfig, directory: Path) -> list[str]:
    """The settings that differ from those of the run that is there, one sentence each.

    Raises ConfigError when one of them decides the weights.
    """
    text = (directory / "config.toml").read_text(encoding="utf-8")
    old = settings(config.convert(tomllib.loads(text), RunConfig, str(directory / "config.toml")))
    new = settings(cfg)
    keys = [key for key in {**old, **new} if key != "runs_dir" and old.get(key) != new.get(key)]
    changed = {key: f"{key} was {old.get(key)!r} and is {new.get(key)!r} now" for key in keys}
    may_change = {"learner.ranks"} if cfg.learner.other_ranks else set()
    fixed = [changed[key] for key in keys if config.decides_the_weights(key) and key not in may_change]
    if fixed:
        more = f" and {len(fixed) - 4} more" if len(fixed) > 4 else ""
        raise ConfigError(
            f"{directory} holds a run with other settings: {'; '.join(fixed[:4])}{more}; "
            f"choose another name=..., or remove the directory{_other_ways(set(keys), directory)}"
        )
    return list(changed.values())


def _other_ways(keys: set[str], directory: Path) -> str:
    """What else leads to where a change of settings would lead that is refused; empty when nothing is known."""
    ways = ""
    if any(key.startswith("stages.") and key.endswith(".steps") for key in keys) and (directory / "final").is_dir():
        ways += (
            "; to train a finished run further, begin a new run with its result: "
            f"name=..., model.path={directory / 'final'} and the steps to add"
        )
    if "learner.tokens_per_microbatch" in keys:
        ways += (
            "; learner.tokens_per_microbatch decides the order of sums, and with it the last digits: a sequence that "
            "is longer gets a pass of its own, and learner.gradient_checkpointing=true, which needs less memory, may "
            "be changed"
        )
    if "learner.ranks" in keys:
        ways += (
            "; the number of ranks decides the last digits: learner.other_ranks=true resumes with another one all the "
            "same"
        )
    return ways


def take_over(cfg: RunConfig, changed: list[str]) -> None:
    """Writes the settings of this start into RUN/config.toml, where the services read them; prints what changed.

    Raises MachineError when the disk refuses.
    """
    for sentence in changed:
        print(f"{cfg.directory}: {sentence}", flush=True)
    path = cfg.directory / "config.toml"
    try:
        replace_file(path, config.to_toml(cfg), durable=False)
    except OSError as e:
        raise unwritable(path, e) from None
