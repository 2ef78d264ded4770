"""A learner of several ranks, each a fork of this process, on the jobs of `small.jobs`.

    python -m tests.learning.ranked_learner MODEL_DIR RUN_DIR SIZE FIRST LAST [ORDERS_TO_DIE]

Rank 0 trains steps FIRST to LAST and stops in good order; with ORDERS_TO_DIE rank 1 kills itself in the middle of the
order of that number, and rank 0 fails. Exit code 0: all ranks ended in good order.
"""

import os
import signal
import sys
import traceback
from datetime import timedelta
from pathlib import Path

import msgspec
import torch
from torch import distributed as dist

from rlsp_async.learning import update
from rlsp_async.learning.learner import Learner, Order
from rlsp_async.learning.ranks import Ranks
from tests.learning.small import Shelf, jobs, run_config


def lead(learner, first, last):
    for job in jobs():
        if first <= job.batch.step <= last:
            learner.train(job)
    learner.on_stop()


def die_in(learner, orders):
    """Has this process killed by SIGKILL in the update of the order of this number."""
    original, count = update.accumulate_gradients, 0

    def accumulate(*arguments):
        nonlocal count
        count += 1
        if count == orders:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)

    update.accumulate_gradients = accumulate


def obey(learner, ranks):
    while (order := msgspec.msgpack.decode(ranks.broadcast_bytes(), type=Order)).kind != "stop":
        learner.obey(order)
    learner.settle()


def one(model_dir, run_dir, rank, size, first, last, orders_to_die):
    store = dist.FileStore(f"{run_dir}.{first}.store", size)
    bound = timedelta(seconds=100)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=bound)
    aside = dist.new_group(backend="gloo", timeout=bound)
    ranks = Ranks(rank, size, aside=Ranks(rank, size, orders=aside, group=aside))
    cfg = run_config(run_dir.parent)
    cfg = msgspec.structs.replace(cfg, learner=msgspec.structs.replace(cfg.learner, ranks=size, other_ranks=True))
    learner = Learner(cfg, model_dir, run_dir, Shelf(), ranks=ranks, claims=rank == 0)
    if rank == 1 and orders_to_die:
        die_in(learner, orders_to_die)
    if rank == 0:
        lead(learner, first, last)
    else:
        obey(learner, ranks)


def main():
    model_dir, run_dir, *numbers = sys.argv[1:]
    size, first, last, orders_to_die = (*map(int, numbers), 0)[:4]
    torch.set_num_threads(1)
    children = []
    for rank in range(size):
        children.append(os.fork())
        if not children[-1]:
            code = 1
            try:
                one(Path(model_dir), Path(run_dir), rank, size, first, last, orders_to_die)
                code = 0
            finally:
                if code:
                    traceback.print_exc()
                os._exit(code)
    sys.exit(max(abs(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])) for pid in children))


if __name__ == "__main__":
    main()
