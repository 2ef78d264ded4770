"""What a group, a verdict and a reward part may hold, so that whatever is stored can be trained on. Pure.

The hub checks rollouts before it stores them (`check_rollouts`), with the vocabulary of RUN/model. The learner checks a
batch again before it trains (`find_guilty`): the journal may have been begun by a version that checked less, and only
the learner can encode a prompt again. A group that the learner names costs the run that group and not the step.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rlsp_async.columns import Ids, floats, ints
from rlsp_async.errors import DataError, MessageError
from rlsp_async.messages import Prompt, Rollout, RolloutGroup, VerifiedGroup
from rlsp_async.observations import (
    OBSERVED,
    has_observations,
    joined_logprobs,
    joined_versions,
    num_sampled,
    sampled_logprobs,
)

LOGPROB_LEAST = -100.0
"""A token with a smaller log-prob is never sampled: its probability is below the smallest float32."""
LOGPROB_MOST = 0.01
"""A log-prob is at most 0; an engine's rounding may put it a little above."""
PARTS_KEPT = 64
"""Names of reward parts in one run; verdicts lose the parts beyond them."""
PART_CHARACTERS = 64
TEXT_CHARACTERS = 4_194_304
"""Longest text that a person or a model wrote, in one field of a message."""
PART_MOST = 1e9
"""Largest absolute value of a reward part."""
TOKENS_MOST = 4_194_304
"""Most tokens of one rollout, observations included; the model's window is smaller."""
TRANSCRIPT_BYTES = 65_536
"""Largest transcript of one rollout."""
least, greatest = np.minimum.reduce, np.maximum.reduce
"""The bare reductions: the hub calls them for every group, and an array's own methods cost twice as much."""

NAME_CHARACTERS = 128
NAME_SIGNS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
"""What the name of a worker may be made of."""
KNOWN_PARTS = frozenset(
    {"correct", "format", "length", "score", "judge", "judge_failed", "search_steps", "backtracks", "checks"}
    | {"alternatives", "abstained"}
)
"""Names that the package itself reads: they never count as surplus."""


def is_worker_name(name: str) -> bool:
    """Whether a worker may have this name: it stands in logs, terminals, reports and file names."""
    return 0 < len(name) <= NAME_CHARACTERS and set(name) <= NAME_SIGNS and not name.startswith(".")


def printable(text: str, longest: int = 2000) -> str:
    """One line of a text that a peer or a model wrote, without anything that a terminal would obey.

    Control characters (ESC, C1, newlines), marks that change the direction of writing and unassigned characters become
    spaces. What is longer is cut.
    """
    text = text[:longest]
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else " " for sign in text)


def printable_lines(text: str) -> str:
    """A text of several lines without anything that a terminal would obey, whose lines stay."""
    return "\n".join(printable(line, longest=len(line)) for line in text.split("\n"))


def check_prompt(prompt: Prompt, response: str = "") -> None:
    """Checks that the texts of a prompt, and of a response to it, are Unicode and that messages may hold them.

    Raises DataError that names the prompt.
    """
    said = [("text", prompt.text), ("answer", prompt.answer), ("system", prompt.system), ("response", response)]
    for field, text in [*said, *(("earlier", one.text) for one in prompt.earlier)]:
        place = f" ({prompt.source!a})" if prompt.source else ""
        where = f"prompt {prompt.prompt_id!a}{place}: its {field}"
        if len(text) > TEXT_CHARACTERS:
            raise DataError(f"{where} has {len(text):,} characters; at most {TEXT_CHARACTERS:,}")
        try:
            text.encode()
        except UnicodeEncodeError as e:
            raise DataError(
                f"{where} has half of a surrogate pair (\\u{ord(text[e.start]):04x}) at character {e.start}, which "
                "is no Unicode text"
            ) from None


