"""Reads the settings of a run: one TOML file and `key=value` overrides. Every unknown key is refused with its path.

    cfg = load("launch/configs/ops_cpu.toml", ["seed=3", "stages.rlsp.steps=40"])

The settings themselves are in `schema.py`.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import typing
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from rlsp_async.config.schema import RunConfig, Section, StageConfig, SuccessReplayConfig
from rlsp_async.errors import ConfigError

T = TypeVar("T")

_FREE = ("runs_dir", "replay.", "sampler.", "verifier.", "learner.")
"""Sections and settings that may change when a run is resumed ..."""
_FIXED = ("learner.tokens_per_microbatch",)
"""... except for these."""


def load(path: str | Path, overrides: list[str] | None = None) -> RunConfig:
    """Reads a TOML file and applies `a.b.c=value` overrides (values in TOML syntax; a bare word is a string).

    Raises ConfigError with the file, the path of the key and, for an unknown key, the nearest known name.
    """
    where = Path(path)
    try:
        table = tomllib.loads(where.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{where}: no such file; shipped ones lie in launch/configs/") from None
    except OSError as e:
        raise ConfigError(f"{where}: cannot be read: {e.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"{where}: no valid TOML: {e}") from None
    return convert(tables(overrides or [], table), RunConfig, str(where))


def tables(overrides: list[str], table: dict[str, Any] | None = None) -> dict[str, Any]:
    """Adds `a.b=value` words to nested tables and returns them. Raises ConfigError for a word of another form."""
    table = {} if table is None else table
    for override in overrides:
        _apply(table, override)
    return table


def convert(table: dict[str, Any], kind: type[T], where: str, path: str = "") -> T:
    """Decodes a table. Raises ConfigError that names the key and, for an unknown one, the nearest known name.

    `where` begins the error: the file or plugin. `path` is the table's own place in the settings, e.g. "task.options".
    """
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as e:
        raise ConfigError(f"{where}: {_explain(str(e), kind, table, path)}") from None


def load_success_replay(name: str, stage: StageConfig) -> SuccessReplayConfig:
    """Decodes `success_replay` of a stage; without it, a config of capacity 0.

    Raises ConfigError for unknown options, and for settings of the stage that success replay cannot be combined with.
    """
    if not stage.success_replay:
        return SuccessReplayConfig(capacity=0)
    where = f"stages.{name}.success_replay"
    cfg = convert(stage.success_replay, SuccessReplayConfig, where)
    if cfg.capacity and stage.source != "rollouts":
        raise ConfigError(f"{where} is about rollouts, and this stage trains on {stage.source}: take it out")
    if cfg.capacity and stage.drop_no_signal:
        raise ConfigError(
            f"{where} mends groups of which all rollouts failed, and drop_no_signal drops them before: "
            "take one of the two out"
        )
    return cfg


def to_toml(cfg: RunConfig) -> str:
    """The resolved settings as TOML, every default written out."""
    return msgspec.toml.encode(msgspec.to_builtins(cfg)).decode()


def decides_the_weights(key: str) -> bool:
    """Whether a setting must stay the same when a run is resumed. Example: "seed" yes, "sampler.count" no."""
    return key in _FIXED or not key.startswith(_FREE)


def num_settings(kind: type[Section] = RunConfig) -> int:
    """The number of settings; sections are not counted."""
    total = 0
    for field in msgspec.structs.fields(kind):
        inner = _section_of(field.type)
        total += num_settings(inner) if inner else 1
    return total


def _section_of(annotation: Any) -> type[Section] | None:
    for kind in (annotation, *typing.get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None


def _apply(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"override {override!r}: write it as key=value, e.g. stages.rlsp.steps=40")
    *parents, last = key.strip().split(".")
    for name in parents:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise ConfigError(f"override {override!r}: {name!r} is a value, not a section")
    table[last] = _value(text.strip())


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(message: str, kind: type[Any], table: dict[str, Any], prefix: str = "") -> str:
    """The sentence of msgspec, with the path as in TOML (below `prefix`) and the nearest name for an unknown key."""
    what, _, path = message.partition(" - at `$")
    path = path.rstrip("`").lstrip(".").replace("[...]", "." + _guilty(table))
    whole = ".".join(filter(None, (prefix, path)))
    unknown = re.search(r"unknown field `([^`]+)`", what)
    if not unknown:
        return f"{whole}: {what}" if whole else what
    section = _descend(kind, path)
    known = [field.encode_name for field in msgspec.structs.fields(section)] if section else []
    near = difflib.get_close_matches(unknown[1], known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    full = f"{whole}.{unknown[1]}" if whole else unknown[1]
    return f"unknown key {full!r}; {hint}"


def _guilty(table: dict[str, Any]) -> str:
    """The name of the stage that does not convert; msgspec's path has only [...] for it."""
    for name, stage in table.get("stages", {}).items():
        try:
            msgspec.convert(stage, StageConfig)
        except msgspec.ValidationError:
            return str(name)
    return "*"


def _descend(kind: type[Any], path: str) -> type[Section] | None:
    """The section at a dotted path; None when there is none. The name of a stage is skipped."""
    at: type[Any] | None = kind
    for name in filter(None, path.split(".")):
        if at is None:
            break
        if at is StageConfig and name not in {f.encode_name for f in msgspec.structs.fields(StageConfig)}:
            continue
        types = {f.encode_name: f.type for f in msgspec.structs.fields(at)}
        at = _section_of(types[name]) if name in types else None
    return at
