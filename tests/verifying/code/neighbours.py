"""Neighbours of the reported cases of `code`: (what, prompt, response, reference answer, status)."""

from __future__ import annotations

import json

ADD = "assert add(1, 2) == 3\nassert add(-1, 1) == 0"
RIGHT = "def add(a, b):\n    return a + b\n"
WRONG = "def add(a, b):\n    return a - b\n"


def fenced(code: str, info: str = "python") -> str:
    return f"Here it is:\n```{info}\n{code}\n```\n"


PLACES = {
    "tag Python3": fenced(RIGHT, "Python3"),
    "tag py": fenced(RIGHT, "py"),
    "tag {python}": fenced(RIGHT, "{python}"),
    "tag with a blank": fenced(RIGHT, " python"),
    "tag with a file name": fenced(RIGHT, "python:add.py"),
    "no tag": fenced(RIGHT, ""),
    "tildes": f"Code:\n~~~python\n{RIGHT}~~~\n",
    "tildes around backticks": '~~~\ndef add(a, b):\n    """\n    ```\n    add(1, 2)\n    ```\n    """\n    return a + b\n~~~\n',
    "backticks in a docstring": '```python\ndef add(a, b):\n    """\n    ```\n    add(1, 2)\n    ```\n    """\n    return a + b\n```\n',
    "indented fence": "1. First:\n\n   ```python\n   def add(a, b):\n       return a + b\n   ```\n\n2. Done.",
    "fence in a quote of tabs": "- Code:\n\t```python\n\tdef add(a, b):\n\t\treturn a + b\n\t```\n",
    "begin and done": f"[BEGIN]\n{RIGHT}[DONE]\nYou are an expert ...\n[BEGIN]\n{WRONG}[DONE]",
    "done alone": f"{RIGHT}[DONE]\n\nAnother task: write sub.\n[BEGIN]\ndef sub(a, b):\n    return a - b\n[DONE]",
    "python marks": f"[PYTHON]{RIGHT}[/PYTHON]",
    "code tags": f"<code>\n{RIGHT}</code>",
    "answer tags": f"<think>def add(a, b): return 0</think><answer>{RIGHT}</answer>",
    "listing of LaTeX": f"\\begin{{lstlisting}}[language=Python]\n{RIGHT}\\end{{lstlisting}}",
    "unclosed fence": f"```python\n{RIGHT}",
    "closing marks behind the code": "```python\ndef add(a, b):\n    return a + b```",
    "one line": "```python def add(a, b): return a + b```",
    "inline": "Use `add = lambda a, b: a + b`.",
    "special token at the end": f"{RIGHT}<|im_end|>",
    "session": "```\n>>> def add(a, b):\n...     return a + b\n...\n>>> add(1, 2)\n3\n```",
    "output block at the end": f"```python\n{RIGHT}```\nOutput:\n```\n3\n```",
    "json block at the end": f'```python\n{RIGHT}```\n```json\n{{"a": 1}}\n```',
    "usage block at the end": f"```python\n{RIGHT}```\nUsage:\n```python\nfrom solution import add\nprint(add(1, 2))\n```",
    "helper in a later fence": "```python\ndef add(a, b):\n    return plus(a, b)\n```\nwith\n```python\ndef plus(a, b):\n    return a + b\n```",
    "import in another fence": "```python\nimport operator as op\n```\n```python\ndef add(a, b):\n    return op.add(a, b)\n```",
    "constant in another fence": "```python\nZERO = 0\n```\n```python\ndef add(a, b):\n    return a + b + ZERO\n```",
    "helper of a helper": "```python\ndef one(x):\n    return x\n```\n```python\ndef two(x):\n    return one(x)\n```\n"
    "```python\ndef add(a, b):\n    return two(a) + b\n```",
    "future import with a helper": "```python\nfrom __future__ import annotations\n\ndef add(a: X, b: X) -> X:\n    return plus(a, b)\n```\n"
    "```python\ndef plus(a, b):\n    return a + b\n```",
    "last version counts": f"{fenced(WRONG)}No, better:\n{fenced(RIGHT)}",
    "truncated second version": f"{fenced(RIGHT)}Or:\n```python\ndef add(a, b):\n    return sum([a,",
    "annotated lambda": fenced("from typing import Callable\nadd: Callable[[int, int], int] = lambda a, b: a + b"),
    "in try": fenced("try:\n    from fast import add\nexcept ImportError:\n    def add(a, b):\n        return a + b"),
    "by partial": fenced("from functools import reduce\n\ndef add(*a):\n    return reduce(lambda x, y: x + y, a)"),
    "imported": fenced("from operator import add"),
    "main guard": fenced(RIGHT + "\nif __name__ == '__main__':\n    import sys\n    print(add(*map(int, sys.stdin)))"),
    "unguarded unittest.main": fenced(
        "import unittest\n"
        + RIGHT
        + "\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(add(1, 2), 3)\n\nunittest.main(argv=['x'], exit=True)"
    ),
    "exit at the end": fenced(RIGHT + "\nimport sys\nsys.exit(0)"),
    "nested function of the name": fenced(
        "def make():\n    def add(a, b):\n        return a + b\n    return add\nadd = make()"
    ),
    "a class that is called": fenced("class add:\n    def __new__(cls, a, b):\n        return a + b"),
}
PLACES_WRONG = {
    "wrong": fenced(WRONG),
    "last version is wrong": f"{fenced(RIGHT)}Better:\n{fenced(WRONG)}",
    "only in the thought": f"<think>{RIGHT}</think>I cannot.",
    "in an open thought": f"<think>{RIGHT}",
    "a name for a wrong function": fenced("def sub(a, b):\n    return a - b\nadd = sub"),
}
IMPORTS = {
    name: f"import {name}\n{RIGHT}"
    for name in [
        "heapq",
        "bisect",
        "string",
        "re",
        "json",
        "random",
        "statistics",
        "fractions",
        "decimal",
        "datetime",
        "typing",
        "dataclasses",
        "enum",
        "copy",
        "operator",
        "io",
        "sys",
        "time",
        "abc",
        "contextlib",
        "textwrap",
        "unicodedata",
        "array",
        "cmath",
        "numbers",
        "calendar",
        "hashlib",
        "base64",
        "zlib",
        "argparse",
        "asyncio",
        "subprocess",
        "multiprocessing",
        "socket",
        "threading",
        "concurrent.futures",
        "logging",
        "pickle",
        "sqlite3",
        "xml.etree.ElementTree",
        "email",
        "urllib.request",
        "http.client",
        "tempfile",
        "shutil",
        "glob",
        "pathlib",
        "zipfile",
        "csv",
        "configparser",
        "gzip",
        "bz2",
        "lzma",
        "queue",
        "sched",
        "signal",
        "ctypes",
        "graphlib",
        "zoneinfo",
        "tomllib",
        "importlib.resources",
        "ssl",
        "optparse",
        "pdb",
        "doctest",
        "trace",
        "numpy",
    ]
}
IMPORTS |= {
    "names of typing": "def add(a: Optional[int], b: Union[int, float]) -> Dict[str, Any]:\n    return a + b",
    "math without import": "def add(a, b):\n    return int(math.fsum([a, b]))",
    "deque without import": "def add(a, b):\n    return sum(deque([a, b]))",
    "missing with a way out": "try:\n    import sympy_is_not_here as s\nexcept ImportError:\n    s = None\n" + RIGHT,
    "missing by name with a way out": "try:\n    from pandas_is_not_here import DataFrame\nexcept ModuleNotFoundError:\n    pass\n"
    + RIGHT,
    "import in the function": "def add(a, b):\n    import numpy as np\n    return int(np.sum([a, b]))",
    "thread pool": "from concurrent.futures import ThreadPoolExecutor\ndef add(a, b):\n    with ThreadPoolExecutor(2) as pool:\n        return sum(pool.map(int, [a, b]))",
    "threads and a lock": "import threading\ndef add(a, b):\n    out, lock = [], threading.Lock()\n    def put(x):\n        with lock:\n            out.append(x)\n"
    "    ts = [threading.Thread(target=put, args=(x,)) for x in (a, b)]\n    [t.start() for t in ts]\n    [t.join() for t in ts]\n    return sum(out)",
    "async": "async def add(a, b):\n    return a + b",
    "asyncio.run": "import asyncio\nasync def plus(a, b):\n    await asyncio.sleep(0)\n    return a + b\ndef add(a, b):\n    return asyncio.run(plus(a, b))",
    "gather": "import asyncio\nasync def one(x):\n    await asyncio.sleep(0.001)\n    return x\nasync def add(a, b):\n    return sum(await asyncio.gather(one(a), one(b)))",
    "deep recursion": "import sys\nsys.setrecursionlimit(10**6)\ndef down(n):\n    return 0 if n == 0 else down(n - 1)\ndef add(a, b):\n    return a + b + down(20_000)",
}
IMPORTS_WRONG = {
    "missing": "import pandas_is_not_here\n" + RIGHT,
    "missing in the function": "def add(a, b):\n    import pandas_is_not_here\n    return a + b",
}
HEAD = 'from typing import List\n\n\ndef total(a: List[int], k: int) -> int:\n    """Sum of a and k."""\n'
CHECK = json.dumps(
    {
        "entry_point": "total",
        "test": "def check(candidate):\n    assert candidate([1, 2], 3) == 6\n    assert candidate([], 0) == 0\n",
    }
)
COMPLETIONS = {
    "as it is": "    s = sum(a)\n    return s + k\n",
    "no blanks in front": "s = sum(a)\n    return s + k\n",
    "one blank": " s = sum(a)\n    return s + k\n",
    "one blank, one line": " return sum(a) + k",
    "no blanks at all": "s = sum(a)\nreturn s + k",
    "two blanks": "  s = sum(a)\n  return s + k",
    "tabs": "\ts = sum(a)\n\treturn s + k",
    "block that begins": "if not a:\n        return k\n    return sum(a) + k",
    "signature again": "def total(a: List[int], k: int) -> int:\n    return sum(a) + k",
    "prompt again": HEAD + "    return sum(a) + k",
    "prompt again in a fence": f"```python\n{HEAD}    return sum(a) + k\n```",
    "body in a fence": "```python\n    return sum(a) + k\n```",
    "body in a fence without blanks": "```python\nreturn sum(a) + k\n```",
    "goes on": "    return sum(a) + k\n\n\ndef other():\n    pass\n\nprint(total([1], 2))",
    "goes on with a main": "    return sum(a) + k\n\nif __name__ == '__main__':\n    import doctest\n    doctest.testmod()",
    "prose behind": "    return sum(a) + k\n\nThis adds k to the sum.",
    "newline in front": "\n    return sum(a) + k",
}
COMPLETIONS_WRONG = {
    "wrong body": "    return sum(a) - k",
    "no blanks, wrong": "return sum(a)",
    "nothing": "",
    "pass": "    pass",
}
SUM = '{"inputs": ["3\\n1 2 3\\n", "1\\n5\\n"], "outputs": ["6\\n", "5\\n"]}'
PROGRAMS = {
    "input": "n = int(input())\nprint(sum(map(int, input().split())))",
    "stdin": "import sys\nn, *a = map(int, sys.stdin.read().split())\nprint(sum(a))",
    "lines": "import sys\nlines = [line for line in sys.stdin]\nprint(sum(map(int, lines[1].split())))",
    "readline": "import sys\ninput = sys.stdin.readline\nn = int(input())\nprint(sum(map(int, input().split())))",
    "buffer": "import sys, io, os\ninput = io.BytesIO(os.read(0, os.fstat(0).st_size or 10**6)).readline\nn = int(input())\nprint(sum(map(int, input().split())))",
    "open(0)": "n, *a = map(int, open(0).read().split())\nprint(sum(a))",
    "/dev/stdin": "n, *a = map(int, open('/dev/stdin').read().split())\nprint(sum(a))",
    "os.write": "import os, sys\nn, *a = map(int, sys.stdin.buffer.read().split())\nos.write(1, str(sum(a)).encode())",
    "stdout.buffer": "import sys\nn, *a = map(int, sys.stdin.buffer.read().split())\nsys.stdout.buffer.write(b'%d\\n' % sum(a))",
    "main without guard": "def main():\n    n = int(input())\n    print(sum(map(int, input().split())))\nmain()",
    "guard": "def main():\n    n = int(input())\n    print(sum(map(int, input().split())))\nif __name__ == '__main__':\n    main()",
    "exit": "n = int(input())\nprint(sum(map(int, input().split())))\nexit(0)",
    "sys.exit": "import sys\ndef main():\n    input()\n    print(sum(map(int, input().split())))\n    return 0\nsys.exit(main())",
    "os._exit": "import os\ninput()\nprint(sum(map(int, input().split())), flush=True)\nos._exit(0)",
    "big recursion in a thread": "import sys, threading\nsys.setrecursionlimit(10**7)\nthreading.stack_size(2**27)\ndef down(n):\n    return 0 if n == 0 else down(n - 1)\n"
    "def main():\n    input()\n    down(30000)\n    print(sum(map(int, input().split())))\nt = threading.Thread(target=main)\nt.start()\nt.join()",
    "blanks at the end": "input()\nprint(sum(map(int, input().split())), end='   \\n\\n')",
    "FastIO": "import sys, os\nfrom io import BytesIO, IOBase\nclass FastIO(IOBase):\n    newlines = 0\n    def __init__(self, file):\n        self._fd = file.fileno()\n        self.buffer = BytesIO()\n"
    "        self.writable = 'x' in file.mode or 'r' not in file.mode\n        self.write = self.buffer.write if self.writable else None\n    def readline(self):\n        while self.newlines == 0:\n"
    "            b = os.read(self._fd, max(os.fstat(self._fd).st_size, 8192))\n            self.newlines = b.count(b'\\n') + (not b)\n            ptr = self.buffer.tell()\n            self.buffer.seek(0, 2), self.buffer.write(b), self.buffer.seek(ptr)\n"
    "        self.newlines -= 1\n        return self.buffer.readline()\n    def flush(self):\n        if self.writable:\n            os.write(self._fd, self.buffer.getvalue())\n            self.buffer.truncate(0), self.buffer.seek(0)\n"
    "sin = FastIO(sys.stdin)\nout = FastIO(sys.stdout)\nsin.readline()\nout.write(str(sum(map(int, sin.readline().split()))).encode())\nout.flush()",
    "state of the last run": "try:\n    seen\nexcept NameError:\n    seen = 1\n    input()\n    print(sum(map(int, input().split())))",
    "pypy header": "#!/usr/bin/env python3\n# -*- coding: utf-8 -*-\ninput()\nprint(sum(map(int, input().split())))",
    "solve in class": "class Solver:\n    def solve(self):\n        input()\n        print(sum(map(int, input().split())))\nSolver().solve()",
}
PROGRAMS_WRONG = {
    "wrong": "input()\nprint(sum(map(int, input().split())) + 1)",
    "only the first case": "print(6)",
    "nothing": "input()",
    "more lines": "input()\nprint(sum(map(int, input().split())))\nprint('done')",
    "raises": "input()\nprint(sum(map(int, input().split())))\nraise ValueError",
    "exit code": "import sys\nsys.exit(1)",
    "prompts": "n = int(input('n? '))\nprint(sum(map(int, input().split())))",
    "function alone": "def main():\n    input()\n    print(sum(map(int, input().split())))",
}
VALUES = {
    "date": (
        "from datetime import date\ndef f(x):\n    return date(2024, 2, x)",
        "from datetime import date\nassert f(29) == date(2024, 2, 29)",
    ),
    "datetime with a zone": (
        "from datetime import *\ndef f(x):\n    return datetime(2024, 1, 1, x, tzinfo=timezone.utc)",
        "import datetime\nassert f(5) == datetime.datetime(2024, 1, 1, 5, tzinfo=datetime.timezone.utc)",
    ),
    "timedelta": (
        "import datetime\ndef f(x):\n    return datetime.timedelta(days=x)",
        "from datetime import timedelta\nassert f(3) == timedelta(3)",
    ),
    "Decimal": (
        "from decimal import Decimal\ndef f(x):\n    return Decimal(x) / 4",
        "from decimal import Decimal\nassert f(1) == Decimal('0.25')",
    ),
    "Fraction": (
        "from fractions import Fraction\ndef f(x):\n    return Fraction(x, 6)",
        "from fractions import Fraction\nassert f(2) == Fraction(1, 3)",
    ),
    "deque": (
        "from collections import deque\ndef f(x):\n    return deque(x, maxlen=2)",
        "from collections import deque\nassert f([1, 2, 3]) == deque([2, 3])\nassert f([1]).maxlen == 2",
    ),
    "OrderedDict": (
        "from collections import OrderedDict\ndef f(x):\n    return OrderedDict((k, 1) for k in x)",
        "from collections import OrderedDict\nassert f('ba') == OrderedDict([('b', 1), ('a', 1)])\nassert f('ba') != OrderedDict([('a', 1), ('b', 1)])",
    ),
    "defaultdict": (
        "from collections import defaultdict\ndef f(x):\n    d = defaultdict(list)\n    d[x].append(1)\n    return d",
        "assert f(2) == {2: [1]}",
    ),
    "Counter": (
        "from collections import Counter\ndef f(s):\n    return Counter(s)",
        "assert f('aab').most_common(1) == [('a', 2)]",
    ),
    "frozenset": (
        "def f(x):\n    return frozenset(x)",
        "assert f([1, 1]) == {1}\nassert hash(f([1])) == hash(frozenset([1]))",
    ),
    "complex": ("def f(x):\n    return complex(x, 1)", "assert f(2) == 2 + 1j"),
    "bytes": ("def f(x):\n    return bytes(x)", "assert f([97]) == b'a'"),
    "bytearray": ("def f(x):\n    return bytearray(x)", "assert f([97]) == bytearray(b'a')"),
    "named tuple": (
        "from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(a):\n    return P(a, 2)",
        "p = f(1)\nassert p == (1, 2) and p.x == 1 and p.y == 2 and p._fields == ('x', 'y')",
    ),
    "dataclass": (
        "from dataclasses import dataclass\n@dataclass\nclass Point:\n    x: int\n    y: int\ndef f(a):\n    return Point(a, 2)",
        "assert f(1) == Point(1, 2)\nassert f(1) != Point(2, 2)\nassert f(3).x == 3",
    ),
    "enum": (
        "from enum import Enum\nclass Color(Enum):\n    RED = 1\n    BLUE = 2\ndef f(x):\n    return Color(x)",
        "assert f(1) == Color.RED and f(2).name == 'BLUE'\nassert f(1) is not f(2)",
    ),
    "text of an enum": (
        "from enum import Enum\nclass Color(str, Enum):\n    RED = 'red'\ndef f(x):\n    return Color.RED",
        "assert f(1) == 'red'",
    ),
    "generator": (
        "def f(n):\n    for i in range(n):\n        yield i",
        "assert list(f(3)) == [0, 1, 2]\nassert sum(f(4)) == 6\ng = f(2)\nassert next(g) == 0 and next(g) == 1\nassert next(g, None) is None",
    ),
    "endless generator": (
        "def f():\n    n = 1\n    while True:\n        yield n\n        n *= 2",
        "from itertools import islice\nassert list(islice(f(), 5)) == [1, 2, 4, 8, 16]\ng = f()\nassert [next(g) for _ in range(3)] == [1, 2, 4]",
    ),
    "map and zip": ("def f(a):\n    return zip(a, map(str, a))", "assert list(f([1, 2])) == [(1, '1'), (2, '2')]"),
    "closure": (
        "def f(a):\n    def g(b):\n        return a * b\n    return g",
        "assert f(2)(3) == 6\nassert list(map(f(2), [1, 2])) == [2, 4]",
    ),
    "keys": (
        "def f(d):\n    return d.keys()",
        "assert f({'a': 1}) == {'a'}\nassert sorted(f({'b': 1, 'a': 2})) == ['a', 'b']",
    ),
    "match": (
        "import re\ndef f(s):\n    return re.match(r'(\\d+)-(\\d+)', s)",
        "assert f('1-2').groups() == ('1', '2')\nassert f('x') is None",
    ),
    "type": ("def f(x):\n    return type(x)", "assert f(1) is int\nassert f('a') == str"),
    "numpy scalar": ("import numpy as np\ndef f(x):\n    return np.float32(np.mean(x))", "assert f([1.0, 2.0]) == 1.5"),
    "numpy int": ("import numpy as np\ndef f(x):\n    return np.array(x).sum()", "assert f([1, 2]) == 3"),
    "numpy bool": (
        "import numpy as np\ndef f(x):\n    return np.array(x).all()",
        "assert f([1, 2])\nassert not f([0])\nassert f([1]) == True",
    ),
    "numpy array": (
        "import numpy as np\ndef f(x):\n    return np.array(x) * 2",
        "import numpy as np\nassert np.array_equal(f([1, 2]), [2, 4])\nassert f([1, 2]).shape == (2,)\nassert (f([1, 2]) == np.array([2, 4])).all()",
    ),
    "numpy testing": (
        "import numpy as np\ndef f(x):\n    return np.sqrt(np.array(x))",
        "import numpy as np\nnp.testing.assert_allclose(f([1, 4]), [1, 2])\nassert f([9])[0] == 3",
    ),
    "list of numpy": ("import numpy as np\ndef f(x):\n    return list(np.array(x))", "assert f([1, 2]) == [1, 2]"),
    "array as an argument": (
        "def f(a):\n    a[0] = 5\n    return a.sum()",
        "import numpy as np\na = np.array([1, 2])\nassert f(a) == 7 and a[0] == 5",
    ),
    "surrogate": ("def f(x):\n    return chr(x)", "assert f(0xd801) == '\\ud801'"),
    "shared rows": ("def f(n):\n    return [[0] * n] * 2", "r = f(2)\nr[0][0] = 1\nassert r == [[1, 0], [1, 0]]"),
    "ellipsis": ("def f(x):\n    return ...", "assert f(1) is ..."),
    "huge number": ("def f(x):\n    return 2 ** x", "assert f(20000) == 1 << 20000"),
    "negative zero and inf": (
        "def f(x):\n    return [-0.0, float('-inf')]",
        "import math\nassert math.copysign(1, f(1)[0]) == -1 and f(1)[1] == -math.inf",
    ),
    "slice": ("def f(x):\n    return slice(1, x)", "assert [1, 2, 3][f(2)] == [2]"),
}
CHANGES = {
    "list": ("def f(a):\n    a.sort()", "a = [2, 1]\nassert f(a) is None\nassert a == [1, 2]"),
    "inner list": (
        "def f(m):\n    m[1][0] = 9",
        "m = [[1], [2]]\nrow = m[1]\nf(m)\nassert m == [[1], [9]] and row == [9]",
    ),
    "dict": ("def f(d):\n    d.pop('a')\n    d['b'] = [1]", "d = {'a': 1}\nf(d)\nassert d == {'b': [1]}"),
    "set": ("def f(s):\n    s.add(3)", "s = {1}\nf(s)\nassert s == {1, 3}"),
    "deque": (
        "def f(q):\n    q.rotate(1)",
        "from collections import deque\nq = deque([1, 2, 3])\nf(q)\nassert list(q) == [3, 1, 2]",
    ),
    "bytearray": ("def f(b):\n    b.append(99)", "b = bytearray(b'ab')\nf(b)\nassert b == b'abc'"),
    "swap": ("def f(a, b):\n    a[:], b[:] = b[:], a[:]", "a, b = [1], [2]\nf(a, b)\nassert (a, b) == ([2], [1])"),
    "the same object": ("def f(a):\n    a.append(1)\n    return a", "a = []\nassert f(a) is a and a == [1]"),
    "a new object": ("def f(a):\n    return a + [1]", "a = []\nassert f(a) is not a and a == [] and f(a) == [1]"),
    "by keyword": ("def f(*, out):\n    out.extend([1, 2])", "r = []\nf(out=r)\nassert r == [1, 2]"),
    "two arguments that are one": ("def f(a, b):\n    a.append(1)\n    return b", "a = []\nassert f(a, a) == [1]"),
    "before an error": (
        "def f(a):\n    a.append(1)\n    raise ValueError",
        "a = []\ntry:\n    f(a)\nexcept ValueError:\n    pass\nassert a == [1]",
    ),
    "cleared": ("def f(a):\n    a.clear()", "a = [1, 2]\nf(a)\nassert not a"),
    "holds an object of the answer": (
        "class N:\n    def __init__(self):\n        self.v = 3\ndef f(a):\n    a.append(N())",
        "a = []\nf(a)\nassert a[0].v == 3",
    ),
}
CHANGES_WRONG = {
    "changes what it must not": (
        "def f(a):\n    a.sort()\n    return a",
        "a = [2, 1]\nassert f(a) == [1, 2]\nassert a == [2, 1]",
    ),
    "does not change": ("def f(a):\n    a = sorted(a)", "a = [2, 1]\nf(a)\nassert a == [1, 2]"),
    "not the same object": ("def f(a):\n    return list(a)", "a = []\nassert f(a) is a"),
}
NODE = "class ListNode:\n    def __init__(self, val=0, next=None):\n        self.val = val\n        self.next = next\n"
OBJECTS = {
    "stack": (
        "class Stack:\n    def __init__(self):\n        self.a = []\n    def push(self, x):\n        self.a.append(x)\n    def pop(self):\n        return self.a.pop()\n    def __len__(self):\n        return len(self.a)",
        "s = Stack()\ns.push(1)\ns.push(2)\nassert len(s) == 2\nassert s.pop() == 2\nassert s and len(s) == 1",
    ),
    "attributes": (
        "class P:\n    def __init__(self, x):\n        self.x = x",
        "p = P(1)\nassert p.x == 1\np.x = 5\nassert p.x == 5\nassert hasattr(p, 'x') and not hasattr(p, 'y')",
    ),
    "operators": (
        "class Vector:\n    def __init__(self, x, y):\n        self.x, self.y = x, y\n    def __add__(self, o):\n        return Vector(self.x + o.x, self.y + o.y)\n    def __mul__(self, k):\n        return Vector(self.x * k, self.y * k)\n"
        "    def __eq__(self, o):\n        return (self.x, self.y) == (o.x, o.y)\n    def __repr__(self):\n        return f'Vector({self.x}, {self.y})'",
        "assert Vector(1, 2) + Vector(3, 4) == Vector(4, 6)\nassert Vector(1, 2) * 3 == Vector(3, 6)\nassert repr(Vector(1, 2)) == 'Vector(1, 2)'\nassert Vector(1, 2) != Vector(2, 1)",
    ),
    "properties and static methods": (
        "class C:\n    def __init__(self, r):\n        self.r = r\n    @property\n    def area(self):\n        return self.r ** 2\n    @staticmethod\n    def unit():\n        return C(1)\n    @classmethod\n    def of(cls, r):\n        return cls(r)",
        "assert C(3).area == 9\nassert C.unit().r == 1\nassert C.of(4).area == 16",
    ),
    "inheritance": (
        "class A:\n    def f(self):\n        return 1\nclass B(A):\n    pass",
        "assert B().f() == 1\nassert isinstance(B(), A)\nassert not isinstance(A(), B)",
    ),
    "iteration": (
        "class R:\n    def __init__(self, n):\n        self.n = n\n    def __iter__(self):\n        return iter(range(self.n))\n    def __getitem__(self, i):\n        return i * 2",
        "assert list(R(3)) == [0, 1, 2]\nassert R(3)[2] == 4\nassert 2 in R(3) and 7 not in R(3)",
    ),
    "context": (
        "class T:\n    def __enter__(self):\n        self.on = True\n        return self\n    def __exit__(self, *e):\n        self.on = False",
        "with T() as t:\n    assert t.on\nassert not t.on",
    ),
    "own error": (
        "class Broke(Exception):\n    pass\ndef f(x):\n    raise Broke('no money')",
        "try:\n    f(1)\n    assert False\nexcept Broke as e:\n    assert 'money' in str(e)",
    ),
    "own error of a base": (
        "class Broke(ValueError):\n    pass\ndef f(x):\n    raise Broke('x')",
        "import pytest\nwith pytest.raises(ValueError):\n    f(1)",
    ),
    "arguments of an error": (
        "def f(d):\n    return d['k']",
        "try:\n    f({})\n    assert False\nexcept KeyError as e:\n    assert e.args == ('k',) and str(e) == \"'k'\"",
    ),
    "list nodes of the test": (
        "def f(head):\n    out = []\n    while head:\n        out.append(head.val)\n        head = head.next\n    return out",
        NODE + "assert f(ListNode(1, ListNode(2))) == [1, 2]\nassert f(None) == []",
    ),
    "list nodes that come back": (
        "def f(head):\n    prev = None\n    while head:\n        head.next, prev, head = prev, head, head.next\n    return prev",
        NODE
        + "h = f(ListNode(1, ListNode(2, ListNode(3))))\nassert [h.val, h.next.val, h.next.next.val, h.next.next.next] == [3, 2, 1, None]",
    ),
    "nodes that the answer makes": (
        "def f(a):\n    head = None\n    for x in reversed(a):\n        head = ListNode(x, head)\n    return head",
        NODE + "h = f([1, 2])\nassert h.val == 1 and h.next.val == 2 and h.next.next is None",
    ),
    "function as an argument": (
        "def f(g, x):\n    return g(g(x))",
        "assert f(lambda x: x + 1, 3) == 5\nassert f(str.upper, 'a') == 'A'\nassert f(abs, -2) == 2",
    ),
    "decorator": (
        "import functools\ndef twice(g):\n    @functools.wraps(g)\n    def h(*a):\n        return g(*a) * 2\n    return h",
        "@twice\ndef one(x):\n    return x\nassert one(4) == 8",
    ),
    "memo": (
        "def memo(g):\n    seen = {}\n    def h(n):\n        if n not in seen:\n            seen[n] = g(n)\n        return seen[n]\n    return h",
        "calls = []\ndef slow(n):\n    calls.append(n)\n    return n * n\nfast = memo(slow)\nassert fast(3) == 9 and fast(3) == 9\nassert calls == [3]",
    ),
    "error of a function that was passed": (
        "def f(g):\n    try:\n        return g()\n    except ValueError:\n        return 'caught'",
        "def bad():\n    raise ValueError('x')\nassert f(bad) == 'caught'",
    ),
    "iterator as an argument": (
        "def f(it):\n    return [next(it), next(it)]",
        "import itertools\nassert f(itertools.count(5)) == [5, 6]\nassert f(x for x in 'ab') == ['a', 'b']",
    ),
    "stream as an argument": (
        "def f(s):\n    return s.read().split()",
        "import io\nassert f(io.StringIO('a b')) == ['a', 'b']",
    ),
    "printed": (
        "def f(x):\n    print('got', x)",
        "import io, contextlib\nout = io.StringIO()\nwith contextlib.redirect_stdout(out):\n    f(1)\nassert out.getvalue() == 'got 1\\n'",
    ),
    "constant": ("LIMIT = 7\ndef f(x):\n    return min(x, LIMIT)", "assert f(9) == LIMIT == 7"),
    "await": (
        "import asyncio\nasync def f(x):\n    await asyncio.sleep(0)\n    return x + 1",
        "import asyncio\nassert asyncio.run(f(1)) == 2",
    ),
    "sorted by own order": (
        "class V:\n    def __init__(self, n):\n        self.n = n\n    def __lt__(self, o):\n        return self.n < o.n",
        "assert [v.n for v in sorted([V(3), V(1), V(2)])] == [1, 2, 3]\nassert V(1) < V(2)",
    ),
}
OBJECTS_WRONG = {
    "equals everything": (
        "class Y:\n    def __eq__(self, o):\n        return True\ndef f(x):\n    return Y()",
        "assert f(1) == 5",
    ),
    "differs from nothing": (
        "class Y:\n    def __ne__(self, o):\n        return False\n    def __eq__(self, o):\n        return True\ndef f(x):\n    return Y()",
        "assert not f(1) != 5",
    ),
    "a difference of nothing": (
        "class Y:\n    def __sub__(self, o):\n        return 0.0\n    __rsub__ = __sub__\ndef f(x):\n    return Y()",
        "assert abs(f(1) - 0.5) < 1e-6",
    ),
    "a difference that is itself": (
        "class Y:\n    def __sub__(self, o):\n        return self\n    def __abs__(self):\n        return 0.0\n    __rsub__ = __sub__\ndef f(x):\n    return Y()",
        "assert abs(0.5 - f(1)) < 1e-6",
    ),
    "less than everything": (
        "class Y:\n    def __lt__(self, o):\n        return True\n    __gt__ = __le__ = __ge__ = __lt__\ndef f(x):\n    return Y()",
        "assert 0.4 < f(1) < 0.6",
    ),
    "holds everything": (
        "class Y:\n    def __contains__(self, o):\n        return True\n    def __iter__(self):\n        return iter([])\ndef f(x):\n    return Y()",
        "assert 5 in f(1)",
    ),
    "a solution that is a number": (
        "class Solution:\n    def avg(self, a):\n        return self\n    def __sub__(self, o):\n        return self\n    def __abs__(self):\n        return 0.0\n    def __lt__(self, o):\n        return True",
        "assert abs(Solution().avg([1, 2]) - 1.5) < 1e-6",
    ),
    "a solution that equals": (
        "class Solution:\n    def avg(self, a):\n        return self\n    def __eq__(self, o):\n        return True",
        "assert Solution().avg([1, 2]) == 1.5",
    ),
    "told by an operator": (
        "class Vector:\n    def __init__(self, *a):\n        pass\n    def __abs__(self):\n        return self\n    def __sub__(self, o):\n        return Vector()\n    def __lt__(self, o):\n        return True",
        "assert abs(abs(Vector(3, 4)) - 5) < 1e-9",
    ),
    "an interface of numpy": (
        "class Y:\n    __array_interface__ = {'shape': (1,), 'typestr': '<f8', 'data': (0, True), 'version': 3}\n    def __len__(self):\n        return 1\ndef f(x):\n    return Y()",
        "import numpy as np\nassert np.allclose(f(1), [0.5])",
    ),
    "skips the test": (
        "import unittest\ndef f(x):\n    raise unittest.SkipTest('no')",
        "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(f(1), 2)",
    ),
    "stack that forgets": (
        "class Stack:\n    def push(self, x):\n        pass\n    def pop(self):\n        return None",
        "s = Stack()\ns.push(1)\nassert s.pop() == 1",
    ),
    "no such method": ("class Stack:\n    pass", "s = Stack()\ns.push(1)\nassert s.pop() == 1"),
    "does not raise": ("def f(x):\n    return x", "import pytest\nwith pytest.raises(ValueError):\n    f(1)"),
    "raises another": ("def f(x):\n    raise KeyError", "import pytest\nwith pytest.raises(ValueError):\n    f(1)"),
    "leaves out a function": ("def f(x):\n    return x", "assert f(1) == 1\nassert g(2) == 2"),
}
FORMS = {
    "list of texts": json.dumps(["assert f(1) == 1", "assert f(2) == 2"]),
    "list of longer texts": json.dumps(["x = 1\nassert f(x) == x", "for i in range(3):\n    assert f(i) == i"]),
    "text of text": json.dumps("assert f(1) == 1"),
    "row of MBPP": json.dumps(
        {
            "test_list": ["assert f(1) == 1"],
            "test_setup_code": "import math",
            "challenge_test_list": ["assert f(9) == 9"],
        }
    ),
    "separated": "assert f(1) == 1\x1eassert f(2) == 2",
    "pytest": "from solution import f\n\ndef test_one():\n    assert f(1) == 1\n",
    "pytest, other module": "from your_module import f as g\n\ndef test_one():\n    assert g(1) == 1\n",
    "pytest, whole module": "import solution\n\ndef test_one():\n    assert solution.f(1) == 1\n",
    "pytest, star": "from solution import *\n\ndef test_one():\n    assert f(1) == 1\n",
    "pytest, parametrized": "import pytest\nfrom solution import f\n\n@pytest.mark.parametrize('x, y', [(1, 1), (2, 2), pytest.param(3, 3, id='three')])\ndef test_it(x, y):\n    assert f(x) == y\n",
    "pytest, two marks": "import pytest\n@pytest.mark.parametrize('x', [1, 2])\n@pytest.mark.parametrize('y', [0])\ndef test_it(x, y):\n    assert f(x) + y == x\n",
    "pytest, class": "class TestF:\n    def setup_method(self):\n        self.x = 4\n    def test_it(self):\n        assert f(self.x) == 4\n",
    "pytest, fixture": "import pytest\n@pytest.fixture\ndef number():\n    return 5\ndef test_it(number):\n    assert f(number) == 5\n",
    "pytest, approx": "import pytest\ndef test_it():\n    assert f(0.1 + 0.2) == pytest.approx(0.3)\n    assert f([0.1 + 0.2]) == pytest.approx([0.3])\n",
    "unittest": "import unittest\nfrom solution import f\n\nclass TestF(unittest.TestCase):\n    def setUp(self):\n        self.x = 1\n    def test_a(self):\n        self.assertEqual(f(self.x), 1)\n    def test_b(self):\n        for i in range(2):\n            with self.subTest(i=i):\n                self.assertEqual(f(i), i)\n\nif __name__ == '__main__':\n    unittest.main()\n",
    "function that is called": "def test():\n    assert f(1) == 1\n\ntest()\n",
    "only in the main guard": "def run():\n    assert f(1) == 1\n\nif __name__ == '__main__':\n    run()\n",
    "check with other name": "METADATA = {}\n\ndef check(f):\n    assert f(1) == 1\n\ncheck(f)\n",
    "entry point with a class": "",
    "unused import that may fail": "try:\n    import numpy_is_not_here\nexcept ImportError:\n    pass\nassert f(1) == 1",
    "future": "from __future__ import annotations\nassert f(1) == 1",
    "star of typing": "from typing import *\nimport collections, math\nassert f(1) == 1",
}
del FORMS["entry point with a class"]
CANNOT = {
    "module that is not there": "import pandas_is_not_here as pd\nassert f(1) == 1",
    "module used in a function": "def test_it():\n    from scipy_is_not_here import stats\n    assert f(1) == 1\n",
    "reads a file": "with open('data.txt') as file:\n    assert f(file.read()) == 1",
    "network": "from urllib.request import urlopen\nassert f(urlopen('http://localhost').read()) == 1",
    "replaces": "from unittest.mock import patch\nwith patch('builtins.input', return_value='1'):\n    assert f(1) == 1",
    "passes an object of its own": "class Shape:\n    def area(self):\n        return 3\nassert f(Shape()) == 3",
    "passes a module": "import math\nassert f(math) == 1",
    "unknown fixture": "def test_it(tmp_path):\n    assert f(tmp_path) == 1\n",
    "undefined name": "assert f(nothing) == 1",
}
LCB = [{"input": "[1, 2]\n3", "output": "[4, 5]", "testtype": "functional"}]
TWO_SUM = "class Solution:\n    def twoSum(self, nums, target):\n        for i, a in enumerate(nums):\n            for j in range(i):\n                if a + nums[j] == target:\n                    return (j, i)\n"
MINSTACK = "class MinStack:\n    def __init__(self):\n        self.a = []\n    def push(self, x):\n        self.a.append(x)\n    def top(self):\n        return self.a[-1]\n    def getMin(self):\n        return min(self.a)\n"
CASES = {
    "class Solution": (
        json.dumps({"inputs": [[[2, 7, 11], 9]], "outputs": [[0, 1]], "fn_name": "twoSum"}),
        TWO_SUM,
        "correct",
    ),
    "class Solution, wrapped": (
        json.dumps({"inputs": [[[2, 7, 11], 9]], "outputs": [[[0, 1]]], "fn_name": "twoSum"}),
        TWO_SUM,
        "correct",
    ),
    "class Solution, wrong": (
        json.dumps({"inputs": [[[2, 7, 11], 9]], "outputs": [[1, 2]], "fn_name": "twoSum"}),
        TWO_SUM,
        "wrong",
    ),
    "no name, one method and a helper": (
        json.dumps(LCB),
        "class Solution:\n    def helper(self, x, k):\n        return x + k\n    def add(self, nums, k):\n        return [self.helper(x, k) for x in nums]\n",
        "correct",
    ),
    "plain function": (json.dumps(LCB), "def add(nums, k):\n    return [x + k for x in nums]\n", "correct"),
    "plain function, wrong": (json.dumps(LCB), "def add(nums, k):\n    return [x - k for x in nums]\n", "wrong"),
    "metadata": (
        json.dumps({"public_test_cases": json.dumps(LCB), "metadata": json.dumps({"func_name": "add"})}),
        "class Solution:\n    def other(self):\n        pass\n    def add(self, nums, k):\n        return [x + k for x in nums]\n",
        "correct",
    ),
    "keywords": (json.dumps([{"input": {"a": 1, "b": 2}, "output": 3, "type": "function_call"}]), RIGHT, "correct"),
    "names in a text": (json.dumps({"inputs": ["a = 1, b = 2"], "outputs": ["3"], "fn_name": "add"}), RIGHT, "correct"),
    "Python literals": (
        json.dumps({"inputs": ["[True, None]"], "outputs": ["None"], "fn_name": "g"}),
        "def g(a):\n    return a[1]",
        "correct",
    ),
    "str() of a row": (str({"inputs": [[1, 2]], "outputs": [[3]], "fn_name": "add"}), RIGHT, "correct"),
    "input_output": (
        json.dumps({"input_output": json.dumps({"inputs": [[1, 2]], "outputs": [3], "fn_name": "add"})}),
        RIGHT,
        "correct",
    ),
    "keys that are numbers": (
        json.dumps({"inputs": [[1]], "outputs": [{"1": "a"}], "fn_name": "g"}),
        "def g(x):\n    return {x: 'a'}",
        "correct",
    ),
    "truth is no text": (
        json.dumps({"inputs": [[1]], "outputs": [True], "fn_name": "g"}),
        "def g(x):\n    return 'True'",
        "wrong",
    ),
    "text is no number": (
        json.dumps({"inputs": [[1]], "outputs": ["1"], "fn_name": "g"}),
        "def g(x):\n    return 'a'",
        "wrong",
    ),
    "float beside the value": (
        json.dumps({"inputs": [[1]], "outputs": [0.3], "fn_name": "g"}),
        "def g(x):\n    return 0.1 + 0.2",
        "wrong",
    ),
    "float within the tolerance": (
        json.dumps({"inputs": [[1]], "outputs": [0.3], "fn_name": "g", "tolerance": 1e-6}),
        "def g(x):\n    return 0.1 + 0.2",
        "correct",
    ),
    "float beyond the tolerance": (
        json.dumps({"inputs": [[1]], "outputs": [0.3], "fn_name": "g", "tolerance": 1e-6}),
        "def g(x):\n    return 0.3001",
        "wrong",
    ),
    "stateful class": (
        json.dumps(
            [
                {
                    "input": '["MinStack","push","push","getMin","top"]\n[[],[3],[1],[],[]]',
                    "output": "[null,null,null,1,1]",
                    "testtype": "functional",
                }
            ]
        ),
        MINSTACK,
        "correct",
    ),
    "stateful class, as lists": (
        json.dumps({"inputs": [[["MinStack", "push", "top"], [[], [3], []]]], "outputs": [[None, None, 3]]}),
        MINSTACK,
        "correct",
    ),
    "stateful class, wrong": (
        json.dumps({"inputs": [[["MinStack", "push", "top"], [[], [3], []]]], "outputs": [[None, None, 4]]}),
        MINSTACK,
        "wrong",
    ),
    "program, tokens": (json.dumps({"inputs": ["2\n"], "outputs": ["1.50 a"]}), "print('1.5', 'a')", "correct"),
    "program, other word": (json.dumps({"inputs": ["2\n"], "outputs": ["Yes"]}), "print('YES')", "wrong"),
    "program, lines of a list": (
        json.dumps({"inputs": [["1", "2"]], "outputs": [["1", "2"]]}),
        "print(input())\nprint(input())",
        "correct",
    ),
    "program, one line for two": (json.dumps({"inputs": ["1"], "outputs": ["1\n2"]}), "print(1, 2)", "wrong"),
    "program, tolerance": (
        json.dumps({"inputs": ["1"], "outputs": ["0.333333"], "tolerance": 1e-5}),
        "print(1 / 3)",
        "correct",
    ),
    "program, no tolerance": (json.dumps({"inputs": ["1"], "outputs": ["0.333333"]}), "print(1 / 3)", "wrong"),
    "program, accepted outputs": (
        json.dumps([{"input": "1", "accepted_outputs": ["a", "b"]}]),
        "print('b')",
        "correct",
    ),
    "program, none of the accepted": (
        json.dumps([{"input": "1", "accepted_outputs": ["a", "b"]}]),
        "print('c')",
        "wrong",
    ),
    "program, carriage returns": (
        json.dumps({"inputs": ["1\r\n2\r\n"], "outputs": ["3\r\n"]}),
        "import sys\nprint(sum(map(int, sys.stdin.read().split())))",
        "correct",
    ),
    "program, columns of CodeContests": (
        json.dumps(
            {"public_tests": {"input": ["1"], "output": ["1"]}, "private_tests": {"input": ["2"], "output": ["2"]}}
        ),
        "print(input())",
        "correct",
    ),
    "program, cases of LiveCodeBench": (
        json.dumps([{"input": "1\n", "output": "1\n", "testtype": "stdin"}]),
        "print(input())",
        "correct",
    ),
    "program, empty input": (json.dumps({"inputs": [""], "outputs": ["hello"]}), "print('hello')", "correct"),
    "entry point with a class": (
        json.dumps(
            {
                "entry_point": "Solution().twoSum",
                "test": "def check(candidate):\n    assert candidate(nums=[2, 7, 11], target=9) == (0, 1)\n",
            }
        ),
        TWO_SUM,
        "correct",
    ),
}

