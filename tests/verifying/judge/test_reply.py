"""How the reply of a judge is read: scores in JSON and in prose, and what is no score."""

from __future__ import annotations

import pytest

from rlsp_async.verifying.judge.reply import JudgeReply, read_reply
from rlsp_async.verifying.judge.rubric import Rubric, choose_rubric
from tests.verifying.growth import grows_linearly

UNIT = choose_rubric("exploration")
SAME = choose_rubric("correctness")
TEN = Rubric("{response}", 0, 10)
FIVE = Rubric("{response}", 1, 5, takes_yes=False)


@pytest.mark.parametrize(
    "text",
    [
        '{"score": 0.7, "reason": "two"}',
        ' {"reason": "two", "score": 0.7, "more": {}}\n',
        '<think>{"score": 0}</think>{"score": 0.7, "reason": "two"}',
        '[THINK]0.1[/THINK]{"score": 0.7, "reason": "two"}',
        '{"score": 7e-1, "reason": "two"}',
        '{"score": 0.70, "reason": "two"}',
        '{"score": 70E-2, "reason": "two"}',
    ],
)
def test_strict(text: str) -> None:
    assert read_reply(text, UNIT) == JudgeReply(0.7, "two", False)


@pytest.mark.parametrize(
    "text",
    [
        'Sure!\n```json\n{"score": 0.7, "reason": "two"}\n```\nBye {',
        '```\n{"score": 0.7, "reason": "two"}\n```',
        'First {"score": 0.1, "reason": "x"}, no: {"score": 0.7, "reason": "two"}.',
        '{"score": "0.7", "reason": "two"}',
        '{"score": ".7", "reason": "two"}',
        '{"score": "7e-1", "reason": "two"}',
        '{"score": "7/10", "reason": "two"}',
        '{"score": "7 out of 10", "reason": "two"}',
        '{"score": "70%", "reason": "two"}',
        '{"score": "0,7", "reason": "two"}',
        '{"Score": 0.7, "Reason": "two"}',
        '{"rating": 0.7, "explanation": "two"}',
        '{"overall_score": 0.7, "rationale": "two", "depth": 0.1}',
        '[{"score": 0.7, "reason": "two"}]',
        '{"grade": {"score": 0.7, "reason": "two"}}',
        '{{{"score": 0.7, "reason": "two"}',
    ],
)
def test_objects_inside_other_text_and_other_spellings(text: str) -> None:
    assert read_reply(text, UNIT) == JudgeReply(0.7, "two", True)


