"""Verifier `code`: whether a Python function passes its unit tests, which the function never sees.

verifier     the options, the order of the steps, the verdict
extract      the code in a response
unit_tests   the tests in a reference answer, and their run; a stand-in calls the function in the runner
runner       the confined process in which the code of the response runs, and the data that crosses over
"""

from rlsp_async.verifying.code.verifier import (
    LANE,
    READS_FILES,
    VERSION,
    CodeConfig,
    CodeVerifier,
    Config,
    load,
)

__all__ = ["LANE", "READS_FILES", "VERSION", "CodeConfig", "CodeVerifier", "Config", "load"]


def reference_response(answer: str, demonstration: str) -> str:
    """The response of the task, for the check before a run: the reference answer holds tests and no code."""
    return demonstration
