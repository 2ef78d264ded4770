"""`rlsp import`: what is accepted, what is refused with file and line, and that a run trains on it with no sampler."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rlsp_async import tokens
from rlsp_async.audit.checks import audit
from rlsp_async.columns import floats, ints
from rlsp_async.config import RunConfig, StageConfig, TaskConfig, VerifierConfig, load, to_toml
from rlsp_async.errors import ConfigError, DataError, EngineError
from rlsp_async.messages import Prompt, Verdict
from rlsp_async.offline import importing
from rlsp_async.offline.imported_rows import PAIR, pair_rows, read_verdict
from rlsp_async.offline.importing import add_rows, has_begun, import_rows, summarise_counts, with_verdicts
from rlsp_async.replay.journal import Journal
from rlsp_async.replay.server import ReplayServer
from rlsp_async.replay.sources import FILE, Imported, ImportedGroup, ImportedRollout
from rlsp_async.runner.run import resolve
from rlsp_async.tasks.base import load_task
from tests.replay.line import SmallTask, config
from tests.replay.test_server import FakeRouter

DEMONSTRATION = {"prompt": "1 1 3 4 -> 7 <think>", "response": "3 4 + 7"}
JUDGED = {**DEMONSTRATION, "answer": "7", "status": "wrong", "parts": {"correct": 0.0, "search_steps": 2}}


@pytest.fixture
def cfg(tmp_path: Path) -> RunConfig:
    """A prepared run with the tokenizer of `ops` and no model."""
    made = config(runs_dir=str(tmp_path), stages={"off": StageConfig(source="imported", steps=3, groups_per_step=2)})
    (made.directory / "model").mkdir(parents=True)
    tokenizer = load_task(TaskConfig(name="ops"), 0).tokenizer()
    assert tokenizer is not None
    tokenizer.save_pretrained(str(made.directory / "model"))
    return made


def file_of(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_demonstrations_are_encoded_with_the_runs_tokenizer(cfg: RunConfig, tmp_path: Path):
    assert add_rows(cfg, file_of(tmp_path, DEMONSTRATION, DEMONSTRATION)) == (2, 2)
    [(cursor, made)] = Imported(cfg).make(0, 1)
    assert cursor == 0
    assert made.verdicts == []
    group, [rollout] = made.group, made.group.rollouts
    assert (group.provenance, group.sampling.rollouts, rollout.text) == ("demonstration", 1, "3 4 + 7")
    tokenizer = tokens.load_tokenizer(cfg.directory / "model")
    assert ints(rollout.token_ids).tolist() == tokens.encode_response(tokenizer, "3 4 + 7").tolist()
    assert set(ints(rollout.versions).tolist()) == {-1}


def test_rollouts_bring_verdicts_and_log_probs(cfg: RunConfig, tmp_path: Path):
    row = {**JUDGED, "prompt_ids": [1, 2], "token_ids": [3, 4, 5], "logprobs": [-0.5, -1.0, -2.0], "temperature": 1.0}
    add_rows(cfg, file_of(tmp_path, row))
    [(_, made)] = Imported(cfg).make(4, 1)
    assert made.group.prompt.visit == 4
    assert floats(made.group.rollouts[0].logprobs).tolist() == [-0.5, -1.0, -2.0]
    assert ints(made.group.prompt_ids).tolist() == [1, 2]
    assert made.verdicts[0].status == "wrong"
    assert made.verdicts[0].parts == {"correct": 0.0, "search_steps": 2.0}


def test_imports_add_up_and_each_pass_visits_every_row(cfg: RunConfig, tmp_path: Path):
    rows = [{**JUDGED, "answer": str(i)} for i in range(5)]
    assert add_rows(cfg, file_of(tmp_path, *rows[:2])) == (2, 2)
    assert add_rows(cfg, file_of(tmp_path, *rows[2:])) == (3, 5)
    made = Imported(cfg).make(0, 10)
    assert sorted(group.group.prompt.answer for _, group in made[:5]) == list("01234")
    assert sorted(group.group.prompt.answer for _, group in made[5:]) == list("01234")
    assert Imported(cfg).make(7, 1) == made[7:8]


def test_rewards_become_verdicts():
    right, wrong = read_verdict({"reward": 1}, "f:1"), read_verdict({"reward": 0.25}, "f:1")
    assert right is not None
    assert wrong is not None
    assert (right.status, right.parts) == ("correct", {"correct": 1.0, "score": 1.0})
    assert (wrong.status, wrong.parts) == ("wrong", {"correct": 0.0, "score": 0.25})
    unparsable = read_verdict({"status": "unparsable"}, "f:1")
    assert unparsable is not None
    assert unparsable.parts == {"correct": 0.0}
    assert read_verdict({}, "f:1") is None


IDS = {"prompt_ids": [1], "token_ids": [1, 2]}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "x"}, "has no field 'response'"),
        ({**JUDGED, "status": "timeout"}, "'timeout' is not a verdict on the answer"),
        ({**JUDGED, "parts": {"correct": "yes"}}, "parts.correct must be a finite number"),
        ({**JUDGED, "parts": [1]}, "parts must be an object"),
        ({**DEMONSTRATION, "reward": True}, "reward must be a finite number, not True"),
        ({**JUDGED, "logprobs": [-1.0]}, "logprobs need prompt_ids and token_ids"),
        ({**JUDGED, **IDS, "logprobs": [-1.0]}, "1 logprobs for 2 token_ids"),
        ({**JUDGED, **IDS, "logprobs": [-1.0, -1.0], "temperature": 0.7}, "of temperature 0.7"),
        ({**JUDGED, **IDS, "logprobs": 1.0}, "logprobs must be a list"),
        ({**JUDGED, "prompt_ids": [1], "token_ids": [1, 10**6]}, "token_ids must be a list of ids from 0 to"),
        ({**JUDGED, "prompt_ids": [], "token_ids": [1]}, "prompt_ids must be a list of ids"),
        (
            {**JUDGED, "prompt_ids": [1] * 500, "token_ids": [1] * 13},
            "500 and 13 tokens do not fit the model's window of 512",
        ),
        (DEMONSTRATION, "has no status or reward, unlike the rows before it"),
    ],
)
def test_what_cannot_be_used_is_named_by_file_and_line(cfg: RunConfig, tmp_path: Path, row: dict[str, Any], words: str):
    add_rows(cfg, file_of(tmp_path, JUDGED))
    before = (cfg.directory / FILE).read_bytes()
    with pytest.raises(DataError, match=r"in\.jsonl:2") as error:
        add_rows(cfg, file_of(tmp_path, JUDGED, row))
    assert words in str(error.value)
    assert (cfg.directory / FILE).read_bytes() == before
    assert {path.name for path in cfg.directory.iterdir()} == {"model", FILE}


def test_a_run_that_does_not_want_rows_or_has_begun_is_refused(cfg: RunConfig, tmp_path: Path):
    toml = tmp_path / "run.toml"
    toml.write_text(to_toml(msgspec.structs.replace(cfg, stages={"rl": StageConfig()})), encoding="utf-8")
    with pytest.raises(ConfigError, match='no stage has source = "imported"'):
        import_rows(file_of(tmp_path, JUDGED), str(toml), [])
    assert not has_begun(cfg.directory / "journal.sqlite")
    Journal(cfg.directory / "journal.sqlite", cfg).close()
    assert not has_begun(cfg.directory / "journal.sqlite")


@pytest.mark.parametrize("error", [DataError("row 3"), EngineError("no process"), KeyboardInterrupt()])
def test_after_a_failed_import_no_run_is_prepared(
    cfg: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
):
    toml = tmp_path / "run.toml"
    toml.write_text(to_toml(msgspec.structs.replace(cfg, name="new")), encoding="utf-8")
    run = tmp_path / "new"

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(importing, "add_rows", fails)
    monkeypatch.setattr("rlsp_async.runner.run.prepare", lambda cfg: run.mkdir())
    with pytest.raises(type(error)):
        import_rows(file_of(tmp_path, JUDGED), str(toml), [])
    assert not run.exists()
    run.mkdir()
    (run / "config.toml").write_text(to_toml(resolve(load(toml, []))), encoding="utf-8")
    with pytest.raises(type(error)):
        import_rows(file_of(tmp_path, JUDGED), str(toml), [])
    assert run.is_dir(), "a run that was there stays"


def test_a_hub_without_its_rows_says_what_to_do(cfg: RunConfig):
    with pytest.raises(DataError, match="rlsp import FILE.jsonl"):
        Imported(cfg).make(0, 1)
    (cfg.directory / FILE).write_text("{}\n", encoding="utf-8")
    with pytest.raises(DataError, match="is not what `rlsp import` wrote"):
        Imported(cfg).make(0, 1)


# --- groups of several ------------------------------------------------------------------------------------------------


def group(answer: str, key: Any, status: str = "wrong") -> dict[str, Any]:
    return {**JUDGED, "answer": answer, "group": key, "status": status}


def test_rows_with_the_same_key_are_groups_no_larger_than_sampled_ones(cfg: RunConfig, tmp_path: Path):
    rows = [group("7", 1, "correct"), group("8", 2), group("7", 1), group("7", 1), group("8", 2)]
    assert add_rows(cfg, file_of(tmp_path, *rows), "group") == (5, 3)  # sampling.rollouts is 2: of three, one and two
    made = [m for _, m in Imported(cfg).make(0, 3)]
    assert sorted((m.group.prompt.answer, len(m.group.rollouts), len(m.verdicts)) for m in made) == [
        ("7", 1, 1),
        ("7", 2, 2),
        ("8", 2, 2),
    ]
    pair = next(m.group for m in made if len(m.group.rollouts) == 2)
    assert ([one.index for one in pair.rollouts], pair.sampling.rollouts) == ([0, 1], 2)


def test_parquet_and_arrow_say_the_same_as_json_lines(cfg: RunConfig, tmp_path: Path):
    pyarrow, feather, parquet = (
        pytest.importorskip(name) for name in ("pyarrow", "pyarrow.feather", "pyarrow.parquet")
    )

    rows = [
        {**group("7", 1, "correct"), "prompt_ids": [1], "token_ids": [2, 3], "logprobs": [-1.0, -0.5]},
        {**group("8", 2), "parts": {"correct": 0.0}},
    ]
    add_rows(cfg, file_of(tmp_path, *rows), "group")
    expected = (cfg.directory / FILE).read_text()
    table = pyarrow.Table.from_pylist(rows)
    parquet.write_table(table, tmp_path / "in.parquet")
    feather.write_feather(table, str(tmp_path / "in.arrow"), compression="uncompressed")
    for name in ("in.parquet", "in.arrow"):
        (cfg.directory / FILE).unlink()
        assert add_rows(cfg, tmp_path / name, "group") == (2, 2)
        assert (cfg.directory / FILE).read_text() == expected.replace("in.jsonl", name)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (JUDGED, "has no field 'group'"),
        (group("8", 1), "it shares its group '1' with"),
        ({**group("7", 1), "prompt": "1 2 3 4 -> 7 <think>"}, "has another prompt or answer"),
    ],
)
def test_a_group_is_of_one_prompt(cfg: RunConfig, tmp_path: Path, row: dict[str, Any], words: str):
    with pytest.raises(DataError, match=words) as error:
        add_rows(cfg, file_of(tmp_path, group("7", 1), row), "group")
    assert "in.jsonl:2" in str(error.value)
    assert not (cfg.directory / FILE).exists()


# --- verdicts made here -----------------------------------------------------------------------------------------------

RIGHT = {"prompt": "1 1 3 4 -> 7 <think>", "answer": "7", "response": "x </think> * * +", "status": "wrong"}


def test_verdicts_are_made_here_and_say_so(cfg: RunConfig, tmp_path: Path):
    counts: Counter[str] = Counter()
    rows = [RIGHT, {**RIGHT, "response": "x </think> + + +"}, {**RIGHT, "response": "x", "status": None}]
    made_cfg = msgspec.structs.replace(cfg, verifier=VerifierConfig(processes=1))
    assert add_rows(made_cfg, file_of(tmp_path, *rows), "prompt", verify=True, counts=counts) == (3, 2)
    verdicts = [v for _, m in Imported(cfg).make(0, 2) for v in m.verdicts]
    assert sorted(v.status for v in verdicts) == ["correct", "unparsable", "wrong"]
    assert {v.verifier for v in verdicts} == {"ops/1 at import"}
    assert list(summarise_counts(counts)) == [
        "3 responses judged here: 1 correct, 1 wrong, 1 unparsable",
        "1 verdicts differ from the file's; the verdicts made here are used",
        "1 groups hold a single rollout: for them a group's baseline says nothing",
    ]


def test_a_verdict_on_the_verifier_is_none_on_the_answer():
    counts: Counter[str] = Counter()
    rollouts = [ImportedRollout(response=text, token_ids=[1]) for text in "ab"]
    prompt = Prompt(prompt_id="p", task="ops", text="x", answer="1")
    made = with_verdicts(
        ImportedGroup(prompt=prompt, prompt_ids=[1], rollouts=rollouts),
        [Verdict(status="timeout"), Verdict(status="wrong", verifier="v/1")],
        counts,
    )
    assert [(one.response, one.verdict and one.verdict.verifier) for one in made.rollouts] == [("b", "v/1 at import")]
    assert list(summarise_counts(counts)) == [
        "2 responses judged here: 1 wrong, 1 left out",
        "1 responses were left out: the verifier timed out or failed on them, and no verdict is made up",
    ]


def test_verdicts_and_rows_without_one_do_not_mix(cfg: RunConfig, tmp_path: Path):
    add_rows(cfg, file_of(tmp_path, DEMONSTRATION))
    with pytest.raises(DataError, match="holds rows without a verdict"):
        add_rows(cfg, file_of(tmp_path, RIGHT), verify=True)
    (cfg.directory / FILE).unlink()
    with pytest.raises(DataError, match=r"in\.jsonl:1: has no field 'answer'"):
        add_rows(cfg, file_of(tmp_path, DEMONSTRATION), verify=True)


async def test_a_run_trains_on_imported_groups(cfg: RunConfig, tmp_path: Path):
    rows = [group(str(i), i, status) for i in range(4) for status in ("correct", "wrong")][:7]
    add_rows(cfg, file_of(tmp_path, *rows), "group")
    router = FakeRouter({b"l": "learner"})
    await ReplayServer(cfg, SmallTask()).run(lambda: router)
    batches = [m.job.batch for _, m in router.sent if hasattr(m, "job")]
    assert sorted(len(made.group.rollouts) for batch in batches[:2] for made in batch.groups) == [1, 2, 2, 2]
    assert audit(cfg.directory).ok


async def test_a_run_trains_on_imported_rollouts_with_no_sampler_and_no_verifier(cfg: RunConfig, tmp_path: Path):
    add_rows(cfg, file_of(tmp_path, *[{**JUDGED, "status": status} for status in ("correct", "wrong", "wrong")]))
    router = FakeRouter({b"l": "learner"})
    await ReplayServer(cfg, SmallTask()).run(lambda: router)
    batches = [m.job.batch for _, m in router.sent if hasattr(m, "job")]
    assert [batch.step for batch in batches] == [1, 2, 3]
    statuses = [[group.verdicts[0].status for group in batch.groups] for batch in batches]
    assert sorted(statuses[0] + statuses[1][:1]) == ["correct", "wrong", "wrong"]  # one pass over the three rows
    assert audit(cfg.directory).ok
    assert has_begun(cfg.directory / "journal.sqlite")


# --- files for DPO and SFT, chat messages ------------------------------------------------------------------------------

ASKED = {"role": "user", "content": "1 1 3 4 -> 7 <think>"}


def says(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "1 1 3 4 -> 7 <think>", "chosen": "3 4 + 7", "rejected": "3 4 + 8"},
        {"prompt": "1 1 3 4 -> 7 <think>", "chosen": says("3 4 + 7"), "rejected": says("3 4 + 8")},
    ],
)
def test_a_preference_is_a_group_of_two(cfg: RunConfig, tmp_path: Path, row: dict[str, Any]):
    assert add_rows(cfg, file_of(tmp_path, row, {**row, "chosen": row["rejected"]})) == (4, 2)
    [(_, made), (_, other)] = Imported(cfg).make(0, 2)
    if made.group.rollouts[0].text != "3 4 + 7":
        made, other = other, made
    assert [one.text for one in made.group.rollouts] == ["3 4 + 7", "3 4 + 8"]
    assert [one.status for one in made.verdicts] == ["correct", "wrong"]
    assert [one.text for one in other.group.rollouts] == ["3 4 + 8", "3 4 + 8"]


def test_whole_conversations_of_a_preference_share_their_prompt():
    before = [{"role": "system", "content": "s"}, ASKED]
    row = {"prompt": "ignored", "chosen": before + says("a"), "rejected": before + says("b")}
    first, second = pair_rows(row, 3, "f:3")
    assert (first["prompt"], first["response"], first["reward"]) == (before, says("a"), 1.0)
    assert (second["prompt"], second["response"], second["reward"]) == (before, says("b"), 0.0)
    assert first[PAIR] == second[PAIR] == "pair 3"
    with pytest.raises(DataError, match="f:3: chosen and rejected are conversations that differ before their last"):
        list(pair_rows({**row, "rejected": [ASKED, *says("b")]}, 3, "f:3"))


def test_completions_and_lists_of_answers(cfg: RunConfig, tmp_path: Path):
    rows = [{"prompt": ASKED["content"], "completion": says("3 4 + 7"), "answer": ["7", "seven"]}]
    assert add_rows(cfg, file_of(tmp_path, *rows)) == (1, 1)
    [(_, made)] = Imported(cfg).make(0, 1)
    assert made.group.rollouts[0].text == "3 4 + 7"
    assert made.group.prompt.answer == "7\x1eseven"
