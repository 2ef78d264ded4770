"""Nobody but its owner changes the hub's state, read from the source with `ast`.

The owners are the classes of OWNERS. An attribute of an owner is assigned, deleted, or changed by a method of a container
(`append`, `pop`, ...) only in the module that defines the owner; everybody else calls the owner's own methods. Local names
for an attribute count too. Only `Turn` appends to effects.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.test_layers import ROOT, inside, sources

OWNERS = {
    "rlsp_async.replay.state": ("Post", "Queues", "Retries", "Ending", "Pace", "Disk", "HubState"),
    "rlsp_async.replay.plan": ("Training",),
    "rlsp_async.replay.ledger": ("Ledger", "Counters"),
    "rlsp_async.replay.workers": ("Lease", "Worker", "WorkerTable", "LeastLoaded"),
    "rlsp_async.replay.turn": ("Effects",),
}
CHANGERS = frozenset(
    {
        "add",
        "append",
        "appendleft",
        "clear",
        "discard",
        "extend",
        "insert",
        "move_to_end",
        "pop",
        "popitem",
        "popleft",
        "remove",
        "setdefault",
        "update",
    }
)


def attributes_of(module: str, classes: tuple[str, ...]) -> set[str]:
    """The public attributes that these classes have."""
    tree = ast.parse((ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name in classes:
            for inner in ast.walk(node):
                if isinstance(inner, ast.AnnAssign | ast.Assign):
                    targets = inner.targets if isinstance(inner, ast.Assign) else [inner.target]
                    names = [name for target in targets for name in ast.walk(target)]
                    found |= {name.attr for name in names if isinstance(name, ast.Attribute)}
                    found |= {name.id for name in names if isinstance(name, ast.Name) and inner in node.body}
    return {name for name in found if not name.startswith("_")}


ATTRIBUTES = {module: attributes_of(module, classes) for module, classes in OWNERS.items()}
OWNER_OF = {name: module for module, names in ATTRIBUTES.items() for name in sorted(names, reverse=True)}
"""Attribute -> the module that may change it. Where two owners have an attribute of one name, either module counts."""
MODULES_OF = {name: {module for module, names in ATTRIBUTES.items() if name in names} for name in OWNER_OF}


def owned(node: ast.expr, aliases: dict[str, str]) -> str:
    """The attribute of an owner that an expression names or is an item of; empty when there is none.

    An attribute of `self` belongs to the class at hand, which is none of the owners outside of their modules.
    """
    while isinstance(node, ast.Subscript):
        node = node.value
    if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "self"):
        return node.attr if node.attr in OWNER_OF else ""
    return aliases.get(node.id, "") if isinstance(node, ast.Name) else ""


def changes(name: str, source: str) -> Iterator[str]:
    """Sentences about changes of an owner's attribute outside of its module."""
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        aliases: dict[str, str] = {}
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and owned(node.value, {}):
                aliases |= {target.id: owned(node.value, {}) for target in node.targets if isinstance(target, ast.Name)}
        for node in ast.walk(function):
            for attribute, line in _changed(node, aliases):
                if name not in MODULES_OF[attribute]:
                    yield f"{name}:{line} {function.name} changes `{attribute}`, which {OWNER_OF[attribute]} owns"


def _changed(node: ast.AST, aliases: dict[str, str]) -> Iterator[tuple[str, int]]:
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = [t for target in node.targets for t in (target.elts if isinstance(target, ast.Tuple) else [target])]
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets = [node.target]
    elif isinstance(node, ast.Delete):
        targets = node.targets
    for target in targets:
        if not isinstance(target, ast.Name) and owned(target, aliases):
            yield owned(target, aliases), target.lineno
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGERS:
        attribute = owned(node.func.value, aliases)
        if attribute:
            yield attribute, node.lineno


def test_only_an_owner_changes_its_state():
    found = [
        sentence
        for name, source in sources()
        if inside(name, "rlsp_async.replay")
        for sentence in changes(name, source)
    ]
    assert not found, "\n" + "\n".join(found)


def test_the_owners_have_the_attributes_that_are_watched():
    assert {"to_train", "manifests", "avoid", "kind", "message", "progress_s", "figures", "queue"} <= set(OWNER_OF)
    assert len(OWNER_OF) > 60


@pytest.mark.parametrize(
    "line",
    [
        "turn.state.ending.message = 'x'",
        "state.training.step += 1",
        "state.training.to_train.append(3)",
        "state.training.manifests[3] = manifest",
        "del state.training.manifests[3]",
        "state.retries.avoid.pop(7, None)",
        "state.queues.sample.queue.appendleft(7)",
        "state.pace.progress_s, x = now, 1",
        "state.ledger.records[7] = record",
        "queue = state.training.to_train; queue.clear()",
        "worker.version = 3",
        "effects.records.extend(records)",
        "state.phase = None",
    ],
)
def test_a_planted_change_is_found(line: str):
    assert list(changes("rlsp_async.replay.train", f"def f(turn, state, worker, now):\n    {line}\n"))


@pytest.mark.parametrize(
    "line",
    [
        "state.training.publish(report)",
        "state.retries.forget(7)",
        "steps = list(state.training.to_train); steps.append(3)",
        "self.step = 3",
        "turn.record(put)",
        "found = {}; found.update(state.pace.figures)",
    ],
)
def test_an_owners_own_method_is_no_violation(line: str):
    assert not list(changes("rlsp_async.replay.train", f"def f(self, turn, state):\n    {line}\n"))
