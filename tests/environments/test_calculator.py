"""The tool that computes, and how calls are found in a turn."""

import pytest

from rlsp_async.config import EnvironmentConfig
from rlsp_async.environments.base import End, Observation, load_environment
from rlsp_async.environments.calculator import compute, make
from rlsp_async.environments.calls import find_call
from rlsp_async.errors import ConfigError
from rlsp_async.messages import Prompt

PROMPT = Prompt(prompt_id="p", task="t", text="q", answer="a")


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("3 4 7 + 1 0 9", 456),
        ("3 4 + 2 * (1 - 5)", 26),
        ("2 * 3 * 4 - 1", 23),
        ("-(2 - 5) * 4", 12),
        ("--7", 7),
        ("10 - 2 - 3", 5),
        ("(((1)))", 1),
        ("0", 0),
    ],
)
def test_what_is_computed(expression, value):
    assert compute(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "+",
        "1 +",
        "1 1 x",
        "(1",
        "1)",
        "1 / 2",
        "2 ** 3",
        "9" * 51,
        "9" * 30 + "*" + "9" * 30,
        "(" * 200 + "1",
        "-" * 999 + "1",
        "1+" * 600 + "1",
        "\u0661 + 1",
        "__import__('os')",
        "1e9",
        "1.5",
    ],
)
def test_what_is_no_sum_is_refused_in_bounded_time(expression):
    with pytest.raises(ValueError, match="."):
        compute(expression)


def test_the_last_call_of_a_turn_counts():
    assert find_call("no call") is None
    assert find_call("<call> 1 + 1 </call> or <call> 2 </call> then").arguments == {"text": "2"}
    assert find_call("<call> 1 <call> 2 </call>").arguments == {"text": "2"}
    assert find_call("<call> 1 + 1") is None
    tagged = find_call('<tool_call>\n{"name": "calculator", "arguments": {"expression": "1+1"}}\n</tool_call>')
    assert (tagged.name, tagged.arguments, tagged.is_plain, tagged.problem) == (
        "calculator",
        {"expression": "1+1"},
        False,
        "",
    )
    assert find_call("<tool_call>[1]</tool_call>").problem.startswith("a call is")
    assert "not JSON" in find_call("<tool_call>{</tool_call>").problem
    assert "not JSON" in find_call("<tool_call>" + "[" * 50_000 + "</tool_call>").problem
    assert find_call("<call> 1 </call>" + "x" * 200_000) is None
    assert find_call("<call>" * 20_000) is None  # in linear time


def test_a_call_is_answered_and_a_turn_without_one_ends():
    tool = make({})
    assert tool.reset(PROMPT, 1) == Observation(text="")
    assert tool.step("<call> 3 4 7 + 1 0 9 </call>") == Observation(text="<result> 4 5 6 </result>")
    assert tool.step("<call> 3 + </call>") == Observation(text="<result> x </result>")
    chat = '<tool_call>{"name": "calculator", "arguments": {"expression": "347+109"}}</tool_call>'
    assert tool.step(chat) == Observation(text="456")
    assert tool.step('<tool_call>{"name": "python", "arguments": {}}</tool_call>').text.startswith("error: the tool")
    assert tool.step("</think> 4 5 6") == End(parts={"calls": 4.0, "failed_calls": 2.0})


def test_the_control_answers_rubbish():
    assert make({"wrong_by": 1}).step("<call> 1 + 1 </call>") == Observation(text="<result> 3 </result>")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"name": "calcullator"}, "did you mean 'calculator'"),
        ({"name": "calculator", "options": {"wrong": 1}}, "wrong_by"),
        ({"name": "json"}, "task.environment.name"),
    ],
)
def test_a_wrong_setting_is_one_sentence(settings, why):
    with pytest.raises(ConfigError, match=why):
        load_environment(EnvironmentConfig(**settings))
