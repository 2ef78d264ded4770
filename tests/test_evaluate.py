"""`rlsp eval`: every prompt once, in order; faults of a verifier are left out, not counted as wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch

from rlsp_async import config
from rlsp_async.cli.evaluate import engine_settings
from rlsp_async.columns import pack_floats, pack_ints
from rlsp_async.errors import ConfigError, DataError, DivergedError
from rlsp_async.evaluate import (
    EvaluationResult,
    evaluate,
    judge_prompts,
    response_rows,
    sole_sampler,
    summarize_groups,
)
from rlsp_async.learning import lora
from rlsp_async.learning.policy import load_model
from rlsp_async.learning.publish import write_model
from rlsp_async.messages import (
    Prompt,
    Rollout,
    RolloutGroup,
    SampleJob,
    Sampling,
    Verdict,
    VerdictSet,
    VerifyJob,
)
from rlsp_async.model import prepare_model

SAMPLING = Sampling(rollouts=4, max_new_tokens=8)
PROMPTS = [Prompt(prompt_id=f"t/test/{i}", task="t", text=f"p{i}", answer=str(i), index=i) for i in range(10)]


class Line:
    """A sampler that says 0, 1, 2, 3 and a verifier that calls the reference answer right."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0

    async def sample(self, job: SampleJob) -> RolloutGroup:
        assert job.purpose == "evaluate"
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.001 * (job.group_id % 3))
        self.now -= 1
        rollouts = [
            Rollout(
                index=i,
                token_ids=pack_ints([1] * (i + 1)),
                logprobs=pack_floats([0.0] * (i + 1)),
                versions=pack_ints([0] * (i + 1)),
                text=str(i),
                finish="length" if i == 3 else "stop",
            )
            for i in range(job.sampling.rollouts)
        ]
        return RolloutGroup(
            group_id=job.group_id,
            prompt=job.prompt,
            prompt_ids=pack_ints([1]),
            sampling=job.sampling,
            rollouts=rollouts,
            purpose="evaluate",
        )

    async def verify(self, job: VerifyJob) -> VerdictSet:
        verdicts = [
            Verdict(status="correct" if i.response == i.answer else "wrong", parts={"search_steps": 2.0})
            for i in job.items
        ]
        if job.items[0].answer == "9":
            verdicts[1] = Verdict(status="timeout")
        return VerdictSet(group_id=job.group_id, verdicts=verdicts)


async def test_every_prompt_once_in_order_and_a_bounded_number_at_a_time() -> None:
    line = Line()
    groups = await judge_prompts(PROMPTS, SAMPLING, line.sample, line.verify, in_flight=3)
    assert [g.group.prompt.index for g in groups] == list(range(10))
    assert line.most == 3


async def test_a_prompt_that_cannot_be_sampled_is_one_error_and_no_group_of_them() -> None:
    async def sample(job: SampleJob) -> RolloutGroup:
        await asyncio.sleep(0)
        raise DataError(f"prompt {job.prompt.prompt_id!r} has 600 tokens")

    with pytest.raises(DataError, match="prompt 't/test/[0-2]' has 600 tokens"):
        await judge_prompts(PROMPTS, SAMPLING, sample, Line().verify, in_flight=3)


async def test_every_response_is_a_row_with_its_verdict() -> None:
    line = Line()
    rows = list(response_rows(await judge_prompts(PROMPTS[:2], SAMPLING, line.sample, line.verify, in_flight=3)))
    assert len(rows) == 8
    assert {name: rows[5][name] for name in ("prompt_id", "prompt", "answer", "rollout", "response", "status")} == {
        "prompt_id": "t/test/1",
        "prompt": "p1",
        "answer": "1",
        "rollout": 1,
        "response": "1",
        "status": "correct",
    }
    assert (rows[7]["finish"], rows[7]["num_tokens"]) == ("length", 4)


async def test_figures() -> None:
    line = Line()
    figures, num_whole = summarize_groups(await judge_prompts(PROMPTS, SAMPLING, line.sample, line.verify, in_flight=4))
    assert num_whole == 9  # the group with a timeout is left out
    assert figures["pass_at_1"]["mean"] == pytest.approx(4 / 9 / 4)  # answers 0..3 of 0..8, one rollout in four
    assert figures["pass_at_4"]["mean"] == pytest.approx(4 / 9)
    assert figures["response_tokens"]["mean"] == pytest.approx(2.5)
    assert figures["truncated"]["mean"] == pytest.approx(0.25)
    assert figures["search_steps"]["mean"] == pytest.approx(2.0)