@pytest.mark.parametrize(
    "text",
    [
        "0.7",
        ".7",
        "+0.7",
        "7e-1",
        "0,7",
        "70%",
        "70 percent",
        "70 per cent.",
        "7/10",
        "7 / 10",
        "**7**/10",
        "**7/10**",
        "3.5 out of 5",
        "seven out of ten",
        "\u2077\u2044\u2081\u2080",
        "\uff10.\uff17",
        "The score is 0.7.",
        "I give it 7 out of 10.",
        "I would rate this 7/10 because it is fine.",
        "Score: 0.7",
        "Score: 0.7/1",
        "Score: 0.7 out of 1",
        "**Score:** 0.7",
        "**Score: 0.7**",
        "Final score = .7",
        "Rating: [[0.7]]",
        "[[0.7]]",
        "<score>0.7</score>",
        "\\boxed{0.7}",
        "score of 0.7",
        "Grade: 70%",
        "2 approaches, 3 steps. Score: 0.7",
        "Score: 0.2 at first, but the final score is 0.7",
        "On a scale of 0 to 1, it deserves 0.7",
        "On a scale from 0 to 1: 0.7",
        "Between 0 and 1, I say 0.7.",
        '{"score": 0.7, "reason": "cut o',
        '{"score": 0.7, "reason": "two",}',
        "{'score': 0.7, 'reason': 'two'}",
        "{score: 0.7}",
        '{"score": .7, "reason": "two"}',
        '{"score": 7/10}',
        '{"score": 70%}',
        '{"score": .., "grade": 0.7}',
        "```\n0.7\n```",
        "score=0.7; reason=two",
        "Reason: two ideas.\nScore: 0.7\n",
        "Score: 0.7\n\nIt has 2 ideas and 14 steps.",
    ],
)
def test_prose(text: str) -> None:
    reply = read_reply(text, UNIT)
    assert reply is not None
    assert (round(reply.score, 9), reply.reason, reply.is_fallback) == (0.7, "", True)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("I give it 7/10.", 7.0),
        ("10/10", 10.0),
        ("7", 7.0),
        ("70%", 7.0),
        ("3.5/5", 7.0),
        ("Score: 7/10 (not 8/10)", 7.0),
        ("yes", None),
        ("11", None),
        ("11/10", None),
        ("120%", None),
    ],
)
def test_out_of_ten(text: str, score: float | None) -> None:
    reply = read_reply(text, Rubric("{response}", 0, 10, takes_yes=False))
    assert (reply and reply.score) == score


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("4", 4.0),
        ("4/5", 4.0),
        ("Rating: 4 out of 5", 4.0),
        ("75%", 4.0),
        ("four points", 4.0),
        ("8/10", None),
        ("0", None),
        ("6", None),
    ],
)
def test_one_to_five(text: str, score: float | None) -> None:
    reply = read_reply(text, FIVE)
    assert (reply and reply.score) == score


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("yes", 1.0),
        ("Yes.", 1.0),
        ("**Yes**", 1.0),
        ("YES", 1.0),
        ("Yes, both are the same.", 1.0),
        ("Correct", 1.0),
        ("true", 1.0),
        ("Verdict: correct", 1.0),
        ("The answers differ only in form. Final verdict: yes", 1.0),
        ("[[yes]]", 1.0),
        ('{"score": "yes"}', 1.0),
        ('{"score": true}', 1.0),
        ('{"correct": true, "reason": "x"}', 1.0),
        ('{"verdict": "incorrect"}', 0.0),
        ('{"is_correct": "no"}', 0.0),
        ("no", 0.0),
        ("No, it is 5.", None),
        ("Correct: 4", None),
        ("No, they differ.", 0.0),
        ("Incorrect.", 0.0),
        ("Not correct", 0.0),
        ("**Judgement: wrong**", 0.0),
        ("1", 1.0),
        ("0", 0.0),
        ("Yes or no", None),
        ("yes and no", None),
        ("Verdict: yes. Verdict: no.", None),
        ("It says yes", None),
        ("Nothing", None),
        ("Yesterday", None),
    ],
)
def test_yes_and_no(text: str, score: float | None) -> None:
    reply = read_reply(text, SAME)
    assert (reply and reply.score) == score


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no idea",
        "yes",
        "2 approaches, so 0.7",
        "0.3 or 0.7",
        '{"score": 1.5, "reason": "x"}',
        '{"score": -0.1}',
        '{"score": true}',
        '{"score": null}',
        '{"score": NaN}',
        '{"score": Infinity}',
        '{"score": 1e999}',
        '{"score": "high"}',
        '{"score": [0.7]}',
        '{"depth": 0.7, "breadth": 0.2}',
        "Score: 1.7",
        "Score: high",
        "185%",
        "-0.7",
        "8/7",
        "v0.7.1",
        '{"score": 0.5} {"score": 7}',
        "<think>0.7",
        "[THINK]0.7",
        "[" * 9000,
        '{"a":' * 9000,
        "{" * 9000,
        '{"score": ' + "9" * 9000 + "}",
        "x0.5",
    ],
)
def test_no_score(text: str) -> None:
    assert read_reply(text, UNIT) is None


@pytest.mark.parametrize(
    "form", ["{}", "Score: {}", '{{"score": {}}}', "I give {}.", "[[{}]]", "**{}**", '```json\n{{"score": {}}}\n```']
)
def test_every_score_comes_out_of_every_form(form: str) -> None:
    for hundredths in range(101):
        for shown in (f"{hundredths / 100}", f"{hundredths / 100:.2f}", f"{hundredths}e-2"):
            reply = read_reply(form.format(shown), UNIT)
            assert reply is not None, form.format(shown)
            assert abs(reply.score - hundredths / 100) < 1e-12


@pytest.mark.parametrize(
    "piece", ["{", '{"score":', "1.", "1 ", "```{", '{"a":[', "</think>", "score ", "1/", "yes ", "1 out of "]
)
def test_megabytes_take_linear_time(piece: str) -> None:
    assert grows_linearly(lambda num: read_reply(piece * (num // len(piece)), UNIT), 60_000)
