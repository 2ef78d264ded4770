"""Writes launch/requirements.lock from requirements-cpu.txt and requirements-dev.txt. Installs nothing.

    .venv/bin/python launch/lock.py

pip resolves the pinned names with its own configured sources and reports the file and the SHA-256 that it would
install; no source is named here or in the lock. Hashes are those of CPython 3.11 on Linux x86_64. torch has a comment
instead of a hash, because its CPU wheel comes from another source than the rest (launch/setup.sh says which).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

LAUNCH = Path(__file__).resolve().parent
LISTS = (LAUNCH / "requirements-cpu.txt", LAUNCH / "requirements-dev.txt")
HEAD = """\
# The development environment, whole: every package of requirements-cpu.txt and requirements-dev.txt with the SHA-256
# of its file for CPython 3.11 on Linux x86_64. Generated; after a change of the lists:
#
#   .venv/bin/python launch/lock.py
#
# To install exactly these files: install torch as its line says, then
#
#   pip install --no-deps --require-hashes -r launch/requirements.lock
#
# launch/setup.sh installs from the two lists, which also serve other versions of Python; tests/test_lock.py compares
# lists, lock and environment.
"""
TORCH = """\
# torch=={version}   installed first, by launch/setup.sh, and without a hash: where pip's configured sources lack the
#                       CPU build, it comes from PyTorch's own index, and a hash of one source would refuse the other
"""


def normal(name: str) -> str:
    """The name of a package as indexes compare it: `PyYAML` and `pyyaml` are one."""
    return re.sub(r"[-_.]+", "-", name).lower()


def resolve() -> list[tuple[str, str, str]]:
    """(name, version, SHA-256) of every package of the lists, in the order of the names."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        words = [word for path in LISTS for word in ("-r", str(path))]
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet"]
        subprocess.run([*command, "--report", str(report), *words], check=True)
        found = json.loads(report.read_text())["install"]
    packages = [
        (normal(one["metadata"]["name"]), one["metadata"]["version"], one["download_info"]["archive_info"]["hashes"])
        for one in found
    ]
    return sorted((name, version, hashes["sha256"]) for name, version, hashes in packages)


def render(packages: list[tuple[str, str, str]]) -> str:
    """The text of the lock."""
    lines = []
    for name, version, digest in packages:
        pinned = f"{name}=={version} \\\n    --hash=sha256:{digest}\n"
        lines.append(TORCH.format(version=version) if name == "torch" else pinned)
    return HEAD + "".join(lines)


if __name__ == "__main__":
    (LAUNCH / "requirements.lock").write_text(render(resolve()))
