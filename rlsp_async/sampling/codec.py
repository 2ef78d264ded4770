"""Between prompts and token ids: the run's tokenizer behind two methods, so that tests need none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rlsp_async.messages import Prompt


class Codec(Protocol):
    """Prompt to ids (chat template applied), response ids to text."""

    stop_ids: tuple[int, ...]
    """Any of these ends a response."""

    def encode(self, prompt: Prompt) -> list[int]:
        """[P] ids. Raises DataError."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The response as text, special tokens left out."""
        ...


class TokenizerCodec:
    """The tokenizer that lies in the model's directory."""

    def __init__(self, model_dir: Path, eos_ids: Sequence[int]) -> None:
        from rlsp_async import tokens

        self._tokens = tokens
        self._tokenizer = tokens.load_tokenizer(model_dir)
        own = self._tokenizer.eos_token_id
        self.stop_ids = tuple(sorted({*eos_ids, *(() if own is None else (own,))}))

    def encode(self, prompt: Prompt) -> list[int]:
        return [int(token) for token in self._tokens.encode_prompt(self._tokenizer, prompt)]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokens.decode_response(self._tokenizer, ids))
