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

from rlsp_async.config.ranges import SettingError, rules_of, short
from rlsp_async.config.schema import (
    EnvironmentConfig,
    LoraConfig,
    ModelConfig,
    RunConfig,
    Section,
    StageConfig,
    SuccessReplayConfig,
    TaskConfig,
)
from rlsp_async.errors import ConfigError

T = TypeVar("T")

_FREE = ("runs_dir", "replay.", "sampler.", "verifier.", "learner.", "task.max_unreadable")
"""Sections and settings that may change when a run is resumed ..."""
_PYTHON_NUMBER = r"[+-]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?"
"""A number as Python and most tools write it: TOML refuses ".001" and "1.e-4"."""
_FIXED = ("learner.tokens_per_microbatch", "learner.ranks")
"""... except for these."""


def load(path: str | Path, overrides: list[str] | None = None) -> RunConfig:
    """Reads a TOML file and applies `a.b.c=value` overrides (values in TOML syntax; a bare word is a string).

    Raises ConfigError with the file, the path of the key and, for an unknown key, the nearest known name.
    """
    where = find_config(Path(path))
    try:
        table = tomllib.loads(where.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{where}: no such file; shipped ones lie in launch/configs/, and their names suffice: ops_cpu_smoke"
        ) from None
    except OSError as e:
        raise ConfigError(f"{where}: cannot be read: {e.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"{where}: no valid TOML: {e}{_spelling(where, str(e))}") from None
    except RecursionError:
        raise ConfigError(f"{where}: no valid TOML: its lists or tables are nested too deep") from None
    cfg = convert(tables(overrides or [], table), RunConfig, str(where))
    load_lora(cfg.model, str(where))
    return cfg


def find_config(path: Path) -> Path:
    """The file itself, or the shipped one of this name: "ops_cpu_smoke", with or without launch/configs/ and .toml."""
    if path.exists() or str(path.parent) not in (".", "launch/configs"):
        return path
    package = Path(__file__).parents[1]
    name = path.name if path.suffix == ".toml" else f"{path.name}.toml"
    for directory in (package.parent / "launch" / "configs", package / "_launch" / "configs"):
        if (directory / name).is_file():
            return directory / name
    return path


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
        raise ConfigError(f"{where}: {_explain(e, kind, table, path)}") from None
    except RecursionError:
        raise ConfigError(f"{where}: lists or tables are nested too deep") from None


def load_environment(task: TaskConfig) -> EnvironmentConfig | None:
    """Decodes `task.environment`; None when the run has none. Raises ConfigError for unknown options."""
    return convert(task.environment, EnvironmentConfig, "task.environment") if task.environment else None


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


def load_lora(model: ModelConfig, where: str = "the settings") -> LoraConfig | None:
    """Decodes `model.lora`; None when every weight is trained. Raises ConfigError for unknown or missing options."""
    return convert(model.lora, LoraConfig, where, "model.lora") if model.lora else None


def to_toml(cfg: RunConfig) -> str:
    """The resolved settings as TOML, every default written out."""
    return msgspec.toml.encode(msgspec.to_builtins(cfg)).decode()


def decides_the_weights(key: str) -> bool:
    """Whether a setting must stay the same when a run is resumed. Example: "seed" yes, "sampler.count" no."""
    return key in _FIXED or not key.startswith(_FREE)


LATER_SETTINGS = {
    "task.too_long": "refuse",
    "task.max_unreadable": 0.02,
    "task.template_options": {},
    "task.environment": {},
    "evaluation.every": 0,
    "learner.transport": "auto",
    "learner.channel_address": "",
    "model.lora": {},
    "learner.deterministic": False,
    "learner.ranks": 1,
    "learner.other_ranks": False,
}
"""Settings that did not exist in version 0.1.0, with their defaults. Journals and checkpoints keep them only when they
have another value, so that a run that began before goes on."""


def sections_to_keep(cfg: RunConfig) -> dict[str, Any]:
    """The settings as nested tables, as the journal hashes them: without `LATER_SETTINGS` at their defaults."""
    sections: dict[str, Any] = msgspec.to_builtins(cfg)
    for key, default in LATER_SETTINGS.items():
        section, name = key.split(".")
        if sections[section][name] == default:
            del sections[section][name]
    return sections


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
    try:
        table[last] = _value(text.strip())
    except RecursionError:
        raise ConfigError(f"override {key.strip()}={text[:40]!r}...: nested too deep") from None


def _value(text: str) -> Any:
    """The value of a word, in TOML syntax, or a number or truth value as Python writes it; else the text itself."""
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        spelt: dict[str, object] = {"True": True, "False": False}
        return float(text) if re.fullmatch(_PYTHON_NUMBER, text) else spelt.get(text, text)


def _spelling(path: Path, error: str) -> str:
    """A hint for a number or truth value that Python would read and TOML does not; empty for another error."""
    line = re.search(r"at line (\d+)", error)
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    text = lines[int(line[1]) - 1] if line and int(line[1]) <= len(lines) else ""
    found = re.search(rf"[=,\[]\s*({_PYTHON_NUMBER}|True|False)\s*(?=[],}}#]|$)", text)
    if not found:
        return ""
    right = found[1].lower() if found[1] in ("True", "False") else repr(float(found[1]))
    return f"; TOML writes {found[1]} as {right}"


def _explain(error: msgspec.ValidationError, kind: type[Any], table: dict[str, Any], prefix: str = "") -> str:
    """One sentence: the path as in TOML (below `prefix`), the value, and what is allowed or the nearest known key."""
    what, _, path = str(error).partition(" - at `$")
    path = path.rstrip("`").lstrip(".").replace("[...]", "." + _guilty(table)).lstrip(".")
    whole = ".".join(filter(None, (prefix, path)))
    if isinstance(error.__cause__, SettingError):
        return ".".join(filter(None, (whole, what)))
    if what.startswith("Invalid enum"):
        what = "unknown value"
    if what.startswith(("Expected", "unknown value")) and path:
        return f"{whole}{_value_text(table, path)}: {what}{_allowed(kind, path)}"
    unknown = re.search(r"unknown field `([^`]+)`", what)
    if not unknown:
        return f"{whole}: {what}" if whole else what
    section = _descend(kind, path)
    known = [field.encode_name for field in msgspec.structs.fields(section)] if section else []
    near = difflib.get_close_matches(unknown[1], known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    full = f"{whole}.{unknown[1]}" if whole else unknown[1]
    return f"unknown key {full!r}; {hint}"


def _value_text(table: Any, path: str) -> str:
    """The value at a dotted path as " = VALUE"; empty when there is no such path, or a table at it."""
    for name in path.split("."):
        if not isinstance(table, dict) or name not in table:
            return ""
        table = table[name]
    return "" if isinstance(table, dict) else f" = {short(table)}"


def _allowed(kind: type[Any], path: str) -> str:
    """What the setting at a dotted path may hold; empty for a section, or a setting without a range."""
    parent, _, name = path.rpartition(".")
    section = _descend(kind, parent)
    rule = rules_of(section).get(name) if section and issubclass(section, msgspec.Struct) else None
    return f"; must be {rule.text()}" if rule and (rule.bound or rule.choices or rule.kinds == {bool}) else ""


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
