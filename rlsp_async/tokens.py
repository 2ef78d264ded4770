"""Text to token ids and back, with the run's own tokenizer. A chat template is applied here and nowhere else.

    tokenizer = load_tokenizer(run / "model")
    prompt_ids = encode_prompt(tokenizer, prompt)        # [P] int32, with the tokenizer's own beginning
    response_ids = encode_response(tokenizer, text)      # [T] int32, end-of-sequence at the end

Only local files are read, and no code from the model's directory runs. A tokenizer without a padding token gets its
end-of-sequence token as padding token: nothing here pads, and code that pads masks by length, never by id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from rlsp_async.columns import Ids
from rlsp_async.errors import DataError
from rlsp_async.messages import BY_SPAWN, Prompt
from rlsp_async.model_files import require_model_files
from rlsp_async.template import MAX_RENDERED, bounded, check_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_GENERAL = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""Class names, in transformers 5 and 4, of a tokenizer that its tokenizer.json describes in full."""
_LETTERS = {"split_special_tokens": True}
"""Option of a tokenizer call: text that spells a special token is encoded letter by letter."""
_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")


class Codec(Protocol):
    """Prompts to token ids and response ids to text; behind it a sampler needs no tokenizer in tests."""

    stop_ids: tuple[int, ...]
    """Any of these ids ends a response."""

    def encode(self, prompt: Prompt) -> list[int]:
        """[P] ids of a prompt, chat template applied. Raises DataError."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """A response as text, special tokens left out."""
        ...


class TokenizerCodec:
    """The codec of a model directory's tokenizer."""

    def __init__(self, model_dir: Path, eos_ids: Sequence[int]) -> None:
        """Loads the tokenizer; `eos_ids` are the end tokens that the model's config names. Raises DataError."""
        self._tokenizer = load_tokenizer(model_dir)
        self.stop_ids = tuple(sorted({*eos_ids, end_token(self._tokenizer)}))

    def encode(self, prompt: Prompt) -> list[int]:
        """[P] ids of a prompt."""
        return [int(token) for token in encode_prompt(self._tokenizer, prompt)]

    def decode(self, ids: Sequence[int]) -> str:
        """A response as text."""
        return decode_response(self._tokenizer, ids)


def load_tokenizer(directory: str | Path) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of a Hugging Face directory.

    Raises DataError when the directory or its tokenizer files are missing or damaged, or it has no end token.
    """
    where = Path(directory)
    if not where.is_dir():
        raise DataError(f"{where}: no such model directory")
    require_model_files(where)
    if not any((where / name).is_file() for name in _FILES):
        raise DataError(f"{where}: no tokenizer files (tokenizer.json); save the model's tokenizer beside its weights")
    try:
        tokenizer = _kind(where).from_pretrained(str(where), local_files_only=True, trust_remote_code=False)
    except RecursionError:
        raise DataError(f"{where}: its tokenizer cannot be read: its JSON is nested too deep") from None
    except Exception as e:  # translated: the libraries raise many kinds for damaged files, bare Exception among them
        raise DataError(f"{where}: its tokenizer cannot be read: {_first_line(e)}") from e
    for template in _templates(tokenizer.chat_template, where):
        check_template(template, str(where))
    if tokenizer.eos_token_id is None:
        raise DataError(f"{where}: its tokenizer has no end-of-sequence token; set eos_token in tokenizer_config.json")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    result: PreTrainedTokenizerBase = tokenizer
    return result


def _templates(given: Any, where: Path) -> list[str]:
    """The chat templates of a tokenizer: none, one, or several with names. Raises DataError for what is no text."""
    made = list(given.values()) if isinstance(given, dict) else [] if given is None else [given]
    if not all(isinstance(template, str) for template in made):
        raise DataError(f"{where}: its chat template is no text")
    return made


def _kind(where: Path) -> Any:
    """The class that `AutoTokenizer` would choose.

    Where the files name the general class it is taken at once, because `AutoTokenizer` first loads torch and every
    model's configuration, which is most of the start time of a sampler without a model.
    """
    from transformers import PreTrainedTokenizerFast

    config = where / "tokenizer_config.json"
    if config.is_file() and (where / "tokenizer.json").is_file():
        settings = json.loads(config.read_bytes())
        if isinstance(settings, dict) and settings.get("tokenizer_class") in _GENERAL:
            return PreTrainedTokenizerFast
    from transformers import AutoTokenizer

    return AutoTokenizer


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> Ids:
    """Encodes what the model sees: the chat template around `text` when `prompt.chat`, else `text` itself.

    A user message is plain text. Where it spells a special token ("<|im_end|>"), the model gets the tokens of the
    letters, so that neither a data set nor a quoted response can end the user's turn and begin another one. Text
    without a chat template may contain special tokens of its author, unless it quotes a response.

    Args:
        tokenizer: the run's tokenizer.
        prompt: the prompt.

    Returns:
        [P] ids.

    Raises:
        DataError: the chat template is missing or broken, or the prompt has no tokens.
    """
    if prompt.chat:
        ids = _chat_ids(tokenizer, prompt)
    else:
        ids = _plain_ids(tokenizer, prompt.text, _LETTERS if prompt.selector == BY_SPAWN else {})
    if not len(ids):
        raise DataError(f"prompt {prompt.prompt_id}: empty after tokenization")
    return np.asarray(ids, dtype=np.int32)


def encode_response(tokenizer: PreTrainedTokenizerBase, text: str) -> Ids:
    """Encodes a response: [T] ids as they stand in a conversation, with one end-of-sequence token at the end.

    There is no beginning-of-sequence. A response that spells its own end gets no second one.
    """
    ids, end = _following_ids(tokenizer, text), end_token(tokenizer)
    return np.asarray(ids if ids[-1:] == [end] else [*ids, end], dtype=np.int32)


def decode_response(tokenizer: PreTrainedTokenizerBase, ids: Any) -> str:
    """Decodes response ids (a list or an array) to text, special tokens left out."""
    text = tokenizer.decode(np.asarray(ids, dtype=np.int64).tolist(), skip_special_tokens=True)
    return str(text)


def end_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Returns the end-of-sequence id. Raises DataError when there is none."""
    if tokenizer.eos_token_id is None:
        raise DataError("the tokenizer has no end-of-sequence token")
    return int(tokenizer.eos_token_id)


