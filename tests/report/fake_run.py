"""A RUN directory with plausible files, as the hub writes them: SFT, then RLSP with lag 1, evaluated twice."""

import math
import random
from pathlib import Path
from typing import Any

from rlsp_async.config import RunConfig, convert, to_toml
from rlsp_async.jsonl import JsonlWriter
from rlsp_async.messages import Status
from rlsp_async.report.write import write_status

SFT, RL = 200, 16
SETTINGS: dict[str, Any] = {
    "name": "fake",
    "seed": 7,
    "stages": {
        "sft": {"source": "demonstrations", "steps": SFT, "publish_every": 0, "algorithm": {"name": "sft"}},
        "rlsp": {"steps": RL, "minibatches": 4, "algorithm": {"name": "ppo"}},
    },
    "evaluation": {"before": ["rlsp"], "after": ["rlsp"]},
}
SFT_S, EVALUATION_S, STEP_S = 100.0, 20.0, 5.0


def make_run(directory: Path, seed: int = 0) -> Path:
    """Writes the files of a finished run and returns its directory."""
    draw = random.Random(seed)
    directory.mkdir(parents=True)
    cfg = convert({**SETTINGS, "runs_dir": str(directory.parent), "name": directory.name}, RunConfig, "fake")
    (directory / "config.toml").write_text(to_toml(cfg))
    (directory / "final").mkdir()
    (directory / "final" / "model.safetensors").write_bytes(b"weights")
    _write(directory / "metrics.jsonl", [*_sft_rows(draw), *_rl_rows(draw)])
    _write(directory / "timeline.jsonl", _spans(draw))
    _write(
        directory / "evaluations.jsonl",
        [
            evaluation_row("before", SFT, 0.321, 43.0, 2.9, SFT_S + EVALUATION_S),
            evaluation_row("after", SFT + RL, 0.618, 104.0, 7.4, _end()),
        ],
    )
    _write(directory / "rollouts.jsonl", _rollouts())
    write_status(
        directory,
        Status(
            run=directory.name,
            stage="rlsp",
            phase="finished",
            stage_step=RL,
            stage_steps=RL,
            step=SFT + RL,
            version=SFT + RL,
            seconds=_end(),
            counts={"issued": 544, "trained": 512, "dropped": 32, "alive": 0},
            tokens={"generated": 812345, "trained": 402000, "stale": 31000, "evaluated": 379345, "in_flight": 0},
            metrics={"pass_at_1": 0.618},
            workers=[],
        ),
    )
    return directory


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    with JsonlWriter(path) as writer:
        for row in rows:
            writer.write(row)


def _end() -> float:
    return SFT_S + 2 * EVALUATION_S + RL * STEP_S


def _sft_rows(draw: random.Random) -> list[dict[str, Any]]:
    return [
        {
            "kind": "step",
            "stage": "sft",
            "step": s,
            "stage_step": s,
            "t": s * SFT_S / SFT,
            "num_rollouts": 32,
            "loss": 3.0 * math.exp(-s / 40) + 0.9 + draw.gauss(0, 0.05),
            "tokens": 1830,
            "grad_norm": 0.5 + draw.random(),
            "response_tokens": 57.0 + draw.gauss(0, 3),
            "tokens_per_s": 18000.0,
        }
        for s in range(1, SFT + 1)
    ]


def _rl_rows(draw: random.Random) -> list[dict[str, Any]]:
    rows = []
    for s in range(1, RL + 1):
        correct = 0.32 + 0.3 * (1 - math.exp(-s / 6)) + draw.gauss(0, 0.02)
        rows.append(
            {
                "kind": "step",
                "stage": "rlsp",
                "step": SFT + s,
                "stage_step": s,
                "t": SFT_S + EVALUATION_S + s * STEP_S,
                "reward": 0.8 * correct - 0.05,
                "parts.correct": correct,
                "parts.format": 0.9 + 0.005 * s,
                "parts.search_steps": 2.9 + 0.3 * s,
                "response_tokens": 43 + 4.0 * s,
                "lag_mean": min(1.0, s / 4) * 0.9,
                "lag_max": 1.0,
                "lag_0": 8,
                "lag_1": 24,
                "kl_behaviour": 0.004 + 0.001 * draw.random(),
                "tokens": 256 * 80,
                "entropy": 0.9 - 0.02 * s,
                "loss": 0.02 * draw.random(),
                "grad_norm": 0.3,
                "tokens_per_s": 9000.0,
                "num_rollouts": 256,
            }
        )
    return rows


def _spans(draw: random.Random) -> list[dict[str, Any]]:
    spans = [
        _span(s * SFT_S / SFT, (s + 0.95) * SFT_S / SFT, "learner-0", "train", f"step {s + 1}") for s in range(SFT)
    ]
    start = SFT_S + EVALUATION_S
    spans += [_span(SFT_S + i, SFT_S + i + 2, "sampler-0", "sample", f"group {i}") for i in range(18)]
    spans.append(_span(SFT_S, start, "replay", "evaluate", "before rlsp"))
    for s in range(RL):
        at = start + s * STEP_S
        spans += [
            _span(at + i * 0.15, at + i * 0.15 + 2 + draw.random(), "sampler-0", "sample", f"group {s}")
            for i in range(14)
        ]
        spans.append(_span(at + 0.1, at + 0.3, "sampler-0", "load", f"version {SFT + s}"))
        spans += [_span(at + i, at + i + 0.1, "verifier-0", "verify", f"group {s}") for i in range(5)]
        spans.append(_span(at + 1.2, at + 4.6, "learner-0", "train", f"step {SFT + s + 1}"))
    spans.append(_span(start + RL * STEP_S, _end(), "replay", "evaluate", "after rlsp"))
    return [*spans, _span(start + RL * STEP_S, _end() - 1, "sampler-0", "sample", "group 900")]


def _span(t0: float, t1: float, worker: str, kind: str, what: str) -> dict[str, Any]:
    return {"t0": t0, "t1": t1, "worker": worker, "kind": kind, "what": what}


def evaluation_row(
    when: str, version: int, p: float, length: float, steps: float, t: float, stage_step: int = 0
) -> dict[str, Any]:
    def around(mean: float, half: float) -> dict[str, float]:
        return {"mean": mean, "low": mean - half, "high": mean + half}

    return {
        "kind": "evaluation",
        "when": when,
        "stage": "rlsp",
        "version": version,
        "stage_step": stage_step,
        "seconds": t,
        "num_prompts": 256,
        "num_rollouts": 2048,
        "pass_at_1": around(p, 0.035),
        "pass_at_8": around(min(0.97, p + 0.35), 0.03),
        "response_tokens": around(length, 2),
        "search_steps": around(steps, 0.2),
        "truncated": around(0.04, 0.01),
    }


def _rollouts() -> list[dict[str, Any]]:
    right = "1 + 1 2 + 3 5 + 4 9 ?= 7 x 1 * 1 1 * 3 3 + 4 7 ?= 7 ok </think> * * +"
    rows = []
    for when, status in (("before", "wrong"), ("before", "correct"), ("after", "correct"), ("after", "unparsable")):
        rows.append(
            {
                "kind": "evaluate",
                "evaluation": f"{when} rlsp",
                "stage": "rlsp",
                "step": SFT,
                "text": right,
                "prompt": "1 1 3 4 -> 7 <think>",
                "status": status,
                "parts": {"correct": 1.0},
                "tokens": 31,
                "oldest_version": SFT,
                "newest_version": SFT,
            }
        )
    return rows
