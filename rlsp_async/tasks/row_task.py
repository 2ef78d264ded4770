"""A task over rows in memory, which every loader of a data set returns.

    RowTask("gsm8k", PromptFormat(template="{prompt}"), {"train": [...], "test": [...]}).prompt("test", 0)

Training rows that equal a test row are removed when the task is made; `overlap()` says which.

`verification_prompt` asks the model to rate one response to a problem in free text (RISE, arXiv:2505.13445, section 3,
in our own words). The model applies the rules by which its own responses were rated: 1 for a right final answer, -0.5
for a wrong one, -1 for none. The paper's rules speak of an answer in a box; the verifier `math` also finds answers
outside of boxes, so the rules here say "final answer". Ratings are compared as numbers: "1.0" is 1.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import msgspec

from rlsp_async.config import Section
from rlsp_async.errors import DataError
from rlsp_async.messages import ChatMessage, Prompt, Verdict
from rlsp_async.tasks.base import Split, no_demonstration
from rlsp_async.tasks.overlap import (
    EXAMPLES,
    ComparedRow,
    Overlap,
    RepeatedRow,
    count_repeats,
    find_near_repeats,
    find_repeats,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Deduplicate = Literal["off", "exact", "near"]
VERIFIED_BY = "math"
RATINGS = {"correct": "1", "wrong": "-0.5", "unparsable": "-1"}
"""Status of a verdict -> the rating that is right."""
VERIFICATION_TEMPLATE = """\
Here are a problem and a response to it. Rate the response.

Problem:
{fence}
{problem}
{fence}

Response:
{fence}
{response}
{fence}

The rating follows three rules:
1. No final answer can be found in the response: the rating is -1.
2. It gives a final answer, and that answer is wrong: the rating is -0.5.
3. It gives a final answer, and that answer is right: the rating is 1.

First check the response in a few sentences, working out for yourself what you doubt. Then put the rating, and nothing \
else, in \\boxed{}."""
_FIELDS = re.compile(r"\{(fence|problem|response)\}")
_TICKS = re.compile(r"`{3,}")


class Item(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row of a data set."""

    prompt: str
    answer: str
    """The reference answer."""
    response: str = ""
    """A response to imitate; empty: none."""
    source: str
    """Where the row is, e.g. "train.jsonl:17"."""
    content: str = ""
    """The text by which rows are compared, where that is not the prompt."""
    system: str = ""
    """System message of the row; it takes the place of the task's."""
    earlier: list[ChatMessage] = []
    """Messages of the conversation before `prompt`."""


class PromptFormat(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How rows are put to the model, and which verifier judges the answers."""

    template: str = "{prompt}"
    chat: bool = True
    system: str = ""
    verifier: str = "math"

    def __post_init__(self) -> None:
        if "{prompt}" not in self.template:
            raise ValueError("template must contain {prompt}")
        if self.system and not self.chat:
            raise ValueError("system needs chat = true: without a chat template there is no place for it")


class RowTask:
    """A task whose prompts are rows. The constructor raises DataError when every training row equals a test row."""

    verified_by = VERIFIED_BY

    def __init__(
        self, name: str, form: PromptFormat, splits: dict[Split, list[Item]], *, deduplicate: Deduplicate = "exact"
    ) -> None:
        self.name = name
        self.verifier = form.verifier
        self._form = form
        self._near_removed = deduplicate == "near"
        self._removed: list[RepeatedRow] = []
        self._near: list[RepeatedRow] | None = None
        self._splits = dict(splits)
        if deduplicate != "off":
            self._remove_repeats()
        self._demonstrated = [index for index, item in enumerate(self._splits["train"]) if item.response]

    def size(self, split: Split) -> int | None:
        """Number of rows in a split."""
        return len(self._splits[split])

    def prompt(self, split: Split, index: int) -> Prompt:
        """Row `index` of a split. Raises DataError beyond its end."""
        form, item = self._form, self._item(split, index)
        return Prompt(
            prompt_id=f"{self.name}/{split}/{index}",
            task=self.name,
            answer=item.answer,
            index=index,
            text=form.template.replace("{prompt}", item.prompt),
            chat=form.chat,
            system=item.system or form.system,
            source=item.source,
            earlier=item.earlier,
        )

    def demonstration(self, index: int) -> tuple[Prompt, str]:
        """Demonstration `index` of the training rows that have a response; after the last the first follows again.

        Raises DataError when no row has a response.
        """
        if not self._demonstrated:
            raise no_demonstration(self.name)
        row = self._demonstrated[index % len(self._demonstrated)]
        return self.prompt("train", row), self._splits["train"][row].response

    def verification(self, prompt: Prompt, response: str, verdict: Verdict) -> Prompt | None:
        """The prompt that asks for a rating of the response; see `verification_prompt`."""
        return verification_prompt(prompt, response, verdict)

    def tokenizer(self) -> PreTrainedTokenizerFast | None:
        """None: free text needs a model that brings its tokenizer."""
        return None

    def overlap(self) -> Overlap:
        """What the splits share, and what was removed. The search for near repeats takes a second for 10,000 rows."""
        train, test = self._compared("train"), self._compared("test")
        if self._near is None:
            self._near = find_near_repeats(train, test)[1]
        return Overlap(
            train=len(train),
            test=len(test),
            removed=len(self._removed),
            removed_pairs=self._removed[:EXAMPLES],
            near=len(self._near),
            near_pairs=self._near[:EXAMPLES],
            near_removed=self._near_removed,
            repeated_train=count_repeats(train),
            repeated_test=count_repeats(test),
        )

    def _remove_repeats(self) -> None:
        before = len(self._splits["train"])
        kept, self._removed = find_repeats(self._compared("train"), self._compared("test"))
        self._keep(kept)
        if self._near_removed:
            kept, self._near = find_near_repeats(self._compared("train"), self._compared("test"))
            self._keep(kept)
        if before and not self._splits["train"]:
            raise DataError(
                f"{self.name}: each of the {before} training rows stands in the test split, too; name "
                'other rows for one of them, or set deduplicate = "off"'
            )

    def _keep(self, indices: list[int]) -> None:
        rows = self._splits["train"]
        self._splits["train"] = [rows[index] for index in indices]

    def _compared(self, split: Split) -> list[ComparedRow]:
        return [ComparedRow(text=item.content or item.prompt, source=item.source) for item in self._splits[split]]

    def _item(self, split: Split, index: int) -> Item:
        items = self._splits[split]
        if not 0 <= index < len(items):
            hint = "; it is for evaluation only" if not items and split == "train" else ""
            raise DataError(f"{self.name}: {split} prompt {index} asked for, there are {len(items)}{hint}")
        return items[index]


def verification_prompt(prompt: Prompt, response: str, verdict: Verdict) -> Prompt | None:
    """A problem and one response as a prompt that asks for a rating, in the chat form of the problem.

    The response stands between fences that are longer than any in it, and nothing is ever cut. None for a verdict that
    says nothing about the answer (timeout, error).
    """
    rating = RATINGS.get(verdict.status)
    if rating is None:
        return None
    texts = {"fence": fence_for(prompt.text, response), "problem": prompt.text, "response": response}
    text = _FIELDS.sub(lambda match: texts[match[1]], VERIFICATION_TEMPLATE)
    return msgspec.structs.replace(prompt, text=text, answer=rating)


def fence_for(*texts: str) -> str:
    """Three backticks, or one more than the longest run of backticks in the texts."""
    return "`" * max((len(run) + 1 for text in texts for run in _TICKS.findall(text)), default=3)