def model(directory: Path) -> Path:
    prepare_model(config.RunConfig(name="r", stages={"s": config.StageConfig()}), directory / "model")
    return directory / "model"


def test_a_real_model_through_the_real_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = evaluate(model(tmp_path), config.TaskConfig(), rollouts=2, prompts=5, max_new_tokens=12, engine="torch")
    assert (result.num_prompts, result.num_dropped, result.engine, result.verifier) == (5, 0, "torch", "ops/1")
    assert sum(result.statuses.values()) == 10
    assert set(result.figures) == {"pass_at_1", "pass_at_2", "response_tokens", "truncated", "search_steps"}
    assert capsys.readouterr().out == ""


def test_a_verifier_that_always_fails_is_no_result(tmp_path: Path) -> None:
    task = config.TaskConfig(verifier="countdown")
    with pytest.raises(DivergedError, match="no prompt could be judged; the first reason: error: DataError"):
        evaluate(model(tmp_path), task, rollouts=1, prompts=2, max_new_tokens=4, engine="torch")


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such directory"):
        evaluate(tmp_path / "none", config.TaskConfig())
    with pytest.raises(ConfigError, match="temperature"):
        evaluate(model(tmp_path), config.TaskConfig(), temperature=0.0)
    with pytest.raises(DataError, match="window of 512"):
        evaluate(tmp_path / "model", config.TaskConfig(), max_new_tokens=510)


def test_the_table() -> None:
    figure = {"mean": 0.5, "low": 0.4, "high": 0.6}
    text = str(
        EvaluationResult(
            model="m",
            task="ops",
            verifier="ops/1",
            engine="torch",
            seed=0,
            temperature=1.0,
            max_new_tokens=8,
            seconds=2.0,
            num_prompts=9,
            num_dropped=1,
            rollouts=4,
            statuses={"wrong": 30, "correct": 6},
            figures={"pass_at_1": figure, "response_tokens": {"mean": 20.0, "low": 18.0, "high": 22.0}},
        )
    )
    assert text.splitlines() == [
        "m: ops, 9 held-out prompts x 4 rollouts, temperature 1, torch engine, 2 s",
        "",
        "                     mean  95 % interval",
        "pass@1              0.500  0.400 .. 0.600",
        "response tokens      20.0  18.0 .. 22.0",
        "",
        "verdicts: 6 correct, 30 wrong; 1 prompts left out",
    ]


def test_an_evaluation_has_the_whole_gpu_unless_it_is_told_otherwise() -> None:
    assert (sole_sampler(cuda=True).memory, sole_sampler(cuda=True).max_sequences) == (0.85, 512)
    assert sole_sampler(cuda=False) == config.SamplerConfig()
    assert engine_settings(None, []) is None
    two = engine_settings(None, ["sampler.tensor_parallel=2"])
    assert two is not None and two.tensor_parallel == 2
    cfg = config.load("launch/configs/gsm8k_qwen2.5-1.5b_1gpu.toml")
    assert engine_settings(cfg, []) == cfg.sampler
    given = engine_settings(cfg, ["sampler.memory=0.9"])
    assert given is not None and (given.memory, given.max_sequences) == (0.9, 384)
    with pytest.raises(ConfigError, match=r"takes sampler\.key=value only, not 'seed=3'"):
        engine_settings(None, ["seed=3"])
    with pytest.raises(ConfigError, match=r"sampler\.tensor_parallel = 0"):
        engine_settings(None, ["sampler.tensor_parallel=0"])


def test_an_adapter_is_evaluated_as_its_sum_with_the_model(tmp_path: Path) -> None:
    task = config.TaskConfig(name="ops")
    prepare_model(config.RunConfig(name="x", task=task, stages={"a": config.StageConfig()}), tmp_path / "model")
    options, model = config.LoraConfig(rank=2), load_model(tmp_path / "model")
    lora.add_adapters(model, options, 0, "model")
    for number, parameter in enumerate(lora.adapter_parameters(model).values()):
        parameter.data.uniform_(-0.2, 0.2, generator=torch.Generator().manual_seed(number))
    (tmp_path / "whole").mkdir()
    write_model(model, tmp_path / "model", tmp_path / "whole", adapters=options)
    rows = []
    for name in ("whole", "whole/adapter", "model"):
        out = tmp_path / "rows.jsonl"
        made = evaluate(tmp_path / name, task, rollouts=2, prompts=2, engine="torch", max_new_tokens=20, out=out)
        assert made.model == str(tmp_path / name)
        rows.append(out.read_text())
    assert rows[0] == rows[1] != rows[2]
