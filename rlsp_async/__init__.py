"""Fully asynchronous, off-policy reinforcement-learning post-training of reasoning models.

    import rlsp_async as rl

    run = rl.run("launch/configs/ops_cpu.toml", ["seed=3"])     # train; see also rl.load_config, rl.open_run
    run.report(), run.metrics(), run.rollouts(), run.model_directory
    rl.grade([{"gold": "4", "response": "it is 4"}])            # verdicts on answers
    rl.algos.grpo.advantages(rl.algos.grpo.Config(), batch)     # the algorithms, pure functions on tensors

Importing the package loads neither torch, vllm nor zmq: each name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlsp_async import algos as algos
    from rlsp_async import errors as errors
    from rlsp_async.api import Run as Run
    from rlsp_async.api import grade as grade
    from rlsp_async.api import load_config as load_config
    from rlsp_async.api import open_run as open_run
    from rlsp_async.api import run as run
    from rlsp_async.config import RunConfig as RunConfig
    from rlsp_async.messages import Verdict as Verdict
    from rlsp_async.report.results import Report as Report

__version__ = "0.1.0"
__all__ = [
    "Report",
    "Run",
    "RunConfig",
    "Verdict",
    "__version__",
    "algos",
    "errors",
    "grade",
    "load_config",
    "open_run",
    "run",
]

_MODULES = ("algos", "errors")
_HOMES = {
    "Report": "rlsp_async.report.results",
    "Run": "rlsp_async.api",
    "RunConfig": "rlsp_async.config",
    "Verdict": "rlsp_async.messages",
    "grade": "rlsp_async.api",
    "load_config": "rlsp_async.api",
    "open_run": "rlsp_async.api",
    "run": "rlsp_async.api",
}
"""Name -> the module that defines it."""


if not TYPE_CHECKING:  # a type checker sees the imports above, and refuses other names

    def __getattr__(name: str) -> Any:
        """Imports a public name when it is first used (PEP 562)."""
        if name in _MODULES:
            return importlib.import_module(f"rlsp_async.{name}")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
