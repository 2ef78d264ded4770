"""The verifier `math` beside math-verify, on everything at hand: right, wrong accepted, right refused, by kind.

    python benchmarks/verifiers.py                              # what ships, and generated neighbours
    python benchmarks/verifiers.py --cases FILE --data DIR      # JSON lines of your own; *.jsonl with a field "answer"
    python benchmarks/verifiers.py --limit 0 --json out.json    # every distinct answer, and the figures as JSON
    python benchmarks/verifiers.py --speed-only                 # only the time of one answer

Three checkers judge the same texts: ours; math-verify alone, which gets the reference answer in a box and the whole
response; and math-verify behind our span finder. The texts are cases with the right verdict (`kind`, `gold`,
`response`, `expected` = correct or not-correct; those of other verifiers are judged by ours alone, in its killable
processes), everyday rewrites of reference answers, and generated neighbours, each with equal and different values. A
table cell is the share that is right, the wrong answers accepted (wa) and the right ones refused (rr). A checker that
raises accepts nothing.
The exit code is 1 when a kind of rewrite is below 99.5 % with ours.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import json
import logging
import multiprocessing
import random
import re
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from rlsp_async import config
from rlsp_async.errors import DataError
from rlsp_async.messages import VerifyItem, VerifyJob
from rlsp_async.verifying.base import load_verifier
from rlsp_async.verifying.extract import find_spans
from rlsp_async.verifying.math import verifier as math_verifier
from rlsp_async.verifying.math.literals import read_literal
from rlsp_async.verifying.pool import VerifierPool

HERE = Path(__file__).resolve().parent
SHIPPED = HERE.parent / "rlsp_async" / "data"
CASES = HERE / "verifier_cases.jsonl"
FILES = ("gsm8k_train", "gsm8k_test", "svamp", "math_answers", "competition_answers")
BAR = 0.995
CHECKERS = ("ours", "math-verify", "math-verify + spans")
NEIGHBOURS = 20
"""Generated values of each kind."""
SPEED_ROUNDS = 7
SPEED_ANSWERS = 200
_INTEGER = re.compile(r"-?\d+")
_FULL = str.maketrans("0123456789+-=(),.", "".join(chr(ord(c) + 0xFEE0) for c in "0123456789+-=(),."))
_VULGAR = {
    "1/2": "\u00bd",
    "1/3": "\u2153",
    "2/3": "\u2154",
    "1/4": "\u00bc",
    "3/4": "\u00be",
    "1/5": "\u2155",
    "1/8": "\u215b",
    "3/8": "\u215c",
    "5/8": "\u215d",
    "1/6": "\u2159",
    "5/6": "\u215a",
}
_FRAC = re.compile(r"\\[dt]?frac\{?(\d)\}?\{?(\d)\}?")


class Case(NamedTuple):
    """One response with the right verdict."""

    kind: str
    gold: str
    response: str
    is_right: bool
    weight: int = 1
    """How often its reference answer occurs."""
    verifier: str = "math"
    options: str = ""
    """Options of the verifier, as JSON."""


# --- everyday rewrites of reference answers ---------------------------------------------------------------------------


def _integers(rewrite: Callable[[str], str]) -> Callable[[str], str | None]:
    return lambda a: rewrite(a) if _INTEGER.fullmatch(a) else None


def _vulgar(a: str) -> str | None:
    match = _FRAC.fullmatch(a)
    return f"\\boxed{{{_VULGAR[f'{match[1]}/{match[2]}']}}}" if match and f"{match[1]}/{match[2]}" in _VULGAR else None


REWRITES: dict[str, Callable[[str], str | None]] = {
    "itself, boxed": lambda a: f"So we get \\boxed{{{a}}}.",
    "nested boxes": lambda a: f"$\\boxed{{\\boxed{{{a}}}}}$",
    "####": lambda a: f"Some work 1 + 1 = 2.\n#### {' '.join(a.split())}",
    "<answer>": lambda a: f"<think>\\boxed{{77}}</think> <answer>{a}</answer>",
    "sentence": lambda a: f"There are 3 of them, so the answer is ${a}$.",
    "bare LaTeX": lambda a: f"The answer is {' '.join(a.split())}.",
    "bold": lambda a: f"The final answer is **{' '.join(a.split())}**.",
    "blanks": lambda a: (
        "\\boxed{ " + a.replace(",", " , ").replace("+", " + ").replace("=", " = ") + " }"
        if not re.search(r"\d,|\{,\}|\$|,\\!", a)
        else None
    ),
    "full width": lambda a: f"The answer is {a.translate(_FULL)}" if re.fullmatch(r"[-\d.(), =]+", a) else None,
    "vulgar fraction": _vulgar,
    "minus sign": lambda a: f"\\boxed{{{a.replace('-', chr(0x2212))}}}" if "-" in a else None,
    "thousands": _integers(lambda a: f"\\boxed{{{int(a):,}}}"),
    "unit": _integers(lambda a: f"\\boxed{{{a} \\text{{ apples}}}}"),
    "currency": _integers(lambda a: f"The answer is ${int(a):,}.00."),
    "decimal": _integers(lambda a: f"\\boxed{{{a}.0}}"),
}
OTHER = "another answer of the file"


def rewritten(folder: Path, limit: int) -> Iterator[Case]:
    """Every distinct answer of the files in every rewrite, and against another answer of its file."""
    for path in sorted(p for name in FILES for p in folder.glob(f"{name}.jsonl*")):
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            counted = Counter(json.loads(line)["answer"] for line in file)
        golds = sorted(counted, key=lambda gold: (hash_of(gold), gold))[: limit or None]
        for i, gold in enumerate(golds):
            for style, rewrite in REWRITES.items():
                if (text := rewrite(gold)) is not None:
                    yield Case(f"rewrite: {style}", gold, text, True, counted[gold])
            if golds[i - 1] != gold:  # a file may have one answer only
                yield Case(f"rewrite: {OTHER}", gold, f"\\boxed{{{golds[i - 1]}}}", False, counted[gold])


def hash_of(text: str) -> int:
    """A fixed shuffle."""
    return sum((i + 7) * ord(c) * 2654435761 for i, c in enumerate(text)) % 1_000_003


# --- generated neighbours ---------------------------------------------------------------------------------------------


class Neighbours(NamedTuple):
    """A reference answer, texts that equal it, and texts that do not."""

    gold: str
    equal: list[str]
    different: list[str]


def _fraction(rng: random.Random) -> Neighbours:
    p, q = rng.randint(1, 40), rng.choice([4, 5, 8, 16, 20, 25])
    value = Fraction(p, q)
    decimal = f"{float(value):g}"
    return Neighbours(
        f"\\frac{{{p}}}{{{q}}}", [f"{p}/{q}", decimal, f"\\dfrac{{{3 * p}}}{{{3 * q}}}"], [f"{p}{q}", f"{p + 1}/{q}"]
    )


def _scientific(rng: random.Random) -> Neighbours:
    digits, power = rng.randint(11, 99), rng.randint(3, 9)
    mantissa = f"{digits / 10}"
    return Neighbours(
        f"{mantissa} \\times 10^{{{power}}}",
        [f"{mantissa}e{power}", f"{mantissa} \\cdot 10^{power}", str(digits * 10 ** (power - 1))],
        [mantissa, f"{mantissa}e-{power}", f"{mantissa} \\times 10^{{{power + 1}}}"],
    )


def _product(rng: random.Random) -> Neighbours:
    factor, letters = rng.randint(2, 30), rng.sample("abcghkmnprstuvwxy", 2)
    text = f"{factor}{letters[0]}{letters[1]}"
    return Neighbours(
        text,
        [f"{factor} \\cdot {letters[0]} \\cdot {letters[1]}", f"{factor}{letters[1]}{letters[0]}"],
        [str(factor), f"{factor}{letters[0]}", f"{factor + 1}{letters[0]}{letters[1]}"],
    )


def _sum(rng: random.Random) -> Neighbours:
    a, b, c = rng.randint(2, 9), rng.randint(1, 9), rng.randint(2, 5)
    return Neighbours(
        f"{a}x+{b}", [f"{b}+{a}x", f"{a} x + {b}"], [f"{a}x-{b}", f"{a}x+{b + c}", f"{a + c}x+{b}", f"{a + b}x"]
    )


def _pair(rng: random.Random) -> Neighbours:
    a, b = rng.sample(range(-9, 20), 2)
    return Neighbours(
        f"({a}, {b})",
        [f"({a},{b})", f"(x, y) = ({a}, {b})", f"\\left({a}, {b}\\right)"],
        [f"({b}, {a})", f"({a}, {b + 1})"],
    )


def _solutions(rng: random.Random) -> Neighbours:
    a, b = sorted(rng.sample(range(-9, 20), 2))
    return Neighbours(
        f"{a}, {b}", [f"{b}, {a}", f"x = {a} \\text{{ or }} x = {b}"], [f"[{a}, {b}]", f"{a}, {b}, {b + 1}", str(a)]
    )


def _interval(rng: random.Random) -> Neighbours:
    a, b = sorted(rng.sample(range(-9, 20), 2))
    return Neighbours(
        f"[{a}, {b})",
        [f"{a} \\le x < {b}", f"\\left[{a}, {b}\\right)"],
        [f"({a}, {b})", f"[{a}, {b}]", f"[{a}, {b + 1})"],
    )


def _named(rng: random.Random) -> Neighbours:
    value, name = rng.randint(2, 500), rng.choice(["x", "f(2)", "P(X=2)", "x_{\\max}", "\\angle ABC", "n"])
    return Neighbours(str(value), [f"{name} = {value}", f"{value}"], [f"{name} = {value + 1}", f"{value}{value}"])


def _unit(rng: random.Random) -> Neighbours:
    value, unit = rng.randint(2, 500), rng.choice(["cm", "\\text{ km}", "\\text{ hours}", "\\%"])
    return Neighbours(
        f"{value}{unit}", [f"{value}{unit}", f"{value}\\,{unit}"], [f"{value + 1}{unit}", f"{value}0{unit}"]
    )


def _root(rng: random.Random) -> Neighbours:
    a, b = rng.randint(2, 9), rng.choice([2, 3, 5, 6, 7, 10])
    return Neighbours(
        f"{a}\\sqrt{{{b}}}",
        [f"\\sqrt{{{a * a * b}}}", f"{a}\\cdot {b}^{{1/2}}"],
        [f"\\sqrt{{{a * b}}}", f"{a}", f"{a + 1}\\sqrt{{{b}}}"],
    )


def _large(rng: random.Random) -> Neighbours:
    value = rng.randint(10**4, 10**8)
    return Neighbours(
        str(value), [f"{value:,}", f"{value:,}".replace(",", "\\,"), f"{value}.0"], [f"{value + 1:,}", f"{value}e1"]
    )


GENERATED: dict[str, Callable[[random.Random], Neighbours]] = {
    "fractions": _fraction,
    "scientific notation": _scientific,
    "products of letters": _product,
    "sums": _sum,
    "pairs": _pair,
    "solutions": _solutions,
    "intervals": _interval,
    "names before a value": _named,
    "units": _unit,
    "roots": _root,
    "large numbers": _large,
}


def generated(seed: int, number: int) -> Iterator[Case]:
    """The neighbours of `number` values of each kind."""
    for kind, make in GENERATED.items():
        rng = random.Random(f"{seed} {kind}")
        for _ in range(number):
            made = make(rng)
            for texts, is_right in ((made.equal, True), (made.different, False)):
                yield from (Case(f"generated: {kind}", made.gold, f"$\\boxed{{{t}}}$", is_right) for t in texts)


def read_cases(path: Path) -> Iterator[Case]:
    """The cases of a file."""
    for line in path.read_text(encoding="utf-8").splitlines():
        row: dict[str, Any] = json.loads(line)
        verifier, options = row.get("verifier", "math"), row.get("options") or {}
        options = config.tables(options) if isinstance(options, list) else options  # as for `rlsp grade --option`
        kind = f"cases, {verifier}: {row['kind']}"
        options = json.dumps(options) if options else ""
        yield Case(kind, row["gold"], row["response"], row["expected"] == "correct", 1, verifier, options)


# --- the checkers -----------------------------------------------------------------------------------------------------


class Judged(NamedTuple):
    """What the checkers say of a case."""

    case: Case
    accepts: dict[str, bool]
    path: str
    """Which comparison of ours decided."""


def judge(case: Case) -> Judged:
    """Asks every checker about a case of the verifier `math`."""
    with _algebra_asked() as asked:
        ours = accepts_ours(case)
    spans = find_spans(case.response)
    behind = bool(spans.texts) and _verified(case.gold, f"\\boxed{{{spans.text}}}")
    accepts = dict(zip(CHECKERS, (ours, _verified(case.gold, case.response), behind), strict=True))
    return Judged(case, accepts, _path(case.gold, spans.text, bool(asked)))


def accepts_ours(case: Case) -> bool:
    """Whether `math` calls the response correct."""
    options = json.loads(case.options) if case.options else {}
    try:
        verdict = load_verifier("math", options).judge("", case.response, case.gold)
    except DataError:
        return False
    return verdict.status == "correct"


async def judge_in_pools(cases: list[Case]) -> list[Judged]:
    """Judges cases of other verifiers as a run does: in processes that may be killed."""
    by_verifier: dict[tuple[str, str], list[Case]] = defaultdict(list)
    for case in cases:
        by_verifier[case.verifier, case.options].append(case)
    judged: list[Judged] = []
    for (name, options), same in by_verifier.items():
        task = config.TaskConfig(verifier=name, verifier_options=json.loads(options or "{}"))
        cfg = config.RunConfig(name="benchmark", stages={"all": config.StageConfig()}, task=task)
        items = [VerifyItem(prompt="", response=case.response, answer=case.gold) for case in same]
        async with VerifierPool(cfg) as pool:
            done = await pool.verify(VerifyJob(group_id=0, task="benchmark", items=items))
        judged += [
            Judged(case, {"ours": verdict.status == "correct"}, "")
            for case, verdict in zip(same, done.verdicts, strict=True)
        ]
    return judged


def _verified(gold: str, response: str) -> bool:
    """math-verify with its own time-outs, which work in the main thread of a process."""
    from math_verify import parse, verify

    try:
        return bool(verify(parse(f"\\boxed{{{gold}}}"), parse(response)))
    except Exception:  # noqa: BLE001  a checker that raises accepts nothing
        return False


@contextlib.contextmanager
def _algebra_asked() -> Iterator[list[bool]]:
    """A list that is not empty once our verifier has asked math-verify."""
    asked: list[bool] = []
    known = math_verifier.compare_latex

    def note(gold: str, extracted: str) -> bool | None:
        asked.append(True)
        return known(gold, extracted)

    math_verifier.compare_latex = note
    try:
        yield asked
    finally:
        math_verifier.compare_latex = known


def _path(gold: str, extracted: str, by_algebra: bool) -> str:
    if not extracted:
        return "no answer found"
    if by_algebra:
        return "math-verify"
    if math_verifier.tidy_text(gold) == math_verifier.tidy_text(extracted):
        return "the same text"
    if all(read_literal(text) is not None for text in (gold, extracted)):
        return "numbers, read whole"
    return "named rules"


# --- figures ----------------------------------------------------------------------------------------------------------


class Figures(NamedTuple):
    """What one checker did on one kind."""

    right: int
    wrong_accepted: int
    right_refused: int

    @property
    def total(self) -> int:
        """Number of texts."""
        return sum(self)


def count(judged: list[Judged]) -> dict[str, dict[str, Figures]]:
    """Kind -> checker -> figures; the last kinds are the sums of what one checker and another can be compared on."""
    sums: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for one in judged:
        groups = [one.case.kind, f"all {one.case.kind.partition(':')[0]}"]
        for checker, accepted in one.accepts.items():
            right = accepted == one.case.is_right
            what = "right" if right else "wrong_accepted" if accepted else "right_refused"
            for kind in groups:
                sums[kind][checker][what] += one.case.weight
    return {
        kind: {name: Figures(c["right"], c["wrong_accepted"], c["right_refused"]) for name, c in checkers.items()}
        for kind, checkers in sorted(sums.items())
    }


def worse_than_peer(judged: list[Judged]) -> tuple[int, int]:
    """Distinct texts on which math-verify alone is right, and those of them on which ours is not."""
    compared = [one for one in judged if "math-verify" in one.accepts]
    peer = [one for one in compared if one.accepts["math-verify"] == one.case.is_right]
    return len(peer), sum(one.accepts["ours"] != one.case.is_right for one in peer)


def table(figures: dict[str, dict[str, Figures]]) -> str:
    """The figures as a table: right in per cent, wrong accepted and right refused as numbers."""
    lines = ["| kind | texts | " + " | ".join(CHECKERS) + " |", "| --- | --- | --- | --- | --- |"]
    for kind, checkers in figures.items():
        cells = []
        for name in CHECKERS:
            f = checkers.get(name)
            cells.append(
                "-" if f is None else f"{100 * f.right / f.total:.1f} %, {f.wrong_accepted} wa, {f.right_refused} rr"
            )
        lines.append(f"| {kind} | {checkers['ours'].total} | {' | '.join(cells)} |")
    return "\n".join(lines)


def speed(golds: list[str]) -> dict[str, dict[str, float]]:
    """Milliseconds of one answer by checker: median of the rounds, least and greatest; the checkers take turns."""
    texts = [(gold, f"So we get \\boxed{{{gold}}} after all.") for gold in golds]
    times: dict[str, list[float]] = {"ours": [], "math-verify": []}
    ours = load_verifier("math")
    for number in range(SPEED_ROUNDS + 1):
        for name in times:
            start = time.perf_counter()
            for gold, text in texts:
                if name == "ours":
                    ours.judge("", text, gold)
                else:
                    _verified(gold, text)
            if number:  # the first round fills caches
                times[name].append((time.perf_counter() - start) / len(texts) * 1e3)
    return {n: {"median": statistics.median(t), "least": min(t), "greatest": max(t)} for n, t in times.items()}


def _speed_lines(measured: dict[str, dict[str, float]]) -> Iterator[str]:
    for name, t in measured.items():
        yield f"{name}: {t['median']:.4f} ms an answer ({t['least']:.4f}-{t['greatest']:.4f})"
    yield f"ours is {measured['math-verify']['median'] / measured['ours']['median']:.1f} times as fast"


def main() -> int:
    """Judges, prints the table, and writes the JSON file."""
    args = _arguments()
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    result: dict[str, Any] = {}
    if not args.speed_only:
        cases = [*read_cases(Path(args.cases)), *rewritten(Path(args.data), args.limit)]
        cases += generated(args.seed, args.neighbours)
        with multiprocessing.Pool(args.workers) as pool:
            judged = list(pool.imap(judge, [case for case in cases if case.verifier == "math"], chunksize=20))
        judged += asyncio.run(judge_in_pools([case for case in cases if case.verifier != "math"]))
        figures = count(judged)
        paths = Counter(one.path for one in judged if one.path)
        peer, worse = worse_than_peer(judged)
        print(table(figures))
        print(f"\nmath-verify alone is right on {peer} texts; ours is not on {worse} of them")
        for path, number in paths.most_common():
            print(f"decided by {path}: {100 * number / paths.total():.1f} % of {paths.total()} texts")
        faults = [one for one in judged if one.accepts["ours"] != one.case.is_right]
        print(f"\n{len(faults)} faults of ours", *(_fault(one) for one in faults[: args.show]), sep="\n  ")
        result = {
            "kinds": {kind: {n: f._asdict() for n, f in checkers.items()} for kind, checkers in figures.items()},
            "paths": dict(paths),
            "peer_right": peer,
            "peer_right_ours_not": worse,
        }
    golds = [str((i * 7919) % 10_007) for i in range(SPEED_ANSWERS)]
    result["speed_ms"] = speed(golds)
    print("\nspeed, integers in a box, in one process:", *_speed_lines(result["speed_ms"]), sep="\n  ")
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    rewrites = [c["ours"] for kind, c in result.get("kinds", {}).items() if kind.startswith("rewrite: ")]
    return int(any(f["right"] < BAR * sum(f.values()) for f in rewrites))


def _fault(one: Judged) -> str:
    return f"{one.case.kind}: gold {one.case.gold!r} response {one.case.response[:120]!r} right: {one.case.is_right}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=str(CASES), help="JSON lines of cases with the right verdict")
    parser.add_argument("--data", default=str(SHIPPED), help="directory of the answer files")
    parser.add_argument("--limit", type=int, default=100, help="distinct answers of each file; 0: all (default: 100)")
    parser.add_argument("--neighbours", type=int, default=NEIGHBOURS, help="generated values of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--show", type=int, default=40, help="faults of ours to list")
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("--speed-only", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
