"""The tree of errors that this package raises on purpose. The class of an error decides the exit code.

    RlspError
    +-- UserError        exit 2: the user can correct it; one line says what, where and what to do. No traceback
    |   +-- ConfigError  a setting is unknown, of the wrong type or impossible
    |   +-- DataError    a file of prompts, a model directory or a tokenizer cannot be used
    |   +-- MachineError the machine refuses: port in use, disk full, library missing
    |   +-- FencedError  a newer start of this process has taken over; this process writes nothing more
    +-- DivergedError    exit 3: the run cannot succeed (NaN loss, a verifier that always errs); names the stage
    +-- MessageError     a peer sent bytes that are not of the protocol
    |   +-- ContentError groups of a batch cannot be trained on; it names them
    +-- WeightsError     weights that arrived are not the weights that were published
    +-- WeightsDelayed   weights have not arrived; those that are served are as good as before
    +-- EngineError      an inference engine died or cannot do what was requested
    +-- RankLost         a rank of the learner died; all start again from the newest checkpoint
    +-- InvariantError   a record would break a guarantee; it was not stored (exit 1: a bug, found in time)

Any other exception is a bug: traceback, exit 1.
"""

from __future__ import annotations

import errno


class RlspError(Exception):
    """Base of every error that this package raises on purpose."""

    exit_code = 1


class UserError(RlspError, ValueError):
    """An error that the user can correct."""

    exit_code = 2


class ConfigError(UserError):
    """A setting is unknown, of the wrong type, or impossible together with another."""


class DataError(UserError):
    """A data file, a model directory or a tokenizer cannot be used."""


class MachineError(UserError):
    """The machine refuses: port in use, disk full, a missing library."""


class FencedError(UserError):
    """A newer start of this process owns the run's files; this process must not write."""


class DivergedError(RlspError):
    """The run cannot succeed."""

    exit_code = 3


class MessageError(RlspError, ValueError):
    """A peer sent bytes that are not of the protocol."""


class ContentError(MessageError):
    """Groups of a batch cannot be trained on; `groups` are their ids."""

    def __init__(self, text: str, groups: list[int]) -> None:
        super().__init__(text)
        self.groups = groups


class WeightsError(RlspError):
    """The weights that arrived are not the weights that were published."""


class WeightsDelayed(RlspError):
    """A version has not arrived. Nothing was changed: the version that is served stays, and the hub offers it again."""


class EngineError(RlspError):
    """An inference engine died, or cannot do what was requested."""


class RankLost(RlspError):
    """Another rank of the learner has died; all of them start again from the newest checkpoint."""


class InvariantError(RlspError):
    """A record would break a guarantee of the run. The transaction that held it was rolled back."""


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an operating-system error says that the disk is full, which the user can correct wherever it happens."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def unwritable(path: object, error: OSError) -> MachineError:
    """Makes the error for a file of the run that the machine refuses to write."""
    return MachineError(f"{path}: cannot be written: {error.strerror}; free some space, or choose another runs_dir")


def first_error(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """One of the errors of a group of tasks, which all failed for the same reason."""
    first: BaseException = failures.exceptions[0]
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
