"""The report of a made-up run: figures by hand, the table, the page, and files that are torn or missing."""

import io
import json
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from rlsp_async.cli.report import show_report
from rlsp_async.errors import DataError
from rlsp_async.report.results import Span, build_report, idle_shares, lag_histogram, merge_intervals, pick_examples
from rlsp_async.report.svg import thin_points, ticks
from rlsp_async.report.text import column_widths, shorten
from rlsp_async.report.write import load_report, write_report
from rlsp_async.runner.run import show_result
from tests.report import fake_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = fake_run.make_run(tmp_path_factory.mktemp("runs") / "fake")
    write_report(directory, finished=True)
    return directory


def test_figures_of_the_made_up_run(run: Path) -> None:
    report = load_report(run)
    assert report is not None
    assert (report.run, report.finished, report.seconds, report.versions, report.seed) == ("fake", True, 220.0, 216, 7)
    sft, rlsp = report.stages
    assert (sft.steps, sft.rollouts, sft.seconds, sft.lag_mean, sft.reward_first) == (200, 6400, 100.0, None, None)
    assert (rlsp.steps, rlsp.rollouts, rlsp.seconds, rlsp.lag_max) == (16, 4096, 80.0, 1.0)
    assert (rlsp.first_version, rlsp.last_version, rlsp.tokens) == (201, 216, 16 * 256 * 80)
    assert [e.when for e in report.evaluations] == ["before", "after"]
    after = report.evaluations[1]
    assert (after.k, after.prompts, after.rollouts) == (8, 256, 8)
    assert after.figures["pass_at_1"].mean == 0.618
    assert report.tokens["generated"] == sum(report.tokens.values()) - report.tokens["generated"] == 812345
    assert report.lags == {"0": 128, "1": 384}
    assert report.digest.startswith("sha256:9a129038d9a00aed")
    assert report.idle["rlsp"]["learner-0"] == pytest.approx(1 - 3.4 / 5)
    assert "replay" not in report.idle["rlsp"]
    assert [row["when"] for row in report.examples] == ["before", "before", "after", "after"]


