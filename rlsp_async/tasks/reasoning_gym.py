"""Any of the 100 generated tasks of reasoning-gym by name; needs it: pip install 'rlsp_async[reasoning-gym]'.

    [task]
    name = "reasoning_gym"
    options = { dataset = "chain_sum", size = 2000, params = { min_terms = 2, max_terms = 4 } }

Item i of a data set depends on `seed` and i alone, so prompts are made when they are asked for. The first `test_size`
items are held out; a training item whose question equals one of theirs is replaced by the next that does not. The
reference is the whole item as JSON, for the task's own scorer (verifier `reasoning_gym`).

A few generators are slow, seconds an item: knight_swap, intermediate_integration, puzzle24, polynomial_equations.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import io
import json
from typing import TYPE_CHECKING, Any

from rlsp_async.config import Section
from rlsp_async.errors import ConfigError, DataError, MachineError
from rlsp_async.messages import Prompt
from rlsp_async.tasks.base import Split, no_demonstration
from rlsp_async.tasks.overlap import words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

EXAMPLE = ("State the final answer to the following arithmetic problem: 6 + 35 =", "41, as JSON with all of the item")
TEMPLATE = "{prompt}\nWrite the final answer between <answer> and </answer>."
MAX_REPLACED = 200
"""Training items that may be passed over for one prompt."""


class Config(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which of its tasks, how many items, and how they are put to the model."""

    dataset: str
    """Its name, e.g. "chain_sum"."""
    size: int = 2000
    """Training items."""
    test_size: int = 200
    """Held-out items; all are made before the first training prompt."""
    seed: int = 0
    """Of the generator. The run's own seed decides only the order, so that runs can be compared."""
    params: dict[str, Any] = {}
    """Settings of that task, e.g. { max_terms = 4 }."""
    chat: bool = True
    """Put the prompt through the tokenizer's chat template, as a user message."""
    system: str = ""
    """System message; needs chat."""
    template: str = TEMPLATE
    """`{prompt}` is replaced by the question; everything else stands as it is."""

    def __post_init__(self) -> None:
        if "{prompt}" not in self.template:
            raise ValueError("template must contain {prompt}")
        if self.system and not self.chat:
            raise ValueError("system needs chat = true: without a chat template there is no place for it")
        if self.size < 1 or self.test_size < 1:
            raise ValueError("size and test_size must be at least 1")


class Gym:
    """The task."""

    name = "reasoning_gym"
    verifier = "reasoning_gym"

    def __init__(self, cfg: Config) -> None:
        self._cfg = cfg
        self._items = make_dataset(cfg.dataset, cfg.params, cfg.seed, cfg.size + cfg.test_size)
        self._heldout: frozenset[str] | None = None
        self._item = functools.lru_cache(maxsize=1024)(self._make)

    def size(self, split: Split) -> int | None:
        """As many as the options say."""
        return self._cfg.size if split == "train" else self._cfg.test_size

    def prompt(self, split: Split, index: int) -> Prompt:
        """Item `index` of a split. Raises DataError beyond its end."""
        num = self._cfg.size if split == "train" else self._cfg.test_size
        if not 0 <= index < num:
            raise DataError(f"reasoning_gym: {split} prompt {index} asked for, there are {num}")
        place = self._training_place(index) if split == "train" else index
        item, cfg = self._item(place), self._cfg
        return Prompt(
            prompt_id=f"reasoning_gym/{cfg.dataset}/{split}/{index}",
            task=self.name,
            index=index,
            text=cfg.template.replace("{prompt}", item["question"]),
            chat=cfg.chat,
            system=cfg.system,
            answer=answer_text(cfg.dataset, cfg.params, item),
            source=f"{cfg.dataset} {cfg.seed}:{place}",
        )

    def demonstration(self, index: int) -> tuple[Prompt, str]:
        """There is none."""
        raise no_demonstration(f"reasoning_gym/{self._cfg.dataset}")

    def tokenizer(self) -> PreTrainedTokenizerFast | None:
        """None: free text needs a model that brings its tokenizer."""
        return None

    def _training_place(self, index: int) -> int:
        """The item for a training prompt: its own, or the next whose question is not held out."""
        if self._heldout is None:
            self._heldout = frozenset(self._same(place) for place in range(self._cfg.test_size))
        for further in range(min(MAX_REPLACED, self._cfg.size)):
            place = self._cfg.test_size + (index + further) % self._cfg.size
            if self._same(place) not in self._heldout:
                return place
        raise DataError(
            f"reasoning_gym: nearly all training items of {self._cfg.dataset!r} stand in the test split, "
            "too; lower test_size, or widen its params"
        )

    def _same(self, place: int) -> str:
        return " ".join(words(self._item(place)["question"]))

    def _make(self, place: int) -> dict[str, Any]:
        with contextlib.redirect_stdout(io.StringIO()):  # one of them prints while it works
            item: dict[str, Any] = self._items[place]
        return item


def load(cfg: Config, seed: int) -> Gym:
    """The task. Raises MachineError without reasoning-gym, ConfigError for a name or params that it refuses."""
    return Gym(cfg)


def make_dataset(name: str, params: dict[str, Any], seed: int, size: int) -> Any:
    """A data set of reasoning-gym. Raises MachineError or ConfigError."""
    factory = import_gym()
    known = sorted(set(factory.DATASETS) - {"composite"})
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
        raise ConfigError(f"task.options.dataset: reasoning-gym has no task {name!r}; {hint}")
    try:
        return factory.create_dataset(name, **{**params, "seed": seed, "size": size})
    except (TypeError, ValueError, AssertionError) as e:
        raise ConfigError(
            f"task.options.params: reasoning-gym refuses them for {name!r}: {' '.join(str(e).split())[:200]}"
        ) from None


def import_gym() -> Any:
    """reasoning_gym.factory. Raises MachineError with the command that installs it."""
    try:
        import reasoning_gym  # registers all of them
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
    """An item as the text that `answer_item` reads. Tuples stay tuples: some scorers compare them."""
    body = {"dataset": name, "params": params, "answer": item["answer"], "metadata": _written(item["metadata"])}
    return json.dumps(body, separators=(",", ":"))


def answer_item(answer: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """(data set, params, item without its question). Raises DataError for text that is none."""
    try:
        body = json.loads(answer)
        item = {"question": "", "answer": body["answer"], "metadata": _read(body["metadata"])}
        return str(body["dataset"]), dict(body["params"]), item
    except (ValueError, KeyError, TypeError):
        raise DataError(f"reference answer {answer[:80]!r} is no item of reasoning-gym as JSON") from None


def _written(value: Any) -> Any:
    """JSON has neither tuples nor sets nor keys that are no text: they become {"()": [...]} and so on."""
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: _written(inner) for key, inner in value.items()}
        return {"{:}": [[_written(key), _written(inner)] for key, inner in value.items()]}
    if isinstance(value, tuple):
        return {"()": [_written(inner) for inner in value]}
    if isinstance(value, set | frozenset):
        return {"{}": [_written(inner) for inner in sorted(value, key=repr)]}
    if isinstance(value, list):
        return [_written(inner) for inner in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return value.item() if hasattr(value, "item") else str(value)  # numbers of numpy; what is left is for people


def _read(value: Any) -> Any:
    if isinstance(value, list):
        return [_read(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    match list(value.items()):
        case [("()", list(inner))]:
            return tuple(_read(one) for one in inner)
        case [("{}", list(inner))]:
            return {_read(one) for one in inner}
        case [("{:}", list(inner))]:
            return {_read(key): _read(one) for key, one in inner}
    return {key: _read(inner) for key, inner in value.items()}
