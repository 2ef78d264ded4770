"""The modules that a model's code and the tests may import, although their processes cannot open a file.

    load_library(["sympy"])        # in the process that forks the others, while files may be read
    close_imports()                # in a process that is about to be confined

Modules that nearly every answer imports are imported in advance, and so are all modules of the standard library that
are shared objects. The other modules of the standard library are kept as bytes and imported when they are asked for.
An import of anything else raises ModuleNotFoundError, as where it is not installed.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import sys
import sysconfig
import time
import warnings
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType

_ADVANCE = [
    "__future__",
    "_strptime",
    "abc",
    "array",
    "ast",
    "asyncio",
    "base64",
    "binascii",
    "bisect",
    "builtins",
    "calendar",
    "cmath",
    "collections",
    "collections.abc",
    "concurrent.futures",
    "contextlib",
    "copy",
    "csv",
    "dataclasses",
    "datetime",
    "decimal",
    "difflib",
    "encodings.ascii",
    "encodings.idna",
    "encodings.latin_1",
    "enum",
    "fractions",
    "functools",
    "gc",
    "hashlib",
    "heapq",
    "hmac",
    "html",
    "inspect",
    "io",
    "itertools",
    "json",
    "keyword",
    "locale",
    "logging",
    "math",
    "numbers",
    "operator",
    "os",
    "pprint",
    "queue",
    "random",
    "re",
    "secrets",
    "statistics",
    "string",
    "struct",
    "sys",
    "textwrap",
    "threading",
    "time",
    "timeit",
    "traceback",
    "types",
    "typing",
    "unicodedata",
    "unittest",
    "unittest.async_case",
    "uuid",
    "warnings",
    "weakref",
    "zlib",
    "zoneinfo",
]
_IF_INSTALLED = ("numpy", "numpy.linalg", "numpy.random", "numpy.fft", "numpy.testing")
_LEFT_OUT = frozenset({"antigravity", "idlelib", "lib2to3", "test", "this", "tkinter", "turtle"})
_LEFT_OUT |= {"turtledemo", "site-packages", "__pycache__"}
_SHARED_OBJECTS_LEFT_OUT = ("_test", "_tkinter", "_xx", "xx")
PLACEHOLDERS = frozenset(
    [
        "answer",
        "answers",
        "candidate",
        "candidates",
        "code_solution",
        "impl",
        "implementation",
        "main",
        "my_module",
        "my_solution",
        "program",
        "response",
        "solution",
        "solutions",
        "solver",
        "source_code",
        "submission",
        "task_func",
        "target",
        "your_code",
        "your_file",
        "your_module",
        "your_solution",
    ]
)
"""Names of modules from which tests import the functions of the answer."""


class StoredModules(MetaPathFinder):
    """Finds the modules of the standard library that are kept as bytes."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[str, bytes, bool]] = {}

    def add(self, name: str, path: Path) -> None:
        """Keeps a module: its compiled form if it is there, else its source."""
        compiled = Path(importlib.util.cache_from_source(str(path)))
        is_compiled = compiled.exists()
        self._files[name] = (str(path), (compiled if is_compiled else path).read_bytes(), is_compiled)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of a kept module, or None."""
        if fullname not in self._files:
            return None
        file, data, is_compiled = self._files[fullname]
        loader = StoredCode(fullname, file, data) if is_compiled else StoredSource(fullname, file, data)
        return importlib.util.spec_from_loader(fullname, loader, is_package=file.endswith("__init__.py"))


class StoredCode(importlib.machinery.SourcelessFileLoader):
    """Loads a module from the bytes of its compiled file."""

    def __init__(self, fullname: str, path: str, data: bytes) -> None:
        super().__init__(fullname, path)
        self._data = data

    def get_data(self, path: str) -> bytes:
        """The compiled file."""
        return self._data


class StoredSource(importlib.machinery.SourceFileLoader):
    """Loads a module from its source."""

    def __init__(self, fullname: str, path: str, data: bytes) -> None:
        super().__init__(fullname, path)
        self._data = data

    def path_stats(self, path: str) -> dict[str, float]:
        """Says that no compiled file is to be looked for."""
        raise OSError("a module in memory has no file")

    def get_data(self, path: str) -> bytes:
        """The source."""
        return self._data


STORED = StoredModules()


def load_library(names: list[str]) -> None:
    """Imports or keeps the standard library, numpy where it is installed, and imports the modules `names`.

    Raises:
        ImportError: one of the modules `names` is missing.
    """
    for name in (*_ADVANCE, *names):
        importlib.import_module(name)
    for name in (*_shared_objects(), *_IF_INSTALLED):
        with contextlib.suppress(ImportError), warnings.catch_warnings(action="ignore"):
            importlib.import_module(name)
    if STORED not in sys.meta_path:
        sys.meta_path.append(STORED)
    for name, path in _sources():
        if name not in STORED and name not in sys.modules:
            STORED.add(name, path)
    time.localtime()  # reads the file of the time zone while files may be read


def close_imports() -> None:
    """From now on, this process imports what has been loaded or kept, and nothing else."""
    sys.path.clear()
    sys.path_importer_cache.clear()
    sys.meta_path[:] = [importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter, STORED]


def is_importable(name: str) -> bool:
    """Whether an import of this module succeeds where files are closed; `load_library` has been called."""
    return (
        name in sys.modules or name in STORED or name in sys.builtin_module_names or name.partition(".")[0] == "pytest"
    )


def _shared_objects() -> Iterator[str]:
    folder = Path(sysconfig.get_path("stdlib")) / "lib-dynload"
    for file in sorted(folder.glob("*.so")) if folder.is_dir() else []:
        if not file.name.startswith(_SHARED_OBJECTS_LEFT_OUT):
            yield file.name.partition(".")[0]


def _sources() -> Iterator[tuple[str, Path]]:
    """The modules of the standard library that are source, with the names by which they are imported."""
    root = Path(sysconfig.get_path("stdlib"))
    for file in root.glob("*.py"):
        if file.stem not in _LEFT_OUT:
            yield file.stem, file
    for folder in root.iterdir():
        if folder.name not in _LEFT_OUT and (folder / "__init__.py").exists():
            for file in folder.rglob("*.py"):
                parts = file.relative_to(root).with_suffix("").parts
                if not _LEFT_OUT & set(parts) and "tests" not in parts:
                    yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file
