"""The pages say what is: links and paths exist, shown commands parse, shown code works, generated pages are current."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
from functools import cache
from pathlib import Path

import pytest

from rlsp_async import config
from rlsp_async.config import reference

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("launch/**/*.md"), *ROOT.glob("proto/*.md")])
PEOPLE = [page for page in PAGES if page.parent.name != "proto"]
# Folders of the checkout: `tasks/...` in a page means the package's.
TOP = ("rlsp_async", "services", "proto", "launch", "tests", "docs", "benchmarks", ".ci")


MAX_LINE = 149
"""Characters of a line, also in tables, lists of links and code."""


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


def headings(page: Path) -> set[str]:
    """Anchors as code hosts make them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands(page: Path) -> list[str]:
    """Every `rlsp ...` line of code blocks and inline code, without comment."""
    text = page.read_text()
    blocks = "\n".join(re.findall(r"```\w*\n(.*?)```", text, re.DOTALL))
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    lines = [line.partition(" # ")[0].strip() for line in [*blocks.splitlines(), *inline]]
    return [line for line in lines if re.match(r"rlsp [a-z]+ +\S", line)]


def code_blocks() -> list[tuple[str, str]]:
    """(file name, source) of README's Python blocks; the first line names the file."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return [(block.partition("\n")[0].removeprefix("# "), block) for block in blocks]


# --- links and paths -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith(("http://", "https://", "mailto:")):
            name, _, anchor = target.partition("#")
            there = (page.parent / name).resolve() if name else page
            assert there.exists(), f"{ids(page)}: {target}"
            assert not anchor or anchor in headings(there), f"{ids(page)}: {target}"


@pytest.mark.parametrize("page", PEOPLE, ids=ids)
def test_named_paths_exist(page):
    """`like/this.py` in code is a path of the checkout, of the package, or of the page's own folder."""
    for name in re.findall(r"`\.?/?([\w.-]+/[\w./*-]*)`", page.read_text()):
        if "*" in name or name.split("/")[0] not in {*TOP, *(path.name for path in (ROOT / "rlsp_async").iterdir())}:
            continue
        assert any((base / name).exists() for base in (ROOT, ROOT / "rlsp_async", page.parent)), f"{ids(page)}: {name}"


def test_the_tree_in_the_readme_is_the_tree():
    block = re.search(r"## The tree.*?```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block
    folder = ROOT
    for line in block[1].splitlines():
        names = re.match(r"\s*((?:[\w.]+[./]\w*\s)+|[\w.]+/)", line)
        assert names, line
        for name in names[1].split():
            at = folder if line.startswith("  ") else ROOT
            assert (at / name).exists(), name
            if not line.startswith("  "):
                folder = ROOT / name


def test_the_tree_in_the_readme_is_whole():
    text = (ROOT / "README.md").read_text().partition("## The tree")[2].partition("```\n")[2].partition("```")[0]
    for path in (ROOT / "rlsp_async").iterdir():
        if path.suffix == ".py" or (path.is_dir() and path.name != "__pycache__"):
            assert path.name in text or path.name == "__init__.py", f"README's tree lacks {path.name}"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=20).stdout.split()
    for folder in {path.split("/")[0] for path in tracked if "/" in path and not path.startswith(".")}:
        assert re.search(rf"^{folder}/", text, re.MULTILINE), f"README's tree lacks {folder}/"


def test_shell_scripts_are_shown_as_they_are():
    text = (ROOT / "README.md").read_text()
    for command in ("./launch/local.sh", "./launch/test.sh"):
        assert command in text
        assert (ROOT / command).exists()


