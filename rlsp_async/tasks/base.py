"""What a task is: prompts with reference answers and, if the task has them, demonstrations.

A task is a module that offers `Config` (a `rlsp_async.config.Section`) and `load(cfg, seed) -> Task`. The setting
`task.name = "ops"` means `rlsp_async.tasks.ops`; a name with a dot is a module of the user's own.

    task = load_task(cfg.task, cfg.seed)
    task.prompt("train", 17)        # Prompt(prompt_id="ops/train/17", text="1 1 3 4 -> 7 <think>", answer="7")

A task is a pure function of (seed, split, index): prompts are computed whenever they are needed and never stored.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

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
    aliases={"jsonl": "dataset", "hf": "dataset", "parquet": "dataset"},
)


class Task(Protocol):
    """Prompts by split and index.

    Example: `task.size("test") == 1319` and `task.prompt("test", 0).answer == "18"`.
    """

    name: str
    """The first part of every prompt id."""
    verifier: str
    """Name of the verifier that judges this task's answers, unless the run names another one."""

    def size(self, split: Split) -> int | None:
        """Number of distinct prompts in a split, or None when the split is endless."""
        ...

    def prompt(self, split: Split, index: int) -> Prompt:
        """The prompt at a position of a split.

        Args:
            split: "train" or "test".
            index: position in the split, from 0.

        Raises:
            DataError: the split is shorter.
        """
        ...

    def demonstration(self, index: int) -> tuple[Prompt, str]:
        """A training prompt and a response to imitate.

        Args:
            index: number of the demonstration, from 0.

        Returns:
            The prompt and the text of the response.

        Raises:
            DataError: the task has no demonstrations (`no_demonstration`).
        """
        ...

    def tokenizer(self) -> PreTrainedTokenizerFast | None:
        """The tokenizer for a model that is built from nothing, or None when the task needs a model with its own."""
        ...


class Said(NamedTuple):
    """One text of a demonstration with several turns."""

    who: Literal["model", "environment"]
    text: str


class Conversing(Protocol):
    """What a task offers in addition when its demonstrations have several turns, for runs with an environment."""

    def conversation(self, index: int) -> tuple[Prompt, list[Said]]:
        """A training prompt, and what is said in turn; the last text is the model's.

        Args:
            index: number of the demonstration, from 0.

        Returns:
            The prompt and the texts. Those of the model are imitated.
        """
        ...


class Verification(Protocol):
    """What a task offers in addition when the model can be asked to verify its own responses (`stages.NAME.spawn`)."""

    verified_by: str
    """The verifier that judges the answers to such prompts; a run with another verifier is refused."""

    def verification(self, prompt: Prompt, response: str, verdict: Verdict) -> Prompt | None:
        """A prompt that shows a problem with a response and asks whether the response is right. A pure function.

        Args:
            prompt: the problem.
            response: the text of a rollout for that problem.
            verdict: the verifier's verdict on the response.

        Returns:
            The prompt, whose reference answer states the verdict in the words that the prompt asks for; None when
            this response cannot be verified.
        """
        ...


def demonstrated(task: Task, index: int, has_environment: bool) -> tuple[Prompt, list[Said]]:
    """The demonstration of a run: with its turns where there is an environment and the task has such demonstrations.

    Args:
        task: the task.
        index: number of the demonstration, from 0.
        has_environment: whether the run has one.
    """
    conversation = getattr(task, "conversation", None)
    if has_environment and conversation is not None:
        prompt, said = conversation(index)
        return prompt, list(said)
    prompt, text = task.demonstration(index)
    return prompt, [Said("model", text)]


def load_task(section: config.TaskConfig, seed: int) -> Task:
    """The task that a run names.

    Args:
        section: the settings under [task].
        seed: the run's seed.

    Returns:
        The loaded task. A module that serves several names (an alias in `TASKS`) receives the name that the run used,
        as a third argument of its `load`.

    Raises:
        ConfigError: unknown task or wrong option.
        DataError: a file of the task cannot be used.
    """
    module = TASKS.find(section.name)
    options = TASKS.decode_options(section.name, module, section.options)
    alias = [section.name] if section.name in TASKS.aliases else []
    task: Task = module.load(options, seed, *alias)
    return task


def no_demonstration(name: str) -> DataError:
    """The error that a task without demonstrations raises.

    Args:
        name: the task's name.

    Returns:
        The error, for the caller to raise.
    """
    return DataError(f'task {name!r} has no demonstrations: take source = "demonstrations" out of the stages')


def is_heldout(text: str, share: float) -> bool:
    """Whether a prompt belongs to the test split: its md5, as a fraction of 1, lies below `share`.

    Args:
        text: the prompt, or whatever identifies it.
        share: fraction of all prompts that is held out, 0..1.

    Returns:
        True for the test split. The answer depends on the arguments alone.
    """
    digest = hashlib.md5(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
