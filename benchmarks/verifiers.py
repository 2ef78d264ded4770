"""How often the verifier `math` is right on everyday rewrites of reference answers, beside math-verify alone.

    python benchmarks/verifiers.py ../shared/data    # *.jsonl with a field "answer"; default: the GSM8K shipped
    python benchmarks/verifiers.py DIR --limit 500 --no-peer --show 40

Every distinct answer is judged once and counted as often as it occurs. "other" is the answer compared with a different
one of the same file, which must be wrong. The exit code is 1 when a kind of rewrite is below 99.5 %.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

from rlsp_async.errors import DataError
from rlsp_async.verifying.math import score

SHIPPED = Path(__file__).resolve().parent.parent / "rlsp_async" / "data"
FILES = ("gsm8k_train", "gsm8k_test", "svamp", "math_answers", "competition_answers")
BAR = 0.995
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


def main() -> int:
    args = _arguments()
    answers = _answers(Path(args.data), args.limit)
    names = ["ours"] + ([] if args.no_peer else ["math-verify"])
    counts: dict[tuple[str, str], Counter[bool]] = defaultdict(Counter)
    faults: list[str] = []
    seconds: Counter[str] = Counter()
    with multiprocessing.Pool(args.workers) as pool:
        for name in names:
            jobs = [(name, gold, other, number) for gold, other, number in answers]
            for rows, taken in pool.imap_unordered(_judge, jobs, chunksize=20):
                seconds[name] += taken
                for style, gold, text, right, number in rows:
                    counts[style, name][right] += number
                    if not right and name == "ours":
                        faults.append(f"{style}: gold {gold!r} response {text!r}")
    print(_table(counts, names, seconds))
    print(f"\n{len(faults)} exceptions", *faults[: args.show], sep="\n  ")
    return int(any(_share(counts[style, "ours"]) < BAR for style in (*REWRITES, "other") if counts[style, "ours"]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default=str(SHIPPED), help="directory of the answer files")
    parser.add_argument("--limit", type=int, default=0, help="distinct answers of each file; 0: all")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--no-peer", action="store_true", help="leave math-verify alone out")
    parser.add_argument("--show", type=int, default=200, help="exceptions to list")
    return parser.parse_args()


def _answers(folder: Path, limit: int) -> list[tuple[str, str, int]]:
    """(gold, a different gold of the same file, how often it occurs)."""
    rows: list[tuple[str, str, int]] = []
    for path in sorted(p for name in FILES for p in folder.glob(f"{name}.jsonl*")):
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            counted = Counter(json.loads(line)["answer"] for line in file)
        golds = sorted(counted, key=lambda gold: (hash_of(gold), gold))[: limit or None]
        rows += [(gold, golds[i - 1], counted[gold]) for i, gold in enumerate(golds)]
    return rows


def hash_of(text: str) -> int:
    """A fixed shuffle."""
    return sum((i + 7) * ord(c) * 2654435761 for i, c in enumerate(text)) % 1_000_003


def _judge(job: tuple[str, str, str, int]) -> tuple[list[tuple[str, str, str, bool, int]], float]:
    name, gold, other, number = job
    verdict = {"ours": _ours, "math-verify": _peer}[name]
    rows, start = [], time.perf_counter()
    for style, rewrite in REWRITES.items():
        text = rewrite(gold)
        if text is not None:
            rows.append((style, gold, text, verdict(gold, text), number))
    rows.append(("other", gold, other, not verdict(gold, f"\\boxed{{{other}}}"), number))
    return rows, time.perf_counter() - start


def _ours(gold: str, text: str) -> bool:
    try:
        return score("", text, gold).status == "correct"
    except DataError:
        return False


def _peer(gold: str, text: str) -> bool:
    from math_verify import parse, verify

    return bool(verify(parse(f"\\boxed{{{gold}}}"), parse(text)))


def _share(count: Counter[bool]) -> float:
    return count[True] / max(1, count.total())


def _table(counts: dict[tuple[str, str], Counter[bool]], names: list[str], seconds: Counter[str]) -> str:
    lines = [
        f"| {'rewrite':16} | answers | " + " | ".join(f"{name:>11}" for name in names) + " |",
        "| --- | --- |" + " --- |" * len(names),
    ]
    for style in (*REWRITES, "other"):
        shares = " | ".join(f"{100 * _share(counts[style, name]):>10.2f}%" for name in names)
        lines.append(f"| {style:16} | {counts[style, names[0]].total():>7} | {shares} |")
    lines.append("seconds: " + ", ".join(f"{name} {seconds[name]:.1f}" for name in names))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
