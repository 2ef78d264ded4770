"""One update of every algorithm, by one process or by one of several ranks.

    python -m tests.learning.ranked MODEL_DIR DIRECTORY SIZE:CASE,CASE ...

writes DIRECTORY/SIZE.safetensors for each SIZE. The ranks are forks of one process, which has imported torch once.
CASE@OTHER is a case with the model of another directory.

What is recorded: AdamW's first moment after the first update, which is a tenth of the gradient; parameters that Muon
trains, as they are after it; and the metrics of the step.
"""

import json
import os
import sys
import traceback
from datetime import timedelta
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import distributed as dist

from rlsp_async import config
from rlsp_async.algos.base import ALGORITHMS, Terms, load_algorithm, names
from rlsp_async.learning import optim, rows, update
from rlsp_async.learning.lora import add_adapters
from rlsp_async.learning.policy import Policy, load_model
from rlsp_async.learning.ranks import Ranks
from tests.learning.small import job

CASES = {
    **{name: (name, "", {}, {}) for name in names()},
    "t1 with a bonus": ("t1", "cpu", {}, {}),
    "ppo with a separate critic": ("ppo", "", {"critic": "separate"}, {}),
    "ppo with a detached head": ("ppo", "", {"critic": "head_detached"}, {}),
    "muon": ("sft", "", {}, {"name": "muon", "muon_lr": 1e-2}),
    "clipped": ("grpo", "", {}, {"clip_norm": 1e-3}),
    "adapters": ("dpo", "", {}, {"lora": 4}),
    "four updates": ("ppo", "", {"critic": "separate"}, {"minibatches": 2, "epochs": 2, "lr": 1e-6}),
}


def record(model_dir, case, ranks=None):
    """Tensors of one step; the metrics are its tensor `metrics`, with their names in its key."""
    ranks = ranks or Ranks.single()
    case, _, other = case.partition("@")
    model_dir = other or model_dir
    name, preset, options, changes = CASES[case]
    asked = dict.fromkeys(getattr(ALGORITHMS.find(name), "ASKED", {}).get(preset, ()), 0.01)
    algorithm, cfg = load_algorithm(config.AlgorithmChoice(name=name, preset=preset, options={**asked, **options}))
    build = lambda: load_model(model_dir)  # noqa: E731
    model, changes = build(), dict(changes)
    if num := changes.pop("lora", 0):
        add_adapters(model, config.LoraConfig(rank=num), 3, "test")
    policy = Policy(model).shard(ranks, build)
    needed = "reference" in algorithm.needs(cfg)
    reference = average = None
    if needed and policy.adapters:
        reference = policy.holding({n: torch.full_like(p, 0.1) for n, p in policy.adapters.items()})
    elif needed:
        reference = policy.copy().requires_grad_(False)
        average = optim.PolicyAverage(reference, 0.5)
    policy.add_critic(cfg.critic, cfg.num_values())
    epochs, minibatches = changes.pop("epochs", 1), changes.pop("minibatches", 1)
    settings = config.OptimizerConfig(**{"lr": 1e-3, "clip_norm": 0.0, **changes})
    updater = optim.Updater(settings, policy, 0.0, 8)
    context = update.UpdateContext(algorithm, cfg, policy, updater, reference)
    data = rows.read_rows(job(1, "rl", 1).batch)
    correct = torch.from_numpy(data.parts["correct"]).float()
    terms = Terms(correct, torch.from_numpy(data.parts["search_steps"]).float() / 10, 0.8)
    schedule = update.UpdateSchedule(epochs, minibatches, 40, 1.0, (0, 1), where="stage 'rl', step 1")
    metrics = update.train_batch(context, data.sequences, correct + 0.3 * terms.explore_B, schedule, terms)
    if average is not None:
        average.follow(policy)
    return {**moments(policy, updater, average), f"metrics {json.dumps(sorted(metrics))}": figures(metrics)}


def figures(metrics):
    return torch.tensor([metrics[key] for key in sorted(metrics)], dtype=torch.float64)


def moments(policy, updater, average):
    """Whole tensors, on every rank."""
    shapes = {n: p.shape for n, p in (*policy.policy_parameters(), *policy.critic_parameters())}
    found = {}
    for key, tensor in updater.state().items():
        kind, field, name = key.split("/", 2)
        if field in ("exp_avg", "momentum_buffer"):
            whole = policy.ranks.whole(tensor, shapes[name][0]) if updater.is_sharded(name) else tensor
            found[f"{kind}/{field}/{name}"] = whole
    muon = set(updater.names("muon"))
    found |= {f"weights/{n}": p.clone() for n, p in policy.whole_parameters() if n in muon}
    if average is not None:
        for n, tensor in average.state().items():
            found[f"average/{n}"] = policy.ranks.whole(tensor, shapes[n][0])
    return found


def compute(model_dir, directory, rank, size, cases):
    """What one rank does."""
    bound = timedelta(seconds=100)
    store = dist.FileStore(str(directory / f"{size}.store"), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=bound)
    ranks, found = Ranks(rank, size), {}
    for case in cases:
        found |= {f"{case}|{name}": tensor.contiguous() for name, tensor in record(model_dir, case, ranks).items()}
    if ranks.is_first:
        save_file(found, directory / f"{size}.safetensors")


def attempt(*arguments):
    """Ends this process, as a rank: with exit code 1 and a traceback if it could not."""
    code = 1
    try:
        compute(*arguments)
        code = 0
    finally:
        if code:
            traceback.print_exc()
        os._exit(code)


def main():
    model_dir, directory, *asked = sys.argv[1:]
    torch.set_num_threads(1)
    children = []
    for size, cases in (text.split(":") for text in asked):
        for rank in range(int(size)):
            children.append(os.fork())
            if not children[-1]:
                attempt(Path(model_dir), Path(directory), rank, int(size), cases.split(","))
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children))


if __name__ == "__main__":
    main()
