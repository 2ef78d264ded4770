"""May the run that is there go on with these settings?"""

from pathlib import Path

import pytest

from rlsp_async.errors import ConfigError, DataError
from rlsp_async.runner import resume
from tests.runner.given import made, settings


def test_a_directory_with_something_else_in_it(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    assert not resume.is_run(tmp_path / "x")
    (tmp_path / "x" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match=r"is no run \(it has no config.toml\); choose another name"):
        resume.is_run(tmp_path / "x")


def test_a_run_with_other_settings_names_them(tmp_path: Path) -> None:
    cfg = made(tmp_path, seed=3)
    resume.require_same(cfg, cfg.directory)
    changed = settings(tmp_path, seed=4, sampler={"count": 2})
    with pytest.raises(ConfigError, match=r"seed was 3 and is 4 now; choose another"):
        resume.require_same(changed, cfg.directory)


def test_how_the_work_is_done_may_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = made(tmp_path, seed=3)
    again = settings(tmp_path, seed=3, sampler={"count": 2})
    changed = resume.require_same(again, cfg.directory)
    assert changed == ["sampler.count was 1 and is 2 now"]
    resume.take_over(again, changed)
    assert "sampler.count was 1 and is 2 now" in capsys.readouterr().out
    assert resume.load_interrupted(cfg.directory, []).sampler.count == 2


def test_a_moved_run_is_resumed_where_it_lies(tmp_path: Path) -> None:
    cfg = made(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    for place in (tmp_path / "b" / cfg.name, tmp_path / "b" / cfg.name / "config.toml"):
        assert resume.load_interrupted(place, []).directory == tmp_path / "b" / cfg.name
    with pytest.raises(DataError, match="is no run: there is no config.toml in it"):
        resume.load_interrupted(tmp_path, [])


def test_a_run_that_was_moved_is_the_same_run(tmp_path: Path) -> None:
    cfg = made(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    resume.require_same(settings(tmp_path / "b"), tmp_path / "b" / cfg.name)
