"""The Python API: its names, their types and docstrings, and that it does what the commands do."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rlsp_async
from rlsp_async import api, errors
from rlsp_async.config import RunConfig
from rlsp_async.runner import run as runner
from rlsp_async.runner.supervise import RunEnd
from tests.report.fake_run import make_run

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/python.md"


def page_source() -> str:
    """The code of docs/python.md, block after block."""
    return "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))


# --- names ---------------------------------------------------------------------------------------------------------


def typed_names() -> set[str]:
    """The names that a type checker sees: those under TYPE_CHECKING in rlsp_async/__init__.py."""
    tree = ast.parse((ROOT / "rlsp_async/__init__.py").read_text())
    guarded = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in ast.walk(guarded[0]) if isinstance(node, ast.ImportFrom)]
    return {alias.asname or "" for node in imports for alias in node.names}


def test_all_is_what_is_there():
    assert sorted(rlsp_async.__all__) == list(rlsp_async.__all__)
    assert typed_names() | {"__version__"} == set(rlsp_async.__all__)
    for name in rlsp_async.__all__:
        assert getattr(rlsp_async, name) is not None
    assert set(rlsp_async.__all__) <= set(dir(rlsp_async))
    assert set(api.__all__) <= set(rlsp_async.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rlsp_async.nothing


def test_every_name_has_a_docstring():
    for name in set(rlsp_async.__all__) - {"__version__"}:
        assert inspect.getdoc(getattr(rlsp_async, name)), name
    for name, member in vars(rlsp_async.Run).items():
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
            assert inspect.getdoc(member), f"Run.{name}"


def test_functions_show_arguments_returns_errors_and_an_example():
    for name in api.__all__:
        value = getattr(api, name)
        text = inspect.getdoc(value) or ""
        assert "Example:" in text, name
        if inspect.isfunction(value):
            assert all(f"{parameter}:" in text for parameter in inspect.signature(value).parameters), name
            assert "Raises:" in text, name


def test_names_are_imported_when_they_are_used():
    code = (
        "import sys, rlsp_async as rl\n"
        "rl.load_config({'name': 'mine', 'stages': {'rl': {}}}); rl.open_run; rl.run; rl.grade\n"
        "print(sorted({'torch', 'vllm', 'transformers', 'zmq'} & set(sys.modules)))\n"
        "print(rl.algos.grpo.Config().clip_low, 'torch' in sys.modules, rl.grade is rl.grade)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.stdout.splitlines() == ["[]", "0.2 True True"], done.stdout + done.stderr


def test_importing_a_module_hides_no_name():
    """A submodule becomes an attribute of its package: none may be called like a public function."""
    for name in rlsp_async.__all__:
        file = ROOT / "rlsp_async" / f"{name}.py"
        assert not (file.exists() or file.with_suffix("").is_dir()) or inspect.ismodule(getattr(rlsp_async, name)), name


@pytest.mark.timeout(300)
def test_code_of_a_user_passes_strict_type_checks(tmp_path):
    file = tmp_path / "page.py"
    file.write_text(page_source() + "\nreveal_type(rl.run)\nreveal_type(rl.open_run('x').report().evaluations)\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run([*command, str(file)], cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert "def (config: rlsp_async.config.schema.RunConfig" in done.stdout, done.stdout + done.stderr
    assert "list[rlsp_async.report.results." in done.stdout, done.stdout
    own = [line for line in done.stdout.splitlines() if line.startswith(str(file)) and ": error:" in line]
    assert not own, "\n".join(own)


# --- settings ------------------------------------------------------------------------------------------------------


def test_settings_come_from_a_file_or_a_mapping_with_overrides():
    from_file = api.load_config(ROOT / "launch/configs/ops_cpu.toml", ["seed=3", "stages.rlsp.steps=40"])
    assert (from_file.seed, from_file.stages["rlsp"].steps) == (3, 40)
    table: dict[str, Any] = {"name": "mine", "stages": {"rl": {"steps": 8}}}
    assert api.load_config(table, ["stages.rl.steps=9"]).stages["rl"].steps == 9
    assert table["stages"]["rl"] == {"steps": 8}, "the caller's mapping stays as it was"


def test_an_unknown_setting_names_the_nearest_known_one():
    with pytest.raises(errors.ConfigError, match=r"sampling\.temprature'; did you mean 'temperature'"):
        api.load_config({"name": "mine", "stages": {}}, ["sampling.temprature=1.0"])


# --- runs ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path: Path) -> RunConfig:
    return api.load_config({"name": "mine", "runs_dir": str(tmp_path), "stages": {"rl": {"steps": 8}}})


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (RunEnd(2, "no room"), errors.UserError),
        (RunEnd(3, "the loss is nan"), errors.DivergedError),
        (RunEnd(1, "learner-0 died 8 times"), errors.RlspError),
        (RunEnd(143, "stopped"), errors.RlspError),
        (RunEnd(130, "stopped"), KeyboardInterrupt),
    ],
)
def test_a_run_that_does_not_finish_is_an_error(monkeypatch, settings, end, error):
    settings.directory.mkdir(parents=True)
    monkeypatch.setattr(runner, "train", lambda cfg, stop: end)
    with pytest.raises(error) as caught:
        api.run(settings)
    assert type(caught.value) is error
    assert end.reason in str(caught.value)
    assert str(settings.directory) in str(caught.value)


def test_a_finished_run_is_returned(monkeypatch, settings):
    asked = []

    def train(cfg: RunConfig, stop: object) -> RunEnd:
        asked.append(cfg)
        return RunEnd(0)

    monkeypatch.setattr(runner, "train", train)
    assert api.run(settings) == api.Run(settings.directory)
    assert api.run({"name": "mine", "runs_dir": settings.runs_dir, "stages": {"rl": {}}}, ["stages.rl.steps=8"])
    assert asked == [settings, settings]
    with pytest.raises(TypeError, match="load_config"):
        api.run(settings, ["seed=1"])


def test_what_cannot_be_prepared_is_one_error_with_its_reason(tmp_path):
    """The check runs in a process of its own; its sentence comes back as an error of this one."""
    table = {"name": "mine", "runs_dir": str(tmp_path), "stages": {"rl": {}}, "task": {"name": "jsonl"}}
    options = ["replay.address=tcp://127.0.0.1:0", f"task.options.path_train={tmp_path / 'no.jsonl'}"]
    with pytest.raises(errors.UserError, match=r"no\.jsonl"):
        api.run(table, options)
    assert not (tmp_path / "mine").exists()


def test_a_run_is_read_from_its_directory(tmp_path):
    run = api.open_run(make_run(tmp_path / "fake"))
    assert run.config.seed == 7
    assert run.model_directory == tmp_path / "fake/final"
    assert [evaluation.when for evaluation in run.report().evaluations] == ["before", "after"]
    assert {row["stage"] for row in run.metrics()} == {"sft", "rlsp"}
    with pytest.raises(errors.DataError, match="journal"):
        next(run.rollouts())


def test_a_directory_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(errors.DataError, match=r"config\.toml"):
        api.open_run(tmp_path)


# --- verdicts ------------------------------------------------------------------------------------------------------


def test_answers_are_judged_in_their_order(tmp_path):
    rows = [{"gold": str(i % 3), "response": f"\\boxed{{{i % 2}}}"} for i in range(12)]
    verdicts = api.grade(rows, workers=1)
    assert [verdict.status for verdict in verdicts] == ["correct" if i % 3 == i % 2 else "wrong" for i in range(12)]
    assert verdicts[0].parts["correct"] == 1.0
    assert verdicts[0].verifier.startswith("math/")
    file = tmp_path / "answers.jsonl"
    file.write_text('{"gold": "7", "response": "it is 7"}\n')
    (verdict,) = api.grade(file, verifier="regex", options={"pattern": "is (\\d+)"}, workers=1)
    assert (verdict.status, verdict.extracted) == ("correct", "7")


def test_an_answer_that_cannot_be_used_is_an_error_that_names_it(tmp_path):
    with pytest.raises(errors.DataError, match="answer 2: .*gold"):
        api.grade([{"gold": "1", "response": "1"}, {"response": "2"}], workers=1)
    with pytest.raises(errors.ConfigError, match="did you mean 'math'"):
        api.grade([{"gold": "1", "response": "1"}], verifier="mat")
    with pytest.raises(errors.DataError, match="cannot be read"):
        api.grade(tmp_path / "none.jsonl")


# --- the page ------------------------------------------------------------------------------------------------------


@pytest.mark.flow
@pytest.mark.timeout(300)
def test_the_page_runs_from_a_script(tmp_path):
    """Real processes; the comments behind `print` say what it prints."""
    (tmp_path / "launch").symlink_to(ROOT / "launch")
    script = tmp_path / "elsewhere" / "page.py"
    script.parent.mkdir()
    script.write_text(page_source().replace('"seed=3"]', '"seed=3", "replay.address=tcp://127.0.0.1:0"]'))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    printed = done.stdout.splitlines()
    for shown in re.findall(r"^ *print\(.*\)  # (.+)$", page_source(), re.MULTILINE):
        parts = [part for part in shown.partition(",")[0].split("...") if part.strip()]
        assert any(all(part.strip() in line for part in parts) for line in printed), f"{shown}: {done.stdout}"
    assert re.search(r"^after rlsp 0\.\d+ \(", done.stdout, re.MULTILINE)
    assert (tmp_path / "runs/mine/final/config.json").is_file()


def test_every_public_name_is_on_the_page():
    text = PAGE.read_text()
    for name in set(rlsp_async.__all__) - {"__version__", "Report", "Run", "RunConfig", "Verdict"}:
        assert f"rl.{name}" in text, name


def test_algorithms_are_reached_by_name():
    assert rlsp_async.algos.grpo is importlib.import_module("rlsp_async.algos.grpo")
    with pytest.raises(AttributeError, match="grppo"):
        _ = rlsp_async.algos.grppo
