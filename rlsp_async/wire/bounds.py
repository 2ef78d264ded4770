"""How long every part of a message may be: checked before anything of it is built.

    outline(FromWorker)     the same messages with a bound on every string, list, map, column and integer

A frame is decoded into its outline first. msgspec looks at the length in a header before it makes room, so a bomb (a
megabyte that would become fifty in memory) costs nothing. The outline is made from `messages.py`, so a new field has a
bound from its first day: by its name in `TEXTS`, `NAMES` or `MANY`, else the default of its type.
"""

from __future__ import annotations

import types
from functools import lru_cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

MAX_TOKENS = 131_072
"""Longest column, unless a run says less."""
BYTES_A_TOKEN = 4
NAME_CHARACTERS = 1024
NOTE_CHARACTERS = 65_536
TEXT_CHARACTERS = 4_194_304

NAMES = frozenset(
    {
        "run",
        "worker",
        "prompt_id",
        "task",
        "source",
        "selector",
        "stage",
        "phase",
        "state",
        "parent",
        "root",
        "sampler",
        "verifier",
        "digest",
    }
)
"""Strings that name something."""
TEXTS = frozenset({"text", "answer", "system", "prompt", "response", "extracted"})
"""Strings that people or models write. All others are notes: a reason, an error, a path."""

ONE_RESULT = 1
MAP_ENTRIES = 1024
LIST_ENTRIES = 65_536
MANY = {
    "Done.groups": ONE_RESULT,
    "Done.verdicts": ONE_RESULT,
    "Done.steps": ONE_RESULT,
    "RolloutGroup.rollouts": 4096,
    "VerdictSet.verdicts": 4096,
    "VerifiedGroup.verdicts": 4096,
    "VerifyJob.items": 4096,
    "Verdict.parts": 64,
    "Hello.info": 64,
}
"""Entries of a list or a map; without a line here MAP_ENTRIES or LIST_ENTRIES."""

INT64 = 2**63


@lru_cache(maxsize=16)
def outline(kind: Any, max_tokens: int = MAX_TOKENS) -> Any:
    """A struct, or a union of structs, whose every part is bounded; columns hold at most `max_tokens` values."""
    if get_origin(kind) in (Union, types.UnionType):
        return Union[tuple(outline(one, max_tokens) for one in get_args(kind))]  # noqa: UP007
    hints = get_type_hints(kind, include_extras=True)
    fields = [_field(kind, info, hints[info.name], max_tokens) for info in msgspec.structs.fields(kind)]
    tag = kind.__struct_config__.tag
    return msgspec.defstruct(kind.__name__, fields, kw_only=True, frozen=True, tag=tag)


def _field(kind: Any, info: msgspec.structs.FieldInfo, hint: Any, max_tokens: int) -> Any:
    """One field with its bound; a field that has a default keeps being optional."""
    bounded = _bounded(hint, f"{kind.__name__}.{info.name}", max_tokens)
    if info.required:
        return (info.name, bounded)
    # The value is thrown away: nothing is made for an absent field.
    return (info.name, Union[bounded, msgspec.UnsetType], msgspec.UNSET)  # noqa: UP007


def _bounded(hint: Any, path: str, max_tokens: int) -> Any:
    """The type of a field, with a bound by its name and kind."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _bounded(arguments[0], path, max_tokens)
    if origin in (Union, types.UnionType):
        return Union[tuple(_bounded(one, path, max_tokens) for one in arguments)]  # noqa: UP007
    if origin is list:
        item = _bounded(arguments[0], path, max_tokens)
        return Annotated[list[item], Meta(max_length=MANY.get(path, LIST_ENTRIES))]  # type: ignore[valid-type]
    if origin is dict:
        key, value = (_bounded(one, f"{path}.name", max_tokens) for one in arguments)
        return Annotated[dict[key, value], Meta(max_length=MANY.get(path, MAP_ENTRIES))]  # type: ignore[valid-type]
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return outline(hint, max_tokens)
    return _leaf(hint, path.rpartition(".")[2], max_tokens)


def _leaf(hint: Any, name: str, max_tokens: int) -> Any:
    if hint is str:
        longest = TEXT_CHARACTERS if name in TEXTS else NAME_CHARACTERS if name in NAMES else NOTE_CHARACTERS
        return Annotated[str, Meta(max_length=longest)]
    if hint is bytes:
        return Annotated[bytes, Meta(max_length=BYTES_A_TOKEN * max_tokens)]
    if hint is int:
        return Annotated[int, Meta(ge=-INT64, le=INT64 - 1)]
    if hint in (float, bool, type(None)) or get_origin(hint) is Literal:
        return hint
    raise TypeError(f"messages.py has a type that has no bound yet: {hint!r} in field {name!r}")
