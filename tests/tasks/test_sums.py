"""Sums with a tool: demonstrations of several turns, and how they are encoded."""

import pytest

from rlsp_async.errors import DataError
from rlsp_async.tasks import sums
from rlsp_async.tasks.base import Said, demonstrated
from rlsp_async.tasks.fitted import FittedTask, RowChanges
from rlsp_async.tokens import encode_demonstration
from rlsp_async.verifying import addition

TASK = sums.load(sums.Config(p_call=1.0), 0)
ALONE = sums.load(sums.Config(p_call=0.0, p_slip=1.0), 0)


def test_a_teacher_who_calls_says_the_result_of_the_tool():
    prompt, said = TASK.conversation(3)
    numbers = prompt.text.removesuffix(" <think>")
    digits = " ".join(prompt.answer)
    assert said == [
        Said("model", f"<call> {numbers} </call>"),
        Said("environment", f"<result> {digits} </result>"),
        Said("model", f"</think> {digits}"),
    ]
    assert addition.score(prompt.text, said[-1].text, prompt.answer).status == "correct"
    assert TASK.demonstration(3) == (prompt, said[-1].text)
    assert TASK.prompt("train", 3) == prompt


def test_a_teacher_who_does_not_call_slips():
    right = 0
    for index in range(50):
        prompt, said = ALONE.conversation(index)
        assert len(said) == 1
        right += addition.score(prompt.text, said[0].text, prompt.answer).status == "correct"
    assert right == 0
    with pytest.raises(DataError, match="there are 1000"):
        ALONE.prompt("test", 1000)


def test_turns_are_demonstrated_only_where_there_is_an_environment():
    assert len(demonstrated(TASK, 0, has_environment=True)[1]) == 3
    assert demonstrated(TASK, 0, has_environment=False)[1] == [Said("model", TASK.demonstration(0)[1])]
    left = FittedTask(TASK, RowChanges(dropped={}, cut={}, demonstrations=[5, 7]))
    assert demonstrated(left, 3, has_environment=True)[1] == TASK.conversation(7)[1]


def test_only_what_the_model_says_is_imitated():
    tokenizer, (prompt, said) = TASK.tokenizer(), TASK.conversation(3)
    made = encode_demonstration(tokenizer, prompt, said)
    words = tokenizer.convert_ids_to_tokens(made.ids.tolist())
    assert " ".join(words) == f"{said[0].text} <eos> {said[1].text} {said[2].text} <eos>"
    seen = [word for word, version in zip(words, made.versions, strict=True) if version < 0]
    assert " ".join(seen) == said[1].text
    assert [words[at] for at in made.turns] == ["<call>", "</think>"]
    alone = encode_demonstration(tokenizer, prompt, said[-1:])
    assert (alone.turns, set(alone.versions.tolist())) == ([], {-1})