LISTS = (
    NODE
    + "def make(a):\n    h = None\n    for x in reversed(a):\n        h = ListNode(x, h)\n    return h\ndef same(a, b):\n    while a and b:\n        if a.val != b.val:\n            return False\n        a, b = a.next, b.next\n    return a is None and b is None\n"
)
REVERSE = "class Solution:\n    def reverse(self, head: Optional[ListNode]) -> Optional[ListNode]:\n        prev = None\n        while head:\n            head.next, prev, head = prev, head, head.next\n        return prev\n"
OTHERS = [
    (
        "leetcode helper",
        LISTS,
        fenced(REVERSE),
        json.dumps(
            {
                "entry_point": "Solution().reverse",
                "test": LISTS
                + "def check(candidate):\n    assert same(candidate(head=make([1,2,3])), make([3,2,1]))\n    assert same(candidate(head=make([])), make([]))\n",
            }
        ),
        "correct",
    ),
    (
        "leetcode helper in prompt",
        LISTS + "class Solution:\n    def reverse(self, head):\n        pass\n",
        fenced(REVERSE),
        json.dumps(
            {
                "entry_point": "Solution().reverse",
                "test": "def check(candidate):\n    assert same(candidate(head=make([1,2,3])), make([3,2,1]))\n",
            }
        ),
        "correct",
    ),
    (
        "generator type",
        "",
        fenced("def f(n):\n    yield n"),
        "import types\nassert isinstance(f(1), types.GeneratorType)\nassert list(f(1)) == [1]",
        "correct",
    ),
    (
        "is a map",
        "",
        fenced("def f(n):\n    return map(str, n)"),
        "assert isinstance(f([1]), map)\nassert list(f([1])) == ['1']",
        "correct",
    ),
    (
        "name of class",
        "",
        fenced("class Dog:\n    pass\ndef f():\n    return Dog()"),
        "assert type(f()).__name__ == 'Dog'\nassert f().__class__.__name__ == 'Dog'\nassert isinstance(f(), Dog)",
        "correct",
    ),
    (
        "derived",
        "",
        fenced("class A:\n    def g(self):\n        return self.h() + 1"),
        "class B(A):\n    def h(self):\n        return 1\nassert B().g() == 2",
        "error",
    ),
    (
        "signature",
        "",
        fenced("def f(a, b):\n    return a"),
        "import inspect\nassert len(inspect.signature(f).parameters) == 2",
        "error",
    ),
    (
        "seed",
        "",
        fenced("import random\ndef f(n):\n    return [random.randint(0, 9) for _ in range(n)]"),
        "import random\nrandom.seed(3)\nx = [random.randint(0, 9) for _ in range(5)]\nrandom.seed(3)\nassert f(5) == x",
        "correct",
    ),
    (
        "name",
        "",
        fenced("def f(x):\n    return x"),
        "assert f.__name__ == 'f' and callable(f)\nassert f(1) == 1",
        "correct",
    ),
    (
        "raises with match",
        "",
        fenced("def f(x):\n    raise ValueError('bad x: 3')"),
        "import pytest\nfrom solution import f\ndef test_f():\n    with pytest.raises(ValueError, match='bad') as e:\n        f(3)\n    assert '3' in str(e.value)",
        "correct",
    ),
    (
        "assertRaises context",
        "",
        fenced("def f(x):\n    raise ValueError('bad')"),
        "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        with self.assertRaises(ValueError) as cm:\n            f(1)\n        self.assertEqual(str(cm.exception), 'bad')",
        "correct",
    ),
    ("nbsp", "", "```python\ndef f(x):\n\u00a0\u00a0\u00a0\u00a0return x\n```", "assert f(1) == 1", "correct"),
    ("crlf", "", "```python\r\ndef f(x):\r\n    return x\r\n```\r\n", "assert f(1) == 1", "correct"),
    ("bom", "", "\ufeffdef f(x):\n    return x", "assert f(1) == 1", "correct"),
    (
        "unit_tests as text list",
        "",
        fenced("def f(x):\n    return x"),
        json.dumps({"unit_tests": json.dumps(["assert f(1) == 1"])}),
        "correct",
    ),
    (
        "ground_truth",
        "",
        fenced("print(input())"),
        json.dumps({"ground_truth": json.dumps({"inputs": ["1"], "outputs": ["1"]})}),
        "correct",
    ),
    (
        "set compare",
        "",
        fenced("def f(a):\n    return list(a)"),
        "assert set(f((1,2))) == set((2,1))\nassert sorted(f([2,1])) == [1,2]",
        "correct",
    ),
    ("nan", "", fenced("def f():\n    return [float('nan')]"), "import math\nassert math.isnan(f()[0])", "correct"),
    (
        "gcd as the tested name",
        "",
        fenced("def gcd(a, b):\n    while b:\n        a, b = b, a % b\n    return a"),
        "assert gcd(12, 8) == 4",
        "correct",
    ),
    ("gcd wrong", "", fenced("def gcd(a, b):\n    return 1"), "assert gcd(12, 8) == 4", "wrong"),
    (
        "uses Counter without import",
        "",
        fenced("def f(a):\n    return a"),
        "assert Counter(f('aab')) == Counter('aba')",
        "correct",
    ),
    (
        "class Counter of its own",
        "",
        fenced(
            "class Counter:\n    def __init__(self):\n        self.n = 0\n    def inc(self):\n        self.n += 1\n        return self.n"
        ),
        "c = Counter()\nassert c.inc() == 1\nassert c.inc() == 2",
        "correct",
    ),
    (
        "bank",
        "",
        fenced(
            "class InsufficientFunds(Exception):\n    def __init__(self, need):\n        super().__init__(f'need {need}')\n        self.need = need\nclass Account:\n    def __init__(self, b=0):\n        self.balance = b\n    def withdraw(self, n):\n        if n > self.balance:\n            raise InsufficientFunds(n - self.balance)\n        self.balance -= n"
        ),
        "import pytest\nfrom solution import Account, InsufficientFunds\ndef test_a():\n    a = Account(5)\n    a.withdraw(2)\n    assert a.balance == 3\n    with pytest.raises(InsufficientFunds):\n        a.withdraw(10)",
        "correct",
    ),
    (
        "error attribute",
        "",
        fenced(
            "class E(Exception):\n    def __init__(self, code):\n        self.code = code\ndef f():\n    raise E(7)"
        ),
        "try:\n    f()\n    assert False\nexcept E as e:\n    assert e.code == 7",
        "correct",
    ),
    ("print inside", "", fenced("def f(x):\n    print('debug', x)\n    return x"), "assert f(1) == 1", "correct"),
    (
        "global counter",
        "",
        fenced("n = 0\ndef f():\n    global n\n    n += 1\n    return n"),
        "assert f() == 1\nassert f() == 2",
        "correct",
    ),
    (
        "two answers in one",
        "",
        fenced("def enc(s):\n    return s[::-1]\ndef dec(s):\n    return s[::-1]"),
        "for s in ('ab', 'xyz'):\n    assert dec(enc(s)) == s\nassert enc('ab') == 'ba'",
        "correct",
    ),
    (
        "lru cache",
        "",
        fenced(
            "from functools import lru_cache\n@lru_cache(None)\ndef fib(n):\n    return n if n < 2 else fib(n-1) + fib(n-2)"
        ),
        "assert fib(50) == 12586269025\nassert fib.cache_info().hits > 0",
        "correct",
    ),
    (
        "sum of generator in all",
        "",
        fenced("def f(a):\n    return (x * 2 for x in a)"),
        "assert all(a == b for a, b in zip(f([1, 2]), [2, 4]))",
        "correct",
    ),
    (
        "json lines trailing",
        "",
        fenced("class Solution:\n    def g(self, s, k):\n        return s * k"),
        json.dumps(
            [{"input": '"ab"\n2\n', "output": '"abab"', "testtype": "functional", "metadata": {"func_name": "g"}}]
        ),
        "correct",
    ),
]


