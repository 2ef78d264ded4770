"""What an algorithm is: a module with `Config`, `PRESETS`, `NEEDS`, `needs`, `advantages` and `token_loss`.

No class, no registry, no list: `[stages.NAME.algorithm] name = "grpo"` names `rlsp_async.algos.grpo`, or a dotted
module of your own. A new one is one file here and `tests/algos/test_NAME.py`; `tests/algos/test_contract.py` finds it
and runs the same laws on it. It promises by default that on rollouts of the present policy its gradient is REINFORCE's;
a module for which that is not so says `ON_POLICY`: a factor, or None for what is no policy gradient.

Shapes: B rollouts of a batch, N their response tokens end to end, R response tokens of one micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast

import msgspec
from torch import Tensor

from rlsp_async import config
from rlsp_async.algos.corrections import CorrectionsConfig
from rlsp_async.algos.watch import Stats as Stats
from rlsp_async.errors import ConfigError
from rlsp_async.plugins import PluginFamily, nearest_name

ALGORITHMS = PluginFamily(
    noun="algorithm",
    package="rlsp_async.algos",
    setting="algorithm.name",
    options="algorithm.options",
    needs=("Config", "PRESETS", "NEEDS", "needs", "advantages", "token_loss"),
)
_CARRIED = {"behaviour": "the policy that sampled", "step": "the policy at the beginning of the step"}
Carried = Literal["nothing", "step", "behaviour"]
"""Which ratio a loss carries itself: none, present over beginning of the step, or one over the policy that sampled."""


class AlgorithmConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every algorithm's Config: what the learner itself reads."""

    aggregation: Literal["token_mean", "seq_mean", "seq_sum", "horizon"] = "token_mean"
    """Mean over all tokens of an update, or over rollouts of their token means, sums, or sums / horizon_tokens."""
    horizon_tokens: int = 0
    """Constant by which "horizon" divides a rollout's sum; above 0 there."""
    critic: Literal["none", "head", "head_detached", "separate"] = "none"
    """Value function: none, on the policy's trunk, there without gradient into it, or a model of its own."""
    critic_lr: float = 0.0
    """Learning rate of the critic's parameters; 0: the optimizer's lr."""
    critic_warmup_steps: int = 0
    """First steps of the stage in which only the critic learns."""
    reward_form: Literal["eq1", "released"] = "eq1"
    """RLSP's Eq. 1, or what the released reward server computes (rewards/compose.py)."""
    normalize_reward: bool = False
    """Rewards of a batch to mean 0, standard deviation 1, then clipped."""
    reference_ema: float = 0.0
    """Share of the policy that the reference takes over after each step; 0: it stays as the stage began."""
    corrections: CorrectionsConfig = CorrectionsConfig()
    """Rejection, mask and weight by the ratio to the policy that sampled."""

    def carries(self) -> Carried:
        """Which ratio the loss of these options multiplies by."""
        return "nothing"

    def is_held(self) -> bool:
        """Whether anything minds what the policy that sampled has become: a ratio to it in the loss, a correction."""
        stages = self.corrections
        return self.carries() == "behaviour" or bool({stages.reject, stages.mask, stages.weight} - {"none"})

    def scored_at(self) -> float:
        """Temperature of the policy that is trained; 0: of each rollout the one that drew it, as every ratio needs."""
        return 0.0

    def num_values(self) -> int:
        """Heads of the value function, where there is one."""
        return 1

    def first_values(self, reward_B: Tensor, terms: Terms | None) -> tuple[float, ...]:
        """Where each head of a critic that has learned nothing yet begins."""
        return (float(reward_B.mean()),)

    def __post_init__(self) -> None:
        if self.aggregation == "horizon" and self.horizon_tokens < 1:
            raise ValueError('aggregation "horizon" divides by horizon_tokens; set it to sampling.max_new_tokens')
        if not 0.0 <= self.reference_ema <= 1.0:
            raise ValueError(f"reference_ema {self.reference_ema} must lie in 0..1")
        stages, carried = self.corrections, self.carries()
        twice = carried == "behaviour" or (carried == "step" and stages.policy == "present")
        if stages.weight != "none" and twice:
            raise ValueError(
                f'corrections.weight = "{stages.weight}" counts the same ratio twice: with these '
                f"options the loss carries one over {_CARRIED[carried]} itself; leave out one of the two"
            )


@dataclass(frozen=True)
class Terms:
    """A reward taken apart: alpha * outcome_B + (1 - alpha) * explore_B (RLSP, arXiv:2502.06773 Eq. 1)."""

    outcome_B: Tensor
    """1 where the verifier found the answer right."""
    explore_B: Tensor
    """R_explore, so that its paid share stays within the reward's clip; zeros where alpha is 1."""
    alpha: float
    """Of this step."""


