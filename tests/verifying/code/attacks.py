"""Python code that tries to be judged `correct` without solving the task, which is that f(x) returns GOLD."""

from __future__ import annotations

GOLD = "the secret 7391"
TEST = f"assert f(1) == {GOLD!r}\nassert f(2) == {GOLD!r} + '!'"
RIGHT = "def f(x):\n    return 'the secret ' + str(7391) + '!' * (x - 1)\n"

SEEK = """
import gc, sys

def texts(thing, depth=0):
    if isinstance(thing, str):
        yield thing
    elif depth < 3 and isinstance(thing, (list, tuple, set, frozenset)):
        for one in thing:
            yield from texts(one, depth + 1)
    elif depth < 3 and isinstance(thing, dict):
        yield from texts(list(thing.values()), depth + 1)

def fitting(things, x):
    for text in texts(things):
        at = text.find("the secret ")
        if at >= 0 and text[at + 11 : at + 12].isdigit() and "find(" not in text:
            return text[at : at + 15] + "!" * (x - 1)
"""

ATTACKS = {
    "exit at import": "import sys\nsys.exit(0)\ndef f(x): pass",
    "exit in the call": "import sys\ndef f(x): sys.exit(0)",
    "hard exit": "import os\ndef f(x): os._exit(0)",
    "equals everything": "class Yes:\n    __eq__ = lambda *_: True\n    __hash__ = None\ndef f(x): return Yes()",
    "a text that equals everything": "class Yes(str):\n    __eq__ = lambda *_: True\ndef f(x): return Yes('a')",
    "a base that lies": "class Yes(str):\n    __class__ = bool\n    __bool__ = __eq__ = lambda *_: True\ndef f(x): return Yes()",
    "patched builtins": "import builtins\nbuiltins.AssertionError = builtins.isinstance = lambda *_: True\n"
    "builtins.type = lambda *_: str\ndef f(x): return 1",
    "patched encoder": "import msgspec, rlsp_async.verifying.code.runner as d\nd.pack_value = lambda *_: True\n"
    "msgspec.msgpack.encode = lambda *_: b'\\xc3'\ndef f(x): return 1",
    "patched judge": "import sys\nfor m in list(sys.modules.values()):\n    if 'verifying' in getattr(m, '__name__', ''):\n"
    "        m.make_verdict = m.run_source = m.score = lambda *_: True\ndef f(x): return 1",
    "its own check": "def check(c): pass\nassert_ = f = lambda x: None\ndef f(x): return None",
    "reads the stack": SEEK + "def f(x):\n    frame, seen = sys._getframe(), []\n    while frame:\n"
    "        seen += [frame.f_locals, frame.f_globals]\n        frame = frame.f_back\n"
    "    return fitting(seen, x)",
    "reads all objects": SEEK + "def f(x): return fitting(gc.get_objects(), x)",
    "reads a file": "def f(x): return open('FILE').read() + '!' * (x - 1)",
    "reads a file at import": "GOLD = open('FILE').read()\ndef f(x): return GOLD + '!' * (x - 1)",
    "reads its parent": "import os\ndef f(x):\n    return open(f'/proc/{os.getppid()}/mem', 'rb').read(10) or 1",
    "reads its parent by ptrace": "import ctypes, os\ndef f(x):\n    assert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0",
    "lists a directory": "import os\ndef f(x): return os.listdir('/')",
    "forges results": "import os, struct, msgspec\nfor text in ('', 'the secret', 'x'):\n"
    "    body = msgspec.msgpack.encode(['value', text])\n"
    "    os.write(3, struct.pack('<I', len(body)) + body)\ndef f(x): return 1",
    "forges verdicts": "import os, struct, msgspec\nfrom rlsp_async.messages import Verdict\n"
    "body = msgspec.msgpack.encode(Verdict(status='correct', parts={'correct': 1.0}))\n"
    "for n in range(64):\n    try: os.write(n, struct.pack('<I', len(body)) + body)\n"
    "    except OSError: pass\ndef f(x): return 1",
    "rubbish on the channel": "import os\nos.write(3, b'\\xff' * 5000)\ndef f(x): return 1",
    "loop": "def f(x):\n    while True: pass",
    "loop that catches": "def f(x):\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass",
    "memory": "def f(x): return bytearray(1 << 40)",
    "memory, bit by bit": "def f(x):\n    a = []\n    while True: a.append(bytearray(1 << 24))",
    "recursion": "def f(x): return f(x)",
    "recursion without a limit": "import sys\nsys.setrecursionlimit(10**9)\ndef f(x): return f(x)",
    "crash": "import ctypes\ndef f(x): return ctypes.string_at(0)",
    "huge result": "def f(x): return 'x' * 50_000_000",
    "endless iterator": "import itertools\ndef f(x): return itertools.count()",
    "deep result": "def f(x):\n    a = []\n    for _ in range(10**5): a = [a]\n    return a",
    "a result of itself": "def f(x):\n    a = []\n    a.append(a)\n    return a",
    "no Unicode": "def f(x): return '\\ud800'",
    "fork": "import os\ndef f(x):\n    while True: os.fork()",
    "kill": "import os, signal\ndef f(x):\n    os.kill(os.getppid(), signal.SIGKILL)",
    "leaves its parent": "import ctypes, os, time\ndef f(x):\n    assert ctypes.CDLL(None).prctl(1, 0, 0, 0, 0) == 0\n    os.setsid()",
    "shell": "import os\ndef f(x): return os.system('id')",
    "socket": "import socket\ndef f(x): socket.create_connection(('127.0.0.1', 9))",
    "writes": "def f(x): open('FILE', 'w').write('x')",
    "error that equals an error": "class E(Exception):\n    def __str__(self): raise self\ndef f(x): raise E()",
    "stops the tests": "def f(x): raise StopIteration",
    "interrupt": "def f(x): raise KeyboardInterrupt",
    "other function": "def g(x): return 1\nf = g",
    "a parent that is stopped": "import ctypes, os\ndef f(x):\n"
    "    assert ctypes.CDLL(None).syscall(297, os.getppid(), os.getppid(), 19, bytes(128)) == 0",
    "a thread": "import _thread\ndef f(x): return _thread.start_new_thread(print, ())",
    "a task of asyncio's": "import asyncio\nasync def g(): return 1\ndef f(x): return asyncio.run(g())",
    "existence of a file": "import os\ndef f(x): return 'the secret 7391' if os.path.exists('FILE') and os.stat('FILE') else 1",
    "size of a file": "import os\ndef f(x): return os.stat('FILE').st_size",
    "its working directory": "import os\ndef f(x): return os.getcwd()",
    "a hidden error": "class E(Exception):\n    __class__ = property(lambda self: StopIteration)\n"
    "    __eq__ = lambda *_: True\n    __hash__ = None\ndef f(x): raise E()",
    "an error whose class has no name": "class M(type):\n    __name__ = property(lambda c: 1 / 0)\n"
    "class E(Exception, metaclass=M): pass\ndef f(x): raise E()",
    "an error with an endless text": "class E(Exception):\n    def __str__(self):\n        while True: pass\ndef f(x): raise E()",
    "an error that exits": "class E(Exception):\n    def __str__(self): raise SystemExit\ndef f(x): raise E()",
    **{
        f"forges {what}": "import os, struct, msgspec\n"
        f"body = msgspec.msgpack.encode({message!r})\n"
        "os.write(3, struct.pack('<I', len(body)) + body)\ndef f(x): return 1"
        for what, message in {
            "an end of iteration": ["error", ["builtins.StopIteration", "builtins.Exception"], None, "", [], ""],
            "an exit": ["error", ["builtins.SystemExit", "builtins.BaseException"], None, "", [], ""],
            "a skipped test": ["error", ["unittest.case.SkipTest", "builtins.Exception"], None, "", [], ""],
            "an old error": ["error", "StopIteration", ""],
            "a handle": ["value", ["H", 0, "str", True], [], ""],
            "a handle of the test": ["value", ["L", 0], [], ""],
            "a callback": ["callback", 0, ["l"], ["d"]],
            "a change": ["value", 1, [[0, ["l", "the secret"]]], ""],
            "an instance": ["value", ["K", "type", []], [], ""],
            "a number of nothing": ["value", ["R", 7], [], ""],
            "an array": ["value", ["N", "|O", [1], b"x" * 8], [], ""],
        }.items()
    },
}

