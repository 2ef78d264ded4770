"""Any of the 100 generated tasks of reasoning-gym, by name; needs pip install 'rlsp_async[reasoning-gym]'.

    [task]
    name = "reasoning_gym"
    options = { dataset = "chain_sum", size = 2000, params = { min_terms = 2, max_terms = 4 } }

Item i of a data set depends on `seed` and i alone, so each prompt is generated when it is needed. The first `test_size`
items are held out; a training item with the same question as one of them is replaced by the next item with another
question. The reference answer is the whole item as JSON, for the task's own scorer (verifier `reasoning_gym`).

A few generators take seconds for each item: knight_swap, intermediate_integration, puzzle24, polynomial_equations.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
from typing import TYPE_CHECKING, Annotated, Any

from rlsp_async.config import Section
from rlsp_async.config.ranges import FieldName, FreeText, Range
from rlsp_async.errors import ConfigError, DataError, MachineError
from rlsp_async.messages import Prompt
from rlsp_async.plugins import nearest_name
from rlsp_async.tasks.base import Split, no_demonstration
from rlsp_async.tasks.overlap import comparison_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

EXAMPLE = ("State the final answer to the following arithmetic problem: 6 + 35 =", "41, as JSON with all of the item")
TEMPLATE = "{prompt}\nWrite the final answer between <answer> and </answer>."
MAX_REPLACED = 200
"""Largest number of items that are skipped to find one training prompt."""


class ReasoningGymConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which task of reasoning-gym, how many items, and how they are put to the model."""

    dataset: FieldName
    """Name of the task, e.g. "chain_sum"."""
    size: Annotated[int, Range(ge=1, le=10**8)] = 2000
    """Number of training items."""
    test_size: Annotated[int, Range(ge=1, le=10**7)] = 200
    """Number of held-out items; all are generated before the first training prompt."""
    seed: Annotated[int, Range(ge=0, lt=2**63)] = 0
    """Seed of the generator. The run's own seed decides only the order, so that runs can be compared."""
    params: dict[str, Any] = {}
    """Settings of the task, e.g. { max_terms = 4 }."""
    chat: bool = True
    """Put the prompt through the tokenizer's chat template, as a user message."""
    system: FreeText = ""
    """System message; needs chat."""
    template: FreeText = TEMPLATE
    """`{prompt}` is replaced by the question; all other text stays as it is."""

    def __post_init__(self) -> None:
        if "{prompt}" not in self.template:
            raise ValueError("template must contain {prompt}")
        if self.system and not self.chat:
            raise ValueError("system needs chat = true: without a chat template there is no place for it")


Config = ReasoningGymConfig


class ReasoningGym:
    """The task."""

    name = "reasoning_gym"
    verifier = "reasoning_gym"

    def __init__(self, cfg: ReasoningGymConfig) -> None:
        self._cfg = cfg
        self._items = make_dataset(cfg.dataset, cfg.params, cfg.seed, cfg.size + cfg.test_size)
        self._heldout: frozenset[str] | None = None
        self._item = functools.lru_cache(maxsize=1024)(self._generate)

    def size(self, split: Split) -> int | None:
        """Number of items in a split, as the options say."""
        return self._cfg.size if split == "train" else self._cfg.test_size

    def prompt(self, split: Split, index: int) -> Prompt:
        """Item `index` of a split. Raises DataError beyond its end."""
        num = self._cfg.size if split == "train" else self._cfg.test_size
        if not 0 <= index < num:
            raise DataError(f"reasoning_gym: {split} prompt {index} asked for, there are {num}")
        number = self._training_number(index) if split == "train" else index
        item, cfg = self._item(number), self._cfg
        return Prompt(
            prompt_id=f"reasoning_gym/{cfg.dataset}/{split}/{index}",
            task=self.name,
            index=index,
            text=cfg.template.replace("{prompt}", item["question"]),
            chat=cfg.chat,
            system=cfg.system,
            answer=answer_text(cfg.dataset, cfg.params, item),
            source=f"{cfg.dataset} {cfg.seed}:{number}",
        )

    def demonstration(self, index: int) -> tuple[Prompt, str]:
        """Raises DataError: reasoning-gym has no solutions to imitate."""
        raise no_demonstration(f"reasoning_gym/{self._cfg.dataset}")

    def tokenizer(self) -> PreTrainedTokenizerFast | None:
        """None: free text needs a model that brings its tokenizer."""
        return None

    def _training_number(self, index: int) -> int:
        """The number of the item for a training prompt: its own, or the next one whose question is not held out."""
        if self._heldout is None:
            self._heldout = frozenset(self._question(number) for number in range(self._cfg.test_size))
        for skipped in range(min(MAX_REPLACED, self._cfg.size)):
            number = self._cfg.test_size + (index + skipped) % self._cfg.size
            if self._question(number) not in self._heldout:
                return number
        raise DataError(
            f"reasoning_gym: nearly all training items of {self._cfg.dataset!r} stand in the test split, "
            "too; lower test_size, or widen its params"
        )

    def _question(self, number: int) -> str:
        """The words by which the item's question is compared."""
        return " ".join(comparison_words(self._item(number)["question"]))

    def _generate(self, number: int) -> dict[str, Any]:
        with contextlib.redirect_stdout(io.StringIO()):  # one of the generators prints
            item: dict[str, Any] = self._items[number]
        return item


