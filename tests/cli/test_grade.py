"""`rlsp grade` with real checker processes: order, bad lines, deadlines, and a corpus that wants to break it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlsp_async import cli
from tests.verifying import hostile
from tests.verifying.math import corpus

ROOT = Path(__file__).parents[2]
CANARY = [{"gold": "7", "response": "\\boxed{7}"}, {"gold": "7", "response": "\\boxed{8}"}]
GOOD = ["correct", "wrong"]


def run(tmp_path: Path, lines: list[Any], *options: str) -> tuple[int, list[dict[str, Any]]]:
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    code = cli.main(["grade", str(file), "--out", str(out), *options])
    return code, [json.loads(line) for line in out.read_text().splitlines()]


def test_verdicts_in_order_and_bad_lines_among_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        {"gold": "1/2", "response": "so \\boxed{0.5}"},
        "nonsense",
        {"gold": 3},
        "",
        {"gold": 7, "response": "it is 8"},
        {"gold": "7", "response": "none"},
        {"gold": "yes", "response": "<answer>Yes</answer>", "verifier": "exact"},
        {"gold": "7", "response": "7", "verifier": "exakt"},
        {"gold": "", "response": "7"},
    ]
    code, records = run(tmp_path, lines)
    assert code == 2
    assert [record["line"] for record in records] == [1, 2, 3, 5, 6, 7, 8, 9]
    assert [record["status"] for record in records] == [
        "correct",
        "bad_line",
        "bad_line",
        "wrong",
        "unparsable",
        "correct",
        "bad_line",
        "error",
    ]
    assert [record["correct"] for record in records] == [True, None, None, False, False, True, None, None]
    assert records[0]["parts"].items() >= {"correct": 1.0, "format": 1.0, "search_steps": 0.0}.items()
    assert records[0]["extracted"] == "0.5"
    assert "`response`" in records[2]["detail"] and "did you mean 'exact'" in records[6]["detail"]
    told = capsys.readouterr().err
    assert "fast lane" in told and "no network, no writing, no processes" in told and "3 bad lines" in told


def test_options_and_the_variables_that_they_name_reach_the_checkers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORD_FOR_TEST", "open")
    lines = [{"gold": "yes", "response": word} for word in ("yes", "aye", "open", "no")]
    code, records = run(
        tmp_path,
        lines,
        "--verifier",
        "tests.verifying.own_verifier",
        "--option",
        'accept=["aye"]',
        "--option",
        "word_env=WORD_FOR_TEST",
    )
    assert code == 0
    assert [record["correct"] for record in records] == [True, True, True, False]
    assert records[0]["verifier"] == "own_verifier/3"
    assert "NOT HELD: no network" in capsys.readouterr().err


def test_a_file_of_the_users_judges_in_the_isolated_lane(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "SEEN = []\nVERSION = '1'\ndef score(prompt, response, answer):\n    SEEN.append(response)\n"
        "    return len(SEEN) if response == answer else 0.25\n"
    )
    code, records = run(tmp_path, [{"gold": "a", "response": word} for word in "aba"], "--verifier", str(mine))
    assert code == 0
    assert [(record["status"], record["parts"]["score"]) for record in records] == [
        ("correct", 1.0),
        ("wrong", 0.25),
        ("correct", 1.0),
    ]  # nothing of one answer reaches the next
    assert "isolated lane" in capsys.readouterr().err


def test_many_lines_keep_their_order(tmp_path: Path) -> None:
    code, records = run(tmp_path, [{"gold": n, "response": f"\\boxed{{{n + n % 2}}}"} for n in range(2000)])
    assert code == 0
    assert [record["correct"] for record in records] == [n % 2 == 0 for n in range(2000)]


def test_standard_input_and_output() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rlsp_async.cli", "grade"],
        cwd=ROOT,
        capture_output=True,
        timeout=50,
        input=b'{"gold": "7", "response": "7"}\n\xff\xfe\n',
    )
    assert done.returncode == 2
    assert [json.loads(line)["status"] for line in done.stdout.splitlines()] == ["correct", "bad_line"]


@pytest.mark.parametrize(
    "options",
    [
        ["--option", "a=1"],
        ["--option", "a"],
        ["--workers", "0"],
        ["--deadline-s", "0"],
        ["--verifier", "maths"],
        ["--out", "/nowhere/x"],
    ],
)
def test_wrong_options_say_so(options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text("")
    assert cli.main(["grade", str(file), *options]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_file_that_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["grade", "/nowhere.jsonl"]) == 2
    assert "/nowhere.jsonl: cannot be read" in capsys.readouterr().err


def test_the_hostile_corpus_gets_verdicts_and_changes_none(tmp_path: Path) -> None:
    assert len(corpus.RESPONSES) >= 60
    lines = [line for text in corpus.RESPONSES for line in (*CANARY, {"gold": "7", "response": text})] + CANARY
    code, records = run(tmp_path, lines, "--deadline-s", "10")  # of the wall: the machine may be busy
    assert code == 0 and len(records) == len(lines)
    canaries = [record["status"] for i, record in enumerate(records) if i % 3 < 2]
    assert canaries == GOOD * (len(corpus.RESPONSES) + 1)
    for text, record in zip(corpus.RESPONSES, records[2::3], strict=False):
        assert record["status"] in ("wrong", "unparsable"), (text[:60], record)  # and not "timeout"
    assert not Path(corpus.MARKER).exists()


DEEDS = {
    "hang": "timeout",
    "sleep9": "timeout",
    "exit": "error",
    "memory": "error",
    "deep": "error",
    "raise": "error",
    "none": "error",
    "print": "wrong",
    "huge": "wrong",
    "forge": "error",
    "write": "error",
    "fork": "error",
    "socket": "error",
    "shell": "error",
    "kill": "error",
    "remove": "error",
    "rename": "error",
    "thread": "error",
    "limits": "error",
    "trace": "error",
    "many files": "error",
    "patch": "wrong",
}


def test_a_verifier_that_runs_what_it_is_told_harms_nobody(tmp_path: Path) -> None:
    canary = [{"gold": "yes", "response": "yes"}, {"gold": "yes", "response": "no"}]
    lines = [line for deed in DEEDS for line in (*canary, {"gold": "yes", "response": deed})] + canary
    code, records = run(tmp_path, lines, "--verifier", "tests.verifying.hostile_isolated", "--deadline-s", "1")
    assert code == 0
    assert [record["status"] for i, record in enumerate(records) if i % 3 < 2] == GOOD * (len(DEEDS) + 1)
    assert dict(zip(DEEDS, (record["status"] for record in records[2::3]), strict=False)) == DEEDS
    assert not Path(hostile.PROBE).exists()


OWN = """
from rlsp_async.config import Section

