"""Rows are measured before a run: refused, dropped or cut, with their counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rlsp_async.config import EvaluationConfig, ModelConfig, RunConfig, SamplingConfig, StageConfig, TaskConfig
from rlsp_async.contents import check_prompt
from rlsp_async.errors import ConfigError, DataError
from rlsp_async.messages import ChatMessage, Prompt
from rlsp_async.preflight import inputs, rows
from rlsp_async.runner.prepare import prepare
from rlsp_async.tasks.base import Split, load_task
from rlsp_async.tasks.fitted import FittedTask, RowChanges, fit_task
from rlsp_async.tasks.row_task import RowTask
from rlsp_async.tokens import encode_prompt, load_tokenizer

LONG = 300
"""The training row that is longer than the model's window of 2,048."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A training file of 460 rows and a held-out file of 20, with one row of 3,000 characters in each."""
    for name, num, long in (("train", 460, LONG), ("test", 20, 7)):
        lines = [
            {
                "prompt": f"{name} {i}: {'word ' * (600 if i == long else 3)}what is {i}?",
                "answer": str(i),
                "response": "x" * (2100 if i == 11 else 9),
            }
            for i in range(num)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def config(path: Path, too_long: str = "refuse", source: str = "rollouts", **changes: Any) -> RunConfig:
    options = {
        "path_train": str(path / "train.jsonl"),
        "path_test": str(path / "test.jsonl"),
        "response_field": "response",
    }
    return RunConfig(
        name="x",
        runs_dir=str(path / "runs"),
        model=ModelConfig(path="tiny-qwen2"),
        task=TaskConfig(name="jsonl", options=options, too_long=too_long),  # type: ignore[arg-type]
        sampling=SamplingConfig(max_new_tokens=64),
        stages={"s": StageConfig(source=source)},  # type: ignore[arg-type]
        **{"evaluation": EvaluationConfig(prompts=8, after=["s"]), **changes},
    )


def test_a_long_row_far_behind_is_refused_with_its_number_and_what_to_do(path: Path) -> None:
    with pytest.raises(DataError) as caught:
        inputs.measure(config(path), None)
    text = str(caught.value)
    assert f"prompt jsonl/train/{LONG} (train.jsonl:{LONG + 1}): " in text
    assert (
        "sampling.max_new_tokens = 64 exceed the model's window of 2048; 1 of 460 training prompts does not fit" in text
    )
    assert 'task.too_long = "drop" or "cut"' in text


def test_dropped_rows_are_counted_and_never_come(path: Path) -> None:
    measured = inputs.measure(config(path, "drop"), None)
    assert measured
    assert measured.changes.dropped == {"train": [LONG], "test": [7]}
    assert "1 of 460 training prompts does not fit: 1 dropped (task.too_long = 'drop')" in measured.sentences[0]
    task = fit_task(load_task(config(path).task, 0), measured.changes)
    assert (task.size("train"), task.size("test")) == (459, 19)
    prompts = [task.prompt("train", i) for i in range(459)]
    assert [prompt.index for prompt in prompts] == list(range(459))
    assert [prompt.answer for prompt in prompts] == [str(i) for i in range(460) if i != LONG]
    assert prompts[LONG].prompt_id == f"jsonl/train/{LONG + 1}"
    with pytest.raises(DataError, match="there are 459"):
        task.prompt("train", 459)


def test_a_cut_prompt_keeps_its_end_and_fits_exactly(path: Path, tmp_path: Path) -> None:
    measured = inputs.measure(config(path, "cut"), None)
    assert measured
    assert measured.changes.dropped == {"train": [], "test": []}
    task = fit_task(load_task(config(path).task, 0), measured.changes)
    assert task.size("train") == 460
    prompt = task.prompt("train", LONG)
    assert f"word what is {LONG}?" in prompt.text
    assert "train" not in prompt.text
    prepare(config(path, "cut"), tmp_path / "run")
    assert len(encode_prompt(load_tokenizer(tmp_path / "run" / "model"), prompt)) == 2048 - 64 == measured.longest
    assert RowChanges.read(tmp_path / "run") == measured.changes


def test_demonstrations_are_measured_with_their_own_response(path: Path) -> None:
    with pytest.raises(
        DataError, match=r"demonstration jsonl/train/11 \(train.jsonl:12\): .* and 2101 of the response"
    ):
        inputs.measure(config(path, source="demonstrations", evaluation=EvaluationConfig(prompts=0)), None)
    measured = inputs.measure(config(path, "drop", "demonstrations"), None)
    assert measured
    assert measured.changes.demonstrations == [i for i in range(460) if i not in (11, LONG)]
    task = fit_task(load_task(config(path).task, 0), measured.changes)
    assert [task.demonstration(i)[0].answer for i in (10, 11, 458)] == ["10", "12", "0"]


def test_when_all_fit_nothing_changes(path: Path, tmp_path: Path) -> None:
    cfg = config(path, source="demonstrations")
    cfg = RunConfig(name="x", task=TaskConfig(name="ops"), stages=cfg.stages, evaluation=EvaluationConfig(prompts=0))
    measured = inputs.measure(cfg, None)
    assert measured
    assert not measured.changes.changes_anything
    task = load_task(cfg.task, 0)
    assert fit_task(task, measured.changes) is task
    prepare(cfg, tmp_path / "run")
    assert not (tmp_path / "run" / "rows.json").exists()


def test_nothing_left_and_too_few_held_out_rows_are_refused(path: Path) -> None:
    cfg = config(path, "drop")
    with pytest.raises(DataError, match="none would be left"):
        inputs.measure(RunConfig(**{**fields(cfg), "sampling": SamplingConfig(max_new_tokens=2040)}), None)
    with pytest.raises(ConfigError, match="only 19 fit the model's window; set it to 19 or less"):
        inputs.measure(RunConfig(**{**fields(cfg), "evaluation": EvaluationConfig(prompts=20, after=["s"])}), None)


def fields(cfg: RunConfig) -> dict[str, Any]:
    return {name: getattr(cfg, name) for name in cfg.__struct_fields__}


def test_a_damaged_file_of_dropped_rows_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text("{")
    with pytest.raises(DataError, match=r"rows\.json: cannot be read"):
        RowChanges.read(tmp_path)


def test_progress_is_shown_when_it_takes_long(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PROGRESS_ROWS", 3)
    said: list[str] = []
    inputs.measure(config(path, "drop"), None, said.append)
    assert "measuring training prompts: 3 of 460" in said


def test_what_a_task_offers_besides_is_still_there(path: Path) -> None:
    fitted = fit_task(load_task(config(path).task, 0), RowChanges(dropped={"train": [0]}))
    assert isinstance(fitted, FittedTask)
    assert fitted.verified_by == "math"
    assert fitted.tokenizer() is None


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"text": "a\ud800"},
            r"prompt 't/train/3' ('own:4'): its text has half of a surrogate pair (\ud800) at character 1",
        ),
        ({"answer": "\udfff"}, "its answer has half of a surrogate pair"),
        ({"system": "\udfff"}, "its system has half of a surrogate pair"),
        ({"earlier": [ChatMessage(role="user", text="\udfff")]}, "its earlier has half of a surrogate pair"),
        ({"answer": "1" * 4_194_305}, "its answer has 4,194,305 characters; at most 4,194,304"),
        ({}, "its response has half of a surrogate pair"),
    ],
)
def test_texts_of_a_task_that_no_message_can_hold(changed: dict[str, Any], sentence: str) -> None:
    whole = Prompt(prompt_id="t/train/3", task="t", text="\U0001d54f" * 200_000, answer="1", source="own:4")
    check_prompt(whole, "fine")
    with pytest.raises(DataError) as caught:
        check_prompt(msgspec.structs.replace(whole, **changed), "" if changed else "\ud800")
    assert sentence in str(caught.value)
    str(caught.value).encode()


def test_a_task_of_the_users_own_with_such_a_text_does_not_begin(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = RowTask.prompt

    def odd(self: RowTask, split: Split, index: int) -> Prompt:
        return msgspec.structs.replace(known(self, split, index), system="\ud800" if index == 400 else "")

    monkeypatch.setattr(RowTask, "prompt", odd)
    with pytest.raises(DataError, match=r"prompt 'jsonl/train/400' \('train.jsonl:401'\): its system has half"):
        inputs.measure(config(path, "drop"), None)