def test_every_page_is_in_the_index_and_the_index_in_the_readme():
    text = (ROOT / "docs/index.md").read_text()
    linked = {(ROOT / "docs" / target.partition("#")[0]).resolve() for target in re.findall(r"\]\(([^)\s]+)\)", text)}
    pages = {*ROOT.glob("docs/**/*.md"), ROOT / "docs/minimal_loop.py", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"}
    assert pages - {ROOT / "docs/index.md"} <= linked
    assert "(docs/index.md)" in (ROOT / "README.md").read_text().partition("## Measured")[0]


# --- commands ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PEOPLE, ids=ids)
def test_commands_parse(page):
    cli = importlib.import_module("rlsp_async.cli.command")
    for command in commands(page):
        words = shlex.split(re.sub(r"\.\.\.", "", command))[1:]
        try:
            arguments = cli.parse(words)
        except SystemExit as e:
            raise AssertionError(f"{ids(page)}: {command}") from e
        for override in [] if arguments.command in ("demos", "tasks") else getattr(arguments, "overrides", []):
            key = re.sub(r"stages\.[\w-]+", "stages.NAME", override.partition("=")[0])
            assert key in known_keys(), f"{ids(page)}: {override}"


@cache
def known_keys() -> set[str]:
    """Every setting of a run as `section.key`; options of algorithms and tasks are not among them."""
    keys, section = set(), ""
    for line in reference.render().partition("## Options of")[0].splitlines():
        if title := re.match(r"## (?:`\[(.*)\]`|Top level)", line):
            section = title[1] or ""
        elif key := re.match(r"- `(\w+)` \(", line):
            keys.add(f"{section}.{key[1]}".lstrip("."))
    return keys


@pytest.mark.parametrize("page", PEOPLE, ids=ids)
def test_settings_that_are_named_exist(page):
    sections = {key.partition(".")[0] for key in known_keys() if "." in key} - {"stages"}
    for key in re.findall(r"`((?:[a-z_]+\.)+[a-z_]+)(?: ?= ?[^`]*)?`", page.read_text()):
        if key.split(".")[0] in sections and not key.endswith((".py", ".sh", ".md", ".toml", ".json", ".jsonl")):
            assert key in known_keys() | {"task.options"}, f"{ids(page)}: {key}"


# --- code ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The README's examples as files of a package of the user's."""
    for name, source in code_blocks():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return tmp_path


def test_the_three_examples_are_shown():
    assert [name for name, _ in code_blocks()] == ["mine/reward.py", "mine/sums.py", "mine/winners.py"]


def test_reward_example_judges(mine):
    from rlsp_async.verifying.base import load_verifier

    score = load_verifier("mine.reward").score
    found = [score("2 + 2?", response, "4").status for response in ("it is 4", "it is 5", " ")]
    assert found == ["correct", "wrong", "unparsable"]
    assert score("2 + 2?", "it is 4", "4").parts["correct"] == 1.0


def test_task_example_is_a_task(mine):
    from rlsp_async.errors import DataError
    from rlsp_async.tasks.base import load_task

    task = load_task(config.TaskConfig(name="mine.sums", options={"largest": 9}), seed=3)
    prompt = task.prompt("train", 5)
    assert prompt == task.prompt("train", 5)
    a, b = (int(number) for number in re.findall(r"\d+", prompt.text))
    assert str(a + b) == prompt.answer
    assert (task.size("train"), task.size("test")) == (None, 500)
    with pytest.raises(DataError):
        task.demonstration(0)


def test_algorithm_example_learns_from_winners_only(mine):
    import torch

    from rlsp_async.algos.base import Rollouts, Tokens, load_algorithm

    algorithm, cfg = load_algorithm(config.AlgorithmChoice(name="mine.winners"))
    ones_N = torch.ones(3)
    batch = Rollouts(
        reward_B=torch.tensor([1.0, 0.0]),
        group_B=torch.tensor([0, 0]),
        length_B=torch.tensor([1, 2]),
        behaviour_N=-ones_N,
        mask_N=ones_N.bool(),
    )
    found = algorithm.advantages(cfg, batch)
    assert found.keep_B.tolist() == [True, False]
    assert found.adv_N.tolist() == [0.5, 0.0, 0.0]
    tokens = Tokens(logp=-ones_N, behaviour=-ones_N, adv=found.adv_N, mask=ones_N.bool(), share=ones_N / 3)
    loss, _ = algorithm.token_loss(cfg, tokens)
    assert loss.item() == pytest.approx(0.5 / 3)


# --- generated and promised ----------------------------------------------------------------------------------------


def test_configuration_page_is_current():
    """An algorithm is one file and its test, so the page may lack one whole; what it says is what is."""
    page = (ROOT / "docs/configuration.md").read_text()
    shown = set(re.findall(r"^### `(\w+)`$", page.partition("## Options of the algorithms")[2], re.MULTILINE))
    lacking = frozenset(path.stem for path in (ROOT / "rlsp_async/algos").glob("*.py")) - shown - {"base"}
    assert page == reference.render(lacking), "python -m rlsp_async.config.reference > docs/configuration.md"


def test_fewer_than_a_hundred_settings_as_promised():
    assert config.num_settings() < 120
    assert len(known_keys()) == config.num_settings()


def test_settings_page_finds_a_sentence_and_a_default():
    source = 'class A:\n    """Doc."""\n    n: int = 3\n    """How\n    many."""\n    m: str\n'
    group = reference.read_groups(source)["A"]
    assert group == reference.Group(
        "Doc.", [reference.Setting("n", "int", "3", "How many."), reference.Setting("m", "str", "required", "")]
    )


def test_results_are_measured():
    """Before anything lands, every number in the tables is one that was measured."""
    for page in PEOPLE:
        assert "RESULTS_PENDING" not in page.read_text(), ids(page)


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_lines_are_short_enough_to_read(page):
    long = [
        f"{number}: {len(line)}" for number, line in enumerate(page.read_text().splitlines(), 1) if len(line) > MAX_LINE
    ]
    assert not long, f"{ids(page)}, line: characters, at most {MAX_LINE}: {', '.join(long)}"


def test_pages_use_our_words():
    for page in PEOPLE:
        lines = page.read_text().splitlines()
        found = [line for line in lines if re.search(r"\b(trajector|episode(?!_s\b))", line, re.IGNORECASE)]
        assert not [line for line in found if "Not trajectory" not in line and "*credit*" not in line], ids(page)


def test_no_page_is_ignored_by_git():
    done = subprocess.run(
        ["git", "check-ignore", *map(str, PAGES)], cwd=ROOT, capture_output=True, text=True, timeout=20
    )
    assert done.stdout == ""


def test_tests_that_prove_guarantees_exist():
    text, path = (ROOT / "docs" / "guarantees.md").read_text(), ""
    named = re.findall(r"`(tests/[\w/]+\.py)?(?:::(\w+))?`", text)
    assert len([name for _, name in named if name]) > 15
    for file, name in named:
        path = file or path
        assert not name or f"def {name}(" in (ROOT / path).read_text(), (path, name)


def test_every_setting_and_option_has_a_sentence() -> None:
    bare = []
    for path in sorted(reference.PACKAGE.rglob("*.py")):
        groups = reference.read_groups(path.read_text(encoding="utf-8"))
        for name, group in groups.items():
            if name.endswith(("Config", "Choice")):
                bare += [
                    f"{path.stem}.{name}.{setting.name}"
                    for setting in group.settings
                    if not setting.text
                    and not re.search(r"(Config|Choice)\b", setting.kind)  # a section has a docstring
                ]
    assert bare == []


# --- your model, your data -------------------------------------------------------------------------------------------


def test_the_settings_and_rows_of_the_page_for_your_own_model_are_a_task(tmp_path, monkeypatch):
    """What docs/your_model.md shows is loaded as it stands: settings, rows, and the reference answers judged."""
    from rlsp_async.tasks.base import load_task
    from rlsp_async.verifying.base import load_verifier

    text = (ROOT / "docs/your_model.md").read_text()
    settings, rows = (re.search(rf"```{kind}\n(.*?)```", text, re.DOTALL)[1] for kind in ("toml", "json"))
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(settings)
    Path("train.jsonl").write_text(rows * 20)
    cfg = config.load(Path("mine.toml"), [])
    assert (cfg.evaluation.every, cfg.stages["rl"].algorithm.name) == (25, "grpo")
    task = load_task(cfg.task, cfg.seed)
    prompt = task.prompt("train", 0)
    assert (prompt.chat, prompt.system) == (True, "Put the final answer in \\boxed{}.")
    assert {task.prompt("train", i).answer for i in range(task.size("train"))} <= {"4", "144"}
    assert (
        load_verifier(task.verifier).score(prompt.text, f"\\boxed{{{prompt.answer}}}", prompt.answer).status
        == "correct"
    )


def test_counterparts_for_people_from_peers_are_settings():
    """Each setting in the last column of the table of docs/from_peers.md exists, also where a short name stands."""
    text = (ROOT / "docs/from_peers.md").read_text().partition("## Settings")[2].partition("## Data")[0]
    options = reference.render()
    for row in re.findall(r"^\| (.*) \|$", text, re.MULTILINE)[2:]:
        for name in re.findall(r"`([a-z_.A-Z]+)`", row.split(" | ")[3]):
            assert f"- `{name.split('.')[-1]}` (" in options or name in ("refuse", "drop", "cut", "score"), name
