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


def test_all_children_are_killed_whichever_thread_started_them():
    code = """
        import subprocess, sys, threading
        from rlsp_async.processes import kill_children
        children = []
        start = lambda: children.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
        start()
        ended = threading.Event()
        thread = threading.Thread(target=lambda: (start(), ended.wait()))
        thread.start()
        while len(children) < 2:
            pass
        assert sorted(kill_children()) == sorted(child.pid for child in children)
        print([child.wait() for child in children])
        ended.set()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "[-9, -9]\n", done.stderr
