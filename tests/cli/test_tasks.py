"""What `rlsp tasks` and `rlsp demos` say."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from rlsp_async import cli
from rlsp_async.cli.tasks import show_demonstrations, show_tasks, task_of
from rlsp_async.errors import ConfigError
from rlsp_async.tasks.base import TASKS


def said(function, *arguments, **named) -> str:
    out = io.StringIO()
    assert function(*arguments, out=out, **named) == 0
    return out.getvalue()


@pytest.fixture
def rows(tmp_path: Path) -> str:
    path = tmp_path / "mine.jsonl"
    path.write_text(
        "".join(
            json.dumps({"prompt": f"What is {n} + 1?\x1b[2J", "answer": n + 1, "how": "count"}) + "\n"
            for n in range(60)
        )
    )
    return f"path_train={path}"


def test_every_task_is_listed_with_an_example() -> None:
    entries = said(show_tasks).split("\n\n")
    names = TASKS.names()
    assert [entry.split()[0] for entry in entries[:-1]] == names
    assert all("  prompt  " in entry and "  answer  " in entry for entry in entries[:-1])
    assert "needs   path_train" in entries[names.index("jsonl")]
    assert "Another name of `dataset`." in entries[names.index("hf")]
    assert "answer  72" in entries[names.index("gsm8k")]


def test_one_task_in_detail(rows: str) -> None:
    text = said(show_tasks, "jsonl", [rows, "limit=50"])
    assert "verifier  math\nsize      train 4" in text and ", test " in text
    assert "  path_train (required)\n      A file of rows, or a directory with splits.\n" in text
    assert '  deduplicate = "exact"\n' in text
    assert "prompt:    What is 0 + 1? [2J\nPut the final answer in \\boxed{}.\nreference: 1\n" in text
    assert "sizes and an example: add path_train=..." in said(show_tasks, "jsonl")


def test_a_task_whose_library_is_missing_can_be_read_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    text = said(show_tasks, "reasoning_gym", ["dataset=chain_sum"])
    assert "  dataset (required)" in text
    assert text.endswith("pip install 'rlsp_async[reasoning-gym]'\n")


def test_the_report_of_repeats(rows: str) -> None:
    text = said(show_tasks, "jsonl", [rows], report=True)
    assert "removed from training because a test row equals them: 0" in text
    assert "no rows of a file" in said(show_tasks, "ops", report=True)
    with pytest.raises(ConfigError, match="--report needs the name of a task"):
        show_tasks(report=True)


def test_demonstrations_with_options(rows: str) -> None:
    text = said(show_demonstrations, "jsonl", 2, [rows, "response_field=how", "template={prompt}"])
    assert text.count("response:  count\n") == 2
    assert "\x1b" not in text
    assert "has no demonstrations" in said(show_demonstrations, "jsonl", 1, [rows])
    assert said(show_demonstrations, "humaneval", 2).count("--- humaneval/test/") == 2


def test_options_come_on_top_of_a_config(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(
        'name = "x"\nseed = 7\n[task]\noptions = { k = 3, limit = 30 }\n[stages.sft]\nsource = '
        '"demonstrations"\nsteps = 1\ngroups_per_step = 1\n'
    )
    section, seed = task_of(str(tmp_path / "run.toml"), ["limit=20", "p_stop=0.5"])
    assert (section.options, seed) == ({"k": 3, "limit": 20, "p_stop": 0.5}, 7)


@pytest.mark.parametrize(
    "argv",
    [
        ["tasks", "opz"],
        ["tasks", "ops", "k=9"],
        ["demos", "ops", "kk=3"],
        ["demos", "jsonl"],
        ["tasks", "gsm8k", "limit"],
        ["demos", "ops", "-n", "0"],
    ],
)
def test_mistakes_are_one_line_and_exit_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and said.err.startswith("rlsp: ") and not said.out
