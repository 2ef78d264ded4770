"""Text to token ids and back, with the run's own tokenizer. A chat template is applied here and nowhere else.

    tokenizer = load_tokenizer(run / "model")
    prompt_ids = encode_prompt(tokenizer, prompt)        # [P] int32, with the tokenizer's own beginning
    response_ids = encode_response(tokenizer, text)      # [T] int32, end-of-sequence at the end

Only local files are read, and no code from the model's directory runs. A tokenizer without a padding token gets its
end-of-sequence token as padding token: nothing here pads, and code that pads masks by length, never by id.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from rlsp_async.columns import Ids
from rlsp_async.errors import ConfigError, DataError
from rlsp_async.messages import BY_SPAWN, Prompt
from rlsp_async.model_files import require_model_files
from rlsp_async.template import MAX_RENDERED, bounded, check_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_GENERAL = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""Class names, in transformers 5 and 4, of a tokenizer that its tokenizer.json describes in full."""
_LETTERS = {"split_special_tokens": True}
"""Option of a tokenizer call: text that spells a special token is encoded letter by letter."""
_THINKING = re.compile(r"think|thought|reason", re.I)
"""Names of special tokens that mark thinking; they stay in a response even where the template writes them."""
_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")


class Codec(Protocol):
    """Prompts to token ids and response ids to text; behind it a sampler needs no tokenizer in tests."""

    stop_ids: tuple[int, ...]
    """Any of these ids ends a response."""

    def encode(self, prompt: Prompt) -> list[int]:
        """[P] ids of a prompt, chat template applied. Raises DataError."""
        ...

    def encode_observation(self, prompt: Prompt, text: str) -> list[int]:
        """Ids of what an environment says after a turn. Raises DataError."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """A response as text, without the marks of the conversation (`silent_ids`)."""
        ...


class TokenizerCodec:
    """The codec of a model directory's tokenizer."""

    def __init__(
        self, model_dir: Path, eos_ids: Sequence[int], template_options: Mapping[str, Any] | None = None
    ) -> None:
        """Loads the tokenizer; `eos_ids` are the end tokens that the model's config names. Raises DataError."""
        self._tokenizer = load_tokenizer(model_dir)
        self._options = template_options or {}
        self.stop_ids = tuple(sorted({*eos_ids, end_token(self._tokenizer)}))
        self._silent = silent_ids(self._tokenizer) | set(self.stop_ids)

    def encode(self, prompt: Prompt) -> list[int]:
        """[P] ids of a prompt."""
        return [int(token) for token in encode_prompt(self._tokenizer, prompt, self._options)]

    def encode_observation(self, prompt: Prompt, text: str) -> list[int]:
        """Ids of what an environment says after a turn."""
        return encode_observation(self._tokenizer, prompt, text, self._options)

    def decode(self, ids: Sequence[int]) -> str:
        """A response as text."""
        return decode_response(self._tokenizer, ids, self._silent)


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


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, template_options: Mapping[str, Any] | None = None
) -> Ids:
    """Encodes what the model sees: the chat template around `text` when `prompt.chat`, else `text` itself.

    A message is plain text. Where it spells a special token ("<|im_end|>"), the model gets the tokens of the
    letters, so that neither a data set nor a quoted response can end the user's turn and begin another one. Text
    without a chat template may contain special tokens of its author, unless it quotes a response. Where it begins with
    what the tokenizer puts before a text (a beginning-of-sequence), that is not put before it again.

    Args:
        tokenizer: the run's tokenizer.
        prompt: the prompt.
        template_options: variables for the chat template, e.g. {"enable_thinking": False}.

    Returns:
        [P] ids.

    Raises:
        DataError: the chat template is missing or broken, or the prompt has no tokens.
    """
    if prompt.chat:
        ids = _chat_ids(tokenizer, prompt, template_options or {})
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


def encode_observation(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, text: str, template_options: Mapping[str, Any] | None = None
) -> list[int]:
    """Encodes what an environment says after a turn of the policy, which ended with an end token.

    A prompt with `chat` is a conversation: the text becomes a message of the role "tool", or "user" where the template
    knows no such role, with what the template writes behind the policy's message and before its next one. Otherwise
    it is the text alone. It is never encoded as special tokens, whatever it spells.

    Args:
        tokenizer: the run's tokenizer.
        prompt: the prompt of the conversation.
        text: what the environment says.
        template_options: variables for the chat template.

    Returns:
        Ids; none for a text of which the tokenizer makes nothing.

    Raises:
        DataError: the chat template writes neither a tool's nor another user's message behind an answer.
    """
    if not prompt.chat:
        return _letter_ids(tokenizer, text)
    before, after = _around_observation(tokenizer, prompt, template_options or {})
    return [*_following_ids(tokenizer, before), *_letter_ids(tokenizer, text), *_following_ids(tokenizer, after)]


