"""What a task is: prompts with reference answers, and (if it has them) demonstrations.

A task is a module that offers `Config` (a `rlsp_async.config.Section`) and `load(cfg, seed) -> Task`. The run names it:
`task.name = "ops"` is `rlsp_async.tasks.ops`; a name with a dot is a module of your own.

    task = load_task(cfg.task, cfg.seed)
    task.prompt("train", 17)        # Prompt(prompt_id="ops/train/17", text="1 1 3 4 -> 7 <think>", answer="7")

Everything is a pure function of (seed, split, index): a prompt is made again, never stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from rlsp_async import config
from rlsp_async.errors import DataError
from rlsp_async.messages import Prompt, Verdict
from rlsp_async.plugins import PluginFamily

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Split = Literal["train", "test"]

TASKS = PluginFamily(
    noun="task",
    package="rlsp_async.tasks",
    setting="task.name",
    options="task.options",
    needs=("Config", "load"),
    aliases={"jsonl": "dataset"},
)


class Task(Protocol):
    """Prompts by index. Example: `task.size("test") == 1319`, `task.prompt("test", 0).answer == "18"`."""

    name: str
    verifier: str
    """The module of rlsp_async.verifying that reads this task's answers, unless the run names another."""

    def size(self, split: Split) -> int | None:
        """Distinct prompts of a split; None: endless."""
        ...

    def prompt(self, split: Split, index: int) -> Prompt:
        """The prompt at `index`. Raises DataError when the split is shorter."""
        ...

    def demonstration(self, index: int) -> tuple[Prompt, str]:
        """A training prompt and a response to imitate. Raises DataError when the task has none."""
        ...

    def tokenizer(self) -> PreTrainedTokenizerFast | None:
        """The tokenizer of a model built from nothing; None: the task needs a model that brings its own."""
        ...


class Verification(Protocol):
    """What a task offers besides when the model can be asked to verify its responses (`stages.NAME.spawn`)."""

    verified_by: str
    """The verifier that reads the answers to such prompts; a run with another one is refused."""

    def verification(self, prompt: Prompt, response: str, verdict: Verdict) -> Prompt | None:
        """The prompt that shows problem and response; its answer is what the verdict says, in the words that are asked
        for. None: this response is not put. A pure function."""
        ...


def load_task(section: config.TaskConfig, seed: int) -> Task:
    """The task that a run names. Raises ConfigError (unknown task, wrong option) or DataError (unusable file)."""
    module = TASKS.find(section.name)
    task: Task = module.load(TASKS.decode_options(section.name, module, section.options), seed)
    return task


def no_demonstration(name: str) -> DataError:
    """The error of a task that has no demonstrations."""
    return DataError(f'task {name!r} has no demonstrations: take source = "demonstrations" out of the stages')
