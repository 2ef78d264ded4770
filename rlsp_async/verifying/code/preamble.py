"""Names that an answer may use without importing them, as on the sites that the problems come from.

    preamble_names()["List"]         # typing.List
    preamble_names()["math"]         # the module

The modules that answers use most stand under their own names. The names that `from MODULE import *` gives are those of
typing, collections, itertools, functools, heapq, bisect and a few others, except where a builtin has the name.
"""

from __future__ import annotations

import builtins
import importlib
from functools import lru_cache
from typing import Any

_MODULES = [
    "bisect",
    "cmath",
    "collections",
    "copy",
    "datetime",
    "decimal",
    "fractions",
    "functools",
    "hashlib",
    "heapq",
    "io",
    "itertools",
    "json",
    "math",
    "operator",
    "os",
    "random",
    "re",
    "statistics",
    "string",
    "sys",
    "time",
    "typing",
]
_STARRED = ("typing", "collections", "itertools", "functools", "heapq", "bisect")
_OTHERS = {
    "collections.abc": ("Hashable",),
    "copy": ("deepcopy",),
    "dataclasses": ("dataclass", "field"),
    "datetime": ("timedelta",),
    "decimal": ("Decimal",),
    "enum": ("Enum",),
    "fractions": ("Fraction",),
    "math": ("ceil", "comb", "factorial", "floor", "gcd", "inf", "isqrt", "lcm", "log", "log2", "pi", "sqrt"),
    "operator": ("itemgetter", "mul"),
    "string": ("ascii_letters", "ascii_lowercase", "ascii_uppercase", "digits"),
}


@lru_cache(maxsize=1)
def preamble_names() -> dict[str, Any]:
    """The names and what they stand for. Callers copy what they change."""
    names: dict[str, Any] = {}
    for module in _STARRED:
        loaded = importlib.import_module(module)
        public = getattr(loaded, "__all__", [name for name in dir(loaded) if not name.startswith("_")])
        names |= {name: getattr(loaded, name) for name in public}
    for module, chosen in _OTHERS.items():
        names |= {name: getattr(importlib.import_module(module), name) for name in chosen}
    names |= {name: importlib.import_module(name) for name in _MODULES}
    return {name: value for name, value in names.items() if not hasattr(builtins, name)}
