"""What an algorithm is: a module with `Config`, `PRESETS`, `NEEDS`, `needs`, `advantages` and `token_loss`.

There is no base class to inherit, no registry and no list: `[stages.NAME.algorithm] name = "grpo"` names the module
`rlsp_async.algos.grpo`, or a dotted module of the user's own. A new algorithm is one file here and
`tests/algos/test_NAME.py`; `tests/algos/test_contract.py` finds the module and runs the same laws on it.

By default an algorithm promises that its gradient on rollouts of the present policy is REINFORCE's. A module for which
that does not hold says `ON_POLICY`: a factor, or None for a loss that is no policy gradient.

Shapes: B rollouts of a batch, N their response tokens end to end, R response tokens of one micro-batch, K value heads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol, cast

from torch import Tensor

from rlsp_async import config
from rlsp_async.algos import maths
from rlsp_async.algos.corrections import CorrectionsConfig
from rlsp_async.algos.stats import Stats as Stats
from rlsp_async.config.ranges import Range
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
"""The policy to which a loss multiplies by a ratio itself: none, the one at the beginning of the step, or the one that
sampled."""


class AlgorithmConfig(config.Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of every algorithm, which the learner itself reads; each algorithm's own config extends this class."""

    aggregation: Literal["token_mean", "seq_mean", "seq_sum", "horizon"] = "token_mean"
    """Mean over all tokens of an update, or over rollouts of their token means, sums, or sums / horizon_tokens."""
    horizon_tokens: Annotated[int, Range(ge=0, le=10**9)] = 0
    """Constant by which "horizon" divides a rollout's sum; must be above 0 for it."""
    critic: Literal["none", "head", "head_detached", "separate"] = "none"
    """Value function: none, a head on the policy's trunk, a head without gradient into the trunk, or a model of its
    own."""
    critic_lr: Annotated[float, Range(ge=0, le=10)] = 0.0
    """Learning rate of the critic's parameters; 0: the optimizer's lr."""
    critic_warmup_steps: Annotated[int, Range(ge=0, le=10**9)] = 0
    """First steps of the stage in which only the critic learns."""
    reward_form: Literal["eq1", "released"] = "eq1"
    """RLSP's Eq. 1, or what the released reward server computes (rewards/compose.py)."""
    normalize_reward: bool = False
    """Rewards of a batch are brought to mean 0 and standard deviation 1, then clipped."""
    mask_truncated: bool = False
    """Rollouts that ended at max_new_tokens stay out of the loss; their rewards still count for the baseline of their
    group (the overlong filtering of DAPO, arXiv:2503.14476)."""
    reference_ema: Annotated[float, Range(ge=0, le=1)] = 0.0
    """Share of the policy that the reference takes over after each step; 0: it stays as the stage began."""
    corrections: CorrectionsConfig = CorrectionsConfig()
    """Rejection, mask and weight by the ratio to the policy that sampled."""

    def carries(self) -> Carried:
        """The policy to which the loss of these options multiplies by a ratio itself."""
        return "nothing"

    def is_held(self) -> bool:
        """Whether anything holds the policy to the one that sampled: a ratio to it in the loss, or a correction."""
        stages = self.corrections
        return self.carries() == "behaviour" or bool({stages.reject, stages.mask, stages.weight} - {"none"})

    def scored_at(self) -> float:
        """Temperature of the policy that is trained; 0: of each rollout the one that drew it, as every ratio needs."""
        return 0.0

    def num_values(self) -> int:
        """Number of heads of the value function, if there is one."""
        return 1

    def first_values(self, reward_B: Tensor, terms: Terms | None) -> tuple[float, ...]:
        """Values at which the heads of a critic that has learned nothing yet begin.

        Args:
            reward_B: rewards of the critic's first batch.
            terms: what the rewards are made of, if they are kept apart.

        Returns:
            one value for each head; the mean reward by default.
        """
        return (float(reward_B.mean()),)

    def __post_init__(self) -> None:
        if self.aggregation == "horizon" and self.horizon_tokens < 1:
            raise ValueError('aggregation "horizon" divides by horizon_tokens; set it to sampling.max_new_tokens')
        stages, carried = self.corrections, self.carries()
        twice = carried == "behaviour" or (carried == "step" and stages.policy == "present")
        if stages.weight != "none" and twice:
            raise ValueError(
                f'corrections.weight = "{stages.weight}" counts the same ratio twice: with these '
                f"options the loss carries one over {_CARRIED[carried]} itself; leave out one of the two"
            )