def check_columns(group: RolloutGroup, max_tokens: int = 0, may_be_empty: bool = True) -> None:
    """Checks that the columns of a group are whole numbers of values and fit together.

    Args:
        group: the rollouts.
        max_tokens: most tokens of one response; 0: any number.
        may_be_empty: whether a response may have no token.

    Raises:
        DataError: one does not; the message names it.
    """
    if not group.prompt_ids or len(group.prompt_ids) % 4:
        raise DataError(f"group {group.group_id}: prompt_ids of {len(group.prompt_ids)} bytes are no token ids")
    for rollout in group.rollouts:
        num = len(rollout.token_ids)
        where = f"group {group.group_id}, rollout {rollout.index}"
        if num % 4 or len(rollout.logprobs) != num or len(rollout.versions) != num:
            raise DataError(f"{where}: its columns differ in length")
        if num > 4 * TOKENS_MOST:
            raise DataError(f"{where}: {num // 4:,} tokens; at most {TOKENS_MOST:,}")
        if rollout.step_offsets:
            _check_offsets(f"{where}: step_offsets", rollout.step_offsets, num // 4)
        if rollout.turns:
            check_turns(where, rollout)
        _check_said(where, rollout)
        num_own = num_sampled(rollout)
        if not num_own and not may_be_empty:
            raise DataError(f"{where}: it has no token")
        if max_tokens and num_own > max_tokens:
            raise DataError(f"{where}: {num_own} tokens, at most {max_tokens} were asked for")


def check_turns(where: str, rollout: Rollout) -> None:
    """Checks that each turn begins with a sampled token, and that no sampled token stands outside of a turn.

    Raises DataError that begins with `where`.
    """
    _check_offsets(f"{where}: turns", rollout.turns, len(rollout.token_ids) // 4)
    is_sampled = ints(rollout.versions) != OBSERVED
    turns = ints(rollout.turns)
    if not is_sampled[turns].all():
        raise DataError(f"{where}: a turn begins with a token that nobody sampled")
    follows_observation = np.concatenate([[True], ~is_sampled[:-1]])
    begins = np.flatnonzero(is_sampled & follows_observation)
    if not np.isin(begins, turns).all():
        raise DataError(f"{where}: a sampled token follows an observation, and no turn begins there")


def _check_said(where: str, rollout: Rollout) -> None:
    """What an environment claims is finite and bounded, and what people may read of it is short."""
    if len(rollout.claim) > PARTS_KEPT or any(len(name) > PART_CHARACTERS for name in rollout.claim):
        raise DataError(
            f"{where}: a claim of {len(rollout.claim)} parts; at most {PARTS_KEPT}, with names of at most "
            f"{PART_CHARACTERS} characters"
        )
    if not all(abs(part) <= PART_MOST for part in rollout.claim.values()):  # also false for NaN
        raise DataError(f"{where}: a part of its claim is not a finite number below {PART_MOST:g}")
    if len(rollout.transcript) > TRANSCRIPT_BYTES:
        raise DataError(f"{where}: a transcript of {len(rollout.transcript):,} bytes; at most {TRANSCRIPT_BYTES:,}")


def _check_offsets(where: str, column: bytes, num_tokens: int) -> None:
    """Steps and turns begin within the response, one after the other."""
    if len(column) % 4:
        raise DataError(f"{where} of {len(column)} bytes are no numbers")
    offsets = ints(column)
    if offsets[0] < 0 or offsets[-1] >= num_tokens or (np.diff(offsets) <= 0).any():
        raise DataError(f"{where} do not rise within the {num_tokens} tokens of the response")


def check_rollouts(
    group: RolloutGroup, vocabulary: int, newest: int, max_tokens: int = 0, max_turns: int = 0
) -> tuple[int, int]:
    """Checks everything that a learner will read of sampled rollouts.

    Log-probs and versions are checked where the policy sampled; an observation has version -1 and any log-prob.

    Args:
        group: the rollouts, as many as were asked for.
        vocabulary: number of token ids of the run's model; 0: unknown, any id that is not negative.
        newest: newest version that can have sampled a token.
        max_tokens: most sampled tokens of one response; 0: any number.
        max_turns: most turns of one response; 0: the run has no environment, and a response has no observations.

    Returns:
        Oldest and newest version of its sampled tokens.

    Raises:
        DataError: something cannot be true; the message names it.
    """
    rollouts = group.rollouts
    most = 4 * max_tokens or 2**62
    for index, rollout in enumerate(rollouts):
        if rollout.index != index:
            raise DataError(f"group {group.group_id}: its rollouts are not numbered 0..{len(rollouts) - 1}")
        if rollout.replayed_from:
            raise DataError(f"group {group.group_id}, rollout {index}: a sampler cannot replay a rollout")
        num = len(rollout.token_ids)
        is_plain = num == len(rollout.logprobs) == len(rollout.versions) and not rollout.step_offsets
        is_plain = is_plain and not (rollout.turns or rollout.claim or rollout.ended or rollout.transcript)
        if not is_plain or not num or num % 4 or num > most:
            check_columns(group, max_tokens, may_be_empty=False)
            _check_environment(group, max_turns)
    if not group.prompt_ids or len(group.prompt_ids) % 4:
        check_columns(group)
    ids = ints(b"".join([group.prompt_ids, *[rollout.token_ids for rollout in rollouts]]))
    if least(ids) < 0 or (vocabulary and greatest(ids) >= vocabulary):
        odd = _odd_id(ids, vocabulary)
        raise DataError(
            f"group {group.group_id}: token id {odd} is not in the model's vocabulary of {vocabulary or 'any size'}"
        )
    if has_observations(group):
        logprobs = joined_logprobs(rollouts)
        versions = joined_versions(rollouts)
    else:
        logprobs = floats(b"".join([rollout.logprobs for rollout in rollouts]))
        versions = ints(b"".join([rollout.versions for rollout in rollouts]))
    if not (least(logprobs) >= LOGPROB_LEAST and greatest(logprobs) <= LOGPROB_MOST):  # also false for NaN
        raise DataError(_odd_logprob(group))
    oldest, last = int(least(versions)), int(greatest(versions))
    if oldest < 0 or last > newest:
        odd = oldest if oldest < 0 else last
        raise DataError(f"group {group.group_id}: tokens of version {odd}, the newest step is {newest}")
    return oldest, last


def _check_environment(group: RolloutGroup, max_turns: int) -> None:
    """Only a run with an environment has rollouts that an environment took part in; their turns are bounded."""
    for rollout in group.rollouts:
        where = f"group {group.group_id}, rollout {rollout.index}"
        num = len(rollout.turns) // 4
        if not max_turns and (num or rollout.claim or rollout.ended or rollout.transcript):
            raise DataError(f"{where}: an environment took part in it, and this run has none (task.environment)")
        if rollout.ended in ("timeout", "environment_error"):
            raise DataError(f"{where}: its environment failed ({rollout.ended}), which never becomes a reward")
        if max_turns and num > max_turns:
            raise DataError(f"{where}: {num} turns, at most {max_turns} were asked for")


def _odd_id(ids: Ids, vocabulary: int) -> int:
    return int(ids.min()) if ids.min() < 0 else int(ids.max())


def _odd_logprob(group: RolloutGroup) -> str:
    for rollout in group.rollouts:
        values = sampled_logprobs(rollout)
        where = f"group {group.group_id}, rollout {rollout.index}"
        if not np.isfinite(values).all():
            return f"{where}: a log-prob is not finite"
        if len(values) and not (values.min() >= LOGPROB_LEAST and values.max() <= LOGPROB_MOST):
            return f"{where}: a log-prob is outside {LOGPROB_LEAST:g}..0"
    return f"group {group.group_id}: a log-prob is not finite"


# --- what the learner checks -----------------------------------------------------------------------------------------


def find_guilty(
    groups: list[VerifiedGroup], vocabulary: int, encode: Callable[[Prompt], list[int]] | None = None
) -> dict[int, str]:
    """Finds the groups of a batch that cannot be trained on.

    Args:
        groups: the groups of the batch.
        vocabulary: number of token ids of the model.
        encode: encodes a prompt as the sampler should have; None: prompt ids are not compared.

    Returns:
        For each such group, why. When no rollout of the batch has a token, that is the reason of all groups.
    """
    guilty = {}
    for verified in groups:
        wrong = _why_not(verified, vocabulary, encode)
        if wrong:
            guilty[verified.group.group_id] = wrong
    if not any(num_sampled(rollout) for verified in groups for rollout in verified.group.rollouts):
        return {v.group.group_id: f"group {v.group.group_id}: it has no token" for v in groups} | guilty
    return guilty


def _why_not(verified: VerifiedGroup, vocabulary: int, encode: Callable[[Prompt], list[int]] | None) -> str:
    group = verified.group
    try:
        check_columns(group)
        tokens = [rollout for rollout in group.rollouts if rollout.token_ids]
        ids = ints(b"".join([group.prompt_ids, *(rollout.token_ids for rollout in tokens)]))
        if ids.min() < 0 or ids.max() >= vocabulary:
            raise DataError(
                f"group {group.group_id}: token id {_odd_id(ids, vocabulary)} is not in the model's vocabulary of "
                f"{vocabulary}"
            )
        logprobs = joined_logprobs(tokens)
        if len(logprobs) and not (logprobs.min() >= LOGPROB_LEAST and logprobs.max() <= LOGPROB_MOST):
            raise DataError(_odd_logprob(group))
        if encode is not None and group.provenance == "rollout":
            expected = encode(group.prompt)
            if ints(group.prompt_ids).tolist() != expected:
                raise DataError(
                    f"group {group.group_id}: its prompt_ids ({len(group.prompt_ids) // 4} tokens) are not those of "
                    f"prompt {group.prompt.prompt_id!r} ({len(expected)} tokens)"
                )
    except (DataError, MessageError) as e:
        return str(e)
    return _wrong_verdicts(verified)


def _wrong_verdicts(verified: VerifiedGroup) -> str:
    group, verdicts = verified.group, verified.verdicts
    if group.provenance == "demonstration" and not verdicts:
        return ""
    if len(verdicts) != len(group.rollouts):
        return f"group {group.group_id}: {len(group.rollouts)} rollouts, {len(verdicts)} verdicts"
    for verdict in verdicts:
        if not verdict.is_true:
            return f"group {group.group_id}: a verdict of status {verdict.status!r} is no reward"
        if not all(abs(part) <= PART_MOST for part in verdict.parts.values()):  # also false for NaN
            return f"group {group.group_id}: a reward part is not a finite number below {PART_MOST:g}"
    return ""
