"""What users have written down (settings, names, key lists, modules of their own) means what it meant at commit 5550626.

surface.json is what the old tree said of itself, settings/ are files of users; README.md has the commands.
"""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.compat import old

pytestmark = [pytest.mark.flow, pytest.mark.timeout(150)]

SURFACE = json.loads((old.HERE / "surface.json").read_text())
NAMES = json.loads((old.HERE / "names.json").read_text())
RENUMBERED = {
    "code/1": "code/3",
    "math/3": "math/4",
    **{f"{name}/1": f"{name}/2" for name in ("choice", "exact", "abstain", "judge")},
}
"""Verifiers that judge some answers otherwise since then (CHANGELOG); none of these answers."""
WIDER = {"task.verifier_options abstain phrases", "task.verifier_options choice labels"}
"""Options whose default takes in more since then (CHANGELOG): phrases of other languages; labels of the answer's kind."""
USER = old.HERE / "settings" / "user.toml"


def test_every_command_has_the_options_it_had(tmp_path: Path) -> None:
    now = old.commands(tmp_path)
    gone = {name: set(options) - set(now.get(name, ["gone"])) for name, options in SURFACE["commands"].items()}
    assert not {name: options for name, options in gone.items() if options}


def test_every_setting_has_its_name_and_its_default(tmp_path: Path) -> None:
    """94 keys; new ones are allowed."""
    now = old.defaults(tmp_path)
    assert {key: now.get(key, "gone") for key in SURFACE["settings"]} == SURFACE["settings"]


def test_every_option_of_a_module_has_its_type_and_its_default() -> None:
    """364 rows of docs/configuration.md."""
    now, then = old.options(), old.as_today(SURFACE["options"])
    assert len(then) > 340
    assert {key: now.get(key, "gone") for key in then if key not in WIDER} == {
        key: text for key, text in then.items() if key not in WIDER
    }
    assert {now[key].partition("` ")[0] for key in WIDER} == {then[key].partition("` ")[0] for key in WIDER}


def test_the_file_of_a_user_is_accepted(tmp_path: Path) -> None:
    """Every key of every section, every algorithm with every preset, every selection of groups, prompts and
    temperatures with every option, success replay and spawning."""
    shown = old.rlsp(tmp_path, "check", str(USER))
    assert "user.toml can run" in shown
    settings = old.settings(shown)
    for name in NAMES["algorithms"]:
        for preset in ("", *NAMES["presets"][name]):
            stage = f"stages.{name}{'_' * bool(preset)}{preset}.algorithm"
            assert (settings[f"{stage}.name"], settings[f"{stage}.preset"]) == (name, preset)
    for key, family in (("prompts.name", "prompts"), ("temperature.name", "temperatures"), ("selection", "selections")):
        named = {
            value for where, value in settings.items() if where.startswith("stages.") and where.endswith(f".{key}")
        }
        assert named == set(NAMES[family])


def test_every_module_that_the_file_of_a_user_names_is_found(tmp_path: Path) -> None:
    """`rlsp check` does not load the selections; `rlsp import` prepares the run and loads all of them."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "rows.jsonl").write_text(
        '{"prompt": "1 2 -> 3 <think>", "response": "ok </think> +", "answer": "3", "reward": 1}\n'
    )
    old.rlsp(tmp_path, "import", "rows.jsonl", "--run", str(USER))
    assert (tmp_path / "runs" / "user" / "imported.jsonl").is_file()


def test_a_name_that_was_never_there_is_refused(tmp_path: Path) -> None:
    """So the two tests above can fail."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1", "response": "2", "answer": "3", "reward": 1}\n')
    old.rlsp(tmp_path, "import", "rows.jsonl", "--run", str(USER), "stages.remembers.prompts.name=nobody", ok=2)
    said = old.answers(
        tmp_path,
        [
            ["check", str(USER), f"stages.remembers.{word}"]
            for word in ("algorithm.name=nobody", "algorithm.preset=nobody", "algorithm.options.nobody=1", "nobody=1")
        ],
    )
    assert [code for code, _, _ in said] == [2, 2, 2, 2]


def test_every_short_name_of_a_task_and_of_a_verifier_is_known(tmp_path: Path) -> None:
    """With the exit code of `rlsp check`: 2 where it asks for an option or a library."""
    assert old.outcomes(tmp_path) == SURFACE["names"]
    assert SURFACE["names"]["tasks"].keys() == {*NAMES["tasks"], "nobody"}
    assert SURFACE["names"]["verifiers"].keys() == {*NAMES["verifiers"], "nobody"}


def test_prompts_and_demonstrations_are_what_they_were(tmp_path: Path) -> None:
    assert old.demonstrations(tmp_path) == SURFACE["demos"]


def test_verdicts_are_what_they_were(tmp_path: Path) -> None:
    """26 answers to 8 verifiers, with parts, what was extracted, and the version in the name."""
    without = [{key: value for key, value in verdict.items() if key != "detail"} for verdict in SURFACE["verdicts"]]
    for verdict in without:
        verdict["verifier"] = RENUMBERED.get(verdict["verifier"], verdict["verifier"])
    for now, then in zip(old.verdicts(tmp_path), without, strict=True):
        now["parts"] = {part: now["parts"].get(part) for part in then["parts"]}  # new parts are allowed
        if then["verifier"].startswith("code/"):  # without the line ends around a program since then
            now["extracted"], then["extracted"] = now["extracted"].strip(), then["extracted"].strip()
        assert now == then
    for verdict in SURFACE["verdicts"]:
        name, version = verdict["verifier"].split("/")
        assert NAMES["versions"][name] == version


def test_a_list_of_keys_is_read(tmp_path: Path) -> None:
    """The secrets were thrown away."""
    shutil.copytree(old.HERE / "settings" / "keys", tmp_path / "keys")
    shown = old.rlsp(tmp_path, "keys", "list", "keys")
    listed = json.loads((tmp_path / "keys" / "allowed.json").read_text())["keys"]
    assert {(entry["name"], entry["role"], key) for key, entry in listed.items()} == set(
        re.findall(r"^(\S+) +(\S+) +every \w+ +(\S+)$", shown, re.M)
    )
    assert "4 keys are let in" in shown


def test_modules_of_a_user_run_as_they_did(tmp_path: Path) -> None:
    """Task, verifier, algorithm (README, "Write a ..."), selections of groups, prompts and temperatures: the names that
    they import, what they are given, and what they answer."""
    old.rlsp(
        tmp_path,
        "run",
        str(old.HERE / "settings" / "own.toml"),
        "runs_dir=.",
        f"learner.weights_dir={tmp_path}/weights",
        *old.PATIENT,
        path=(old.HERE / "own",),
    )
    run = tmp_path / "own"
    old.rlsp(tmp_path, "audit", "own")
    rows = old.steps(run)
    assert list(rows) == [1, 2, 3]
    assert all({"temperature_judged", "temperature_mean"} <= row.keys() for row in rows.values())
    assert {row[0] for row in old.rows(run, "SELECT DISTINCT what FROM learnt")} == {"prompts", "temperature"}
