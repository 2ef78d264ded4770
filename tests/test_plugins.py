"""Finding a plugin by name and decoding its options: one mechanism for every family of plugins."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rlsp_async.algos.base import ALGORITHMS
from rlsp_async.config import Section
from rlsp_async.errors import ConfigError
from rlsp_async.plugins import PluginFamily, decode_options, nearest_name
from rlsp_async.prompts.base import PROMPT_SELECTIONS
from rlsp_async.replay.selection.base import SELECTIONS
from rlsp_async.tasks.base import TASKS
from rlsp_async.temperatures.base import TEMPERATURE_SCHEDULES
from rlsp_async.verifying.base import VERIFIERS

FAMILIES = [ALGORITHMS, PROMPT_SELECTIONS, SELECTIONS, TASKS, TEMPERATURE_SCHEDULES, VERIFIERS]
FULL = "Config = dict\ndef load(cfg): return cfg\n"


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PluginFamily:
    """A family with the plugins `round`, `square` and `deep.inside`, and a helper module that is not a plugin."""
    package = tmp_path / "shapes_that_ship"
    (package / "deep").mkdir(parents=True)
    for name in ("__init__", "deep/__init__", "helper"):
        (package / f"{name}.py").write_text("")
    for name in ("round", "square", "deep/inside"):
        (package / f"{name}.py").write_text(FULL)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield PluginFamily(
        noun="shape",
        package="shapes_that_ship",
        setting="shape.name",
        options="shape.options",
        needs=("Config", "load"),
        aliases={"circle": "round", "deep": "deep.inside"},
        advice="write both",
    )
    for name in [name for name in sys.modules if name.split(".")[0] in ("shapes_that_ship", "mine_own")]:
        del sys.modules[name]


def error_of(family: PluginFamily, name: str) -> str:
    with pytest.raises(ConfigError) as caught:
        family.find(name)
    return str(caught.value)


def test_short_names_are_modules_of_the_package_and_aliases(family: PluginFamily) -> None:
    assert family.names() == ["circle", "deep", "round", "square"]
    assert family.find("round").__name__ == "shapes_that_ship.round"
    assert family.find("circle") is family.find("round")
    assert family.find("deep").__name__ == "shapes_that_ship.deep.inside"


def test_an_unknown_name_is_answered_with_the_nearest_one(family: PluginFamily) -> None:
    assert error_of(family, "sqare") == "shape.name: unknown name 'sqare'; did you mean 'square'?"
    assert error_of(family, "circl") == "shape.name: unknown name 'circl'; did you mean 'circle'?"
    known = "known: circle, deep, round, square, or a dotted module of your own"
    assert error_of(family, "zzzzzz") == f"shape.name: unknown name 'zzzzzz'; {known}"


def test_a_dotted_name_is_the_users_own_module(family: PluginFamily, tmp_path: Path) -> None:
    (tmp_path / "mine_own").mkdir()
    (tmp_path / "mine_own" / "__init__.py").write_text("")
    (tmp_path / "mine_own" / "oval.py").write_text(FULL)
    assert family.find("mine_own.oval").__name__ == "mine_own.oval"
    (tmp_path / "mine_own" / "broken.py").write_text("import a_library_nobody_has\n")
    with pytest.raises(ModuleNotFoundError, match="a_library_nobody_has"):
        family.find("mine_own.broken")


@pytest.mark.parametrize("name", ["nobody.has.this", "shapes_that_ship.nothing", ".relative", "trailing."])
def test_a_dotted_name_that_is_not_there(family: PluginFamily, name: str) -> None:
    assert error_of(family, name) == f"shape.name: no module {name!r}; is its directory on PYTHONPATH?"


def test_missing_attributes_are_all_named(family: PluginFamily) -> None:
    end = "offers no 'Config', 'load'; write both"
    assert error_of(family, "helper") == f"shape.name: module 'shapes_that_ship.helper' {end}"
    assert error_of(replace(family, advice=""), "os.path").endswith(" offers no 'Config', 'load'")


def test_a_file_where_the_family_takes_files(family: PluginFamily, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(FULL)
    assert "no module" in error_of(family, str(path))
    takes_files = replace(family, files=True)
    assert takes_files.find(str(path)).load(3) == 3
    path.write_text("Config = dict\n")
    assert error_of(takes_files, str(path)) == f"shape.name: file {str(path)!r} offers no 'load'; write both"
    absent = "shape.name: absent.py: no such file; a relative path counts from the working directory"
    assert error_of(takes_files, "absent.py") == absent


class Limits(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    low: int = 0
    high: int = 9

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low must be at most high")


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"loww": 3}, "shape 'round': unknown key 'shape.options.loww'; did you mean 'low'?"),
        ({"zzzz": 3}, "shape 'round': unknown key 'shape.options.zzzz'; known: low, high"),
        ({"low": "three"}, "shape 'round': shape.options.low = 'three': Expected `int`, got `str`"),
        ({"low": 10}, "shape 'round': shape.options: low must be at most high"),
    ],
)
def test_an_error_in_an_option_names_its_whole_path(table: dict[str, object], sentence: str) -> None:
    assert decode_options({"low": 3}, Limits, "shape.options", "shape 'round'") == Limits(low=3)
    with pytest.raises(ConfigError) as caught:
        decode_options(table, Limits, "shape.options", "shape 'round'")
    assert str(caught.value) == sentence


def test_the_hint_for_a_name() -> None:
    assert nearest_name("opz", ["ops", "gsm8k"]) == "did you mean 'ops'?"
    assert nearest_name("zzz", ["ops", "gsm8k"]) == "known: ops, gsm8k"
    assert nearest_name("zzz", []) == "there is none"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.noun)
def test_every_shipped_plugin_can_be_found_and_misspelt(family: PluginFamily) -> None:
    names = family.names()
    assert names
    for name in names:
        assert all(hasattr(family.find(name), attribute) for attribute in family.needs)
    assert error_of(family, names[0] + "z").startswith(f"{family.setting}: unknown name '{names[0]}z'; did you mean")
