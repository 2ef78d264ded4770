"""Settings of a run, and a run directory with them."""

from pathlib import Path
from typing import Any

from rlsp_async.config import RunConfig, convert, to_toml


def settings(runs: Path, **sections: Any) -> RunConfig:
    table = {"name": "x", "runs_dir": str(runs), "stages": {"rl": {"groups_per_step": 4}}, **sections}
    return convert(table, RunConfig, "x")


def made(runs: Path, **sections: Any) -> RunConfig:
    """A run directory with its settings in it."""
    cfg = settings(runs, **sections)
    cfg.directory.mkdir(parents=True)
    (cfg.directory / "config.toml").write_text(to_toml(cfg))
    return cfg
