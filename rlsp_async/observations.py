"""Which tokens of a rollout the policy sampled, and which it was only shown: the one rule for every reader.

    token_ids   the tool said: [ 4 6 ]         prompt + 3 sampled, 2 observed, 2 sampled
    versions    41 41 41       -1 -1   42 42
    turns       0                      5       offsets at which a sampled turn begins

An observation is what an environment said: its tokens stand in the columns, because the policy read them, with version
-1 and log-prob 0. They are context. No loss, share, length, mean, lag or count of tokens takes them in. A rollout
without `turns` is one turn, and all its tokens count: those of a plain rollout were sampled, those of a demonstration
were written by somebody who is imitated. In a demonstration with turns, tokens to imitate have version 0.

Shapes: T tokens of a rollout behind its prompt, S of them that count.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from rlsp_async.columns import Floats, Ids, floats, ints, num_values
from rlsp_async.messages import Rollout, RolloutGroup

Bools = npt.NDArray[np.bool_]
OBSERVED = -1
"""Version of a token that an environment said."""


def sampled_tokens(rollout: Rollout) -> Bools:
    """[T] whether each token counts: the policy sampled it, or a demonstration is imitated in it."""
    if not rollout.turns:
        return np.ones(num_values(rollout.token_ids), dtype=np.bool_)
    is_sampled: Bools = ints(rollout.versions) != OBSERVED
    return is_sampled


def num_sampled(rollout: Rollout) -> int:
    """Number of tokens that count, S."""
    return int(np.count_nonzero(sampled_tokens(rollout))) if rollout.turns else num_values(rollout.token_ids)


def sampled_ids(rollout: Rollout) -> Ids:
    """[S] ids of the tokens that count."""
    ids = ints(rollout.token_ids)
    return ids[sampled_tokens(rollout)] if rollout.turns else ids


def sampled_versions(rollout: Rollout) -> Ids:
    """[S] versions of the tokens that count."""
    versions = ints(rollout.versions)
    return versions[versions != OBSERVED] if rollout.turns else versions


def sampled_logprobs(rollout: Rollout) -> Floats:
    """[S] behaviour log-probs of the tokens that count."""
    logprobs = floats(rollout.logprobs)
    return logprobs[sampled_tokens(rollout)] if rollout.turns else logprobs


def joined_versions(rollouts: Iterable[Rollout]) -> Ids:
    """Versions of the tokens that count of several rollouts, one after the other; there may be none."""
    return np.concatenate([np.zeros(0, np.int32), *map(sampled_versions, rollouts)])


def joined_logprobs(rollouts: Iterable[Rollout]) -> Floats:
    """Behaviour log-probs of the tokens that count of several rollouts, one after the other; there may be none."""
    return np.concatenate([np.zeros(0, np.float32), *map(sampled_logprobs, rollouts)])


def num_turns(rollout: Rollout) -> int:
    """Number of sampled turns; 1 for a rollout without `turns`."""
    return num_values(rollout.turns) or 1


def has_observations(group: RolloutGroup) -> bool:
    """Whether a rollout of the group may hold tokens that do not count."""
    return any(rollout.turns for rollout in group.rollouts)