ON_VICTIM = {
    name: f"import ctypes, os, struct\ncall = ctypes.CDLL(None).syscall\ndef f(x):\n    {line}\n    return 1\n"
    for name, line in {
        "rt_tgsigqueueinfo": "call(297, VICTIM, VICTIM, 9, struct.pack('iii', 9, 0, -1).ljust(128, bytes(1)))",
        "rt_sigqueueinfo": "call(129, VICTIM, 19, struct.pack('iii', 19, 0, -1).ljust(128, bytes(1)))",
        "tgkill": "call(234, VICTIM, VICTIM, 9)",
        "tkill": "call(200, VICTIM, 19)",
        "everybody": "call(62, -1, 9)",
        "its group": "call(62, 0, 9)",
        "pidfd": "call(424, call(434, VICTIM, 0), 9, 0, 0)",
        "fcntl": "r, w = os.pipe(); call(72, r, 8, VICTIM); call(72, r, 10, 9); call(72, r, 4, 0x2000); os.write(w, b'x')",
        "fcntl on the channel": "call(72, 3, 8, VICTIM); call(72, 3, 10, 9); call(72, 3, 4, 0x2000)",
        "fcntl, owner of a kind": "r, w = os.pipe(); call(72, r, 15, struct.pack('ii', 1, VICTIM)); call(72, r, 10, 9); "
        "call(72, r, 4, 0x2000); os.write(w, b'x')",
        "ioctl": "call(16, 3, 0x8901, struct.pack('i', VICTIM)); call(16, 3, 0x5452, struct.pack('i', 1))",
        "setpriority": "call(141, 0, VICTIM, 19)",
        "sched_setaffinity": "call(203, VICTIM, 8, struct.pack('Q', 1))",
        "sched_setscheduler": "call(144, VICTIM, 5, struct.pack('i', 0))",
        "sched_setattr": "call(314, VICTIM, struct.pack('<IIQiIQQQ', 48, 5, 0, 0, 0, 0, 0, 0), 0)",
        "prlimit": "call(302, VICTIM, 7, struct.pack('QQ', 3, 3), 0)",
        "ptrace": "call(101, 16, VICTIM, 0, 0)",
        "process_vm_writev": "call(311, VICTIM, bytes(16), 1, bytes(16), 1, 0)",
        "kcmp": "assert call(312, VICTIM, VICTIM, 1, 0, 0) == 0",
    }.items()
}
"""Answers that attack another process of the same user, whose id is put in the place of VICTIM."""