VERSION = "3"


class Config(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    needed: tuple[str, ...] = ("ok",)


class Words:
    def __init__(self, cfg):
        self.needed = cfg.needed

    def score(self, prompt, response, answer):
        if response == "write":
            open("/tmp/rlsp-own-marker", "w")
        return sum(word in response.split() for word in self.needed) / len(self.needed)


def load(cfg):
    return Words(cfg)
"""
LINES = [{"gold": "", "response": "ok"}, {"gold": "", "response": "ok so"}, {"gold": "", "response": "write"}]


def test_a_file_of_the_users_own_with_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    code, records = run(tmp_path, LINES, "--verifier", str(file), "--option", 'needed=["ok", "so"]')
    assert code == 0
    assert [record["status"] for record in records] == ["wrong", "correct", "error"]
    assert [record["parts"].get("score") for record in records] == [0.5, 1.0, None]
    assert records[0]["verifier"] == "mine/3"
    assert not Path("/tmp/rlsp-own-marker").exists()
    assert "isolated lane" in capsys.readouterr().err
    for options, text in (
        (["--option", "neded=1"], "did you mean 'needed'?"),
        (["--option", "needed"], "key=value"),
        (["--option", "needed=1"], "Expected `array`, got `int`"),
    ):
        assert cli.main(["grade", str(tmp_path / "in.jsonl"), "--verifier", str(file), *options]) == 2
        told = capsys.readouterr().err
        assert text in told
        assert told.count("\n") == 1


def test_a_program_of_the_users_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = [sys.executable, "-I", "-S", str(ROOT / "tests/verifying/program.py")]
    lines = [{"gold": "a", "response": response} for response in ("a", "b", "die", "a")]
    code, records = run(tmp_path, lines, "--verifier", "executable", "--option", f"command={json.dumps(program)}")
    assert code == 0
    assert [record["status"] for record in records] == ["correct", "wrong", "error", "correct"]
    assert "the kernel guarantees nothing" in capsys.readouterr().err


def test_code_and_math_in_one_file(tmp_path: Path) -> None:
    lines = [{"gold": "assert f(1) == 2", "response": "def f(x): return x + 1", "verifier": "code"}, *CANARY]
    _, records = run(tmp_path, lines)
    assert [record["status"] for record in records] == ["correct", "correct", "wrong"]


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        ('{ needed = ["so"] }', 0, "can run"),
        ("{ neded = 1 }", 2, "unknown key 'task.verifier_options.neded'"),
    ],
)
def test_check_reads_the_verifier_of_a_run(
    options: str, code: int, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, toml = tmp_path / "mine.py", tmp_path / "run.toml"
    file.write_text(OWN)
    toml.write_text(f'name = "r"\n[task]\nverifier = "{file}"\nverifier_options = {options}\n[stages.a]\nsteps = 2\n')
    assert cli.main(["check", str(toml)]) == code
    told = capsys.readouterr()
    assert text in (told.err if code else told.out)
    assert told.err.count("\n") == (1 if code else 0)


def test_a_byte_order_mark_before_the_first_line_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(
        b"\xef\xbb\xbf" + b"".join(json.dumps(line).encode() + b"\r\n" for line in CANARY)
    )
    assert cli.main(["grade", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out.jsonl")]) == 0
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [record["status"] for record in records] == ["correct", "wrong"]


def test_a_list_of_golds_is_any_of_them(tmp_path: Path) -> None:
    golds: list[object] = [["1/2", "one half"], [0.5], [], [str(n) for n in range(65)], "{1, 2}"]
    lines: list[dict[str, object]] = [{"gold": gold, "response": "\\boxed{0.5}"} for gold in golds]
    code, records = run(tmp_path, lines)
    assert code == 2
    assert [record["status"] for record in records] == ["correct", "correct", "bad_line", "bad_line", "wrong"]
