"""Writes docs/configuration.md from the source: every setting, its type, its default and the string below it.

    python -m rlsp_async.config.reference > docs/configuration.md

The source is read with `ast`, so nothing heavy is imported, and a setting without a sentence still appears. Sections
come from `schema.py` in the order of `RunConfig`; options from the `...Config` class of every plugin module.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rlsp_async.config import ranges

PACKAGE = Path(__file__).parents[1]
WIDTH = 118
"""Longest line of the page."""

HEAD = """\
# Configuration

Written by `python -m rlsp_async.config.reference > docs/configuration.md`; to change a sentence, change the source.

A run has one TOML file; on the command line `section.key=value` replaces single settings. An unknown key is refused
with its path and the nearest known name. `rlsp check CONFIG` prints the resolved settings and what follows from them,
and starts nothing. The shipped files are in `launch/configs/`, named by task, model and hardware.

Each entry gives the key, its type and range, its default (or "required"), and its meaning. NaN is no number here, and
infinity only where the range names it. On the command line `.001`, `1.e-4` and `True` may be written as in Python.
"""


class Setting(NamedTuple):
    """One key: `text` is the string below the field in the source, empty when there is none."""

    name: str
    kind: str
    default: str
    text: str


class Group(NamedTuple):
    """One class of settings, with its docstring."""

    text: str
    settings: list[Setting]


def read_groups(source: str) -> dict[str, Group]:
    """The classes of a module that hold annotated fields, by name."""
    return {
        node.name: Group(_flat(ast.get_docstring(node) or ""), list(_settings(node)))
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef)
    }


def render(without: frozenset[str] = frozenset()) -> str:
    """The whole page, without the options of the algorithms in `without`."""
    groups = read_groups((PACKAGE / "config" / "schema.py").read_text(encoding="utf-8"))
    parts = [HEAD, *_sections(groups, "RunConfig", "")]
    for folder, title, key in (
        ("algos", "Options of the algorithms", "stages.NAME.algorithm.options"),
        ("tasks", "Options of the tasks", "task.options"),
        ("verifying", "Options of the verifiers", "task.verifier_options"),
        ("prompts", "Options of the prompt selections", "stages.NAME.prompts.options"),
        ("temperatures", "Options of the temperature schedules", "stages.NAME.temperature.options"),
        ("replay/selection", "Options of the replay selections", "stages.NAME.selection_options"),
    ):
        parts.append(f"## {title}: `{key}`\n\n")
        parts += _options(folder, without if folder == "algos" else frozenset())
    lora, success = groups["LoraConfig"], groups["SuccessReplayConfig"]
    parts += [
        "## Options of adapters: `model.lora`",
        _wrapped(lora.text),
        _list(lora.settings),
        "## Options of success replay: `stages.NAME.success_replay`",
        _wrapped(success.text),
        _list(success.settings),
    ]
    environment = groups["EnvironmentConfig"]
    parts += [
        "## Options of environments: `task.environment`",
        _wrapped(environment.text),
        _list(environment.settings),
    ]
    spawn = read_groups((PACKAGE / "replay" / "spawn.py").read_text(encoding="utf-8"))["SpawnConfig"]
    parts += ["## Options of spawning: `stages.NAME.spawn`", _list(spawn.settings)]
    return "\n".join(part.strip("\n") + "\n" for part in parts)


# --- reading -------------------------------------------------------------------------------------------------------


def _settings(node: ast.ClassDef) -> Iterator[Setting]:
    for field, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            default = ast.unparse(field.value) if field.value else "required"
            yield Setting(field.target.id, ast.unparse(field.annotation), default, _string(after))


def _string(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return _flat(node.value.value)
    return ""


def _flat(text: str) -> str:
    return " ".join(text.split())


# --- writing -------------------------------------------------------------------------------------------------------


def _sections(groups: dict[str, Group], name: str, path: str) -> Iterator[str]:
    """The list of a class, then those of the sections in it, depth first."""
    inner = {setting.name: kind for setting in groups[name].settings if (kind := _inner(setting.kind, groups))}
    plain = [setting for setting in groups[name].settings if setting.name not in inner]
    yield f"## `[{path}]`" if path else "## Top level"
    yield _wrapped(groups[name].text)
    yield _list(plain)
    for setting, kind in inner.items():
        below = f"{setting}.NAME" if _is_list(groups[name], setting) else setting
        yield from _sections(groups, kind, f"{path}.{below}" if path else below)


def _is_list(group: Group, name: str) -> bool:
    """Whether the field is a table of sections, like [stages.NAME]."""
    return any(setting.name == name and setting.kind.startswith("dict[") for setting in group.settings)


def _inner(kind: str, groups: dict[str, Group]) -> str | None:
    bare = kind.removeprefix("dict[str, ").removesuffix("]")
    return bare if bare in groups else None


def _options(folder: str, without: frozenset[str] = frozenset()) -> Iterator[str]:
    """What all modules of a folder share (a `...Config` class in base.py), then the `...Config` class of each module.

    A verifier that is a folder has its settings in its verifier.py.
    """
    files = {path.stem: path for path in (PACKAGE / folder).glob("*.py")}
    files |= {path.parent.name: path for path in (PACKAGE / folder).glob("*/verifier.py")}
    for stem in sorted(files.keys() - without, key=lambda stem: (stem != "base", stem)):
        for name, group in read_groups(files[stem].read_text(encoding="utf-8")).items():
            if name.endswith("Config") and group.settings:
                yield "### All of them" if stem == "base" else f"### `{stem}`"
                yield _wrapped(group.text)
                yield _list(group.settings)


def _list(settings: list[Setting]) -> str:
    """One entry for each setting, wrapped."""
    return "\n".join(_entry(setting) for setting in settings)


def _entry(setting: Setting) -> str:
    default = setting.default if setting.default == "required" else f"default `{setting.default}`"
    kind, allowed = read_kind(setting.kind)
    head = f"- `{setting.name}` (`{kind}`{allowed and f', {allowed}'}, {default})"
    text = f"{head}: {setting.text}" if setting.text else head
    return _wrapped(text, "  ")


def read_kind(annotation: str) -> tuple[str, str]:
    """The type of a field as the page shows it, and its range or shape in words; empty when there is none.

    Example: "Annotated[int, Range(ge=1, le=9)]" -> ("int", "at least 1 and at most 9").
    """
    allowed = ""
    kind = re.sub(r"Literal\[([^]]*)\]", lambda match: match[1].replace(", ", " | "), annotation)
    if found := re.search(r"Annotated\[(.*?), (Range\(.*?\))\](?=$|[\],| ])", kind):
        allowed = _range(ast.parse(found[2], mode="eval").body).text()
        kind = kind.replace(found[0], found[1])
    for name in re.findall(r"\b[A-Z]\w+", kind):
        for extra in getattr(getattr(ranges, name, None), "__metadata__", ()):
            kind, allowed = kind.replace(name, "str"), extra.noun
    return kind, allowed


def _range(call: ast.expr) -> ranges.Range:
    assert isinstance(call, ast.Call)
    values: dict[str, Any] = {str(word.arg): _number(word.value) for word in call.keywords}
    return ranges.Range(**values)


def _number(node: ast.expr) -> Any:
    """The number, or the numbers, that a constant expression of the source stands for. Example: 10**9."""
    match node:
        case ast.Name(id="INFINITY"):
            return ranges.INFINITY
        case ast.Tuple(elts=parts):
            return tuple(_number(part) for part in parts)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_number(inner)
        case ast.BinOp(op=ast.Pow(), left=left, right=right):
            return _number(left) ** _number(right)
    return ast.literal_eval(node)


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    sys.stdout.write(render())
