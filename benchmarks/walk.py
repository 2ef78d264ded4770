"""How far does a reader walk who follows one message through the hub?

    python benchmarks/walk.py                                          rlsp_async.replay.hub:Hub.on:message
    python benchmarks/walk.py rlsp_async.replay.sample:accept:group    from another function and parameter
    python benchmarks/walk.py --tree ../other                          the same of another checkout: before and after
    python benchmarks/walk.py --list                                   every stop

The reader is one parameter. It goes wherever it, or a part of it, is passed to a function of this package; in that
function it looks for the next such call, from top to bottom, and comes back at the end. What is computed from it or
looked up by it is no part of it. A function into which it comes a second time is visited, but not read again. The
source is read with `ast`; nothing is run. Calls are resolved by imports, by the annotations of parameters and by the
classes that attributes are made of; a method that cannot be resolved so counts when only one class of the package
folder has a method of that name.

    stops      how often the reader comes into a file, the first one included
    modules    different files
    returns    stops in a file that the reader had left before
    functions  functions that are read
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import deque
from pathlib import Path

PACKAGE = "rlsp_async"
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Tree:
    """All modules of a checkout: functions, classes, imports, and what attributes are made of."""

    def __init__(self, root: Path, folder: str) -> None:
        self.modules: dict[str, ast.Module] = {}
        for path in sorted((root / PACKAGE).rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            self.modules[name] = ast.parse(path.read_text(encoding="utf-8"))
        self.functions: dict[str, Function] = {}
        self.classes: dict[str, str] = {}
        """Name of a class in the folder -> its module. The hub's class names are unique."""
        self.attributes: dict[tuple[str, str], str] = {}
        """(class, attribute) -> class of its value, where it can be seen."""
        self.imports: dict[str, dict[str, str]] = {name: _imports(tree) for name, tree in self.modules.items()}
        for name, tree in self.modules.items():
            for node in tree.body:
                if isinstance(node, Function):
                    self.functions[f"{name}:{node.name}"] = node
                elif isinstance(node, ast.ClassDef):
                    if name.startswith(folder):
                        self.classes[node.name] = name
                    for method in node.body:
                        if isinstance(method, Function):
                            self.functions[f"{name}:{node.name}.{method.name}"] = method
        for tree in self.modules.values():
            for node in tree.body:
                if isinstance(node, ast.ClassDef) and node.name in self.classes:
                    self._learn_attributes(node)

    def _learn_attributes(self, owner: ast.ClassDef) -> None:
        for node in ast.walk(owner):
            if isinstance(node, Function):
                kind = self.class_of(node.returns)
                if kind and any(isinstance(d, ast.Name) and d.id == "property" for d in node.decorator_list):
                    self.attributes[owner.name, node.name] = kind
                hints = self.hints(node)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name | ast.Attribute):
                name = node.target.id if isinstance(node.target, ast.Name) else node.target.attr
                self.attributes[owner.name, name] = self.class_of(node.annotation)
            elif isinstance(node, ast.Assign):
                for target, value in _pairs(node):
                    if isinstance(target, ast.Attribute):
                        kind = self.class_of(value.func) if isinstance(value, ast.Call) else ""
                        if isinstance(value, ast.Name):
                            kind = hints.get(value.id, "")
                        self.attributes.setdefault((owner.name, target.attr), kind)

    def class_of(self, annotation: ast.AST | None) -> str:
        """The first class of the folder that an annotation or a call names; empty: none."""
        names = [n.id for n in ast.walk(annotation) if isinstance(n, ast.Name)] if annotation is not None else []
        return next((name for name in names if name in self.classes), "")

    def hints(self, function: Function) -> dict[str, str]:
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        return {argument.arg: self.class_of(argument.annotation) for argument in arguments}

    def type_of(self, node: ast.expr, hints: dict[str, str]) -> str:
        """The class of an expression; empty: unknown."""
        if isinstance(node, ast.Name):
            return hints.get(node.id, "")
        if isinstance(node, ast.Attribute):
            return self.attributes.get((self.type_of(node.value, hints), node.attr), "")
        return ""

    def callee(self, module: str, owner: str, call: ast.Call, hints: dict[str, str]) -> str | None:
        """The key of the function that a call leads to; None: it leads out of the package, or nobody can say."""
        func = call.func
        if isinstance(func, ast.Name):
            for key in (f"{module}:{func.id}", self.imports[module].get(func.id, "").replace("/", ":")):
                if key in self.functions:
                    return key
            return None
        if not isinstance(func, ast.Attribute):
            return None
        if isinstance(func.value, ast.Name) and func.value.id in self.imports[module]:
            key = f"{self.imports[module][func.value.id].replace('/', '.')}:{func.attr}"
            if key in self.functions:
                return key
        kind = (
            owner if isinstance(func.value, ast.Name) and func.value.id == "self" else self.type_of(func.value, hints)
        )
        if kind:
            key = f"{self.classes.get(kind, '')}:{kind}.{func.attr}"
            return key if key in self.functions else None
        if any(hasattr(container, func.attr) for container in (dict, list, set, str, deque)):
            return None
        known = [f"{m}:{c}.{func.attr}" for c, m in self.classes.items() if f"{m}:{c}.{func.attr}" in self.functions]
        return known[0] if len(known) == 1 else None


