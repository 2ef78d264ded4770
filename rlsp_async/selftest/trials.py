"""The trials of `rlsp selftest` by name: what each shows, how long it may take, and what it needs.

A trial is a function of a `TrialSite` that yields `TrialNote`s, one for each thing that it has looked at. A thing
that is wrong is one with `ok=False`, and an error that ends the trial is one, too: the other trials go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from rlsp_async.errors import ConfigError


class TrialSite(msgspec.Struct, frozen=True, kw_only=True):
    """Where a trial works, and how large."""

    device: str
    """cuda or cpu. On a CPU everything is tiny and in float32."""
    directory: Path
    """An empty directory of its own."""

    @property
    def is_gpu(self) -> bool:
        """Whether the trial runs on a GPU."""
        return self.device == "cuda"

    @property
    def dtype(self) -> str:
        """Number format of models: bfloat16 on a GPU."""
        return "bfloat16" if self.is_gpu else "float32"


class TrialNote(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a trial has looked at."""

    text: str
    """One line for people."""
    ok: bool = True
    figures: dict[str, float] = {}
    """The same in numbers; a name ends with its unit."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one trial."""

    step: str
    status: str
    """passed, failed or skipped."""
    seconds: float = 0.0
    findings: list[TrialNote] = []

    @property
    def text(self) -> str:
        """One line: what failed, or else what was found."""
        wrong = [finding.text for finding in self.findings if not finding.ok]
        return "; ".join(wrong or [finding.text for finding in self.findings])


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One trial."""

    name: str
    shows: str
    """What it shows, in one line."""
    function: str
    """MODULE:FUNCTION in this room."""
    seconds: float
    """It is ended after this time. Enough for a GPU; on a CPU the sizes are tiny."""
    needs: tuple[str, ...] = ()
    """What the machine must have: names of `NEEDS`."""


NEEDS = {
    "cuda": "a CUDA device",
    "cards": "two CUDA devices",
    "vllm": "vllm",
    "labels": "a vllm that labels tokens with versions (0.32)",
}
"""What a trial may need, in words."""

BASICS = (
    Trial(name="facts", shows="versions of libraries, cards and driver", function="basics:facts", seconds=60),
    Trial(name="message", shows="a question to a hub and its answer", function="basics:message", seconds=30),
    Trial(name="sandbox", shows="what graded code cannot do here", function="basics:sandbox", seconds=60),
    Trial(name="learner", shows="a tiny model learns its batch", function="basics:learner", seconds=90),
    Trial(name="torch-engine", shows="the package's own engine samples", function="basics:torch_engine", seconds=90),
    Trial(
        name="vllm-engine",
        shows="vLLM starts and samples from a tiny model",
        function="basics:vllm_engine",
        seconds=240,
        needs=("vllm", "labels"),
    ),
)
"""`rlsp selftest`."""

GPU = (
    BASICS[0],
    Trial(
        name="vllm",
        shows="vLLM starts (spawned), its log-probs are the learner's, versions change while it samples",
        function="engines:vllm",
        seconds=240,
        needs=("vllm", "labels"),
    ),
    Trial(
        name="attention",
        shows="packed attention and its gradients against each sequence by itself",
        function="learners:packed_attention",
        seconds=60,
    ),
    Trial(
        name="resume",
        shows="two steps, a checkpoint, a new process, two steps: as four in one go",
        function="learners:resume",
        seconds=180,
    ),
    Trial(
        name="bits",
        shows="learner.deterministic: the same batches give the same bits",
        function="learners:equal_bits",
        seconds=90,
    ),
    Trial(
        name="shared",
        shows="sampler and learner on one card; the sampler is killed and comes back",
        function="engines:shared_card",
        seconds=240,
        needs=("vllm", "labels"),
    ),
    Trial(name="run", shows="a short run with all services, and its audit", function="whole:run", seconds=240),
    Trial(
        name="gloo",
        shows="a version over a gloo channel to the device; a peer that never comes",
        function="links:gloo_channel",
        seconds=120,
    ),
    Trial(
        name="nccl-alone",
        shows="an NCCL channel whose peer never comes costs its deadline",
        function="links:nccl_alone",
        seconds=90,
        needs=("cuda",),
    ),
    Trial(
        name="nccl-pair",
        shows="a version over an NCCL channel from card to card, bytes a second",
        function="links:nccl_pair",
        seconds=90,
        needs=("cuda", "cards"),
    ),
    Trial(
        name="copies",
        shows="copies between card and host: pageable, pinned, file in shared memory",
        function="learners:copies",
        seconds=60,
    ),
    Trial(
        name="step",
        shows="seconds of a step, of a version and of a checkpoint (1.5B parameters on a GPU)",
        function="learners:step_seconds",
        seconds=240,
    ),
)
"""`rlsp selftest --gpu`, the most valuable first."""


def chosen(text: str, steps: tuple[Trial, ...]) -> list[Trial]:
    """The steps that a comma-separated text names, in their own order; all of them when it is empty.

    Raises ConfigError for a name that there is not.
    """
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    known = [step.name for step in steps]
    for name in wanted:
        if name not in known:
            raise ConfigError(f"--steps {name}: there is no such step; there is {', '.join(known)}")
    return [step for step in steps if not wanted or step.name in wanted]


def find_step(name: str) -> Trial:
    """The step of a name. Raises KeyError."""
    return {step.name: step for step in (*BASICS, *GPU)}[name]


def lacking(step: Trial, has: Mapping[str, bool]) -> str:
    """What a step needs and this machine does not have, in words; empty when it can run."""
    return " and ".join(NEEDS[need] for need in step.needs if not has[need])


def table(outcomes: Iterable[Outcome]) -> list[str]:
    """The lines of the final table."""
    rows = list(outcomes)
    width = max((len(row.step) for row in rows), default=0)
    return [f"{row.step:<{width}}  {row.status:<8} {row.seconds:>6.1f} s  {row.text}".rstrip() for row in rows]
