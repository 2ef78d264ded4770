"""`rlsp selftest`: one process a trial, a deadline for each, and no failure that ends another."""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlsp_async.cli.command import main
from rlsp_async.errors import ConfigError
from rlsp_async.selftest import child, trials
from rlsp_async.selftest.run_trials import read_findings, run_trial, run_trials, trial_environment
from rlsp_async.selftest.trials import Outcome, Trial, TrialNote, TrialSite, chosen, lacking, table

ALL = (*trials.BASICS, *trials.GPU)
HAS = {"cuda": False, "cards": False, "vllm": True, "labels": True}


@pytest.mark.parametrize("step", ALL, ids=[step.name for step in ALL])
def test_every_step_has_its_function_and_its_needs_are_known(step: Trial) -> None:
    assert callable(child.function_of(step.name))
    assert set(step.needs) <= set(trials.NEEDS)


def test_steps_by_name_come_in_their_own_order() -> None:
    assert [step.name for step in chosen("resume, vllm", trials.GPU)] == ["vllm", "resume"]
    assert chosen("", trials.GPU) == list(trials.GPU)
    with pytest.raises(ConfigError, match="--steps nccl: there is no such step; there is facts, "):
        chosen("nccl", trials.GPU)


def test_the_steps_fit_into_ten_minutes_of_which_each_has_its_share() -> None:
    assert all(step.seconds <= 240 for step in ALL)
    assert trials.GPU[0].name == "facts"


def test_what_is_missing_is_said_in_words() -> None:
    pair = trials.find_step("nccl-pair")
    assert lacking(pair, HAS) == "a CUDA device and two CUDA devices"
    assert lacking(pair, {**HAS, "cuda": True, "cards": True}) == ""


def test_an_error_is_the_last_finding_of_a_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def trial(site: TrialSite) -> Iterator[TrialNote]:
        yield TrialNote(text="this works")
        raise RuntimeError("no kernel image\nis available")

    found = list(child.guarded(trial, TrialSite(device="cpu", directory=tmp_path)))
    assert [(finding.text, finding.ok) for finding in found] == [
        ("this works", True),
        ("RuntimeError: no kernel image", False),
    ]
    assert "Traceback" in capsys.readouterr().err


def test_a_trial_that_does_not_end_costs_itself_alone(tmp_path: Path) -> None:
    slow = trials.find_step("message")
    outcome = run_trial(slow, "cpu", tmp_path, deadline_s=0.05)
    assert outcome.status == "failed"
    assert f"not done after 0 s, see {tmp_path / 'message.log'}" in outcome.text


def test_what_a_trial_had_found_before_it_died_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text":"first"}\n{"text":"sec')
    assert read_findings(path) == [TrialNote(text="first")]
    assert read_findings(tmp_path / "none") == []


def test_a_step_that_fails_ends_no_other_and_the_budget_holds(tmp_path: Path) -> None:
    broken = Trial(name="no-such-step", shows="", function="basics:none", seconds=30)
    pair, message = trials.find_step("nccl-pair"), trials.find_step("message")
    said: list[str] = []
    outcomes = run_trials([broken, pair, message], "cpu", tmp_path / "a", 100.0, said.append, HAS)
    assert [outcome.status for outcome in outcomes] == ["failed", "skipped", "passed"]
    assert "its process ended with exit code 1" in outcomes[0].text
    assert "a hub answered over tcp" in outcomes[2].text
    assert said[1] == "nccl-pair: skipped, 0.0 s: needs a CUDA device and two CUDA devices"
    (late,) = run_trials([message], "cpu", tmp_path / "b", 0.5, said.append, HAS)
    assert late.text == "the 0 s of all steps together are over"


def test_the_table_says_what_failed_or_else_what_was_found() -> None:
    good, bad = TrialNote(text="fine"), TrialNote(text="wrong by 3", ok=False)
    rows = table(
        [
            Outcome(step="a", status="passed", seconds=1.0, findings=[good, good]),
            Outcome(step="longer", status="failed", seconds=12.34, findings=[good, bad]),
        ]
    )
    assert rows == ["a       passed      1.0 s  fine; fine", "longer  failed     12.3 s  wrong by 3"]


def test_a_trial_on_a_cpu_sees_no_gpu() -> None:
    base = {"CUDA_VISIBLE_DEVICES": "0,1", "PYTHONPATH": "/mine"}
    assert trial_environment(base, "cpu")["CUDA_VISIBLE_DEVICES"] == ""
    assert trial_environment(base, "cuda")["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert trial_environment(base, "cuda")["PYTHONPATH"].endswith(":/mine")


def test_the_command_lists_runs_and_keeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--gpu", "--device", "cpu", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(trials.GPU)
    assert [line for line in lines if line.startswith("nccl-alone") and line.endswith("[needs a CUDA device]")]
    out = tmp_path / "out"
    assert main(["selftest", "--steps", "message", "--dir", str(out)]) == 0
    kept = json.loads((out / "selftest.json").read_text())
    assert kept["device"] == "cpu"
    assert kept["outcomes"][0]["status"] == "passed"
    assert main(["selftest", "--steps", "message", "--dir", str(out)]) == 2
    assert "is not empty; give a new one" in capsys.readouterr().err


def test_without_a_gpu_the_command_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rlsp_async.selftest.run_trials.num_cards", lambda: 0)
    assert main(["selftest", "--gpu"]) == 2
    assert "rlsp: torch sees no CUDA device here" in capsys.readouterr().err


def test_a_failed_step_is_exit_code_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    bad = Outcome(step="message", status="failed", findings=[TrialNote(text="no answer", ok=False)])
    monkeypatch.setattr("rlsp_async.selftest.run_trials.run_trials", lambda *_: [bad])
    assert main(["selftest", "--steps", "message"]) == 2
    assert "1 of 1 steps failed: message; --dir DIR keeps their logs" in capsys.readouterr().out


def test_the_script_for_a_lent_card_keeps_its_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[2] / "benchmarks/gpu.py"
    spec = importlib.util.spec_from_file_location("gpu_script", path)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    plain = argparse.Namespace(out="")
    rest = ["--device", "cpu", "--steps", "facts"]
    assert script.words(plain, rest, {"OUT": "/o"}) == ["selftest", "--gpu", "--dir", "/o/gpu", *rest]
    assert script.words(argparse.Namespace(out="d"), [], {"OUT": "/o"})[-2:] == ["--dir", "d"]
    assert script.main(["--out", str(tmp_path / "made"), *rest]) == 0
    assert "Python 3." in capsys.readouterr().out
    assert (tmp_path / "made/selftest.json").is_file()