def _letter_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of a text that comes from outside: special tokens that it spells are letters, or left out."""
    special = {token for token, one in tokenizer.added_tokens_decoder.items() if one.special}
    special.discard(tokenizer.unk_token_id)
    ids: list[int] = tokenizer(text, add_special_tokens=False, **_LETTERS)["input_ids"]
    return [token for token in ids if token not in special]  # some tokenizers know no other way to write them


def _around_observation(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, options: Mapping[str, Any]
) -> tuple[str, str]:
    """What the chat template writes between the policy's message and an observation, and after that one."""
    if not tokenizer.chat_template:
        raise DataError(f"prompt {prompt.prompt_id}: chat = true, but the tokenizer has no chat template")
    from jinja2 import TemplateError

    said, seen = "\ue000", "\ue001"
    for role in ("tool", "user"):
        messages = [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": said},
            {"role": role, "content": seen},
        ]
        try:
            with bounded(f"prompt {prompt.prompt_id}"):
                text = str(
                    tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options)
                )
        except DataError:
            raise
        except (TemplateError, TypeError, ValueError, OverflowError, RecursionError):
            continue
        if text.count(said) == text.count(seen) == 1 and text.index(said) < text.index(seen):
            before, after = text[text.index(said) + 1 :].split(seen)
            return before.removeprefix(str(tokenizer.eos_token)), after  # the turn has brought its end token
    raise DataError(
        f"prompt {prompt.prompt_id}: the chat template writes no message of a tool or a user behind an answer, so that "
        "an environment cannot answer; set task.options.chat = false or use another model"
    )


class EncodedTurns(NamedTuple):
    """The response of a demonstration: T tokens."""

    ids: Ids
    """[T] ids."""
    versions: Ids
    """[T] -1 for what is not imitated, and for all tokens of a demonstration of one turn (`observations.py`)."""
    turns: list[int]
    """Offsets at which turns begin; empty: one turn."""


def encode_demonstration(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Prompt,
    said: Sequence[tuple[str, str]],
    template_options: Mapping[str, Any] | None = None,
) -> EncodedTurns:
    """Encodes a demonstration as its rollout would be sampled.

    Args:
        tokenizer: the run's tokenizer.
        prompt: the prompt.
        said: ("model", text) and ("environment", text) in turn.
        template_options: variables for the chat template.

    Returns:
        The columns. Raises DataError as `encode_observation`.
    """
    ids: list[int] = []
    versions: list[int] = []
    turns: list[int] = []
    for who, text in said:
        if who == "model":
            turns.append(len(ids))
            more, version = encode_response(tokenizer, text).tolist(), 0
        else:
            more, version = encode_observation(tokenizer, prompt, text, template_options), -1
        ids += more
        versions += [version] * len(more)
    if len(said) == 1:
        turns, versions = [], [-1] * len(ids)
    return EncodedTurns(np.asarray(ids, dtype=np.int32), np.asarray(versions, dtype=np.int32), turns)


def decode_response(tokenizer: PreTrainedTokenizerBase, ids: Any, silent: Collection[int] | None = None) -> str:
    """Decodes response ids (a list or an array) to the text that is judged, without `silent` ids (`silent_ids`)."""
    silent = silent_ids(tokenizer) if silent is None else silent
    kept = [token for token in np.asarray(ids, dtype=np.int64).tolist() if token not in silent]
    return str(tokenizer.decode(kept, skip_special_tokens=False))


