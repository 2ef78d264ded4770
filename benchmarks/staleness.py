"""Off-policy reuse: which loss survives training 16 times on a batch that is already stale?

    python benchmarks/staleness.py --smoke --model runs/ops_cpu/stages/sft
    python benchmarks/staleness.py --arms reinforce,grpo,topr,cispo --seeds 3 --model runs/ops_cpu/stages/sft

Every arm is a whole run of the line (`launch/configs/ops_offpolicy.toml`: hub, sampler, verifier, learner) from the
same SFT checkpoint with the same number of rollouts; only the loss differs. `--smoke` runs naive REINFORCE (must
collapse) against clipped GRPO (must not) with one seed and exits 1 when theory and measurement disagree.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "launch" / "configs" / "ops_offpolicy.toml"
ARMS = {
    "reinforce": ("reinforce", ""), "rloo": ("rloo", ""), "ppo": ("ppo", "rlsp_cpu"), "grpo": ("grpo", ""),
    "grpo_dapo": ("grpo", "dapo"), "gspo": ("gspo", "paper"), "cispo": ("cispo", "paper"), "topr": ("topr", "paper"),
    "rover": ("rover", "paper"), "m2po": ("reinforce", "m2po_released"), "aipo": ("reinforce", "aipo")}
"""Name of an arm -> algorithm and preset."""
SMOKE = ("reinforce", "grpo")
COLLAPSED = 0.20
"""Below this share of solved held-out problems (the SFT checkpoint solves about .4) an arm has collapsed."""


def main() -> int:
    args = _arguments()
    rows: list[dict[str, object]] = []
    for seed in range(args.seeds):
        for arm in args.arms:
            rows.append(_run_arm(arm, seed, args))
            (args.out / "staleness.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(_table(rows))
    return _judge(rows) if args.smoke else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "runs" / "ops_cpu" / "stages" / "sft",
                        help="Hugging Face directory that every arm starts from")
    parser.add_argument("--smoke", action="store_true", help="exit 1 unless REINFORCE collapses and GRPO does not")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each arm")
    parser.add_argument("--steps", type=int, default=6, help="batches of 256 rollouts")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "staleness", help="where the runs go")
    parser.add_argument("--arms", default="", help=f"comma separated, of {', '.join(ARMS)} (default: all; with --smoke "
                                                   f"{', '.join(SMOKE)})")
    args = parser.parse_args()
    args.arms = args.arms.split(",") if args.arms else list(SMOKE if args.smoke else ARMS)
    if unknown := [arm for arm in args.arms if arm not in ARMS]:
        parser.error(f"--arms: no arm {', '.join(unknown)}; there are {', '.join(ARMS)}")
    if not (args.model / "config.json").is_file():
        parser.error(f"{args.model}: no model there; run ./launch/local.sh first, it leaves one after its SFT stage")
    args.out = args.out / time.strftime("%Y%m%d-%H%M%S")
    args.out.mkdir(parents=True)
    return args


def _run_arm(arm: str, seed: int, args: argparse.Namespace) -> dict[str, object]:
    name = f"{arm}-{seed}"
    command = [sys.executable, "-m", "rlsp_async.cli", "run", str(CONFIG), f"name={name}", f"seed={seed}",
               f"runs_dir={args.out}", f"model.path={args.model.resolve()}", f"stages.rl.steps={args.steps}",
               f"stages.rl.algorithm.name={ARMS[arm][0]}", f"stages.rl.algorithm.preset={ARMS[arm][1]}"]
    print(f"-- {name}", flush=True)
    subprocess.run(command, check=True, cwd=ROOT)
    report = json.loads((args.out / name / "report.json").read_text())
    before, after = (evaluation["figures"] for evaluation in report["evaluations"])
    return {"arm": arm, "seed": seed, "rollouts": args.steps * 256, "before": before["pass_at_1"]["mean"],
            "pass_at_1": after["pass_at_1"]["mean"], "low": after["pass_at_1"]["low"],
            "high": after["pass_at_1"]["high"], "length": after["response_tokens"]["mean"]}


def _table(rows: list[dict[str, object]]) -> str:
    lines = ["arm          seed  rollouts  pass@1 before  after (95 % interval)   length"]
    lines += [f"{r['arm']:<12} {r['seed']:>4}  {r['rollouts']:>8}  {r['before']:>13.3f}  {r['pass_at_1']:.3f} "
              f"({r['low']:.3f}..{r['high']:.3f})    {r['length']:>6.1f}" for r in rows]
    return "\n".join(lines)


def _judge(rows: list[dict[str, object]]) -> int:
    solved = {str(r["arm"]): float(str(r["pass_at_1"])) for r in rows}
    ok = solved["reinforce"] < COLLAPSED < solved["grpo"]
    print("as theory says: naive REINFORCE collapsed, clipped GRPO did not" if ok
          else f"NOT as theory says: reinforce {solved['reinforce']:.3f}, grpo {solved['grpo']:.3f}, bar {COLLAPSED}")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
