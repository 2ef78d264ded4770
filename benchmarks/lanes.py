"""Verdicts a second of the pool's lanes, beside math-verify called in the same process and in a fresh one.

    python benchmarks/lanes.py --repeats 5
    python benchmarks/lanes.py --answers 300 --repeats 1      a quick look

Every arm judges the same answers: those of GSM8K, each in a response of about 600 characters, every second one wrong.
There is one checker process and one interpreter, so a rate is that of one core. Arms take turns; figures are medians
(lowest-highest).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rlsp_async import config  # noqa: E402
from rlsp_async.messages import VerifyItem, VerifyJob  # noqa: E402
from rlsp_async.tasks.base import load_task  # noqa: E402
from rlsp_async.verifying.pool import VerifierPool  # noqa: E402

Pairs = list[tuple[str, str]]
ISOLATED = 'from rlsp_async.verifying.math import VERSION, score\nLANE = "isolated"\n'
FRESH = (
    "import json, sys; from math_verify import parse, verify; gold, text = json.load(sys.stdin); "
    "print(verify(parse(gold), parse(text)))"
)
GROUP = 16


def main() -> int:
    args = _arguments()
    pairs = _answers(args.answers)
    arms: dict[str, Callable[[], float]] = {
        "fast lane": lambda: _pool("math", pairs),
        "math-verify in the process": lambda: _in_process(pairs),
        "isolated lane": lambda: _isolated(pairs[: max(50, args.answers // 10)]),
        "math-verify, a fresh process each": lambda: _fresh(pairs[: args.fresh]),
    }
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for repeat in range(args.repeats):
        for name, arm in arms.items():
            rates[name].append(arm())
            print(f"repeat {repeat + 1}: {name}: {rates[name][-1]:.0f} a second", file=sys.stderr, flush=True)
    _print(rates)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--answers", type=int, default=2000, help="answers of the fast lane; the isolated lane judges a tenth"
    )
    parser.add_argument("--fresh", type=int, default=10, help="number of answers that get a process each")
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args()


def _answers(num: int) -> Pairs:
    """(reference answer, response)."""
    task = load_task(config.TaskConfig(name="gsm8k"), seed=0)
    golds = [task.prompt("train", i).answer for i in range(num)]
    filler = "We add what we know step by step and keep the total in mind. " * 9
    return [
        (gold, f"{filler}So it is \\boxed{{{gold if i % 2 else golds[i - 1] + '1'}}}.") for i, gold in enumerate(golds)
    ]


def _pool(verifier: str, pairs: Pairs) -> float:
    return asyncio.run(_judge(verifier, pairs))


async def _judge(verifier: str, pairs: Pairs) -> float:
    """Verdicts a second of a pool that has started."""
    cfg = config.RunConfig(
        name="lanes",
        stages={"s": config.StageConfig()},
        task=config.TaskConfig(verifier=verifier),
        verifier=config.VerifierConfig(processes=1),
    )
    items = [VerifyItem(prompt="", response=response, answer=gold) for gold, response in pairs]
    jobs = [VerifyJob(group_id=at, task="gsm8k", items=items[at : at + GROUP]) for at in range(0, len(items), GROUP)]
    async with VerifierPool(cfg) as pool:
        await pool.verify(jobs[0])
        start = time.perf_counter()
        results = await asyncio.gather(*(pool.verify(job) for job in jobs))
        seconds = time.perf_counter() - start
    right = sum(verdict.status == "correct" for result in results for verdict in result.verdicts)
    assert abs(right - len(pairs) / 2) < len(pairs) / 20, f"{right} of {len(pairs)} are correct"
    return len(pairs) / seconds


def _isolated(pairs: Pairs) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "isolated_math.py"
        path.write_text(ISOLATED)
        return _pool(str(path), pairs)


def _in_process(pairs: Pairs) -> float:
    from math_verify import parse, verify

    verify(parse("1"), parse("1"))
    start = time.perf_counter()
    for gold, response in pairs:
        verify(parse(f"\\boxed{{{gold}}}"), parse(response))
    return len(pairs) / (time.perf_counter() - start)


def _fresh(pairs: Pairs) -> float:
    start = time.perf_counter()
    for gold, response in pairs:
        subprocess.run(
            [sys.executable, "-c", FRESH],
            input=json.dumps([f"\\boxed{{{gold}}}", response]),
            text=True,
            capture_output=True,
            check=True,
            timeout=60,
        )
    return len(pairs) / (time.perf_counter() - start)


def _print(rates: dict[str, list[float]]) -> None:
    middle = {name: statistics.median(values) for name, values in rates.items()}
    print("| arm | verdicts a second and core | ratio |\n| --- | --- | --- |")
    for name, peer in (
        ("fast lane", "math-verify in the process"),
        ("isolated lane", "math-verify, a fresh process each"),
    ):
        for one in (name, peer):
            ratio = f"{middle[name] / middle[peer]:.2f}" if one == name else "1"
            print(f"| {one} | {middle[one]:,.1f} ({min(rates[one]):,.1f}-{max(rates[one]):,.1f}) | {ratio} |")


if __name__ == "__main__":
    sys.exit(main())
