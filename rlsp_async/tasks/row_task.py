"""A task over rows in memory: what every loader of a data set makes.

    Rows("gsm8k", Manner(template="{prompt}"), {"train": [...], "test": [...]}).prompt("test", 0)

Training rows that equal a test row are removed here; `overlap()` says which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from rlsp_async.config import Section
from rlsp_async.errors import DataError
from rlsp_async.messages import Prompt, Verdict
from rlsp_async.tasks.base import Split, no_demonstration
from rlsp_async.tasks.overlap import EXAMPLES, Overlap, Pair, Place, near_repeats, num_repeated, remove_repeats
from rlsp_async.tasks.verification import VERIFIED_BY, verification_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Deduplicate = Literal["off", "exact", "near"]


class Item(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row: what is asked, the reference answer, a response to imitate (may be empty), and where it stands."""

    prompt: str
    answer: str
    response: str = ""
    source: str
    content: str = ""
    """What makes two rows the same, where that is not the prompt."""


class Manner(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How rows are put to the model."""

    template: str = "{prompt}"
    chat: bool = True
    system: str = ""
    verifier: str = "math"

    def __post_init__(self) -> None:
        if "{prompt}" not in self.template:
            raise ValueError("template must contain {prompt}")
        if self.system and not self.chat:
            raise ValueError("system needs chat = true: without a chat template there is no place for it")


class Rows:
    """The task. Raises DataError when no training row is left that no test row equals."""

    verified_by = VERIFIED_BY

    def __init__(
        self, name: str, manner: Manner, splits: dict[Split, list[Item]], *, deduplicate: Deduplicate = "exact"
    ) -> None:
        self.name = name
        self.verifier = manner.verifier
        self._manner = manner
        self._near_removed = deduplicate == "near"
        self._removed: list[Pair] = []
        self._near: list[Pair] | None = None
        self._splits = dict(splits)
        if deduplicate != "off":
            self._remove()
        self._shown = [place for place, item in enumerate(self._splits["train"]) if item.response]

    def size(self, split: Split) -> int | None:
        """Rows of a split."""
        return len(self._splits[split])

    def prompt(self, split: Split, index: int) -> Prompt:
        """Row `index` of a split. Raises DataError beyond its end."""
        manner, item = self._manner, self._item(split, index)
        return Prompt(
            prompt_id=f"{self.name}/{split}/{index}",
            task=self.name,
            answer=item.answer,
            index=index,
            text=manner.template.replace("{prompt}", item.prompt),
            chat=manner.chat,
            system=manner.system,
            source=item.source,
        )

    def demonstration(self, index: int) -> tuple[Prompt, str]:
        """Of the training rows with a response number `index`, from the start again after the last.

        Raises DataError when there are none.
        """
        if not self._shown:
            raise no_demonstration(self.name)
        place = self._shown[index % len(self._shown)]
        return self.prompt("train", place), self._splits["train"][place].response

    def verification(self, prompt: Prompt, response: str, verdict: Verdict) -> Prompt | None:
        """Problem and response, to be rated."""
        return verification_prompt(prompt, response, verdict)

    def tokenizer(self) -> PreTrainedTokenizerFast | None:
        """None: free text needs a model that brings its tokenizer."""
        return None

    def overlap(self) -> Overlap:
        """What the splits share, and what was removed for it; looks for near repeats, a second for 10,000 rows."""
        train, test = self._places("train"), self._places("test")
        if self._near is None:
            self._near = near_repeats(train, test)[1]
        return Overlap(
            train=len(train),
            test=len(test),
            removed=len(self._removed),
            removed_pairs=self._removed[:EXAMPLES],
            near=len(self._near),
            near_pairs=self._near[:EXAMPLES],
            near_removed=self._near_removed,
            repeated_train=num_repeated(train),
            repeated_test=num_repeated(test),
        )

    def _remove(self) -> None:
        before = len(self._splits["train"])
        kept, self._removed = remove_repeats(self._places("train"), self._places("test"))
        self._keep(kept)
        if self._near_removed:
            kept, self._near = near_repeats(self._places("train"), self._places("test"))
            self._keep(kept)
        if before and not self._splits["train"]:
            raise DataError(
                f"{self.name}: each of the {before} training rows stands in the test split, too; name "
                'other rows for one of them, or set deduplicate = "off"'
            )

    def _keep(self, indices: list[int]) -> None:
        rows = self._splits["train"]
        self._splits["train"] = [rows[index] for index in indices]

    def _places(self, split: Split) -> list[Place]:
        return [Place(text=item.content or item.prompt, source=item.source) for item in self._splits[split]]

    def _item(self, split: Split, index: int) -> Item:
        items = self._splits[split]
        if not 0 <= index < len(items):
            hint = "; it is for evaluation only" if not items and split == "train" else ""
            raise DataError(f"{self.name}: {split} prompt {index} asked for, there are {len(items)}{hint}")
        return items[index]
