"""A new algorithm is one file and its test: one is planted beside the others, and loader, docs and contract find it."""

import re
import shutil
import sys
from pathlib import Path

import pytest

import rlsp_async.algos
from rlsp_async import config
from rlsp_async.algos import base
from rlsp_async.config import reference
from tests import test_layers as layers
from tests.algos import test_contract as contract

ALGOS = Path(rlsp_async.algos.__file__).parent
ROOT = ALGOS.parents[1]


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A module of the package that no other file knows of."""
    shutil.copyfile(ALGOS / "rloo.py", tmp_path / "planted.py")
    monkeypatch.setattr(rlsp_async.algos, "__path__", [*rlsp_async.algos.__path__, str(tmp_path)])
    yield "planted"
    sys.modules.pop("rlsp_async.algos.planted", None)


def test_a_run_can_name_it(planted):
    assert planted in base.names()
    module, cfg = base.load_algorithm(config.AlgorithmChoice(name=planted, preset="paper"))
    assert (module.__name__, cfg.aggregation) == ("rlsp_async.algos.planted", "seq_sum")


def test_it_is_an_algorithm_to_the_laws_of_layers(planted):
    assert layers.row(f"rlsp_async.algos.{planted}") is layers.ROWS["rlsp_async.algos"]


def test_the_contract_runs_on_every_module_with_a_loss():
    losses = {path.stem for path in ALGOS.glob("*.py") if "\ndef token_loss(" in path.read_text(encoding="utf-8")}
    assert set(contract.MODULES) == losses == set(base.names())
    assert {name for name, _ in contract.PRESETS} == losses


@pytest.mark.parametrize("name", base.names())
def test_it_has_a_test_of_its_own(name):
    text = (ROOT / "tests/algos" / f"test_{name}.py").read_text(encoding="utf-8")
    assert re.search(rf"^from rlsp_async.algos import .*\b{name}\b", text, re.MULTILINE)


def test_the_page_of_settings_may_wait_for_it():
    whole, without = reference.render(), reference.render(frozenset({"rloo"}))
    assert "### `rloo`" in whole
    assert "### `rloo`" not in without


def test_no_source_file_lists_algorithms():
    """Two names of algorithms as strings in one file would be a list, and a new algorithm would be missing from it."""
    for path in sorted((ROOT / "rlsp_async").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        found = [name for name in base.names() if f'"{name}"' in text and path.stem != name]
        assert len(found) < 2, (path, found)
