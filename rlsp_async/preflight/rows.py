"""Every row of every split is measured before a run: prompts, held-out prompts, demonstrations.

    found = measure_rows(cfg, task, tokenizer)     # tokenises each row once; DataError with task.too_long = "refuse"
    found.changes                                  # what the run leaves out or cuts (tasks/fitted.py)

A prompt needs `sampling.max_new_tokens` beside it in the model's window; a demonstration needs its own response. Of an
endless split the first SAMPLE prompts are measured; what follows them is dropped by the samplers, with a reason, when
it is too long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from rlsp_async.config import RunConfig
from rlsp_async.contents import check_prompt
from rlsp_async.errors import DataError
from rlsp_async.messages import Prompt
from rlsp_async.model import context_tokens
from rlsp_async.tasks.base import Split, Task, demonstrated
from rlsp_async.tasks.fitted import RowChanges
from rlsp_async.tokens import check_template_options, encode_demonstration, encode_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAMPLE = 1000
"""Prompts of an endless split that are measured."""
PROGRESS_ROWS = 5000
"""Rows between two lines of progress; they take a few seconds."""
LEAST_CUT = 16
"""Prompt tokens below which cutting makes no sense: such a row is dropped."""
_SPLITS: tuple[Split, ...] = ("train", "test")


class Measured(NamedTuple):
    """What the rows are like, in tokens, and what becomes of those that are too long."""

    longest: int
    """The longest prompt of those that stay."""
    longest_sequence: int
    """The longest prompt and its response: of rollouts at most, of demonstrations exactly."""
    expected: int
    """Bound for all prompts that may be sampled: twice the longest where a split is endless."""
    sentences: list[str]
    """What was measured, dropped and cut, for people."""
    changes: RowChanges


class _TooLong(NamedTuple):
    """One row that does not fit."""

    row: int
    sentence: str


def measure_rows(
    cfg: RunConfig,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    say: Callable[[str], None] = lambda text: None,
) -> Measured:
    """Tokenises every row of both splits and, where a stage trains on them, every demonstration.

    Args:
        cfg: the settings; `task.too_long` says what becomes of rows that do not fit.
        task: the task as it is, nothing left out.
        tokenizer: the tokenizer of the run's model.
        say: shows a line of progress for each few thousand rows.

    Raises:
        ConfigError: the chat template does not know an option.
        DataError: a row does not fit and `task.too_long` is "refuse", or no row would be left.
    """
    check_template_options(tokenizer, cfg.task.template_options)
    return _Measuring(cfg, task, tokenizer, say).run()


class _Measuring:
    def __init__(
        self, cfg: RunConfig, task: Task, tokenizer: PreTrainedTokenizerBase, say: Callable[[str], None]
    ) -> None:
        self._cfg, self._task, self._tokenizer, self._say = cfg, task, tokenizer, say
        self._window, self._room = context_tokens(cfg), cfg.sampling.max_new_tokens
        self._longest = self._longest_sequence = 0
        self._sentences: list[str] = []
        self._dropped: dict[str, list[int]] = {}
        self._cut: dict[str, dict[int, int]] = {}

    def run(self) -> Measured:
        """Both splits, then the demonstrations."""
        sources = {stage.source for stage in self._cfg.stages.values()}
        for split in _SPLITS:
            if self._cfg.evaluation.is_on if split == "test" else "rollouts" in sources:
                self._measure_prompts(split)
        demonstrations = self._measure_demonstrations() if "demonstrations" in sources else None
        changes = RowChanges(dropped=self._dropped, cut=self._cut, demonstrations=demonstrations)
        endless = any(self._task.size(split) is None for split in _SPLITS)
        expected = 2 * self._longest if endless else self._longest
        return Measured(self._longest, self._longest_sequence, expected, self._sentences, changes)

    def _measure_prompts(self, split: Split) -> None:
        size = self._task.size(split)
        noun = "training prompts" if split == "train" else "held-out prompts"
        too_long: list[_TooLong] = []
        cut: dict[int, int] = {}
        for index in self._counted(SAMPLE if size is None else size, noun):
            prompt = self._task.prompt(split, index)
            check_prompt(prompt)
            num = self._num_tokens(prompt)
            if num + self._room > self._window:
                text = f"prompt {_name(prompt)}: {num} tokens and sampling.max_new_tokens = {self._room}"
                too_long.append(_TooLong(index, f"{text} exceed the model's window of {self._window}"))
                if size is not None and self._cfg.task.too_long == "cut" and (taken := self._to_cut(prompt)):
                    cut[index], num = taken, self._window - self._room
                else:
                    continue
            self._note(num, num + self._room)
        num_all = f"the first {SAMPLE:,} of endless {noun}" if size is None else f"{size:,} {noun}"
        dropped = [one.row for one in too_long if one.row not in cut]
        self._decide(num_all, too_long, len(dropped), len(cut), size)
        self._dropped[split], self._cut[split] = dropped, cut

    def _measure_demonstrations(self) -> list[int] | None:
        """The demonstrations that stay; None when all do."""
        size = self._task.size("train")
        num = SAMPLE if size is None else size
        kept: list[int] = []
        too_long: list[_TooLong] = []
        seen: set[str] = set()
        for index in self._counted(num, "demonstrations"):
            prompt, said = demonstrated(self._task, index, bool(self._cfg.task.environment))
            check_prompt(prompt, "".join(one.text for one in said))
            if size is not None and prompt.prompt_id in seen:
                break  # a task with fewer demonstrations than rows begins again
            seen.add(prompt.prompt_id)
            prompt = self._as_cut(prompt)
            response = encode_demonstration(self._tokenizer, prompt, said, self._cfg.task.template_options)
            lengths = self._num_tokens(prompt), len(response.ids)
            if sum(lengths) > self._window:
                text = (
                    f"demonstration {_name(prompt)}: {lengths[0]} tokens of the prompt and {lengths[1]} of the response"
                )
                too_long.append(_TooLong(index, f"{text} exceed the model's window of {self._window}"))
            else:
                kept.append(index)
                self._note(0, sum(lengths))
        noun = f"the first {SAMPLE:,} of endless demonstrations" if size is None else f"{len(seen):,} demonstrations"
        self._decide(noun, too_long, len(too_long), 0, None if size is None else len(seen))
        return kept if too_long and size is not None else None

    def _decide(self, noun: str, too_long: list[_TooLong], dropped: int, cut: int, size: int | None) -> None:
        """Raises DataError, or notes what becomes of the rows that are too long."""
        if not too_long:
            if size != 0:
                self._sentences.append(f"{noun} measured: all fit the window of {self._window} tokens")
            return
        shown = f"{too_long[0].sentence}; {len(too_long):,} of {noun} {'does' if len(too_long) == 1 else 'do'} not fit"
        if self._cfg.task.too_long == "refuse":
            raise DataError(
                f'{shown}; lower sampling.max_new_tokens, shorten the rows, or set task.too_long = "drop" or "cut"'
            )
        if size is not None and dropped == size:
            raise DataError(f"{shown}, and none would be left; lower sampling.max_new_tokens or shorten the rows")
        done = [f"{number:,} {verb}" for number, verb in ((dropped, "dropped"), (cut, "cut")) if number]
        rest = "dropped by the samplers when they come" if size is None else " and ".join(done)
        self._sentences.append(f"{shown}: {rest} (task.too_long = {self._cfg.task.too_long!r})")

    def _to_cut(self, prompt: Prompt) -> int:
        """The fewest characters to take off the prompt's beginning so that it fits; 0 when too little would be left."""
        low, high = 1, len(prompt.text)
        allowed = self._window - self._room
        if allowed < LEAST_CUT or not high or not self._fits(prompt, high - 1, allowed):
            return 0
        high -= 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._fits(prompt, middle, allowed) else (middle + 1, high)
        return low

    def _fits(self, prompt: Prompt, num_characters: int, allowed: int) -> bool:
        return self._num_tokens(msgspec.structs.replace(prompt, text=prompt.text[num_characters:])) <= allowed

    def _as_cut(self, prompt: Prompt) -> Prompt:
        num = self._cut.get("train", {}).get(prompt.index, 0)
        return msgspec.structs.replace(prompt, text=prompt.text[num:]) if num else prompt

    def _num_tokens(self, prompt: Prompt) -> int:
        return len(encode_prompt(self._tokenizer, prompt, self._cfg.task.template_options))

    def _note(self, prompt: int, sequence: int) -> None:
        self._longest, self._longest_sequence = max(self._longest, prompt), max(self._longest_sequence, sequence)

    def _counted(self, num: int, noun: str) -> Iterator[int]:
        """0 .. num - 1, with a line of progress now and then."""
        for index in range(num):
            if index and index % PROGRESS_ROWS == 0:
                self._say(f"measuring {noun}: {index:,} of {num:,}")
            yield index


def _name(prompt: Prompt) -> str:
    return f"{prompt.prompt_id} ({prompt.source})" if prompt.source else prompt.prompt_id
