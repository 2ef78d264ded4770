"""Thoughts: what a response says outside of them, whatever their marks."""

from __future__ import annotations

import pytest

from rlsp_async.errors import ConfigError
from rlsp_async.verifying.base import load_verifier
from rlsp_async.verifying.thoughts import SpokenText, split_thoughts
from tests.verifying.growth import grows_linearly

MARKS = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<thoughts>", "</thoughts>"),
    ("<reasoning>", "</reasoning>"),
    ("<Think>", "</Think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<mm:think>", "</mm:think>"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel>thought", "<channel|>"),
    ("<unused94>thought", "<unused95>"),
]


@pytest.mark.parametrize(("opening", "closing"), MARKS)
def test_marks(opening: str, closing: str) -> None:
    assert split_thoughts(f"{opening}41{closing} 42") == SpokenText(" 42")
    assert split_thoughts(f"41{closing} 42") == SpokenText(" 42")
    assert split_thoughts(f"{opening}41") == SpokenText("", True)
    assert split_thoughts(f"42 {opening}41") == SpokenText("", True)
    assert split_thoughts(f"{opening}40{closing} 41 {opening}x{closing} 42") == SpokenText(" 42")
    assert split_thoughts(f"{opening}40{closing} 42 {opening}x{closing}\n") == SpokenText(" 42 ")
    assert split_thoughts(f"{opening}40{closing} 41 {opening}42") == SpokenText("", True)


@pytest.mark.parametrize(
    ("response", "spoken"),
    [
        ("42", "42"),
        ("<think>a</think>b</think>42", "42"),
        ("<think>a<think>b</think>c</think>42", "42"),
        ("<think>41</think>", ""),
        ("41<think>x</think>b</think> ", ""),
        ("I think <42>", "I think <42>"),
        ("<thinker>42</thinker>", "<thinker>42</thinker>"),
        ("[thing] 42", "[thing] 42"),
        ("<|channel|>analysis<|message|>41<|end|><|start|>assistant<|channel|>final<|message|>42<|return|>", "42"),
        ("<|channel|>final<|message|>42", "42"),
        ("42<|im_end|>\n<|im_start|>user\n43", "42"),
        ("42 <|im_start|>user 1022", "42 "),
        ("42<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n43", "42"),
        ("42<end_of_turn>\n<start_of_turn>user\n43", "42"),
        ("42<|endoftext|>43", "42"),
        ("<|endoftext|>42", "<|endoftext|>42"),
        ("<|START_RESPONSE|>42<|END_RESPONSE|>", " 42 "),
        ("", ""),
    ],
)
def test_what_is_said(response: str, spoken: str) -> None:
    assert split_thoughts(response) == SpokenText(spoken)


def test_a_channel_without_an_end_is_a_thought() -> None:
    assert split_thoughts("<|channel|>analysis<|message|>so it is 42").is_unfinished


def test_marks_of_the_users_own() -> None:
    marks = [("{{plan}}", "{{done}}")]
    assert split_thoughts("{{plan}}41{{done}}42", marks) == SpokenText("42")
    assert split_thoughts("{{plan}}41", marks).is_unfinished
    assert split_thoughts("<think>41</think>42", marks) == SpokenText("42")
    assert split_thoughts("{{plan}}41{{done}}42") == SpokenText("{{plan}}41{{done}}42")


@pytest.mark.parametrize("piece", ["<think>", "</think>", "<", "[", "<|im_end|>", "<|channel|>", "<a_", " <|im_end|>"])
def test_megabytes_take_linear_time(piece: str) -> None:
    assert grows_linearly(lambda num: split_thoughts(piece * (num // len(piece))), 30_000)


@pytest.mark.parametrize("verifier", ["exact", "choice", "abstain", "regex"])
def test_an_empty_mark_is_refused(verifier: str) -> None:
    with pytest.raises(ConfigError, match="thinking must name pairs of marks, none of them empty"):
        load_verifier(verifier, {"thinking": [["{{", " "]]})
