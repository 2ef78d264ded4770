"""The verifier `code`: both formats of tests, and code that tries to be judged correct without being right."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rlsp_async import config
from rlsp_async.errors import ConfigError, DataError
from rlsp_async.tasks.base import load_task
from rlsp_async.verifying.base import load_verifier
from rlsp_async.verifying.code.unit_tests import read_tests
from rlsp_async.verifying.pool import VerifierPool
from tests.verifying import escapes
from tests.verifying.code import attacks
from tests.verifying.pools import make_pool, verify_cases

HUMANEVAL = 'from typing import List\n\ndef helper(x):\n    return x + 1\n\ndef add(numbers: List[int]) -> int:\n    """Sum."""\n'
CHECK = (
    "def check(candidate):\n    for n in range(3):\n        assert candidate([n, 1]) == helper(n)\n"
    "    assert abs(candidate([0.1, 0.2]) - 0.3) < 1e-9\n"
)
MBPP = "assert pairs([3, 1]) == [(1, 3)]\nassert set(pairs([])) == set()"


def make(deadline_s: float = 20.0, **options: object) -> VerifierPool:
    return make_pool("code", options, processes=2, deadline_s=deadline_s, memory_mb=512)


async def test_both_formats() -> None:
    fenced = "<think>def add(n): return 0</think>So:\n```python\ndef add(numbers):\n    return sum(numbers)\n```\nDone."
    chat = f"<|user|>Answer in one ```python block.\n```python\n{HUMANEVAL}```<|end|>\n<|assistant|>"
    chat_too = f"<|user|>Complete: ```python\n{HUMANEVAL.rstrip()}```<|end|>\n<|assistant|>"
    alone = "```python\nN = 1\ndef add(numbers: List[int]):\n    return helper(sum(numbers)) - N\n```<|end|>"
    right = "def pairs(a):\n    return [(min(a), max(a))] if a else []"
    cases = [
        (HUMANEVAL, "    return sum(numbers)\n", CHECK, "correct"),
        (HUMANEVAL, "    return 3\n", CHECK, "wrong"),
        (HUMANEVAL, fenced, CHECK, "correct"),
        (HUMANEVAL, "    return sum(numbers)\n\nThat is all: the sum.\ndef", CHECK, "correct"),
        (HUMANEVAL, "```\n    return helper(sum(numbers)) - 1\n```", CHECK, "correct"),
        (chat, alone, CHECK, "correct"),
        (chat_too, alone, CHECK, "correct"),
        (HUMANEVAL, "the sum", CHECK, "unparsable"),
        (HUMANEVAL, "", CHECK, "unparsable"),
        ("Pairs?", right, MBPP, "correct"),
        ("Pairs?", f"```py\n{right}\n```\n```\nprint(1)\n```", MBPP, "correct"),
        ("Pairs?", f"Of course:\n\nNONE = []\n{right}\n\nThis takes both ends of a.", MBPP, "correct"),
        ("Pairs?", "def pairs(a): return []", MBPP, "wrong"),
        ("Pairs?", "def pair(a): return []", MBPP, "unparsable"),
        ("Pairs?", f"{right}\nprint('noise ' * 100000)\nif __name__ == '__main__':\n    input()", MBPP, "correct"),
        ("", "def f(x):\n    return x", '{"test": "assert f(1) == 1", "entry_point": "f"}', "correct"),
        (
            "",
            "def f(x):\n    raise ValueError('n')",
            "try:\n    f(1)\n    assert False\nexcept ValueError as e:\n    assert str(e) == 'n'",
            "correct",
        ),
        ("", "import re\ndef f(x):\n    return re.match('a', x)", "assert f('a')\nassert not f('b')", "correct"),
        ("", "def sum(a, b):\n    return a + b", "assert sum(1, 2) == 3", "correct"),
        ("", "def f():\n    yield from (1, 2)", "assert list(f()) == [1, 2]", "correct"),
    ]
    async with make() as pool:
        verdicts = await verify_cases(pool, *(case[:3] for case in cases))
    for case, verdict in zip(cases, verdicts, strict=True):
        assert verdict.status == case[3], (case, verdict)
    assert verdicts[1].detail.startswith("line 3 of the tests: AssertionError")


async def test_no_attack_is_correct_and_none_harms_the_next(tmp_path: Path) -> None:
    secret = tmp_path / "gold"
    secret.write_text(attacks.GOLD)
    items = []
    for code in attacks.ATTACKS.values():
        items += [("", code.replace("FILE", str(secret)), attacks.TEST), ("", attacks.RIGHT, attacks.TEST)]
    async with make(cpu_s=1) as pool:
        verdicts = await verify_cases(pool, *items)
    found = dict(zip(attacks.ATTACKS, [verdict.status for verdict in verdicts[::2]], strict=True))
    assert found == dict.fromkeys(attacks.ATTACKS, "wrong"), verdicts
    assert {verdict.status for verdict in verdicts[1::2]} == {"correct"}
    assert secret.read_text() == attacks.GOLD


async def test_no_answer_reaches_another_process() -> None:
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"], start_new_session=True)
    try:
        before = escapes.state_of(victim.pid)
        items = [("", code.replace("VICTIM", str(victim.pid)), attacks.TEST) for code in attacks.ON_VICTIM.values()]
        async with make(cpu_s=1) as pool:
            verdicts = await verify_cases(pool, *items)
            assert pool.restrictions["no signals"] and pool.restrictions["no scheduling"]
        assert dict(zip(attacks.ON_VICTIM, (v.status for v in verdicts), strict=True)) == dict.fromkeys(
            attacks.ON_VICTIM, "wrong"
        )
        assert victim.poll() is None
        assert escapes.state_of(victim.pid) == before
    finally:
        victim.kill()
        victim.wait()


async def test_no_exception_of_an_answer_ends_a_test_as_if_it_had_passed() -> None:
    cases = {
        (stop, loop): ("def f(x):\n    ...\n" if loop == "check" else "", code, test)
        for loop, test in attacks.LOOPS.items()
        for stop, code in {**attacks.STOPS, "right": attacks.POSITIVE}.items()
    }
    async with make(cpu_s=1) as pool:
        verdicts = await verify_cases(pool, *cases.values())
    found = dict(zip(cases, (verdict.status for verdict in verdicts), strict=True))
    assert found == {(stop, loop): "correct" if stop == "right" else "wrong" for stop, loop in cases}


async def test_errors_that_a_test_expects_still_pass() -> None:
    tests = [
        ("ValueError", "try:\n    f(1)\n    assert False\nexcept ValueError:\n    pass"),
        ("KeyError", "from contextlib import suppress\nwith suppress(KeyError):\n    f(1)\n    assert False"),
        ("IndexError", "import unittest\nunittest.TestCase().assertRaises(IndexError, f, 1)\nassert True"),
        ("StopIteration", "try:\n    f(1)\nexcept Exception as e:\n    assert 'StopIteration' in str(e)"),
    ]
    async with make() as pool:
        items = [("", f"def f(x):\n    raise {error}", test) for error, test in tests]
        assert [verdict.status for verdict in await verify_cases(pool, *items)] == ["correct"] * len(items)


async def test_shipped_solutions_are_correct_and_those_of_others_are_not() -> None:
    task = load_task(config.TaskConfig(name="mbpp"), seed=0)
    shown = [task.demonstration(index) for index in range(0, 150, 6)]
    items = [(prompt.text, response, prompt.answer) for prompt, response in shown]
    for (prompt, _), (other, response) in itertools.pairwise(shown):
        renamed = re.sub(rf"\b{read_tests(other.answer, '').name}\b", read_tests(prompt.answer, "").name, response)
        items.append((prompt.text, renamed, prompt.answer))
    async with make() as pool:
        found = [verdict.status for verdict in await verify_cases(pool, *items)]
    assert found == ["correct"] * 25 + ["wrong"] * 24


async def test_sleep_is_a_timeout() -> None:
    async with make(deadline_s=1.0) as pool:
        sleeps = ("", "import time\ndef f(x):\n    time.sleep(99)", attacks.TEST)
        assert [v.status for v in await verify_cases(pool, sleeps)] == ["timeout"]


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        ("assert f(1) ==", "not Python"),
        ("f(1)", "no assert"),
        ("assert 1 == 1", "name no function"),
        ("assert f(nothing) == 1", "name 'nothing' is not defined"),
        ("assert True or f(1)", "call no function"),
        ('{"entry_point": "f"}', 'not a JSON object with "test"'),
    ],
)
async def test_tests_that_are_none_are_an_error(answer: str, detail: str) -> None:
    code = load_verifier("code")
    code.prepare(512)
    with pytest.raises(DataError, match=detail):
        code.score("", "def f(x): return 1", answer)


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"task.verifier_options.modules: No module named 'numpyy'"):
        load_verifier("code", {"modules": ["numpyy"]})
    with pytest.raises(ConfigError, match="cpu_s = 0: must be a whole number at least 1"):
        load_verifier("code", {"cpu_s": 0})
