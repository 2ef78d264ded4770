"""Checks of the run directory: G11 checkpoints are complete or absent, G13 the settings are those of the journal."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from rlsp_async.audit.finding import Finding, Offences
from rlsp_async.audit.history import History
from rlsp_async.messages import PROTOCOL

FREE = ("runs_dir", "replay", "sampler", "verifier", "learner")
"""Sections whose settings do not decide what is trained: they may be changed when a run is resumed."""


def check_files(history: History) -> list[Finding]:
    """Both; not applicable when the journal was copied away from its run."""
    return [_checkpoints(history), _settings(history)]


def _checkpoints(history: History) -> Finding:
    found = Offences("G11", "a checkpoint can be loaded or is not there")
    directory = history.directory / "checkpoints"
    places = sorted(directory.glob("step-*")) if directory.is_dir() else []
    good = [place for place in places if _is_whole(place, found)]
    [(newest,)] = history.rows("SELECT max(checkpoint) FROM steps")
    if directory.is_dir() and newest and not good:
        found.add(f"step {newest} was said to be saved, and no checkpoint can be loaded", path=str(directory))
    return found.finding(f"{len(good)} of {len(places)} match their digests", applies=bool(places) or bool(newest))


def _is_whole(place: Path, found: Offences) -> bool:
    """Whether every file has the digest that DONE names."""
    try:
        digests: dict[str, str] = json.loads((place / "DONE").read_text(encoding="utf-8"))
        wrong = [name for name, digest in digests.items() if _digest(place / name) != digest]
    except (OSError, ValueError, AttributeError) as e:
        found.add(f"DONE cannot be read: {e}", path=str(place))
        return False
    for name in wrong:
        found.add(f"{name} does not have the digest that was written", path=str(place))
    return not wrong


def _digest(path: Path) -> str:
    if not path.is_file():
        return "missing"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _settings(history: History) -> Finding:
    """The settings in the journal are whole, and those beside it are the same in all that decides what is trained."""
    found = Offences("G13", "the settings are those that the run began with")
    table: dict[str, Any] = msgspec.to_builtins(history.cfg)
    for name, value in table.items():
        stored = history.run.get(f"config.{name}")
        if name not in FREE and stored != hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest():
            found.add(f"[{name}] in the journal was changed", path=str(history.path))
    if history.run.get("protocol") != str(PROTOCOL):
        found.add(f"protocol {history.run.get('protocol')}, this version speaks {PROTOCOL}", path=str(history.path))
    path = history.directory / "config.toml"
    if path.is_file():
        beside = _table(path, found)
        for name in [name for name in beside if name not in FREE and _differs(beside[name], table.get(name))]:
            found.add(f"[{name}] in config.toml is not what the run began with", path=str(path))
    return found.finding(
        f"protocol {history.run.get('protocol')}, schema {history.run.get('schema')}"
        + ("" if path.is_file() else "; there is no config.toml beside it")
    )


def _table(path: Path, found: Offences) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
        found.add(f"it is not TOML any more: {e}", path=str(path))
        return {}


def _differs(beside: Any, then: Any) -> bool:
    """Whether a value of the file says something else; what the file leaves out has its default."""
    if isinstance(beside, dict) and isinstance(then, dict):
        return any(_differs(value, then.get(key)) for key, value in beside.items())
    if isinstance(beside, list) and isinstance(then, list | tuple):
        return list(beside) != list(then)
    return bool(beside != then)
