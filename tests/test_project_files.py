"""The files that code hosts and tools read: citation, changelog, templates."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import rlsp_async

ROOT = Path(__file__).parents[1]
FORMS = ("bug_report.yml", "feature_request.yml")
FIELDS = {"markdown", "textarea", "input", "dropdown", "checkboxes"}


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


# --- citation: Citation File Format 1.2.0 --------------------------------------------------------------------------

CFF_KEYS = {"cff-version", "message", "type", "title", "abstract", "version", "license", "authors", "keywords"} | {
    "references",
    "date-released",
    "doi",
    "repository-code",
    "url",
    "identifiers",
    "preferred-citation",
}
PERSON = {"given-names", "family-names", "orcid", "affiliation", "email"}
ENTITY = {"name", "website", "email"}


def test_citation_is_valid_and_agrees_with_the_package():
    cff = read("CITATION.cff")
    assert cff.keys() <= CFF_KEYS
    assert cff["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= cff.keys()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (cff["version"], cff["license"]) == (project["version"], project["license"])
    assert cff["authors"] == [{"name": re.search(r"Copyright \d+ (.+)", (ROOT / "NOTICE").read_text())[1]}]
    for author in cff["authors"] + [one for reference in cff["references"] for one in reference["authors"]]:
        assert author.keys() <= ENTITY or author.keys() <= PERSON


def test_the_paper_is_cited_whole():
    (paper,) = read("CITATION.cff")["references"]
    assert {"type", "title", "authors", "year", "url"} <= paper.keys()
    assert paper["type"] == "article"
    assert paper["identifiers"] == [{"type": "other", "value": "arXiv:2502.06773"}]
    assert paper["url"].endswith("2502.06773")
    assert len(paper["authors"]) == 8


# --- changelog -----------------------------------------------------------------------------------------------------


def test_changelog_keeps_its_form():
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    assert versions[0] == "Unreleased"
    assert rlsp_async.__version__ in versions
    kinds = re.findall(r"^### (\w+)", text, re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_names_of_now_in_the_changelog_exist():
    """The last column of the table of moves: `rlsp_async...` modules can be found, names of theirs are there."""
    import importlib

    rows = re.findall(r"^\| .+ \| .+ \| (.+) \|$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    module = None
    for cell in rows[1:]:
        dotted = re.findall(r"`(rlsp_async[\w.]*)`", cell)
        for name in dotted:
            parent, _, last = name.rpartition(".")
            module = importlib.import_module(name if _is_module(name) else parent)
            assert _is_module(name) or hasattr(module, last), name
        names = re.findall(r"`([A-Z]\w+)`", cell)
        assert not dotted or all(hasattr(module, name) for name in names), cell


def _is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


# --- templates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMS)
def test_issue_forms_have_what_code_hosts_ask_for(name):
    form = read(f".github/ISSUE_TEMPLATE/{name}")
    assert {"name", "description", "body"} <= form.keys()
    ids = []
    for field in form["body"]:
        assert field["type"] in FIELDS
        if field["type"] == "markdown":
            assert field["attributes"]["value"].strip()
            continue
        ids.append(field["id"])
        assert field["attributes"]["label"]
        assert field["type"] != "dropdown" or len(set(field["attributes"]["options"])) > 1
        assert field.get("validations", {}).keys() <= {"required"}
    assert len(ids) == len(set(ids)) > 2


def test_issue_chooser_is_valid():
    assert read(".github/ISSUE_TEMPLATE/config.yml") == {"blank_issues_enabled": True}
    forms = {path.name for path in (ROOT / ".github/ISSUE_TEMPLATE").iterdir()}
    assert forms == {*FORMS, "config.yml"}


def test_pull_requests_are_asked_for_what_contributing_demands():
    text = (ROOT / ".github/pull_request_template.md").read_text()
    assert len(re.findall(r"^- \[ \] ", text, re.MULTILINE)) >= 8
    for path in re.findall(r"`(?:bash )?([\w./-]+\.(?:md|py)|\.ci/run)`", text):
        assert (ROOT / path).exists() or path == "__init__.py", path