_ROLLOUT_COLUMNS = (
    *("reward_B", "group_B", "length_B", "prompt_B", "text_B"),
    *("behaviour_N", "mask_N", "old_N", "reference_N", "old_mean_N", "lag_N", "energy_N"),
)
_TOKEN_COLUMNS = (
    *("logp", "behaviour", "adv", "mask", "share", "old", "rollout", "mean", "old_mean", "reference"),
    *("lag", "value_share", "pair", "entropy"),
)
"""Columns with one value for each rollout or token; those of the critic are not among them."""


@dataclass(frozen=True)
class Terms:
    """A reward taken apart: alpha * outcome_B + (1 - alpha) * explore_B (RLSP, arXiv:2502.06773, eq. 1)."""

    outcome_B: Tensor
    """1 where the verifier found the answer right."""
    explore_B: Tensor
    """R_explore, such that (1 - alpha) * explore_B stays within the reward's clip; zeros where alpha is 1."""
    alpha: float
    """The weight of this step."""


@dataclass(frozen=True)
class Rollouts:
    """A batch as flat columns. Example: reward_B [1, 0], group_B [0, 0], length_B [3, 2], N = 5.

    Raises:
        ValueError: a column has another length than its letter says, or `length_B` does not sum to N.
    """

    reward_B: Tensor
    group_B: Tensor
    """int64; rollouts of one group share a number."""
    length_B: Tensor
    """int64, response tokens of each rollout; they sum to N."""
    behaviour_N: Tensor
    """Log-prob under the policy that sampled the token."""
    mask_N: Tensor
    """bool; False: the token's columns may hold anything and must not matter."""
    old_N: Tensor | None = None
    """Log-prob under the learner at the beginning of the step; present only with "reference", "values" or "energy"."""
    reference_N: Tensor | None = None
    """Log-prob under the reference: the policy with which the stage began, or its average since (`reference_ema`)."""
    values_N: Tensor | None = None
    """The critic's values at the beginning of the step; [N, K] with K value heads."""
    old_mean_N: Tensor | None = None
    """Mean of the log-probs over the vocabulary, under the policy of `old_N`."""
    lag_N: Tensor | None = None
    """int64, versions from the token's policy to the learner's at the beginning of the step; None: demonstrations."""
    energy_N: Tensor | None = None
    """Squared norm of the gradient of `old_N` by the logits, 1 - 2 p + sum over the vocabulary of p^2."""
    prompt_B: Tensor | None = None
    """int64; rollouts whose prompts have the same tokens share a number, also across groups."""
    text_B: Tensor | None = None
    """int64; rollouts whose prompts and responses have the same tokens share a number."""
    terms: Terms | None = None
    """What `reward_B` is made of; None for demonstrations and for rewards that are not Eq. 1."""

    def __post_init__(self) -> None:
        columns = {name: getattr(self, name) for name in _ROLLOUT_COLUMNS}
        if self.terms is not None:
            columns |= {"outcome_B": self.terms.outcome_B, "explore_B": self.terms.explore_B}
        maths.check_shapes(**columns, **_heads("values", "N", self.values_N))
        if int(self.length_B.sum()) != len(self.behaviour_N):
            shape = list(self.behaviour_N.shape)
            raise ValueError(f"behaviour_N has shape {shape}, and length_B sums to {int(self.length_B.sum())}")


@dataclass(frozen=True)
class Advantages:
    """The result of an algorithm's `advantages`."""

    adv_N: Tensor
    keep_B: Tensor
    """bool; False: the rollout is left out of the update and of its counts."""
    returns_N: Tensor | None = None
    """Targets of the critic; [N, K] with K value heads."""
    stats: dict[str, float] = field(default_factory=dict)
    """Metrics of the step."""
    pair_B: Tensor | None = None
    """int64; two rollouts of a group with the same number are compared and share a micro-batch. -1: alone."""

    def check(self, batch: Rollouts) -> None:
        """Asserts that the columns have the lengths of the batch from which they were made.

        Raises:
            ValueError: a length differs.
        """
        known = {"reward_B": batch.reward_B, "mask_N": batch.mask_N}
        maths.check_shapes(**known, adv_N=self.adv_N, keep_B=self.keep_B, pair_B=self.pair_B)
        maths.check_shapes(**known, **_heads("returns", "N", self.returns_N))


