"""What rank 0 says when another rank of the learner has ended."""

import pytest
import structlog

from rlsp_async import service
from rlsp_async.errors import DivergedError, MachineError, RankLost
from rlsp_async.learning.follower import error_of


@pytest.mark.parametrize(
    ("code", "said", "kind", "text"),
    [
        (-9, "", RankLost, "rank 2 of the learner ended with signal SIGKILL"),
        (1, "KeyError: 'x'", RankLost, "rank 2 of the learner ended with exit code 1: KeyError: 'x'"),
        (2, "the disk is full", MachineError, "rank 2 of the learner ended with exit code 2: the disk is full"),
        (3, "the loss is nan", DivergedError, "rank 2 of the learner ended with exit code 3: the loss is nan"),
    ],
)
def test_a_rank_that_ended_is_named_with_its_reason(code, said, kind, text):
    error = error_of(2, code, said)
    assert (type(error), str(error)) == (kind, text)


def test_a_lost_rank_is_one_sentence_and_no_traceback(tmp_path):
    with structlog.testing.capture_logs() as lines:
        assert service.exit_code_of(error_of(1, -9, ""), tmp_path) == 1
    [line] = lines
    assert line["event"] == "rank 1 of the learner ended with signal SIGKILL"
    assert "exc_info" not in line