def _plain_ids(tokenizer: PreTrainedTokenizerBase, text: str, options: dict[str, bool]) -> list[int]:
    """Ids of a text that the model continues: with what the tokenizer puts before it, without what it puts after."""
    ids: list[int] = tokenizer(text, **options)["input_ids"]
    bare: list[int] = tokenizer(text, add_special_tokens=False, **options)["input_ids"]
    for first in range(len(ids) - len(bare) + 1):
        if bare and ids[first : first + len(bare)] == bare:
            return ids[: first + len(bare)]
    return ids


def _following_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of a text that follows another one.

    SentencePiece with prepend_scheme "first" (Llama 2, Mistral, Phi-3) puts a blank before the first text of an input,
    and before no other. There the text is encoded behind the end-of-sequence token, which is taken off again.
    """

    def behind(some: str) -> list[int]:
        found: list[int] = tokenizer(f"{tokenizer.eos_token}{some}", add_special_tokens=False)["input_ids"]
        return found[1:] if found[:1] == [tokenizer.eos_token_id] else []

    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    if behind("x") in ([], tokenizer("x", add_special_tokens=False)["input_ids"]):
        return ids
    return behind(text)


def _chat_ids(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    if not tokenizer.chat_template:
        raise DataError(
            f"prompt {prompt.prompt_id}: chat = true, but the tokenizer has no chat template; "
            "set task.options.chat = false or use an instruction-tuned model"
        )
    user = _mark_special(tokenizer, prompt)
    messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
    messages.append({"role": "user", "content": user.text})
    from jinja2 import TemplateError

    try:
        with bounded(f"prompt {prompt.prompt_id}"):
            text = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except DataError:
        raise
    except (TemplateError, TypeError, ValueError, OverflowError, RecursionError) as e:
        raise DataError(f"prompt {prompt.prompt_id}: the chat template refuses it: {_first_line(e)}") from None
    if len(text) > MAX_RENDERED:
        raise DataError(f"prompt {prompt.prompt_id}: the chat template makes {len(text):,} characters of it")
    pieces = text.split(user.mark)
    if len(pieces) != len(user.spelt) + 1:
        raise DataError(
            f"prompt {prompt.prompt_id}: it spells special tokens ({user.spelt[0]}), and the chat template "
            "does not give each of them back once; take them out of the text"
        )
    ids: list[int] = tokenizer(pieces[0], add_special_tokens=False)["input_ids"]
    for spelt, piece in zip(user.spelt, pieces[1:], strict=True):
        ids += tokenizer(spelt, add_special_tokens=False, **_LETTERS)["input_ids"]
        ids += _following_ids(tokenizer, piece)
    return ids


class _Message(NamedTuple):
    """A user message in which each special token that it spells is replaced by a mark."""

    text: str
    """The message with the marks."""
    mark: str
    """A character of Unicode's private use area that the prompt does not contain."""
    spelt: list[str]
    """The special tokens that were replaced, in order."""


def _mark_special(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> _Message:
    names = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    special = re.compile("|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)) or "(?!)")
    mark = next(char for char in map(chr, range(0xE000, 0xF900)) if char not in prompt.text + prompt.system)
    return _Message(special.sub(mark, prompt.text), mark, special.findall(prompt.text))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
