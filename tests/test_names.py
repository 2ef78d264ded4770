"""Names and words: one class name is one class, every folder's map is whole, and prose is plain.

Each check is a function from sources to sentences, so that the tests can plant a violation and see it found.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.test_docs import PAGES
from tests.test_layers import ROOT, module_name, sources

PHRASES = (
    r"mend(s|ed|ing)?",
    r"borne",
    r"anew",
    r"so many",
    r"nobody is told",
    r"(?<!there )(is|are) none",
    r"passed over",
    r"the other way about",
)
"""What plain technical English says otherwise: repair, tolerated, again, at most N, ..."""
RETIRED = frozenset(
    {
        "anew",
        "borne",
        "crew",
        "doorman",
        "eater",
        "hungry",
        "mend",
        "mended",
        "mischief",
        "nursery",
        "setbacks",
        "vigil",
    }
)
"""Words in identifiers for which CONTRIBUTING.md has another: worker, retry, hang detector, fork server, auth, ..."""
DIALECT = re.compile(rf"\b({'|'.join(PHRASES)})\b")
OWN_WORDS = ("CONTRIBUTING.md", "CHANGELOG.md")


def duplicate_classes(named: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Class names that two modules define; `Config = GrpoConfig` is an assignment, not a class."""
    homes: dict[str, list[str]] = {}
    for name, source in named:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(f"{name}:{node.lineno}")
    yield from (f"class {name}: {' and '.join(where)}" for name, where in sorted(homes.items()) if len(where) > 1)


def missing_from_map(package: Path) -> Iterator[str]:
    """Modules and packages of a folder that the docstring of its __init__.py does not name."""
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    for path in sorted(package.iterdir()):
        is_module = path.suffix == ".py" or (path / "__init__.py").exists()
        if is_module and not path.stem.startswith("__") and not re.search(rf"(?<![\w.]){path.stem}(?!\w)", text):
            yield f"{package.name}/__init__.py does not name {path.name}"


def prose_of(source: str) -> Iterator[tuple[int, str]]:
    """(line, text) of comments, of docstrings and of the strings below fields."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from enumerate(node.value.value.splitlines(), start=node.lineno)


def dialect(name: str, lines: Iterable[tuple[int, str]]) -> Iterator[str]:
    """Lines with a phrase of the list."""
    for number, line in lines:
        if found := DIALECT.search(line):
            yield f"{name}:{number}: {found[0]!r} in {line.strip()[:100]!r}"


def retired(name: str, source: str) -> Iterator[str]:
    """Names of modules, classes, functions, arguments, attributes and variables with a word that was given up."""
    for node in ast.walk(ast.parse(source)):
        for field in ("name", "asname", "id", "attr", "arg"):
            identifier = getattr(node, field, None)
            if isinstance(identifier, str) and words_of(identifier) & RETIRED:
                yield f"{name}:{getattr(node, 'lineno', 0)} {identifier}"
    if words_of(name.rpartition(".")[2]) & RETIRED:
        yield f"{name}: the module's name"


def words_of(identifier: str) -> set[str]:
    """Example: "_WorkerTable.max_tries" -> worker, table, max, tries."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", identifier)}


def test_identifiers_have_the_words_of_the_field():
    found = sorted({sentence for name, source in sources() for sentence in retired(name, source)})
    assert not found, "\n" + "\n".join(found)


def test_one_class_name_is_one_class():
    found = list(duplicate_classes(sources()))
    assert not found, "\n" + "\n".join(found)


def test_every_folder_has_a_whole_map():
    """The map of the package itself is the tree in the README, which test_docs compares."""
    packages = [path.parent for path in sorted((ROOT / "rlsp_async").rglob("*/__init__.py"))]
    assert len(packages) > 15
    found = [sentence for package in packages for sentence in missing_from_map(package)]
    assert not found, "\n" + "\n".join(found)


def test_prose_of_the_package_is_plain():
    found = [sentence for name, source in sources() for sentence in dialect(name, prose_of(source))]
    assert not found, "\n" + "\n".join(found)


def test_pages_are_plain():
    pages = [page for page in PAGES if page.name not in OWN_WORDS]
    found = [
        sentence
        for page in pages
        for sentence in dialect(str(page.relative_to(ROOT)), enumerate(page.read_text().splitlines(), start=1))
    ]
    assert not found, "\n" + "\n".join(found)


# --- each check finds what is planted ------------------------------------------------------------------------------


def test_a_second_class_of_a_name_is_found():
    found = list(
        duplicate_classes([("a", "class Plan:\n    pass\n"), ("b", "def f():\n    class Plan:\n        pass\n")])
    )
    assert found == ["class Plan: a:1 and b:2"]
    assert not list(
        duplicate_classes([("a", "class GrpoConfig:\n    pass\nConfig = GrpoConfig\n"), ("b", "Config = 1\n")])
    )


def test_a_module_that_no_map_names_is_found(tmp_path):
    (tmp_path / "__init__.py").write_text('"""One.\n\nhub.py   decides\n"""\n')
    for name in ("hub.py", "hub_file.py", "selection/__init__.py", "__main__.py", "data/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [sentence.split()[-1] for sentence in missing_from_map(tmp_path)] == ["hub_file.py", "selection"]


@pytest.mark.parametrize(
    "source",
    [
        "# what is mended\n",
        'def f():\n    """Begins anew."""\n',
        'class A:\n    x: int\n    """Raises when it is none, or they are none."""\n',
        '"""First line.\n\nHow much of it is borne.\n"""\n',
    ],
)
def test_planted_dialect_is_found(source):
    assert list(dialect("m", prose_of(source)))


@pytest.mark.parametrize(
    "source",
    [
        "class HungryIndex: pass",
        "def f(crew): pass",
        "x.mended = 1",
        "NO_SETBACKS = 1",
        "import a as vigil",
        "f(anew=1)",
    ],
)
def test_a_retired_word_is_found(source):
    assert list(retired("m", source))
    assert list(retired("rlsp_async.replay.crew", ""))
    assert not list(retired("rlsp_async.replay.workers", "recommend = Mender(crews, vigilant)"))


def test_code_and_other_words_are_not_accused():
    source = 'amended = "anew"\n"""Recommended: the value is None; 0 when there is none; renewed."""\nif x is None:  # commend\n    pass\n'
    assert not list(dialect("m", prose_of(source)))


def test_module_names_are_those_of_the_files():
    assert module_name(ROOT / "rlsp_async/replay/hub.py") == "rlsp_async.replay.hub"
