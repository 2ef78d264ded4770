"""The Python API: what the commands do, as functions that return values and raise errors.

    import rlsp_async as rl

    config = rl.load_config("launch/configs/ops_cpu.toml", ["seed=3"])
    run = rl.run(config)                            # blocks; prints progress as `rlsp run` does
    print(run.report().evaluations[-1].figures)
    for row in rl.open_run("runs/ops_cpu").rollouts():
        print(row["status"], row["response"])
    verdicts = rl.grade([{"gold": "1/2", "response": "so \\boxed{0.5}"}])

Every function is thin over the function that the command of the same name calls; docs/python.md shows them at work.
Errors are those of `rlsp_async.errors`: UserError where the user can help, DivergedError for a run that cannot succeed.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rlsp_async.config import RunConfig, convert, load, tables
from rlsp_async.config.flatten import toml_text
from rlsp_async.errors import DataError, DivergedError, RlspError, UserError
from rlsp_async.jsonl import read_jsonl
from rlsp_async.messages import Verdict

if TYPE_CHECKING:
    from rlsp_async.report.results import Report

__all__ = ["Run", "grade", "load_config", "open_run", "run"]

Row = dict[str, Any]


class Run(msgspec.Struct, frozen=True):
    """A run's directory: what was set, what came out, and the model.

    Everything is read from the run's files when it is asked for, so a run that goes on can be looked at.

    Example:
        >>> run = open_run("runs/ops_cpu")
        >>> run.config.seed, run.report().finished
        (0, True)
    """

    directory: Path
    """Absolute."""

    @property
    def config(self) -> RunConfig:
        """The settings, every default written out."""
        from rlsp_async.report.results import read_config

        return read_config(self.directory)

    @property
    def model_directory(self) -> Path:
        """The Hugging Face directory of the trained model; it is there once the run is finished.

        Example:
            >>> AutoModelForCausalLM.from_pretrained(run.model_directory)
        """
        return self.directory / "final"

    def report(self) -> Report:
        """The results: stages, evaluations with intervals, the token account, lags.

        Returns: the figures that `rlsp report --json` prints.
        Raises: DataError when a file of the run is damaged.

        Example:
            >>> run.report().evaluations[-1].figures["pass_at_1"].mean
            0.668
        """
        from rlsp_async.report.results import build_report
        from rlsp_async.report.write import load_report

        written = load_report(self.directory)
        return build_report(self.directory, finished=written is not None and written.finished)

    def metrics(self) -> list[Row]:
        """The rows of metrics.jsonl, one a step, in the order in which they were written.

        A step that was trained again after a crash has several rows; the last one counts.

        Example:
            >>> [row["reward"] for row in run.metrics() if row["stage"] == "rlsp"]
        """
        return read_jsonl(self.directory / "metrics.jsonl")

    def rollouts(self, stage: str = "", *, tokens: bool = False) -> Iterator[Row]:
        """The judged rollouts that the run's journal still holds, as `rlsp export` writes them.

        With `replay.retention = "all"` these are all that were judged; by default old ones have been pruned.

        Args:
            stage: of this stage only; empty: of all.
            tokens: token ids, log-probs and versions as well.

        Yields: rows with the keys prompt, answer, response, status, parts, stage, group, rollout, temperature, ...
        Raises: DataError when there is no journal or no such stage.

        Example:
            >>> correct = [row for row in run.rollouts("rlsp") if row["status"] == "correct"]
        """
        from rlsp_async.offline.export import rollout_rows

        return rollout_rows(self.directory, stage=stage, tokens=tokens)


def load_config(config: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> RunConfig:
    """Reads the settings of a run.

    Args:
        config: a TOML file, or its tables as a mapping.
        overrides: `key=value` words, values in TOML syntax, as on the command line.

    Returns: the settings, which cannot be changed; every default is filled in.
    Raises: ConfigError that names the key and, for an unknown one, the nearest known name.

    Example:
        >>> load_config({"name": "mine", "stages": {"rl": {"steps": 8}}}, ["stages.rl.steps=40"]).stages["rl"].steps
        40
    """
    if isinstance(config, Mapping):
        return convert(tables(list(overrides), copy.deepcopy(dict(config))), RunConfig, "config")
    return load(config, list(overrides))


def run(config: RunConfig | str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Run:
    """Trains, as `rlsp run` does: prepares the run's directory, starts the services, waits, writes the report.

    An interrupted run of the same name and settings goes on; a finished one is left as it is. Progress is printed. The
    services are processes of their own: a script needs no `if __name__ == "__main__"`. Modules of yours that settings
    name ("mine.reward") must lie in the working directory or on PYTHONPATH.

    In a notebook, where an event loop runs, the work is done in a thread of its own. Ctrl-C, or the interrupt button,
    stops the run; a second one stops it at once. Called from a thread that is not the main one, the run gets no
    signals: it ends when it is complete.

    Args:
        config: settings from `load_config`, or what `load_config` takes.
        overrides: `key=value` words; not together with settings that are loaded already.

    Returns: the finished run.
    Raises: UserError when something must be set right first, DivergedError when the run cannot succeed,
        KeyboardInterrupt after Ctrl-C, RlspError for any other end. What was done is kept; the same call goes on.

    Example:
        >>> run("launch/configs/ops_cpu.toml", ["name=b", "seed=3"]).report().finished
        True
    """
    from rlsp_async import blocking
    from rlsp_async.runner.run import StopRequest, resolve, train

    if not isinstance(config, RunConfig):
        config = load_config(config, overrides)
    elif overrides:
        raise TypeError("overrides go into load_config, whose result cannot be changed")
    config = resolve(config)
    settings, stop = config, StopRequest()
    end = blocking.call(lambda: train(settings, stop), stop.ask)
    if end.code:
        kept = f"; what was done is kept in {config.directory}" if config.directory.is_dir() else ""
        _raise(end.code, f"{end.reason}{kept}")
    return Run(config.directory)


def _raise(code: int, reason: str) -> None:
    """The error of a run that ended with this exit code."""
    if code == 130:
        raise KeyboardInterrupt(reason)
    raise {2: UserError, 3: DivergedError}.get(code, RlspError)(reason)


def open_run(directory: str | Path) -> Run:
    """A run that is there: finished, interrupted or going on.

    Args:
        directory: the run's directory, e.g. "runs/ops_cpu".

    Raises: DataError when the directory is no run.

    Example:
        >>> open_run("runs/ops_cpu").report().versions
        1024
    """
    found = Run(Path(directory).expanduser().resolve())
    _ = found.config
    return found


def grade(
    answers: str | Path | Iterable[Mapping[str, Any]],
    *,
    verifier: str = "math",
    options: Mapping[str, Any] | None = None,
    workers: int = 2,
    deadline_s: float = 5.0,
    memory_mb: int = 2048,
) -> list[Verdict]:
    """Judges answers, as `rlsp grade` does, in processes that are killed at their deadline.

    Args:
        answers: rows with the keys gold and response, optionally prompt and verifier; or a file of such JSON lines.
        verifier: a shipped one, a dotted module or a file ending in .py, for rows that name none.
        options: of that verifier.
        workers: checker processes.
        deadline_s: of one answer.
        memory_mb: of one checker process.

    Returns: one verdict for each answer, in order. Status "timeout" or "error" says that the answer was not judged.
    Raises: DataError that names the row when one cannot be used, ConfigError for an unknown verifier or option.

    Example:
        >>> [verdict.status for verdict in grade([{"gold": "1/2", "response": "so \\\\boxed{0.5}"}])]
        ['correct']
    """
    from rlsp_async.grading import GradeSettings, grade_stream

    words = [f"{key}={toml_text(value)}" for key, value in (options or {}).items()]
    settings = GradeSettings(
        verifier=verifier, options=words, workers=workers, deadline_s=deadline_s, memory_mb=memory_mb
    )
    if isinstance(answers, str | Path):
        try:
            lines = Path(answers).read_bytes()
        except OSError as e:
            raise DataError(f"{answers}: cannot be read: {e.strerror}") from None
    else:
        lines = b"".join(msgspec.json.encode(dict(row)) + b"\n" for row in answers)
    out = io.BytesIO()
    grade_stream(io.BytesIO(lines), out, settings)
    return [_verdict(msgspec.json.decode(record)) for record in out.getvalue().splitlines()]


def _verdict(record: Row) -> Verdict:
    """A record of `rlsp grade` as the verdict that it was made of."""
    if record["status"] == "bad_line":
        raise DataError(f"answer {record['line']}: {record['detail']}")
    return Verdict(
        status=record["status"],
        parts=record["parts"],
        extracted=record["extracted"],
        detail=record["detail"],
        milliseconds=record["ms"],
        verifier=record["verifier"],
    )
