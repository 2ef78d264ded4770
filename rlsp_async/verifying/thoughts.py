"""Where the thinking of a response ends: what a model thinks is not its answer. Linear time.

    split_thoughts("<think>5?</think> 6").text == " 6"            split_thoughts("<think>5").is_unfinished is True
    split_thoughts("[THINK]5[/THINK] 6").text == " 6"             split_thoughts("5?</seed:think> 6").text == " 6"

A mark is a word such as `think` between angle, square or lens-shaped brackets, with a name of a model in front of it or
not (`<think>`, `[THINK]`, `<seed:think>`), one of the pairs of special tokens in PAIRS, or a pair of the user's own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

_WORDS = r"(?:[\w-]{1,20}[:_])?(?:think(?:ing)?|thoughts?|reasoning|reflection|scratchpad)"
_OPENING = rf"<{_WORDS}>|\[{_WORDS}\]|\u25c1{_WORDS}\u25b7"
_CLOSING = rf"</{_WORDS}>|\[/{_WORDS}\]|\u25c1/{_WORDS}\u25b7"
PAIRS: tuple[tuple[str, str], ...] = (
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel>thought", "<channel|>"),
    ("<unused94>thought", "<unused95>"),
)
"""Special tokens that begin and end a thought: Sky-T1, Command A, Gemma 4, MedGemma."""
_TURN_END = re.compile(
    r"<\|im_end\|>|<\|im_start\|>\s*(?:user|system)|<\|eot_id\|>|<\|start_header_id\|>\s*user|<end_of_turn>"
    r"|<start_of_turn>\s*user|<\|user\|>|<\uff5cUser\uff5c>|<\|endoftext\|>|<\|return\|>|\[INST\]"
)
_CHANNEL = "<|channel|>"
_FINAL_CHANNEL = re.compile(r"<\|channel\|>\s*final[^<]{0,40}<\|message\|>")
_CHANNEL_END = re.compile(r"<\|(?:end|call|start)\|>")
_FRAME = re.compile(r"<\|(?:START|END)_(?:RESPONSE|TEXT|ACTION)\|>|<\|(?:begin|end)_of_solution\|>")


def check_marks(pairs: Sequence[Sequence[str]]) -> None:
    """Raises ValueError when a mark of the user's own is empty: it would stand everywhere."""
    if not all(mark.strip() for pair in pairs for mark in pair):
        raise ValueError("thinking must name pairs of marks, none of them empty")


class SpokenText(NamedTuple):
    """What a response says outside of its thoughts. `is_unfinished`: it ends in the middle of a thought."""

    text: str
    is_unfinished: bool = False


def split_thoughts(response: str, pairs: Sequence[Sequence[str]] = ()) -> SpokenText:
    """Returns what stands behind the last thought; when nothing does, what stands between the last two.

    A closing mark without an opening one ends a thought that the prompt began. What a model wrote behind the end of its
    own turn is left out. Of a response in channels (gpt-oss) only the channel "final" is returned.

    Args:
        response: the whole response.
        pairs: opening and closing marks beside those that are known.
    """
    if not (pairs or "<" in response or "[" in response or "\u25c1" in response):
        return SpokenText(response)
    text = _own_turn(response)
    if _CHANNEL in text:
        return _final_channel(text)
    pieces: list[str] = []
    begin, is_open = 0, False
    for mark in _compile_marks(tuple((pair[0], pair[1]) for pair in pairs)).finditer(text):
        if mark["closing"] is not None:
            pieces = pieces if is_open else []
            begin, is_open = mark.end(), False
        elif not is_open:
            pieces.append(text[begin : mark.start()])
            is_open = True
    if is_open:
        return SpokenText("", True)
    pieces.append(text[begin:])
    return SpokenText(_FRAME.sub(" ", next((piece for piece in reversed(pieces) if piece.strip()), "")))


def _own_turn(response: str) -> str:
    """The response up to the end of the model's turn, if it says anything before it."""
    begin = len(response) - len(response.lstrip())
    end = next((mark.start() for mark in _TURN_END.finditer(response) if mark.start() > begin), len(response))
    return response[:end]


def _final_channel(text: str) -> SpokenText:
    begins = [mark.end() for mark in _FINAL_CHANNEL.finditer(text)]
    if not begins:
        return SpokenText("", True)
    return SpokenText(_CHANNEL_END.split(text[begins[-1] :], maxsplit=1)[0])


@lru_cache(maxsize=32)
def _compile_marks(pairs: tuple[tuple[str, str], ...]) -> re.Pattern[str]:
    known = (*PAIRS, *pairs)
    opening = "|".join([_OPENING, *(re.escape(mark) for mark, _ in known)])
    closing = "|".join([_CLOSING, *(re.escape(mark) for _, mark in known)])
    return re.compile(f"(?P<closing>{closing})|(?P<opening>{opening})", re.IGNORECASE)
