"""How a response calls a tool, and how the tool's answer is written.

    <call> 3 4 7 + 1 0 9 </call>                                                      for small models
    <tool_call> {"name": "calculator", "arguments": {"expression": "347+109"}} </tool_call>    for models that chat

The last call of a turn counts. The answer to the first form is `<result> ... </result>`; that to the second is bare,
because the chat template writes its own marks around what a tool says (`tokens.encode_observation`).
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

_PLAIN = re.compile(r"<call>(?P<inside>(?:(?!<call>).)*?)</call>", re.DOTALL)
_TAGGED = re.compile(r"<tool_call>(?P<inside>(?:(?!<tool_call>).)*?)</tool_call>", re.DOTALL)
CALL_CHARACTERS = 100_000
"""Of a longer turn only the end is searched for a call."""


class ToolCall(NamedTuple):
    """One call of a tool."""

    name: str
    """Name of the tool; empty in the plain form, which serves environments with one tool."""
    arguments: dict[str, Any]
    """By name; in the plain form {"text": what stands between the marks}."""
    is_plain: bool
    problem: str = ""
    """What is wrong with the call, for the policy to read; empty: nothing."""

    def answer(self, text: str) -> str:
        """The text of an observation that answers this call."""
        return f"<result> {text} </result>" if self.is_plain else text


def find_call(text: str) -> ToolCall | None:
    """The last call in a turn; None when there is none."""
    text = text[-CALL_CHARACTERS:]
    found = [*_PLAIN.finditer(text), *_TAGGED.finditer(text)]
    if not found:
        return None
    last = max(found, key=lambda match: match.end())
    inside = last["inside"].strip()
    if last.re is _PLAIN:
        return ToolCall("", {"text": inside}, True)
    try:
        read = msgspec.json.decode(inside)
    except (msgspec.DecodeError, RecursionError) as e:
        return ToolCall("", {}, False, f"the call is not JSON: {e}"[:200])
    name = read.get("name") if isinstance(read, dict) else None
    arguments = read.get("arguments", {}) if isinstance(read, dict) else None
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return ToolCall("", {}, False, 'a call is {"name": ..., "arguments": {...}}')
    return ToolCall(name, arguments, False)
