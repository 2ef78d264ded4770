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
}