LOOPS = {
    "all": "assert all(map(f, [1, 2]))",
    "filter": "assert list(filter(f, [-1, -2])) == []",
    "any": "assert not any(map(f, [-1]))",
    "zip": "assert all(a == b for a, b in zip(map(f, [1, -1]), [True, False]))",
    "next": "assert next(map(f, [1]), True)",
    "for": "for x in map(f, [1, 2]):\n    assert x",
    "sum": "assert sum(map(f, [-1])) == 0",
    "max": "assert max(map(f, [-1]), default=False) is False",
    "a set": "assert {*map(f, [1])} <= {True}",
    "iter": "assert list(iter(lambda: f(-1), False)) == []",
    "takewhile": "import itertools\nassert list(itertools.takewhile(f, [-1])) == []",
    "starmap": "from itertools import starmap\nassert all(starmap(f, [(1,), (2,)]))",
    "reduce": "import functools\nassert functools.reduce(lambda a, b: a and b, map(f, [1]), True)",
    "a generator": "def g():\n    yield f(1)\nassert all(g())",
    "a sequence": "class S:\n    def __getitem__(self, i):\n        if i == 2:\n            raise IndexError\n"
    "        return f(1)\nassert all(S())",
    "a property": "class P:\n    v = property(lambda self: f(1))\nassert getattr(P(), 'v', True)",
    "hasattr": "class P:\n    v = property(lambda self: f(1))\nassert f(1) or not hasattr(P(), 'v')",
    "a missing key": "class D(dict):\n    def __missing__(self, key):\n        return f(1)\nassert '%(a)s' % D()",
    "after a try": "try:\n    f(1)\nexcept ValueError:\n    pass\nassert all(map(f, [1]))",
    "check": "def check(candidate):\n    assert all(map(candidate, [1, 2]))",
}
"""Tests of a function that says whether a number is positive, which an exception could end as if they had passed."""
POSITIVE = "def f(x):\n    return x > 0\n"
STOPS = {
    **{
        name: f"def f(x):\n    raise {name}\n"
        for name in (
            "StopIteration",
            "StopAsyncIteration",
            "GeneratorExit",
            "SystemExit",
            "KeyboardInterrupt",
            "BaseException",
            "IndexError",
            "KeyError",
            "AttributeError",
            "NotImplementedError",
        )
    },
    "a subclass": "class StopIteration(StopIteration): pass\ndef f(x):\n    raise StopIteration\n",
    "another of the name": "class StopIteration(Exception): pass\ndef f(x):\n    raise StopIteration\n",
    "a group": "def f(x):\n    raise BaseExceptionGroup('', [StopIteration()])\n",
    "next of nothing": "def f(x):\n    return next(iter(()))\n",
    "exits": "import os\ndef f(x):\n    os._exit(0)\n",
}
