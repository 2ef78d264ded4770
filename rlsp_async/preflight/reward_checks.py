"""What `rlsp check` says of a stage's reward: the dominance condition, in words."""

from __future__ import annotations

from rlsp_async.config import RewardConfig
from rlsp_async.errors import ConfigError
from rlsp_async.rewards.dominance import SHAPES, Dominance, dominance, resolved_scale, shortest


def condition_of(reward: RewardConfig, longest_tokens: int, released: bool) -> Dominance | None:
    """The condition for answers of longest_tokens / 16 to longest_tokens; None when only correctness is paid."""
    return dominance(reward, shortest(longest_tokens), longest_tokens, released)


def refuse(where: str, reward: RewardConfig, released: bool) -> None:
    """Raises ConfigError for an exploration reward that the released server's form does not have."""
    if released and reward.explore not in ("none", "len_inv"):
        raise ConfigError(
            f'{where}.explore = {reward.explore!r}, but the algorithm\'s reward_form = "released" pays -C / length '
            'and nothing else; set explore to "len_inv" or "none", or reward_form to "eq1"'
        )


def finding(reward: RewardConfig, longest_tokens: int, released: bool) -> tuple[str, str] | None:
    """(from which length on, and why), or None without a condition."""
    condition = condition_of(reward, longest_tokens, released)
    if condition is None:
        return None
    verdict = "holds" if condition.holds else "is BROKEN"
    if reward.explore in SHAPES:
        scale = resolved_scale(reward, longest_tokens, released)
        why = (
            f" for answers of {condition.shortest_tokens} to {condition.longest_tokens} tokens; reward.scale (C) = "
            f"{scale:.4g}, bound C < {condition.largest_scale:.4g} "
            + ("in the released form" if released else f"at alpha = {condition.alpha:g}")
        )
    else:
        why = f": {reward.explore} lies in 0..1, so alpha must be above 0.5; it is {condition.alpha:g}"
    return f"from {_tokens(condition.shortest_safe_tokens)} on", f"the dominance condition {verdict}{why}"


def warnings(where: str, reward: RewardConfig, longest_tokens: int, released: bool) -> list[str]:
    """One line for each thing that may not be meant. Example of `where`: "stages.rlsp.reward"."""
    condition = condition_of(reward, longest_tokens, released)
    if condition is None:
        return []
    if reward.explore in SHAPES and resolved_scale(reward, longest_tokens, released) == 0:
        cure = "raise alpha above 0, or name a number" if reward.scale == "auto" else 'or say explore = "none"'
        return [f"{where}.scale is 0: exploration is not paid at all; {cure}"]
    if condition.holds:
        return []
    if reward.explore not in SHAPES:
        return [
            f"{where}: a wrong answer can beat a right one: {reward.explore} can pay a wrong answer 1 - alpha, being "
            f"right pays alpha = {condition.alpha:g}; raise alpha above 0.5"
        ]
    cure = "" if released else " or raise alpha"
    return [
        f"{where}: a wrong answer can beat a right one: a correct answer shorter than "
        f"{_tokens(condition.shortest_safe_tokens)} scores below a wrong one of {condition.longest_tokens}; lower "
        f"scale below {condition.largest_scale:.4g}{cure}"
    ]


def missing(where: str, reward: RewardConfig, num_rollouts: int, verifier: str) -> list[str]:
    """What a form needs and this run does not give it. `verifier` empty: the task's own, and none of ours but `judge`
    has a judge; a user's own may."""
    if reward.explore == "novelty" and num_rollouts < 2:
        return [f"{where}: novelty compares the rollouts of a group, and sampling.rollouts is {num_rollouts}: it is 0"]
    ours = "." not in verifier and "/" not in verifier
    if reward.explore == "judge" and ours and verifier != "judge":
        return [
            f'{where}: explore = "judge" pays the part "judge" of the verdicts, and '
            f"{f'verifier {verifier!r}' if verifier else 'the verifier of the task'} gives none; set task.verifier"
        ]
    return []


def _tokens(tokens: float) -> str:
    return "no length" if tokens == float("inf") else f"{tokens:.0f} tokens"
