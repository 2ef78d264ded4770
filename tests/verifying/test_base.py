"""Loading a verifier by its name, and the contract that every shipped verifier keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlsp_async import config
from rlsp_async.errors import ConfigError, DataError
from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import VERIFIERS, Verifier, check_verifier, load_verifier, verifier_name

HERE = "tests.verifying"
GOLD = {
    "ops": ("1 2 -> 3 <think>", "</think> +", "3"),
    "countdown": ("", "<answer>1+2</answer>", "1 2 -> 3"),
    "math": ("", "\\boxed{3}", "3"),
    "exact": ("", "<answer>a</answer>", "a"),
    "regex": ("", "a", "a|b"),
    "choice": ("A) 1 B) 2", "(B)", "B"),
    "format": ("", "<think>a</think><answer>b</answer>", ""),
    "length": ("", "a", ""),
    "abstain": ("", "\\boxed{3}", "3"),
    "code": ("", "def f(x): return x", "assert f(1) == 1"),
    "addition": ("1 + 2 <think>", "</think> 3", "3"),
}
OPTIONS = {"length": {"least": 1}}
OWN_TESTS = {"claim", "executable", "judge", "reasoning_gym"}
"""Verifiers that need options or another process; they are tested in files of their own."""


def test_verifiers_that_ship() -> None:
    assert set(VERIFIERS.names()) == set(GOLD) | OWN_TESTS


@pytest.mark.parametrize("name", GOLD)
def test_contract(name: str) -> None:
    verifier, (prompt, response, answer) = load_verifier(name, OPTIONS.get(name)), GOLD[name]

    def judge(response: str) -> Verdict:
        verifier.prepare(512)
        return verifier.judge(prompt, response, answer)

    right, nothing = judge(response), judge("")
    assert (right.status, right.parts["correct"], right.parts["format"]) == ("correct", 1.0, 1.0)
    assert (nothing.status, nothing.parts["correct"], nothing.parts["format"]) == ("unparsable", 0.0, 0.0)
    assert right.parts.keys() == nothing.parts.keys()
    assert judge(response) == right
    assert verifier.name == f"{name}/{verifier.VERSION}"
    assert verifier.lane == ("isolated" if name == "code" else "fast")


def test_unknown_verifier() -> None:
    with pytest.raises(ConfigError, match="unknown name 'maths'; did you mean 'math'"):
        load_verifier("maths")


def test_options_are_decoded_and_a_wrong_one_is_named() -> None:
    assert load_verifier(f"{HERE}.own_verifier").judge("", "no", "yes").parts == {"correct": 0.0, "format": 1.0}
    loose = load_verifier(f"{HERE}.own_verifier", {"accept": ["no"]})
    assert loose.judge("", "no", "yes").status == "correct" and loose.lane == "network"
    with pytest.raises(ConfigError, match="'task.verifier_options.acept'; did you mean 'accept'"):
        load_verifier(f"{HERE}.own_verifier", {"acept": ["no"]})
    with pytest.raises(ConfigError, match="task.verifier_options: verifier 'ops' takes no options"):
        load_verifier("ops", {"case": True})


def test_a_verifier_may_be_a_file_and_answer_with_a_number(tmp_path: Path) -> None:
    path = tmp_path / "lengths.py"
    path.write_text('VERSION = "7"\ndef score(prompt, response, answer):\n    return len(response) / len(answer)\n')
    verifier = load_verifier(str(path))
    assert (verifier.name, verifier.lane) == ("lengths/7", "isolated")
    assert verifier.judge("", "ab", "abcd") == Verdict(
        status="wrong", parts={"correct": 0.0, "score": 0.5, "format": 1.0}
    )
    assert verifier.judge("", "abcd", "abcd").status == "correct"


@pytest.mark.parametrize(("value", "error"), [("'1'", TypeError), ("None", TypeError), ("float('nan')", ValueError)])
def test_what_is_no_score_is_an_error(tmp_path: Path, value: str, error: type[Exception]) -> None:
    path = tmp_path / "bad.py"
    path.write_text(f'VERSION = "1"\ndef score(prompt, response, answer):\n    return {value}\n')
    with pytest.raises(error, match="score returned"):
        load_verifier(str(path)).judge("", "", "")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "no such file"),
        ("def score(*words): return 1", 'offers no .VERSION.; add VERSION = "1"'),
        ("VERSION = '1'", "offers neither score nor Config and load"),
        (
            "VERSION, LANE, score = '1', 'slow', print",
            "has LANE = 'slow'; the lanes are fast, isolated, network, program",
        ),
    ],
)
def test_a_file_that_is_no_verifier(tmp_path: Path, text: str | None, sentence: str) -> None:
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        load_verifier(str(path))


def test_a_verifier_that_would_be_killed_before_it_gives_up_is_refused() -> None:
    options = {"base_url": "http://127.0.0.1:1/v1", "model": "m", "timeout_s": 5.0}
    task = config.TaskConfig(verifier="judge", verifier_options=options)
    stages = {"s": config.StageConfig()}
    with pytest.raises(ConfigError, match="may take 5 s and would be killed before it gives up; set it above 5"):
        check_verifier(config.RunConfig(name="r", stages=stages, task=task))
    check_verifier(config.RunConfig(name="r", stages=stages, task=task, verifier=config.VerifierConfig(deadline_s=6.0)))


def test_the_run_may_name_another_verifier_than_the_task() -> None:
    stages = {"s": config.StageConfig()}
    assert verifier_name(config.RunConfig(name="r", stages=stages)) == "ops"
    assert verifier_name(config.RunConfig(name="r", stages=stages, task=config.TaskConfig(verifier="exact"))) == "exact"


# --- several acceptable answers ----------------------------------------------------------------------------------------


class Scripted:
    """A scorer whose verdict depends on the reference answer alone; it keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def score(self, prompt: str, response: str, answer: str) -> Verdict | float:
        self.asked.append(answer)
        if answer == "unreadable":
            raise DataError("unreadable")
        if answer.startswith("."):
            return float(answer)
        return Verdict(status=answer)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("golds", "status", "num_asked"),
    [
        ("wrong|correct|wrong", "correct", 2),
        ("unreadable|correct", "correct", 2),
        ("unparsable|wrong", "wrong", 2),
        ("wrong|timeout|wrong", "timeout", 3),
        ("timeout|correct", "correct", 2),
        ("unreadable|wrong", "wrong", 2),
    ],
)
def test_any_acceptable_answer_is_right(golds: str, status: str, num_asked: int) -> None:
    scorer = Scripted()
    verifier = Verifier(name="x/1", VERSION="1", lane="fast", scorer=scorer)
    assert verifier.judge("", "", golds.replace("|", "\x1e")).status == status
    assert len(scorer.asked) == num_asked


def test_the_best_score_counts_and_a_prompt_without_a_readable_answer_is_a_fault_of_the_data() -> None:
    verifier = Verifier(name="x/1", VERSION="1", lane="fast", scorer=Scripted())
    assert verifier.judge("", "", ".25\x1e.75\x1e.5").parts["score"] == 0.75
    with pytest.raises(DataError, match="unreadable"):
        verifier.judge("", "", "unreadable\x1eunreadable")


@pytest.mark.parametrize(("text", "status"), [("4", "correct"), ("four", "correct"), ("[4, four]", "wrong")])
def test_lists_for_a_shipped_verifier(text: str, status: str) -> None:
    assert load_verifier("exact").judge("", f"<answer>{text}</answer>", "4\x1efour").status == status