def all_cases() -> list[tuple[str, str, str, str, str]]:
    """Every neighbour: what it is, prompt, response, reference answer, status."""
    cases = [(f"place: {what}", "", text, ADD, "correct") for what, text in PLACES.items()]
    cases += [(f"place: {what}", "", text, ADD, "not") for what, text in PLACES_WRONG.items()]
    cases += [
        (f"import: {what}", "", fenced(code), ADD, "correct") for what, code in (IMPORTS).items() if what != "numpy"
    ]
    cases += [(f"import: {what}", "", fenced(code), ADD, "wrong") for what, code in IMPORTS_WRONG.items()]
    cases += [(f"completion: {what}", HEAD, text, CHECK, "correct") for what, text in COMPLETIONS.items()]
    cases += [(f"completion: {what}", HEAD, text, CHECK, "not") for what, text in COMPLETIONS_WRONG.items()]
    cases += [(f"program: {what}", "", fenced(code), SUM, "correct") for what, code in PROGRAMS.items()]
    cases += [(f"program: {what}", "", fenced(code), SUM, "not") for what, code in PROGRAMS_WRONG.items()]
    for name, table, status in (
        ("value", VALUES, "correct"),
        ("change", CHANGES, "correct"),
        ("change", CHANGES_WRONG, "wrong"),
        ("object", OBJECTS, "correct"),
        ("object", OBJECTS_WRONG, "wrong"),
    ):
        cases += [(f"{name}: {what}", "", fenced(code), tests, status) for what, (code, tests) in table.items()]
    cases += [
        (f"form: {what}", "", fenced("def f(x):\n    return x"), tests, "correct") for what, tests in FORMS.items()
    ]
    cases += [
        (f"form, wrong: {what}", "", fenced("def f(x):\n    return x if x is None else 77"), tests, "wrong")
        for what, tests in FORMS.items()
    ]
    cases += [
        (f"cannot: {what}", "", fenced("def f(x):\n    return 1"), tests, "error") for what, tests in CANNOT.items()
    ]
    cases += [(f"case: {what}", "", fenced(code), tests, status) for what, (tests, code, status) in CASES.items()]
    return [*cases, *((f"other: {case[0]}", *case[1:]) for case in OTHERS)]