def load(cfg: ReasoningGymConfig, seed: int) -> ReasoningGym:
    """The task. Raises MachineError without reasoning-gym, ConfigError for a name or params that it refuses."""
    return ReasoningGym(cfg)


def make_dataset(name: str, params: dict[str, Any], seed: int, size: int) -> Any:
    """A data set of reasoning-gym. Raises MachineError or ConfigError."""
    factory = import_gym()
    known = sorted(set(factory.DATASETS) - {"composite"})
    if name not in known:
        raise ConfigError(f"task.options.dataset: reasoning-gym has no task {name!r}; {nearest_name(name, known)}")
    try:
        return factory.create_dataset(name, **{**params, "seed": seed, "size": size})
    except (TypeError, ValueError, AssertionError) as e:
        raise ConfigError(
            f"task.options.params: reasoning-gym refuses them for {name!r}: {' '.join(str(e).split())[:200]}"
        ) from None


def import_gym() -> Any:
    """The module reasoning_gym.factory. Raises MachineError with the command that installs the library."""
    try:
        import reasoning_gym  # registers all of its tasks
        import reasoning_gym.factory
    except ModuleNotFoundError as e:
        if e.name != "reasoning_gym":
            raise
        raise MachineError(
            "task reasoning_gym: the package is not installed; pip install 'rlsp_async[reasoning-gym]'"
        ) from None
    return reasoning_gym.factory


# --- the reference answer ------------------------------------------------------------------------------------------


def answer_text(name: str, params: dict[str, Any], item: dict[str, Any]) -> str:
    """An item as the text that `answer_item` reads. Tuples stay tuples, because some scorers compare them."""
    body = {"dataset": name, "params": params, "answer": item["answer"], "metadata": _to_json(item["metadata"])}
    return json.dumps(body, separators=(",", ":"))


def answer_item(answer: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """(data set, params, item without its question). Raises DataError for other text."""
    try:
        body = json.loads(answer)
        item = {"question": "", "answer": body["answer"], "metadata": _from_json(body["metadata"])}
        return str(body["dataset"]), dict(body["params"]), item
    except (ValueError, KeyError, TypeError):
        raise DataError(f"reference answer {answer[:80]!r} is not an item of reasoning-gym as JSON") from None


def _to_json(value: Any) -> Any:
    """JSON has no tuples, sets or keys other than text; these become {"()": [...]}, {"{}": [...]}, {"{:}": [...]}."""
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: _to_json(inner) for key, inner in value.items()}
        return {"{:}": [[_to_json(key), _to_json(inner)] for key, inner in value.items()]}
    if isinstance(value, tuple):
        return {"()": [_to_json(inner) for inner in value]}
    if isinstance(value, set | frozenset):
        return {"{}": [_to_json(inner) for inner in sorted(value, key=repr)]}
    if isinstance(value, list):
        return [_to_json(inner) for inner in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return value.item() if hasattr(value, "item") else str(value)  # numpy numbers; anything else is only read by people


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    match list(value.items()):
        case [("()", list(inner))]:
            return tuple(_from_json(element) for element in inner)
        case [("{}", list(inner))]:
            return {_from_json(element) for element in inner}
        case [("{:}", list(inner))]:
            return {_from_json(key): _from_json(element) for key, element in inner}
    return {key: _from_json(inner) for key, inner in value.items()}