class _Page(HTMLParser):
    """Counts tags and checks that they close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_self_contained(run: Path) -> None:
    text = (run / "report.html").read_text()
    page = _Page()
    page.feed(text)
    assert page.open == []
    assert page.seen.count("svg") == 18
    assert "script" not in page.seen
    for piece in ("http://", "https://", "src="):
        assert piece not in text
    for piece in (
        "32.1 %",
        "61.8 %",
        "held-out pass@k",
        "search steps",
        "KL to the policy",
        "stage rlsp",
        "812,345",
        "prefers-color-scheme: dark",
        "v-unparsable",
        "-&gt; 7 &lt;think&gt;",
    ):
        assert piece in text


def test_hostile_text_is_escaped_and_a_browser_is_told_to_run_and_load_nothing(tmp_path: Path) -> None:
    """What a model wrote stands in the page as letters; the policy precedes everything that could be loaded."""
    directory = fake_run.make_run(tmp_path / "hostile")
    rows = [json.loads(line) for line in (directory / "rollouts.jsonl").read_text().splitlines()]
    hostile = "</pre><script>alert(1)</script><img onerror=alert(2)>"
    rows = [row | {"prompt": hostile, "response": hostile} for row in rows]
    (directory / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_report(directory, finished=True)
    text = (directory / "report.html").read_text()
    assert "&lt;script&gt;alert(1)" in text
    assert "<script" not in text
    assert "<img" not in text
    head = text.partition("<style>")[0]
    assert "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'" in head


def test_what_a_schedule_of_temperatures_knows_is_drawn(tmp_path: Path) -> None:
    directory = fake_run.make_run(tmp_path / "bstar")
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    rows = [row | {"temperature_mean": 0.8, "temperature_score_0.6": 0.5, "penalty_garbled": 0.1} for row in rows]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_report(directory, finished=True)
    text = (directory / "report.html").read_text()
    for piece in ("temperature of the batch", "balance score of each temperature", "share with a fault"):
        assert piece in text


def test_the_table_and_json(run: Path) -> None:
    out = io.StringIO()
    assert show_report(run, as_json=False, out=out) == 0
    assert "after rlsp   216      61.8 %       96.8 %       104.0      7.4         4.0 %\n" in out.getvalue()
    assert "                      (58.3-65.3)  (93.8-99.8)\n" in out.getvalue()
    assert f"report   {run}/report.html" in out.getvalue()
    out = io.StringIO()
    assert show_report(run, as_json=True, out=out) == 0
    assert msgspec.json.decode(out.getvalue())["finished"] is True
    out = io.StringIO()
    assert show_result(run, "finished already", out) == 0
    assert out.getvalue().endswith("finished already\n")


def test_a_run_that_has_just_begun_has_a_report(tmp_path: Path) -> None:
    directory = fake_run.make_run(tmp_path / "young")
    for name in ("metrics.jsonl", "timeline.jsonl", "evaluations.jsonl", "rollouts.jsonl", "status.json"):
        (directory / name).unlink()
    report = write_report(directory, finished=False)
    assert [(s.steps, s.seconds) for s in report.stages] == [(0, 0.0), (0, 0.0)]
    assert "not finished" in (directory / "report.html").read_text()


def test_torn_and_repeated_lines_are_survived(tmp_path: Path) -> None:
    directory = fake_run.make_run(tmp_path / "torn")
    with open(directory / "metrics.jsonl", "ab") as file:
        file.write(b'{"kind":"step","step":216,"stage":"rlsp","stage_step":16,"t":220.5,"reward":0.9}\n{"kind":"ste')
    rlsp = build_report(directory).stages[1]
    assert rlsp.steps == 16
    assert rlsp.reward_last == 0.9


def test_a_row_that_a_crash_took_is_no_step_less(tmp_path: Path) -> None:
    directory = fake_run.make_run(tmp_path / "killed")
    lines = (directory / "metrics.jsonl").read_text().splitlines(keepends=True)
    gone = next(line for line in lines if '"stage_step":7' in line.replace(" ", "") and '"rlsp"' in line)
    (directory / "metrics.jsonl").write_text("".join(line for line in lines if line != gone))
    assert build_report(directory).stages[1].steps == 16


@pytest.mark.parametrize("name", ["metrics", "evaluations", "timeline", "rollouts"])
def test_damaged_lines_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    directory = fake_run.make_run(tmp_path / "bad")
    file, whole = directory / f"{name}.jsonl", build_report(directory)
    first, *others = file.read_bytes().splitlines(keepends=True)
    damaged = [b"{\n", b"\xff\x00\n", b"[1]\n", *([] if name == "rollouts" else [b'{"kind": "step"}\n'])]
    file.write_bytes(b"".join([first, *damaged, *others]))
    assert build_report(directory) == whole
    said = capsys.readouterr().err
    assert said == f"{file}: {len(damaged)} of {len(others) + 1 + len(damaged)} lines are damaged and were left out\n"


def test_a_directory_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is no run: it has no config\.toml"):
        build_report(tmp_path)


def test_merging_and_idle_shares_by_hand() -> None:
    assert merge_intervals([(1, 3), (0, 2), (5, 6)]) == [(0, 3), (5, 6)]
    assert merge_intervals([(0, 1), (1.5, 2)], gap_s=0.5) == [(0, 2)]
    spans = [Span(0, 2, "sampler-0", "sample"), Span(1, 3, "sampler-0", "sample"), Span(9, 20, "sampler-0", "sample")]
    assert idle_shares(spans, 0.0, 10.0) == {"sampler-0": pytest.approx(0.6)}
    assert idle_shares(spans, 5.0, 5.0) == {}


def test_lags_are_summed() -> None:
    assert lag_histogram([{"lag_0": 3, "lag_2": 1, "lag_mean": 0.5}, {"lag_2": 4}]) == {"0": 3, "2": 5}


def test_examples_show_right_and_wrong() -> None:
    rows = [{"when": "after", "status": "correct", "i": i} for i in range(6)] + [{"when": "after", "status": "wrong"}]
    assert [row["status"] for row in pick_examples(rows)] == ["correct", "correct", "correct", "wrong"]


def test_ticks_and_thinning() -> None:
    assert ticks(0.0, 0.87) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert ticks(5.0, 5.0)[0] <= 5.0 <= ticks(5.0, 5.0)[-1]
    assert thin_points([(i, 2.0 * i) for i in range(1000)], 100)[0] == (4.5, 9.0)


def test_long_rollouts_are_shortened_in_the_middle() -> None:
    assert shorten("a  b\nc\x1b[2J", 20) == "a b c [2J"
    assert shorten("x" * 30 + "y" * 30, 25) == "x" * 10 + " ... " + "y" * 10


def test_verification_beside_solving(tmp_path: Path) -> None:
    directory = fake_run.make_run(tmp_path / "fake")
    file = directory / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        if row.get("stage") == "rlsp":
            row["verification_share"] = 0.125
            if row["stage_step"] > 1:  # the first batch held none
                row["verification_balanced"] = 0.5 + row["stage_step"] / 50
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sft, rlsp = build_report(directory).stages
    assert (sft.verification_share, sft.verification_first, sft.verification_last) == (None, None, None)
    assert rlsp.verification_share == 0.125
    assert (rlsp.verification_first, rlsp.verification_last) == pytest.approx((0.54, 0.82))
    out = io.StringIO()
    show_report(directory, as_json=False, out=out)
    assert "verifying 54 -> 82 %" in out.getvalue()


def test_a_stage_without_a_gradient_is_named():
    from rlsp_async.config import RunConfig, StageConfig
    from rlsp_async.report.results import no_signal

    cfg = RunConfig(name="x", stages={"sft": StageConfig(source="demonstrations"), "rl": StageConfig()})
    flat = [{"stage": "rl", "reward": 0.0, "grad_norm": 0.0}, {"stage": "rl", "reward": 0.0}]
    assert no_signal(cfg, "rl", flat).startswith("stage rl: none of its 2 steps had a gradient, so no weight moved")
    assert "the mean reward was 0 in all of them" in no_signal(cfg, "rl", flat)
    assert no_signal(cfg, "rl", [*flat, {"stage": "rl", "reward": 0.1, "grad_norm": 0.3}]) == ""
    assert no_signal(cfg, "sft", flat) == no_signal(cfg, "rl", []) == ""
    sft = [{"stage": "sft", "grad_norm": 0.0}]
    assert no_signal(cfg, "sft", sft).endswith("does its algorithm, 'grpo', learn from demonstrations?")
    assert no_signal(cfg, "sft", [{"stage": "sft", "grad_norm": 2.0}]) == ""


def test_the_tables_stay_within_80_columns_and_break_between_words_only(tmp_path: Path) -> None:
    directory = fake_run.make_run(tmp_path / "wide")
    out = io.StringIO()
    show_report(directory, as_json=False, out=out)
    lines = [line for line in out.getvalue().splitlines() if str(directory) not in line]
    assert max(map(len, lines)) <= 80
    assert "idle     in rlsp:   sampler-0 8 %   verifier-0 90 %   learner-0 32 %" in lines
    assert column_widths([["a b", "one two three"], ["c", "x"]], most=12) == [3, 7]
    assert column_widths([["a b", "abcdefghijkl"]], most=5) == [3, 12]


def test_evaluations_during_a_stage_stand_in_the_table_and_over_the_steps(tmp_path: Path) -> None:
    directory = fake_run.make_run(tmp_path / "often")
    first, last = (directory / "evaluations.jsonl").read_text().splitlines()
    during = [fake_run.evaluation_row("during", 200 + s, 0.3 + 0.02 * s, 50, 3, 130 + 5 * s, s) for s in (4, 8)]
    (directory / "evaluations.jsonl").write_text("\n".join([first, *map(json.dumps, [*during, during[1]]), last, ""]))
    report = write_report(directory, finished=True)
    assert [e.label for e in report.evaluations] == ["before rlsp", "rlsp step 4", "rlsp step 8", "after rlsp"]
    text = (directory / "report.html").read_text()
    assert "<title>rlsp step 4: 38.0 % (34.5-41.5)</title>" in text
    assert "held-out pass@1, 95 % interval" in text
    assert text.count("<td>rlsp step 8</td>") == 1
    assert "rlsp step 8: 8" not in text  # pass@k has lines of before and after alone
