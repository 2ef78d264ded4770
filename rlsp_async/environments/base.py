"""What an environment is: it says something, is answered, and says something again, until it ends.

An environment is one file. It offers `VERSION` and `make(options) -> Environment`; `task.environment.name` names it: a
module of this folder, a dotted module, or a file that ends with `.py`.

    class Echo:
        tools = ()

        def reset(self, prompt, seed):
            return Observation(text="say something twice")

        def step(self, text):
            said, _, again = text.partition(" ")
            return End(parts={"correct": float(said == again)}) if again else Observation(text="say it again")

One object lives for one rollout, in a confined process of its own that may be killed. It is not asynchronous. What it
raises, a step that takes too long and the death of its process are failures of a machine: the rollout is void.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from rlsp_async.config import EnvironmentConfig
from rlsp_async.errors import ConfigError
from rlsp_async.messages import Prompt
from rlsp_async.plugins import PluginFamily

ENVIRONMENTS = PluginFamily(
    noun="environment",
    package="rlsp_async.environments",
    setting="task.environment.name",
    options="task.environment.options",
    needs=("VERSION", "make"),
    files=True,
    advice='an environment offers VERSION = "1" and make(options)',
)


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """What an environment says to the policy. An empty text lets the policy go on."""

    text: str


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a rollout."""

    parts: dict[str, float] = {}
    """Named parts of the reward: a claim, which the run's verifier turns into a verdict or leaves out."""
    detail: str = ""
    """For people: why it ended."""


class Environment(Protocol):
    """One rollout of an environment."""

    tools: Sequence[Mapping[str, Any]]
    """JSON schemas of the tools that the policy may call; empty: none, or none that are described so."""

    def reset(self, prompt: Prompt, seed: int) -> Observation:
        """Begins a rollout.

        Args:
            prompt: what the policy was asked, with its reference answer.
            seed: the same for the same rollout of a run; all randomness comes from it.

        Returns:
            What the environment says before the first turn; an empty text: nothing.
        """
        ...

    def step(self, text: str) -> Observation | End:
        """Answers a turn.

        Args:
            text: what the policy said in this turn, without the end-of-sequence token.

        Returns:
            What the environment says, or the end.
        """
        ...


class LoadedEnvironment(NamedTuple):
    """The environment of a run."""

    name: str
    """With its version: "calculator/1"."""
    module: Any
    options: dict[str, Any]
    reads_files: bool
    """False (`READS_FILES` of the module): it opens no file once it is loaded, and the sandbox forbids it."""

    def make(self) -> Environment:
        """An object for one rollout."""
        made: Environment = self.module.make(self.options)
        return made


def load_environment(cfg: EnvironmentConfig) -> LoadedEnvironment:
    """Loads the environment that a run names.

    Args:
        cfg: `task.environment` of the run.

    Raises:
        ConfigError: there is no such environment, or it does not take these options.
    """
    module = ENVIRONMENTS.find(cfg.name)
    short = Path(cfg.name).stem if cfg.name.endswith(".py") else cfg.name.rpartition(".")[2]
    loaded = LoadedEnvironment(
        name=f"{short}/{module.VERSION}",
        module=module,
        options=dict(cfg.options),
        reads_files=getattr(module, "READS_FILES", True),
    )
    try:
        made = loaded.make()
    except (TypeError, ValueError) as e:
        raise ConfigError(f"task.environment.options: environment {cfg.name!r} does not take them: {e}") from None
    missing = [name for name in ("tools", "reset", "step") if not hasattr(made, name)]
    if missing:
        raise ConfigError(f"task.environment.name: what {cfg.name!r} makes offers no {', '.join(missing)}")
    return loaded
