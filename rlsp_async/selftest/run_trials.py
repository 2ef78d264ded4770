"""Runs trials one after the other, each in a process group of its own, with a deadline; the others go on.

    outcomes = run_trials(steps, "cuda", Path("out"), budget_s=600, say=print)
    write_outcomes(outcomes, Path("out/selftest.json"))

What a trial prints goes to DIRECTORY/NAME.log. A trial that crashes or meets its deadline has failed; what it had found
by then is kept. Its whole process group is killed at its end.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from rlsp_async.contents import printable
from rlsp_async.cuda import NVML_CHECK, has_cuda
from rlsp_async.errors import MachineError
from rlsp_async.files import replace_file
from rlsp_async.runner.supervise import exit_text, kill_group
from rlsp_async.sampling.engines import has_vllm
from rlsp_async.selftest.trials import Outcome, Trial, TrialNote, lacking

END_S = 10.0
"""Longest time until a killed process has ended."""


def what_there_is(device: str) -> dict[str, bool]:
    """Which of `trials.NEEDS` this machine has, when trials run on `device`."""
    cards = num_cards() if device == "cuda" else 0
    return {"cuda": cards > 0, "cards": cards > 1, "vllm": has_vllm(), "labels": has_labels()}


def has_labels() -> bool:
    """Whether the installed vLLM labels tokens with versions, which the package needs; it is not imported."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        return False
    outputs = Path(spec.origin).parent / "outputs.py"
    return outputs.is_file() and "WeightVersionSpan" in outputs.read_text(encoding="utf-8")


def num_cards() -> int:
    """The CUDA devices that torch sees; makes no CUDA context."""
    import torch

    return torch.cuda.device_count() if has_cuda() else 0


def run_trials(
    steps: Iterable[Trial],
    device: str,
    directory: Path,
    budget_s: float,
    say: Callable[[str], None],
    has: Mapping[str, bool] | None = None,
) -> list[Outcome]:
    """Runs every step that can run here.

    Args:
        steps: the steps, in order.
        device: cuda or cpu.
        directory: where logs and the trials' own files go.
        budget_s: time of all together; a step that would begin later is skipped.
        say: takes one line for each outcome.
        has: what this machine has; None: `what_there_is`.
    """
    has = what_there_is(device) if has is None else has
    end, outcomes = time.monotonic() + budget_s, []
    for step in steps:
        left_s = end - time.monotonic()
        if missing := lacking(step, has):
            outcome = _skipped(step, f"needs {missing}")
        elif left_s <= 1:
            outcome = _skipped(step, f"the {budget_s:.0f} s of all steps together are over")
        else:
            outcome = run_trial(step, device, directory, min(step.seconds, left_s))
        outcomes.append(outcome)
        say(f"{outcome.step}: {outcome.status}, {outcome.seconds:.1f} s: {outcome.text}")
    return outcomes


def run_trial(step: Trial, device: str, directory: Path, deadline_s: float) -> Outcome:
    """Runs one step in a process of its own. Raises MachineError when the directory cannot be written."""
    own, found, log = directory / step.name, directory / f"{step.name}.jsonl", directory / f"{step.name}.log"
    try:
        own.mkdir(parents=True)
        output = log.open("wb")
    except OSError as e:
        raise MachineError(f"{own}: cannot be made: {e.strerror}; give another --dir") from None
    begun = time.monotonic()
    with output:
        process = subprocess.Popen(
            [sys.executable, "-m", "rlsp_async.selftest.child", step.name, device, str(own), str(found)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=trial_environment(os.environ, device),
            start_new_session=True,
        )
        try:
            code = process.wait(deadline_s)
            why = "" if code == 0 else f"its process ended with {exit_text(code)}, see {log}"
        except subprocess.TimeoutExpired:
            why = f"not done after {deadline_s:.0f} s, see {log}"
        finally:
            kill_group(process.pid)
            process.wait(END_S)
    findings = read_findings(found)
    if why:
        findings.append(TrialNote(text=why, ok=False))
    ok = bool(findings) and all(finding.ok for finding in findings)
    return Outcome(
        step=step.name, status="passed" if ok else "failed", seconds=time.monotonic() - begun, findings=findings
    )


def trial_environment(base: Mapping[str, str], device: str) -> dict[str, str]:
    """The environment of a trial: this package can be imported; on a CPU no GPU is seen, even where there is one."""
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, base.get("PYTHONPATH", "").split(os.pathsep))]
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}
    return {**base, **NVML_CHECK, **quiet, **hidden, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def read_findings(path: Path) -> list[TrialNote]:
    """What a trial has written, line by line; a last line that is cut is left out."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    return [msgspec.json.decode(line, type=TrialNote) for line in lines[:-1]]


def write_outcomes(outcomes: list[Outcome], device: str, path: Path) -> None:
    """Writes all outcomes as one JSON object. Raises MachineError."""
    content = {"device": device, "outcomes": outcomes}
    try:
        replace_file(path, msgspec.json.format(msgspec.json.encode(content)) + b"\n", durable=False)
    except OSError as e:
        raise MachineError(f"{path}: cannot be written: {e.strerror}") from None


def _skipped(step: Trial, why: str) -> Outcome:
    return Outcome(step=step.name, status="skipped", findings=[TrialNote(text=printable(why))])
