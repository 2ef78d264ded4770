"""Algorithms: what turns a batch of rollouts into advantages and a loss. Pure: tensors in, tensors out.

    base.py          what an algorithm is: config, columns in, columns out; loading one by name
    maths.py         maths that algorithms share, and `check_shapes`
    corrections.py   what an off-policy token counts: reject, mask and weight, in front of any loss
    stats.py         stats of an update, which micro-batches add up to
    baselines.py     what is subtracted from a reward, and the order of rollouts within a group

One module for each algorithm; `docs/algorithms.md` compares them:

    sft.py           cross-entropy on demonstrations
    filtered.py      cross-entropy on rollouts that worked (expert iteration, B-STaR)
    ppo.py           PPO with a critic, as RLSP uses it; decoupled PPO, V-trace
    rlsp_streams.py  PPO with two critics, one for each term of RLSP's reward
    reinforce.py     REINFORCE with a group's baseline; with corrections: AIPO, M2PO, DPPO, VCPO
    reinforce_pp.py  REINFORCE++: PPO's clip without a critic
    rloo.py          REINFORCE with a leave-one-out baseline
    t1.py            RLOO with KL in the reward and an entropy bonus
    grpo.py          GRPO, DAPO, Dr. GRPO, ARPO
    gspo.py          ratio and clip of the whole rollout
    cispo.py         a clipped weight that is held fixed
    topr.py          likelihood for positives, a truncated ratio for negatives
    oapl.py          regression of the log-ratio on the optimal advantage
    rover.py         the log-ratio as action value of the uniform policy
    dpo.py           pairs of a group's best and worst rollouts
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    """Imports a module of this folder when it is first used: `rlsp_async.algos.grpo.token_loss(...)`.

    `ops` is another name of `maths`, which algorithms of users import.
    """
    module = f"{__name__}.{'maths' if name == 'ops' else name}"
    if name.startswith("_") or importlib.util.find_spec(module) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(module)
