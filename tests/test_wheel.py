"""What is shipped: one top-level name, with the services, the protocol and the configurations inside, and it runs."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.timeout(240)  # pip and the task's data, on a machine that does other things too


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as a user would, but offline: the build back-end of this environment."""
    out = tmp_path_factory.mktemp("dist")
    _run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)], cwd=ROOT)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel in a folder of its own, without its dependencies, which this environment has."""
    target = tmp_path_factory.mktemp("site")
    _run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--no-index",
            "--target",
            str(target),
            str(wheel),
        ]
    )
    return target


def _run(command: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _rlsp(site: Path, *words: str) -> str:
    """`rlsp` of the wheel, from a folder that is not the checkout (its own files would be found there)."""
    code = "import sys, rlsp_async.cli as cli; print(cli.__file__, file=sys.stderr); sys.exit(cli.main())"
    environment = {**os.environ, "PYTHONPATH": str(site), "COLUMNS": "200"}
    return _run([sys.executable, "-c", code, *words], cwd=site, env=environment)


def test_one_top_level_name(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"rlsp_async", "rlsp_async-0.1.0.dist-info"}


def test_everything_a_run_needs_is_inside(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = [f"rlsp_async/_services/{role}.py" for role in ("replay", "sampler", "verifier", "learner")]
    wanted += [f"rlsp_async/_launch/configs/{path.name}" for path in (ROOT / "launch/configs").glob("*.toml")]
    wanted += [f"rlsp_async/data/{path.name}" for path in (ROOT / "rlsp_async/data").iterdir()]
    wanted += [f"rlsp_async-0.1.0.dist-info/licenses/{name}" for name in ("LICENSE", "NOTICE")]
    wanted += ["rlsp_async/_proto/README.md", "rlsp_async/report/report.css", "rlsp_async/py.typed"]
    assert set(wanted) <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith(("tests/", "docs/"))]


def test_entry_point_and_licence(wheel):
    archive = zipfile.ZipFile(wheel)
    assert "rlsp = rlsp_async.cli:main" in archive.read("rlsp_async-0.1.0.dist-info/entry_points.txt").decode()
    assert "License-Expression: Apache-2.0" in archive.read("rlsp_async-0.1.0.dist-info/METADATA").decode()


def test_help_runs_from_the_wheel(installed):
    assert "check" in _rlsp(installed, "--help")


def test_shipped_configuration_is_accepted_from_the_wheel(installed):
    config = installed / "rlsp_async/_launch/configs/ops_cpu.toml"
    assert "rlsp" in _rlsp(installed, "check", str(config))
