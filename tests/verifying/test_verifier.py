"""Finding a verifier by its name or file, its options; the laws that every shipped one keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlsp_async import config
from rlsp_async.errors import ConfigError
from rlsp_async.messages import Verdict
from rlsp_async.modules import known_names
from rlsp_async.verifying.verifier import NEEDS, PACKAGE, as_verdict, load_verifier, verifier_name

GOLD = {"ops": ("1 2 -> 3 <think>", "</think> +", "3"), "countdown": ("", "<answer>1+2</answer>", "1 2 -> 3"),
        "math": ("", "\\boxed{3}", "3"), "exact": ("", "<answer>a</answer>", "a"),
        "code": ("", "def f(x): return x", "assert f(1) == 1")}
OWN_TESTS = {"executable"}
"""Those that are nothing without options."""

WITH_OPTIONS = """
from rlsp_async.config import Section
from rlsp_async.verifying.verifier import judged

VERSION = "4"
LANE = "network"


class Config(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    tolerance: float = 0.0


class Near:
    def __init__(self, cfg):
        self.cfg = cfg

    def score(self, prompt, response, answer):
        return judged(abs(float(response) - float(answer)) <= self.cfg.tolerance, response)


def load(cfg):
    return Near(cfg)
"""


def test_verifiers_that_ship() -> None:
    assert set(known_names(PACKAGE, NEEDS)) == set(GOLD) | OWN_TESTS


@pytest.mark.parametrize("name", GOLD)
def test_contract(name: str) -> None:
    verifier, (prompt, response, answer) = load_verifier(name), GOLD[name]
    def score(response: str) -> Verdict:
        verifier.prepare(512)
        return verifier.score(prompt, response, answer)

    right, nothing = score(response), score("")
    assert (right.status, right.parts["correct"], right.parts["format"]) == ("correct", 1.0, 1.0)
    assert (nothing.status, nothing.parts["correct"], nothing.parts["format"]) == ("unparsable", 0.0, 0.0)
    assert right.parts.keys() == nothing.parts.keys()
    assert score(response) == right
    assert isinstance(verifier.VERSION, str)


def test_unknown_verifier() -> None:
    with pytest.raises(ConfigError, match="unknown name 'maths'; did you mean 'math'"):
        load_verifier("maths")


def test_the_run_may_name_another_verifier_than_the_task() -> None:
    stages = {"s": config.Stage()}
    assert verifier_name(config.RunConfig(name="r", stages=stages)) == "ops"
    assert verifier_name(config.RunConfig(name="r", stages=stages, task=config.Task(verifier="exact"))) == "exact"


def test_a_file_with_options(tmp_path: Path) -> None:
    file = tmp_path / "near.py"
    file.write_text(WITH_OPTIONS)
    strict, mild = load_verifier(str(file)), load_verifier(str(file), {"tolerance": 0.5})
    assert (strict.name, strict.VERSION, strict.lane) == ("near", "4", "network")
    assert [v.score("", "3.2", "3").status for v in (strict, mild)] == ["wrong", "correct"]


@pytest.mark.parametrize(("options", "text"), [
    ({"tolerence": 1.0}, "unknown key 'task.verifier_options.tolerence'; did you mean 'tolerance'?"),
    ({"tolerance": "much"}, "task.verifier_options.tolerance: Expected `float`, got `str`"),
])  # fmt: skip
def test_a_wrong_option_is_named(options: dict[str, object], text: str, tmp_path: Path) -> None:
    file = tmp_path / "near.py"
    file.write_text(WITH_OPTIONS)
    with pytest.raises(ConfigError) as caught:
        load_verifier(str(file), options)
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_a_verifier_without_options_takes_none() -> None:
    with pytest.raises(ConfigError, match="task.verifier_options.strict: verifier 'ops' has no options"):
        load_verifier("ops", {"strict": True})


@pytest.mark.parametrize(("source", "text"), [
    ("VERSION = '1'", "neither 'score' nor 'Config' and 'load'"), ("def score(*_): ...", "offers no 'VERSION'"),
    ("VERSION = '1'\nLANE = 'fats'\ndef score(*_): ...", "LANE = 'fats'; there is fast, isolated, network, program"),
])  # fmt: skip
def test_a_file_that_is_no_verifier(source: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "half.py"
    file.write_text(source)
    with pytest.raises(ConfigError, match=text):
        load_verifier(str(file))


def test_a_file_that_is_missing() -> None:
    with pytest.raises(ConfigError, match="no file 'mine/nothing.py'"):
        load_verifier("mine/nothing.py")


def test_numbers_are_verdicts() -> None:
    assert as_verdict(1) == Verdict(status="correct", parts={"correct": 1.0, "format": 1.0, "score": 1.0})
    assert as_verdict(0.75) == Verdict(status="wrong", parts={"correct": 0.0, "format": 1.0, "score": 0.75})
    for nothing in (None, True, "1"):
        with pytest.raises(TypeError, match="neither Verdict nor float"):
            as_verdict(nothing)
    for number in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not a finite number"):
            as_verdict(number)
