"""Prompts and responses that a file gives as lists of chat messages, in the form of OpenAI, TRL and verl.

    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]

    read_conversation(row["prompt"], where)                    # .system, .earlier, .text: the user message to answer
    read_conversation(row["messages"], where, answered=True)   # .response: its last message, by the assistant

A system message may only come first ("developer" is another name of it). Then user and assistant speak, in any order.
The last message is the user's, and the model answers it; a conversation that ends with the assistant is refused unless
its last message is the response to imitate. The content is text, or a list of parts of text, which are put together.
Tools, images and other parts are refused.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from rlsp_async.errors import DataError
from rlsp_async.messages import ChatMessage
from rlsp_async.tasks.readers import as_text

SYSTEM = ("system", "developer")
_KNOWN = ("user", "assistant")


class Conversation(NamedTuple):
    """A list of chat messages, taken apart."""

    system: str
    """Its system message; "": none."""
    earlier: list[ChatMessage]
    """The messages between the system message and the last of the user."""
    text: str
    """The last message of the user."""
    response: str = ""
    """The assistant's answer to it, where the conversation has one."""


def is_conversation(value: Any) -> bool:
    """Whether a value has the shape of chat messages: a list of objects."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def read_conversation(value: Any, where: str, *, answered: bool = False) -> Conversation:
    """Takes a list of chat messages apart.

    Args:
        value: the list.
        where: FILE:LINE and the field, for errors.
        answered: whether the last message is the assistant's response.

    Raises:
        DataError: a message has another form, or the conversation has another end.
    """
    messages = [_message(one, f"{where}: message {number}") for number, one in enumerate(value, start=1)]
    system = messages.pop(0).text if messages[0].role == "system" else ""
    for number, message in enumerate(messages, start=1):
        if message.role == "system":
            raise DataError(f"{where}: a system message may only come first (message {number} after it is one, too)")
    response = ""
    if answered:
        if not messages or messages[-1].role != "assistant":
            raise DataError(f"{where}: the conversation must end with the assistant's message, the response to imitate")
        response = messages.pop().text
    if not messages or messages[-1].role != "user":
        raise DataError(
            f"{where}: the conversation must end with a message of the user{', before the response' * answered}; where "
            "the last message is a response to imitate, name this field as response_field, too, else leave it out"
        )
    if not messages[-1].text.strip():
        raise DataError(f"{where}: the last message of the user is empty")
    return Conversation(system, messages[:-1], messages[-1].text, response)


def read_response(value: Any, where: str) -> str:
    """The response in a field: text, or a list with the assistant's message alone. Raises DataError."""
    if not is_conversation(value):
        return as_text(value, "response", where)
    messages = [_message(one, f"{where}: message {number}") for number, one in enumerate(value, start=1)]
    if len(messages) != 1 or messages[0].role != "assistant":
        raise DataError(f"{where}: a response must be one message of the assistant, not {len(messages)} messages")
    return messages[0].text


def _message(value: dict[str, Any], where: str) -> ChatMessage:
    role, content = value.get("role"), value.get("content")
    if value.get("tool_calls") or role in ("tool", "function"):
        raise DataError(f"{where}: tools cannot be used; leave the row out")
    if role not in (*SYSTEM, *_KNOWN):
        raise DataError(f"{where}: its role is {role!r}; it must be system, user or assistant")
    if isinstance(content, list):
        content = "".join(_part(part, where) for part in content)
    if content is None:
        raise DataError(f"{where}: has no content")
    text = as_text(content, "content", where)
    return ChatMessage(role="system" if role in SYSTEM else role, text=text)


def _part(part: Any, where: str) -> str:
    if isinstance(part, dict) and part.get("type", "text") == "text" and "text" in part:
        return as_text(part["text"], "text", where)
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    raise DataError(f"{where}: its content has a part of type {kind!r}; only text can be used")
