"""Prompts and responses as lists of chat messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlsp_async import config
from rlsp_async.errors import DataError
from rlsp_async.messages import ChatMessage
from rlsp_async.tasks.base import load_task
from rlsp_async.tasks.conversation import read_conversation, read_response

SYSTEM = {"role": "system", "content": "Be brief."}
ASKED = {"role": "user", "content": "2 + 2?"}
ANSWERED = {"role": "assistant", "content": "4"}
PARTS = {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "text", "text": "3 + 3?"}]}


def load(path: Path, rows: list[dict[str, Any]], **options: object) -> Any:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"path_train": str(path), "path_test": str(path), "deduplicate": "off", "chat": True, **options}
    return load_task(config.TaskConfig(name="jsonl", options=options), 0)


def test_a_conversation_is_taken_apart() -> None:
    made = read_conversation([SYSTEM, ASKED, ANSWERED, PARTS], "x")
    assert (made.system, made.text, made.response) == ("Be brief.", "And 3 + 3?", "")
    assert made.earlier == [ChatMessage(role="user", text="2 + 2?"), ChatMessage(role="assistant", text="4")]
    assert read_conversation([{**SYSTEM, "role": "developer"}, ASKED], "x").system == "Be brief."
    answered = read_conversation([ASKED, ANSWERED], "x", answered=True)
    assert (answered.text, answered.response, answered.earlier) == ("2 + 2?", "4", [])


@pytest.mark.parametrize(
    ("messages", "answered", "sentence"),
    [
        (
            [ASKED, ANSWERED],
            False,
            "x: the conversation must end with a message of the user; where the last message is",
        ),
        ([SYSTEM], False, "x: the conversation must end with a message of the user"),
        ([ASKED], True, "x: the conversation must end with the assistant's message, the response to imitate"),
        ([ANSWERED], True, "x: the conversation must end with a message of the user, before the response"),
        ([ASKED, SYSTEM], False, "x: a system message may only come first"),
        ([{"role": "user", "content": " "}], False, "x: the last message of the user is empty"),
        ([{"from": "human", "value": "2"}], False, "x: message 1: its role is None; it must be system, user or"),
        ([{"role": "user"}], False, "x: message 1: has no content"),
        ([{"role": "user", "content": {"a": 1}}], False, "x: message 1: field 'content' is an object"),
        ([{"role": "user", "content": "\ud800"}], False, "x: message 1: field 'content' has half of a surrogate pair"),
        ([ASKED, {"role": "tool", "content": "4"}, ASKED], False, "x: message 2: tools cannot be used"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], False, "x: message 1: its content has a part of type"),
    ],
)
def test_conversations_that_cannot_be_used(messages: list[dict[str, Any]], answered: bool, sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        read_conversation(messages, "x", answered=answered)
    assert str(caught.value).startswith(sentence)


def test_the_prompts_of_a_file(tmp_path: Path) -> None:
    rows = [{"prompt": [SYSTEM, ASKED, ANSWERED, PARTS], "answer": 6}, {"prompt": [ASKED], "answer": 4}]
    task = load(tmp_path / "a.jsonl", rows, template="Q: {prompt}", system="Think.")
    first, second = task.prompt("train", 0), task.prompt("train", 1)
    assert (first.text, first.system, first.chat, len(first.earlier)) == ("Q: And 3 + 3?", "Be brief.", True, 2)
    assert (second.text, second.system, second.earlier) == ("Q: 2 + 2?", "Think.", [])
    with pytest.raises(
        DataError, match=r"a\.jsonl:1: field 'prompt' is a list of chat messages: set task\.options\.chat"
    ):
        load(tmp_path / "a.jsonl", rows, chat=False)


def test_conversations_that_differ_only_before_their_last_message_are_different_rows(tmp_path: Path) -> None:
    other = [{**ASKED, "content": "5 + 5?"}, ANSWERED, PARTS]
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({"prompt": [ASKED, ANSWERED, PARTS], "answer": 6}) + "\n")
    rows = [{"prompt": other, "answer": 6}, {"prompt": [ASKED, ANSWERED, PARTS], "answer": 6}]
    assert load(tmp_path / "a.jsonl", rows, path_test=str(test), deduplicate="exact").size("train") == 1


def test_responses_to_imitate(tmp_path: Path) -> None:
    whole = [{"messages": [ASKED, ANSWERED]}]
    task = load(tmp_path / "a.jsonl", whole, prompt_field="messages", response_field="messages", template="{prompt}")
    prompt, response = task.demonstration(0)
    assert (prompt.text, prompt.answer, response) == ("2 + 2?", "", "4")
    assert task.prompt("test", 0).text == "2 + 2?"
    apart = [{"prompt": [ASKED], "completion": [ANSWERED]}, {"prompt": "2 + 2?", "completion": "4"}]
    task = load(tmp_path / "b.jsonl", apart, response_field="completion")
    assert [task.demonstration(index)[1] for index in range(2)] == ["4", "4"]
    with pytest.raises(DataError, match="a response must be one message of the assistant, not 2 messages"):
        read_response([ASKED, ANSWERED], "x")
    with pytest.raises(DataError, match="is prompt and response at once, and no list of chat messages"):
        load(tmp_path / "c.jsonl", [{"prompt": "a"}], response_field="prompt")
