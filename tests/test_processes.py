"""A child process ends with its parent."""

import os
import subprocess
import sys
import textwrap

from rlsp_async.processes import kill_with_parent

CHILD = """
import os, time
from rlsp_async.processes import kill_with_parent
print(kill_with_parent(os.getppid()), flush=True)
time.sleep(600)
"""
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}])
sys.stdin.readline()
"""


def test_a_process_that_is_not_the_parent_is_found_out():
    assert not kill_with_parent(os.getpid())


def test_a_child_is_killed_when_its_parent_dies():
    command = [sys.executable, "-c", textwrap.dedent(PARENT)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "True\n"
        parent.kill()
        # The output ends when the last process that holds it has ended: the child would sleep for ten minutes.
        assert parent.communicate(timeout=30) == ("", None)
