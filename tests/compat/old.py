"""How the tests of this folder ask: the command line in a process of its own, and files. No module of the package.

PYTHONPATH=TREE python tests/compat/old.py > tests/compat/surface.json     what a tree says of itself, once
"""

import hashlib
import json
import os
import platform
import re
import sqlite3
import subprocess
import sys
import tarfile
import tomllib
from contextlib import closing
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RUNS = HERE / "runs"
BOUND_S = 100.0
PATIENT = ("replay.timeout_s=30", "replay.lease_s=90", "replay.stall_s=200")
"""So that nobody is taken for dead on a machine that does other things, too."""

DRIVER = """
import contextlib, io, json, sys
from rlsp_async.cli import main
answers = []
for words in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words)
        except SystemExit as e:
            code = e.code or 0
    answers.append([code, out.getvalue(), err.getvalue()])
print("answers:" + json.dumps(answers))
"""
"""Many commands in one process: what takes the time is to import torch."""


def environment(*more: Path) -> dict[str, str]:
    tree = os.environ.get("COMPAT_TREE", str(ROOT))
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([tree, *map(str, more)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "100",
    }


def rlsp(place: Path, *words: str, ok: int = 0, path: tuple[Path, ...] = ()) -> str:
    """`rlsp WORDS` in a directory; what it printed. Its exit code must be `ok`."""
    done = subprocess.run(
        [sys.executable, "-m", "rlsp_async.cli", *words],
        cwd=place,
        env=environment(*path),
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    assert done.returncode == ok, f"rlsp {' '.join(words)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def answers(place: Path, commands: list[list[str]]) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of many commands."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        cwd=place,
        env=environment(),
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [(code, out, err) for code, out, err in json.loads(done.stdout.rpartition("answers:")[2])]


# --- old runs ------------------------------------------------------------------------------------------------------


def unpacked(place: Path, name: str) -> Path:
    """A copy of an old run, under its name."""
    with tarfile.open(RUNS / f"{name}.tar.xz") as tar:
        tar.extractall(place, filter="data")
    return place / name


def expected(name: str) -> dict[str, Any]:
    """What the old commands said of it."""
    found: dict[str, Any] = json.loads((RUNS / f"{name}.json").read_text())
    return found


def rows(run: Path, query: str) -> list[tuple[Any, ...]]:
    """Of its journal."""
    with closing(sqlite3.connect(run / "journal.sqlite", timeout=5.0)) as db:
        return db.execute(query).fetchall()


def lines(path: Path) -> list[dict[str, Any]]:
    """JSON lines; the last one may have been cut off by a kill."""
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def steps(run: Path) -> dict[int, dict[str, Any]]:
    """Step -> its line in metrics.jsonl, the last one of it."""
    return {row["step"]: row for row in lines(run / "metrics.jsonl") if row["kind"] == "step"}


def digest(texts: list[str]) -> str:
    """Of JSON lines, whatever the order of their keys."""
    text = "\n".join(json.dumps(json.loads(line), sort_keys=True) for line in texts)
    return hashlib.sha256(text.encode()).hexdigest()


def machine() -> str:
    """Where floating-point sums come out the same to the last bit."""
    import torch

    cpu = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return (
        f"{cpu[1] if cpu else platform.machine()}, torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"
    )


# --- what a tree says of itself ------------------------------------------------------------------------------------


def surface(place: Path) -> dict[str, Any]:
    """Commands with their options, the defaults of all settings, and what becomes of every short name."""
    return {
        "commands": commands(place),
        "settings": defaults(place),
        "options": options(),
        "names": outcomes(place),
        "demos": demonstrations(place),
        "verdicts": verdicts(place),
    }


def commands(place: Path) -> dict[str, list[str]]:
    """Command -> the options that its help names."""
    names = re.findall(r"^    ([a-z]+) ", rlsp(place, "--help"), re.M)
    shown = answers(place, [[name, "--help"] for name in names])
    return {
        name: sorted(set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", out)))
        for name, (_, out, _) in zip(names, shown, strict=True)
    }


def defaults(place: Path) -> dict[str, Any]:
    """Every setting by its dotted key, of a file that says next to nothing."""
    (place / "least.toml").write_text('name = "least"\n[stages.s]\n')
    return settings(rlsp(place, "check", "least.toml"))


def settings(shown: str) -> dict[str, Any]:
    """The settings that `rlsp check` prints, first then and last today, as a flat table."""
    begin = re.search(r"^  \w+ = ", shown, re.M)
    assert begin is not None, shown
    return dict(flat(tomllib.loads(shown[begin.start() :].partition("the machine\n")[0])))


def flat(table: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in table.items():
        if isinstance(value, dict) and value:
            found += flat(value, f"{prefix}{key}.")
        else:
            found.append((prefix + key, value))
    return found


MOVED = {
    "task.options jsonl": "task.options dataset",
    "task.options aime": "task.options competition",
    "task.options amc": "task.options competition",
    "stages.NAME.success_replay memory": "stages.NAME.success_replay ",
}
"""Modules whose settings stand under another name today; the old names still work in a TOML file."""


def options() -> dict[str, str]:
    """Every setting of docs/configuration.md: "PATH NAME KEY" -> "TYPE DEFAULT"; tests/test_docs.py keeps the page true."""
    tree = Path(os.environ.get("COMPAT_TREE", ROOT))
    found, path, name = {}, "", ""
    page = re.sub(r"\n  (?=\S)", " ", (tree / "docs" / "configuration.md").read_text())
    for line in page.splitlines():
        if line.startswith("## "):
            path, name = "/".join(re.findall(r"`(.*?)`", line)) or line[3:], ""
        elif line.startswith("### "):
            name = line[4:].strip("`")
        elif row := re.match(r"- `(\w+)` \(`(.*?)`(?:, [^`]*?)?, (?:default `(.*?)`|required)\)(?:: |$)", line):
            found[f"{path} {name} {row[1]}"] = f"`{row[2]}` " + (f"`{row[3]}`" if row[3] is not None else "required")
    return found


def as_today(options: dict[str, str]) -> dict[str, str]:
    """Rows of the old page, which was a table, in the notation and under the headings of today's page."""

    def kind(text: str) -> str:
        text = re.sub(r"one of \[([^]]*)\]", lambda m: m[1].replace(", ", " | "), text)
        return text.replace("\\|", "|").replace("jsonl.TEMPLATE", "TEMPLATE")

    moved = {}
    for key, text in options.items():
        old = next((name for name in MOVED if key.startswith(name + " ")), "")
        moved[MOVED[old] + key.removeprefix(old) if old else key] = kind(text)
    return moved


def outcomes(place: Path) -> dict[str, dict[str, int]]:
    """Family -> short name -> exit code of `rlsp check` with it, -1 where it says that there is no such name."""
    (place / "named.toml").write_text('name = "named"\n[stages.s]\n[evaluation]\nprompts = 0\n')
    known = json.loads((HERE / "names.json").read_text())
    asked = [
        (family, key, name)
        for family, key in (("tasks", "task.name"), ("verifiers", "task.verifier"))
        for name in (*known[family], "nobody")
    ]
    quick = ["--quick"] if "--quick" in rlsp(place, "check", "--help") else []  # else it judges reference answers
    said = answers(place, [["check", *quick, "named.toml", f"{key}={name}"] for _, key, name in asked])
    found: dict[str, dict[str, int]] = {"tasks": {}, "verifiers": {}}
    for (family, _, name), (code, _, err) in zip(asked, said, strict=True):
        found[family][name] = -1 if "unknown name" in err else code
    return found


def demonstrations(place: Path) -> dict[str, list[str]]:
    """Task -> what `rlsp demos` shows first, and a digest of all of it: prompts are functions of seed and index."""
    known = ("addition", "countdown", "gsm8k", "humaneval", "mbpp", "ops", "svamp")
    said = answers(place, [["demos", name, "-n", "3"] for name in known])
    return {
        name: [out[:80], hashlib.sha256(out.encode()).hexdigest()]
        for name, (_, out, _) in zip(known, said, strict=True)
    }


def verdicts(place: Path) -> list[dict[str, Any]]:
    """What `rlsp grade` says of settings/answers.jsonl, without its times and without the sentence for people."""
    said = rlsp(place, "grade", "--deadline-s", "30", str(HERE / "settings" / "answers.jsonl"))
    return [
        {key: value for key, value in json.loads(line).items() if key not in ("ms", "detail")}
        for line in said.splitlines()
    ]


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as where:
        print(json.dumps({**surface(Path(where)), "machine": machine()}, indent=0))
