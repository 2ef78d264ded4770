"""How the runs of this folder were made: by the command line of commit 5550626 and by signals, nothing else.

    git clone URL /tmp/old && git -C /tmp/old checkout 5550626
    cd /tmp/compat && PYTHONPATH=/tmp/old PYTHON tests/compat/make.py OUT

Writes OUT/runs/NAME and OUT/NAME.tar.xz. Times and the moments of the kills differ each time: do not make them again,
the files here are what the old code wrote.
"""

import hashlib
import json
import lzma
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from contextlib import closing
from pathlib import Path

HERE = Path(__file__).parent
RLSP = [sys.executable, "-m", "rlsp_async.cli"]
LEFT_OUT = ("hub.lock", "supervisor.lock", "report.html", "journal.sqlite-shm")


def rlsp(*words: str) -> None:
    """A command, to its end, with exit code 0."""
    subprocess.run([*RLSP, *words], check=True)


def pids(run: Path) -> dict[str, int]:
    """Name -> pid of the services of a run."""
    found = {}
    for place in Path("/proc").iterdir():
        try:
            words = (place / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if str(run / "config.toml") in words and "--worker" in words:
            found[words[words.index("--worker") + 1]] = int(place.name)
    return found


def step(run: Path) -> int:
    """Newest step of the journal."""
    try:
        with closing(sqlite3.connect(f"file:{run / 'journal.sqlite'}?mode=ro", uri=True)) as db:
            return int(db.execute("SELECT max(step) FROM steps").fetchone()[0] or 0)
    except sqlite3.OperationalError:
        return 0


def wait_for(run: Path, wanted: int) -> None:
    until = time.monotonic() + 60
    while step(run) < wanted:
        assert time.monotonic() < until, f"{run}: step {step(run)}, not {wanted}"
        time.sleep(0.001)


class Line:
    """`rlsp run` in the background."""

    def __init__(self, run: Path, *words: str) -> None:
        self.run = run
        self.supervisor = subprocess.Popen([*RLSP, "run", *words])

    def signal(self, name: str, number: signal.Signals) -> None:
        os.kill(pids(self.run)[name], number)

    def kill_all(self) -> None:
        """As if the machine had lost its power."""
        self.supervisor.kill()
        for pid in pids(self.run).values():
            os.kill(pid, signal.SIGKILL)
        self.supervisor.wait()
        print(self.run.name, "was killed at step", step(self.run))
        for place in Path("/dev/shm").glob(f"rlsp-{self.run.name}-*"):
            shutil.rmtree(place)


def many(out: Path) -> Path:
    """Finished; its learner was killed, it was stopped and its published weights were removed, a sampler was killed."""
    run = out / "runs" / "many"
    line = Line(run, str(HERE / "settings" / "many.toml"), f"runs_dir={out}/runs")
    wait_for(run, 62)
    while True:  # until the learner has trained something that its newest checkpoint does not know
        line.signal("sampler-0", signal.SIGSTOP)
        time.sleep(0.3)
        if step(run) % 5 >= 2:
            break
        line.signal("sampler-0", signal.SIGCONT)
        time.sleep(0.01)
    print("killing the learner at step", step(run))
    line.signal("learner-0", signal.SIGKILL)
    line.signal("sampler-0", signal.SIGCONT)
    wait_for(run, 75)
    line.supervisor.send_signal(signal.SIGTERM)
    print("stopped:", line.supervisor.wait(60), "at step", step(run))
    for place in Path("/dev/shm").glob("rlsp-many-*"):
        shutil.rmtree(place)
    line = Line(run, "--resume", str(run))
    wait_for(run, step(run) + 1)
    line.signal("sampler-0", signal.SIGSTOP)
    time.sleep(0.3)
    print("killing the sampler at step", step(run))
    line.signal("sampler-0", signal.SIGKILL)
    assert line.supervisor.wait(60) == 0
    return run


def killed_in_rl(out: Path) -> Path:
    """Everything was killed at once while the learner held a batch that it had not reported."""
    line = begun(out, "killed_in_rl")
    wait_for(line.run, 66)
    line.signal("learner-0", signal.SIGSTOP)
    time.sleep(0.5)
    line.kill_all()
    return line.run


def killed_in_hot(out: Path) -> Path:
    """Everything was killed at once while the sampler held groups, a spawned one among them. SQLite has read the
    journal since, and moved its log into the file."""
    line = begun(out, "killed_in_hot")
    wait_for(line.run, 75)
    while True:
        line.signal("sampler-0", signal.SIGSTOP)
        time.sleep(0.3)
        if any(b"spawned/" in head for head in issued(line.run)):
            break
        line.signal("sampler-0", signal.SIGCONT)
        time.sleep(0.002)
    line.kill_all()
    db = sqlite3.connect(line.run / "journal.sqlite")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return line.run


def begun(out: Path, name: str) -> Line:
    """The line that is going to be killed."""
    return Line(
        out / "runs" / name,
        str(HERE / "settings" / "many.toml"),
        f"runs_dir={out}/runs",
        f"name={name}",
        "seed=8",
        "replay.retention=checkpoints",
    )


def issued(run: Path) -> list[bytes]:
    """Heads of the groups that a sampler holds."""
    with closing(sqlite3.connect(f"file:{run / 'journal.sqlite'}?mode=ro", uri=True)) as db:
        return [row[0] for row in db.execute("SELECT head FROM groups WHERE state = 'issued'")]


def offline(out: Path, source: Path) -> Path:
    """Finished; trained on the rollouts of `many` and on rows of a file, with data.json."""
    rows, rollouts = out / "rows", out / "rows" / "rollouts.jsonl"
    rows.mkdir(exist_ok=True)
    rlsp("export", str(source), "--tokens", "--stage", "rl", "--out", str(rollouts))
    rlsp("export", str(source), "--what", "demonstrations", "--out", str(rows / "demonstrations.jsonl"))
    lines = sorted(set((rows / "demonstrations.jsonl").read_text().splitlines()))
    (rows / "train.jsonl").write_text("\n".join(lines[:40]) + "\n")
    (rows / "test.jsonl").write_text("\n".join(lines[38:50]) + "\n")
    settings = str(HERE / "settings" / "offline.toml")
    words = [
        f"runs_dir={out}/runs",
        f"model.path={source}/stages/sft",
        f"task.options.path_train={rows}/train.jsonl",
        f"task.options.path_test={rows}/test.jsonl",
    ]
    rlsp("import", str(rollouts), "--group-by", "group", "--run", settings, *words)
    rlsp("run", settings, *words)
    return out / "runs" / "offline"


def said(*words: str) -> str:
    """What a command prints."""
    return subprocess.run([*RLSP, *words], check=True, capture_output=True, text=True).stdout


def pack(run: Path, left_out: tuple[str, ...]) -> None:
    """OUT/NAME.tar.xz, with the journal's log as it lay there, and OUT/NAME.json: what the old commands said of it."""
    out = run.parents[1]
    with tarfile.open(out / f"{run.name}.tar.xz", "w:xz", preset=9 | lzma.PRESET_EXTREME, dereference=True) as tar:
        tar.add(run, run.name, filter=lambda info: None if Path(info.name).name in left_out else info)
    exported = [
        line
        for what in (("--tokens",), ("--what", "demonstrations"))
        for line in said("export", str(run), *what).splitlines()
    ]
    report = {} if (run / "report.json").exists() else {"report": json.loads(said("report", str(run), "--json"))}
    expected = {
        **report,
        "audit": json.loads(said("audit", str(run), "--json")),
        "exported": {"lines": len(exported), "sha256": digest(exported)},
    }
    (out / f"{run.name}.json").write_text(json.dumps(expected) + "\n")
    print(run.name, (out / f"{run.name}.tar.xz").stat().st_size)


def digest(lines: list[str]) -> str:
    """Of JSON lines, whatever the order of their keys."""
    text = "\n".join(json.dumps(json.loads(line), sort_keys=True) for line in lines)
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    place = Path(sys.argv[1]).resolve()
    place.mkdir(parents=True)
    first = many(place)
    for done in (first, killed_in_rl(place), killed_in_hot(place), offline(place, first)):
        pack(done, LEFT_OUT if done.name.startswith("killed") else (*LEFT_OUT, "stages", "reference"))