@dataclass(frozen=True)
class Tokens:
    """Columns [R] of one micro-batch; the critic's are [R, K] with K value heads. `logp` and `values` carry gradient.

    Raises:
        ValueError: a column has another length than `logp`.
    """

    logp: Tensor
    """Log-prob under the weights that are updated."""
    behaviour: Tensor
    """Log-prob under the policy that sampled."""
    adv: Tensor
    mask: Tensor
    """bool; False: the token's columns may hold anything and must not matter."""
    share: Tensor
    """Each token's share of the update, so that the losses of its micro-batches sum to the update's loss."""
    old: Tensor | None = None
    """Log-prob under the learner at the beginning of the step."""
    returns: Tensor | None = None
    values: Tensor | None = None
    old_values: Tensor | None = None
    """The critic's values at the beginning of the step."""
    rollout: Tensor | None = None
    """int64; tokens of one rollout share a number, 0, 1, ... A rollout is never split between micro-batches."""
    mean: Tensor | None = None
    """Mean of the log-probs over the vocabulary, under the policy of `logp`; no gradient."""
    old_mean: Tensor | None = None
    """The same mean at the beginning of the step."""
    reference: Tensor | None = None
    """Log-prob under the reference policy."""
    lag: Tensor | None = None
    """int64, versions from the token's policy to the learner's at the beginning of the step."""
    value_share: Tensor | None = None
    """`share` without the factors of the correction stages, for the critic's loss and other terms that no stage may
    leave out; None: the same as `share`."""
    pair: Tensor | None = None
    """int64; the pair of the token's rollout, as `Advantages.pair_B` numbers them."""
    entropy: Tensor | None = None
    """Entropy of the distribution that the token was drawn from; carries gradient for a loss that needs "entropy"."""

    def __post_init__(self) -> None:
        columns = {f"{name}_R": getattr(self, name) for name in _TOKEN_COLUMNS}
        for name in ("values", "old_values", "returns"):
            columns |= _heads(name, "R", getattr(self, name))
        maths.check_shapes(**columns)

    def logp_under(self, policy: Literal["behaviour", "old"]) -> Tensor:
        """Log-probs [R] under the policy that sampled, or under the learner's at the beginning of the step."""
        if policy == "behaviour":
            return self.behaviour
        assert self.old is not None
        return self.old


def _heads(name: str, length: str, column: Tensor | None) -> dict[str, Tensor | None]:
    """A column of the critic under the name of its shape: one value for each token, or one for each head."""
    return {f"{name}_{length}K" if column is not None and column.ndim == 2 else f"{name}_{length}": column}


class Algorithm(Protocol):
    """A module of this shape."""

    Config: type[AlgorithmConfig]
    """The options of the algorithm."""
    PRESETS: dict[str, dict[str, Any]]
    """Options by name of preset."""
    NEEDS: frozenset[str]
    """Columns it may need beside the log-probs: "old", "reference", "values", "mean", "entropy", "energy"."""

    def needs(self, cfg: Any) -> frozenset[str]:
        """The columns that the algorithm needs with these options.

        Args:
            cfg: an instance of `Config`.

        Returns:
            a subset of `NEEDS`.
        """

    def advantages(self, cfg: Any, batch: Rollouts) -> Advantages:
        """Advantage of every token, made once for a step, over the whole batch.

        Args:
            cfg: an instance of `Config`.
            batch: B rollouts with N tokens, on the CPU; the columns that `needs` names are present.

        Returns:
            advantages [N], the rollouts [B] to train on, and metrics of the step.
        """

    def token_loss(self, cfg: Any, tokens: Tokens) -> tuple[Tensor, Stats]:
        """Loss of one micro-batch.

        Args:
            cfg: an instance of `Config`.
            tokens: R tokens; the columns that `needs` names are present.

        Returns:
            the tokens' losses summed with `tokens.share`, a scalar with gradient; and stats (`maths.stat`) by name.
        """


def names() -> list[str]:
    """Names of the algorithms that ship, in alphabetical order."""
    return ALGORITHMS.names()


def load_algorithm(section: config.AlgorithmChoice) -> tuple[Algorithm, AlgorithmConfig]:
    """Loads the module that a run names, and its options: those of the preset first, `options` on top.

    Args:
        section: name, preset and options of the run's settings.

    Returns:
        the module, and an instance of its `Config`.

    Raises:
        ConfigError: the algorithm, preset or option is unknown; the sentence names the nearest known one.
    """
    module = ALGORITHMS.find(section.name)
    presets: dict[str, dict[str, Any]] = module.PRESETS
    if section.preset and section.preset not in presets:
        raise ConfigError(
            f"algorithm {section.name!r} has no preset {section.preset!r}; " + nearest_name(section.preset, presets)
        )
    options = {**presets.get(section.preset, {}), **section.options}
    return cast(Algorithm, module), ALGORITHMS.decode_options(section.name, module, options)
