"""A line with one planted bug, named by RLSP_TEST_BUG, for chaos runs that must fail: put first on PYTHONPATH.

clock      a start takes its number from the wall clock, as an older version did
corrupt    a journal is not compared with its digests
byzantine  a start may have a number that nobody gave out
"""

import os
import sys

BUG = os.environ.get("RLSP_TEST_BUG", "")

if "run" in sys.orig_argv[:5]:
    from rlsp_async.runner.supervise import RestartBudget

    RestartBudget.__init__.__defaults__ = (2, 300.0, 0.1, 1.0)  # the run gives up sooner

if BUG == "clock" and "--worker" in sys.orig_argv:
    import time

    from rlsp_async.starts import START

    if START in os.environ:
        os.environ[START] = str(time.time_ns())

if BUG in ("clock", "byzantine") and "replay" in sys.orig_argv[:5]:
    from rlsp_async.replay.hub import Hub

    Hub.numbered = lambda self, num_starts: None  # type: ignore[method-assign]

if BUG == "corrupt" and "replay" in sys.orig_argv[:5]:
    from rlsp_async.replay import journal

    journal.check_journal = lambda path, may_lose=False: None
