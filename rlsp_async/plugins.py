"""Plugins: modules that a setting names. Tasks, verifiers, algorithms and selections are all found and configured here.

    TASKS = PluginFamily(
        noun="task", package="rlsp_async.tasks", setting="task.name", options="task.options", needs=("Config", "load")
    )
    module = TASKS.find("ops")                                # rlsp_async.tasks.ops
    cfg = TASKS.decode_options("ops", module, {"k": 3})       # module.Config(k=3)

A name without a dot is a module in the family's own package, or an alias of one. A name with a dot is the user's own
module, found on PYTHONPATH. A family with `files` also takes the path of a `.py` file. Every error is a ConfigError
that begins with the setting and says what to do.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rlsp_async import config
from rlsp_async.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class PluginFamily:
    """One kind of plugins: where its modules are, and what each of them must offer."""

    noun: str
    """What one plugin is called in errors, e.g. "task"."""
    package: str
    """The package that holds the plugins that ship."""
    setting: str
    """The setting that names a plugin, e.g. "task.name"; errors about the name begin with it."""
    options: str
    """The settings table with the plugin's options, e.g. "task.options"; errors about an option name its full path."""
    needs: tuple[str, ...]
    """Attributes that a module must have to be a plugin of this family."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Further short names and the modules, relative to `package`, that they stand for."""
    files: bool = False
    """Whether a setting may name a `.py` file."""
    advice: str = ""
    """What to do about a missing attribute; appended to that error."""

    def find(self, name: str) -> Any:
        """Imports the module that `name` stands for.

        An error inside the user's own module is not caught: its traceback says what is wrong.

        Raises:
            ConfigError: no such module or file (with the nearest known name), or it lacks one of `needs`.
        """
        is_file = self.files and name.endswith(".py")
        module = self._load_file(name) if is_file else self._import(name)
        missing = [attribute for attribute in self.needs if not hasattr(module, attribute)]
        if missing:
            what = f"file {name!r}" if is_file else f"module {self._full_name(name)!r}"
            advice = f"; {self.advice}" if self.advice else ""
            raise ConfigError(f"{self.setting}: {what} offers no {', '.join(map(repr, missing))}{advice}")
        return module

    def names(self) -> list[str]:
        """The short names of all plugins that ship, aliases included, sorted."""
        inside = [module.name for module in pkgutil.iter_modules(importlib.import_module(self.package).__path__)]
        return sorted({*self.aliases, *(name for name in inside if self._is_plugin(f"{self.package}.{name}"))})

    def decode_options(self, name: str, module: Any, table: Mapping[str, Any]) -> Any:
        """The options of plugin `name` as an instance of `module.Config`.

        Raises:
            ConfigError: a wrong or unknown option, with its path ("task.options.kk") and the nearest known one.
        """
        return decode_options(table, module.Config, self.options, f"{self.noun} {name!r}")

    def _is_plugin(self, full_name: str) -> bool:
        module = importlib.import_module(full_name)
        return all(hasattr(module, attribute) for attribute in self.needs)

    def _import(self, name: str) -> Any:
        full = self._full_name(name)
        if not all(full.split(".")):  # an empty part: import_module would take it for a relative import
            raise ConfigError(f"{self.setting}: {self._no_such_module(name)}")
        try:
            return importlib.import_module(full)
        except ModuleNotFoundError as e:
            if e.name is None or not (full == e.name or full.startswith(f"{e.name}.")):
                raise
            raise ConfigError(f"{self.setting}: {self._no_such_module(name)}") from None

    def _full_name(self, name: str) -> str:
        return name if "." in name else f"{self.package}.{self.aliases.get(name, name)}"

    def _no_such_module(self, name: str) -> str:
        if "." in name:
            return f"no module {name!r}; is its directory on PYTHONPATH?"
        names = self.names()
        for module in names:
            if name in getattr(importlib.import_module(self._full_name(module)), "PRESETS", ()):
                key = self.setting.removesuffix("name")
                return f"{name!r} is a preset of {module}: set {self.setting} to {module!r} and {key}preset to {name!r}"
        return f"unknown name {name!r}; {nearest_name(name, names, 'or a dotted module of your own')}"

    def _load_file(self, name: str) -> Any:
        path = Path(name).expanduser().resolve()
        if not path.is_file():
            raise ConfigError(
                f"{self.setting}: {name}: no such file; a relative path counts from the working directory"
            )
        spec = importlib.util.spec_from_file_location(f"rlsp_{self.noun}_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # msgspec looks there for the module of a class
        spec.loader.exec_module(module)
        return module


def decode_options(table: Mapping[str, Any], kind: type[T], path: str, where: str) -> T:
    """A table of options as an instance of `kind`.

    Args:
        table: the options by name.
        kind: a `rlsp_async.config.Section`, or another msgspec.Struct.
        path: the settings path of the table, e.g. "task.options".
        where: whose options they are; the error begins with it.

    Raises:
        ConfigError: a wrong or unknown option, with its full path ("task.options.kk") and the nearest known one.
    """
    return config.convert(dict(table), kind, where, path)


def nearest_name(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """A hint for a name that is not one of `known`: the nearest of them, or all of them and `otherwise`."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known: {', '.join([*names, otherwise] if otherwise else names)}" if names else "there is none"
