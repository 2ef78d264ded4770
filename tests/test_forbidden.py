"""Nothing here runs what it reads: no pickle, eval, exec and their kin in any source, tests and benchmarks included.

Read with `ast`, so a word in a string or a comment accuses nobody; the tests that plant hostile strings stay as they are.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("rlsp_async", "services", "benchmarks", "tests")

MODULES = {
    "pickle",
    "_pickle",
    "cPickle",
    "pickle5",
    "dill",
    "cloudpickle",
    "marshal",
    "shelve",
    "joblib",
    "jsonpickle",
}
BUILTINS = {"eval", "exec", "compile", "__import__", "breakpoint"}
METHODS = {"recv_pyobj", "send_pyobj", "recv_serialized", "load_pickle", "save_pickle", "read_pickle", "to_pickle"}
CALLS = {
    "torch.load",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "yaml.load_all",
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "asyncio.create_subprocess_shell",
    "code.interact",
    "sympy.sympify",
    "sympy.parse_expr",
}
FLAGS = {"shell", "trust_remote_code", "allow_pickle"}
"""Keywords that must not be anything but False."""
RUNNER = (
    "rlsp_async/verifying/code/runner.py",
    "run_source",
    'exec(compile(source, label, "exec", dont_inherit=True, optimize=0), namespace)',
)
"""The one line that runs code: a model's, in a confined process without files, network or tests; and the tests'."""


def sources() -> list[tuple[str, str]]:
    return [
        (str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]


def found(name: str, source: str) -> Iterator[str]:
    """What a source must not do, with its line."""
    tree = ast.parse(source)
    names = _imported(tree)
    for node in ast.walk(tree):
        for what in _imports(node) if isinstance(node, ast.Import | ast.ImportFrom) else ():
            yield f"{name}:{node.lineno} imports {what}"
        if isinstance(node, ast.Call):
            for what in _of_call(node, names):
                yield f"{name}:{node.lineno} {what}"
        elif isinstance(node, ast.Attribute) and node.attr in METHODS:
            yield f"{name}:{node.lineno} names {node.attr}"
        elif isinstance(node, ast.Name) and node.id in BUILTINS - {"compile"}:
            yield f"{name}:{node.lineno} names {node.id}"


def _imported(tree: ast.AST) -> dict[str, str]:
    """Local name -> what it stands for, so that `from torch import load as l` is seen through."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _imports(node: ast.Import | ast.ImportFrom) -> list[str]:
    wholes = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    parts = [f"{node.module}.{alias.name}" for alias in node.names] if isinstance(node, ast.ImportFrom) else []
    return [whole for whole in (*wholes, *parts) if whole.split(".")[0] in MODULES or whole in CALLS]


def _of_call(node: ast.Call, names: dict[str, str]) -> Iterator[str]:
    called = ast.unparse(node.func)
    head, dot, rest = called.partition(".")
    whole = names.get(head, head) + dot + rest
    if called in BUILTINS or whole in CALLS or whole.split(".")[0] == "builtins":
        yield f"calls {whole}"
    if called in ("getattr", "operator.methodcaller") and _strings(node) & (METHODS | BUILTINS):
        yield f"asks for {sorted(_strings(node) & (METHODS | BUILTINS))}"
    if called.endswith("import_module") and {text.split(".")[0] for text in _strings(node)} & MODULES:
        yield f"imports {sorted(_strings(node))}"
    for keyword in node.keywords:
        value = keyword.value
        if keyword.arg in FLAGS and not (isinstance(value, ast.Constant) and value.value is False):
            yield f"passes {keyword.arg}"
        if keyword.arg == "weights_only" and not (isinstance(value, ast.Constant) and value.value is True):
            yield "passes weights_only"


def _strings(node: ast.Call) -> set[str]:
    return {one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)}


def test_nothing_runs_what_it_reads():
    accused = [sentence for name, source in sources() for sentence in found(name, without_the_runner(name, source))]
    assert not accused, "\n" + "\n".join(accused)


def without_the_runner(name: str, source: str) -> str:
    """The source without the line that may run code; exactly one, in its function, in its file."""
    if name != RUNNER[0]:
        return source
    function = next(node for node in ast.parse(source).body if getattr(node, "name", "") == RUNNER[1])
    assert isinstance(function, ast.FunctionDef)
    lines = source.splitlines()
    assert lines[function.end_lineno - 1].strip() == RUNNER[2]
    assert source.count(RUNNER[2]) == 1
    assert len(function.body) == 2
    return source.replace(RUNNER[2], "return")


def test_every_folder_was_read():
    read = {name.split("/")[0] for name, _ in sources()}
    assert read == set(FOLDERS) and len(sources()) > 200


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as json",
        "from pickle import loads",
        "import torch.multiprocessing, cloudpickle",
        "from multiprocessing import pickle5\nimport dill",
        "import marshal",
        "import shelve",
        "def f():\n    import joblib",
        "eval('1')",
        "f = eval",
        "exec(text)",
        "compile(text, 'f', 'exec')",
        "__import__('os')",
        "builtins.eval('1')",
        "from builtins import exec as run\nrun('1')",
        "socket.recv_pyobj()",
        "await self._socket.recv_pyobj()",
        "f = socket.send_pyobj",
        "getattr(socket, 'recv_pyobj')()",
        "getattr(builtins, 'eval')('1')",
        "importlib.import_module('pickle')",
        "import torch\ntorch.load('f')",
        "from torch import load\nload('f')",
        "import torch as t\nt.load('f')",
        "from torch import load as read\nread('f')",
        "torch.load('f', weights_only=True)",
        "load('f', weights_only=False)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "from yaml import unsafe_load",
        "os.system('ls')",
        "from os import system\nsystem('ls')",
        "os.popen('ls')",
        "subprocess.run('ls', shell=True)",
        "subprocess.run(words, shell=flag)",
        "await asyncio.create_subprocess_shell('ls')",
        "AutoModel.from_pretrained(p, trust_remote_code=True)",
        "LLM(model, trust_remote_code=cfg.trust)",
        "numpy.load(f, allow_pickle=True)",
        "frame.to_pickle('f')",
        "from sympy import sympify\nsympify(answer)",
    ],
)
def test_each_way_is_found(source):
    assert list(found("x.py", source))


@pytest.mark.parametrize(
    "source",
    [
        "'pickle.loads(eval(exec))'",
        "# import pickle",
        "model.eval()",
        "re.compile('x')",
        "yaml.safe_load(text)",
        "json.load(file)",
        "load('m', trust_remote_code=False)",
        "subprocess.run(['ls'])",
        'HOSTILE = [\'__import__("os").system("id")\']',
        "safetensors.torch.load_file(path)",
        "run(words, shell=False)",
        "numpy.load(f, allow_pickle=False)",
    ],
)
def test_honest_code_is_not_accused(source):
    assert not list(found("x.py", source))
