"""Sums that are too long for a small model's head, for the environment `calculator`.

    prompt         3 4 7 1 + 1 0 9 5 + 9 9 5 2 <think>
    demonstration  <call> 3 4 7 1 + 1 0 9 5 + 9 9 5 2 </call>   <result> 1 4 5 1 8 </result>   </think> 1 4 5 1 8
    or             </think> 1 4 0 1 8

The teacher calls the tool with probability `p_call`; else each digit of the answer is a random one with probability
`p_slip`. So calls are what a policy can learn to make more often, and they help as far as the tool is right. Problems
and held-out problems are those of `addition`, as is the verifier.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from rlsp_async.config import Section
from rlsp_async.config.ranges import Range
from rlsp_async.messages import Prompt
from rlsp_async.tasks.addition import Addition, AdditionConfig, problem_text
from rlsp_async.tasks.base import Said
from rlsp_async.tasks.word_tokenizer import TOOL_WORDS, word_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class SumsConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The size of the sums and the habits of the teacher."""

    numbers: Annotated[int, Range(ge=2, le=5)] = 3
    """Number of numbers in a sum."""
    digits: Annotated[int, Range(ge=3, le=6)] = 4
    """Number of digits of each number."""
    p_call: Annotated[float, Range(ge=0, le=1)] = 0.5
    """Chance that the teacher calls the tool."""
    p_slip: Annotated[float, Range(ge=0, le=1)] = 0.5
    """Chance that a digit of an answer without a call is a random one."""
    heldout_share: Annotated[float, Range(gt=0, lt=1)] = 0.1
    """Share of all problems that is held out for the test split."""


Config = SumsConfig


class Sums(Addition):
    """The task: the problems of `addition`, of another size and with another teacher."""

    name = "sums"

    def __init__(self, cfg: SumsConfig, seed: int) -> None:
        super().__init__(AdditionConfig(numbers=cfg.numbers, digits=cfg.digits, heldout_share=cfg.heldout_share), seed)
        self._teacher = cfg

    def demonstration(self, index: int) -> tuple[Prompt, str]:
        """Training prompt `index` and the last turn of the teacher, for what reads one response."""
        prompt, said = self.conversation(index)
        return prompt, said[-1].text

    def conversation(self, index: int) -> tuple[Prompt, list[Said]]:
        """Training prompt `index`, and the teacher's turns with what the tool says between them."""
        numbers, rng = self._draw(index)
        prompt, result = self._as_prompt("train", index, numbers), str(sum(numbers))
        if rng.random() < self._teacher.p_call:
            call = Said("model", f"<call> {problem_text(numbers)} </call>")
            seen = Said("environment", f"<result> {' '.join(result)} </result>")
            return prompt, [call, seen, Said("model", f"</think> {' '.join(result)}")]
        digits = [rng.choice("0123456789") if rng.random() < self._teacher.p_slip else digit for digit in result]
        return prompt, [Said("model", f"</think> {' '.join(digits)}")]

    def tokenizer(self) -> PreTrainedTokenizerFast | None:
        """The word-level tokenizer, with the marks of calls and results."""
        return word_tokenizer(more=TOOL_WORDS)


def load(cfg: SumsConfig, seed: int) -> Sums:
    """The task with these options."""
    return Sums(cfg, seed)
