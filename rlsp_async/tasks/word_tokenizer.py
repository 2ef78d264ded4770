"""A word-level tokenizer for tasks that are written in a few words, for models that are built from nothing.

124 tokens: 4 specials, 20 words, and the numbers "0".."99". Text is split at blanks, so decoding gives back the encoded
text exactly. `<think>` and `</think>` are words, not specials, so that decoding keeps them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
WORDS = (
    "<think>",
    "</think>",
    "->",
    "?=",
    "=",
    "+",
    "-",
    "*",
    "/",
    "(",
    ")",
    ",",
    ".",
    ":",
    ";",
    "x",
    "ok",
    "check",
    "redo",
    "answer",
)
TOOL_WORDS = ("<call>", "</call>", "<result>", "</result>")
"""Marks of a tool's calls and results (environments/calls.py), for tasks with an environment."""
VOCABULARY = (*SPECIALS, *WORDS, *(str(n) for n in range(100)))


def word_tokenizer(max_tokens: int = 512, more: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """The tokenizer, with `more` words behind its own. Encoding adds `<bos>`, and an unknown word becomes `<unk>`."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(WordLevel({word: i for i, word in enumerate((*VOCABULARY, *more))}, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    core.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", VOCABULARY.index("<bos>"))])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_max_length=max_tokens,
        clean_up_tokenization_spaces=False,
    )
