"""Bounds on a model's chat template, which is a program from a directory that somebody else made.

    check_template(text)     once, when a tokenizer is loaded: its size, and a try-out in a process with limits
    with bounded(what): ...  each rendering: ends after RENDER_S, in the main thread, where signals arrive; and in
                             every thread when the process would grow by more than MEMORY_MB

The try-out renders two short conversations with jinja2 alone. A template that loops, computes or fills memory for ever
is found there, whatever it does; one that refuses such conversations is not, since prompts are rendered later.
"""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

from rlsp_async.errors import DataError

MAX_CHARACTERS = 500_000
"""Longest template; released ones have up to 20,000 characters."""
MAX_RENDERED = 20_000_000
"""Longest rendered conversation, in characters."""
RENDER_S = 10
"""Seconds, and CPU seconds, for one rendering."""
MEMORY_MB = 1024
_TRY = """\
import json, sys
from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
made = json.load(sys.stdin)
def refuse(text): raise TemplateError(text)
env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
env.globals.update(raise_exception=refuse, strftime_now=lambda form: "")
env.filters["tojson"] = lambda value, **options: json.dumps(value)
for messages in made["conversations"]:
    try:
        env.from_string(made["template"]).render(
            messages=messages, add_generation_prompt=True, bos_token="<s>", eos_token="</s>", tools=None)
    except MemoryError:
        raise
    except Exception:
        pass
"""


def check_template(template: str, where: str) -> None:
    """Raises DataError when a template is too long, or takes too long or too much memory for a short conversation."""
    if len(template) > MAX_CHARACTERS:
        raise DataError(f"{where}: its chat template has {len(template):,} characters; at most {MAX_CHARACTERS:,}")
    user = {"role": "user", "content": "What is 1 + 1?"}
    made = {"template": template, "conversations": [[user], [{"role": "system", "content": "Answer."}, user]]}
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _TRY],
            input=json.dumps(made),
            text=True,
            check=False,
            capture_output=True,
            timeout=6 * RENDER_S,  # a wall clock for a machine that is busy; the CPU limit ends a loop much sooner
            preexec_fn=_limit,
        )
    except subprocess.TimeoutExpired:
        raise _endless(where) from None
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise _endless(where)
    if "MemoryError" in done.stderr:
        raise DataError(f"{where}: its chat template needs more than {MEMORY_MB} MiB for a short conversation")


@contextlib.contextmanager
def bounded(what: str) -> Iterator[None]:
    """Ends the block with a DataError after RENDER_S, or when the process would grow by more than MEMORY_MB.

    Time has no bound outside of the main thread.
    """
    try:
        with _bounded_memory(), _bounded_time(what):
            yield
    except MemoryError:
        raise DataError(f"{what}: the chat template needs more than {MEMORY_MB} MiB") from None


@contextlib.contextmanager
def _bounded_memory() -> Iterator[None]:
    """Lowers the limit of the address space: a template may ask for more than the machine has, and would have it ended.

    The limit holds for all threads of the process, which need far less than MEMORY_MB in the meantime.
    """
    with open("/proc/self/statm", encoding="ascii") as file:
        present = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    wanted = present + (MEMORY_MB << 20)
    if before[0] != resource.RLIM_INFINITY and before[0] <= wanted:
        yield
        return
    resource.setrlimit(resource.RLIMIT_AS, (wanted, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextlib.contextmanager
def _bounded_time(what: str) -> Iterator[None]:
    """Ends the block with a DataError after RENDER_S; without a bound outside of the main thread."""
    if threading.current_thread() is not threading.main_thread() or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield
        return

    def stop(*_: object) -> None:
        raise DataError(f"{what}: the chat template does not end within {RENDER_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, RENDER_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (RENDER_S, RENDER_S + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MB << 20, MEMORY_MB << 20))


def _endless(where: str) -> DataError:
    return DataError(f"{where}: its chat template does not end within {RENDER_S} s for a short conversation")