def _pairs(node: ast.Assign) -> list[tuple[ast.expr, ast.expr]]:
    pairs = []
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs += list(zip(target.elts, node.value.elts, strict=True))
        else:
            pairs.append((target, node.value))
    return pairs


def _imports(tree: ast.Module) -> dict[str, str]:
    """Local name -> "module/name" of everything that is imported from this package."""
    return {
        alias.asname or alias.name: f"{node.module}/{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE)
        for alias in node.names
    }


def walk(tree: Tree, start: str, parameter: str) -> tuple[list[str], list[str]]:
    """(modules in the order in which the parameter comes into them, functions in the order in which they are read)."""
    stops: list[str] = []
    read: list[str] = []

    def come_into(module: str) -> None:
        if not stops or stops[-1] != module:
            stops.append(module)

    def visit(key: str, carried: frozenset[str]) -> None:
        module, _, name = key.partition(":")
        come_into(module)
        if key in read:
            return
        read.append(key)
        function, owner = tree.functions[key], name.rpartition(".")[0]
        mine = _spread(function, set(carried))
        hints = _local_hints(tree, function, owner)
        for call in _calls(function):
            callee = tree.callee(module, owner, call, hints)
            passed = _passed(tree.functions[callee], call, mine) if callee is not None else frozenset()
            if callee is not None and passed:
                visit(callee, passed)
                come_into(module)

    visit(start, frozenset({parameter}))
    return stops, read


def _local_hints(tree: Tree, function: Function, owner: str) -> dict[str, str]:
    """The classes of parameters and of local names."""
    hints = {**tree.hints(function), "self": owner}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target, value in _pairs(node):
                if isinstance(target, ast.Name):
                    made = tree.class_of(value.func) if isinstance(value, ast.Call) else ""
                    hints.setdefault(target.id, made or tree.type_of(value, hints))
    return hints


def _names(node: ast.AST) -> set[str]:
    return {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}


def _spread(function: Function, mine: set[str]) -> set[str]:
    """The local names that are parts of those in `mine`, which are included."""
    before = -1
    while len(mine) != before:
        before = len(mine)
        for node in ast.walk(function):
            if isinstance(node, ast.Assign):
                for target, value in _pairs(node):
                    if _root(value) in mine:
                        mine |= _names(target) if not isinstance(target, ast.Attribute) else set()
            elif isinstance(node, ast.For | ast.comprehension) and _root(node.iter) in mine:
                mine |= _names(node.target)
    return mine


def _root(node: ast.AST) -> str:
    """The name that an attribute or an item is a part of; empty for anything else."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _passed(callee: Function, call: ast.Call, mine: set[str]) -> frozenset[str]:
    """The parameters of a function that a call gives something of `mine`."""
    names = [argument.arg for argument in [*callee.args.posonlyargs, *callee.args.args]]
    is_method = bool(names) and names[0] == "self"
    given = names[1:] if is_method else names
    found = {
        given[min(at, len(given) - 1)] for at, argument in enumerate(call.args) if given and _names(argument) & mine
    }
    found |= {keyword.arg for keyword in call.keywords if keyword.arg and _names(keyword.value) & mine}
    return frozenset(found)


def _calls(node: ast.AST) -> list[ast.Call]:
    """Calls in the order in which a reader meets them."""
    found = [child for child in ast.walk(node) if isinstance(child, ast.Call)]
    return sorted(found, key=lambda call: (call.lineno, call.col_offset))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "start", nargs="?", default="rlsp_async.replay.hub:Hub.on:message", help="MODULE:FUNCTION:PARAMETER"
    )
    parser.add_argument("--tree", type=Path, default=Path(__file__).resolve().parents[1], help="checkout (this one)")
    parser.add_argument("--list", action="store_true", help="print every stop")
    args = parser.parse_args()
    start, _, parameter = args.start.rpartition(":")
    folder = start.partition(":")[0].rpartition(".")[0]
    stops, read = walk(Tree(args.tree, folder), start, parameter)
    if args.list:
        print("\n".join(f"{number:3d}  {stop}" for number, stop in enumerate(stops, 1)))
    num_modules = len(set(stops))
    print(f"{args.start}: {len(stops)} stops, {num_modules} modules, {len(stops) - num_modules} returns, ", end="")
    print(f"{len(read)} functions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