@dataclass(frozen=True)
class Rollouts:
    """A batch as flat columns. Example: reward_B [1, 0], group_B [0, 0], length_B [3, 2], N = 5."""

    reward_B: Tensor
    group_B: Tensor
    """int64 [B]; rollouts of one prompt share a number."""
    length_B: Tensor
    """int64 [B] response tokens; sums to N."""
    behaviour_N: Tensor
    """Log-prob under the policy that sampled the token."""
    mask_N: Tensor
    """bool; False: the token's columns may hold anything and must not matter."""
    old_N: Tensor | None = None
    """Log-prob under the learner at the beginning of the step; only beside "reference", "values" or "energy"."""
    reference_N: Tensor | None = None
    """Log-prob under the reference: the policy with which the stage began, or its average since (`reference_ema`)."""
    values_N: Tensor | None = None
    """Critic's values at the beginning of the step; [N, K] with K value heads."""
    old_mean_N: Tensor | None = None
    """Mean over the vocabulary of the log-probs beside `old_N`."""
    lag_N: Tensor | None = None
    """int64, versions from the token's policy to the learner's at the beginning of the step; None: demonstrations."""
    energy_N: Tensor | None = None
    """Squared norm of the gradient of `old_N` by the logits, 1 - 2 p + sum over the vocabulary of p^2."""
    prompt_B: Tensor | None = None
    """int64; rollouts whose prompts have the same tokens share a number, in whichever groups they are."""
    text_B: Tensor | None = None
    """int64; rollouts share a number whose prompts and responses have the same tokens."""
    terms: Terms | None = None
    """What `reward_B` is made of; None for demonstrations and for rewards that are not Eq. 1."""


@dataclass(frozen=True)
class Advantages:
    """What `advantages` answers."""

    adv_N: Tensor
    keep_B: Tensor
    """bool [B]; False: the rollout is left out of the update and of its counts."""
    returns_N: Tensor | None = None
    """Targets of the critic; [N, K] with K value heads."""
    stats: dict[str, float] = field(default_factory=dict)
    pair_B: Tensor | None = None
    """int64 [B]; two rollouts of a group with the same number are compared and share a micro-batch. -1: alone."""


@dataclass(frozen=True)
class Tokens:
    """Columns [R] of one micro-batch; what is the critic's is [R, K] with K value heads. `logp` and `values` carry
    gradient."""

    logp: Tensor
    behaviour: Tensor
    adv: Tensor
    mask: Tensor
    share: Tensor
    """Each token's share of the update, so that summed losses of its micro-batches are the update's loss."""
    old: Tensor | None = None
    returns: Tensor | None = None
    values: Tensor | None = None
    old_values: Tensor | None = None
    rollout: Tensor | None = None
    """int64; tokens of one rollout share a number, 0, 1, ... A rollout is never split between micro-batches."""
    mean: Tensor | None = None
    """Mean over the vocabulary of the log-probs where `logp` was taken; no gradient."""
    old_mean: Tensor | None = None
    """The same at the beginning of the step."""
    reference: Tensor | None = None
    lag: Tensor | None = None
    """int64, versions from the token's policy to the learner's at the beginning of the step."""
    value_share: Tensor | None = None
    """`share` without the factors of the correction stages, for losses that are none of the policy's; None: `share`."""
    pair: Tensor | None = None
    """int64; the pair of the token's rollout, as `Advantages.pair_B` numbers them."""
    entropy: Tensor | None = None
    """Of the distribution that the token was drawn from; carries gradient for a loss that needs "entropy"."""


class Algorithm(Protocol):
    """A module of this shape."""

    Config: type[AlgorithmConfig]
    PRESETS: dict[str, dict[str, Any]]
    """Options by name of preset."""
    NEEDS: frozenset[str]
    """Columns it may ask for: "old", "reference", "values", "mean", "entropy", "energy"."""

    def needs(self, cfg: Any) -> frozenset[str]:
        """Columns it asks for with these options."""

    def advantages(self, cfg: Any, batch: Rollouts) -> Advantages:
        """Advantage of every token, over the whole batch."""

    def token_loss(self, cfg: Any, tokens: Tokens) -> tuple[Tensor, Stats]:
        """Loss summed with `tokens.share`, and summed stats."""


def names() -> list[str]:
    """The algorithms that ship."""
    return ALGORITHMS.names()


def load_algorithm(section: config.AlgorithmChoice) -> tuple[Algorithm, AlgorithmConfig]:
    """The module a run names, and its options: preset first, `options` on top.

    Raises ConfigError with the nearest name for an unknown algorithm, preset or option.
    """
    module = ALGORITHMS.find(section.name)
    presets: dict[str, dict[str, Any]] = module.PRESETS
    if section.preset and section.preset not in presets:
        raise ConfigError(
            f"algorithm {section.name!r} has no preset {section.preset!r}; " + nearest_name(section.preset, presets)
        )
    options = {**presets.get(section.preset, {}), **section.options}
    return cast(Algorithm, module), ALGORITHMS.decode_options(section.name, module, options)
