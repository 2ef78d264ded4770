"""Settings that name a module: one of a package of ours, or, with a dot, one of the user's own.

find_module("ops", "rlsp_async.tasks", "task.name", ("Config", "load"))
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from typing import Any

from rlsp_async.errors import ConfigError


def find_module(name: str, package: str, key: str, needs: tuple[str, ...]) -> Any:
    """The module that the setting `key` names.

    Raises ConfigError with the nearest name when there is none, or when it lacks one of `needs`. An error inside the
    user's own module rises as it is: its traceback says what is wrong.
    """
    full = name if "." in name else f"{package}.{name}"
    try:
        module = importlib.import_module(full)
    except ModuleNotFoundError as e:
        if e.name is None or not (full == e.name or full.startswith(f"{e.name}.")):
            raise
        raise ConfigError(f"{key}: {_no_such(name, package, needs)}") from None
    missing = [attribute for attribute in needs if not hasattr(module, attribute)]
    if missing:
        raise ConfigError(f"{key}: module {full!r} offers no {missing[0]!r}")
    return module


def known_names(package: str, needs: tuple[str, ...]) -> list[str]:
    """The modules of a package that offer all of `needs`."""
    found = [m.name for m in pkgutil.iter_modules(importlib.import_module(package).__path__)]
    return [n for n in found if all(hasattr(importlib.import_module(f"{package}.{n}"), a) for a in needs)]


def _no_such(name: str, package: str, needs: tuple[str, ...]) -> str:
    if "." in name:
        return f"no module {name!r}; is its directory on PYTHONPATH?"
    known = known_names(package, needs)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}, or a dotted module of your own"
    return f"unknown name {name!r}; {hint}"
