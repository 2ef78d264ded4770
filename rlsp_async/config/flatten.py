"""The settings of a run as one flat mapping of dotted keys, as in `key=value`."""

from __future__ import annotations

import msgspec

from rlsp_async.config import RunConfig


def settings(cfg: RunConfig) -> dict[str, object]:
    """Every setting by its dotted key, defaults included. Example: {"seed": 0, "model.path": "", ...}."""
    return _flat(msgspec.to_builtins(cfg), "")


def _flat(table: dict[str, object], prefix: str) -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in table.items():
        if isinstance(value, dict) and value:
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def toml_text(value: object) -> str:
    """A value in TOML syntax: "a" -> '"a"', True -> "true"."""
    return msgspec.toml.encode({"v": value}).decode().removeprefix("v = ").strip() if value != {} else "{}"
