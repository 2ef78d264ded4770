"""The benchmarks of arms: what a cell runs, how figures become a table, and one real cell from end to end."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import arms
import charts
import pytest
import staleness
from arms import Cell, Estimate, Result

ROOT = Path(__file__).parents[2]


def results(**solved: list[float]) -> list[Result]:
    return [
        Result(
            arm,
            seed,
            {
                "pass_at_1": value,
                "pass_at_4": 0.9,
                "response_tokens": 30.0,
                "search_steps": 2.0,
                "rollouts": 4096.0,
                "lag_mean": 1.0,
            },
        )
        for arm, values in solved.items()
        for seed, value in enumerate(values)
    ]


def test_an_arm_is_a_name_and_its_overrides():
    assert arms.read_arm('rover: a.b=1 c="x y"') == ("rover", ("a.b=1", "c=x y"))
    assert arms.read_arm("plain:") == ("plain", ())
    for text in ("no colon", ": a=1", "a/b: c=1"):
        with pytest.raises(argparse.ArgumentTypeError, match="NAME: KEY=VALUE"):
            arms.read_arm(text)


def test_intervals_by_hand():
    made = arms.estimate([0.6, 0.62, 0.64])
    assert made.mean == pytest.approx(0.62)
    assert made.half == pytest.approx(4.303 * 0.02 / 3**0.5)
    assert arms.points(Estimate(0.62, 0.0497)) == "62.0 +- 5.0"
    assert arms.points(Estimate(-0.1, float("nan")), "+") == "-10.0"


def test_the_difference_is_taken_seed_by_seed():
    found = results(control=[0.5, 0.6, 0.7], ours=[0.55, 0.65, 0.75])
    made = arms.difference(found[3:], found[:3])
    assert made.mean == pytest.approx(0.05)
    assert made.half == pytest.approx(0.0, abs=1e-9)


def test_the_table_says_who_diverged():
    found = [
        *results(control=[0.5, 0.6]),
        Result("naive", 0, {"pass_at_1": 0.0, "diverged": 1.0}),
        *results(naive=[0.0, 0.1])[1:],
    ]
    text = arms.table(found, ["control", "naive"]).splitlines()
    assert text[2].startswith("| control | 2 | 55.0 +- 63.5 |  | 90.0 | 30.0 | 2.0 | 4096 | 1.0 |")
    assert text[3].startswith("| naive (1 diverged) | 2 | 5.0 +- 63.5 | -50.0 +- 0.0 |")


def test_a_page_gets_the_table_between_its_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- figures -->\nold\n<!-- /figures -->\nafter\n")
    arms.write_page(page, "| new |")
    assert page.read_text() == "before\n<!-- figures -->\n\n| new |\n\n<!-- /figures -->\nafter\n"


def test_what_makes_no_sense_is_refused(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("no marks\n")
    for extra, words in (
        (["--page", str(page)], "has no line <!-- figures -->"),
        (["--model", str(tmp_path)], "no model"),
        (["--arm", "a:"], "same name"),
        (["--jobs", "0"], "at least 1"),
    ):
        with pytest.raises(SystemExit) as stopped:
            arms.arguments(["launch/configs/ops_staleness.toml", "--arm", "a:", *extra])
        assert stopped.value.code == 2
        assert words in capsys.readouterr().err


def test_cells_of_staleness():
    assert staleness.conditions([0, 16], [1, 4]) == [("lag", 0), ("lag", 16), ("reuse", 4)]
    lag = staleness.cell("topr", "lag", 16, 2)
    assert lag.name == "topr_lag16-2"
    assert lag.overrides[2:] == ("stages.rl.target_lag=16", "stages.rl.selection_options.min_ready=136")
    reuse = staleness.cell("reinforce", "reuse", 4, 0)
    assert reuse.overrides[2:] == (
        "stages.rl.max_uses=4",
        "stages.rl.groups_per_step=32",
        "stages.rl.selection_options.min_new=0.25",
    )


def test_the_goal_is_judged_by_the_best_of_each_side():
    found = results(topr_lag0=[0.70, 0.72], rover_lag0=[0.73, 0.75], topr_lag16=[0.73, 0.73], rover_lag16=[0.1, 0.2])
    args = staleness.arguments(["--algorithms", "topr,rover", "--lags", "0,16", "--reuses", "1"])
    text = staleness.report(found, args)[-1]
    assert "The best at lag 0 is `rover` with 74.0 %, the best at lag 16 is `topr` with 73.0 %: +1.0 points" in text
    assert text.endswith("is met.")
    assert "| `topr` | +2.0 +- 12.7 |\n| `rover` | -59.0 +- 50.8 |" in text


def test_curves_stand_where_they_should():
    text = charts.curves("title", {"a": [(0, Estimate(0.9, float("nan"))), (4, Estimate(0.0, 0.1))]}, "lag")
    bottom = charts.HEIGHT - charts.BOTTOM
    assert f'points="{charts.LEFT:.1f},{charts.TOP:.1f} {charts.WIDTH - charts.RIGHT:.1f},{bottom:.1f}"' in text


def test_no_two_curves_look_the_same():
    many = {f"a{n}": [(0, Estimate(0.5, 0.1)), (4, Estimate(0.1 * n, 0.1))] for n in range(10)}
    lines = [
        line.partition("fill=")[2]
        for line in charts.curves("title", many, "lag").splitlines()
        if line.startswith("<polyline")
    ]
    assert len(lines) == len(set(lines)) == 10


def test_a_cell_runs_the_line_once(tmp_path, monkeypatch):
    """A tiny model from nothing; the second call reads what the first left."""
    cell = Cell(
        "tiny",
        (
            "model.path=",
            "model.scratch.hidden=32",
            "model.scratch.layers=1",
            "stages.rl.steps=2",
            "stages.rl.groups_per_step=2",
            "stages.rl.target_lag=1",
            "sampling.max_new_tokens=8",
            "stages.rl.selection_options.min_ready=4",
            "evaluation.prompts=4",
        ),
        0,
    )
    config = ROOT / "launch" / "configs" / "ops_staleness.toml"
    [made] = arms.run_cells([cell], config, tmp_path, None, 1)
    assert made.figures["rollouts"] == 32.0
    assert made.figures["lag_max"] == 1.0
    assert not (tmp_path / "tiny-0" / "journal.sqlite").exists()
    monkeypatch.setattr(arms.subprocess, "run", None)  # nothing may run now
    assert arms.run_cells([cell], config, tmp_path, None, 1) == [made]
    row = json.loads((tmp_path / "tiny-0.json").read_text())
    assert row["overrides"] == list(cell.overrides)
    with pytest.raises(SystemExit, match="other overrides"):
        arms.run_cells([cell._replace(overrides=("a=1",))], config, tmp_path, None, 1)