def silent_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The special tokens that are no part of a response's text: those of the tokenizer's roles and of the conversation.

    The roles are beginning, end, padding, unknown and so on; the marks of the conversation are the special tokens that
    the chat template writes around messages. Every other special token stays in the text as it is spelt, marks of
    thinking among them ("[THINK]"), whoever writes them: a verifier may need them.
    """
    roles = {int(tokenizer.convert_tokens_to_ids(name)) for name in _roles(tokenizer)}
    around = _rendered_around(tokenizer)
    special = {token: one.content for token, one in tokenizer.added_tokens_decoder.items() if one.special}
    return frozenset(roles) | {
        token for token, name in special.items() if name in around and not _THINKING.search(name)
    }


def _roles(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    names = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
    return {str(getattr(tokenizer, name)) for name in names if getattr(tokenizer, name, None) is not None}


def _rendered_around(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the chat template makes of short conversations; of those that it refuses, nothing."""
    if not tokenizer.chat_template:
        return ""
    from jinja2 import TemplateError

    user, assistant = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    rendered = []
    for messages in ([user], [{"role": "system", "content": "c"}, user], [user, assistant, user]):
        try:
            with bounded("a short conversation"):
                text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except (DataError, TemplateError, TypeError, ValueError, OverflowError, MemoryError, RecursionError):
            continue  # such a template refuses such a conversation; prompts are rendered, and refused, elsewhere
        rendered.append(str(text)[:MAX_RENDERED])
    return "".join(rendered)


def check_template_options(tokenizer: PreTrainedTokenizerBase, options: Mapping[str, Any]) -> None:
    """Raises ConfigError for an option that the run itself gives, or of which the chat template knows nothing."""
    if not options:
        return
    templates = tokenizer.chat_template
    text = " ".join(templates.values()) if isinstance(templates, dict) else str(templates or "")
    reserved = {"messages", "bos_token", "eos_token", *inspect.signature(tokenizer.apply_chat_template).parameters}
    for name in options:
        where = f"task.template_options.{name}"
        if name in reserved:
            raise ConfigError(f"{where}: is given by the run itself; take it out")
        if not re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", text):
            raise ConfigError(f"{where}: the model's chat template has no variable of this name; take it out")


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
            begun = first and bare[:first] == ids[:first]  # the author wrote the beginning himself
            return bare if begun else ids[: first + len(bare)]
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


def _chat_ids(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, options: Mapping[str, Any]) -> list[int]:
    if not tokenizer.chat_template:
        raise DataError(
            f"prompt {prompt.prompt_id}: chat = true, but the tokenizer has no chat template; "
            "set task.options.chat = false or use an instruction-tuned model"
        )
    marked = _mark_special(tokenizer, prompt)
    from jinja2 import TemplateError

    try:
        with bounded(f"prompt {prompt.prompt_id}"):
            text = str(
                tokenizer.apply_chat_template(marked.messages, tokenize=False, add_generation_prompt=True, **options)
            )
    except DataError:
        raise
    except (TemplateError, TypeError, ValueError, OverflowError, RecursionError) as e:
        raise DataError(f"prompt {prompt.prompt_id}: the chat template refuses it: {_first_line(e)}") from None
    if len(text) > MAX_RENDERED:
        raise DataError(f"prompt {prompt.prompt_id}: the chat template makes {len(text):,} characters of it")
    pieces = text.split(marked.mark)
    if len(pieces) != len(marked.spelt) + 1:
        raise DataError(
            f"prompt {prompt.prompt_id}: it spells special tokens ({marked.spelt[0]}), and the chat template "
            "does not give each of them back once; take them out of the text"
        )
    ids: list[int] = tokenizer(pieces[0], add_special_tokens=False)["input_ids"]
    for spelt, piece in zip(marked.spelt, pieces[1:], strict=True):
        ids += tokenizer(spelt, add_special_tokens=False, **_LETTERS)["input_ids"]
        ids += _following_ids(tokenizer, piece)
    return ids


class _Marked(NamedTuple):
    """A conversation in which each special token that a message spells is replaced by a mark."""

    messages: list[dict[str, str]]
    """The messages with the marks."""
    mark: str
    """A character of Unicode's private use area that no message contains."""
    spelt: list[str]
    """The special tokens that were replaced, in order."""


def _mark_special(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> _Marked:
    said = [("system", prompt.system)] if prompt.system else []
    said += [*((one.role, one.text) for one in prompt.earlier), ("user", prompt.text)]
    names = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    special = re.compile("|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)) or "(?!)")
    whole = "".join(text for _, text in said)
    mark = next(char for char in map(chr, range(0xE000, 0xF900)) if char not in whole)
    messages = [{"role": role, "content": special.sub(mark, text)} for role, text in said]
    return _Marked(messages, mark, [name for _, text in said for name in special.findall(text)])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
