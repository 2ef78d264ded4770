"""reasoning-gym's scorers behind our own guard; what needs the package is skipped without it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from rlsp_async.errors import DataError, MachineError
from rlsp_async.tasks import reasoning_gym as task
from rlsp_async.verifying import reasoning_gym as verifier

QUICK = [
    "chain_sum",
    "basic_arithmetic",
    "gcd",
    "lcm",
    "products",
    "count_bits",
    "number_sequence",
    "letter_counting",
    "leg_counting",
    "simple_equations",
    "base_conversion",
    "decimal_chain_sum",
    "syllogism",
    "time_intervals",
    "number_filtering",
    "word_sequence_reversal",
    "binary_matrix",
    "spiral_matrix",
    "string_insertion",
    "n_queens",
    "polynomial_multiplication",
    "simple_integration",
    "game_of_life_halting",
    "prime_factorization",
    "countdown",
    "coin_flip",
    "spell_backward",
]
NONSENSE = ["nonsense", "[[7, 7]]", "yes", "-1e9", "a" * 3000, "</answer>", "\u221e", "C", "()"]


@pytest.fixture
def gym() -> None:
    pytest.importorskip(
        "reasoning_gym", reason="reasoning-gym is not installed: pip install 'rlsp_async[reasoning-gym]'"
    )


def item(name: str, answer: object, **metadata: object) -> str:
    return json.dumps({"dataset": name, "params": {}, "answer": answer, "metadata": metadata})


def judge(response: str, answer: str):
    return verifier.ReasoningGymVerifier().score("", response, answer)


@pytest.mark.parametrize("name", QUICK)
def test_the_reference_is_correct_and_nonsense_is_not(gym: None, name: str) -> None:
    one = task.ReasoningGym(task.Config(dataset=name, size=5, test_size=2))
    for index in range(2):
        prompt = one.prompt("test", index)
        gold = json.loads(prompt.answer)["answer"]
        verdict = judge(f"<think>so</think> <answer>\n{gold}\n</answer>", prompt.answer)
        assert verdict.status == "correct", (gold, verdict)
        assert verdict.parts["score"] >= 1
        for text in NONSENSE:
            assert judge(f"<answer>{text}</answer>", prompt.answer).status in ("wrong", "unparsable"), text


def test_part_of_a_score_is_wrong_and_stands_in_the_parts(gym: None) -> None:
    one = task.ReasoningGym(task.Config(dataset="spiral_matrix", size=1, test_size=1)).prompt("test", 0)
    gold = json.loads(one.answer)["answer"]
    verdict = judge(f"<answer>[{', '.join(gold.split())}]</answer>", one.answer)
    assert (verdict.status, verdict.parts) == ("wrong", {"correct": 0.0, "format": 1.0, "score": 0.1})


HOSTILE = [
    "__import__('os').system('touch {mark}')",
    "[c for c in open('{mark}', 'w').name]",
    "print(open('{mark}','w'))",
    "(lambda: open('{mark}', 'w'))()",
    "x.__class__.__base__.__subclasses__()",
    "[open('{mark}', 'w')]",
    "sin(exec('open(1)'))",
    "x**__import__('pathlib').Path('{mark}').touch()",
]


@pytest.mark.parametrize(
    "name", sorted(verifier.LISTS_RUN_AS_PYTHON | verifier.FORMULAS_RUN_AS_PYTHON | {"countdown", "puzzle24"})
)
def test_no_answer_is_run(gym: None, name: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    one = task.ReasoningGym(task.Config(dataset=name, size=1, test_size=1)).prompt("test", 0)
    for text in HOSTILE:
        verdict = judge(f"<answer>{text.replace('{mark}', str(mark))}</answer>", one.answer)
        assert verdict.status == "unparsable", text
        assert not mark.exists(), text


@pytest.mark.parametrize(
    ("name", "text", "harmless"),
    [
        ("n_queens", "_ _ Q _\nQ _ _ _", True),
        ("spiral_matrix", "[1, 2, -3]", True),
        ("string_insertion", "['A', 'B']", True),
        ("spiral_matrix", "[1 for x in [1]]", False),
        ("spiral_matrix", "9**9**9", False),
        ("n_queens", "__import__", False),
        ("binary_matrix", "f()", False),
        ("binary_matrix", "a.b", False),
        ("binary_matrix", "{1}", False),
        ("simple_integration", "7*X**2/3 - sin(X)*log(x) + C", True),
        ("polynomial_multiplication", "x**12 - 3*x*y", True),
        ("polynomial_multiplication", "-327405*y**6 + 934619*y**5 - 12", True),
        ("simple_integration", "(9**9) ** 9 ** 9", False),
        ("simple_integration", "9**9**9**9", False),
        ("simple_integration", "x**(-9)**9", False),
        ("simple_integration", "2**99999999", False),
        ("polynomial_multiplication", "eval(x)", False),
        ("polynomial_multiplication", "x.y", True),
        ("polynomial_multiplication", "xsin", False),
        ("polynomial_multiplication", "\u212f", False),
        ("intermediate_integration", "'a'", False),
        ("chain_sum", "open('x')", True),
    ],
)
def test_what_an_executing_scorer_may_see(name: str, text: str, harmless: bool) -> None:
    assert verifier.is_harmless(name, text) is harmless


def test_countdown_and_puzzle24_have_our_own_scorer() -> None:
    answer = item("countdown", "3*2+1", numbers=[1, 2, 3], target=7)
    assert judge("<answer>3 * 2 + 1 = 7</answer>", answer).status == "correct"
    assert judge("<answer>3 + 3 + 1</answer>", answer).status == "wrong"
    puzzle = item("puzzle24", "x", numbers=[1, 2, 3, 4])
    assert judge("<answer>1*2*3*4</answer>", puzzle).parts == {"correct": 1.0, "format": 1.0, "score": 1.0}
    assert judge("<answer>6*4*1*1</answer>", puzzle).status == "wrong"  # its own scorer takes any four numbers


@pytest.mark.parametrize(
    ("name", "gold", "right", "wrong"),
    [
        (
            "coin_flip",
            "0.234375",
            ["0.234375", "15/64", ".2344", "0.2343"],
            ["0", "0.2", "0.23", "15/0", "1e9999999", "-0.234375", "."],
        ),
        ("coin_flip", "1", ["1", "1.0", "1."], ["10", "0", "11/10"]),
        ("spell_backward", "tac", ["tac", "TAC"], ["tac 1", "ta", "cat", "tacx"]),
        ("game_of_life_halting", "True", ["True", "true"], ["False", "yes", "x"]),
    ],
)
def test_what_its_scorers_would_accept(name: str, gold: str, right: list[str], wrong: list[str]) -> None:
    for text in right:
        assert judge(f"<answer>{text}</answer>", item(name, gold)).parts == {
            "correct": 1.0,
            "format": 1.0,
            "score": 1.0,
        }
    for text in wrong:
        assert judge(f"<answer>{text}</answer>", item(name, gold)).status == "wrong", text


def test_no_answer_and_no_item() -> None:
    answer = item("chain_sum", "7")
    assert judge("I do not know", answer).status == "unparsable"
    with pytest.raises(DataError, match="is not an item"):
        judge("<answer>7</answer>", "7")


def test_a_scorer_that_fails_on_its_own_reference_is_a_fault_of_the_data() -> None:
    class Broken:
        def score_answer(self, text: str, item: dict[str, object]) -> float:
            raise KeyError("metadata")

    class Strict:
        def score_answer(self, text: str, item: dict[str, object]) -> float:
            return float(int(text) == 7)

    assert verifier.score_by_dataset("x", Strict(), {"answer": "7"}, "7").status == "correct"
    assert verifier.score_by_dataset("x", Strict(), {"answer": "7"}, "seven").status == "unparsable"
    with pytest.raises(DataError, match="raises for its own reference answer"):
        verifier.score_by_dataset("x", Broken(), {"answer": "7"}, "7")


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(MachineError, match="pip install 'rlsp_async\\[reasoning-gym\\]'"):
        verifier.load(verifier.Config())


def test_a_data_set_is_made_in_advance(gym: None) -> None:
    verifier.load_dataset.cache_clear()
    verifier.load(verifier.Config(dataset="chain_sum"))
    assert verifier.load_dataset.cache_info().currsize == 1
